/** A frontend that discards what it gets, in a process of its own, and notes how late it came. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { decodeLinkMessage } from '@starling/media/flv/link';
import type { FlvMessage } from '@starling/media/flv/tag';
import { RtmpServerSession } from '@starling/media/rtmp/session';

/** Since the last `begin`. */
export interface SinkReport {
  /** Streams whose newest unit is of the last second, or that say no time. */
  readonly currentStreams: number;
  readonly receivedBytes: number;
  /** Units behind their time on the timeline; undefined where no stream has one. */
  readonly late:
    | {
        readonly units: number;
        readonly p50Ms: number;
        readonly p99Ms: number;
        readonly maxMs: number;
        readonly over100Ms: number;
      }
    | undefined;
  readonly spreadMs: number;
}

/** Milliseconds; later ones are counted in the last. */
const HISTOGRAM_MS = 10_000;

/** The process, from outside. */
export class Sink {
  readonly #child: ChildProcess;
  readonly port: number;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(benchProgram: string): Promise<Sink> {
    const child = spawn(process.execPath, [benchProgram, 'sink'], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const [port]: number[] = await once(child, 'message');
    return new Sink(child, port ?? 0);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  begin(): void {
    this.#child.send('begin');
  }

  async report(): Promise<SinkReport> {
    this.#child.send('report');
    const [report]: SinkReport[] = await once(this.#child, 'message');
    if (report === undefined) throw new Error('the sink says nothing');
    return report;
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }
}

/** The process, from inside. */
export async function serveSink(): Promise<void> {
  const streams = new Set<StreamTimes>();
  let receivedBytes = 0;
  let histogram = new Uint32Array(HISTOGRAM_MS + 1);
  const serve = (socket: Socket) => {
    const session = new RtmpServerSession({
      handshakeRandomBytes: randomBytes(1528),
      maxMessageBytes: 1 << 23,
    });
    const times = new StreamTimes();
    socket.on('data', (bytes) => {
      receivedBytes += bytes.length;
      for (const event of session.receive(bytes)) {
        if (event.type === 'publish') {
          session.acceptPublish();
          streams.add(times);
        } else if (event.type === 'message') {
          const lateMs = times.take(event.message, Date.now());
          if (lateMs === undefined) continue;
          const bin = Math.max(0, Math.min(HISTOGRAM_MS, Math.floor(lateMs)));
          histogram[bin] = (histogram[bin] ?? 0) + 1;
        }
      }
      const output = session.takeOutput();
      if (output !== undefined) socket.write(output);
    });
    socket.on('error', () => {});
    socket.on('close', () => streams.delete(times));
  };
  const server = createServer({ noDelay: true }, serve).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  process.on('message', (command) => {
    if (command === 'begin') {
      receivedBytes = 0;
      histogram = new Uint32Array(HISTOGRAM_MS + 1);
      for (const times of streams) times.begin();
      return;
    }
    const nowMs = Date.now();
    process.send?.({
      currentStreams: [...streams].filter((times) => times.isCurrent(nowMs)).length,
      receivedBytes,
      late: lateOf(histogram),
      spreadMs: Math.max(0, ...[...streams].map(({ spreadMs }) => spreadMs)),
    } satisfies SinkReport);
  });
  process.on('disconnect', () => process.exit());
  process.send?.(typeof address === 'object' ? address?.port : undefined);
}

/** When the units of one stream came. */
class StreamTimes {
  /** Wall-clock time of timestamp 0, where the stream says it. */
  #epochUnixMs: number | undefined;
  #lastUnitUnixMs: number | undefined;
  #hasMedia = false;
  #leastMs = Number.POSITIVE_INFINITY;
  #mostMs = Number.NEGATIVE_INFINITY;

  begin(): void {
    this.#leastMs = Number.POSITIVE_INFINITY;
    this.#mostMs = Number.NEGATIVE_INFINITY;
  }

  get spreadMs(): number {
    return Math.max(0, this.#mostMs - this.#leastMs);
  }

  isCurrent(nowUnixMs: number): boolean {
    if (this.#epochUnixMs === undefined) return this.#hasMedia;
    return this.#lastUnitUnixMs !== undefined && nowUnixMs - this.#lastUnitUnixMs < 1000;
  }

  /** @returns how late a unit is; undefined where the stream has no timeline, and for what is no unit */
  take({ kind, timestampMs, payload }: FlvMessage, nowUnixMs: number): number | undefined {
    if (kind === 'data') {
      const link = decodeLinkMessage(payload);
      if (link?.type === 'timeline') this.#epochUnixMs = link.epochUnixMs;
      return undefined;
    }
    this.#hasMedia = true;
    const behindMs = nowUnixMs - timestampMs;
    this.#leastMs = Math.min(this.#leastMs, behindMs);
    this.#mostMs = Math.max(this.#mostMs, behindMs);
    if (this.#epochUnixMs === undefined) return undefined;
    this.#lastUnitUnixMs = this.#epochUnixMs + timestampMs;
    return nowUnixMs - this.#lastUnitUnixMs;
  }
}

function lateOf(histogram: Uint32Array): SinkReport['late'] {
  const units = histogram.reduce((sum, count) => sum + count, 0);
  if (units === 0) return undefined;
  const quantile = (share: number) => {
    let seen = 0;
    return histogram.findIndex((count) => {
      seen += count;
      return seen >= share * units;
    });
  };
  return {
    units,
    p50Ms: quantile(0.5),
    p99Ms: quantile(0.99),
    maxMs: histogram.findLastIndex((count) => count > 0),
    over100Ms: histogram.subarray(101).reduce((sum, count) => sum + count, 0),
  };
}
