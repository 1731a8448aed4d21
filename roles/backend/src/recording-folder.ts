/**
 * One recording on the disk: a folder with its movie files and what is known of it.
 *
 *   <dir>/<id>/recording.json
 *   <dir>/<id>/part-<number>.mp4
 *
 * The folder says all by itself, so no recording is lost with the coordinator's database.
 */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { MovieEvent } from '@starling/media/fmp4/movie';
import { RecordingEnd, RecordingId, type ReportedRecording } from '@starling/model/recording';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import { systemErrorCode } from './error.ts';
import { MovieFile } from './movie-file.ts';

const MANIFEST_NAME = 'recording.json';
const Source = Type.Union([Type.String(), Type.Null()]);

const Manifest = Type.Object({
  id: RecordingId,
  name: Type.String(),
  channel: Source,
  stream: Source,
  isAutomatic: Type.Boolean(),
  createdAt: Type.String({ format: 'date-time' }),
  end: Type.Union([
    Type.Object({ reason: RecordingEnd, at: Type.String({ format: 'date-time' }) }),
    Type.Null(),
  ]),
  /** The size and length of the last one count only once it is finished. */
  parts: Type.Array(
    Type.Object({
      number: Type.Integer({ minimum: 1 }),
      startedAt: Type.String({ format: 'date-time' }),
      durationMs: Type.Integer({ minimum: 0 }),
      sizeBytes: Type.Integer({ minimum: 0 }),
      isFinished: Type.Boolean(),
    }),
  ),
});
type Manifest = Static<typeof Manifest>;
export type RecordingFacts = Omit<Manifest, 'end' | 'parts'>;

/** Its methods are called one after another: each is awaited before the next. */
export class RecordingFolder {
  readonly #folder: string;
  #manifest: Manifest;
  #file: MovieFile | undefined;

  private constructor(folder: string, manifest: Manifest) {
    this.#folder = folder;
    this.#manifest = manifest;
  }

  /** @throws the system's error */
  static async create(dir: string, facts: RecordingFacts): Promise<RecordingFolder> {
    const folder = join(dir, facts.id);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const made = new RecordingFolder(folder, { ...facts, end: null, parts: [] });
    await made.#save();
    return made;
  }

  /**
   * Opens what a process before left; a file that it was killed in is finished as far as it goes.
   * @returns undefined where there is no recording
   * @throws the system's error
   */
  static async open(dir: string, id: string): Promise<RecordingFolder | undefined> {
    const folder = join(dir, id);
    let manifest: unknown;
    try {
      manifest = JSON.parse(await readFile(join(folder, MANIFEST_NAME), 'utf8'));
    } catch (error) {
      if (
        error instanceof SyntaxError ||
        systemErrorCode(error) === 'ENOENT' ||
        systemErrorCode(error) === 'ENOTDIR'
      ) {
        return undefined;
      }
      throw error;
    }
    if (!Check(Manifest, manifest) || manifest.id !== id) return undefined;
    const opened = new RecordingFolder(folder, manifest);
    await opened.#mend();
    return opened;
  }

  /** Ids of the folders that may hold a recording. @throws the system's error */
  static async list(dir: string): Promise<string[]> {
    return (await readdir(dir)).filter((name) => Check(RecordingId, name));
  }

  get facts(): RecordingFacts {
    return this.#manifest;
  }

  get end(): Manifest['end'] {
    return this.#manifest.end;
  }

  /** As the coordinator is told. */
  report(isRecording: boolean): ReportedRecording {
    const { parts, ...facts } = this.#manifest;
    return {
      ...facts,
      isRecording,
      parts: parts.map(({ number, startedAt, durationMs, sizeBytes }) => ({
        number,
        startedAt,
        durationMs,
        sizeBytes,
        path: this.#pathOf(number),
      })),
    };
  }

  get partCount(): number {
    return this.#manifest.parts.length;
  }

  get sizeBytes(): number {
    return this.#manifest.parts.reduce((sum, part) => sum + part.sizeBytes, 0);
  }

  /** When the media of its last file ends, in milliseconds since 1970; when it was made where there is none. */
  get endUnixMs(): number {
    const last = this.#manifest.parts.at(-1);
    return last === undefined
      ? Date.parse(this.#manifest.createdAt)
      : Date.parse(last.startedAt) + last.durationMs;
  }

  /** @throws the system's error; what was written before stays whole */
  async write(event: MovieEvent): Promise<void> {
    if (event.type === 'file') {
      await this.finishPart();
      const number = (this.#manifest.parts.at(-1)?.number ?? 0) + 1;
      const before = this.#manifest.parts;
      const startedAt = new Date(event.startUnixMs).toISOString();
      // Named before it is there: so no file is ever left that nobody knows of.
      const part = { number, startedAt, sizeBytes: 0, durationMs: 0, isFinished: false };
      await this.#change({ parts: [...before, part] });
      try {
        this.#file = await MovieFile.create(this.#pathOf(number), event.head, event.tracks);
      } catch (error) {
        this.#manifest = { ...this.#manifest, parts: before };
        throw error;
      }
      return;
    }
    if (this.#file === undefined) return;
    await this.#file.append(event.bytes, event.entry);
    this.#manifest = { ...this.#manifest, parts: this.#partsWithLast(this.#file.size) };
  }

  /** Has what was written on the disk. @throws the system's error */
  async sync(): Promise<void> {
    await this.#file?.sync();
  }

  /** Finishes the open file. @throws the system's error; the file plays all the same */
  async finishPart(): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    await file.finish();
    await this.#change({ parts: this.#partsWithLast({ ...file.size, isFinished: true }) });
  }

  /** @throws the system's error; it has ended all the same, until the next start */
  async close(reason: RecordingEnd, atUnixMs: number): Promise<void> {
    const end = { reason, at: new Date(atUnixMs).toISOString() };
    try {
      await this.finishPart();
    } finally {
      this.#manifest = { ...this.#manifest, end };
    }
    await this.#save();
  }

  /** Deletes all of it. @throws the system's error */
  async remove(): Promise<void> {
    await this.#file?.finish().catch(() => {});
    this.#file = undefined;
    await rm(this.#folder, { recursive: true, force: true });
  }

  #pathOf(number: number): string {
    return join(this.#folder, partFileName(number));
  }

  async #mend(): Promise<void> {
    const parts: Manifest['parts'] = [];
    for (const part of this.#manifest.parts) {
      if (part.isFinished) {
        parts.push(part);
        continue;
      }
      const size = await MovieFile.recover(this.#pathOf(part.number)).catch((error: unknown) => {
        if (systemErrorCode(error) === 'ENOENT') return undefined;
        throw error;
      });
      if (size !== undefined) parts.push({ ...part, ...size, isFinished: true });
    }
    if (parts.length < this.#manifest.parts.length || this.#manifest.parts.some((part) => !part.isFinished)) {
      await this.#change({ parts });
    }
  }

  #partsWithLast(change: Partial<Manifest['parts'][number]>): Manifest['parts'] {
    return this.#manifest.parts.map((part, index, { length }) =>
      index === length - 1 ? { ...part, ...change } : part,
    );
  }

  async #change(change: Partial<Manifest>): Promise<void> {
    this.#manifest = { ...this.#manifest, ...change };
    await this.#save();
  }

  /** The manifest appears whole, by renaming. */
  async #save(): Promise<void> {
    const temporary = join(this.#folder, `${MANIFEST_NAME}.tmp`);
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(this.#manifest, null, 2)}\n`);
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(temporary, join(this.#folder, MANIFEST_NAME));
  }
}

function partFileName(number: number): string {
  return `part-${number}.mp4`;
}
