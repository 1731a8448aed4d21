/** A whole fleet with one command: processes that join by invitation, are kept going, and end together; channels on demand. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Node } from '@starling/model/node';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { program, run, starling, until } from './network.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'starling-fleet-up-'));
let fleet: ChildProcess;
let said = '';
/** Of a line such as `frontend-1  HTTP 8091, pushes 1986  process 123`. */
const told = (name: string, what: string) =>
  Number(new RegExp(`^ *${name} .*\\b${what} (\\d+)`, 'm').exec(said)?.[1]);
const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
const names = ['coordinator', 'backend-1', 'frontend-1', 'frontend-2', 'frontend-3', 'balancer'];

async function nodes(): Promise<Node[]> {
  const { stdout } = await starling(dataDir, ['node', 'ls', '--json']);
  return (JSON.parse(stdout) as { items: Node[] }).items;
}

beforeAll(async () => {
  cpSync(join(inject('shared').dataDir, 'media'), join(dataDir, 'media'), { recursive: true });
  fleet = spawn(
    process.execPath,
    [
      ...[
        program,
        'up',
        '--data',
        dataDir,
        '--host',
        '127.0.0.1',
        '--http',
        '0',
        '--rtmp',
        '0',
        '--https',
        '0',
      ],
      ...['--frontends', '3', '--backends', '1', '--balancer', '--distribution', 'on-demand'],
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  fleet.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  await until('the fleet', 100_000, () => {
    if (fleet.exitCode !== null) throw new Error(`starling up ended with ${fleet.exitCode}: ${said}`);
    return said.includes('on the air') ? true : undefined;
  });
}, 120_000);
afterAll(async () => {
  if (fleet.exitCode === null && fleet.signalCode === null) {
    fleet.kill('SIGTERM');
    await once(fleet, 'exit');
  }
  rmSync(dataDir, { recursive: true, force: true });
}, 20_000);

it('says a line for each process, and all are nodes that are ready', async () => {
  expect(names.map((name) => isAlive(told(name, 'process')))).toEqual(names.map(() => true));
  const known = await until('the nodes', 30_000, async () => {
    const all = await nodes();
    return all.length === 5 && all.every(({ health }) => health === 'ready') ? all : undefined;
  });
  expect(known.map(({ name }) => name).sort()).toEqual(names.filter((name) => name !== 'coordinator').sort());
});

it('pushes a channel to two frontends, and the third has it when somebody watches, with the same bytes', async () => {
  const frontends = await until('two origins', 30_000, async () => {
    const all = (await nodes()).filter(({ role }) => role === 'frontend');
    return all.filter(({ load }) => load?.channelCount === 1).length === 2 ? all : undefined;
  });
  const get = async (node: Node | undefined, path: string) => {
    const { host, httpPort } = node?.addresses ?? {};
    const response = await fetch(`http://${host}:${httpPort}/live/demo/${path}`);
    expect(response.status, path).toBe(200);
    return Buffer.from(await response.arrayBuffer());
  };
  const [origin] = frontends.filter(({ load }) => load?.channelCount === 1);
  const [other] = frontends.filter(({ load }) => load?.channelCount === 0);
  const listed = String(await get(other, 'main/index.m3u8')).match(/^\d+\.m4s$/gm) ?? [];
  expect(listed.length).toBeGreaterThan(1);
  for (const file of listed.slice(-2)) {
    const [mine, theirs] = await Promise.all([get(other, `main/${file}`), get(origin, `main/${file}`)]);
    expect(mine.equals(theirs), file).toBe(true);
  }
  const url = `https://localhost:${told('balancer', 'HTTPS')}/live/demo/main/index.m3u8`;
  for (let count = 0; count < 6; count++) expect((await run('curl', ['-skf', url])).exitCode).toBe(0);
});

it('starts a process again that was killed', async () => {
  const bootId = async () => (await nodes()).find(({ name }) => name === 'frontend-1')?.bootId;
  const before = await bootId();
  process.kill(told('frontend-1', 'process'), 'SIGKILL');
  await until('another one', 60_000, async () => {
    const now = await bootId();
    return now !== before && now !== null ? true : undefined;
  });
});

it('ends them all with the command, also when that is killed', async () => {
  const pids = names.map((name) => told(name, 'process'));
  fleet.kill('SIGKILL');
  await once(fleet, 'exit');
  await until('the end of all', 20_000, () => (pids.some(isAlive) ? undefined : true));
});
