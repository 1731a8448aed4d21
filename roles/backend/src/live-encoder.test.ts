import { execFileSync } from 'node:child_process';
import {
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
  type VideoTrack,
} from '@starling/media/access-unit';
import { FlvDemuxer, FlvReader } from '@starling/media/flv/demux';
import type { Transcode } from '@starling/model/stream-input';
import { pino } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';
import { EncoderOutput } from './encoder-output.ts';
import { houseSettings, RUNGS, type Rung, withoutVuiTiming } from './house-format.ts';
import { LiveEncoder } from './live-encoder.ts';

const SMALL: Rung = { widthPx: 640, heightPx: 360, level: '3.1', maxBitrateBps: 1_000_000 };
const opened: LiveEncoder[] = [];
afterEach(() => {
  for (const encoder of opened.splice(0)) encoder.end();
});

/** What an encoder of FFmpeg's sends: another size, rate and configuration than the house's. */
function publisher(seconds: number): StreamEvent[] {
  const args = `-v error -f lavfi -i testsrc2=s=426x240:r=30 -f lavfi -i sine=r=44100 -t ${seconds} -c:v libx264 -preset ultrafast -g 45 -pix_fmt yuv420p -c:a aac -ac 1 -f flv pipe:1`;
  const demuxer = new FlvDemuxer();
  const flv = execFileSync('ffmpeg', args.split(' '), { maxBuffer: 2 ** 26 });
  return new FlvReader().push(flv).flatMap((message) => demuxer.push(message));
}

/** The same so many seconds later on the publisher's clock. */
function later(events: readonly StreamEvent[], seconds: number): StreamEvent[] {
  return events.map((event): StreamEvent => {
    if (event.type !== 'unit') return event;
    const { unit } = event;
    const ticks = seconds * (unit.kind === 'video' ? 90_000 : 44_100);
    return {
      type: 'unit',
      unit: { ...unit, dtsTicks: unit.dtsTicks + ticks, ptsTicks: unit.ptsTicks + ticks },
    };
  });
}

function openEncoder(transcode: Partial<Transcode> = {}, rungs: readonly Rung[] = [RUNGS['720p']]) {
  const events: StreamEvent[] = [];
  const log: string[] = [];
  const encoder = new LiveEncoder({
    stream: 'cam',
    transcode: { preset: 'ultrafast', encoder: 'x264', ...transcode },
    rungs,
    logger: pino({ level: 'info' }, { write: (line: string) => log.push(line) }),
    onEvent: (event) => events.push(event),
  });
  opened.push(encoder);
  return { encoder, events, log };
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((wake) => setTimeout(wake, 20));
}

const tracksOf = (events: readonly StreamEvent[]): Track[] =>
  events.flatMap((event) => (event.type === 'track' ? [event.track] : []));
const unitsOf = (events: readonly StreamEvent[], index: number) =>
  events.flatMap((event) => (event.type === 'unit' && trackIndex(event.unit) === index ? [event.unit] : []));
const configsOf = (tracks: readonly Track[]) =>
  tracks.map(({ config }) => Buffer.from(config).toString('hex'));

/** What an import writes into the parameter sets. */
function houseConfigs(): string[] {
  const args = [
    ...'-v error -f lavfi -i testsrc2=s=1280x720:r=25 -f lavfi -i sine=r=48000 -t 0.5 -pix_fmt yuv420p -ac 2'.split(
      ' ',
    ),
    ...houseSettings.video,
    ...['-level:v', RUNGS['720p'].level],
    ...houseSettings.audio,
    ...'-f mp4 -video_track_timescale 90000 -movflags +empty_moov+default_base_moof+frag_keyframe pipe:1'.split(
      ' ',
    ),
  ];
  const tracks = tracksOf(new EncoderOutput().push(execFileSync('ffmpeg', args, { maxBuffer: 2 ** 26 })));
  return configsOf(
    tracks.map((track) =>
      track.kind === 'video' ? { ...track, config: withoutVuiTiming(track.config) } : track,
    ),
  );
}

describe('a live stream that is transcoded', () => {
  it.each(['ultrafast', 'veryfast', 'medium'] as const)(
    'has the codec configuration of an asset, with preset %s',
    async (preset) => {
      const { encoder, events } = openEncoder({ preset });
      for (const event of publisher(1)) encoder.push(event);
      await until(() => tracksOf(events).length >= 2);
      expect(configsOf(tracksOf(events))).toEqual(houseConfigs());
      expect(encoder.tracks).toEqual(tracksOf(events));
    },
    30_000,
  );

  it('has every rung of the ladder, with key frames at the same times, 2 s apart, and no picture lost', async () => {
    const { encoder, events } = openEncoder({}, [RUNGS['720p'], SMALL]);
    for (const event of publisher(5)) encoder.push(event);
    await until(() => unitsOf(events, 1).length >= 140);
    const sizes = tracksOf(events).flatMap((track) =>
      track.kind === 'video' ? [[track.widthPx, track.heightPx]] : [],
    );
    expect(sizes).toEqual([
      [1280, 720],
      [640, 360],
    ]);
    const keys = [0, 1].map((index) => unitsOf(events, index).filter(({ isRandomAccess }) => isRandomAccess));
    const [large = [], small = []] = keys.map((units) => units.map(({ dtsTicks }) => dtsTicks / 90_000));
    expect(large.length).toBe(3);
    expect(small.slice(0, 3)).toEqual(large);
    expect(large[1] ?? 0).toBeCloseTo((large[0] ?? 0) + 2, 1);
    expect(large[2] ?? 0).toBeCloseTo((large[0] ?? 0) + 4, 1);
    const sound = tracksOf(events).find(({ kind }) => kind === 'audio');
    expect(sound && timescaleHz(sound)).toBe(48_000);
  }, 30_000);

  it('goes on after the clock of the publisher was set', async () => {
    const { encoder, events } = openEncoder();
    const [first, second] = [publisher(2), publisher(2)];
    const shifted = later(first, 100);
    for (const event of shifted) encoder.push(event);
    await until(() => unitsOf(events, 0).length > 30);
    const before = unitsOf(events, 0).length;
    for (const event of second) encoder.push(event);
    await until(() => unitsOf(events, 0).length > before + 30);
  }, 30_000);

  it('is encoded by x264 where the hardware is not there', async () => {
    const { encoder, events, log } = openEncoder({ encoder: 'nvenc' });
    // An encoder that failed is tried again at a later key frame.
    const second = publisher(1);
    for (let round = 0; tracksOf(events).length === 0; round++) {
      for (const event of later(second, round)) encoder.push(event);
      await new Promise((wake) => setTimeout(wake, 250));
    }
    expect((tracksOf(events)[0] as VideoTrack | undefined)?.widthPx).toBe(1280);
    expect(log.join('')).toContain('x264 takes its place');
  }, 30_000);

  it('goes through as it is where FFmpeg has no way to take its codec', () => {
    const { encoder, events, log } = openEncoder();
    const [track] = tracksOf(publisher(1));
    if (track?.kind !== 'video') throw new Error('no video');
    encoder.push({ type: 'track', track: { ...track, codec: 'av1' } });
    const data = Uint8Array.of(1);
    const unit = { kind: 'video', trackId: 0, dtsTicks: 0, ptsTicks: 0, isRandomAccess: true, data } as const;
    encoder.push({ type: 'unit', unit });
    expect(events.at(-1)).toEqual({ type: 'unit', unit });
    expect(log.join('')).toContain('goes through as it is');
  });
});
