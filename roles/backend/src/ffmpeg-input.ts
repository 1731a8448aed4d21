/**
 * A stream that FFmpeg brings: it pulls an address or waits for an SRT caller, and hands the media on as FLV.
 * One child process per stream, watched: it is ended when it goes silent, and started again, later and
 * later while it fails.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { type StreamEvent, type Track, trackIndex } from '@starling/media/access-unit';
import { MediaError } from '@starling/media/error';
import { FlvDemuxer, FlvReader } from '@starling/media/flv/demux';
import {
  type PullScheme,
  parsePullUrl,
  type StreamInput,
  withoutSecrets,
} from '@starling/model/stream-input';
import type { Logger } from 'pino';
import { HOUSE_SAMPLE_RATE_HZ } from './house-format.ts';

export type FfmpegStreamInput = Exclude<StreamInput, { type: 'rtmp' }>;

export interface FfmpegInputOptions {
  readonly stream: string;
  readonly input: FfmpegStreamInput;
  /** Where SRT callers are waited for; on all addresses when undefined. */
  readonly host: string | undefined;
  readonly ffmpegPath?: string;
  readonly logger: Logger;
  onEvent(event: StreamEvent): void;
  onPublishChange(isPublishing: boolean): void;
}

/** Without a byte for so long, FFmpeg is ended: at first it may have to find the streams. */
const FIRST_BYTE_MS = 20_000;
const SILENCE_MS = 10_000;
/** Nobody called: FFmpeg ends and waits anew, so that a process whose backend was killed does not stay. */
const LISTEN_MS = 30_000;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 10_000;
/** After so long a run the next failure counts as the first. */
const GOOD_RUN_MS = 10_000;
const MAX_STDERR_CHARS = 8192;

/** What FFmpeg may open, by the scheme of the address: never a file. */
const PROTOCOLS: Record<PullScheme, string> = {
  http: 'http,https,tcp,tls,crypto,data',
  https: 'http,https,tcp,tls,crypto,data',
  rtmp: 'rtmp,tcp',
  rtmps: 'rtmps,tls,tcp',
  rtsp: 'rtsp,rtp,udp,tcp',
  rtsps: 'rtsps,rtsp,rtp,udp,tls,tcp',
  srt: 'srt',
  udp: 'udp',
};
/** Containers of live media. Scripts that name other addresses are left out, but for HLS. */
const CONTAINERS = 'aac,flv,hls,live_flv,matroska,mov,mp3,mpegts,ogg,rtsp,sdp,webm';

/** How a kind of media is taken over: as it is where FLV has a place for its codec. */
export interface Conversion {
  readonly video: 'copy' | 'encode';
  readonly audio: 'copy' | 'encode';
}

export class FfmpegInput {
  readonly #options: FfmpegInputOptions;
  readonly #logger: Logger;
  readonly #tracks = new Map<number, Track>();
  #conversion: Conversion = { video: 'copy', audio: 'copy' };
  #child: ChildProcess | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #failures = 0;
  #isPublishing = false;
  #isClosed = false;
  #problem: string | undefined;

  constructor(options: FfmpegInputOptions) {
    this.#options = options;
    const { stream, input, logger } = options;
    this.#logger = logger.child({ stream, input: withoutSecrets(input) });
    this.#start();
  }

  get isPublishing(): boolean {
    return this.#isPublishing;
  }

  /** Why nothing comes, in the words of FFmpeg; undefined while something does. */
  get problem(): string | undefined {
    return this.#isPublishing ? undefined : this.#problem;
  }

  /** What FFmpeg has announced; nothing while nothing comes. */
  get tracks(): readonly Track[] {
    return [...this.#tracks.values()];
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retryTimer);
    this.#kill();
  }

