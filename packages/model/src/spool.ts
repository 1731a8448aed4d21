/**
 * What a node owes the coordinator and may not lose when that is away: entries with numbers that rise, on disk, up to a
 * bound. An entry is offered again until the coordinator has said that it has it; it knows by spool and number what it
 * has, so each counts once.
 *
 * A line of the file is `{"id":"..."}`, which comes first, `{"n":NUMBER,"v":ENTRY}` or `{"taken":NUMBER}`. A kill may leave half a line
 * at the end.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Static, TSchema } from 'typebox';
import { Check } from 'typebox/value';
import { SpoolId, SpoolSequence } from './owed.ts';

/** A file that has grown so far is written anew, with what is still owed. */
const COMPACT_BYTES = 1024 * 1024;

export interface SpoolEntry<T> {
  readonly sequence: number;
  readonly value: T;
}

export interface SpoolOptions<S extends TSchema> {
  /** Undefined: in memory alone, and lost with the process. */
  readonly path: string | undefined;
  /** Of the entries: what the file holds of another form is left out. */
  readonly schema: S;
  /** More drive out the oldest. */
  readonly maxEntries: number;
  /** The disk did not take it: what is owed is then kept in memory alone. */
  readonly onError: (error: unknown) => void;
}

export class Spool<S extends TSchema> {
  readonly id: string;
  readonly #options: SpoolOptions<S>;
  #entries: SpoolEntry<Static<S>>[] = [];
  #next = 1;
  /** On disk, and so never to be given to another entry: only those are offered. */
  #durable = 0;
  #droppedCount = 0;
  #lines: string[];
  #writing: Promise<void> = Promise.resolve();
  #isWriting = false;
  #file: FileHandle | undefined;
  #fileBytes = Number.POSITIVE_INFINITY;

  /** Reads what a process before this one left. @throws the system's error when the folder cannot be made */
  constructor(options: SpoolOptions<S>) {
    this.#options = options;
    let id: string | undefined;
    if (options.path !== undefined) {
      mkdirSync(dirname(options.path), { recursive: true });
      id = this.#read(options.path);
    }
    this.#durable = this.#next - 1;
    this.id = id ?? randomBytes(12).toString('hex');
    this.#lines = [];
  }

  /** How many were driven out. */
  get droppedCount(): number {
    return this.#droppedCount;
  }

  get size(): number {
    return this.#entries.length;
  }

  add(value: Static<S>): void {
    const entry = { sequence: this.#next++, value };
    this.#entries.push(entry);
    if (this.#entries.length > this.#options.maxEntries) {
      this.#entries.shift();
      this.#droppedCount++;
    }
    this.#lines.push(lineOf(entry));
    this.#write();
  }

  /** The oldest that are owed, as many as are asked for. */
  pending(maxEntries: number): readonly SpoolEntry<Static<S>>[] {
    const first = this.#entries.slice(0, maxEntries);
    return first.filter(({ sequence }) => sequence <= this.#durable);
  }

  /** The coordinator has all up to this number. */
  taken(sequence: number): void {
    const before = this.#entries.length;
    this.#entries = this.#entries.filter((entry) => entry.sequence > sequence);
    if (this.#entries.length === before) return;
    this.#lines.push(`${JSON.stringify({ taken: sequence })}\n`);
    this.#write();
  }

  /** Resolves when all that was added has reached the disk, or the disk has failed. */
  async flushed(): Promise<void> {
    while (this.#isWriting) await this.#writing;
  }

  async close(): Promise<void> {
    await this.flushed();
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
  }

  #read(path: string): string | undefined {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      return undefined; // the first start
    }
    let id: string | undefined;
    for (const line of text.split('\n')) {
      const parsed = parseLine(line);
      if (Check(SpoolId, parsed?.id)) id = parsed.id;
      if (Check(SpoolSequence, parsed?.taken)) {
        const { taken } = parsed;
        this.#entries = this.#entries.filter(({ sequence }) => sequence > taken);
        this.#next = Math.max(this.#next, taken + 1);
      }
      if (Check(SpoolSequence, parsed?.n)) {
        this.#next = Math.max(this.#next, parsed.n + 1);
        if (Check(this.#options.schema, parsed.v))
          this.#entries.push({ sequence: parsed.n, value: parsed.v });
      }
    }
    this.#entries = this.#entries.slice(-this.#options.maxEntries);
    // Without it nobody could tell its numbers from those of another spool.
    if (id === undefined) this.#entries = [];
    return id;
  }

  /** One write at a time; what is added meanwhile goes into the next. */
  #write(): void {
    if (this.#isWriting) return;
    if (this.#options.path === undefined) {
      this.#lines = [];
      this.#durable = this.#next - 1;
      return;
    }
    this.#isWriting = true;
    this.#writing = this.#writeLines(this.#options.path).finally(() => {
      this.#isWriting = false;
    });
  }

  async #writeLines(path: string): Promise<void> {
    while (this.#lines.length > 0) {
      const upTo = this.#next - 1;
      const lines = this.#lines.splice(0).join('');
      try {
        if (this.#file === undefined || this.#fileBytes > COMPACT_BYTES) await this.#writeAnew(path);
        else {
          await this.#file.appendFile(lines);
          this.#fileBytes += lines.length;
        }
        await this.#file?.datasync();
      } catch (error) {
        await this.#file?.close().catch(() => undefined);
        this.#file = undefined; // the next write makes it anew, with all that is owed
        this.#options.onError(error);
      }
      this.#durable = upTo;
    }
  }

  /** Beside its place first, so that a kill half-way leaves the file before. */
  async #writeAnew(path: string): Promise<void> {
    const head = `${JSON.stringify({ id: this.id, taken: this.#takenUpTo() || undefined })}\n`;
    const text = head + this.#entries.map(lineOf).join('');
    await this.#file?.close();
    this.#file = undefined;
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.appendFile(text);
      await file.datasync();
      await rename(`${path}.new`, path);
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#file = file;
    this.#fileBytes = text.length;
  }

  #takenUpTo(): number {
    return (this.#entries[0]?.sequence ?? this.#next) - 1;
  }
}

function lineOf({ sequence, value }: SpoolEntry<unknown>): string {
  return `${JSON.stringify({ n: sequence, v: value })}\n`;
}

function parseLine(line: string): { id?: unknown; taken?: unknown; n?: unknown; v?: unknown } | undefined {
  try {
    const parsed: unknown = JSON.parse(line);
    return typeof parsed === 'object' && parsed !== null ? parsed : undefined;
  } catch {
    return undefined;
  }
}
