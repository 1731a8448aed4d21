/**
 * A crowd on one channel of 1 Mb/s: nobody waits, and the workers' memory stays where it is. `npm run soak` has a
 * thousand viewers on HTTP-FLV and a thousand on HLS for ten minutes.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, inject, it } from 'vitest';
import { FlvViewer, HlsViewer, type LightViewer } from './light-viewers.ts';
import { starling, until } from './network.ts';
import { workersOf } from './processes.ts';

const isSoak = process.env.STARLING_SOAK !== undefined;
const VIEWERS_EACH = isSoak ? 1000 : 30;
const WATCH_SECONDS = isSoak ? 600 : 6;
const MAX_WORKER_MB = 250;
/** Between the first and the last third of the time. */
const MAX_GROWTH = 1.1;

const { site, rtmp, dataDir } = inject('shared');
const viewers: LightViewer[] = [];
let encoder: ChildProcess | undefined;
afterAll(() => {
  for (const viewer of viewers) viewer.leave();
  encoder?.kill('SIGKILL');
});

const sleep = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

function residentMb(pid: number): number {
  const [, kb] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? [];
  return Number(kb) / 1024;
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

it(`serves ${VIEWERS_EACH} viewers on HTTP-FLV and ${VIEWERS_EACH} on HLS`, {
  timeout: (WATCH_SECONDS + 180) * 1000,
}, async () => {
  const added = await starling(dataDir, ['stream', 'add', 'crowd', '--json']);
  const { key } = JSON.parse(added.stdout) as { key: string };
  const source = '-f lavfi -i testsrc2=s=640x360:r=25,noise=alls=12:allf=t -f lavfi -i sine=r=48000';
  const video =
    '-c:v libx264 -preset ultrafast -g 50 -keyint_min 50 -sc_threshold 0 -pix_fmt yuv420p -b:v 900k -minrate 900k -maxrate 900k -bufsize 900k -nal-hrd cbr';
  const args = `-v error -re ${source} ${video} -c:a aac -b:a 96k -f flv ${rtmp}/crowd?key=${key}`;
  encoder = spawn('ffmpeg', args.split(' '), { stdio: 'ignore' });
  await until('HLS', 20_000, async () => (await fetch(`${site}/live/crowd/index.m3u8`)).ok || undefined);

  for (let count = 0; count < VIEWERS_EACH; count++) {
    viewers.push(new FlvViewer(site, '/live/crowd.flv'), new HlsViewer(site, 'crowd'));
    await sleep(15); // people do not come all at once
  }
  await until('media for all', 60_000, () =>
    viewers.every(({ positionMs }) => positionMs > 0) ? true : undefined,
  );
  for (const viewer of viewers) viewer.forgetStalls();

  const mainPid: number = JSON.parse(readFileSync(join(dataDir, 'up.json'), 'utf8')).pid;
  const workers = workersOf(mainPid);
  expect(workers).toHaveLength(2);
  const samplesMb: number[][] = [];
  for (let second = 0; second < WATCH_SECONDS; second += 2) {
    await sleep(2000);
    samplesMb.push(workers.map(residentMb));
  }
  const longestMs = Math.max(...viewers.map((viewer) => viewer.longestStallMs()));
  const largestMb = Math.max(...samplesMb.flat());
  const third = Math.ceil(samplesMb.length / 3);
  const growths = workers.map(
    (_, at) =>
      mean(samplesMb.slice(-third).map((sample) => sample[at] ?? 0)) /
      mean(samplesMb.slice(0, third).map((sample) => sample[at] ?? 0)),
  );
  process.stdout.write(
    `${viewers.length} viewers, ${WATCH_SECONDS} s: longest wait ${Math.round(longestMs)} ms, largest worker ${Math.round(largestMb)} MB, ` +
      `last third to first ${growths.map((growth) => growth.toFixed(3)).join(' and ')}\n`,
  );

  expect(viewers.flatMap(({ missing }) => missing)).toEqual([]);
  expect(viewers.filter(({ brokenCount }) => brokenCount > 0)).toEqual([]);
  expect(largestMb).toBeLessThan(MAX_WORKER_MB);
  if (!isSoak) return;
  expect(longestMs).toBeLessThanOrEqual(1000);
  for (const growth of growths) expect(growth).toBeLessThan(MAX_GROWTH);
});
