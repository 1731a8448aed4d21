/** A live stream from an encoder, as a streamer starts it. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { ffmpegComplaints, run, starling, until } from './network.ts';

const { site, rtmp, dataDir } = inject('shared');
const scratch = mkdtempSync(join(tmpdir(), 'starling-live-'));
const clip = join(scratch, 'clip.mp4');
const children: ChildProcess[] = [];

beforeAll(() => {
  // x264's own key-frame interval, ten seconds: what people have who never touched a setting.
  const args =
    '-v error -f lavfi -i testsrc2=s=640x360:r=30 -f lavfi -i sine=r=44100 -t 20 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac';
  execFileSync('ffmpeg', [...args.split(' '), clip]);
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function addStream(name: string): Promise<string> {
  const added = await starling(dataDir, ['stream', 'add', name, '--json']);
  expect(added.stderr).toBe('');
  return (JSON.parse(added.stdout) as { key: string }).key;
}

function publish(url: string): ChildProcess {
  const child = spawn('ffmpeg', ['-v', 'error', '-re', '-i', clip, '-c', 'copy', '-f', 'flv', url], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  children.push(child);
  return child;
}

/** Publishes until the clip or the server ends it. */
const publishToEnd = (url: string) =>
  run('ffmpeg', ['-v', 'error', '-re', '-i', clip, '-c', 'copy', '-f', 'flv', url]);

const isServed = async (path: string) => {
  const response = await fetch(`${site}${path}`);
  await response.body?.cancel();
  return response.ok ? true : undefined;
};

describe('a live stream', () => {
  it('is watchable on FLV at once and on HLS after two seconds of media, whatever its key frames', async () => {
    const key = await addStream('cam');
    publish(`${rtmp}/cam?key=${key}`);
    await until('HTTP-FLV', 15_000, () => isServed('/live/cam.flv'), 50);
    await until('HLS', 15_000, () => isServed('/live/cam/index.m3u8'), 50);
    const media = await (await fetch(`${site}/live/cam/main/index.m3u8`)).text();
    expect(Number(/#EXTINF:([\d.]+)/.exec(media)?.[1])).toBeLessThanOrEqual(2.05);
    const played = await run('ffprobe', [
      '-v',
      'error',
      '-show_entries',
      'stream=codec_name',
      '-of',
      'csv=p=0',
      `${site}/live/cam/index.m3u8`,
    ]);
    expect(played.stdout).toMatch(/h264/);
    expect(played.stdout).toMatch(/aac/);
    expect(await ffmpegComplaints(`${site}/live/cam.flv`, 3)).toBe('');
  });

  it('refuses a wrong key with a status that FFmpeg prints', async () => {
    await addStream('guarded');
    const refused = await publishToEnd(`${rtmp}/guarded?key=sk_wrong`);
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toContain('Wrong stream name or stream key');
  });

  it('refuses a second publisher while the first is there, and takes it afterwards', async () => {
    const key = await addStream('single');
    const first = publish(`${rtmp}/single?key=${key}`);
    await until('the first publisher', 5000, () => isServed('/live/single.flv'));
    const second = await publishToEnd(`${rtmp}/single?key=${key}`);
    expect(second.stderr).toContain('already being published');
    first.kill('SIGKILL');
    await until('the first to be gone', 5000, async () => {
      const third = await run('timeout', [
        '2',
        'ffmpeg',
        '-v',
        'error',
        '-re',
        '-i',
        clip,
        '-c',
        'copy',
        '-f',
        'flv',
        `${rtmp}/single?key=${key}`,
      ]);
      return third.stderr.includes('already') ? undefined : true;
    });
  });

  it("takes the key as OBS's stream key: server rtmp://HOST/live, key alone", async () => {
    const key = await addStream('obs');
    publish(`${rtmp}/${key}`);
    await until('HTTP-FLV', 5000, () => isServed('/live/obs.flv'));
  });

  it("is published by GStreamer's rtmp2sink and plays on HLS without a warning", async () => {
    const key = await addStream('gst');
    const pipeline = `videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 ! x264enc key-int-max=50 tune=zerolatency speed-preset=ultrafast ! h264parse ! queue ! m. audiotestsrc is-live=true ! avenc_aac ! aacparse ! queue ! m. flvmux name=m streamable=true ! rtmp2sink location=${rtmp}/gst?key=${key}`;
    children.push(spawn('gst-launch-1.0', ['-q', ...pipeline.split(' ')], { stdio: 'ignore' }));
    await until('HLS', 15_000, () => isServed('/live/gst/index.m3u8'));
    // A live source stamps its pictures by the clock: two may fall into one frame's time, which is no fault.
    const complaints = await ffmpegComplaints(`${site}/live/gst/index.m3u8`, 5, [
      ...['-fps_mode', 'passthrough', '-enc_time_base', '1:90000'],
    ]);
    expect(complaints).toBe('');
  });

  it('goes off the air when its stream is removed, and the key is worth nothing then', async () => {
    const key = await addStream('brief');
    const encoder = publish(`${rtmp}/brief?key=${key}`);
    await until('HTTP-FLV', 5000, () => isServed('/live/brief.flv'));
    expect((await starling(dataDir, ['stream', 'rm', 'brief'])).exitCode).toBe(0);
    await until('the encoder to be cut off', 5000, () => encoder.exitCode ?? undefined);
    const again = await publishToEnd(`${rtmp}/brief?key=${key}`);
    expect(again.stderr).toContain('Wrong stream name');
  });
});
