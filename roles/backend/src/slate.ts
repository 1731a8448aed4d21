/**
 * Slates: the still pictures that a channel shows when nothing else is left. FFmpeg draws each once, in the
 * house format; then it is played out like any asset. They have a store of their own.
 */
import { createHash } from 'node:crypto';
import type { AssetFacts } from '@starling/model/schedule';
import type { Logger } from 'pino';
import type { AssetFile } from './asset-file.ts';
import { BackendError } from './error.ts';
import { RUNGS } from './house-format.ts';
import { type GeneratedSource, Library } from './library.ts';

const FRAME_RATE = 25;
/** A whole number of GOPs of 2 s and of both frame grids. */
const DURATION_SECONDS = 16;
/** Raise it when the drawing changes. */
const VERSION = 1;
/** What fits on the picture. */
const MAX_TITLE_CHARS = 48;
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 60_000;

export class Slates {
  readonly #library: Library;
  readonly #logger: Logger;
  readonly #stop = new AbortController();
  readonly #drawing = new Map<string, Promise<AssetFacts | undefined>>();
  /** One after another: a restart must not draw the slates of a hundred channels at once. */
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(library: Library, logger: Logger) {
    this.#library = library;
    this.#logger = logger;
  }

  /** @throws BackendError IMPORT_STORE_FAILED */
  static async open(options: { mediaDir: string; logger: Logger }): Promise<Slates> {
    const library = new Library(options);
    await library.open();
    return new Slates(library, options.logger);
  }

  /** Draws the slate of a channel with this title, or finds it. Resolves to undefined only at the end. */
  get(title: string): Promise<AssetFacts | undefined> {
    const known = this.#drawing.get(title);
    if (known !== undefined) return known;
    const drawing = this.#queue.then(() => this.#draw(title));
    this.#queue = drawing;
    this.#drawing.set(title, drawing);
    return drawing;
  }

  openAsset(contentHash: string): Promise<AssetFile> {
    return this.#library.openAsset(contentHash);
  }

  /** Removes the slates of all other titles. */
  async retain(titles: readonly string[]): Promise<void> {
    for (const title of this.#drawing.keys()) if (!titles.includes(title)) this.#drawing.delete(title);
    const facts = await Promise.all(titles.map((title) => this.get(title)));
    await this.#library.retain(facts.flatMap((one) => (one === undefined ? [] : [one.contentHash])));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#library.close();
    await this.#queue;
  }

  async #draw(title: string): Promise<AssetFacts | undefined> {
    for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
      try {
        return await this.#drawOnce(title);
      } catch (error) {
        if (this.#stop.signal.aborted) break;
        const waitMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt) * (0.5 + Math.random() / 2);
        this.#logger.error({ err: error, title }, 'the slate could not be drawn; it is tried again');
        await sleep(waitMs, this.#stop.signal);
      }
    }
    return undefined;
  }

  async #drawOnce(title: string): Promise<AssetFacts> {
    const options = { signal: this.#stop.signal, onProgress: () => {} };
    try {
      return await this.#library.importFrom(slateSource(title, { hasText: true }), options);
    } catch (error) {
      // FFmpeg without drawtext, or a machine without fonts.
      if (!(error instanceof BackendError) || error.code !== 'IMPORT_FFMPEG_FAILED') throw error;
      return await this.#library.importFrom(slateSource(title, { hasText: false }), options);
    }
  }
}

/** The slate as an input of FFmpeg: "We'll be right back", with the title of the channel, and silence. */
export function slateSource(title: string, { hasText }: { hasText: boolean }): GeneratedSource {
  const { widthPx, heightPx } = RUNGS['720p'];
  const words = [
    drawText("We'll be right back", 72, '0xeef2ff', 'h/2-60'),
    drawText(
      title.length > MAX_TITLE_CHARS ? `${title.slice(0, MAX_TITLE_CHARS - 1)}…` : title,
      36,
      '0x9fb0d8',
      'h/2+50',
    ),
  ];
  const picture = [
    `color=c=0x10141c:s=${widthPx}x${heightPx}:r=${FRAME_RATE}:d=0.04,format=rgb24`,
    ...(hasText ? words : []),
    'scale=out_color_matrix=bt709:out_range=tv,format=yuv420p',
    'loop=loop=-1:size=1:start=0,setpts=N', // drawn once
    `trim=end_frame=${FRAME_RATE * DURATION_SECONDS}`,
    'setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709[out0]',
  ];
  const sound = `anullsrc=r=48000:cl=stereo,atrim=duration=${DURATION_SECONDS}[out1]`;
  const digest = createHash('sha256').update(title).digest('hex');
  return {
    args: ['-f', 'lavfi', '-i', `${picture.join(',')};${sound}`],
    identity: `slate ${VERSION} ${digest}${hasText ? '' : ' without text'}`,
    durationMs: DURATION_SECONDS * 1000,
  };
}

function drawText(words: string, sizePx: number, colour: string, y: string): string {
  return `drawtext=font='DejaVu Sans':expansion=none:text=${escapeFilterValue(words)}:fontsize=${sizePx}:fontcolor=${colour}:x=(w-text_w)/2:y=${y}`;
}

/**
 * Writes a text so that it stands as itself as the value of a filter's option in a filter graph.
 *
 * Source: ffmpeg-filters, "Notes on filtergraph escaping": once for the option, once for the graph. Control
 * characters are left out.
 */
export function escapeFilterValue(text: string): string {
  return text
    .replace(/\p{Cc}/gu, '')
    .replace(/[\\':]/g, '\\$&')
    .replace(/[\\'[\],;]/g, '\\$&');
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    signal.addEventListener('abort', wake);
  });
}
