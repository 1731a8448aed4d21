/**
 * What the guide says is what the picture shows: programmes begin on the second, edits on the air leave no seam, and
 * a TV server that takes us for an HDHomeRun tuner finds and plays the channel.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseXmltv } from '@iptv/xmltv';
import { FRAME_STRIP } from '@starling/backend/demo-asset';
import { parse as parseM3u } from 'iptv-playlist-parser';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { ffmpegComplaints, run, starling, until } from './network.ts';

const { site, dataDir } = inject('shared');
const scratch = mkdtempSync(join(tmpdir(), 'starling-schedule-'));
const media = `${site}/live/planned/main`;
/** Half an hour beside whole hours. */
const TIME_ZONE = 'Asia/Kolkata';
const ZONE_OFFSET_MS = 5.5 * 3_600_000;

/** When the two programmes begin, in milliseconds since 1970. */
let startsAtMs: readonly [number, number] = [0, 0];
let complaints: Promise<string>;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  expect(await starling(dataDir, ['channel', 'add', 'planned', '--loop', 'Test card'])).toMatchObject({
    exitCode: 0,
  });
  await until('the channel', 20_000, async () =>
    (await fetch(`${media}/index.m3u8`)).ok ? true : undefined,
  );
  browser = await launchChromium();
  page = await browser.newPage();
  await page.goto(`${site}/watch/planned?via=hls`);
  await page.waitForFunction(() => (document.querySelector('video')?.currentTime ?? 0) > 0);
  complaints = ffmpegComplaints(`${media}/index.m3u8`, 24);

  // Neither is a whole number of the test card's 2 s segments after the other, or after the channel's start.
  const firstMs = Math.ceil(Date.now() / 1000) * 1000 + 9000;
  startsAtMs = [firstMs, firstMs + 7000];
  const local = (unixMs: number) => new Date(unixMs + ZONE_OFFSET_MS).toISOString().slice(0, 19);
  const file = join(scratch, 'evening.yaml');
  writeFileSync(
    file,
    `timeZone: ${TIME_ZONE}
filler: { items: [Test card] }
programmes:
  - { start: ${local(startsAtMs[0])}, items: [Test card], title: First }
  - { start: ${local(startsAtMs[1])}, items: [Test card], title: Second, description: And last. }
`,
  );
  const imported = await starling(dataDir, [
    'channel',
    'schedule',
    'import',
    'planned',
    file,
    '--effective',
    'now',
  ]);
  expect(imported).toMatchObject({ exitCode: 0, stderr: '' });
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await starling(dataDir, ['channel', 'rm', 'planned']);
  rmSync(scratch, { recursive: true, force: true });
});

/** Segments of the playlist by their time. */
async function segments(): Promise<Map<number, string>> {
  const text = await (await fetch(`${media}/index.m3u8`)).text();
  const found = text.matchAll(/#EXT-X-PROGRAM-DATE-TIME:(\S+)\n(?:#(?!EXT-X-PROGRAM).*\n)*?(\d+\.m4s)/g);
  return new Map([...found].map((match) => [Date.parse(match[1] ?? ''), match[2] ?? '']));
}

/** The number of a segment's first picture, which the test card writes as squares below it. */
async function firstFrame(name: string): Promise<number> {
  const playlist = await (await fetch(`${media}/index.m3u8`)).text();
  const init = /URI="(init[^"]+)"/.exec(playlist)?.[1];
  const parts = await Promise.all(
    [init, name].map(async (file) => Buffer.from(await (await fetch(`${media}/${file}`)).arrayBuffer())),
  );
  const path = join(scratch, name.replace('m4s', 'mp4'));
  writeFileSync(path, Buffer.concat(parts));
  const picture = join(scratch, `${name}.gray`);
  const { exitCode } = await run('ffmpeg', [
    ...['-v', 'error', '-i', path, '-frames:v', '1', '-pix_fmt', 'gray', '-f', 'rawvideo', '-y', picture],
  ]);
  expect(exitCode).toBe(0);
  return frameIn(readFileSync(picture).subarray(FRAME_STRIP.centreYPx * 1280));
}

/** @param luma of the line through the squares */
function frameIn(luma: Uint8Array): number {
  const { bits, leftPx, pitchPx } = FRAME_STRIP;
  let frame = 0;
  for (let bit = 0; bit < bits; bit++) if ((luma[leftPx + bit * pitchPx] ?? 0) >= 128) frame += 2 ** bit;
  return frame;
}

