/**
 * A week of a schedule on an injected clock: forty programmes, filler, the night when the clocks change, and edits
 * on the air. Every access unit has to be where the schedule says.
 *
 * Two days around the night by default; STARLING_SOAK=1 plays the week.
 */
import type { AccessUnit, AudioTrack, Track, VideoTrack } from '@starling/media/access-unit';
import { compareTicks } from '@starling/media/time';
import { editRuns, extendRuns } from '@starling/model/runs';
import { type AssetFacts, numberedOn, programmeAt, type Run } from '@starling/model/schedule';
import type { Schedule, ScheduleProgramme } from '@starling/model/schedule-definition';
import { Stretches } from '@starling/model/stretches';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { type HouseFrameRate, planAsset } from '../src/house-format.ts';
import { type PlayableAsset, Playout } from '../src/playout.ts';

const SECOND = 90_000;
const HOUR = 3600 * SECOND;
const DAY = 24 * HOUR;
const isSoak = process.env.STARLING_SOAK === '1';
/** The clocks of Berlin go forward on Sunday 2026-03-29 at 1:00 UTC. */
const epochUnixMs = Date.parse(isSoak ? '2026-03-24T00:00:00Z' : '2026-03-28T12:00:00Z');
const endTicks = isSoak ? 7 * DAY : 2 * DAY;

const VIDEO: VideoTrack = {
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  config: new Uint8Array(),
  codecString: 'avc1.640020',
  widthPx: 1280,
  heightPx: 720,
  frameDurationTicks: undefined,
};
const audio = (channelCount: number): AudioTrack => ({
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(channelCount),
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount,
});

/** What a unit's data says: place of the asset in the list, and of the unit on its track. */
function label(asset: number, index: number): Uint8Array {
  const data = new Uint8Array(8);
  new DataView(data.buffer).setUint32(0, asset);
  new DataView(data.buffer).setUint32(4, index);
  return data;
}

const assets = new Map<string, AssetFacts>();
const stored = new Map<string, PlayableAsset>();
const frameTicksOf: number[] = [];

function makeAsset(seconds: number, frameRate: HouseFrameRate, channelCount = 2): string {
  const number = frameTicksOf.length;
  const id = `asset-${number}`;
  const plan = planAsset(seconds, frameRate);
  const { frameDurationTicks, durationTicks, gopStartFrames, frameCount, audioUnitCount } = plan;
  frameTicksOf.push(frameDurationTicks);
  const facts: AssetFacts = {
    contentHash: number.toString(16).padStart(64, '0'),
    configHash: String(channelCount).padStart(64, '0'),
    durationTicks,
    segmentCount: gopStartFrames.length,
    sizeBytes: 1,
    widthPx: 1280,
    heightPx: 720,
    frameRate,
    videoTracks: [{ widthPx: 1280, heightPx: 720, bitrateBps: 2_000_000 }],
    audioTracks: [{ language: null, loudnessLufs: -20, gainDb: -3 }],
    subtitles: [],
    hasPictures: true,
  };
  assets.set(id, facts);
  const segments = gopStartFrames.map((frame) => ({
    startTicks: frame * frameDurationTicks,
    offsetBytes: 1,
    sizeBytes: 1,
  }));
  const firstAudio = (ticks: number) => Math.ceil(ticks / 1920);
  const units = segments.map(({ startTicks }, i) => {
    const endFrame = gopStartFrames[i + 1] ?? frameCount;
    const endAudio = i + 1 < segments.length ? firstAudio(segments[i + 1]?.startTicks ?? 0) : audioUnitCount;
    const found: AccessUnit[] = [];
    for (let frame = gopStartFrames[i] ?? 0; frame < endFrame; frame++) {
      const dtsTicks = frame * frameDurationTicks;
      const isRandomAccess = found.length === 0;
      found.push({
        kind: 'video',
        trackId: 0,
        dtsTicks,
        ptsTicks: dtsTicks,
        isRandomAccess,
        data: label(number, frame),
      });
    }
    for (let unit = firstAudio(startTicks); unit < endAudio; unit++) {
      const dtsTicks = unit * 1024;
      found.push({
        kind: 'audio',
        trackId: 0,
        dtsTicks,
        ptsTicks: dtsTicks,
        isRandomAccess: true,
        data: label(number, unit),
      });
    }
    return found;
  });
  stored.set(facts.contentHash, {
    index: { facts, initSizeBytes: 1, segments },
    tracks: [VIDEO, audio(channelCount)] as readonly Track[],
    segmentEndTicks: (i) => segments[i + 1]?.startTicks ?? durationTicks,
    readSegment: async (i) => units[i] ?? [],
  });
  return id;
}

