/** A channel made of numbers: 25 pictures a second, GOPs of 2 s, AAC at 48 kHz; one byte pattern per unit. */
import type { AudioTrack, StreamEvent, Track, VideoTrack } from '@starling/media/access-unit';
import { compareTicks } from '@starling/media/time';

const FRAME_TICKS = 3600;
const GOP_FRAMES = 50;

export const videoTrack: VideoTrack = {
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  // AVCDecoderConfigurationRecord: version, profile 66, compatibility, level 10, 4-byte lengths, one SPS (160x96), one PPS
  config: Uint8Array.from(Buffer.from('0142c00affe100096742c00ada0282c68001000468ce3c80', 'hex')),
  codecString: 'avc1.42c00a',
  widthPx: 160,
  heightPx: 96,
  frameDurationTicks: FRAME_TICKS,
};

export const audioTrack: AudioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(0x11, 0x90), // AAC-LC, 48 kHz, stereo
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount: 2,
};

export const head: readonly StreamEvent[] = [
  { type: 'timeline', epochUnixMs: 1_700_000_000_000 },
  { type: 'track', track: videoTrack },
  { type: 'track', track: audioTrack },
];

/** Two pictures and two sounds. */
export const ladder: readonly Track[] = [
  videoTrack,
  { ...videoTrack, trackId: 1, widthPx: 80, heightPx: 48 },
  audioTrack,
  { ...audioTrack, trackId: 4, language: 'de' },
];

export const ladderHead: readonly StreamEvent[] = [
  { type: 'timeline', epochUnixMs: 1_700_000_000_000 },
  ...ladder.map((track): StreamEvent => ({ type: 'track', track })),
];

/** {@link segment}, with each unit on every track of its kind. */
export function ladderSegment(mediaSequenceNumber: number, tracks = ladder): StreamEvent[] {
  return segment(mediaSequenceNumber).flatMap((event): StreamEvent[] => {
    if (event.type !== 'unit') return [event];
    const { unit } = event;
    return tracks
      .filter(({ kind }) => kind === unit.kind)
      .map(({ trackId }) => {
        const data = unit.data.map((byte, i) => (i < 5 ? byte : byte ^ trackId));
        return { type: 'unit', unit: { ...unit, trackId, data } };
      });
  });
}

/** One segment's cue and units, in the order of the contract. */
export function segment(mediaSequenceNumber: number, unitBytes = 200): StreamEvent[] {
  const startTicks = mediaSequenceNumber * GOP_FRAMES * FRAME_TICKS;
  const units: { hz: number; event: StreamEvent & { type: 'unit' } }[] = [];
  for (let frame = 0; frame < GOP_FRAMES; frame++) {
    const dtsTicks = startTicks + frame * FRAME_TICKS;
    const data = new Uint8Array(unitBytes).fill(frame + 1);
    new DataView(data.buffer).setUint32(0, unitBytes - 4); // one NAL unit: an IDR slice, or another
    data[4] = frame === 0 ? 0x65 : 0x41;
    const unit = {
      kind: 'video' as const,
      trackId: 0,
      dtsTicks,
      ptsTicks: dtsTicks,
      isRandomAccess: frame === 0,
      data,
    };
    units.push({ hz: 90_000, event: { type: 'unit', unit } });
  }
  const firstAudio = Math.ceil((mediaSequenceNumber * 96_000) / 1024);
  const nextAudio = Math.ceil(((mediaSequenceNumber + 1) * 96_000) / 1024);
  for (let index = firstAudio; index < nextAudio; index++) {
    const dtsTicks = index * 1024;
    const data = new Uint8Array(20).fill(index & 0xff);
    const unit = {
      kind: 'audio' as const,
      trackId: 0,
      dtsTicks,
      ptsTicks: dtsTicks,
      isRandomAccess: true,
      data,
    };
    units.push({ hz: 48_000, event: { type: 'unit', unit } });
  }
  units.sort((a, b) => compareTicks(a.event.unit.dtsTicks, a.hz, b.event.unit.dtsTicks, b.hz));
  const cue = {
    mediaSequenceNumber,
    discontinuitySequence: 0,
    startTicks,
    programDateTimeUnixMs: 1_700_000_000_000 + startTicks / 90,
    programmeId: 'p',
    targetDurationMs: 2000,
    isIndependent: true,
  };
  return [{ type: 'cue', cue }, ...units.map(({ event }) => event)];
}