describe('a schedule on the air', () => {
  it('begins each programme on the second that the guide names, with its first picture', async () => {
    const guide = await (await fetch(`${site}/guide.xml`)).text();
    for (const [i, title] of ['First', 'Second'].entries()) {
      const [, start = '', stop = ''] =
        new RegExp(`start="(\\d+) \\+0000" stop="(\\d+) \\+0000" channel="planned"><title>${title}<`).exec(
          guide,
        ) ?? [];
      const isoTime = (xmltv: string) =>
        xmltv.replace(/(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)/, '$1-$2-$3T$4:$5:$6Z');
      const time = isoTime(start);
      expect(Date.parse(time)).toBe(startsAtMs[i]);
      const name = await until(`the segment at ${time}`, 30_000, async () =>
        (await segments()).get(Date.parse(time)),
      );
      expect(await firstFrame(name)).toBe(0);
      const next = await until('the one after it', 30_000, async () =>
        (await segments()).get(Date.parse(time) + 2000),
      );
      expect(await firstFrame(next)).toBe(50);
      const [, startDate = '', duration] =
        new RegExp(`START-DATE="([^"]+)",DURATION=([\\d.]+),X-TITLE="${title}"`).exec(
          await (await fetch(`${media}/index.m3u8`)).text(),
        ) ?? [];
      expect(Date.parse(startDate)).toBe(startsAtMs[i]);
      expect(Number(duration) * 1000).toBe(Date.parse(isoTime(stop)) - Date.parse(time));
    }
  });

  it('leaves no seam: segments follow one another, and FFmpeg has nothing to say', async () => {
    expect(await complaints).toBe('');
    const times = [...(await segments()).entries()];
    const numbers = times.map(([, name]) => Number.parseInt(name, 10));
    expect(numbers).toEqual(numbers.map((_, i) => (numbers[0] ?? 0) + i));
    for (const [i, [timeMs]] of times.slice(1).entries()) {
      const lengthMs = timeMs - (times[i]?.[0] ?? 0);
      expect(lengthMs).toBeGreaterThanOrEqual(500);
      expect(lengthMs).toBeLessThan(2500);
    }
    expect(await (await fetch(`${media}/index.m3u8`)).text()).not.toContain('#EXT-X-DISCONTINUITY\n');
  });

  it('plays through in Chromium', async () => {
    const state = () =>
      page.evaluate(() => {
        const video = document.querySelector('video');
        return { at: video?.currentTime ?? 0, error: video?.error?.message ?? null, isPaused: video?.paused };
      });
    const before = await state();
    expect(before).toMatchObject({ error: null, isPaused: false });
    // Both programmes began while the page was open, and it still plays.
    expect(before.at).toBeGreaterThan((startsAtMs[1] - startsAtMs[0]) / 1000);
    await until('more pictures', 10_000, async () => ((await state()).at > before.at ? true : undefined));
  });

  it('is what the site shows', async () => {
    const channel = await (await fetch(`${site}/api/v1/public/channels/planned`)).json();
    expect(channel).toMatchObject({
      now: { title: 'Second', startsAt: new Date(startsAtMs[1]).toISOString() },
    });
  });
});

describe('catch-up', () => {
  it('plays the programme that the address in the playlist names, from its first picture to its last', async () => {
    const { items } = parseM3u(await (await fetch(`${site}/playlist.m3u`)).text());
    const source = items.find(({ tvg }) => tvg.id === 'planned')?.catchup.source ?? '';
    const { programmes = [] } = parseXmltv(await (await fetch(`${site}/guide.xml`)).text());
    const first = programmes.find(
      ({ channel, title }) => channel === 'planned' && title?.[0]?._value === 'First',
    );
    // As IPTV players fill it in: seconds since 1970.
    const seconds = (date: Date | undefined) => String((date?.getTime() ?? Number.NaN) / 1000);
    const url = source.replace('{utc}', seconds(first?.start)).replace('{utcend}', seconds(first?.stop));
    expect(url).toContain(`from=${startsAtMs[0] / 1000}&to=${startsAtMs[1] / 1000}`);
    await until('the end of the programme', 30_000, async () => {
      const [variant = ''] = (await (await fetch(url)).text()).match(/^[^#\n]+$/m) ?? [];
      const media = await (await fetch(new URL(variant, url))).text();
      return media.includes('#EXT-X-ENDLIST') ? true : undefined;
    });
    const lines = join(scratch, 'catch-up.gray');
    const line = `format=gray,crop=iw:1:0:${FRAME_STRIP.centreYPx}`;
    const played = await run('ffmpeg', [
      ...['-v', 'error', '-i', url, '-map', '0:v:0', '-vf', line, '-fps_mode', 'passthrough'],
      ...['-pix_fmt', 'gray', '-f', 'rawvideo', '-y', lines],
    ]);
    expect(played.stderr).toBe('');
    const luma = readFileSync(lines);
    const frames = Array.from({ length: luma.length / 1280 }, (_, i) => frameIn(luma.subarray(i * 1280)));
    expect(frames).toEqual(Array.from({ length: (startsAtMs[1] - startsAtMs[0]) / 40 }, (_, i) => i));
  });
});

describe('a TV server that looks for an HDHomeRun tuner', () => {
  it('finds the channel and tunes in', async () => {
    const { LineupURL: lineupUrl } = (await (await fetch(`${site}/discover.json`)).json()) as {
      LineupURL: string;
    };
    const lineup = (await (await fetch(lineupUrl)).json()) as { GuideName: string; URL: string }[];
    const url = lineup.find(({ GuideName }) => GuideName === 'planned')?.URL ?? '';
    const probe = await run('ffprobe', [
      '-v',
      'error',
      '-show_entries',
      'format=format_name:stream=codec_name',
      url,
    ]);
    expect(probe.stdout).toMatch(/codec_name=h264[\s\S]*codec_name=aac[\s\S]*format_name=mpegts/);
  });
});