const films = [makeAsset(5400, 24), makeAsset(3100, 25), makeAsset(1999, 30)];
const shows = [makeAsset(1480, 25), makeAsset(1210.3, 24), makeAsset(610, 50), makeAsset(297.7, 60)];
const filler = [
  makeAsset(31, 25),
  makeAsset(12.4, 24),
  makeAsset(7, 30),
  makeAsset(95, 25, 1),
  makeAsset(3.1, 60),
];

/** Thirty-nine programmes on the hour and off it, some twice at a time, and one that never fits. */
const programmes: ScheduleProgramme[] = Array.from({ length: 39 }, (_, i) => {
  const time = `${String((i * 5) % 24).padStart(2, '0')}:${String((i * 17) % 60).padStart(2, '0')}`;
  const items = i % 3 === 0 ? [films[i % films.length] ?? ''] : shows.slice(i % 4);
  return {
    start: `2026-03-${String(10 + (i % 7)).padStart(2, '0')}T${time}:${String((i * 7) % 60).padStart(2, '0')}`,
    repeat: i % 2 === 0 ? 'daily' : 'weekly',
    items,
    ...(i % 5 === 0 && { order: 'shuffle' }),
    ...(i % 7 === 0 && { loop: true, duration: '1:40:07' }),
    ...(i % 4 === 0 && { priority: 1 }),
  };
});
programmes.push({ start: '2026-03-10T02:30', repeat: 'daily', items: [shows[2] ?? ''], priority: 3 });

const weekly: Schedule = {
  timeZone: 'Europe/Berlin',
  seed: 11,
  filler: { items: filler, order: 'shuffle' },
  programmes,
};
const edits = [
  {
    atTicks: 0.2 * endTicks,
    effective: 'now',
    schedule: { ...weekly, seed: 12, programmes: programmes.slice(5) },
  },
  {
    atTicks: 0.5 * endTicks,
    effective: 'boundary',
    schedule: { ...weekly, filler: { items: filler.slice(2) } },
  },
  { atTicks: 0.8 * endTicks, effective: 'now', schedule: weekly },
] as const;

