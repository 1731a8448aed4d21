/** What strangers do to open ports: the channel plays on, memory stays bounded, each is logged once. */
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { ffmpegComplaints, type Network, startNetwork } from './network.ts';
import { childrenOf, residentMegabytes } from './processes.ts';

const HOSTILE_SECONDS = process.env.STARLING_SOAK === undefined ? 20 : 60;
let network: Network;
const sockets: Socket[] = [];

beforeAll(async () => {
  network = await startNetwork({ mediaFrom: inject('shared').dataDir });
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  await network?.stop();
});

function open(port: number, bytes?: Uint8Array): Socket {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  if (bytes !== undefined) socket.write(bytes);
  sockets.push(socket);
  return socket;
}

const memoryOfAll = () => {
  const { pid = 0 } = network.process;
  return [pid, ...childrenOf(pid)].reduce((sum, one) => sum + residentMegabytes(one), 0);
};

const linesSaying = (text: string) =>
  network
    .log()
    .split('\n')
    .filter((line) => line.includes(text)).length;

/** C0, C1 and C2 of the simple handshake (RTMP 1.0, 5.2). */
const handshake = () => Buffer.concat([Buffer.from([3]), randomBytes(1536), randomBytes(1536)]);

describe('hostile peers', () => {
  it('do not disturb the channel, are bounded in memory and logged once each', {
    timeout: 180_000,
  }, async () => {
    const httpPort = Number(new URL(network.site).port);
    const rtmpPort = Number(new URL(network.rtmp.replace('rtmp:', 'http:')).port);
    const before = memoryOfAll();

    const garbage = 20;
    for (let i = 0; i < garbage; i++) {
      open(rtmpPort, Buffer.concat([Buffer.from([0x16]), randomBytes(5000)])); // a TLS client, or noise
      open(httpPort, Buffer.concat([randomBytes(3000), Buffer.from('\r\n\r\n')]));
      open(rtmpPort, handshake().subarray(0, 700)).end(); // a handshake cut short
      // A chunk of type 0 on chunk stream 3 that announces a message of 16 MB, the most that 24 bits hold.
      open(
        rtmpPort,
        Buffer.concat([handshake(), Buffer.from([0x03, 0, 0, 0, 0xff, 0xff, 0xff, 0x14, 0, 0, 0, 0])]),
      );
      // Set Chunk Size (type 1) to 0, which the specification forbids.
      open(
        rtmpPort,
        Buffer.concat([handshake(), Buffer.from([0x02, 0, 0, 0, 0, 0, 4, 0x01, 0, 0, 0, 0, 0, 0, 0, 0])]),
      );
    }
    for (let i = 0; i < 500; i++) {
      open(rtmpPort);
      open(httpPort);
    }
    for (let i = 0; i < 50; i++) {
      open(httpPort, Buffer.from('GET /live/demo.flv HTTP/1.1\r\nHost: x\r\n\r\n')).pause();
      const name = await newestSegment();
      open(
        httpPort,
        Buffer.from(`GET /live/demo/main/${name} HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(20)),
      ).pause();
    }

    const complaints = await Promise.all(
      [`${network.site}/live/demo/index.m3u8`, `${network.site}/live/demo.flv`].map((url) =>
        ffmpegComplaints(url, HOSTILE_SECONDS),
      ),
    );
    expect(complaints).toEqual(['', '']);

    // 100 slow readers may hold 3 s of a 4 Mb/s stream each at most, and that shared; the rest is sockets.
    expect(memoryOfAll() - before).toBeLessThan(150);
    expect(linesSaying('RTMP_BAD_VERSION')).toBe(garbage);
    expect(linesSaying('RTMP_MESSAGE_TOO_LONG')).toBe(garbage);
    expect(linesSaying('RTMP_CHUNK_SIZE')).toBe(garbage);
    expect(linesSaying('not a request')).toBe(garbage);
  });
});

async function newestSegment(): Promise<string> {
  const media = await (await fetch(`${network.site}/live/demo/main/index.m3u8`)).text();
  return [...media.matchAll(/^\d+\.m4s$/gm)].at(-1)?.[0] ?? '';
}
