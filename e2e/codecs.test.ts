/** Live streams in other codecs than H.264 and AAC, published as Enhanced RTMP v2 by a client of our own. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FlvMessage } from '@starling/media/flv/tag';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { encode, enhancedMessages } from '../packages/media/test/encoded-stream.ts';
import { launchChromium } from './browser.ts';
import { ffmpegComplaints, run, starling, until } from './network.ts';

const { site, rtmp, dataDir } = inject('shared');
const scratch = mkdtempSync(join(tmpdir(), 'starling-codecs-'));
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const CLIP_SECONDS = 30;

/** Publishes messages at the pace of their timestamps. */
async function publish(name: string, messages: readonly FlvMessage[]): Promise<void> {
  const added = await starling(dataDir, ['stream', 'add', name, '--json']);
  expect(added.stderr).toBe('');
  const { key } = JSON.parse(added.stdout) as { key: string };
  const { hostname, port } = new URL(rtmp);
  const session = new RtmpClientSession({
    mode: 'publish',
    tcUrl: rtmp,
    app: 'live',
    streamName: `${name}?key=${key}`,
    handshakeRandomBytes: randomBytes(1528),
    maxMessageBytes: 1024 * 1024,
  });
  const socket = connect(Number(port), hostname);
  sockets.push(socket);
  const flush = () => {
    const output = session.takeOutput();
    if (output !== undefined && !socket.destroyed) socket.write(output);
  };
  await new Promise<void>((resolve, reject) => {
    socket.on('connect', flush);
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`the server closed the connection of ${name}`)));
    socket.on('data', (bytes) => {
      for (const event of session.receive(bytes)) {
        if (event.type === 'ready') resolve();
        if (event.type === 'rejected') reject(new Error(event.description));
      }
      flush();
    });
  });
  const startedAtMs = performance.now();
  let next = 0;
  const timer = setInterval(() => {
    for (let message = messages[next]; message !== undefined; message = messages[++next]) {
      if (message.timestampMs > performance.now() - startedAtMs) break;
      session.sendMessage(message);
    }
    flush();
  }, 20);
  socket.on('close', () => clearInterval(timer));
}

describe.each([
  { video: 'av1WithoutConfig', audio: 'opus', ffprobe: ['av1', 'opus'], playsInChromium: true },
  { video: 'vp9', audio: 'flac', ffprobe: ['vp9', 'flac'], playsInChromium: true },
  { video: 'hevc', audio: 'eac3', ffprobe: ['hevc', 'eac3'], playsInChromium: false },
] as const)('$video and $audio', ({ video, audio, ffprobe, playsInChromium }) => {
  it('come out as HLS that FFmpeg plays without a warning, and Chromium where it knows the codecs', async () => {
    const name = `codecs-${ffprobe.join('-')}`;
    const streams = [video, audio].map((codec) =>
      encode(codec, scratch, { durationSeconds: CLIP_SECONDS, size: '320x180' }),
    );
    const messages = streams.flatMap(enhancedMessages).toSorted((a, b) => a.timestampMs - b.timestampMs);
    await publish(name, messages);

    const playlist = `${site}/live/${name}/index.m3u8`;
    const multivariant = await until('HLS', 10_000, async () => {
      const response = await fetch(playlist);
      return response.ok ? response.text() : void (await response.body?.cancel());
    });
    const probed = await run('ffprobe', [
      ...['-v', 'error', '-show_entries', 'stream=codec_name', '-of', 'csv=p=0', playlist],
    ]);
    expect(
      new Set(
        probed.stdout
          .trim()
          .split(/[\s,]+/)
          .filter((codec) => codec !== ''),
      ),
    ).toEqual(new Set(ffprobe));
    expect(await ffmpegComplaints(playlist, 4)).toBe('');

    const codecs = /CODECS="([^"]+)"/.exec(multivariant)?.[1];
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await page.goto(`${site}/watch/${name}`);
      const isSupported = await page.evaluate(
        (type) => MediaSource.isTypeSupported(type),
        `video/mp4; codecs="${codecs}"`,
      );
      expect(isSupported).toBe(playsInChromium);
      if (!playsInChromium) return;
      await page.waitForFunction(() => (document.querySelector('video')?.currentTime ?? 0) > 1, undefined, {
        timeout: 15_000,
      });
      const read = () =>
        page.evaluate(() => {
          const element = document.querySelector('video');
          return {
            mediaS: element?.currentTime ?? 0,
            wallS: performance.now() / 1000,
            widthPx: element?.videoWidth,
          };
        });
      await page.waitForTimeout(1000); // past the start-up seek to the live edge
      const before = await read();
      await page.waitForTimeout(4000);
      const after = await read();
      expect((after.mediaS - before.mediaS) / (after.wallS - before.wallS)).toBeGreaterThan(0.9);
      expect(after.widthPx).toBe(320);
    } finally {
      await browser.close();
    }
  });
});
