/** The fuzzer's bounded run, and the state of `fixtures/`. */
import { readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixtureFiles, readCorpus, readManifest, sha256 } from './fuzz/corpus.ts';
import { fuzz, judge, minimise } from './fuzz/fuzzer.ts';
import { mutate } from './fuzz/mutate.ts';
import { Random } from './fuzz/random.ts';
import type { Target } from './fuzz/target.ts';
import { targets } from './fuzz/targets.ts';

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', 'fixtures');
const SEED = 20_261_122;
/** About a second for each target on one slow core, less for the small parsers. */
const RUNS = 2500;
const MAX_CORPUS_BYTES = 500_000;

describe.each(targets)('fuzzing: $name', (target) => {
  beforeAll(async () => target.prepare?.());
  afterAll(async () => target.close?.());
  const corpus = readCorpus(fixtures, target.name);

  it('has a corpus', () => {
    expect(corpus.length).toBeGreaterThanOrEqual(3);
  });

  it('withstands what was found before', () => {
    const failures = corpus
      .map(({ path, bytes }) => ({ path, result: judge(target, bytes) }))
      .filter(({ result }) => result instanceof Error)
      .map(({ path, result }) => `${path}: ${result}`);
    expect(failures).toEqual([]);
  });

  it(`withstands ${RUNS} new inputs`, { timeout: 60_000 }, async () => {
    const { crashes, runs } = await fuzz(target, {
      seed: SEED,
      corpus: corpus.slice(0, 40).map(({ bytes }) => bytes),
      maxRuns: RUNS,
      maxMs: Number.POSITIVE_INFINITY,
    });
    expect(crashes.map(({ error, input }) => `${error} on ${Buffer.from(input).toString('hex')}`)).toEqual(
      [],
    );
    expect(runs).toBeGreaterThanOrEqual(RUNS);
  });
});

describe('the fuzzer itself', () => {
  /** Breaks in each way that the oracles know. */
  const fragile: Target = {
    name: 'fragile',
    maxInputBytes: 64,
    generate: (random) => random.bytes(random.between(1, 8)),
    run(input) {
      const [first = 0] = input;
      if (first === 1) throw new RangeError('out of bounds');
      return first % 2 === 0 ? 'even' : 'odd';
    },
  };
  const options = { seed: 1, corpus: [], maxRuns: 20_000, maxMs: Number.POSITIVE_INFINITY };

  it('finds what breaks, names each kind once, and makes it small', async () => {
    const { crashes } = await fuzz(fragile, options);
    expect(crashes.map(({ error, input }) => [error.message, ...input])).toEqual([['out of bounds', 1]]);
  });

  it('keeps one input of each signature', async () => {
    const { finds } = await fuzz(fragile, options);
    expect(finds.map((input) => (input[0] ?? 0) % 2).sort()).toEqual([0, 1]);
  });

  it('does the same again from the same seed, and something else from another', async () => {
    const inputsOf = async (seed: number) => {
      const seen: string[] = [];
      await fuzz(fragile, { ...options, seed, maxRuns: 200, onRun: (input) => seen.push(String(input)) });
      return seen;
    };
    expect(await inputsOf(7)).toEqual(await inputsOf(7));
    expect(await inputsOf(7)).not.toEqual(await inputsOf(8));
  });

  it('takes a run that is slow three times in a row for a failure', { timeout: 120_000 }, () => {
    const slow: Target = {
      ...fragile,
      run() {
        const start = process.cpuUsage();
        const usedMicros = () => process.cpuUsage(start).user + process.cpuUsage(start).system;
        while (usedMicros() < 1_050_000) for (let round = 0; round < 1e6; round++);
        return '';
      },
    };
    expect(judge(slow, new Uint8Array(1))).toMatchObject({ message: expect.stringContaining('took') });
  });

  it('takes memory out of proportion for a failure', () => {
    const kept: Uint8Array[] = [];
    const greedy: Target = {
      ...fragile,
      run() {
        kept.push(new Uint8Array(8 * 2 ** 20));
        return '';
      },
    };
    expect(judge(greedy, new Uint8Array(1))).toMatchObject({ message: expect.stringContaining('memory') });
  });

  it('never makes an input longer than a target takes, but for the rare one of many repetitions', () => {
    const random = new Random(3);
    const input = random.bytes(60);
    let longCount = 0;
    for (let i = 0; i < 5000; i++) if (mutate(random, input, input, 64).length > 64) longCount++;
    expect(longCount).toBeLessThan(50);
  });

  it('minimises to what is needed', () => {
    const input = Uint8Array.from({ length: 100 }, (_, i) => i);
    expect([...minimise(input, (bytes) => bytes.includes(42) && bytes.includes(77))]).toEqual([42, 77]);
  });
});

describe('fixtures', () => {
  const files = fixtureFiles(fixtures);
  const manifest = readManifest(fixtures);

  it('are all in the manifest, with their hashes', () => {
    const actual = files.map((path) => `${path} ${sha256(readFileSync(join(fixtures, path)))}`);
    expect(manifest.map((entry) => `${entry.path} ${entry.sha256}`)).toEqual(actual);
  });

  it('say where they come from and under which licence', () => {
    expect(manifest.filter(({ origin, licence }) => origin === '' || licence === '')).toEqual([]);
  });

  it('hold no input that still breaks something', () => {
    expect(files.filter((path) => path.startsWith('crashes/'))).toEqual([]);
  });

  it('stay small', () => {
    const corpus = files.filter((path) => path.startsWith('corpus/'));
    const sizeBytes = corpus.reduce((sum, path) => sum + statSync(join(fixtures, path)).size, 0);
    expect(sizeBytes).toBeLessThan(MAX_CORPUS_BYTES);
  });
});
