/** Recordings: made while the channel plays, whole after kill -9, and playable in FFmpeg, VLC and Chromium. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Recording } from '@starling/model/recording';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { type Network, run, starling, startNetwork, until } from './network.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'starling-recording-'));
let network: Network;
let recording: Recording;
/** The file as it was when the process was killed. */
const torn = join(dataDir, 'torn.mp4');
let tornSizeBytes = 0;

async function json<T>(...args: string[]): Promise<T> {
  const { stdout, stderr, exitCode } = await starling(dataDir, [...args, '--json']);
  expect([exitCode, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as T;
}

const listed = async () => {
  const { items } = await json<{ items: Recording[] }>('recording', 'ls');
  return items.find(({ id }) => id === recording.id);
};

/** Waits until the file has so many bytes more than its head. */
const fileOf = (number: number, bytes: number) =>
  until('the recording to grow', 30_000, () => {
    const path = join(dataDir, 'recordings', recording.id, `part-${number}.mp4`);
    return existsSync(path) && statSync(path).size > 66_000 + bytes ? path : undefined;
  });

async function framesIn(path: string): Promise<number> {
  const args = '-v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0';
  const { stdout, stderr, exitCode } = await run('ffprobe', [...args.split(' '), path]);
  expect([exitCode, stderr]).toEqual([0, '']);
  return Number(stdout.split('\n')[0]); // of MPEG-TS ffprobe lists the stream twice
}

beforeAll(async () => {
  network = await startNetwork({ dataDir, mediaFrom: inject('shared').dataDir, workers: 1 });
  recording = await json<Recording>('recording', 'start', 'demo', '--name', 'Demo');
  const path = await fileOf(1, 250_000);
  network.process.kill('SIGKILL');
  await once(network.process, 'exit');
  copyFileSync(path, torn);
  tornSizeBytes = statSync(torn).size;
  network = await startNetwork({ dataDir, workers: 1 });
  await fileOf(2, 250_000);
  recording = await json<Recording>('recording', 'stop', recording.id);
});
afterAll(async () => {
  await network.stop();
  rmSync(dataDir, { recursive: true, force: true });
});

describe('a recording through kill -9', () => {
  it('loses no more than the fragment that was being made, and goes on after the restart', async () => {
    expect(await listed()).toMatchObject({ name: 'Demo', state: 'ended', endReason: 'stopped' });
    const [first, second] = recording.parts;
    expect(recording.parts).toHaveLength(2);
    // Whatever was cut off was no whole fragment: two seconds of the test card are about 100 kB.
    expect(tornSizeBytes - (first?.sizeBytes ?? 0)).toBeLessThan(150_000);
    for (const part of [first, second]) {
      const seconds = (part?.durationMs ?? 0) / 1000;
      expect(seconds).toBeGreaterThan(2);
      expect(await framesIn(part?.path ?? '')).toBe(Math.round(seconds * 25));
    }
    // Each file begins at the start of a segment of the channel, which are 2 s long.
    expect((Date.parse(second?.startedAt ?? '') - Date.parse(first?.startedAt ?? '')) % 2000).toBe(0);
  });

  it('plays in FFmpeg, also as the killed process left it', async () => {
    for (const path of [torn, ...recording.parts.map((part) => part.path)]) {
      const played = await run('ffmpeg', ['-v', 'error', '-i', path, '-f', 'null', '-']);
      expect([path, played.exitCode, played.stderr]).toEqual([path, 0, '']);
    }
    const [path = ''] = recording.parts.map((part) => part.path);
    const { stdout } = await run('ffprobe', [
      ...'-v error -show_entries format=duration -of csv=p=0'.split(' '),
      path,
    ]);
    expect(Number(stdout)).toBeCloseTo((recording.parts[0]?.durationMs ?? 0) / 1000, 0);
  });

  it('plays in VLC, also as the killed process left it', async () => {
    for (const path of [torn, recording.parts[1]?.path ?? '']) {
      const copy = join('/tmp', `starling-vlc-${randomUUID()}`); // VLC's user may not enter the data folder
      const input = `${copy}.mp4`;
      const output = `${copy}.ts`;
      copyFileSync(path, input);
      chmodSync(input, 0o644);
      const vlc = [
        'cvlc',
        '-q',
        '-I',
        'dummy',
        '--sout',
        `#std{access=file,mux=ts,dst=${output}}`,
        input,
        'vlc://quit',
      ];
      const asNobody = ['runuser', '-u', 'nobody', '--', 'env', 'HOME=/tmp'];
      const [command = '', ...args] = process.getuid?.() === 0 ? [...asNobody, ...vlc] : vlc;
      try {
        await run(command, args);
        expect(await framesIn(output)).toBeGreaterThanOrEqual(50);
      } finally {
        for (const file of [input, output]) rmSync(file, { force: true });
      }
    }
  });

  it('plays in Chromium from the API, and seeks', async () => {
    const browser = await launchChromium();
    try {
      const token = readFileSync(join(dataDir, 'operator.token'), 'utf8').trim();
      const page = await browser.newPage({ extraHTTPHeaders: { authorization: `Bearer ${token}` } });
      await page.goto(`${network.site}/healthz`);
      await page.setContent('<video muted></video>');
      const played = await page.evaluate(playAndSeek, `/api/v1/recordings/${recording.id}/file?part=2`);
      expect(played).toMatchObject({ error: null, width: 1280 });
      expect(played.durationSeconds).toBeCloseTo((recording.parts[1]?.durationMs ?? 0) / 1000, 0);
      expect(played.reachedSeconds).toBeGreaterThan(played.durationSeconds / 2);
    } finally {
      await browser.close();
    }
  });

  it('becomes assets with one command', async () => {
    await json('media', 'settings', '--ladder', '240p');
    const { items } = await json<{
      items: { name: string; state: string; facts: { durationTicks: number } }[];
    }>(...['recording', 'import', recording.id, '--name', 'again']);
    expect(items.map(({ name, state }) => [name, state])).toEqual([
      ['again (1)', 'ready'],
      ['again (2)', 'ready'],
    ]);
    for (const [index, { facts }] of items.entries()) {
      expect(facts.durationTicks / 90_000).toBeCloseTo((recording.parts[index]?.durationMs ?? 0) / 1000, 0);
    }
    expect((await starling(dataDir, ['recording', 'rm', recording.id])).exitCode).toBe(0);
    await until('the files to go', 10_000, () =>
      existsSync(join(dataDir, 'recordings', recording.id)) ? undefined : true,
    );
  });
});

/** Runs in the page. */
async function playAndSeek(url: string) {
  const video = document.querySelector('video');
  if (video === null) throw new Error('no video');
  const happens = (name: string) =>
    new Promise((resolve) => {
      video.addEventListener(name, resolve, { once: true });
      video.addEventListener('error', resolve, { once: true });
    });
  const loaded = happens('loadeddata');
  video.src = url;
  await loaded;
  const seeked = happens('seeked');
  video.currentTime = video.duration / 2;
  await seeked;
  const ended = happens('ended');
  await video.play();
  await ended;
  return {
    error: video.error?.message ?? null,
    width: video.videoWidth,
    durationSeconds: video.duration,
    reachedSeconds: video.currentTime,
  };
}
