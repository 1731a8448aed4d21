/** The main process's side, with workers that are a script: they say and do what a test wants. */

import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { WorkerPortError, Workers, type WorkersOptions } from '../src/workers.ts';

const folder = mkdtempSync(join(tmpdir(), 'starling-workers-'));
const logPath = join(folder, 'log');
let workers: Workers | undefined;
afterEach(async () => {
  await workers?.close();
  workers = undefined;
  rmSync(logPath, { force: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What the workers were told, and noted themselves, each with its process id. */
const told = (): { pid: number; order: { type: string; workerNumber?: number } }[] =>
  readFileSync(logPath, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const toldOf = (type: string) => told().filter(({ order }) => order.type === type);

/** @param answers what a worker does with an order, in JavaScript; `number` is its own */
async function start(answers: string, options: Partial<WorkersOptions> = {}): Promise<Workers> {
  const program = join(folder, 'worker.mjs');
  writeFileSync(
    program,
    `import { appendFileSync } from 'node:fs';
    let number = 0;
    const report = (message) => process.send(message);
    const gauge = { name: 'g', help: 'g', type: 'gauge', values: [{ value: NaN, labels: {} }] };
    const viewer = (id) => ({ id, channel: 'demo', protocol: 'hls' });
    const note = (order) =>
      appendFileSync(${JSON.stringify(logPath)}, JSON.stringify({ pid: process.pid, order }) + '\\n');
    process.on('message', (order) => {
      note(order);
      number = order.workerNumber ?? number;
      if (order.type === 'stop') process.exit();
      ${answers}
    });
    report({ type: 'listening' });`,
  );
  workers = new Workers({
    node: 'up@test:0',
    count: 2,
    program,
    frontend: { rtmpHost: '127.0.0.1', rtmpPort: 0, publishToken: 'secret' },
    http: { host: '127.0.0.1', port: 0 },
    logger: pino({ level: 'silent' }),
    handleRest: () => {},
    ownChannels: () => [],
    onRtmpPortsChange: () => {},
    ...options,
  });
  await workers.start();
  return workers;
}

/** Workers that do what they should. */
const GOOD = `
  if (order.type === 'start') report({ type: 'started', rtmpPort: 5000 + number });
  if (order.type === 'serve') {
    report({ type: 'serving' });
    report({ type: 'viewers', viewers: [viewer('everywhere'), viewer('on-' + number)] });
  }
  gauge.values[0].labels.process = 'worker-' + number;
  if (order.type === 'metrics') report({ type: 'metrics', metrics: [gauge] });
`;

describe('workers', () => {
  it('are started, report, and end', async () => {
    const onRtmpPortsChange = vi.fn();
    const workers = await start(GOOD, { onRtmpPortsChange });
    expect(workers.rtmpPorts).toEqual([5001, 5002]);
    expect(onRtmpPortsChange).toHaveBeenCalledTimes(2);
    expect(workers.isReady()).toBe(true);
    const metrics = () => workers.metrics(new Registry(), [{ id: 'own', channel: 'demo', protocol: 'rtmp' }]);
    await vi.waitFor(async () => {
      expect((await metrics()).split('\n').filter((line) => /^\w/.test(line))).toEqual([
        'g{process="worker-1"} Nan',
        'g{process="worker-2"} Nan',
        'starling_frontend_viewers{channel="demo",protocol="rtmp"} 1',
        'starling_frontend_viewers{channel="demo",protocol="hls"} 3',
      ]);
    });
    await workers.close();
    expect(toldOf('stop')).toHaveLength(2);
    expect(workers.rtmpPorts).toEqual([]);
  });

  it('take ports in a row when they are to have fixed ones', async () => {
    const workers = await start(GOOD.replace('5000 + number', 'order.frontend.rtmpPort'), {
      count: 3,
      frontend: { rtmpHost: '127.0.0.1', rtmpPort: 1936, publishToken: 'secret' },
    });
    expect(workers.rtmpPorts).toEqual([1936, 1937, 1938]);
  });

  it('that die are replaced, one after the other later each time', async () => {
    const retries: number[] = [];
    const logger = pino(
      { level: 'warn' },
      { write: (line: string) => void retries.push(JSON.parse(line).retryMs) },
    );
    const workers = await start(GOOD, { count: 1, logger });
    for (const deaths of [1, 2, 3]) {
      await vi.waitFor(() => expect(workers.isReady()).toBe(true), { timeout: 5000 });
      const before = workers.rtmpPorts;
      const [victim] = toldOf('serve').slice(-1);
      if (victim !== undefined) process.kill(victim.pid, 'SIGKILL');
      await vi.waitFor(() => expect(retries).toHaveLength(deaths));
      expect(workers.isReady()).toBe(false);
      expect(workers.rtmpPorts).toEqual([]);
      expect(before).toEqual([5001]);
    }
    // 100, 200 and 400 ms, each cut by up to a half.
    for (const [at, fullMs] of [100, 200, 400].entries()) {
      expect(retries[at]).toBeGreaterThanOrEqual(fullMs / 2);
      expect(retries[at]).toBeLessThanOrEqual(fullMs);
    }
  });

  it('serve once they have what others have, and are ready while all have it', async () => {
    const demo = (isPlayable: boolean) =>
      `report({ type: 'channels', channels: [{ name: 'demo', isPlayable: ${isPlayable} }] });`;
    const workers = await start(
      `${GOOD}
      if (order.type === 'start') setTimeout(() => { note({ type: 'filled' }); ${demo(true)} }, 200);
      if (order.type === 'metrics' && number === 2) ${demo(false)}`,
      { ownChannels: () => [{ name: 'demo', isPlayable: true }] },
    );
    for (const { pid } of toldOf('serve')) {
      // Whom it believes, it is told at any time.
      const ofWorker = told().filter((one) => one.pid === pid && one.order.type !== 'trust');
      expect(ofWorker.map(({ order }) => order.type)).toEqual(['start', 'filled', 'serve']);
    }
    expect(workers.isReady()).toBe(true);
    await workers.metrics(new Registry(), []);
    await vi.waitFor(() => expect(workers.isReady()).toBe(false));
  });

  it('that do not end are killed', async () => {
    const workers = await start(GOOD.concat(`process.exit = () => {};`), { count: 1 });
    await workers.close();
    expect(workers.isReady()).toBe(false);
  });
});

describe('workers that cannot start', () => {
  it('say which port is taken', async () => {
    const failing = start(
      `if (order.type === 'start') report({ type: 'failed', protocol: 'rtmp', port: 1937, code: 'EADDRINUSE', message: 'taken' });`,
    );
    await expect(failing).rejects.toThrow(WorkerPortError);
    await expect(failing).rejects.toMatchObject({ protocol: 'rtmp', port: 1937, code: 'EADDRINUSE' });
  });

  it('are given up after some deaths', async () => {
    await expect(start(`process.exit(3);`, { count: 1 })).rejects.toThrow('exit 3');
  });

  it('are not even tried when the HTTP port is taken', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await once(blocker, 'listening');
    const address = blocker.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    await expect(start(GOOD, { http: { host: '127.0.0.1', port } })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
    blocker.close();
  });
});
