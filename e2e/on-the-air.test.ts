/** The demo channel of a first start, as viewers with different players see it. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { ffmpegComplaints, run, withoutSecondMoov } from './network.ts';

const { site } = inject('shared');
const hls = `${site}/live/demo/index.m3u8`;
const scratch = mkdtempSync(join(tmpdir(), 'starling-players-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Seconds of media that FFmpeg is given; `npm run soak` takes a minute. */
const PLAY_SECONDS = process.env.STARLING_SOAK === undefined ? 12 : 60;

describe('the demo channel', () => {
  it('advances in Chromium by the clock, and shows no error', async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
      const errors: string[] = [];
      page.on('pageerror', (error) => errors.push(error.message));
      await page.goto(`${site}/watch/demo`);
      await page.waitForFunction(() => (document.querySelector('video')?.currentTime ?? 0) > 0.5, undefined, {
        timeout: 20_000,
      });
      const read = () =>
        page.evaluate(() => {
          const video = document.querySelector('video');
          return {
            mediaS: video?.currentTime ?? 0,
            wallS: performance.now() / 1000,
            width: video?.videoWidth,
          };
        });
      await page.waitForTimeout(2000); // past the start-up seek to the live edge
      const before = await read();
      await page.waitForTimeout(10_000);
      const after = await read();
      const mediaPerWall = (after.mediaS - before.mediaS) / (after.wallS - before.wallS);
      expect(mediaPerWall).toBeGreaterThan(0.95);
      expect(after.width).toBe(1280);
      expect(errors).toEqual([]);
    } finally {
      await browser.close();
    }
  });

  it.concurrent.each([
    ['HLS', hls],
    ['HTTP-FLV', `${site}/live/demo.flv`],
  ])('gives FFmpeg no reason to complain over %s', { timeout: 150_000 }, async (_name, url) => {
    expect(await ffmpegComplaints(url, PLAY_SECONDS)).toBe('');
  });

  it.concurrent('plays in GStreamer without a dropped frame', async () => {
    const played = await run(
      'timeout',
      [
        ...['-s', 'INT', '10', 'gst-launch-1.0', '-v', 'playbin3', `uri=${hls}`],
        'video-sink=fpsdisplaysink video-sink=fakesink text-overlay=false sync=true',
        'audio-sink=fakesink sync=true',
      ],
      // playbin3 takes no other; said here for machines that rank the old one higher.
      { env: { GST_PLUGIN_FEATURE_RANK: 'hlsdemux2:512,hlsdemux:0' } },
    );
    const last = [...played.stdout.matchAll(/rendered: (\d+), dropped: (\d+)/g)].at(-1);
    expect(Number(last?.[1])).toBeGreaterThan(120);
    expect(Number(last?.[2])).toBeLessThan(5);
  });

  it.concurrent('plays in VLC', async () => {
    const recording = join('/tmp', `starling-vlc-${process.pid}.ts`);
    const vlc = [
      'cvlc',
      '-q',
      '-I',
      'dummy',
      '--sout',
      `#std{access=file,mux=ts,dst=${recording}}`,
      '--run-time=6',
      hls,
      'vlc://quit',
    ];
    // VLC refuses to run as root.
    const asNobody = ['runuser', '-u', 'nobody', '--', 'env', 'HOME=/tmp'];
    const [command = '', ...args] = process.getuid?.() === 0 ? [...asNobody, ...vlc] : vlc;
    try {
      await run(command, args);
      expect(await streamKinds(recording)).toEqual(['audio', 'video']);
    } finally {
      rmSync(recording, { force: true });
    }
  });

  it.concurrent('plays in mpv without a warning', async () => {
    const played = await run('mpv', [
      '--no-config',
      '--vo=null',
      '--ao=null',
      '--length=6',
      '--msg-level=all=warn',
      hls,
    ]);
    expect(withoutSecondMoov(played.stdout + played.stderr)).toBe('');
    expect(played.exitCode).toBe(0);
  });

  it.concurrent('plays in streamlink', async () => {
    const recording = join(scratch, 'streamlink.mp4');
    const played = await run('streamlink', [
      `hls://${hls}`,
      'best',
      '--hls-duration',
      '6',
      '-f',
      '-o',
      recording,
    ]);
    expect(played.exitCode).toBe(0);
    expect(statSync(recording).size).toBeGreaterThan(100_000);
    expect(await streamKinds(recording)).toEqual(['audio', 'video']);
  });

  it('answers with the headers that players and caches need', async () => {
    const multivariant = await fetch(hls);
    expect(multivariant.headers.get('content-type')).toBe('application/vnd.apple.mpegurl');
    expect(multivariant.headers.get('access-control-allow-origin')).toBe('*');
    expect(multivariant.headers.get('cache-control')).toBe('no-store'); // each viewer's has its own session id
    const playlist = await fetch(`${site}/live/demo/main/index.m3u8`, {
      headers: { 'Accept-Encoding': 'gzip' },
    });
    expect(playlist.headers.get('content-type')).toBe('application/vnd.apple.mpegurl');
    expect(playlist.headers.get('content-encoding')).toBe('gzip');
    expect(playlist.headers.get('access-control-allow-origin')).toBe('*');
    expect(playlist.headers.get('cache-control')).toMatch(/max-age=1\b/);
    const media = await playlist.text();
    const segment = await fetch(`${site}/live/demo/main/${/^\d+\.m4s$/m.exec(media)?.[0]}`);
    expect(segment.status).toBe(200);
    expect(segment.headers.get('cache-control')).toContain('immutable');
    expect((await fetch(`${site}/live/demo/main/999999999.m4s`)).status).toBe(404);
    expect((await fetch(`${site}/live/no-such-channel/index.m3u8`)).status).toBe(404);
  });

  it('shows the picture that the schedule says: the burned-in frame number follows the programme date-time', async () => {
    const media = await (await fetch(`${site}/live/demo/main/index.m3u8`)).text();
    expect(media).toMatch(/#EXT-X-PROGRAM-DATE-TIME:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/);
    const name = /^(\d+)\.m4s$/m.exec(media);
    const startsAt = Date.parse(/#EXT-X-PROGRAM-DATE-TIME:(\S+)\n(?:#.*\n)*\d+\.m4s/.exec(media)?.[1] ?? '');
    const init = /#EXT-X-MAP:URI="([^"]+)"/.exec(media)?.[1];
    const picture = await run('bash', [
      '-c',
      `cat <(curl -s ${site}/live/demo/main/${init}) <(curl -s ${site}/live/demo/main/${name?.[0]}) | ` +
        `ffmpeg -v error -i - -frames:v 1 -vf crop=iw:8:0:ih-12,scale=10:1:flags=area -pix_fmt gray -f rawvideo - | od -An -tu1`,
    ]);
    // A white square fills four tenths of its column's width.
    const squares = picture.stdout.trim().split(/\s+/).map(Number);
    const frame = squares.reduce((sum, luma, bit) => sum + (luma > 50 ? 2 ** bit : 0), 0);
    const channels = (await (await fetch(`${site}/api/v1/public/channels/demo`)).json()) as {
      now: { startsAt: string };
    };
    const loopMs = 32_000;
    const intoLoopMs = (((startsAt - Date.parse(channels.now.startsAt)) % loopMs) + loopMs) % loopMs;
    expect(frame).toBe(Math.round((intoLoopMs / 1000) * 25));
  });
});

async function streamKinds(path: string): Promise<string[]> {
  const probed = await run('ffprobe', [
    '-v',
    'error',
    '-show_entries',
    'stream=codec_type',
    '-of',
    'csv=p=0',
    path,
  ]);
  return [...new Set(probed.stdout.match(/audio|video/g))].sort();
}
