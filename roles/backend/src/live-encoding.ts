/**
 * Live transcoding: what FFmpeg is told, so that a live stream comes out in the house format, in every rung of a
 * ladder, with key frames at the same times. No I/O.
 */
import { VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { LiveEncoderName, LivePreset } from '@starling/model/stream-input';
import { HOUSE_SAMPLE_RATE_HZ, HOUSE_SEGMENT_MS, houseSettings, type Rung } from './house-format.ts';

export interface LiveEncoding {
  readonly encoder: LiveEncoderName;
  readonly preset: LivePreset;
  /** The tallest first: track 0. */
  readonly rungs: readonly Rung[];
  readonly hasVideo: boolean;
  readonly hasAudio: boolean;
}

/**
 * x264 writes some of its analysis settings into the parameter sets. They are pinned to what the preset of
 * the house writes, so that a change between a live stream and an asset is no discontinuity.
 */
const PINNED = 'ref=1:weightp=1:8x8dct=1:cabac=1';
/** From `fast` on, psychovisual optimisation takes 2 from the offset of the chroma. */
const PINNED_SLOW = `${PINNED}:chroma-qp-offset=2`;
const SLOW_PRESETS: ReadonlySet<LivePreset> = new Set(['fast', 'medium']);
/** No picture is held back to look ahead; all cores work on one picture. */
const NO_DELAY = 'rc-lookahead=0:sync-lookahead=0:sliced-threads=1';

/** In microseconds. With a fragment for each picture (`frag_every_frame`) FFmpeg 5.1 loses the times of the sound. */
const FRAGMENT_US = '80000';

/** FLV on standard input, fragmented MP4 on standard output: the pictures by rung, then the sound. */
export function liveEncodeArguments(encoding: LiveEncoding): string[] {
  const { encoder, rungs, hasVideo, hasAudio } = encoding;
  const videoTracks = hasVideo ? [...rungs.keys()] : [];
  return [
    ...['-hide_banner', '-loglevel', 'warning'],
    ...(encoder === 'vaapi' && hasVideo ? ['-vaapi_device', '/dev/dri/renderD128'] : []),
    // All that has to be known stands in the sequence headers.
    ...['-probesize', '100000', '-analyzeduration', '500000'],
    ...['-protocol_whitelist', 'pipe', '-f', 'flv', '-i', 'pipe:0'],
    ...(hasVideo ? ['-filter_complex', videoGraph(rungs, encoder)] : []),
    ...videoTracks.flatMap((trackId) => ['-map', `[v${trackId}]`]),
    ...(hasAudio ? ['-map', '0:a:0'] : []),
    ...(hasVideo ? videoArguments(encoding) : []),
    ...videoTracks.flatMap((trackId) => rateArguments(trackId, rungs[trackId])),
    ...(hasAudio ? audioArguments() : []),
    ...['-map_metadata', '-1', '-max_interleave_delta', '500000', '-flush_packets', '1'],
    ...['-video_track_timescale', String(VIDEO_TIMESCALE_HZ), '-f', 'mp4', '-frag_duration', FRAGMENT_US],
    ...['-movflags', '+empty_moov+default_base_moof+skip_trailer', 'pipe:1'],
  ];
}

function videoArguments({ encoder, preset }: LiveEncoding): string[] {
  return [
    ...codecArguments(encoder, preset),
    ...['-profile:v', 'high', '-bf', '0', '-g', '600', '-flags:v', '+bitexact'],
    // By time, so that all rungs agree, whatever the frame rate.
    ...['-force_key_frames', `expr:gte(t,n_forced*${HOUSE_SEGMENT_MS / 1000})`],
    ...[
      '-fps_mode',
      'passthrough',
      '-bsf:v',
      houseSettings.video[houseSettings.video.indexOf('-bsf:v') + 1] ?? 'null',
    ],
  ];
}

function codecArguments(encoder: LiveEncoderName, preset: LivePreset): string[] {
  switch (encoder) {
    case 'x264': {
      const pinned = SLOW_PRESETS.has(preset) ? PINNED_SLOW : PINNED;
      return [
        ...['-c:v', 'libx264', '-preset', preset, '-crf', '21', '-sc_threshold', '0'],
        ...['-forced-idr', '1', '-x264-params', `${NO_DELAY}:${pinned}`],
      ];
    }
    case 'nvenc':
      return [
        '-c:v',
        'h264_nvenc',
        '-rc',
        'vbr',
        '-cq',
        '23',
        '-no-scenecut',
        '1',
        '-forced-idr',
        '1',
        '-zerolatency',
        '1',
      ];
    case 'qsv':
      return ['-c:v', 'h264_qsv', '-forced_idr', '1', '-look_ahead', '0', '-async_depth', '1'];
    case 'vaapi':
      return ['-c:v', 'h264_vaapi', '-rc_mode', 'VBR'];
    case 'videotoolbox':
      return ['-c:v', 'h264_videotoolbox', '-realtime', '1'];
  }
}

function rateArguments(trackId: number, rung: Rung | undefined): string[] {
  if (rung === undefined) return [];
  const { level, maxBitrateBps } = rung;
  return [
    ...[`-level:v:${trackId}`, level, `-maxrate:v:${trackId}`, String(maxBitrateBps)],
    ...[
      `-bufsize:v:${trackId}`,
      String(2 * maxBitrateBps),
      `-b:v:${trackId}`,
      String(Math.round(maxBitrateBps * 0.75)),
    ],
  ];
}

function audioArguments(): string[] {
  return [
    ...houseSettings.audio,
    ...['-ar', String(HOUSE_SAMPLE_RATE_HZ), '-ac', '2', '-af', 'aresample=async=1'],
  ];
}

function videoGraph(rungs: readonly Rung[], encoder: LiveEncoderName): string {
  const split = `[0:v:0]yadif=deint=interlaced,split=${rungs.length}${rungs.map((_, i) => `[s${i}]`).join('')}`;
  const branches = rungs.map(({ widthPx, heightPx }, i) =>
    [
      `[s${i}]scale=${widthPx}:${heightPx}:force_original_aspect_ratio=decrease:force_divisible_by=2:out_color_matrix=bt709:out_range=tv`,
      'format=yuv420p',
      'setsar=1',
      `pad=${widthPx}:${heightPx}:(ow-iw)/2:(oh-ih)/2`,
      ...(encoder === 'vaapi' ? ['format=nv12', 'hwupload'] : []),
    ]
      .join(',')
      .concat(`[v${i}]`),
  );
  return [split, ...branches].join(';');
}