it('plays a schedule exactly, through the change of the clocks and edits on the air', {
  timeout: 600_000,
}, async () => {
  let schedule = weekly;
  let validFromTicks = 0;
  const stretches = () => new Stretches({ schedule, assets, epochUnixMs, validFromTicks });
  let runs: Run[] = [numberedOn([], assets, stretches().at(0).content)];
  const programme = () => ({ runs, assets, epochUnixMs });
  const playout = new Playout({
    programme: programme(),
    openAsset: async (contentHash) => {
      const asset = stored.get(contentHash);
      if (!asset) throw new Error('no such asset');
      return asset;
    },
    startTicks: 0,
    logger: pino({ level: 'silent' }),
  });

  const pending = [...edits];
  let position = programmeAt(runs, assets, 0);
  let segmentNumber: number | undefined;
  let lastVideo: { dtsTicks: number; frameTicks: number } | undefined;
  let lastAudioSamples: number | undefined;
  const worst = { videoGapTicks: 0, audioGapSamples: 0, offsetMs: 0 };
  const starts = new Set<number>();
  let unitCount = 0;
  let extendedTicks = 0;

  /** Where the units of the asset that is on belong. */
  const originAt = (ticks: number) => {
    if (!position || ticks >= position.endTicks || ticks < position.startTicks) {
      position = programmeAt(runs, assets, ticks);
    }
    if (!position) throw new Error(`nothing is on at ${ticks}`);
    return position;
  };
  const checkUnit = (unit: AccessUnit) => {
    const view = new DataView(unit.data.buffer);
    const [asset, index] = [view.getUint32(0), view.getUint32(4)];
    const frameTicks = frameTicksOf[asset] ?? 0;
    const isVideo = unit.kind === 'video';
    const on = originAt(isVideo ? unit.dtsTicks : Math.floor((unit.dtsTicks * 15) / 8));
    if (on.assetId !== `asset-${asset}`)
      throw new Error(`asset ${asset} at ${unit.dtsTicks}, not ${on.assetId}`);
    const originSamples = (on.originTicks * 8) / 15;
    const expected = isVideo ? on.originTicks + index * frameTicks : Math.round(originSamples + index * 1024);
    if (unit.dtsTicks !== expected)
      throw new Error(`${unit.kind} ${index} at ${unit.dtsTicks}, not ${expected}`);
    if (isVideo) {
      if (lastVideo) {
        const gapTicks = unit.dtsTicks - lastVideo.dtsTicks - lastVideo.frameTicks;
        worst.videoGapTicks = Math.max(worst.videoGapTicks, Math.abs(gapTicks) / lastVideo.frameTicks);
      }
      lastVideo = { dtsTicks: unit.dtsTicks, frameTicks };
      return;
    }
    const gapSamples = unit.dtsTicks - ((lastAudioSamples ?? unit.dtsTicks - 1024) + 1024);
    if (gapSamples < 0) throw new Error(`sound overlaps by ${-gapSamples} samples at ${unit.dtsTicks}`);
    worst.audioGapSamples = Math.max(worst.audioGapSamples, gapSamples);
    worst.offsetMs = Math.max(worst.offsetMs, Math.abs((unit.dtsTicks - originSamples - index * 1024) / 48));
    lastAudioSamples = unit.dtsTicks;
  };

  for (let nowTicks = 0; nowTicks < endTicks; nowTicks += 4 * SECOND) {
    if (nowTicks >= extendedTicks) {
      // As the coordinator does: ahead of time, a little more each time.
      runs = extendRuns(runs, stretches(), { assets, untilTicks: nowTicks + 30 * HOUR, maxCount: 5000 });
      extendedTicks = nowTicks + 6 * HOUR;
      playout.update(programme());
    }
    const [edit] = pending;
    if (edit && nowTicks >= edit.atTicks) {
      pending.shift();
      schedule = edit.schedule;
      const edited = editRuns({
        runs,
        schedule,
        assets,
        epochUnixMs,
        earliestTicks: nowTicks + 3 * SECOND,
        effective: edit.effective,
        untilTicks: nowTicks + 30 * HOUR,
        maxCount: 5000,
      });
      ({ runs, validFromTicks } = edited);
      playout.update(programme());
      position = undefined;
    }
    for (let isMore = true; isMore; ) {
      await playout.readAhead();
      const events = playout.eventsUntil(nowTicks + 4 * SECOND);
      isMore = events.length > 0;
      for (const event of events) {
        if (event.type === 'cue') {
          const { mediaSequenceNumber, startTicks } = event.cue;
          if (segmentNumber !== undefined && mediaSequenceNumber !== segmentNumber + 1) {
            throw new Error(`segment ${mediaSequenceNumber} after ${segmentNumber}`);
          }
          segmentNumber = mediaSequenceNumber;
          starts.add(startTicks);
        } else if (event.type === 'unit') {
          checkUnit(event.unit);
          unitCount += 1;
        }
      }
    }
  }

  if (isSoak) console.log(`${unitCount} units, at worst`, worst);
  // Units of both tracks up to the end, and nothing in between left out.
  expect(compareTicks(lastVideo?.dtsTicks ?? 0, 90_000, endTicks - 3751, 90_000)).toBeGreaterThan(0);
  expect(unitCount).toBeGreaterThan((endTicks / SECOND) * (46 + 24));
  expect(worst.videoGapTicks).toBeLessThanOrEqual(1);
  expect(worst.audioGapSamples).toBeLessThan(48_000 / 25);
  expect(worst.offsetMs).toBeLessThan(23);
  // Every programme began on the tick, and 2:30 was on every day, on Sunday at 3:30.
  for (const run of runs) if (run.startTicks < endTicks) expect(starts).toContain(run.startTicks);
  expect(starts).toContain((Date.parse('2026-03-29T03:30+02:00') - epochUnixMs) * 90);
  expect(pending).toEqual([]);
});
