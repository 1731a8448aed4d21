/**
 * Programmes whose sources have nothing in common, one after another: Chromium and VLC play through. A few seconds
 * each by default; STARLING_SOAK=1 plays programmes of 10 to 40 s for half an hour.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { openViewer, waitsInWords } from './browser-viewer.ts';
import { program, run, starling, until } from './network.ts';

const { site, dataDir } = inject('shared');
const isSoak = process.env.STARLING_SOAK !== undefined;
const SOAK_MINUTES = Number(process.env.STARLING_SOAK_MINUTES ?? 30);

/** Width, height, pictures per second; samples per second, channels. */
const SOURCES: readonly { name: string; seconds: number; picture?: string; sound?: string }[] = [
  { name: 'cinema', seconds: 20, picture: '854x480:r=24000/1001', sound: '44100 stereo' },
  { name: 'pal', seconds: 10, picture: '640x480:r=25', sound: '48000 mono' },
  { name: 'ntsc', seconds: 40, picture: '854x480:r=30000/1001', sound: '48000 5.1' },
  { name: 'fluent', seconds: 15, picture: '854x480:r=60', sound: '44100 stereo' },
  { name: 'phone', seconds: 30, picture: '480x854:r=30', sound: '48000 stereo' },
  { name: 'silent', seconds: 12, picture: '854x480:r=25' },
  { name: 'radio', seconds: 25, sound: '44100 stereo' },
];
const lengthOf = (seconds: number) => (isSoak ? seconds : 4);
const PLAY_SECONDS = isSoak ? SOAK_MINUTES * 60 : lengthOf(0) * SOURCES.length + 2;

const scratch = mkdtempSync(join(tmpdir(), 'starling-mixed-'));
let browser: Browser;

beforeAll(async () => {
  for (const { name, seconds, picture, sound } of SOURCES) {
    const [sampleRate, layout] = sound?.split(' ') ?? [];
    const inputs = [
      ...(picture === undefined ? [] : ['-f', 'lavfi', '-i', `testsrc2=s=${picture}`]),
      ...(sound === undefined
        ? []
        : ['-f', 'lavfi', '-i', `sine=r=${sampleRate},aformat=channel_layouts=${layout}`]),
    ];
    const codecs = ['-c:v', 'libx264', '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-c:a', 'aac'];
    const path = join(scratch, `mixed-${name}.mkv`);
    execFileSync('ffmpeg', ['-v', 'error', ...inputs, '-t', String(lengthOf(seconds)), ...codecs, path]);
  }
  const files = SOURCES.map(({ name }) => join(scratch, `mixed-${name}.mkv`));
  const imported = await run(process.execPath, [program, 'media', 'import', ...files, '--data', dataDir], {
    timeoutMs: 500_000,
  });
  expect(imported).toMatchObject({ exitCode: 0 });
  const loop = SOURCES.map(({ name }) => `mixed-${name}`).join(',');
  expect(await starling(dataDir, ['channel', 'add', 'mixed', '--loop', loop])).toMatchObject({ exitCode: 0 });
  await until('the channel', 20_000, async () =>
    (await fetch(`${site}/live/mixed/index.m3u8`)).ok ? true : undefined,
  );
  browser = await launchChromium();
}, 600_000);
afterAll(async () => {
  await browser?.close();
  await starling(dataDir, ['channel', 'rm', 'mixed']);
  rmSync(scratch, { recursive: true, force: true });
});

/** How often VLC said what, without its addresses and figures. */
function countKinds(lines: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of lines) {
    const kind = line.replace(/^\[\w+\] /, '').replace(/-?\d+/g, '#');
    if (kind !== '') counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

/**
 * Plays in VLC, which decodes what it gets and writes it to a file as well; gives what VLC complained of and what FFmpeg
 * finds in the file.
 */
async function playInVlc(
  url: string,
  seconds: number,
): Promise<{ seconds: number; longestHoleSeconds: number; complaints: Record<string, number> }> {
  const recording = join('/tmp', `starling-vlc-mixed-${process.pid}.ts`);
  const vlc = [
    ...['cvlc', '-v', '-I', 'dummy', '--no-color', '--vout=dummy', '--aout=dummy'],
    ...['--sout', `#duplicate{dst=std{access=file,mux=ts,dst=${recording}},dst=display}`],
    ...[`--run-time=${seconds}`, url, 'vlc://quit'],
  ];
  // VLC refuses to run as root.
  const asNobody = ['runuser', '-u', 'nobody', '--', 'env', 'HOME=/tmp'];
  const [command = '', ...args] = process.getuid?.() === 0 ? [...asNobody, ...vlc] : vlc;
  try {
    const { stderr } = await run(command, args, { timeoutMs: (seconds + 60) * 1000 });
    const probed = await run('ffprobe', [
      ...'-v error -select_streams v -show_entries packet=pts_time -of csv=p=0'.split(' '),
      recording,
    ]);
    const times = probed.stdout
      .split('\n')
      .flatMap((line) => (line === '' ? [] : [Number.parseFloat(line)]))
      .sort((a, b) => a - b);
    const holes = times.slice(1).map((time, i) => time - (times[i] ?? time));
    return {
      seconds: (times.at(-1) ?? 0) - (times[0] ?? 0),
      longestHoleSeconds: Math.max(...holes),
      complaints: countKinds(stderr.split('\n')),
    };
  } finally {
    rmSync(recording, { force: true });
  }
}

it('programmes of different source formats play through in Chromium and VLC', {
  timeout: (PLAY_SECONDS + 120) * 1000,
}, async () => {
  const inVlc = playInVlc(`${site}/live/mixed/index.m3u8`, PLAY_SECONDS);
  const viewer = await openViewer(browser, `${site}/watch/mixed?via=hls`);
  await new Promise((wake) => setTimeout(wake, PLAY_SECONDS * 1000));
  const seen = await viewer.stop();
  const recorded = await inVlc;
  console.log(`Chromium: ${seen.pictureCount} pictures, ${waitsInWords(seen)}`, recorded);
  expect(seen.errors).toEqual([]);
  expect(seen.stallCount, waitsInWords(seen)).toBe(0);
  expect(seen.pictureCount).toBeGreaterThan(PLAY_SECONDS * 20);

  // "Called too late" is how VLC says that it ran dry and waits. It leaves pictures out where the processor is taken.
  const isTrouble = (kind: string) =>
    /(?:demux|decoder|input|mux) error: |is called too late|buffer deadlock/.test(kind);
  if (isSoak) expect(Object.keys(recorded.complaints).filter(isTrouble)).toEqual([]);
  // Where VLC goes over to another rendition it opens another demultiplexer, and its recording lacks up to a few pictures there.
  const hasSwitched = Object.keys(recorded.complaints).some((kind) => kind.includes('[needrestart]'));
  expect(recorded.longestHoleSeconds).toBeLessThan(hasSwitched ? 0.25 : 0.1);
  // Before it begins it fills its buffer, for up to a dozen seconds; and it is ended by the clock.
  expect(recorded.seconds).toBeGreaterThan(PLAY_SECONDS - 20);
});
