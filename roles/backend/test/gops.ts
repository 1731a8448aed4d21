/** A stream of pictures and sounds that hold nothing, a second at a time. */
import type { StreamEvent } from '@starling/media/access-unit';

/** The avcC of x264 at 1280x720, high profile, level 3.2; another `profile` makes another configuration of it. */
export function avcConfig(profile = 0x64): Uint8Array {
  const config = Uint8Array.from(
    Buffer.from(
      '01640020ffe1001d67640020acb402802dd80b50101014000003000400000301e03c60ca80' +
        '01000568ef05f2c0fdf8f800',
      'hex',
    ),
  );
  config[1] = profile;
  return config;
}
export const videoTrack = {
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  config: avcConfig(),
  codecString: 'avc1.640020',
  widthPx: 1280,
  heightPx: 720,
  frameDurationTicks: 3600,
} as const;
export const audioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(0x11, 0x90), // AAC-LC, 48 kHz, stereo
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount: 2,
} as const;
/** 25 pictures a second, a key frame each second. */
const FRAME_TICKS = 3600;
export const GOP_FRAMES = 25;
/** Long ago: times on the wire must not depend on it. */
const START_FRAME = 40_000_000;

export const opening: StreamEvent[] = [
  { type: 'timeline', epochUnixMs: 1_700_000_000_000 },
  { type: 'track', track: videoTrack },
  { type: 'track', track: { ...videoTrack, trackId: 1 } },
  { type: 'track', track: audioTrack },
];

export function gop(
  number: number,
  unitBytes = 100,
  between: readonly StreamEvent[] = [],
  discontinuity = 0,
): StreamEvent[] {
  const firstFrame = START_FRAME + number * GOP_FRAMES;
  const cue = {
    mediaSequenceNumber: number,
    discontinuitySequence: discontinuity,
    startTicks: firstFrame * FRAME_TICKS,
    programDateTimeUnixMs: 1_700_000_000_000,
    programmeId: 'p',
    targetDurationMs: 1000,
    isIndependent: true,
  };
  const units = Array.from({ length: GOP_FRAMES }, (_, index): StreamEvent[] => {
    const video = (firstFrame + index) * FRAME_TICKS;
    const audio = Math.round((video / 90_000) * 48_000);
    const data = new Uint8Array(unitBytes);
    const at = (ticks: number) => ({ trackId: 0, dtsTicks: ticks, ptsTicks: ticks, data });
    return [
      { type: 'unit', unit: { kind: 'video', isRandomAccess: index === 0, ...at(video) } },
      // A second picture of another rendition, which nobody outside gets.
      { type: 'unit', unit: { kind: 'video', isRandomAccess: index === 0, ...at(video), trackId: 1 } },
      { type: 'unit', unit: { kind: 'audio', isRandomAccess: true, ...at(audio) } },
    ];
  });
  return [{ type: 'cue', cue }, ...between, ...units.flat()];
}
