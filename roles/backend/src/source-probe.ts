/** Finds out what a file to be imported holds: its picture, its sound, and its true length. */
import { type Static, Type } from 'typebox';
import { Value } from 'typebox/value';
import { BackendError } from './error.ts';
import { runFfmpeg } from './ffmpeg.ts';
import type { Source } from './house-format.ts';

/**
 * What FFmpeg may open: files that hold media themselves. Playlists, concatenation scripts and pictures
 * are left out, for they would have FFmpeg read other files or addresses.
 */
const CONTAINERS =
  'aac,ac3,aiff,amr,asf,au,av1,avi,caf,dts,dv,eac3,flac,flv,gxf,h264,hevc,ivf,live_flv,m4v,matroska,mlp,mov,' +
  'mp3,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,truehd,tta,vc1,w64,wav,webm,wtv,wv';

/** Containers whose stream durations are the truth about edit lists, not an estimate. */
const EXACT_DURATION_FORMATS = new Set(['mov', 'mp4']);
/** Containers whose clocks may jump in mid-file; FFmpeg closes such gaps, beyond the same threshold. */
const JUMPING_FORMATS = new Set(['mpegts', 'mpeg']);
const JUMP_SECONDS = 10;

/** Sample entries of FairPlay. Common Encryption shows in the side data of the packets. */
const ENCRYPTED_TAGS = new Set(['drmi', 'drms']);
const ENCRYPTED_PACKET = 'Encryption info';
/** Packets looked at for it: enough to see some of each stream. */
const FIRST_PACKETS = 16;

const OptionalText = Type.Optional(Type.String());
const Description = Type.Object({
  packets: Type.Array(
    Type.Object({ side_data_list: Type.Optional(Type.Array(Type.Object({ side_data_type: OptionalText }))) }),
  ),
  format: Type.Object({ format_name: Type.String(), start_time: OptionalText }),
  streams: Type.Array(
    Type.Object({
      index: Type.Integer(),
      codec_type: OptionalText,
      codec_name: OptionalText,
      codec_tag_string: OptionalText,
      width: Type.Optional(Type.Integer()),
      height: Type.Optional(Type.Integer()),
      sample_aspect_ratio: OptionalText,
      field_order: OptionalText,
      color_space: OptionalText,
      color_transfer: OptionalText,
      avg_frame_rate: OptionalText,
      channels: Type.Optional(Type.Integer()),
      start_time: OptionalText,
      duration: OptionalText,
      disposition: Type.Optional(Type.Record(Type.String(), Type.Integer())),
      side_data_list: Type.Optional(Type.Array(Type.Object({ rotation: Type.Optional(Type.Number()) }))),
    }),
  ),
});
type StreamDescription = Static<typeof Description>['streams'][number];

export interface ProbeOptions {
  readonly ffprobePath: string;
  /** Absolute path of the file. */
  readonly path: string;
  readonly signal: AbortSignal;
}

/** The streams of a file that are worth importing. */
export interface StreamChoice {
  readonly formatNames: readonly string[];
  readonly formatStartSeconds: number;
  readonly video: StreamDescription | undefined;
  readonly audio: StreamDescription | undefined;
}

/** A source with what its plan needs. */
export interface MeasuredSource extends Source {
  readonly contentSeconds: number;
  readonly frameRate: number | undefined;
}

/** FFmpeg's options and input for a local file, and nothing but a local file. */
function fileInput(path: string): string[] {
  return ['-protocol_whitelist', 'file', '-format_whitelist', CONTAINERS, '-i', `file:${path}`];
}

/**
 * Chooses the picture and the sound of a file.
 * @throws BackendError IMPORT_NOT_MEDIA, IMPORT_NO_STREAMS, IMPORT_ENCRYPTED, or one of `runFfmpeg`
 */
