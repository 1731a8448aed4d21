import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CoordinatorClient } from '@starling/model/client';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addReadyAsset, nodeToken, operatorToken, startLab } from './support.ts';

const here = dirname(fileURLToPath(import.meta.url));

describe('a restart', () => {
  it('keeps everything, and the revision goes on', async () => {
    const before = await startLab();
    const id = await addReadyAsset(before, 'film', 10);
    await before.operator.assets.create({ source: '/videos/queued.mp4' });
    await before.operator.channels.create({ name: 'films', title: 'Films', loop: [id, id] });
    await before.operator.streams.create({ name: 'cam' });
    const read = async ({ operator }: typeof before) => ({
      assets: await operator.assets.list(),
      channels: await operator.channels.list(),
      streams: await operator.streams.list(),
      revision: (await operator.status()).revision,
    });
    const kept = await read(before);
    expect(kept.revision).toBe(5);
    const after = await before.restart();
    expect(await read(after)).toEqual(kept);
    await after.close();
  }, 60_000);
});

describe('kill -9', () => {
  const buildDir = join(here, '../../../node_modules/.cache', `starling-durability-${process.pid}`);
  const dataDir = mkdtempSync(join(tmpdir(), 'starling-durability-'));
  const program = join(buildDir, 'coordinator-process.js');

  beforeAll(async () => {
    mkdirSync(buildDir, { recursive: true });
    await build({
      entryPoints: [join(here, 'coordinator-process.ts')],
      outdir: buildDir,
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
      plugins: [
        {
          name: 'npm-packages-outside',
          setup(esbuild) {
            esbuild.onResolve({ filter: /^[^./]/ }, ({ path, kind }) =>
              kind === 'entry-point' || path.startsWith('@starling/') ? undefined : { path, external: true },
            );
          },
        },
      ],
    });
    copyFileSync(join(here, '../src/database-worker.mjs'), join(buildDir, 'database-worker.mjs'));
  });
  afterAll(() => {
    rmSync(buildDir, { recursive: true, force: true });
    rmSync(dataDir, { recursive: true, force: true });
  });

  async function startProcess(): Promise<{ child: ChildProcess; operator: CoordinatorClient }> {
    const child = spawn(process.execPath, [program, dataDir, operatorToken, nodeToken], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [port] = await once(child.stdout, 'data');
    const baseUrl = `http://127.0.0.1:${String(port).trim()}`;
    return { child, operator: new CoordinatorClient({ baseUrl, token: operatorToken }) };
  }

  it('loses nothing that was acknowledged, at whatever moment it comes', async () => {
    const acknowledged = new Set<string>();
    const removed = new Set<string>();
    for (const killAfterWrites of [12, 29, 20]) {
      const { child, operator } = await startProcess();
      const exited = once(child, 'exit');
      let isKilled = false;
      let writeCount = 0;
      /** Other writes are on their way then, at whatever point each is. */
      const countWrite = () => {
        if (++writeCount !== killAfterWrites) return;
        isKilled = true;
        child.kill('SIGKILL');
      };
      const write = async (writer: number) => {
        for (let count = 0; count < 100 && !isKilled; count++) {
          const name = `w${writer}-${killAfterWrites}-${count}`;
          try {
            await operator.streams.create({ name });
            acknowledged.add(name);
            countWrite();
            if (count % 5 === 0) {
              // Not known any more until the answer is there.
              acknowledged.delete(name);
              await operator.streams.remove(name);
              removed.add(name);
            }
          } catch (error) {
            if (!isKilled) throw error;
          }
        }
      };
      await Promise.all([write(1), write(2), write(3)]);
      expect(isKilled).toBe(true);
      await exited;
    }
    expect(acknowledged.size).toBeGreaterThan(30);

    const { child, operator } = await startProcess();
    const names = new Set((await operator.streams.list()).map(({ name }) => name));
    const channels = new Set((await operator.channels.list()).map(({ name }) => name));
    child.kill('SIGKILL');
    expect([...acknowledged].filter((name) => !names.has(name))).toEqual([]);
    expect([...removed].filter((name) => names.has(name))).toEqual([]);
    // A stream and its channel are one change.
    expect(channels).toEqual(names);
  }, 90_000);

  it('during the creation of the database does no harm', async () => {
    const freshDir = join(dataDir, 'fresh');
    const child = spawn(process.execPath, [program, freshDir, operatorToken, nodeToken], { stdio: 'ignore' });
    await new Promise((wake) => setTimeout(wake, 900));
    child.kill('SIGKILL');
    await once(child, 'exit');
    const lab = await startLab({ dataDir: freshDir });
    expect(await lab.operator.channels.list()).toEqual([]);
    await lab.close();
  }, 60_000);
});
