import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';
import { CatchUp } from '../src/catch-up.ts';
import { Stream } from '../src/stream.ts';
import { PictureDrawer, Thumbnail } from '../src/thumbnail.ts';
import { head, segment } from './synthetic-channel.ts';

const logger = pino({ level: 'silent' });
const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
});

/** Stands in for FFmpeg: notes each run and answers with a few bytes, or does what `script` says. */
function fakeFfmpeg(script = 'cat > /dev/null; sleep 0.1; printf JPEG') {
  const folder = mkdtempSync(join(tmpdir(), 'starling-thumbnail-'));
  cleanUps.push(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'ffmpeg');
  const notes = join(folder, 'runs');
  writeFileSync(notes, '');
  writeFileSync(path, `#!/bin/sh\necho run >> ${notes}\n${script}\n`);
  chmodSync(path, 0o755);
  return { path, runs: () => readFileSync(notes, 'utf8').split('\n').length - 1 };
}

async function serve(program: string, events = [...head, ...segment(7)]) {
  const stream = new Stream({ channel: 'test', partTargetMs: 500, windowDurationMs: 20_000, logger });
  const catchUp = new CatchUp(stream);
  const thumbnail = new Thumbnail({
    stream,
    catchUp,
    drawer: new PictureDrawer(program),
    logger,
    bytesSent: () => {},
  });
  const publisher = stream.addPublisher();
  for (const event of events) publisher.event(event, 1);
  const server = createServer((request, response) => void thumbnail.handle(request, response)).listen(0);
  await once(server, 'listening');
  cleanUps.push(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

describe('the thumbnail', () => {
  it('is drawn once for all who ask at once, and for those who ask soon after', async () => {
    const ffmpeg = fakeFfmpeg();
    const url = await serve(ffmpeg.path);
    const answers = await Promise.all(Array.from({ length: 20 }, () => fetch(url)));
    expect(await Promise.all(answers.map((answer) => answer.text()))).toEqual(answers.map(() => 'JPEG'));
    const later = await fetch(url);
    expect(later.headers.get('content-type')).toBe('image/jpeg');
    expect(later.headers.get('cache-control')).toMatch(/^public, max-age=[1-5]$/);
    expect(ffmpeg.runs()).toBe(1);
  });

  it('costs nothing before anybody asks', async () => {
    const ffmpeg = fakeFfmpeg();
    await serve(ffmpeg.path);
    expect(ffmpeg.runs()).toBe(0);
  });

  it('is a 503 that says why when FFmpeg is missing', async () => {
    const answer = await fetch(await serve('/nowhere/ffmpeg'));
    expect(answer.status).toBe(503);
    expect(answer.headers.get('cache-control')).toBe('no-store');
    expect(await answer.text()).toContain('FFmpeg, which draws it, is not installed');
  });

  it('is a 503 when FFmpeg fails, and FFmpeg is not tried again at once', async () => {
    const ffmpeg = fakeFfmpeg('cat > /dev/null; echo secret path >&2; exit 1');
    const url = await serve(ffmpeg.path);
    const answer = await fetch(url);
    expect(answer.status).toBe(503);
    expect(await answer.text()).not.toContain('secret');
    await fetch(url);
    expect(ffmpeg.runs()).toBe(1);
  });

  it('is a 404 for a channel without a picture', async () => {
    const soundOnly = [...head, ...segment(7)].filter(
      (event) =>
        !(event.type === 'track' && event.track.kind === 'video') &&
        !(event.type === 'unit' && event.unit.kind === 'video'),
    );
    expect((await fetch(await serve(fakeFfmpeg().path, soundOnly))).status).toBe(404);
  });

  it('is drawn for two channels at a time', async () => {
    const running = fakeFfmpeg('cat > /dev/null; sleep 0.4; printf JPEG');
    const drawer = new PictureDrawer(running.path);
    const [, videoTrack] = head;
    const unit = segment(7)[1];
    if (videoTrack?.type !== 'track' || unit?.type !== 'unit') throw new Error('not what was expected');
    const drawings = [1, 2, 3].map(() => drawer.draw(unit.unit, videoTrack.track));
    await new Promise((wake) => setTimeout(wake, 300));
    expect(running.runs()).toBe(2);
    await Promise.all(drawings);
    expect(running.runs()).toBe(3);
  });
});
