/**
 * Brings a source from a URL onto the disk: a file byte for byte, so that it becomes the same asset as the
 * file itself; a playlist as FFmpeg reads it, copied into one file.
 */
import { createWriteStream } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { BackendError, systemErrorCode } from './error.ts';
import { runFfmpeg } from './ffmpeg.ts';
import {
  type AddressFilter,
  checkHost,
  ForbiddenAddress,
  guardedLookup,
  openGuardProxy,
} from './outbound-guard.ts';

const MAX_REDIRECTS = 5;
/** For an answer, and then for each next piece of it. */
const SILENCE_MS = 30_000;
const PLAYLIST_MARK = '#EXTM3U';
/** Of a playlist that is read at all. */
const MAX_PLAYLIST_SIZE_BYTES = 4 * 1024 * 1024;
/** What FFmpeg may open while it reads a playlist: the network through our guard, no file, no device. */
const PLAYLIST_PROTOCOLS = 'http,https,tls,tcp,crypto,httpproxy';
const PLAYLIST_FORMATS = 'hls,mpegts,mov,aac,ac3,eac3,mp3';

export interface DownloadOptions {
  readonly ffmpegPath: string;
  readonly ffprobePath: string;
  readonly signal: AbortSignal;
  readonly allows: AddressFilter;
  /** Called with the bytes of each piece before it is written; may throw. */
  onBytes(sizeBytes: number): void;
  /** Called with 0..1 where the length is known. */
  onProgress(fraction: number): void;
}

