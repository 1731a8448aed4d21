/** Finds out what a file to be imported holds: its picture, its sounds, its subtitles, and its true length. */
import { type Static, Type } from 'typebox';
import { Value } from 'typebox/value';
import { BackendError } from './error.ts';
import { runFfmpeg } from './ffmpeg.ts';
import { MAX_AUDIO_TRACKS, type Source, type SourceSound } from './house-format.ts';

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

/** Sample entries of FairPlay and of Common Encryption, which also shows in the side data of the packets. */
const ENCRYPTED_TAGS = new Set(['drmi', 'drms', 'enca', 'encv']);
const ENCRYPTED_PACKET = 'Encryption info';
/** Packets looked at for it: enough to see some of each stream. */
const FIRST_PACKETS = 16;

/** Subtitles that are text; those that are pictures cannot become WebVTT. */
const TEXT_SUBTITLES = new Set(['ass', 'mov_text', 'ssa', 'subrip', 'text', 'webvtt']);
const MAX_SUBTITLES = 32;
const MAX_TITLE_CHARS = 200;

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
      tags: Type.Optional(Type.Record(Type.String(), Type.String())),
      side_data_list: Type.Optional(Type.Array(Type.Object({ rotation: Type.Optional(Type.Number()) }))),
    }),
  ),
});
type StreamDescription = Static<typeof Description>['streams'][number];

export interface ProbeOptions {
  readonly ffprobePath: string;
  /** Absolute path of the file. */
  readonly path: string;
  /** Names it in sentences. */
  readonly subject: string;
  readonly signal: AbortSignal;
}

/** The streams of a file that are worth importing. */
export interface StreamChoice {
  readonly formatNames: readonly string[];
  readonly formatStartSeconds: number;
  readonly video: StreamDescription | undefined;
  /** One of each language, the default one first. */
  readonly audios: readonly StreamDescription[];
  readonly subtitles: readonly SubtitleStream[];
}

export interface SubtitleStream {
  readonly streamIndex: number;
  readonly language: string | null;
  readonly title: string | null;
}

/** A source with what its plan needs. */
export interface MeasuredSource extends Source {
  readonly contentSeconds: number;
  readonly frameRate: number | undefined;
}

/** FFmpeg's options and input for a local file, and nothing but a local file. */
export function fileInput(path: string): string[] {
  return ['-protocol_whitelist', 'file', '-format_whitelist', CONTAINERS, '-i', `file:${path}`];
}

/**
 * Chooses the picture, the sounds and the subtitles of a file.
 * @param languages those that are preferred for the default sound, the most wanted first
 * @throws BackendError IMPORT_NOT_MEDIA, IMPORT_NO_STREAMS, IMPORT_ENCRYPTED, or one of `runFfmpeg`
 */
