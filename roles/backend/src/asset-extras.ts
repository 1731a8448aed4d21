/** What goes into an asset's folder beside its media: a poster, thumbnails with their map, and subtitles. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { AssetFacts, AssetSubtitles } from '@starling/model/schedule';
import { ASSET_MEDIA_NAME } from './asset-file.ts';
import { BackendError } from './error.ts';
import { runFfmpeg } from './ffmpeg.ts';
import type { SubtitleStream } from './source-probe.ts';

export const POSTER_NAME = 'poster.jpg';
export const THUMBNAILS_MAP_NAME = 'thumbnails.vtt';

const THUMBNAIL = { widthPx: 160, heightPx: 90, columns: 10, rows: 10 } as const;
/** So that 2 h of film have a picture every 8 s. */
const MAX_THUMBNAILS = 1000;
const POSTER_MAX_HEIGHT_PX = 720;
/** The poster is the most typical of so many pictures, between these parts of the asset. */
const POSTER_CANDIDATES = 30;
const POSTER_FROM = 0.1;
const POSTER_UNTIL = 0.4;

interface Run {
  readonly ffmpegPath: string;
  /** Of the asset. */
  readonly folder: string;
  /** For the sentence of an error. */
  readonly subject: string;
  readonly signal: AbortSignal;
}

/**
 * Draws the poster and the thumbnails from the asset's own key frames, so that it takes no second pass over
 * the source.
 * @param segmentStartsTicks start of each GOP, in ticks of 1/90000 s
 * @throws BackendError IMPORT_FFMPEG_FAILED, or one of `runFfmpeg`
 */
export async function drawPictures(
  { ffmpegPath, folder, subject, signal }: Run,
  { videoTracks, durationTicks }: Pick<AssetFacts, 'videoTracks' | 'durationTicks'>,
  segmentStartsTicks: readonly number[],
): Promise<void> {
  const keyFrameCount = segmentStartsTicks.length;
  const every = Math.ceil(keyFrameCount / MAX_THUMBNAILS);
  const posterFrom = Math.floor(keyFrameCount * POSTER_FROM);
  const posterUntil = Math.max(posterFrom, Math.floor(keyFrameCount * POSTER_UNTIL));
  const posterEvery = Math.ceil((posterUntil - posterFrom + 1) / POSTER_CANDIDATES);
  const trackId = videoTracks.findIndex(({ heightPx }) => heightPx <= POSTER_MAX_HEIGHT_PX);
  const { widthPx, heightPx, columns, rows } = THUMBNAIL;
  const { isSuccess, reason } = await runFfmpeg({
    program: ffmpegPath,
    args: [
      ...['-nostdin', '-hide_banner', '-v', 'error', '-progress', 'pipe:1', '-skip_frame', 'nokey'],
      ...['-protocol_whitelist', 'file', '-i', `file:${join(folder, ASSET_MEDIA_NAME)}`],
      '-filter_complex',
      `[0:v:${Math.max(0, trackId)}]split[a][b];` +
        `[a]select=not(mod(n\\,${every})),scale=${widthPx}:${heightPx}:flags=area+accurate_rnd,tile=${columns}x${rows}[sheets];` +
        `[b]select=between(n\\,${posterFrom}\\,${posterUntil})*not(mod(n-${posterFrom}\\,${posterEvery})),` +
        `thumbnail=${POSTER_CANDIDATES}[poster]`,
      ...[
        '-map',
        '[sheets]',
        '-fps_mode',
        'passthrough',
        '-q:v',
        '5',
        '-threads',
        '1',
        '-flags',
        '+bitexact',
      ],
      join(folder.replaceAll('%', '%%'), sheetName('%d')),
      ...['-map', '[poster]', '-frames:v', '1', '-q:v', '3', '-threads', '1', '-flags', '+bitexact'],
      ...['-update', '1', join(folder, POSTER_NAME)],
    ],
    subject,
    signal,
    onOutput: () => {},
  });
  if (!isSuccess) {
    throw new BackendError(
      'IMPORT_FFMPEG_FAILED',
      `FFmpeg could not draw the poster of ${subject}: ${reason}.`,
    );
  }
  const starts = segmentStartsTicks.filter((_, index) => index % every === 0);
  await writeFile(join(folder, THUMBNAILS_MAP_NAME), thumbnailsMap(starts, durationTicks));
}

function sheetName(number: string | number): string {
  return `thumbnails-${number}.jpg`;
}

/**
 * The map of the thumbnails: for each stretch of time the sheet and the place on it.
 *
 * Source: W3C WebVTT, and Media Fragments URI 1.0, section 4.2.2 (`#xywh`).
 */
export function thumbnailsMap(startsTicks: readonly number[], durationTicks: number): string {
  const { widthPx, heightPx, columns, rows } = THUMBNAIL;
  const cues = startsTicks.map((startTicks, index) => {
    const place = index % (columns * rows);
    const x = (place % columns) * widthPx;
    const y = Math.floor(place / columns) * heightPx;
    const sheet = sheetName(Math.floor(index / (columns * rows)) + 1);
    const endTicks = startsTicks[index + 1] ?? durationTicks;
    return `${vttTime(startTicks)} --> ${vttTime(endTicks)}\n${sheet}#xywh=${x},${y},${widthPx},${heightPx}\n`;
  });
  return ['WEBVTT\n', ...cues].join('\n');
}

function vttTime(ticks: number): string {
  const ms = Math.round((ticks * 1000) / VIDEO_TIMESCALE_HZ);
  const pad = (value: number, width = 2) => String(Math.floor(value)).padStart(width, '0');
  return `${pad(ms / 3_600_000)}:${pad((ms / 60_000) % 60)}:${pad((ms / 1000) % 60)}.${pad(ms % 1000, 3)}`;
}

/**
 * Writes the source's text subtitles as WebVTT. Times count from the start of the content.
 * @returns those that have any text
 * @throws BackendError IMPORT_FFMPEG_FAILED, or one of `runFfmpeg`
 */
export async function extractSubtitles(
  { ffmpegPath, folder, subject, signal }: Run,
  inputArguments: readonly string[],
  startSeconds: number,
  streams: readonly SubtitleStream[],
): Promise<AssetSubtitles[]> {
  if (streams.length === 0) return [];
  const named = streams.map((stream, index) => ({ ...stream, fileName: `subtitles-${index + 1}.vtt` }));
  const { isSuccess, reason } = await runFfmpeg({
    program: ffmpegPath,
    args: [
      ...['-nostdin', '-hide_banner', '-v', 'error', '-progress', 'pipe:1', ...inputArguments],
      ...named.flatMap(({ streamIndex, fileName }) => [
        ...['-map', `0:${streamIndex}`, '-map_metadata', '-1', '-c:s', 'webvtt', '-flags', '+bitexact'],
        ...['-output_ts_offset', (-startSeconds).toFixed(6), '-f', 'webvtt', join(folder, fileName)],
      ]),
    ],
    subject,
    signal,
    onOutput: () => {},
  });
  if (!isSuccess) {
    throw new BackendError(
      'IMPORT_FFMPEG_FAILED',
      `FFmpeg could not read the subtitles of ${subject}: ${reason}.`,
    );
  }
  const subtitles: AssetSubtitles[] = [];
  for (const { language, title, fileName } of named) {
    const path = join(folder, fileName);
    if ((await readFile(path, 'utf8')).includes('-->')) subtitles.push({ language, title, fileName });
    else await rm(path);
  }
  return subtitles;
}
