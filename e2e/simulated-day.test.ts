/**
 * A day of the demo channel on an injected clock, through playout, publisher, RTMP, two frontends and their
 * playlists. The second frontend joins in the middle of the day, and nobody can tell them apart.
 *
 * Two hours by default, in which the 32-bit timestamps of RTMP wrap; STARLING_SOAK=1 plays the day.
 */
import { createHash } from 'node:crypto';
import { planAsset } from '@starling/backend/house-format';
import { type PlayableAsset, Playout } from '@starling/backend/playout';
import { Stream } from '@starling/frontend/stream';
import type { AccessUnit, Track } from '@starling/media/access-unit';
import { aacTrack } from '@starling/media/codec/aac';
import { avcTrack } from '@starling/media/codec/avc';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { mediaPlaylist, serialiseMediaPlaylist } from '@starling/media/hls/playlist';
import { DEFAULT_PART_TARGET_MS } from '@starling/media/hls/segmenter';
import { RtmpClientSession, RtmpServerSession } from '@starling/media/rtmp/session';
import type { AssetFacts, Run } from '@starling/model/schedule';
import { Channel } from '@starling/net/channel';
import { pino } from 'pino';
import { expect, it } from 'vitest';

const SECOND = 90_000;
const HOUR = 3600 * SECOND;
const isSoak = process.env.STARLING_SOAK !== undefined;
const hours = isSoak ? 24 : 2;
/** RTMP counts milliseconds in 32 bits: they wrap in the first half. */
const startTicks = Math.floor(2 ** 32 / 1000 - (hours / 4) * 3600) * SECOND;
const logger = pino({ level: 'silent' });

/** The test card's form, with units of a few bytes. */
const plan = planAsset(32, 25);
const tracks: readonly Track[] = [
  avcTrack(
    // AVCDecoderConfigurationRecord of x264 at 1280x720, high profile, level 3.2
    Buffer.from(
      '01640020ffe1001d67640020acb402802dd80b50101014000003000400000301e03c60ca8001000568ef05f2c0fdf8f800',
      'hex',
    ),
  ),
  aacTrack(Uint8Array.of(0x11, 0x90)),
];
const facts: AssetFacts = {
  contentHash: 'c'.repeat(64),
  configHash: 'd'.repeat(64),
  durationTicks: plan.durationTicks,
  segmentCount: plan.gopStartFrames.length,
  sizeBytes: 1,
  widthPx: 1280,
  heightPx: 720,
  frameRate: 25,
  videoTracks: [{ widthPx: 1280, heightPx: 720, bitrateBps: 2_000_000 }],
  audioTracks: [{ language: null, loudnessLufs: null, gainDb: 0 }],
  subtitles: [],
  hasPictures: false,
};

function unitsOfSegment(index: number): AccessUnit[] {
  const { gopStartFrames, frameCount, audioUnitCount, frameDurationTicks } = plan;
  const [from = 0, to = frameCount] = gopStartFrames.slice(index, index + 2);
  const firstAudio = (frame: number) => Math.ceil((frame * frameDurationTicks) / 1920);
  const unit = (
    kind: 'video' | 'audio',
    number: number,
    ticks: number,
    isRandomAccess: boolean,
  ): AccessUnit => ({
    kind,
    trackId: 0,
    dtsTicks: ticks,
    ptsTicks: ticks,
    isRandomAccess,
    data: new TextEncoder().encode(`${kind} ${number}`),
  });
  const units: AccessUnit[] = [];
  for (let frame = from; frame < to; frame++) {
    units.push(unit('video', frame, frame * frameDurationTicks, frame === from));
  }
  const audioEnd = to === frameCount ? audioUnitCount : firstAudio(to);
  for (let number = firstAudio(from); number < audioEnd; number++) {
    units.push(unit('audio', number, number * 1024, true));
  }
  return units;
}

const segments = plan.gopStartFrames.map((frame) => ({
  startTicks: frame * plan.frameDurationTicks,
  offsetBytes: 1,
  sizeBytes: 1,
}));
const storedUnits = segments.map((_, index) => unitsOfSegment(index));
const asset: PlayableAsset = {
  index: { facts, initSizeBytes: 1, segments },
  tracks,
  segmentEndTicks: (index) => segments[index + 1]?.startTicks ?? plan.durationTicks,
  readSegment: async (index) => storedUnits[index] ?? [],
};
const run: Run = {
  startTicks: 0,
  firstMediaSequenceNumber: 0,
  firstDiscontinuitySequence: 0,
  loop: ['card'],
};

const names = {
  segment: (number: number) => `${number}.m4s`,
  part: (number: number, index: number) => `${number}.${index}.m4s`,
  init: (id: string) => `init-${id}.mp4`,
};

