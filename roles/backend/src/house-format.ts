/**
 * The house format: what every asset is normalised to at import, so that playout only has to
 * copy (docs/formats/house-format.md). Settings, frame grids and FFmpeg arguments; no I/O.
 */
import { AAC_SAMPLES_PER_UNIT } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { parseAvcConfig } from '@starling/media/codec/avc';
import { VIDEO_TIMESCALE_HZ } from '@starling/media/time';

export const HOUSE_WIDTH_PX = 1280;
export const HOUSE_HEIGHT_PX = 720;
export const HOUSE_SAMPLE_RATE_HZ = 48_000;
export const HOUSE_SEGMENT_MS = 2000;

const HOUSE_FRAME_RATES = [24, 25, 30, 50, 60] as const;
export type HouseFrameRate = (typeof HOUSE_FRAME_RATES)[number];
const DEFAULT_FRAME_RATE: HouseFrameRate = 25;

/** What the encoder is made to write into the VUI for timing, so that it can be found and removed. */
const VUI_TIMING = { unitsInTick: 1, timescaleHz: 120 } as const;

/**
 * The encoders' arguments. They are hashed into an asset's name, so a changed setting makes new assets
 * and never mixes with old ones. Raise `version` when the filters below change the result.
 */
export const houseSettings = {
  version: 1,
  widthPx: HOUSE_WIDTH_PX,
  heightPx: HOUSE_HEIGHT_PX,
  segmentMs: HOUSE_SEGMENT_MS,
  video: [
    ['-c:v', 'libx264', '-preset', 'veryfast', '-profile:v', 'high', '-level:v', '3.2'],
    ['-crf', '21', '-maxrate', '4M', '-bufsize', '8M'],
    // No B-frames: DTS is PTS, so that items meet exactly whatever their frame rates.
    ['-bf', '0', '-sc_threshold', '0', '-keyint_min', '1', '-forced-idr', '1'],
    // With a rate bound, x264's result depends on the timing of its threads; one thread gives the same bytes each time.
    ['-threads:v', '1', '-flags:v', '+bitexact'],
    // SEI would name the encoder. The VUI is pinned: by itself it follows the source's frame rate and
    // colours, and a channel that mixes assets would need a discontinuity for it.
    [
      '-bsf:v',
      `filter_units=remove_types=6,h264_metadata=tick_rate=${VUI_TIMING.timescaleHz}/${VUI_TIMING.unitsInTick}` +
        ':fixed_frame_rate_flag=0:sample_aspect_ratio=1/1' +
        ':video_full_range_flag=0:colour_primaries=1:transfer_characteristics=1:matrix_coefficients=1' +
        ':chroma_sample_loc_type=0',
    ],
  ].flat(),
  audio: ['-c:a', 'aac', '-b:a', '160k', '-flags:a', '+bitexact'],
} as const;

/** The settings in one canonical text, for hashing. */
export const HOUSE_SETTINGS_TEXT = JSON.stringify(houseSettings);

/** An asset's frame grid and length. */
export interface HousePlan {
  readonly frameRate: HouseFrameRate;
  readonly frameDurationTicks: number;
  readonly frameCount: number;
  readonly audioUnitCount: number;
  readonly durationTicks: number;
  /** The first frame of each GOP. */
  readonly gopStartFrames: readonly number[];
}

/**
 * The house frame rate for a source: the one that repeats or drops frames most evenly, and among
 * equals the nearest. So 29.97 becomes 30, 15 becomes 30, 120 becomes 60.
 * @param sourceFrameRate frames per second; undefined when the source has no picture or does not tell
 */
export function houseFrameRate(sourceFrameRate: number | undefined): HouseFrameRate {
  if (sourceFrameRate === undefined || !(sourceFrameRate > 0) || !Number.isFinite(sourceFrameRate)) {
    return DEFAULT_FRAME_RATE;
  }
  let best: { frameRate: HouseFrameRate; unevenness: number; distance: number } | undefined;
  for (const frameRate of HOUSE_FRAME_RATES) {
    const ratio = Math.max(sourceFrameRate / frameRate, frameRate / sourceFrameRate);
    // 1001/1000 is not unevenness: one frame in 1000 is repeated.
    const unevenness = Math.round(Math.abs(ratio - Math.round(ratio)) * 100);
    const distance = Math.abs(frameRate - sourceFrameRate);
    const isBetter =
      !best || unevenness < best.unevenness || (unevenness === best.unevenness && distance < best.distance);
    if (isBetter) best = { frameRate, unevenness, distance };
  }
  return best?.frameRate ?? DEFAULT_FRAME_RATE;
}

