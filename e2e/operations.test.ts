/** Starting, stopping, being killed, and the faults of a machine: each ends as the operator would wish. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, inject, it } from 'vitest';
import { ffmpegComplaints, program, run, starling, startNetwork, until } from './network.ts';
import { childrenOf, isRunning } from './processes.ts';

const scratch = mkdtempSync(join(tmpdir(), 'starling-operations-'));
const mediaFrom = inject('shared').dataDir;
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Processes whose parent is this one, or whose parent died and that carry this data folder in their arguments. */
function processesNaming(text: string): string[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((pid) => {
      try {
        const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return commandLine.includes(text) ? [commandLine] : [];
      } catch {
        return []; // it has just ended
      }
    });
}

/** `starling up` that is expected to fail. */
function upFails(args: readonly string[], env: Record<string, string> = {}) {
  return run(
    process.execPath,
    [program, 'up', '--host', '127.0.0.1', '--http', '0', '--rtmp', '0', '--rtmps', '0', ...args],
    { env },
  );
}

describe('starling up', () => {
  it('ends within 5 s of SIGTERM, in the middle of an import, with no process left', async () => {
    const network = await startNetwork({ mediaFrom });
    const source = join(scratch, 'long.mp4');
    execFileSync('ffmpeg', [
      '-v',
      'error',
      '-y',
      '-f',
      'lavfi',
      '-i',
      'testsrc2=s=640x360:r=25',
      '-t',
      '50',
      '-c:v',
      'libx264',
      '-preset',
      'ultrafast',
      source,
    ]);
    const importing = spawn(
      process.execPath,
      [program, 'media', 'import', source, '--data', network.dataDir],
      { stdio: 'ignore' },
    );
    await until('FFmpeg to run', 15_000, () =>
      processesNaming(source).some((line) => line.startsWith('ffmpeg')) ? true : undefined,
    );
    const children = childrenOf(network.process.pid ?? 0);
    expect(children.length).toBeGreaterThanOrEqual(2); // the workers, and FFmpeg
    const askedAt = performance.now();
    network.process.kill('SIGTERM');
    const [exitCode] = await once(network.process, 'exit');
    expect(performance.now() - askedAt).toBeLessThan(5000);
    expect(exitCode).toBe(0);
    importing.kill('SIGKILL');
    await once(importing, 'exit');
    expect(processesNaming(network.dataDir)).toEqual([]);
    expect(processesNaming(source)).toEqual([]);
    expect(children.filter(isRunning)).toEqual([]);
    await network.stop();
  });

  it('loses nothing when it is killed and started again, and the timeline goes on', async () => {
    const dataDir = join(scratch, 'killed');
    mkdirSync(dataDir);
    const first = await startNetwork({ dataDir, mediaFrom });
    expect((await starling(dataDir, ['stream', 'add', 'kept'])).exitCode).toBe(0);
    const before = await channelsKept(dataDir);
    const numberBefore = await newestSegment(first.site);
    const workers = childrenOf(first.process.pid ?? 0);
    expect(workers).toHaveLength(2);
    const recorded = await extentOf(first.site);
    first.process.kill('SIGKILL');
    await once(first.process, 'exit');
    await until('the workers to end', 5000, () => (workers.some(isRunning) ? undefined : true));
    const second = await startNetwork({ dataDir });
    try {
      expect(await channelsKept(dataDir)).toEqual(before);
      expect((await starling(dataDir, ['stream', 'ls'])).stdout).toContain('kept');
      expect(await newestSegment(second.site)).toBeGreaterThan(numberBefore);
      const { from, to } = await extentOf(second.site);
      expect([from, to > recorded.to]).toEqual([recorded.from, true]);
      const vod = `${second.site}/live/demo/vod.m3u8?from=${recorded.from}&to=${recorded.to}`;
      expect(await ffmpegComplaints(vod, 4)).toBe('');
      expect(await ffmpegComplaints(`${second.site}/live/demo/index.m3u8`, 4)).toBe('');
    } finally {
      await second.stop();
    }
  });

  it('says that a port is busy', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await once(blocker, 'listening');
    const address = blocker.address();
    const port = typeof address === 'object' && address !== null ? String(address.port) : '';
    for (const flag of ['--http', '--rtmp']) {
      const failed = await upFails(['--data', join(scratch, `busy${flag}`), flag, port]);
      expect(failed.exitCode).toBe(1);
      expect(lastLine(failed.stderr)).toContain(
        `Port ${port} is in use by another program. Choose another one with ${flag} PORT.`,
      );
    }
    blocker.close();
  });

  it('says that the data folder cannot be written', async () => {
    const file = join(scratch, 'a-file');
    writeFileSync(file, '');
    const failed = await upFails(['--data', join(file, 'data')]);
    expect(failed.exitCode).toBe(1);
    expect(lastLine(failed.stderr)).toMatch(/data folder .* cannot be written/);
  });

  it('says that FFmpeg is missing', async () => {
    const failed = await upFails(['--data', join(scratch, 'no-ffmpeg')], { PATH: '/nowhere' });
    expect(failed.exitCode).toBe(1);
    expect(lastLine(failed.stderr)).toContain('ffmpeg is missing. Install it');
  });

  it('refuses a second run on the same data folder', async () => {
    const failed = await upFails(['--data', mediaFrom]);
    expect(failed.exitCode).toBe(1);
    expect(lastLine(failed.stderr)).toContain('Another Starling uses the data folder');
  });
});