export async function chooseStreams({ ffprobePath, path, signal }: ProbeOptions): Promise<StreamChoice> {
  const chunks: Uint8Array[] = [];
  const { isSuccess, reason, stderr } = await runFfmpeg({
    program: ffprobePath,
    args: [
      ...['-v', 'error', '-show_format', '-show_streams', '-show_packets'],
      ...['-read_intervals', `%+#${FIRST_PACKETS}`, '-of', 'json', ...fileInput(path)],
    ],
    subject: path,
    signal,
    onOutput: (chunk) => void chunks.push(chunk),
  });
  const description: unknown = isSuccess ? JSON.parse(Buffer.concat(chunks).toString('utf8')) : undefined;
  if (!Value.Check(Description, description)) {
    throw new BackendError(
      'IMPORT_NOT_MEDIA',
      stderr.includes('whitelist')
        ? `${path} is a picture or a list of files, not video or sound.`
        : `${path} is not a media file that FFmpeg can read, or it is damaged: ${reason}.`,
    );
  }
  const { streams, format, packets } = description;
  const isEncrypted =
    streams.some((stream) => ENCRYPTED_TAGS.has(stream.codec_tag_string ?? '')) ||
    packets.some((packet) =>
      packet.side_data_list?.some((data) => data.side_data_type === ENCRYPTED_PACKET),
    ) ||
    stderr.includes('DRM protected'); // of Windows Media
  if (isEncrypted) {
    throw new BackendError('IMPORT_ENCRYPTED', `${path} is encrypted (DRM), so it cannot be imported.`);
  }
  const isDefault = (stream: StreamDescription) => stream.disposition?.default === 1;
  const videos = streams.filter(
    (stream) =>
      stream.codec_type === 'video' &&
      isDecodable(stream) &&
      (stream.width ?? 0) > 0 &&
      (stream.height ?? 0) > 0 &&
      stream.disposition?.attached_pic !== 1,
  );
  const audios = streams.filter(
    (stream) => stream.codec_type === 'audio' && isDecodable(stream) && (stream.channels ?? 0) > 0,
  );
  const choice = {
    formatNames: format.format_name.split(','),
    formatStartSeconds: seconds(format.start_time) ?? 0,
    video: videos.find(isDefault) ?? videos[0],
    audio: audios.find(isDefault) ?? audios[0],
  };
  if (!choice.video && !choice.audio) {
    throw new BackendError(
      'IMPORT_NO_STREAMS',
      `${path} has neither picture nor sound that FFmpeg can decode.`,
    );
  }
  return choice;
}

function isDecodable(stream: StreamDescription): boolean {
  return stream.codec_name !== undefined && stream.codec_name !== 'none' && stream.codec_name !== 'unknown';
}

/**
 * Reads the times of every packet: containers are often wrong about their length and frame rate.
 * @throws BackendError IMPORT_NOT_MEDIA when not one packet can be read, or one of `runFfmpeg`
 */
export async function measureSource(options: ProbeOptions, choice: StreamChoice): Promise<MeasuredSource> {
  const { ffprobePath, path, signal } = options;
  const { video, audio } = choice;
  const mayJump = choice.formatNames.some((name) => JUMPING_FORMATS.has(name));
  const spans = new Map<number, PacketSpan>();
  for (const stream of [video, audio]) if (stream) spans.set(stream.index, new PacketSpan(mayJump));

  let rest = '';
  const decoder = new TextDecoder();
  const { isSuccess, reason } = await runFfmpeg({
    program: ffprobePath,
    args: [
      ...['-v', 'error', '-show_entries', 'packet=stream_index,pts_time,dts_time,duration_time'],
      ...['-of', 'csv=p=0', ...fileInput(path)],
    ],
    subject: path,
    signal,
    onOutput(chunk) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const [index, pts, dts, duration] = line.split(',');
        spans.get(Number(index))?.add(seconds(pts), seconds(dts), seconds(duration));
      }
    },
  });

  const picture = video && spans.get(video.index);
  const sound = audio && spans.get(audio.index);
  const picturePart = picture?.startSeconds === undefined ? undefined : picture;
  const soundPart = sound?.startSeconds === undefined ? undefined : sound;
  if (!picturePart && !soundPart) {
    const detail = isSuccess ? 'it holds no data' : reason;
    throw new BackendError('IMPORT_NOT_MEDIA', `${path} is damaged: ${detail}.`);
  }

  // The container's start of a stream leaves out what its edit list hides, the packets do not.
  const videoStart = seconds(video?.start_time) ?? picturePart?.startSeconds ?? Number.POSITIVE_INFINITY;
  const audioStart = seconds(audio?.start_time) ?? soundPart?.startSeconds ?? Number.POSITIVE_INFINITY;
  const contentStart = Math.min(
    picturePart ? videoStart : Number.POSITIVE_INFINITY,
    soundPart ? audioStart : Number.POSITIVE_INFINITY,
  );
  const isExact = choice.formatNames.some((name) => EXACT_DURATION_FORMATS.has(name));
  const end = (stream: StreamDescription | undefined, startSeconds: number, span: PacketSpan) => {
    const told = isExact ? seconds(stream?.duration) : undefined;
    return Math.min(span.endSeconds, told === undefined ? Number.POSITIVE_INFINITY : startSeconds + told);
  };
  const videoEnd = picturePart ? end(video, videoStart, picturePart) : Number.NEGATIVE_INFINITY;
  const audioEnd = soundPart ? end(audio, audioStart, soundPart) : Number.NEGATIVE_INFINITY;

  return {
    inputArguments: ['-reinit_filter:v', '0', ...fileInput(path)],
    inputCount: 1,
    startSeconds: contentStart - choice.formatStartSeconds,
    picture: video && picturePart ? describePicture(video) : undefined,
    sound:
      audio && soundPart
        ? {
            streamIndex: audio.index,
            offsetSeconds: audioStart - contentStart,
            endSeconds: audioEnd - contentStart,
          }
        : undefined,
    contentSeconds: Math.max(videoEnd, audioEnd) - contentStart,
    frameRate: video && picturePart ? trueFrameRate(video, picturePart) : undefined,
  };
}

