/**
 * One channel with three pictures and two sounds, published as multitrack Enhanced RTMP by an encoder of
 * our own, as a strict checker and as players see it. `npm run soak` takes longer.
 */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { watchChannel } from './multivariant-checker.ts';
import { ffmpegComplaints, run, until, withoutSecondMoov } from './network.ts';
import { addStream, type ClipTrack, loopClip, makeClip, publish } from './publisher.ts';

const { site, rtmp, dataDir } = inject('shared');
const isSoak = process.env.STARLING_SOAK !== undefined;
const hlsJs = join(dirname(fileURLToPath(import.meta.url)), '../node_modules/hls.js/dist/hls.js');
const scratch = mkdtempSync(join(tmpdir(), 'starling-renditions-'));
const NAME = 'renditions';
const playlist = `${site}/live/${NAME}/index.m3u8`;
const WIDTHS = [1280, 854, 426];

let clip: ClipTrack[];
let stopPublishing = () => {};

beforeAll(async () => {
  clip = await makeClip(scratch, ['1280x720', '854x480', '426x240'], [440, 880]);
  const key = await addStream(dataDir, NAME);
  stopPublishing = await publish(rtmp, { name: NAME, key }, loopClip(clip));
  await until('three target durations of it', 20_000, async () => {
    const response = await fetch(`${site}/live/${NAME}/audio-1/index.m3u8`);
    const text = await response.text();
    return (text.match(/#EXTINF/g)?.length ?? 0) >= 3 ? true : undefined;
  });
});
afterAll(() => {
  stopPublishing();
  rmSync(scratch, { recursive: true, force: true });
});

describe('a channel of three pictures and two sounds', () => {
  it('breaks no rule of HLS or low-latency HLS', { timeout: 700_000 }, async () => {
    const durationMs = isSoak ? 600_000 : 8000;
    const watched = await watchChannel(playlist, { durationMs });
    expect(watched.violations).toEqual([]);
    expect(watched.partsSeen).toHaveLength(5);
    for (const count of watched.partsSeen) expect(count).toBeGreaterThan((durationMs / 400) * 0.8);
  });
});

describe.concurrent('players that are told which picture to take', () => {
  const sizesOf = async (path: string) => {
    const entries = ['-show_entries', 'stream=codec_name,width,height', '-of', 'csv=p=0'];
    const probed = await run('ffprobe', ['-v', 'error', ...entries, path]);
    return [
      ...new Set(
        probed.stdout
          .trim()
          .split('\n')
          .filter((line) => line !== ''),
      ),
    ].sort();
  };

  it('ffprobe sees all of them', async () => {
    expect(await sizesOf(playlist)).toEqual(['aac', 'h264,1280,720', 'h264,426,240', 'h264,854,480']);
  });

  it('ffprobe sees all of them in the recording, which is described as live is', async () => {
    const recording = `${site}/live/${NAME}/dvr.m3u8`;
    expect(await sizesOf(recording)).toEqual(['aac', 'h264,1280,720', 'h264,426,240', 'h264,854,480']);
    const described = async (url: string) =>
      (await (await fetch(url)).text())
        .replaceAll('/dvr.m3u8', '/index.m3u8')
        // Bit rates are those of the segments that each lists.
        .replaceAll(/BANDWIDTH=\d+|session=[\w-]+/g, '');
    expect(await described(recording)).toBe(await described(playlist));
  });

  it('FFmpeg plays the second without a complaint', async () => {
    expect(await ffmpegComplaints(playlist, 6, ['-map', '0:p:1'])).toBe('');
  });

  it('mpv plays the second without a warning', async () => {
    const options = ['--no-config', '--vo=null', '--ao=null', '--length=5', '--msg-level=all=warn'];
    const played = await run('mpv', [...options, '--hls-bitrate=1000000', playlist]);
    // What it says of the sound card that there is not, when the machine is busy.
    const said = (played.stdout + played.stderr).replace(/^.*Audio device underrun detected\.\n/gm, '');
    expect(withoutSecondMoov(said)).toBe('');
    expect(played.exitCode).toBe(0);
  });

  it('streamlink plays the second', async () => {
    const recording = join(scratch, 'streamlink.mkv');
    await run('streamlink', [`hls://${playlist}`, '480p', '--hls-duration', '12', '-f', '-o', recording]);
    expect(await sizesOf(recording)).toEqual(['aac', 'h264,854,480']);
  });

  it('VLC plays the smallest', async () => {
    const recording = join('/tmp', `starling-vlc-${randomUUID()}.ts`); // a folder that nobody may write to
    const output = `#std{access=file,mux=ts,dst=${recording}}`;
    const options = ['-q', '-I', 'dummy', '--adaptive-logic=lowest', '--sout', output, '--run-time=6'];
    // VLC refuses to run as root.
    const asNobody = ['runuser', '-u', 'nobody', '--', 'env', 'HOME=/tmp'];
    const vlc = ['cvlc', ...options, playlist, 'vlc://quit'];
    const [command = '', ...args] = process.getuid?.() === 0 ? [...asNobody, ...vlc] : vlc;
    try {
      await run(command, args);
      expect(await sizesOf(recording)).toEqual(expect.arrayContaining(['aac', 'h264,426,240']));
    } finally {
      rmSync(recording, { force: true });
    }
  });

  it("GStreamer's hlsdemux2 plays what a slow connection can carry, and drops nothing", async () => {
    const env = { GST_PLUGIN_FEATURE_RANK: 'hlsdemux2:512,hlsdemux:0' };
    const video = 'video-sink=fpsdisplaysink video-sink=fakesink text-overlay=false sync=true';
    const args = [
      'playbin3',
      `uri=${playlist}`,
      'connection-speed=700',
      video,
      'audio-sink=fakesink sync=true',
    ];
    const played = await run('timeout', ['-s', 'INT', '10', 'gst-launch-1.0', '-v', ...args], { env });
    const last = [...played.stdout.matchAll(/rendered: (\d+), dropped: (\d+)/g)].at(-1);
    expect(Number(last?.[1])).toBeGreaterThan(60);
    expect(Number(last?.[2])).toBeLessThan(5);
    expect(played.stdout).toContain('width=(int)426');
  });
});

/** Stalls that a change of sound may cause: hls.js empties its buffer of sound, and loads the new one. */
const SOUND_CHANGE_MS = 1000;

/** What is used here of hls.js. */
interface HlsPlayer {
  readonly levels: readonly { readonly width: number }[];
  readonly audioTracks: readonly unknown[];
  nextLevel: number;
  audioTrack: number;
  readonly latency: number;
  on(event: string, listener: (event: string, data: Record<string, unknown>) => void): void;
  loadSource(url: string): void;
  attachMedia(element: HTMLVideoElement): void;
}
interface Watching {
  readonly player: HlsPlayer;
  readonly video: HTMLVideoElement;
  readonly troubles: string[];
  /** On the page's clock. */
  soundChangedAtMs: number;
}
declare global {
  var watching: Watching;
}

/** Plays with hls.js in low-latency mode, noting each stall and each error. */
async function play(page: Page): Promise<void> {
  await page.goto(`${site}/healthz`);
  await page.addScriptTag({ path: hlsJs });
  await page.evaluate(
    ({ url, soundChangeMs }) => {
      const { Hls } = globalThis as unknown as { Hls: new (config: object) => HlsPlayer };
      const video = document.body.appendChild(document.createElement('video'));
      video.muted = true;
      // As the site's player: without it, what Chromium's clock loses on a busy machine adds up.
      const player = new Hls({ lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.1 });
      const troubles: string[] = [];
      globalThis.watching = { player, video, troubles, soundChangedAtMs: Number.NEGATIVE_INFINITY };
      const note = (what: string) => {
        const sinceSoundChangeMs = performance.now() - globalThis.watching.soundChangedAtMs;
        if (sinceSoundChangeMs > soundChangeMs) troubles.push(`${video.currentTime}: ${what}`);
      };
      player.on('hlsError', (_event, { details, error }) => {
        // Its own: what it was loading when it was told to switch.
        if (details !== 'aborted') note(`${String(details)}: ${error instanceof Error ? error.stack : ''}`);
      });
      video.addEventListener('playing', () => video.addEventListener('waiting', () => note('waiting')), {
        once: true,
      });
      player.loadSource(url);
      player.attachMedia(video);
      void video.play();
    },
    { url: playlist, soundChangeMs: SOUND_CHANGE_MS },
  );
  await page.waitForFunction(() => globalThis.watching.video.currentTime > 1, undefined, { timeout: 20_000 });
  await page.waitForTimeout(3000); // it finds its place first
}

/** @returns how far playback came in a second of the wall clock, and the width of the picture */
async function progress(
  page: Page,
  overMs: number,
): Promise<{ rate: number; widthPx: number; latencyS: number }> {
  const read = () =>
    page.evaluate(() => {
      const { video, player } = globalThis.watching;
      const wallS = performance.now() / 1000;
      return { mediaS: video.currentTime, wallS, widthPx: video.videoWidth, latencyS: player.latency };
    });
  const before = await read();
  await page.waitForTimeout(overMs);
  const after = await read();
  const rate = (after.mediaS - before.mediaS) / (after.wallS - before.wallS);
  return { rate, widthPx: after.widthPx, latencyS: after.latencyS };
}

describe('hls.js in Chromium, low latency', () => {
  it('takes each picture and each sound that it is told to, without a stall', {
    timeout: 120_000,
  }, async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await play(page);
      const found = await page.evaluate(() => {
        const { levels, audioTracks } = globalThis.watching.player;
        return { widths: levels.map(({ width }) => width).sort((a, b) => b - a), sounds: audioTracks.length };
      });
      expect(found).toEqual({ widths: WIDTHS, sounds: 2 });
      // hls.js sorts levels by bit rate.
      for (const level of [0, 2, 1]) {
        await page.evaluate((index) => {
          globalThis.watching.player.nextLevel = index;
        }, level);
        const width = WIDTHS.toReversed()[level];
        await page.waitForFunction((px) => globalThis.watching.video.videoWidth === px, width, {
          timeout: 8000,
        });
        expect((await progress(page, 2000)).rate).toBeGreaterThan(0.9);
      }
      for (const sound of [1, 0]) {
        await page.evaluate((index) => {
          globalThis.watching.soundChangedAtMs = performance.now();
          globalThis.watching.player.audioTrack = index;
        }, sound);
        await page.waitForTimeout(2000);
        // More than a segment after the switch: what comes next of the sound is loaded, too.
        expect((await progress(page, 2500)).rate).toBeGreaterThan(0.9);
        expect(await page.evaluate(() => globalThis.watching.player.audioTrack)).toBe(sound);
      }
      expect(await page.evaluate(() => globalThis.watching.troubles)).toEqual([]);
      expect((await progress(page, 100)).latencyS).toBeLessThan(5);
    } finally {
      await browser.close();
    }
  });

  it("is told by the viewer through the menus of the site's player", { timeout: 60_000 }, async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
      await page.goto(`${site}/watch/${NAME}?via=hls`);
      const quality = page.getByLabel('Quality');
      await quality.waitFor({ timeout: 20_000 });
      expect(await quality.locator('option').allTextContents()).toEqual(['Auto', '720p', '480p', '240p']);
      expect(await page.getByLabel('Sound').locator('option').allTextContents()).toEqual([
        'Audio 0',
        'Audio 1',
      ]);
      await quality.selectOption('720p');
      await page.waitForFunction(() => document.querySelector('video')?.videoWidth === 1280, undefined, {
        timeout: 10_000,
      });
      await quality.selectOption('240p');
      await page.waitForFunction(() => document.querySelector('video')?.videoWidth === 426, undefined, {
        timeout: 10_000,
      });
      expect(await quality.inputValue()).toBe('240p');
    } finally {
      await browser.close();
    }
  });

  it.runIf(isSoak)('plays for five minutes without a stall or an error', { timeout: 400_000 }, async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await play(page);
      const { rate, latencyS } = await progress(page, 300_000);
      expect(await page.evaluate(() => globalThis.watching.troubles)).toEqual([]);
      expect(rate).toBeGreaterThan(0.95);
      expect(latencyS).toBeLessThan(3);
    } finally {
      await browser.close();
    }
  });
});