describe('starling media import', () => {
  it.each([
    ['a corrupt file', () => Buffer.concat([Buffer.from('\0\0\0\x18ftypmp42'), Buffer.alloc(50_000, 0x5a)])],
    ['an empty file', () => Buffer.alloc(0)],
    ['a text file named .mp4', () => Buffer.from('this is not a film\n'.repeat(50))],
  ])('says in one sentence why %s cannot be imported', async (name, content) => {
    const path = join(scratch, `${name.replaceAll(' ', '-')}.mp4`);
    writeFileSync(path, content());
    const failed = await starling(mediaFrom, ['media', 'import', path]);
    expect(failed.exitCode).toBe(1);
    expect(failed.stdout).toBe('');
    expect(failed.stderr.trim().split('\n')).toHaveLength(1);
    expect(failed.stderr).toContain(path);
  });

  it('says so when the disk is full, leaves nothing behind, and the channel plays on', async () => {
    const dataDir = join(scratch, 'small-disk');
    mkdirSync(dataDir);
    const media = join(dataDir, 'media');
    mkdirSync(media);
    const isMounted = spawnMount(media);
    if (!isMounted) {
      // Only root can make a small disk. A folder that takes no more bytes is the next best thing.
      chmodSync(media, 0o500);
    }
    const network = await startNetwork({ dataDir, mediaFrom });
    try {
      const source = join(scratch, 'noise.mp4');
      execFileSync('ffmpeg', [
        ...'-v error -y -f lavfi -i testsrc2=s=1280x720:r=25,noise=alls=60:allf=t -t 12 -c:v libx264 -preset ultrafast -crf 40'.split(
          ' ',
        ),
        source,
      ]);
      const failed = await starling(dataDir, ['media', 'import', source]);
      expect(failed.exitCode).toBe(1);
      expect(failed.stderr).toMatch(/disk of .* is full|cannot be written/);
      expect(readdirSync(media).filter((entry) => entry.startsWith('tmp-'))).toEqual([]);
      expect((await fetch(`${network.site}/readyz`)).status).toBe(200);
    } finally {
      await network.stop();
      if (isMounted) execFileSync('umount', [media]);
    }
  });
});

/** A disk of 4 MiB, as root. */
function spawnMount(path: string): boolean {
  if (process.getuid?.() !== 0 || !existsSync('/bin/mount')) return false;
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', path], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** The channels without what changes by the minute: the programme now and next. */
async function channelsKept(dataDir: string): Promise<unknown[]> {
  const { items } = JSON.parse((await starling(dataDir, ['channel', 'ls', '--json'])).stdout) as {
    items: Record<string, unknown>[];
  };
  return items.map((channel) => ({ ...channel, now: undefined, next: undefined, isOnAir: undefined }));
}

/** How far back viewers can go. */
async function extentOf(site: string): Promise<{ from: string; to: string }> {
  return (await (await fetch(`${site}/live/demo/dvr.json`)).json()) as { from: string; to: string };
}

async function newestSegment(site: string): Promise<number> {
  const media = await (await fetch(`${site}/live/demo/main/index.m3u8`)).text();
  return Number([...media.matchAll(/^(\d+)\.m4s$/gm)].at(-1)?.[1]);
}

const lastLine = (text: string) => text.trim().split('\n').at(-1) ?? '';
