/**
 * The logs of all nodes, as they ship them: a ring for each node, in memory for who asks and on disk for the next start. What follows the log
 * resumes by the id of a line.
 */
import { randomUUID } from 'node:crypto';
import { appendFile, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { type LogBatch, LogLine, type LogQuery, logLevels } from '@starling/model/log';
import type { Logger } from 'pino';
import { Check } from 'typebox/value';
import type { CoordinatorMetrics } from './metrics.ts';
import { ApiProblem } from './problem.ts';

/** Of one node, in memory. On disk there are up to two files of so much. */
const RING_BYTES = 256 * 1024;
/** Those that were silent for longest lose theirs. */
const MAX_NODES = 256;
const MAX_FOLLOWERS = 50;
/** What a follower has not taken; one that takes no more is cut, and resumes. */
const MAX_UNTAKEN_BYTES = 1024 * 1024;
const PING_INTERVAL_MS = 15_000;
const DEFAULT_LIMIT = 200;
/** To the disk at once; what comes faster than it takes is in memory only. */
const MAX_UNWRITTEN_BYTES = 4 * 1024 * 1024;
/** Ids of a new start are above all that were given before: fewer than so many lines a millisecond. */
const IDS_PER_MS = 100;

export interface LogsOptions {
  /** Of this coordinator alone. */
  readonly dir: string;
  readonly metrics: CoordinatorMetrics;
  readonly logger: Logger;
  readonly startedAtUnixMs: number;
}

interface Ring {
  lines: { readonly line: LogLine; readonly sizeBytes: number }[];
  sizeBytes: number;
  /** The name of its files. */
  readonly file: string;
  fileBytes: number;
}

interface Follower {
  readonly response: ServerResponse;
  readonly query: LogQuery;
}

export class Logs {
  readonly #dir: string;
  readonly #metrics: CoordinatorMetrics;
  readonly #logger: Logger;
  readonly #rings = new Map<string, Ring>();
  readonly #followers = new Set<Follower>();
  readonly #pings: NodeJS.Timeout;
  #nextId: number;
  #writing: Promise<void> = Promise.resolve();
  #unwrittenBytes = 0;
  #isDiskFailing = false;
  #isClosed = false;

  private constructor({ dir, metrics, logger, startedAtUnixMs }: LogsOptions) {
    this.#dir = dir;
    this.#metrics = metrics;
    this.#logger = logger;
    this.#nextId = startedAtUnixMs * IDS_PER_MS;
    this.#pings = setInterval(() => this.#ping(), PING_INTERVAL_MS);
    this.#pings.unref();
  }

  /**
   * Takes up what is in the folder.
   * @throws the system's error when the folder cannot be made
   */
  static async open(options: LogsOptions): Promise<Logs> {
    await mkdir(options.dir, { recursive: true, mode: 0o700 });
    const logs = new Logs(options);
    await logs.#load();
    return logs;
  }

  /** Takes what a node ships. */
  take({ node, lines, droppedCount }: LogBatch): void {
    this.#metrics.logLines.inc(lines.length);
    if (droppedCount > 0) {
      const at = lines[0]?.at ?? new Date().toISOString();
      const message = `${droppedCount} lines before this one were dropped: the coordinator could not be reached, or did not keep up`;
      this.#add({
        id: this.#nextId++,
        node,
        at,
        level: 'warn',
        message,
        channel: null,
        fields: { droppedCount },
      });
    }
    for (const { at, level, message, channel, fields } of lines)
      this.#add({ id: this.#nextId++, node, at, level, message, channel, fields });
  }

  /** The newest that match, oldest first. */
  list(query: LogQuery, afterId = -1): LogLine[] {
    const limit = Number(query.limit ?? DEFAULT_LIMIT);
    const rings = query.node === undefined ? [...this.#rings.values()] : [this.#rings.get(query.node)];
    return rings
      .flatMap((ring) => ring?.lines ?? [])
      .map(({ line }) => line)
      .filter((line) => line.id > afterId && matches(line, query))
      .sort((a, b) => a.id - b.id)
      .slice(-limit);
  }

  /**
   * Sends what matches, then what comes, as server-sent events.
   * @param afterId of the last line that the follower has; undefined at its first request
   * @throws ApiProblem TOO_MANY_WATCHERS, before anything is written
   */
  follow(response: ServerResponse, query: LogQuery, afterId: number | undefined): void {
    if (this.#followers.size >= MAX_FOLLOWERS || this.#isClosed)
      throw new ApiProblem('TOO_MANY_WATCHERS', `At most ${MAX_FOLLOWERS} may follow the log. Try again.`);
    const follower = { response, query };
    response.on('close', () => this.#followers.delete(follower));
    response.on('error', () => this.#followers.delete(follower));
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.flushHeaders();
    const missed =
      afterId === undefined ? this.list(query) : this.list({ ...query, limit: '1000000' }, afterId);
    for (const line of missed) {
      // It comes again, and goes on after what it got.
      if (response.writableLength > MAX_UNTAKEN_BYTES) return void response.end();
      response.write(eventOf(line));
    }
    this.#followers.add(follower);
  }

  /** Ends with what has been taken on disk. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#pings);
    for (const { response } of this.#followers) response.end();
    await this.#writing;
  }

  #add(line: LogLine): void {
    const json = `${JSON.stringify(line)}\n`;
    const ring = this.#ringOf(line.node);
    keep(ring, line, json.length);
    for (const follower of this.#followers) {
      if (!matches(line, follower.query)) continue;
      if (follower.response.writableLength > MAX_UNTAKEN_BYTES) follower.response.destroy();
      else follower.response.write(eventOf(line));
    }
    if (this.#unwrittenBytes + json.length > MAX_UNWRITTEN_BYTES) return;
    this.#unwrittenBytes += json.length;
    this.#writing = this.#writing.then(() => this.#write(ring, json));
  }

  /** A ring for the node, as the one that was written to last. */
  #ringOf(node: string): Ring {
    const known = this.#rings.get(node);
    this.#rings.delete(node);
    const ring = known ?? { lines: [], sizeBytes: 0, file: randomUUID(), fileBytes: 0 };
    this.#rings.set(node, ring);
    const [oldest] = this.#rings;
    if (this.#rings.size > MAX_NODES && oldest !== undefined) {
      this.#rings.delete(oldest[0]);
      this.#writing = this.#writing.then(() => this.#remove(oldest[1].file));
    }
    return ring;
  }

  async #write(ring: Ring, json: string): Promise<void> {
    this.#unwrittenBytes -= json.length;
    const path = join(this.#dir, `${ring.file}.log`);
    try {
      if (ring.fileBytes + json.length > RING_BYTES) {
        await rename(path, `${path}.old`);
        ring.fileBytes = 0;
      }
      await appendFile(path, json, { mode: 0o600 });
      ring.fileBytes += json.length;
      this.#isDiskFailing = false;
    } catch (error) {
      // Said once: it would end in the same log.
      if (!this.#isDiskFailing)
        this.#logger.error({ err: error }, 'logs of the nodes are kept in memory only');
      this.#isDiskFailing = true;
    }
  }

  async #remove(file: string): Promise<void> {
    for (const end of ['.log', '.log.old'])
      await rm(join(this.#dir, `${file}${end}`), { force: true }).catch(() => {});
  }

  async #load(): Promise<void> {
    const files = new Set((await readdir(this.#dir)).map((name) => name.replace(/\.log(\.old)?$/, '')));
    const found: { readonly node: string; readonly ring: Ring }[] = [];
    for (const file of files) {
      const [old = '', recent = ''] = await Promise.all(
        ['.log.old', '.log'].map((end) => readFile(join(this.#dir, `${file}${end}`), 'utf8').catch(() => '')),
      );
      const ring: Ring = { lines: [], sizeBytes: 0, file, fileBytes: recent.length };
      for (const json of `${old}${recent}`.split('\n')) {
        const line = parsed(json);
        if (line !== undefined) keep(ring, line, json.length + 1);
      }
      const node = ring.lines[0]?.line.node;
      if (node === undefined) await this.#remove(file);
      else found.push({ node, ring });
    }
    const lastId = ({ ring }: { ring: Ring }) => ring.lines.at(-1)?.line.id ?? 0;
    for (const { node, ring } of found.sort((a, b) => lastId(a) - lastId(b))) {
      this.#rings.set(node, ring);
      this.#nextId = Math.max(this.#nextId, lastId({ ring }) + 1);
    }
  }

  #ping(): void {
    for (const { response } of this.#followers) {
      if (response.writableLength > MAX_UNTAKEN_BYTES) response.destroy();
      else response.write(': ping\n\n');
    }
  }
}

function keep(ring: Ring, line: LogLine, sizeBytes: number): void {
  ring.lines.push({ line, sizeBytes });
  ring.sizeBytes += sizeBytes;
  let excess = 0;
  while (ring.sizeBytes > RING_BYTES && excess < ring.lines.length - 1)
    ring.sizeBytes -= ring.lines[excess++]?.sizeBytes ?? 0;
  if (excess > 0) ring.lines.splice(0, excess);
}

function matches(line: LogLine, { node, channel, level, since }: LogQuery): boolean {
  return (
    (node === undefined || line.node === node) &&
    (channel === undefined || line.channel === channel) &&
    (level === undefined || logLevels.indexOf(line.level) >= logLevels.indexOf(level)) &&
    (since === undefined || Date.parse(line.at) >= Date.parse(since))
  );
}

const eventOf = (line: LogLine) => `id: ${line.id}\ndata: ${JSON.stringify(line)}\n\n`;

/** @returns undefined for half a line, or one of another version */
function parsed(json: string): LogLine | undefined {
  try {
    const line: unknown = JSON.parse(json);
    return Check(LogLine, line) ? line : undefined;
  } catch {
    return undefined;
  }
}
