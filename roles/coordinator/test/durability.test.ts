import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ApiError, CoordinatorClient } from '@starling/model/client';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { addReadyAsset, createServerDatabase, nodeToken, operatorToken, startLab } from './support.ts';

const isSoak = process.env.STARLING_SOAK === '1';
const WRITES = isSoak ? 10_000 : 60;
const MAX_WRITES_PER_LIFE = isSoak ? 200 : 30;
/** Printed where it fails; `STARLING_SEED` runs it again. */
const SEED = Number(process.env.STARLING_SEED ?? Math.floor(Math.random() * 2 ** 31));

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
    // One for each, and one for the first account.
    expect(kept.revision).toBe(6);
    const after = await before.restart();
    expect(await read(after)).toEqual(kept);
    await after.close();
  }, 60_000);
});

/** What has been acknowledged, and what may have happened beside. Each writer writes one thing after another. */
class Model {
  /** By name: `unknown` while the answer to a change of it is not there. */
  readonly #streams = new Map<string, 'there' | 'gone' | 'unknown'>();
  /** By channel: the count that its title was last set to, for sure and perhaps. */
  readonly #titles = new Map<string, { sure: number; perhaps: number }>();
  #count = 0;

  async write(operator: CoordinatorClient, writer: number, choice: number): Promise<void> {
    const channel = `w${writer}`;
    const mine = [...this.#streams].filter(([name, state]) => state === 'there' && name.startsWith(channel));
    const oldest = mine[0]?.[0];
    const title = this.#titles.get(channel);
    if (title === undefined || (choice < 0.4 && mine.length < 30)) {
      const name = title === undefined ? channel : `${channel}-${this.#count++}`;
      this.#streams.set(name, 'unknown');
      const created = operator.streams.create({ name });
      if (title === undefined) {
        // It may be there from before the kill.
        await created.catch((error: unknown) => {
          if (!(error instanceof ApiError && error.code === 'CHANNEL_EXISTS')) throw error;
        });
        this.#streams.delete(name);
        this.#titles.set(channel, { sure: -1, perhaps: -1 });
        return;
      }
      await created;
      this.#streams.set(name, 'there');
    } else if (choice < 0.6 && oldest !== undefined) {
      this.#streams.set(oldest, 'unknown');
      await operator.streams.remove(oldest);
      this.#streams.set(oldest, 'gone');
    } else {
      title.perhaps += 1;
      await operator.channels.update(channel, { title: `count ${title.perhaps}` });
      title.sure = title.perhaps;
    }
  }

  /** What the database does not have, or should not. */
  async findLost(operator: CoordinatorClient): Promise<string[]> {
    const streams = new Set((await patiently(() => operator.streams.list())).map(({ name }) => name));
    const channels = new Map(
      (await patiently(() => operator.channels.list())).map(({ name, title }) => [name, title]),
    );
    const lost: string[] = [];
    // A stream and its channel are one change.
    for (const name of streams) if (!channels.has(name)) lost.push(`the channel of ${name}`);
    for (const name of channels.keys()) if (!streams.has(name)) lost.push(`the stream of ${name}`);
    for (const [name, state] of this.#streams) {
      if (state === 'there' && !streams.has(name)) lost.push(name);
      if (state === 'gone' && streams.has(name)) lost.push(`the removal of ${name}`);
      if (state === 'unknown') this.#streams.set(name, streams.has(name) ? 'there' : 'gone');
    }
    for (const [name, title] of this.#titles) {
      const count = Number(channels.get(name)?.replace('count ', '') ?? Number.NaN);
      const isAsWritten = Number.isNaN(count)
        ? title.sure === -1
        : count >= title.sure && count <= title.perhaps;
      if (!isAsWritten) lost.push(`title ${title.sure} of ${name}, it is ${channels.get(name)}`);
      if (!Number.isNaN(count)) Object.assign(title, { sure: count, perhaps: count });
    }
    return lost;
  }
}

const isBusy = (error: unknown) => error instanceof ApiError && error.code === 'DATABASE_UNAVAILABLE';

/** Asks again while the database is too busy to say. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!isBusy(error)) throw error;
    }
  }
}

/** Mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

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

  async function startProcess(
    databaseUrl: string | undefined,
  ): Promise<{ child: ChildProcess; operator: CoordinatorClient }> {
    const { DATABASE_URL, ...env } = process.env;
    const child = spawn(process.execPath, [program, dataDir, operatorToken, nodeToken], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: databaseUrl === undefined ? env : { ...env, DATABASE_URL: databaseUrl },
    });
    const [port] = await once(child.stdout, 'data');
    const baseUrl = `http://127.0.0.1:${String(port).trim()}`;
    return { child, operator: new CoordinatorClient({ baseUrl, token: operatorToken }) };
  }

  it(
    `loses nothing that was acknowledged, at random moments during ${WRITES} writes`,
    async () => {
      const databaseUrl = await createServerDatabase();
      const random = randomFrom(SEED);
      const model = new Model();
      let running = await startProcess(databaseUrl);
      let writeCount = 0;
      let kills = 0;
      for (; writeCount < WRITES || kills < 2; kills++) {
        const { child, operator } = running;
        const exited = once(child, 'exit');
        let isKilled = false;
        const killAfterWrites = 5 + Math.floor(random() * MAX_WRITES_PER_LIFE);
        let writesOfLife = 0;
        /** Others are on their way at the moment of the kill, each at whatever point it is. */
        const write = async (writer: number) => {
          while (!isKilled) {
            try {
              await model.write(operator, writer, random());
              writeCount += 1;
              if (++writesOfLife < killAfterWrites) continue;
              // Not always when an answer has just come.
              await new Promise((wake) => setTimeout(wake, random() * 10));
              isKilled = true;
              child.kill('SIGKILL');
            } catch (error) {
              // What was refused was not acknowledged; whether it was done is not known.
              if (!isKilled && !isBusy(error)) throw error;
            }
          }
        };
        await Promise.all([write(0), write(1), write(2)]);
        await exited;
        running = await startProcess(databaseUrl);
        expect({ seed: SEED, kills, lost: await model.findLost(running.operator) }).toEqual({
          seed: SEED,
          kills,
          lost: [],
        });
      }
      running.child.kill('SIGKILL');
      if (isSoak) process.stdout.write(`${writeCount} writes acknowledged, ${kills} kills, nothing lost\n`);
    },
    120_000 + WRITES * 200,
  );

  it.runIf(inject('postgresUrl') === undefined)(
    'during the creation of the database does no harm',
    async () => {
      const freshDir = join(dataDir, 'fresh');
      const child = spawn(process.execPath, [program, freshDir, operatorToken, nodeToken], {
        stdio: 'ignore',
      });
      await new Promise((wake) => setTimeout(wake, 900));
      child.kill('SIGKILL');
      await once(child, 'exit');
      const lab = await startLab({ dataDir: freshDir });
      expect(await lab.operator.channels.list()).toEqual([]);
      await lab.close();
    },
    60_000,
  );
});
