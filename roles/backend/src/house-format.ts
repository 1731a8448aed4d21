/**
 * The house format: what every asset is normalised to at import, so that playout only has to
 * copy (docs/formats/house-format.md). Settings, frame grids and FFmpeg arguments; no I/O.
 */
import { AAC_SAMPLES_PER_UNIT } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { parseAvcConfig } from '@starling/media/codec/avc';
import { VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { LibrarySettings, RungName } from '@starling/model/library';

export const HOUSE_SAMPLE_RATE_HZ = 48_000;
export const HOUSE_SEGMENT_MS = 2000;
/** Where programmes of European broadcasters lie (EBU R 128). */
export const HOUSE_LOUDNESS_LUFS = -23;
/** No gain may carry the true peak beyond it (EBU R 128). */
export const HOUSE_TRUE_PEAK_DBTP = -1;
/** What is nearly silent is meant to be: it is not raised to the loudness of speech. */
const MAX_GAIN_DB = 20;
/** More languages than this are left out, the last first. */
export const MAX_AUDIO_TRACKS = 8;

const HOUSE_FRAME_RATES = [24, 25, 30, 50, 60] as const;
export type HouseFrameRate = (typeof HOUSE_FRAME_RATES)[number];
const DEFAULT_FRAME_RATE: HouseFrameRate = 25;

/** One quality of the ladder. */
export interface Rung {
  readonly widthPx: number;
  readonly heightPx: number;
  /** Of H.264 (ISO/IEC 14496-10, table A-1), enough for 60 pictures a second. */
  readonly level: string;
  /** Reached by noise and water; films mostly stay below half of it. */
  readonly maxBitrateBps: number;
}

export const RUNGS: Readonly<Record<RungName, Rung>> = {
  '2160p': { widthPx: 3840, heightPx: 2160, level: '5.2', maxBitrateBps: 16_000_000 },
  '1440p': { widthPx: 2560, heightPx: 1440, level: '5.1', maxBitrateBps: 10_000_000 },
  '1080p': { widthPx: 1920, heightPx: 1080, level: '4.2', maxBitrateBps: 6_500_000 },
  '720p': { widthPx: 1280, heightPx: 720, level: '3.2', maxBitrateBps: 4_000_000 },
  '480p': { widthPx: 854, heightPx: 480, level: '3.1', maxBitrateBps: 1_800_000 },
  '360p': { widthPx: 640, heightPx: 360, level: '3.1', maxBitrateBps: 1_000_000 },
  '240p': { widthPx: 426, heightPx: 240, level: '2.1', maxBitrateBps: 500_000 },
};

/** What the encoder is made to write into the VUI for timing, so that it can be found and removed. */
const VUI_TIMING = { unitsInTick: 1, timescaleHz: 120 } as const;

/**
 * The encoders' arguments. They are hashed into an asset's name, so a changed setting makes new assets
 * and never mixes with old ones. Raise `version` when the filters below change the result.
 */
export const houseSettings = {
  version: 2,
  segmentMs: HOUSE_SEGMENT_MS,
  loudness: [HOUSE_LOUDNESS_LUFS, HOUSE_TRUE_PEAK_DBTP, MAX_GAIN_DB],
  video: [
    ['-c:v', 'libx264', '-preset', 'veryfast', '-profile:v', 'high', '-crf', '21'],
    // No B-frames: DTS is PTS, so that items meet exactly whatever their frame rates.
    ['-bf', '0', '-sc_threshold', '0', '-keyint_min', '1', '-forced-idr', '1'],
    // With a rate bound, x264's result depends on the timing of its threads, sliced ones too; one thread
    // gives the same bytes each time.
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

/** Which of the network's settings an asset depends on. */
export type LadderSettings = Pick<LibrarySettings, 'ladder' | 'scalesUp' | 'languages'>;

/** The settings in one canonical text, for hashing. */
export function houseSettingsText({ ladder, scalesUp, languages }: LadderSettings): string {
  return JSON.stringify({ ...houseSettings, rungs: ladderRungs(ladder), scalesUp, languages });
}

/** The rungs of a ladder, the tallest first. */
export function ladderRungs(ladder: readonly RungName[]): Rung[] {
  return ladder.map((name) => RUNGS[name]).sort((a, b) => b.heightPx - a.heightPx);
}

/**
 * The rungs that an asset gets. Above the smallest that holds the whole picture there is nothing more to be
 * seen: rungs from there on are left out, or get only as many bits as they need to look no worse than that
 * one, which is in proportion to their height (docs/decisions/013-every-asset-has-every-rung.md).
 */
export function assetRungs({ ladder, scalesUp }: LadderSettings, picture: SourcePicture | undefined): Rung[] {
  const rungs = ladderRungs(ladder);
  if (!picture) return rungs;
  const { widthPx, heightPx } = squarePixels(picture);
  const holding = rungs.findLast((rung) => rung.widthPx >= widthPx && rung.heightPx >= heightPx) ?? rungs[0];
  if (!holding) return rungs;
  return rungs
    .filter((rung) => scalesUp || rung.heightPx <= holding.heightPx)
    .map((rung) => {
      const neededBps = Math.round((holding.maxBitrateBps * rung.heightPx) / holding.heightPx);
      return { ...rung, maxBitrateBps: Math.min(rung.maxBitrateBps, neededBps) };
    });
}

/** The picture's size where pixels are made square without losing any. */
function squarePixels({ widthPx, heightPx, pixelAspect }: SourcePicture): {
  widthPx: number;
  heightPx: number;
} {
  return {
    widthPx: Math.round(widthPx * Math.max(1, pixelAspect)),
    heightPx: Math.round(heightPx / Math.min(1, pixelAspect)),
  };
}

/** What EBU R 128 says of a sound. */
export interface Loudness {
  readonly integratedLufs: number;
  readonly truePeakDbtp: number;
}

/** The gain that brings a sound to the house's loudness, as far as its peaks allow. */
export function loudnessGainDb({ integratedLufs, truePeakDbtp }: Loudness): number {
  const gainDb = Math.min(
    HOUSE_LOUDNESS_LUFS - integratedLufs,
    HOUSE_TRUE_PEAK_DBTP - truePeakDbtp,
    MAX_GAIN_DB,
  );
  return Math.round(gainDb * 10) / 10;
}

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
  /** RFC 5646; null where the source does not say. */
  readonly language: string | null;
  /** Where the sound starts after the content's start. */
  readonly offsetSeconds: number;
  /** Where it ends, from the content's start. */
  readonly endSeconds: number;
}

/** What is to be encoded. There is a picture or at least one sound. */
export interface Source {
  /** FFmpeg's input options and inputs. */
  readonly inputArguments: readonly string[];
  readonly inputCount: number;
  readonly picture: SourcePicture | undefined;
  /** The default one first. */
  readonly sounds: readonly SourceSound[];
  /** Where the content starts on FFmpeg's clock: after the start of the earliest stream of the file. */
  readonly startSeconds: number;
}

/** How it is to be encoded. */
export interface Encoding {
  readonly plan: HousePlan;
  /** The tallest first. */
  readonly rungs: readonly Rung[];
  /** By sound of the source. */
  readonly gainsDb: readonly number[];
}

/** Short enough not to be heard, long enough that a cut waveform does not click. */
const FADE_SECONDS = 0.01;

/**
 * Arguments of the one FFmpeg process that encodes an asset: what is decoded once goes to all rungs. It
 * writes fragmented MP4 to its standard output: the pictures by rung, then the sounds.
 */
export function encodeArguments(source: Source, { plan, rungs, gainsDb }: Encoding): string[] {
  const { picture, sounds } = source;
  const inputs = [...source.inputArguments];
  let nextInput = source.inputCount;
  let videoInput = `0:${picture?.streamIndex}`;
  if (!picture) {
    const { widthPx, heightPx } = largest(rungs);
    inputs.push('-f', 'lavfi', '-i', `color=c=0x10141c:s=${widthPx}x${heightPx}:r=${plan.frameRate}`);
    videoInput = `${nextInput++}:v:0`;
  }
  const graphs = [videoGraph(videoInput, source, plan, rungs)];
  if (sounds.length === 0) {
    inputs.push('-f', 'lavfi', '-i', `anullsrc=r=${HOUSE_SAMPLE_RATE_HZ}:cl=stereo`);
    graphs.push(`[${nextInput++}:a:0]${silenceFilters(plan)}[a0]`);
  }
  for (const [trackId, sound] of sounds.entries()) {
    const filters = soundFilters(sound, source.startSeconds, gainsDb[trackId] ?? 0, plan);
    graphs.push(`[0:${sound.streamIndex}]${filters}[a${trackId}]`);
  }
  const rates = rungs.flatMap(({ level, maxBitrateBps }, trackId) => [
    ...[`-level:v:${trackId}`, level, `-maxrate:v:${trackId}`, String(maxBitrateBps)],
    ...[`-bufsize:v:${trackId}`, String(2 * maxBitrateBps)],
  ]);
  return [
    ...['-nostdin', '-hide_banner', '-v', 'error', '-max_error_rate', '0.5'],
    ...inputs,
    ...graphs.flatMap((graph) => ['-filter_complex', graph]),
    ...rungs.flatMap((_, trackId) => ['-map', `[v${trackId}]`]),
    ...Array.from({ length: Math.max(1, sounds.length) }, (_, trackId) => ['-map', `[a${trackId}]`]).flat(),
    ...['-map_metadata', '-1', '-map_chapters', '-1', '-fps_mode', 'passthrough'],
    ...houseSettings.video,
    ...rates,
    ...['-g', String((plan.frameRate * HOUSE_SEGMENT_MS) / 1000)],
    ...['-force_key_frames', `expr:${keyFrameExpression(plan)}`],
    ...houseSettings.audio,
    // One stream may run ahead of the others by a whole GOP's worth of encoder look-ahead.
    ...['-max_muxing_queue_size', '4096', '-video_track_timescale', String(VIDEO_TIMESCALE_HZ)],
    // Fragments far shorter than a GOP, so that a slow import still shows signs of life.
    ...['-f', 'mp4', '-movflags', '+empty_moov+default_base_moof', '-frag_duration', '200000', 'pipe:1'],
  ];
}

function largest(rungs: readonly Rung[]): Rung {
  const [rung] = rungs;
  if (!rung) throw new Error('a ladder without rungs');
  return rung;
}

/** True at the first frame of each GOP. Only the last GOP's start is off the regular rhythm. */
function keyFrameExpression(plan: HousePlan): string {
  const framesPerGop = (plan.frameRate * HOUSE_SEGMENT_MS) / 1000;
  const last = plan.gopStartFrames.at(-1) ?? 0;
  return `if(lt(n,${last}),not(mod(n,${framesPerGop})),eq(n,${last}))`;
}

/** From the source's picture to `[v0]`, `[v1]` and so on. */
function videoGraph(
  input: string,
  { picture, startSeconds }: Source,
  plan: HousePlan,
  rungs: readonly Rung[],
): string {
  const shared: string[] = [];
  if (picture) {
    // A size that changes in mid-file is brought back to the first one, so that the filters after see one size.
    shared.push(`scale=${picture.widthPx}:${picture.heightPx}`);
    if (startSeconds !== 0) shared.push(`setpts=round(PTS-${startSeconds.toFixed(6)}/TB)`);
    if (picture.isInterlaced) shared.push('yadif=deint=interlaced');
    shared.push(`fps=${plan.frameRate}:start_time=0`);
    if (picture.isHdr) {
      // In floating point and slow, so once, at the largest size.
      const { widthPx, heightPx } = fitPicture(picture, largest(rungs));
      shared.push(
        `zscale=w=${widthPx}:h=${heightPx}:transfer=linear:npl=100,format=gbrpf32le,zscale=primaries=bt709`,
        'tonemap=hable:desat=0,zscale=transfer=bt709:matrix=bt709:range=tv,format=yuv420p',
      );
    }
  }
  shared.push('tpad=stop=-1:stop_mode=clone', `trim=end_frame=${plan.frameCount}`);
  // Untagged HD is BT.709 and untagged SD is BT.601, as players take them.
  const matrix = !picture?.isMatrixUntagged ? 'auto' : picture.heightPx >= 720 ? 'bt709' : 'bt601';
  const conversion =
    picture && !picture.isHdr ? `:in_color_matrix=${matrix}:out_color_matrix=bt709:out_range=tv` : '';
  const branches = rungs.map((rung, trackId) => {
    const { widthPx, heightPx } = picture ? fitPicture(picture, rung) : rung;
    return [
      `[s${trackId}]scale=${widthPx}:${heightPx}:flags=bicubic+accurate_rnd${conversion}`,
      ...[
        'format=yuv420p',
        'setsar=1',
        `pad=${rung.widthPx}:${rung.heightPx}:(ow-iw)/2:(oh-ih)/2[v${trackId}]`,
      ],
    ].join();
  });
  const split = `split=${rungs.length}${rungs.map((_, trackId) => `[s${trackId}]`).join('')}`;
  return `[${input}]${shared.join()},${split};${branches.join(';')}`;
}

/** The largest even size of the picture's shape, in square pixels, that fits the rung. */
export function fitPicture(
  picture: Pick<SourcePicture, 'widthPx' | 'heightPx' | 'pixelAspect'>,
  rung: Pick<Rung, 'widthPx' | 'heightPx'>,
): {
  widthPx: number;
  heightPx: number;
} {
  const aspect = (picture.widthPx * picture.pixelAspect) / picture.heightPx;
  const even = (px: number, maxPx: number) => Math.min(maxPx, Math.max(2, Math.round(px / 2) * 2));
  return {
    widthPx: even(Math.min(rung.widthPx, rung.heightPx * aspect), rung.widthPx),
    heightPx: even(Math.min(rung.heightPx, rung.widthPx / aspect), rung.heightPx),
  };
}

/** From any sound to the house's samples; loudness is measured behind it. */
function toHouseSamples({ offsetSeconds }: SourceSound): string {
  // async=1 fills holes in the source with silence and stretches nothing.
  const startsLate = offsetSeconds > 0.001;
  return (
    `aresample=${HOUSE_SAMPLE_RATE_HZ}:async=1${startsLate ? ':first_pts=0' : ''},` +
    'aformat=sample_fmts=fltp:channel_layouts=stereo'
  );
}

function soundFilters(sound: SourceSound, startSeconds: number, gainDb: number, plan: HousePlan): string {
  const endSeconds = Math.min(
    sound.endSeconds,
    (plan.audioUnitCount * AAC_SAMPLES_PER_UNIT) / HOUSE_SAMPLE_RATE_HZ,
  );
  return [
    ...(startSeconds === 0 ? [] : [`asetpts=round(PTS-${startSeconds.toFixed(6)}/TB)`]),
    toHouseSamples(sound),
    ...(gainDb === 0 ? [] : [`volume=${gainDb}dB:precision=float`]),
    `afade=t=in:d=${FADE_SECONDS}`,
    `afade=t=out:st=${Math.max(0, endSeconds - FADE_SECONDS).toFixed(6)}:d=${FADE_SECONDS}`,
    silenceFilters(plan),
  ].join();
}

/** Silence up to the asset's end. */
function silenceFilters(plan: HousePlan): string {
  return `apad,atrim=end_pts=${plan.audioUnitCount * AAC_SAMPLES_PER_UNIT}`;
}

/**
 * Arguments of the FFmpeg process that measures the loudness of all sounds at once. It writes its progress to
 * the standard output and the result to the standard error: see {@link parseLoudness}.
 */
export function loudnessArguments({ inputArguments, sounds }: Source): string[] {
  return [
    ...[
      '-nostdin',
      '-hide_banner',
      '-nostats',
      '-v',
      'info',
      '-progress',
      'pipe:1',
      '-max_error_rate',
      '0.5',
    ],
    ...inputArguments,
    ...sounds.flatMap((sound, trackId) => [
      ...['-map', `0:${sound.streamIndex}`, '-f', 'null', '-filter:a'],
      // Named, so that the summaries can be told apart.
      ...[`${toHouseSamples(sound)},ebur128@track${trackId}=peak=true:framelog=verbose`, '-'],
    ]),
  ];
}

/**
 * Reads the summary that FFmpeg's filter `ebur128` prints.
 * @returns undefined when the sound is silent, or nothing of it could be decoded
 */
export function parseLoudness(stderr: string, trackId: number): Loudness | undefined {
  const summary = stderr.split(`[ebur128@track${trackId} @ `)[1]?.split('\n[')[0] ?? '';
  const integratedLufs = Number(/^\s+I:\s+(-?[\d.]+) LUFS/m.exec(summary)?.[1]);
  const truePeakDbtp = Number(/^\s+Peak:\s+(-?[\d.]+) dBFS/m.exec(summary)?.[1]);
  // -70 is the absolute gate: nothing was louder.
  if (!Number.isFinite(truePeakDbtp) || !(integratedLufs > -70)) return undefined;
  return { integratedLufs, truePeakDbtp };
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
