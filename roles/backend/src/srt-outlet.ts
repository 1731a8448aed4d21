/**
 * A push to an SRT listener: MPEG-TS of our own, which FFmpeg hands to libsrt as it is. One process for each
 * connection.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { Track } from '@starling/media/access-unit';
import { concatBytes } from '@starling/media/bytes';
import { TS_PACKET_SIZE_BYTES, TsMuxer } from '@starling/media/mpeg-ts/mux';
import type { OpenOutlet, OutgoingUnit, Outlet, OutletListener } from './outlet.ts';

export interface SrtTarget {
  readonly host: string;
  readonly port: number;
  /** Options of FFmpeg's libsrt; may be secret. */
  readonly options: ReadonlyMap<string, string>;
}

const CONNECT_DEADLINE_MS = 10_000;
const MAX_STDERR_CHARS = 8192;
/** What fits into a datagram of SRT's live mode. */
const PACKETS_PER_DATAGRAM = 7;
const DATAGRAM_SIZE_BYTES = PACKETS_PER_DATAGRAM * TS_PACKET_SIZE_BYTES;

/** Opens connections to one listener. @param ffmpegPath a path, or a name to be found in PATH */
export function srtOutlets(target: SrtTarget, ffmpegPath = 'ffmpeg'): OpenOutlet {
  return (listener) => new SrtOutlet(target, ffmpegPath, listener);
}

class SrtOutlet implements Outlet {
  readonly #listener: OutletListener;
  readonly #child: ChildProcess;
  readonly #stdin: Writable;
  readonly #deadline: NodeJS.Timeout;
  readonly #muxer = new TsMuxer();
  #tracks: readonly Track[] = [];
  #sentBytes = 0;
  #isReady = false;
  #hasEnded = false;

  constructor({ host, port, options }: SrtTarget, ffmpegPath: string, listener: OutletListener) {
    this.#listener = listener;
    const preset = openPreset(options);
    const child = spawn(
      ffmpegPath,
      [
        ...['-hide_banner', '-loglevel', 'warning', '-progress', 'pipe:1', '-stats_period', '1'],
        ...['-protocol_whitelist', 'pipe,srt', '-f', 'data', '-raw_packet_size', `${DATAGRAM_SIZE_BYTES}`],
        ...['-i', 'pipe:0', '-map', '0', '-c', 'copy', '-f', 'data', '-flush_packets', '0'],
        // The third descriptor: arguments can be read by every user of the machine.
        ...['-fpre', '/dev/fd/3', `srt://${host.includes(':') ? `[${host}]` : host}:${port}`],
      ],
      // Its own process group: a Ctrl-C on the terminal is for us.
      { stdio: ['pipe', 'pipe', 'pipe', preset], detached: true },
    );
    closeSync(preset);
    const { stdin, stdout, stderr } = child;
    if (stdin === null || stdout === null || stderr === null) throw new Error('FFmpeg was given no pipes');
    this.#child = child;
    this.#stdin = stdin;
    this.#deadline = setTimeout(() => this.#end('no answer in time'), CONNECT_DEADLINE_MS);
    let said = '';
    stderr.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-MAX_STDERR_CHARS);
    });
    this.#followProgress(stdout);
    stdin.on('error', () => {}); // it ended: said below
    stdin.on('drain', () => {
      if (!this.#hasEnded) listener.onDrain();
    });
    child.on('error', (error) => this.#end(`FFmpeg cannot be started: ${error.message}`));
    child.on('close', () => this.#end(lastLine(said) ?? 'FFmpeg ended'));
    // FFmpeg connects before it reads, and tells how far it is after it wrote.
    stdin.write(nullPackets(PACKETS_PER_DATAGRAM));
  }

  get isFull(): boolean {
    return this.#stdin.writableNeedDrain;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  send(units: readonly OutgoingUnit[]): void {
    const packets: Uint8Array[] = [];
    for (const { unit, tracks } of units) {
      if (tracks !== this.#tracks) this.#muxer.setTracks(tracks);
      this.#tracks = tracks;
      packets.push(this.#muxer.unit(unit));
    }
    this.#stdin.write(concatBytes(packets));
  }

  close(): void {
    if (this.#hasEnded) return;
    this.#release();
    this.#kill();
  }

  /** Lines of `name=value`; `total_size` counts the bytes that were sent. */
  #followProgress(stdout: Readable): void {
    let unread = '';
    stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (unread + text).split('\n');
      unread = lines.pop() ?? '';
      for (const line of lines) {
        const sentBytes = Number(/^total_size=(\d+)$/.exec(line)?.[1] ?? 0);
        if (sentBytes === 0 || this.#hasEnded) continue;
        this.#sentBytes = sentBytes;
        if (this.#isReady) continue;
        this.#isReady = true;
        clearTimeout(this.#deadline);
        this.#listener.onReady();
      }
    });
  }

  #end(reason: string): void {
    if (this.#hasEnded) return;
    this.#release();
    this.#kill();
    this.#listener.onEnd(reason);
  }

  #release(): void {
    this.#hasEnded = true;
    clearTimeout(this.#deadline);
  }

  #kill(): void {
    if (this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, 'SIGKILL');
    } catch {
      // It ended by itself meanwhile.
    }
  }
}

/** A file of FFmpeg's presets, open for reading, that has no name any more. */
function openPreset(options: ReadonlyMap<string, string>): number {
  const folder = mkdtempSync(join(tmpdir(), 'starling-srt-')); // for this account alone
  try {
    const path = join(folder, 'preset');
    writeFileSync(path, [...options].map(([name, value]) => `${name}=${value}\n`).join(''), { mode: 0o600 });
    return openSync(path, 'r');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Packets that receivers throw away (ISO/IEC 13818-1, 2.4.3.3: PID 0x1FFF). */
function nullPackets(count: number): Uint8Array {
  const bytes = new Uint8Array(count * TS_PACKET_SIZE_BYTES).fill(0xff);
  for (let at = 0; at < bytes.length; at += TS_PACKET_SIZE_BYTES) bytes.set([0x47, 0x1f, 0xff, 0x10], at);
  return bytes;
}

/** Of what FFmpeg says, without the name and address of its part. */
function lastLine(stderr: string): string | undefined {
  return stderr
    .split('\n')
    .map((line) => line.replace(/^\s*(\[[^\]]* @ 0x[0-9a-f]+\] ?)+/, '').trim())
    .findLast((line) => line !== '' && !line.startsWith('Conversion failed'));
}