/** Takes a channel over RTMP, on memory instead of a socket. */
class SimulatedFrontend {
  readonly stream = new Stream({
    channel: 'demo',
    partTargetMs: DEFAULT_PART_TARGET_MS,
    windowDurationMs: 30_000,
    logger,
  });
  /** Of what its segments hold, by number. */
  readonly hashes = new Map<number, string>();

  constructor(channel: Channel) {
    const client = new RtmpClientSession({
      mode: 'publish',
      tcUrl: 'rtmp://frontend/live',
      app: 'live',
      streamName: 'demo?token=t',
      handshakeRandomBytes: new Uint8Array(1528),
      maxMessageBytes: 65_536,
    });
    const server = new RtmpServerSession({
      handshakeRandomBytes: new Uint8Array(1528),
      maxMessageBytes: 1 << 20,
    });
    const demuxer = new FlvDemuxer();
    const publisher = this.stream.addPublisher();
    this.stream.listen({
      made: (_rendition, event) => {
        if (event.type !== 'segment') return;
        const hash = createHash('sha256');
        for (const { bytes } of event.segment.parts) hash.update(bytes);
        this.hashes.set(event.segment.cue.mediaSequenceNumber, hash.digest('base64'));
      },
    });
    let isReady = false;
    const receive = (bytes: Uint8Array) => {
      for (const event of server.receive(bytes)) {
        if (event.type === 'publish') server.acceptPublish();
        if (event.type === 'message') {
          for (const one of demuxer.push(event.message)) publisher.event(one, 0);
        }
      }
    };
    /** Carries what the client has to say to the server, and the answers back, until both are silent. */
    const exchange = () => {
      for (;;) {
        const up = client.takeOutput();
        if (up !== undefined) receive(up);
        const down = server.takeOutput();
        for (const event of down === undefined ? [] : client.receive(down))
          isReady ||= event.type === 'ready';
        if (up === undefined && down === undefined) return;
      }
    };
    exchange();
    if (!isReady) throw new Error('the frontend has not accepted the push');
    channel.join({
      isDrained: false, // what it was sent stays here: its memory is not to be used again
      send: receive,
      whenDrained: async () => {},
      overtaken: () => {},
    });
  }

  playlist(): string {
    const [rendition] = this.stream.renditions;
    if (rendition === undefined) throw new Error('there is no rendition');
    return serialiseMediaPlaylist(
      mediaPlaylist(rendition.window, names, { partTargetMs: DEFAULT_PART_TARGET_MS, otherRenditions: [] }),
    );
  }
}

it(`${hours} hours of the demo channel have one numbering and the same bytes on both frontends`, {
  timeout: 1_200_000,
}, async () => {
  const playout = new Playout({
    programme: { runs: [run], assets: new Map([['card', facts]]), epochUnixMs: Date.UTC(2026, 0, 1) },
    openAsset: async () => asset,
    startTicks,
    logger,
  });
  const channel = new Channel('demo');
  const first = new SimulatedFrontend(channel);
  let second: SimulatedFrontend | undefined;
  let compared = 0;
  for (let ticks = startTicks; ticks < startTicks + hours * HOUR; ticks += SECOND) {
    if (ticks === startTicks + (hours / 2) * HOUR) second = new SimulatedFrontend(channel);
    await playout.readAhead();
    channel.push(playout.eventsUntil(ticks + SECOND));
    const elapsedSeconds = (ticks - startTicks) / SECOND;
    // Not in step with the segments, so that all states of a playlist are seen.
    if (elapsedSeconds < 40 || elapsedSeconds % 7 !== 0) continue;
    const text = first.playlist();
    if (text.includes('#EXT-X-DISCONTINUITY\n') || !text.includes('#EXT-X-DISCONTINUITY-SEQUENCE:0\n')) {
      throw new Error(`a discontinuity after ${elapsedSeconds} s:\n${text}`);
    }
    const listed = [...text.matchAll(/^(\d+)\.m4s$/gm)].map(([, number]) => Number(number));
    const from = Number(/#EXT-X-MEDIA-SEQUENCE:(\d+)/.exec(text)?.[1]);
    if (listed.length !== 15 || listed.some((number, i) => number !== from + i)) {
      throw new Error(`numbers after ${elapsedSeconds} s:\n${text}`);
    }
    if (second !== undefined) {
      expect(second.playlist()).toBe(text);
      compared++;
    }
  }

  const numbers = [...first.hashes.keys()];
  expect(numbers.length).toBeGreaterThanOrEqual(hours * 1800 - 1);
  const firstNumber = Math.floor(startTicks / (2 * SECOND));
  expect(numbers.every((number, i) => number === firstNumber + i)).toBe(true);
  const joined = [...(second?.hashes ?? [])];
  expect(joined.length).toBeGreaterThanOrEqual(hours * 900);
  expect(joined.filter(([number, hash]) => first.hashes.get(number) !== hash)).toEqual([]);
  expect(compared).toBeGreaterThan(hours * 250);
});