export async function chooseStreams(
  { ffprobePath, path, subject, signal }: ProbeOptions,
  languages: readonly string[],
): Promise<StreamChoice> {
  const chunks: Uint8Array[] = [];
  const { isSuccess, reason, stderr } = await runFfmpeg({
    program: ffprobePath,
    args: [
      ...['-v', 'error', '-show_format', '-show_streams', '-show_packets'],
      ...['-read_intervals', `%+#${FIRST_PACKETS}`, '-of', 'json', ...fileInput(path)],
    ],
    subject,
    signal,
    onOutput: (chunk) => void chunks.push(chunk),
  });
  const description: unknown = isSuccess ? JSON.parse(Buffer.concat(chunks).toString('utf8')) : undefined;
  if (!Value.Check(Description, description)) {
    throw new BackendError(
      'IMPORT_NOT_MEDIA',
      stderr.includes('whitelist')
        ? `${subject} is a picture or a list of files, not video or sound.`
        : `${subject} is not a media file that FFmpeg can read, or it is damaged: ${reason}.`,
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
    throw new BackendError('IMPORT_ENCRYPTED', `${subject} is encrypted (DRM), so it cannot be imported.`);
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
    audios: oneOfEachLanguage(audios, languages),
    subtitles: streams
      .filter(
        ({ codec_type, codec_name = '' }) => codec_type === 'subtitle' && TEXT_SUBTITLES.has(codec_name),
      )
      .slice(0, MAX_SUBTITLES)
      .map((stream) => ({
        streamIndex: stream.index,
        language: languageOf(stream),
        title: tagOf(stream, 'title')?.slice(0, MAX_TITLE_CHARS) ?? null,
      })),
  };
  if (!choice.video && choice.audios.length === 0) {
    throw new BackendError(
      'IMPORT_NO_STREAMS',
      `${subject} has neither picture nor sound that FFmpeg can decode.`,
    );
  }
  return choice;
}

function isDecodable(stream: StreamDescription): boolean {
  return stream.codec_name !== undefined && stream.codec_name !== 'none' && stream.codec_name !== 'unknown';
}

function tagOf(stream: StreamDescription, name: string): string | undefined {
  // Matroska's names are often in capitals.
  return Object.entries(stream.tags ?? {}).find(([key]) => key.toLowerCase() === name)?.[1];
}

/** RFC 5646, from the three letters of ISO 639-2 that most containers have; null where it says nothing. */
function languageOf(stream: StreamDescription): string | null {
  try {
    const [language = 'und'] = Intl.getCanonicalLocales(tagOf(stream, 'language') ?? 'und');
    return ['mis', 'mul', 'und', 'zxx'].includes(language) ? null : language;
  } catch {
    return null;
  }
}

/** Of several sounds in one language the default one, and no commentary where there is another. */
function oneOfEachLanguage(
  audios: readonly StreamDescription[],
  languages: readonly string[],
): StreamDescription[] {
  const rank = (stream: StreamDescription) => {
    const { comment = 0, visual_impaired = 0, default: isDefault = 0 } = stream.disposition ?? {};
    return 2 * (comment + visual_impaired) - isDefault;
  };
  const wanted = (stream: StreamDescription) => {
    const place = languages.indexOf(languageOf(stream) ?? '');
    return place < 0 ? languages.length : place;
  };
  const byRank = audios.toSorted((a, b) => rank(a) - rank(b));
  const chosen = new Map<string | null, StreamDescription>();
  for (const stream of byRank) {
    const language = languageOf(stream);
    if (!chosen.has(language)) chosen.set(language, stream);
  }
  return [...chosen.values()].sort((a, b) => wanted(a) - wanted(b)).slice(0, MAX_AUDIO_TRACKS);
}

/**
 * Reads the times of every packet: containers are often wrong about their length and frame rate.
 * @throws BackendError IMPORT_NOT_MEDIA when not one packet can be read, or one of `runFfmpeg`
 */
export async function measureSource(options: ProbeOptions, choice: StreamChoice): Promise<MeasuredSource> {
  const { ffprobePath, path, subject, signal } = options;
  const { video, audios } = choice;
  const mayJump = choice.formatNames.some((name) => JUMPING_FORMATS.has(name));
  const spans = new Map<number, PacketSpan>();
  for (const stream of video ? [video, ...audios] : audios) spans.set(stream.index, new PacketSpan(mayJump));

  let rest = '';
  const decoder = new TextDecoder();
  const { isSuccess, reason } = await runFfmpeg({
    program: ffprobePath,
    args: [
      ...['-v', 'error', '-show_entries', 'packet=stream_index,pts_time,dts_time,duration_time'],
      ...['-of', 'csv=p=0', ...fileInput(path)],
    ],
    subject,
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

  // The container's start of a stream leaves out what its edit list hides, the packets do not.
  const isExact = choice.formatNames.some((name) => EXACT_DURATION_FORMATS.has(name));
  const placed = [...spans].flatMap(([streamIndex, span]) => {
    const stream = [video, ...audios].find((one) => one?.index === streamIndex);
    if (!stream || span.startSeconds === undefined) return [];
    const startSeconds = seconds(stream.start_time) ?? span.startSeconds;
    const told = isExact ? seconds(stream.duration) : undefined;
    const toldEndSeconds = told === undefined ? Number.POSITIVE_INFINITY : startSeconds + told;
    return [{ stream, span, startSeconds, endSeconds: Math.min(span.endSeconds, toldEndSeconds) }];
  });
  if (placed.length === 0) {
    const detail = isSuccess ? 'it holds no data' : reason;
    throw new BackendError('IMPORT_NOT_MEDIA', `${subject} is damaged: ${detail}.`);
  }
  const contentStart = Math.min(...placed.map(({ startSeconds }) => startSeconds));
  const picture = placed.find(({ stream }) => stream === video);
  const sounds = placed.flatMap(({ stream, startSeconds, endSeconds }): SourceSound[] =>
    stream === video
      ? []
      : [
          {
            streamIndex: stream.index,
            language: languageOf(stream),
            offsetSeconds: startSeconds - contentStart,
            endSeconds: endSeconds - contentStart,
          },
        ],
  );
  return {
    inputArguments: ['-reinit_filter:v', '0', ...fileInput(path)],
    inputCount: 1,
    startSeconds: contentStart - choice.formatStartSeconds,
    picture: picture && describePicture(picture.stream),
    sounds,
    contentSeconds: Math.max(...placed.map(({ endSeconds }) => endSeconds)) - contentStart,
    frameRate: picture && trueFrameRate(picture.stream, picture.span),
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