  #start(): void {
    const { input, host, ffmpegPath = 'ffmpeg' } = this.#options;
    const startedAtMs = performance.now();
    // Its own process group: a Ctrl-C on the terminal is for us.
    const child = spawn(ffmpegPath, inputArguments(input, this.#conversion), {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    this.#child = child;
    const reader = new FlvReader();
    const demuxer = new FlvDemuxer();
    let stderr = '';
    let endReason: string | undefined;
    const end = (reason: string) => {
      endReason ??= reason;
      this.#kill();
    };
    let deadline = setTimeout(
      () => end(`nothing came for ${FIRST_BYTE_MS / 1000} s`),
      FIRST_BYTE_MS + (input.type === 'srt-listener' ? LISTEN_MS : 0),
    );
    child.stdin.on('error', () => {}); // it ended before it read the script: said below
    // The address goes in here and not with the arguments, which every user of the machine can read.
    child.stdin.end(inputScript(input, host));
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-MAX_STDERR_CHARS);
    });
    child.stdout.on('data', (chunk: Uint8Array) => {
      clearTimeout(deadline);
      deadline = setTimeout(() => end(`nothing came for ${SILENCE_MS / 1000} s`), SILENCE_MS);
      try {
        for (const message of reader.push(chunk))
          for (const event of demuxer.push(message)) this.#take(event);
      } catch (error) {
        if (!(error instanceof MediaError)) throw error;
        end(error.message);
      }
    });
    child.on('error', (error) => end(`FFmpeg cannot be started: ${error.message}`));
    child.on('close', () => {
      clearTimeout(deadline);
      this.#child = undefined;
      this.#setPublishing(false);
      if (this.#isClosed) return;
      const wasGood = performance.now() - startedAtMs > GOOD_RUN_MS;
      const conversion = conversionAfter(stderr, this.#conversion);
      if (conversion !== undefined) {
        this.#logger.info(conversion, 'a codec of the input is converted');
        this.#conversion = conversion;
        this.#failures = 0;
      } else {
        this.#fail(endReason ?? reasonOf(stderr, input), wasGood);
      }
      const retryMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.max(0, this.#failures - 1));
      this.#retryTimer = setTimeout(() => this.#start(), retryMs * (0.5 + Math.random() / 2));
    });
  }

  #fail(reason: string, wasGood: boolean): void {
    if (wasGood) this.#failures = 0;
    if (reason !== this.#problem) this.#logger.warn({ reason }, 'the input ended; it is tried again');
    this.#problem = reason;
    // Waiting for a caller is no failure.
    const isIdle = this.#options.input.type === 'srt-listener' && wasGood;
    if (!isIdle) this.#failures++;
  }

  #take(event: StreamEvent): void {
    if (event.type === 'track') this.#tracks.set(trackIndex(event.track), event.track);
    if (event.type === 'unit') this.#setPublishing(true);
    this.#options.onEvent(event);
  }

  #setPublishing(isPublishing: boolean): void {
    if (!isPublishing) this.#tracks.clear();
    if (isPublishing === this.#isPublishing) return;
    this.#isPublishing = isPublishing;
    if (isPublishing) {
      this.#problem = undefined;
      this.#logger.info('the input delivers');
    }
    this.#options.onPublishChange(isPublishing);
  }

  #kill(): void {
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL'); // it writes to a pipe only: nothing to be finished
    } catch {
      // It ended by itself meanwhile.
    }
  }
}

/** The address of an input, as FFmpeg takes it. */
function addressOf(input: FfmpegStreamInput, host = '0.0.0.0'): string {
  if (input.type === 'pull') return input.url;
  const query = new URLSearchParams({ mode: 'listener', passphrase: input.passphrase, pbkeylen: '16' });
  return `srt://${host.includes(':') ? `[${host}]` : host}:${input.port}?${query}`;
}

/**
 * A script for FFmpeg's concat demuxer that names the one address, to be read from standard input.
 *
 * Source: ffmpeg-formats, "concat"; quoting as in ffmpeg-utils, "Quoting and escaping".
 */
export function inputScript(input: FfmpegStreamInput, host?: string): string {
  const url = addressOf(input, host);
  const scheme = parsePullUrl(url)?.scheme;
  const options: string[] = [];
  if (input.type === 'srt-listener') options.push(`option listen_timeout ${LISTEN_MS * 1000}`);
  if (scheme === 'rtsp' || scheme === 'rtsps') options.push('option rtsp_transport tcp');
  if (scheme === 'udp') options.push('option overrun_nonfatal 1', 'option fifo_size 50000');
  return ['ffconcat version 1.0', `file '${url.replaceAll("'", "'\\''")}'`, ...options, ''].join('\n');
}