/** The span of a stream's packets, with the clock's jumps closed. */
class PacketSpan {
  readonly #mayJump: boolean;
  startSeconds: number | undefined;
  endSeconds = Number.NEGATIVE_INFINITY;
  /** Start of the last packet to be presented. */
  lastSeconds = Number.NEGATIVE_INFINITY;
  packetCount = 0;
  #jumpSeconds = 0;
  #lastDtsSeconds: number | undefined;
  #lastDurationSeconds = 0;

  constructor(mayJump: boolean) {
    this.#mayJump = mayJump;
  }

  add(
    ptsSeconds: number | undefined,
    dtsSeconds: number | undefined,
    durationSeconds: number | undefined,
  ): void {
    const dts = dtsSeconds ?? ptsSeconds;
    const pts = ptsSeconds ?? dtsSeconds;
    if (dts === undefined || pts === undefined) return;
    if (this.#mayJump && this.#lastDtsSeconds !== undefined) {
      const step = dts - this.#lastDtsSeconds;
      if (Math.abs(step) > JUMP_SECONDS) this.#jumpSeconds += step - this.#lastDurationSeconds;
    }
    this.#lastDtsSeconds = dts;
    this.#lastDurationSeconds = durationSeconds ?? 0;
    const at = pts - this.#jumpSeconds;
    this.startSeconds = Math.min(this.startSeconds ?? at, at);
    this.lastSeconds = Math.max(this.lastSeconds, at);
    this.endSeconds = Math.max(this.endSeconds, at + (durationSeconds ?? 0));
    this.packetCount += 1;
  }
}

/** Frames per second by count. Containers overstate it (a clock's rate, fields); so the lower one holds. */
function trueFrameRate(video: StreamDescription, span: PacketSpan): number | undefined {
  const spanSeconds = span.lastSeconds - (span.startSeconds ?? 0);
  const counted = span.packetCount > 1 && spanSeconds > 0 ? (span.packetCount - 1) / spanSeconds : undefined;
  const told = fraction(video.avg_frame_rate, '/');
  if (counted === undefined || told === undefined) return counted ?? told;
  return Math.min(counted, told);
}

function describePicture(video: StreamDescription): Source['picture'] {
  const rotation = video.side_data_list?.find((data) => data.rotation !== undefined)?.rotation ?? 0;
  const isSideways = Math.abs(Math.round(rotation / 90)) % 2 === 1;
  const widthPx = video.width ?? 0;
  const heightPx = video.height ?? 0;
  const pixelAspect = fraction(video.sample_aspect_ratio, ':') ?? 1;
  return {
    streamIndex: video.index,
    widthPx: isSideways ? heightPx : widthPx,
    heightPx: isSideways ? widthPx : heightPx,
    pixelAspect: isSideways ? 1 / pixelAspect : pixelAspect,
    isInterlaced: ['tt', 'bb', 'tb', 'bt'].includes(video.field_order ?? ''),
    isMatrixUntagged: video.color_space === undefined || video.color_space === 'unknown',
    isHdr: video.color_transfer === 'smpte2084' || video.color_transfer === 'arib-std-b67',
  };
}

/** A number that FFmpeg printed, which may be `N/A` or missing. */
function seconds(text: string | undefined): number | undefined {
  const value = Number.parseFloat(text ?? '');
  return Number.isFinite(value) ? value : undefined;
}

/** A positive fraction such as `30000/1001`; undefined for `0/0`. */
function fraction(text: string | undefined, separator: string): number | undefined {
  const [numerator, denominator] = (text ?? '').split(separator).map(Number);
  const value = (numerator ?? 0) / (denominator ?? 0);
  return Number.isFinite(value) && value > 0 ? value : undefined;
}
