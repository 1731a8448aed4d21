/**
 * HLS playlists: built as data, then serialised.
 *
 * Source: RFC 8216 section 4.3 (the tags) and draft-pantos-hls-rfc8216bis (multivariant).
 */
import type { VideoTrack } from '../access-unit.ts';
import { parseFragment } from '../fmp4/fragment.ts';
import { VIDEO_TIMESCALE_HZ } from '../time.ts';
import type { LiveWindow } from './live-window.ts';
import type { Segment } from './segmenter.ts';

/** What players expect of playlists with fragmented MP4; EXT-X-MAP needs 6 (RFC 8216, 7). */
const VERSION = 7;

export interface MediaPlaylist {
  /** Whole seconds (EXT-X-TARGETDURATION). */
  readonly targetDurationSeconds: number;
  readonly mediaSequenceNumber: number;
  readonly discontinuitySequence: number;
  /** A decoder can start at every listed segment. */
  readonly isIndependentSegments: boolean;
  readonly segments: readonly MediaPlaylistSegment[];
}

export interface MediaPlaylistSegment {
  readonly uri: string;
  readonly initUri: string;
  /** A discontinuity lies between the segment before it and this one. */
  readonly isDiscontinuous: boolean;
  readonly programDateTimeUnixMs: number;
  /** Ticks of 1/90000 s. */
  readonly durationTicks: number;
}

/**
 * The media playlist of a window that is playable.
 *
 * The first segment never carries a discontinuity: the tag goes with the segment before it, and
 * the discontinuity sequence of the playlist rises by one instead (RFC 8216, 6.2.2).
 */
export function mediaPlaylist(
  window: LiveWindow,
  names: { segment(mediaSequenceNumber: number): string; init(id: string): string },
): MediaPlaylist {
  const { segments } = window;
  return {
    targetDurationSeconds: Math.ceil(window.targetDurationMs / 1000),
    mediaSequenceNumber: window.firstMediaSequenceNumber,
    discontinuitySequence: window.discontinuitySequence,
    isIndependentSegments: segments.every(
      ({ cue, parts }) => cue.isIndependent && parts[0]?.isIndependent === true,
    ),
    segments: segments.map(({ cue, init, durationTicks }, index) => {
      const previous = segments[index - 1]?.cue ?? cue;
      return {
        uri: names.segment(cue.mediaSequenceNumber),
        initUri: names.init(init.id),
        isDiscontinuous: cue.discontinuitySequence !== previous.discontinuitySequence,
        programDateTimeUnixMs: cue.programDateTimeUnixMs,
        durationTicks,
      };
    }),
  };
}

/** Writes a live media playlist: there is never an EXT-X-ENDLIST. */
export function serialiseMediaPlaylist(playlist: MediaPlaylist): string {
  const lines = [
    '#EXTM3U',
    `#EXT-X-VERSION:${VERSION}`,
    `#EXT-X-TARGETDURATION:${playlist.targetDurationSeconds}`,
    `#EXT-X-MEDIA-SEQUENCE:${playlist.mediaSequenceNumber}`,
    `#EXT-X-DISCONTINUITY-SEQUENCE:${playlist.discontinuitySequence}`,
  ];
  if (playlist.isIndependentSegments) lines.push('#EXT-X-INDEPENDENT-SEGMENTS');
  let initUri: string | undefined;
  for (const segment of playlist.segments) {
    if (segment.isDiscontinuous) lines.push('#EXT-X-DISCONTINUITY');
    if (segment.initUri !== initUri) lines.push(`#EXT-X-MAP:URI="${segment.initUri}"`);
    initUri = segment.initUri;
    lines.push(
      `#EXT-X-PROGRAM-DATE-TIME:${new Date(segment.programDateTimeUnixMs).toISOString()}`,
      `#EXTINF:${(segment.durationTicks / VIDEO_TIMESCALE_HZ).toFixed(6)},`,
      segment.uri,
    );
  }
  return `${lines.join('\n')}\n`;
}

export interface MultivariantPlaylist {
  readonly variants: readonly Variant[];
}

export interface Variant {
  readonly uri: string;
  /** Peak segment bit rate, bits per second. */
  readonly bandwidthBps: number;
  readonly averageBandwidthBps: number;
  /** RFC 6381, one for each track. */
  readonly codecs: readonly string[];
  readonly resolution: { readonly widthPx: number; readonly heightPx: number } | undefined;
  /** Frames per second. */
  readonly frameRate: number | undefined;
}