/** Content that overhangs the grid by less than this is encoder padding (half an AAC unit at 22 kHz, a rounded timestamp). */
const OVERHANG_TOLERANCE_SECONDS = 0.025;

/**
 * The frame grid and length of an asset: the shortest whole number of frames that is also a whole
 * number of audio units and holds the content.
 */
export function planAsset(contentSeconds: number, frameRate: HouseFrameRate): HousePlan {
  const samplesPerFrame = HOUSE_SAMPLE_RATE_HZ / frameRate;
  const audioUnitsPerGrid = samplesPerFrame / greatestCommonDivisor(samplesPerFrame, AAC_SAMPLES_PER_UNIT);
  const framesPerGrid = (audioUnitsPerGrid * AAC_SAMPLES_PER_UNIT) / samplesPerFrame;
  const gridSeconds = framesPerGrid / frameRate;
  const gridCount = Math.max(1, Math.ceil((contentSeconds - OVERHANG_TOLERANCE_SECONDS) / gridSeconds));
  const frameCount = gridCount * framesPerGrid;
  const frameDurationTicks = VIDEO_TIMESCALE_HZ / frameRate;
  return {
    frameRate,
    frameDurationTicks,
    frameCount,
    audioUnitCount: gridCount * audioUnitsPerGrid,
    durationTicks: frameCount * frameDurationTicks,
    gopStartFrames: gopStartFrames(frameCount, frameRate),
  };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** GOPs of 2 s. A short rest shares its length with the GOP before, so that no segment is tiny. */
function gopStartFrames(frameCount: number, frameRate: number): number[] {
  const framesPerGop = (frameRate * HOUSE_SEGMENT_MS) / 1000;
  const starts: number[] = [];
  for (let frame = 0; frame < frameCount; frame += framesPerGop) starts.push(frame);
  const restFrames = frameCount % framesPerGop;
  if (starts.length > 1 && restFrames > 0 && restFrames < framesPerGop / 2) {
    starts[starts.length - 1] = frameCount - Math.floor((framesPerGop + restFrames) / 2);
  }
  return starts;
}

/** The picture of a source, as FFmpeg's filters see it: rotation applied. */
export interface SourcePicture {
  readonly streamIndex: number;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Width of a pixel over its height. */
  readonly pixelAspect: number;
  readonly isInterlaced: boolean;
  /** The source does not say how its YUV is made from RGB. */
  readonly isMatrixUntagged: boolean;
  /** PQ or HLG. */
  readonly isHdr: boolean;
}

export interface SourceSound {
  readonly streamIndex: number;
  /** Where the sound starts after the content's start. */
  readonly offsetSeconds: number;
  /** Where it ends, from the content's start. */
  readonly endSeconds: number;
}

/** What is to be encoded. At least one of picture and sound is there. */
export interface Source {
  /** FFmpeg's input options and inputs. */
  readonly inputArguments: readonly string[];
  readonly inputCount: number;
  readonly picture: SourcePicture | undefined;
  readonly sound: SourceSound | undefined;
  /** Where the content starts on FFmpeg's clock: after the start of the earliest stream of the file. */
  readonly startSeconds: number;
}

/** What stands in for a missing picture. */
const DARK_CARD = `color=c=0x10141c:s=${HOUSE_WIDTH_PX}x${HOUSE_HEIGHT_PX}`;
/** Short enough not to be heard, long enough that a cut waveform does not click. */
const FADE_SECONDS = 0.01;

/** Arguments of the one FFmpeg process of an import. It writes FLV to its standard output. */
export function encodeArguments(source: Source, plan: HousePlan): string[] {
  const { picture, sound } = source;
  const inputs = [...source.inputArguments];
  let nextInput = source.inputCount;
  let videoMap = `0:${picture?.streamIndex}`;
  if (!picture) {
    inputs.push('-f', 'lavfi', '-i', `${DARK_CARD}:r=${plan.frameRate}`);
    videoMap = `${nextInput++}:v:0`;
  }
  let audioMap = `0:${sound?.streamIndex}`;
  if (!sound) {
    inputs.push('-f', 'lavfi', '-i', `anullsrc=r=${HOUSE_SAMPLE_RATE_HZ}:cl=stereo`);
    audioMap = `${nextInput++}:a:0`;
  }
  return [
    ...['-nostdin', '-hide_banner', '-v', 'error', '-max_error_rate', '0.5'],
    ...inputs,
    ...['-map', videoMap, '-map', audioMap, '-map_metadata', '-1', '-map_chapters', '-1', '-sn', '-dn'],
    ...['-vf', videoFilters(source, plan), '-fps_mode', 'passthrough'],
    ...houseSettings.video,
    ...['-g', String((plan.frameRate * HOUSE_SEGMENT_MS) / 1000)],
    ...['-force_key_frames', `expr:${keyFrameExpression(plan)}`],
    ...['-af', audioFilters(source, plan)],
    ...houseSettings.audio,
    // One stream may run ahead of the other by a whole GOP's worth of encoder look-ahead.
    ...['-max_muxing_queue_size', '4096', '-f', 'flv', '-flvflags', 'no_duration_filesize', 'pipe:1'],
  ];
}

/** True at the first frame of each GOP. Only the last GOP's start is off the regular rhythm. */
function keyFrameExpression(plan: HousePlan): string {
  const framesPerGop = (plan.frameRate * HOUSE_SEGMENT_MS) / 1000;
  const last = plan.gopStartFrames.at(-1) ?? 0;
  return `if(lt(n,${last}),not(mod(n,${framesPerGop})),eq(n,${last}))`;
}

function videoFilters({ picture, startSeconds }: Source, plan: HousePlan): string {
  const filters: string[] = [];
  if (picture) {
    // A size that changes in mid-file is brought back to the first one, so that the filters after see one size.
    filters.push(`scale=${picture.widthPx}:${picture.heightPx}`);
    if (startSeconds !== 0) filters.push(`setpts=round(PTS-${startSeconds.toFixed(6)}/TB)`);
    if (picture.isInterlaced) filters.push('yadif=deint=interlaced');
    filters.push(`fps=${plan.frameRate}:start_time=0`);
    const { widthPx, heightPx } = fitPicture(picture);
    if (picture.isHdr) {
      filters.push(
        `zscale=w=${widthPx}:h=${heightPx}:transfer=linear:npl=100,format=gbrpf32le,zscale=primaries=bt709`,
        'tonemap=hable:desat=0,zscale=transfer=bt709:matrix=bt709:range=tv',
      );
    } else {
      // Untagged HD is BT.709 and untagged SD is BT.601, as players take them.
      const matrix = !picture.isMatrixUntagged ? 'auto' : picture.heightPx >= 720 ? 'bt709' : 'bt601';
      filters.push(
        `scale=${widthPx}:${heightPx}:flags=bicubic+accurate_rnd:in_color_matrix=${matrix}:out_color_matrix=bt709:out_range=tv`,
      );
    }
    filters.push('format=yuv420p', 'setsar=1');
    filters.push(`pad=${HOUSE_WIDTH_PX}:${HOUSE_HEIGHT_PX}:(ow-iw)/2:(oh-ih)/2`);
  } else {
    filters.push('format=yuv420p');
  }
  filters.push('tpad=stop=-1:stop_mode=clone', `trim=end_frame=${plan.frameCount}`);
  return filters.join(',');
}

/** The largest even size of the picture's shape, in square pixels, that fits the house size. */
export function fitPicture(picture: Pick<SourcePicture, 'widthPx' | 'heightPx' | 'pixelAspect'>): {
  widthPx: number;
  heightPx: number;
} {
  const aspect = (picture.widthPx * picture.pixelAspect) / picture.heightPx;
  const even = (px: number, maxPx: number) => Math.min(maxPx, Math.max(2, Math.round(px / 2) * 2));
  return {
    widthPx: even(Math.min(HOUSE_WIDTH_PX, HOUSE_HEIGHT_PX * aspect), HOUSE_WIDTH_PX),
    heightPx: even(Math.min(HOUSE_HEIGHT_PX, HOUSE_WIDTH_PX / aspect), HOUSE_HEIGHT_PX),
  };
}

function audioFilters({ sound, startSeconds }: Source, plan: HousePlan): string {
  const sampleCount = plan.audioUnitCount * AAC_SAMPLES_PER_UNIT;
  const filters: string[] = [];
  if (sound) {
    if (startSeconds !== 0) filters.push(`asetpts=round(PTS-${startSeconds.toFixed(6)}/TB)`);
    // async=1 fills holes in the source with silence and stretches nothing.
    const startsLate = sound.offsetSeconds > 0.001;
    filters.push(`aresample=${HOUSE_SAMPLE_RATE_HZ}:async=1${startsLate ? ':first_pts=0' : ''}`);
    filters.push('aformat=sample_fmts=fltp:channel_layouts=stereo');
    const endSeconds = Math.min(sound.endSeconds, sampleCount / HOUSE_SAMPLE_RATE_HZ);
    filters.push(`afade=t=in:d=${FADE_SECONDS}`);
    filters.push(`afade=t=out:st=${Math.max(0, endSeconds - FADE_SECONDS).toFixed(6)}:d=${FADE_SECONDS}`);
  }
  filters.push('apad', `atrim=end_pts=${sampleCount}`);
  return filters.join(',');
}

/**
 * Takes the timing out of the VUI. Pinned to one value it would contradict most frame rates, and FFmpeg
 * believes it more than the container; an absent one says nothing.
 * @param config AVCDecoderConfigurationRecord that the arguments above led to
 * @throws Error when it does not hold the timing that was asked for
 */
export function withoutVuiTiming(config: Uint8Array): Uint8Array {
  const [sps] = parseAvcConfig(config).sequenceParameterSets;
  if (!sps) throw new Error('the encoder gave no sequence parameter set');
  const toBits = (value: number, width: number) => value.toString(2).padStart(width, '0');
  // timing_info_present_flag, num_units_in_tick, time_scale, fixed_frame_rate_flag (ISO/IEC 14496-10, E.1.1)
  const timing = `1${toBits(VUI_TIMING.unitsInTick, 32)}${toBits(VUI_TIMING.timescaleHz, 32)}0`;
  const bits = Array.from(unescapeNal(sps), (byte) => toBits(byte, 8)).join('');
  if (!bits.includes(timing)) throw new Error('the encoder did not write the timing that was asked for');
  const shortened = bits.replace(timing, '0').replace(/0*$/, ''); // ends with the stop bit
  const padded = shortened.padEnd(Math.ceil(shortened.length / 8) * 8, '0');
  const bytes = padded.match(/.{8}/g) ?? [];
  const rewritten = escapeNal(Uint8Array.from(bytes, (byte) => Number.parseInt(byte, 2)));
  const at = sps.byteOffset - config.byteOffset;
  return concatBytes([
    config.subarray(0, at - 2),
    Uint8Array.of(rewritten.length >> 8, rewritten.length & 0xff),
    rewritten,
    config.subarray(at + sps.length),
  ]);
}

/** Drops the emulation prevention: the third byte of each 00 00 03 (ISO/IEC 14496-10, 7.3.1). */
function unescapeNal(nalUnit: Uint8Array): Uint8Array {
  return nalUnit.filter((byte, i) => !(byte === 3 && i >= 2 && nalUnit[i - 1] === 0 && nalUnit[i - 2] === 0));
}

function escapeNal(bytes: Uint8Array): Uint8Array {
  const escaped: number[] = [];
  for (const byte of bytes) {
    if (byte <= 3 && escaped.at(-1) === 0 && escaped.at(-2) === 0) escaped.push(3);
    escaped.push(byte);
  }
  return Uint8Array.from(escaped);
}
