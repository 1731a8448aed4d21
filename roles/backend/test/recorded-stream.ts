/** A stream of real pictures and sound for tests of recordings: groups of pictures of 2 s, as a channel has them. */
import type { StreamEvent, Track } from '@starling/media/access-unit';
import { parseFragment } from '@starling/media/fmp4/fragment';
import { parseInitSegment } from '@starling/media/fmp4/init-segment';
import { ffmpeg } from './flash-and-beep.ts';

export const GOP_MS = 2000;
const GOP_TICKS = 180_000;
const EPOCH_UNIX_MS = Date.UTC(2026, 0, 1);

export interface RecordedStream {
  readonly tracks: readonly Track[];
  /** The cue and the units of a group of pictures; the material repeats. */
  gop(number: number, cue?: { readonly discontinuitySequence?: number }): StreamEvent[];
}

/** @param size of the picture */
export function makeMovie(size: string): Promise<Buffer> {
  return ffmpeg(
    `-f lavfi -i testsrc2=size=${size}:rate=25:duration=8 -f lavfi -i sine=sample_rate=48000:duration=8`,
    '-c:v libx264 -preset ultrafast -bf 0 -g 50 -keyint_min 50 -sc_threshold 0 -threads 1 -pix_fmt yuv420p',
    '-c:a aac -video_track_timescale 90000 -movflags +frag_keyframe+empty_moov+default_base_moof -f mp4 -',
  );
}

/** @param bytes of a movie that {@link makeMovie} made */
export function streamOf(bytes: Uint8Array): RecordedStream {
  const tracks = parseInitSegment(bytes).map((track) =>
    track.kind === 'video' ? { ...track, frameDurationTicks: undefined } : track,
  );
  const hz = { video: 90_000, audio: 48_000 };
  const unitTicks = { video: 3600, audio: 1024 };
  const parsed = parseFragment(bytes, tracks);
  // On exact grids: FFmpeg has the picture start after the sound's priming.
  const units = (['video', 'audio'] as const).flatMap((kind) =>
    parsed
      .filter((unit) => unit.kind === kind)
      .map((unit, index) => ({
        ...unit,
        dtsTicks: index * unitTicks[kind],
        ptsTicks: index * unitTicks[kind],
      }))
      .filter(({ dtsTicks }) => dtsTicks < 8 * hz[kind]),
  );
  const secondsOf = (unit: (typeof units)[number]) => unit.dtsTicks / hz[unit.kind];
  return {
    tracks,
    gop(number, { discontinuitySequence = 0 } = {}) {
      const place = number % 4;
      const shiftSeconds = (number - place) * 2;
      const within = units
        .filter((unit) => Math.floor(secondsOf(unit) / 2) === place)
        .sort((a, b) => secondsOf(a) - secondsOf(b) || (a.kind === 'video' ? -1 : 1));
      const startTicks = number * GOP_TICKS;
      const cue = {
        mediaSequenceNumber: number,
        discontinuitySequence,
        startTicks,
        programDateTimeUnixMs: EPOCH_UNIX_MS + startTicks / 90,
        programmeId: 'p',
        targetDurationMs: GOP_MS,
        isIndependent: true,
      };
      return [
        { type: 'cue', cue },
        ...within.map((unit): StreamEvent => {
          const shiftTicks = shiftSeconds * hz[unit.kind];
          const times = { dtsTicks: unit.dtsTicks + shiftTicks, ptsTicks: unit.ptsTicks + shiftTicks };
          return { type: 'unit', unit: { ...unit, ...times } };
        }),
      ];
    },
  };
}