/**
 * The multivariant playlist of a window that is playable, with its one variant as the newest
 * segment shows it.
 *
 * Bit rates are those of the listed segments, rounded up to two significant digits: near enough
 * to the truth for a player (at most 10 % above), coarse enough that two frontends whose windows
 * differ by a segment mostly agree.
 */
export function multivariantPlaylist(window: LiveWindow, mediaPlaylistUri: string): MultivariantPlaylist {
  const { segments } = window;
  const newest = segments.at(-1);
  if (newest === undefined) throw new Error('a multivariant playlist of an empty window');
  const { tracks } = newest.init;
  const video = tracks.find((track) => track.kind === 'video');
  const sizeBytes = segments.reduce((sum, segment) => sum + segment.sizeBytes, 0);
  const durationTicks = segments.reduce((sum, segment) => sum + segment.durationTicks, 0);
  return {
    variants: [
      {
        uri: mediaPlaylistUri,
        bandwidthBps: roundUp(Math.max(...segments.map((s) => bitrateBps(s.sizeBytes, s.durationTicks)))),
        averageBandwidthBps: roundUp(bitrateBps(sizeBytes, durationTicks)),
        codecs: tracks.map((track) => track.codecString),
        resolution: video && { widthPx: video.widthPx, heightPx: video.heightPx },
        frameRate: video && frameRate(video, segments),
      },
    ],
  };
}

function bitrateBps(sizeBytes: number, durationTicks: number): number {
  return (sizeBytes * 8 * VIDEO_TIMESCALE_HZ) / durationTicks;
}

/** To the next whole number of two significant digits. */
function roundUp(bps: number): number {
  const digits = String(Math.ceil(bps)).length;
  const step = 10 ** Math.max(0, digits - 2);
  return Math.ceil(bps / step) * step;
}

/** Frame rates that cameras and encoders are set to. */
const COMMON_FRAME_RATES = [
  24_000 / 1001,
  24,
  25,
  30_000 / 1001,
  30,
  48,
  50,
  60_000 / 1001,
  60,
  100,
  120_000 / 1001,
  120,
];
/** How far from a common rate a measured one is taken for it: encoders stamp whole milliseconds. */
const FRAME_RATE_TOLERANCE = 0.005;

/** Frames per second as the track says, else as the segments show. */
function frameRate(video: VideoTrack, segments: readonly Segment[]): number | undefined {
  if (video.frameDurationTicks !== undefined) return VIDEO_TIMESCALE_HZ / video.frameDurationTicks;
  let frameCount = 0;
  let durationTicks = 0;
  for (const segment of segments) {
    durationTicks += segment.durationTicks;
    for (const part of segment.parts) {
      for (const unit of parseFragment(part.bytes, segment.init.tracks)) {
        if (unit.kind === 'video') frameCount++;
      }
    }
  }
  if (frameCount === 0) return undefined;
  const measured = (frameCount * VIDEO_TIMESCALE_HZ) / durationTicks;
  const distance = (rate: number) => Math.abs(rate - measured);
  const nearest = COMMON_FRAME_RATES.reduce((best, rate) => (distance(rate) < distance(best) ? rate : best));
  return distance(nearest) <= measured * FRAME_RATE_TOLERANCE ? nearest : measured;
}

/** Writes a multivariant playlist. */
export function serialiseMultivariantPlaylist(playlist: MultivariantPlaylist): string {
  const lines = ['#EXTM3U', `#EXT-X-VERSION:${VERSION}`];
  for (const variant of playlist.variants) {
    const attributes = [
      `BANDWIDTH=${variant.bandwidthBps}`,
      `AVERAGE-BANDWIDTH=${variant.averageBandwidthBps}`,
      `CODECS="${variant.codecs.join(',')}"`,
    ];
    if (variant.resolution !== undefined) {
      attributes.push(`RESOLUTION=${variant.resolution.widthPx}x${variant.resolution.heightPx}`);
    }
    if (variant.frameRate !== undefined) attributes.push(`FRAME-RATE=${variant.frameRate.toFixed(3)}`);
    lines.push(`#EXT-X-STREAM-INF:${attributes.join(',')}`, variant.uri);
  }
  return `${lines.join('\n')}\n`;
}
