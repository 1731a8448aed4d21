/** Pushes over SRT, taken by FFmpeg as the listener. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Channel } from '@starling/net/channel';
import { pino } from 'pino';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { Destination, defaultDestinationTiming } from '../src/destination.ts';
import { gop, opening } from './gops.ts';

const PASSPHRASE = 'correct-horse-battery';
const scratch = mkdtempSync(join(tmpdir(), 'starling-srt-test-'));
const children: ChildProcess[] = [];
const destinations: Destination[] = [];
afterEach(() => {
  for (const destination of destinations.splice(0)) destination.close();
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  return port;
}

/** Writes what comes, as it is. */
function listen(port: number): ChildProcess {
  const url = `srt://127.0.0.1:${port}?mode=listener&passphrase=${PASSPHRASE}`;
  const args = [
    '-v',
    'quiet',
    '-y',
    '-f',
    'data',
    '-raw_packet_size',
    '1316',
    '-i',
    url,
    '-map',
    '0',
    '-c',
    'copy',
  ];
  const output = ['-f', 'data', '-flush_packets', '1', join(scratch, 'received.ts')];
  const child = spawn('ffmpeg', [...args, ...output], { stdio: 'ignore' });
  children.push(child);
  return child;
}

function receivedBytes(): number {
  return statSync(join(scratch, 'received.ts'), { throwIfNoEntry: false })?.size ?? 0;
}

/** The arguments of every process that we may see. */
const allArguments = () =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      } catch {
        return ''; // it has just ended
      }
    });

function push(port: number, passphrase: string) {
  const channel = new Channel('test');
  const told: string[] = [];
  const destination = new Destination({
    settings: {
      name: 'friend',
      channel: 'test',
      url: `srt://127.0.0.1:${port}?passphrase=${passphrase}&streamid=publish:test`,
      takesEnhancedCodecs: false,
      acceptsAnyCertificate: false,
    },
    logger: pino({ level: 'silent' }),
    timing: { ...defaultDestinationTiming, firstRetryMs: 50, lastRetryMs: 200, healthyAfterMs: 100 },
    nowUnixMs: Date.now,
    onChange: () => {},
    onFailed: (reason) => told.push(`failed: ${reason}`),
    onRestored: () => told.push('restored'),
  });
  destinations.push(destination);
  destination.attach(channel);
  channel.push(opening);
  let number = 0;
  return { destination, told, pushNext: () => channel.push(gop(number++)) };
}

describe('a push over SRT', () => {
  it('brings a transport stream to a listener, also to one that comes back, and no argument shows the passphrase', async () => {
    const port = await freeUdpPort();
    const first = listen(port);
    const { destination, told, pushNext } = push(port, PASSPHRASE);
    const untilReceived = (sizeBytes: number) =>
      vi.waitFor(
        () => {
          pushNext();
          expect(receivedBytes()).toBeGreaterThan(sizeBytes);
        },
        { timeout: 20_000, interval: 100 },
      );
    await untilReceived(100_000);
    expect(destination.status).toMatchObject({ state: 'sending', reason: null });
    const senders = allArguments().filter((text) => text.includes(`srt://127.0.0.1:${port} `));
    expect(senders).toHaveLength(1);
    expect(senders[0]).not.toContain(PASSPHRASE);
    expect(senders[0]).not.toContain('publish:test');
    const received = readFileSync(join(scratch, 'received.ts'));
    const packetIds = new Set<number>();
    for (let at = 0; at + 188 <= received.length; at += 188) {
      expect(received[at]).toBe(0x47);
      packetIds.add(received.readUInt16BE(at + 1) & 0x1fff);
    }
    // Tables, picture, sound, and the packets that only open the connection.
    expect([...packetIds].sort((a, b) => a - b)).toEqual([0, 0x100, 0x101, 0x1000, 0x1fff]);

    first.kill('SIGKILL');
    await once(first, 'exit');
    await vi.waitFor(
      () => {
        pushNext();
        expect(told).toHaveLength(1);
      },
      { timeout: 20_000, interval: 100 },
    );
    rmSync(join(scratch, 'received.ts'));
    listen(port);
    await untilReceived(20_000);
    await vi.waitFor(() => expect(told[1]).toBe('restored'), 5000);
  });

  it('with another passphrase fails, and the reason does not say which', async () => {
    const port = await freeUdpPort();
    listen(port);
    const { told, pushNext } = push(port, 'not-the-passphrase');
    await vi.waitFor(
      () => {
        pushNext();
        expect(told).toHaveLength(1);
      },
      { timeout: 20_000, interval: 100 },
    );
    expect(told[0]).toMatch(/^failed: .*srt:\/\/127\.0\.0\.1/);
    expect(told[0]).not.toContain('not-the-passphrase');
  });
});