/** The URL without what might be secret in it. */
export function displayUrl(url: string): string {
  if (!URL.canParse(url)) return 'the URL';
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`;
}

/**
 * @param url http or https
 * @param path of the file to be made
 * @throws BackendError IMPORT_URL_REFUSED, IMPORT_URL_FAILED, IMPORT_URL_LIVE, IMPORT_CANCELLED; the system's
 *   error when the file cannot be written; whatever `onBytes` throws
 */
export async function downloadSource(url: string, path: string, options: DownloadOptions): Promise<void> {
  const shown = displayUrl(url);
  let response: IncomingMessage;
  try {
    response = await open(url, options, MAX_REDIRECTS);
  } catch (error) {
    throw downloadError(error, shown, options.signal);
  }
  let head = Buffer.alloc(0);
  let receivedBytes = 0;
  const sizeBytes = Number(response.headers['content-length']);
  const isPlaylist = () => head.toString('latin1').startsWith(PLAYLIST_MARK);
  const meter = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      try {
        if (head.length < PLAYLIST_MARK.length) head = Buffer.concat([head, chunk.subarray(0, 64)]);
        receivedBytes += chunk.length;
        options.onBytes(chunk.length);
        if (sizeBytes > 0) options.onProgress(Math.min(1, receivedBytes / sizeBytes));
        if (isPlaylist() && receivedBytes > MAX_PLAYLIST_SIZE_BYTES) {
          throw new BackendError('IMPORT_URL_FAILED', `The playlist at ${shown} is too long.`);
        }
        callback(null, chunk);
      } catch (error) {
        callback(error instanceof Error ? error : new Error(String(error)));
      }
    },
  });
  try {
    await pipeline(response, meter, createWriteStream(path, { flags: 'wx' }), { signal: options.signal });
  } catch (error) {
    if (error instanceof BackendError || isWriteError(error)) throw error;
    throw downloadError(error, shown, options.signal);
  }
  if (isPlaylist()) await copyPlaylist(url, path, options);
}

/** Errors of the disk name a path; those of the network do not. */
function isWriteError(error: unknown): boolean {
  const code = systemErrorCode(error);
  const isOfFile = error instanceof Error && 'path' in error;
  return code === 'ENOSPC' || code === 'EDQUOT' || (code !== undefined && isOfFile);
}

/** Asks, and follows redirects, each of which is checked anew. */
async function open(
  url: string,
  options: Pick<DownloadOptions, 'signal' | 'allows'>,
  redirectsLeft: number,
): Promise<IncomingMessage> {
  const target = new URL(url);
  if (target.protocol !== 'http:' && target.protocol !== 'https:')
    throw new ForbiddenAddress(target.protocol);
  checkHost(target.hostname, options.allows);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = (target.protocol === 'http:' ? httpRequest : httpsRequest)(target, {
      signal: options.signal,
      headers: { 'user-agent': 'Starling', accept: '*/*', 'accept-encoding': 'identity' },
      lookup: guardedLookup(options.allows),
    });
    request.setTimeout(SILENCE_MS, () =>
      request.destroy(new Error(`it was silent for ${SILENCE_MS / 1000} s`)),
    );
    request.on('response', resolve).on('error', reject).end();
  });
  const { statusCode = 0, headers } = response;
  if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
    response.destroy();
    if (redirectsLeft === 0) throw new Error('it redirects again and again');
    return open(new URL(headers.location, target).href, options, redirectsLeft - 1);
  }
  if (statusCode !== 200) {
    response.destroy();
    throw new HttpStatus(statusCode);
  }
  return response;
}

class HttpStatus extends Error {
  readonly isTransient: boolean;

  constructor(status: number) {
    super(`it answered ${status}`);
    this.isTransient = status === 408 || status === 425 || status === 429 || status >= 500;
  }
}

function downloadError(error: unknown, shown: string, signal: AbortSignal): BackendError {
  if (error instanceof BackendError) return error;
  const cause = error;
  if (signal.aborted) {
    return new BackendError('IMPORT_CANCELLED', `The import of ${shown} was cancelled.`, { cause });
  }
  if (error instanceof ForbiddenAddress) {
    return new BackendError(
      'IMPORT_URL_REFUSED',
      `${shown} leads into a private network. Allow that with: starling media settings --private-urls yes`,
      { cause },
    );
  }
  const code = systemErrorCode(error);
  const reason =
    code === 'ENOTFOUND'
      ? 'there is no such host'
      : error instanceof Error
        ? error.message.replace(/[.]$/, '')
        : String(error);
  const isTransient = !(error instanceof HttpStatus) || error.isTransient;
  return new BackendError(
    isTransient ? 'IMPORT_URL_FAILED' : 'IMPORT_URL_REFUSED',
    `${shown} cannot be fetched: ${reason}.`,
    { cause },
  );
}

/** Has FFmpeg fetch what a playlist names: its best picture and its default sound. */
async function copyPlaylist(url: string, path: string, options: DownloadOptions): Promise<void> {
  const { ffmpegPath, ffprobePath, signal, allows } = options;
  const shown = displayUrl(url);
  const proxy = await openGuardProxy(allows);
  const env = { http_proxy: proxy.url, no_proxy: '' };
  const input = ['-protocol_whitelist', PLAYLIST_PROTOCOLS, '-format_whitelist', PLAYLIST_FORMATS];
  input.push('-rw_timeout', String(SILENCE_MS * 1000), '-i', url);
  try {
    let told = '';
    const probed = await runFfmpeg({
      program: ffprobePath,
      args: ['-v', 'error', '-show_entries', 'format=duration', '-of', 'csv=p=0', ...input],
      subject: shown,
      signal,
      env,
      onOutput: (chunk) => {
        told += Buffer.from(chunk).toString('latin1');
      },
    });
    if (!probed.isSuccess) throw playlistError(shown, probed.reason);
    const durationSeconds = Number.parseFloat(told);
    if (!(durationSeconds > 0)) {
      throw new BackendError('IMPORT_URL_LIVE', `${shown} is a live stream without an end, not a film.`);
    }
    const file = await openFile(path, 'w'); // the playlist itself is not needed any more
    try {
      const copied = await runFfmpeg({
        program: ffmpegPath,
        args: [
          ...['-nostdin', '-hide_banner', '-v', 'error', ...input, '-c', 'copy', '-map_metadata', '-1'],
          ...['-sn', '-dn', '-fflags', '+bitexact', '-f', 'nut', 'pipe:1'],
        ],
        subject: shown,
        signal,
        env,
        async onOutput(chunk) {
          options.onBytes(chunk.length);
          await file.writeFile(chunk);
        },
      });
      if (!copied.isSuccess) throw playlistError(shown, copied.reason);
    } finally {
      await file.close();
    }
  } finally {
    await proxy.close();
  }
}

function playlistError(shown: string, reason: string): BackendError {
  return new BackendError('IMPORT_URL_FAILED', `FFmpeg could not read the playlist at ${shown}: ${reason}.`);
}