/** The arguments of FFmpeg: the script on standard input, FLV on standard output. */
export function inputArguments(input: FfmpegStreamInput, conversion: Conversion): string[] {
  const scheme = input.type === 'srt-listener' ? 'srt' : (parsePullUrl(input.url)?.scheme ?? 'srt');
  return [
    ...['-hide_banner', '-loglevel', 'warning'],
    ...['-protocol_whitelist', `pipe,${PROTOCOLS[scheme]}`, '-format_whitelist', `concat,${CONTAINERS}`],
    ...['-analyzeduration', '3000000', '-probesize', '2000000', '-fflags', '+genpts+discardcorrupt'],
    // HLS comes a whole segment at a time: handed on in the rhythm of its times.
    ...(scheme === 'http' || scheme === 'https' ? ['-re'] : []),
    ...['-f', 'concat', '-safe', '0', '-i', 'pipe:0'],
    ...['-map', '0:v:0?', '-map', '0:a:0?', '-sn', '-dn', '-map_metadata', '-1'],
    ...(conversion.video === 'copy' ? ['-c:v', 'copy'] : ENCODED_VIDEO),
    ...(conversion.audio === 'copy' ? ['-c:a', 'copy'] : ENCODED_AUDIO),
    // A track that falls silent must not hold up the other one.
    ...['-max_interleave_delta', '500000', '-flush_packets', '1'],
    ...['-f', 'flv', '-flvflags', 'no_duration_filesize', 'pipe:1'],
  ];
}

const ENCODED_VIDEO = [
  ...['-c:v', 'libx264', '-preset', 'veryfast', '-tune', 'zerolatency', '-pix_fmt', 'yuv420p'],
  ...['-force_key_frames', 'expr:gte(t,n_forced*2)', '-sc_threshold', '0', '-crf', '21'],
  ...['-maxrate', '6M', '-bufsize', '6M', '-fps_mode', 'passthrough'],
];
const ENCODED_AUDIO = [
  ...['-c:a', 'aac', '-b:a', '160k', '-ac', '2', '-ar', String(HOUSE_SAMPLE_RATE_HZ)],
  ...['-af', 'aresample=async=1'],
];

/** What FFmpeg's FLV muxer says of a codec or a sample rate that it has no place for (libavformat/flvenc.c). */
const REFUSED = /\b(Video|Audio) codec '?[\w.-]+'? (for stream \d+ )?(is )?not compatible with (flv|FLV)/;
const REFUSED_RATE = /FLV does not support sample rate/;

/** What is to be converted the next time; undefined where the end had another cause. */
export function conversionAfter(stderr: string, before: Conversion): Conversion | undefined {
  const kind = REFUSED_RATE.test(stderr) ? 'Audio' : REFUSED.exec(stderr)?.[1];
  if (kind === 'Video' && before.video === 'copy') return { ...before, video: 'encode' };
  if (kind === 'Audio' && before.audio === 'copy') return { ...before, audio: 'encode' };
  return undefined;
}

/** The last line of FFmpeg's that says something, without what may be secret. */
function reasonOf(stderr: string, input: FfmpegStreamInput): string {
  const lines = stderr
    .split('\n')
    .map((line) => line.replace(/^\s*(\[[^\]]* @ 0x[0-9a-f]+\] ?)+/, '').trim())
    .filter((line) => line !== '' && !/^Last message repeated/.test(line));
  const shown = withoutSecrets(input);
  const address = shown.type === 'pull' ? shown.address : 'the SRT port';
  const line = lines.at(-1)?.replace(/^pipe:0: /, '') ?? 'the source ended';
  const secret = input.type === 'pull' ? input.url : input.passphrase;
  return line.replaceAll(secret, address).replace(/[a-z]+:\/\/\S+/gi, address);
}
