/**
 * `npm run fuzz`: feeds our parsers with damaged and invented input and raises what is not a coded error:
 * another exception, a hang, memory out of proportion, a round trip or an invariant that does not hold.
 *
 *   npm run fuzz [-- --seconds 60 --target NAME --seed S]
 *   npm run fuzz -- --input FILE --target NAME     runs one file and prints what happens
 *   npm run fuzz -- --plant                        writes the seed corpus (needs FFmpeg)
 *   npm run fuzz -- --distil                       removes what the rest of the corpus does as well
 *
 * The seconds are shared by the targets. Inputs that do something new go to `fixtures/corpus/`, those
 * that break something to `fixtures/crashes/`, both into `fixtures/MANIFEST.md`. A worker does the work;
 * the main thread watches it and takes down the input of one that hangs or runs out of memory.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { addFixtures, readCorpus, readManifest, removeFixtures } from './fuzz/corpus.ts';
import { Coverage } from './fuzz/coverage.ts';
import { fuzz, judge } from './fuzz/fuzzer.ts';
import { flvTags, readFlvTags } from './fuzz/grammar.ts';
import { Random } from './fuzz/random.ts';
import type { Target } from './fuzz/target.ts';
import { targets } from './fuzz/targets.ts';

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', 'fixtures');
const HANG_MS = 20_000;
const MAX_HEAP_MB = 1024;
/** The worker's input lies here, behind its length and the number of the run. */
const MAX_WATCHED_BYTES = 1024 * 1024;
/** Larger finds are not worth their place in the repository. */
const MAX_FIND_BYTES = 8 * 1024;
const SEEDS_PER_TARGET = 6;
/** How the origin of a find begins in the manifest. */
const FIND_ORIGIN = 'found by npm run fuzz, seed';
/** How the origin of an input begins that once broke something; what broke is behind it. */
const MENDED_ORIGIN = 'found by npm run fuzz:';
/** For each target, inputs kept for their signature alone. */
const MAX_SIGNATURE_INPUTS = 12;
const MAX_SIGNATURE_BYTES = 4096;

interface Job {
  readonly target: string;
  readonly seed: number;
  readonly maxMs: number;
  readonly watched: SharedArrayBuffer;
}

if (isMainThread) await main();
else await work(workerData);

async function main(): Promise<void> {
  const { values: flags } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      target: { type: 'string', multiple: true },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      input: { type: 'string' },
      plant: { type: 'boolean', default: false },
      distil: { type: 'boolean', default: false },
    },
  });
  const chosen = flags.target === undefined ? targets : flags.target.map(findTarget);
  const [first] = chosen;
  if (flags.plant) return plant(chosen);
  if (flags.distil) return distil(chosen);
  if (flags.input !== undefined && first !== undefined) {
    await first.prepare?.();
    const result = judge(first, Uint8Array.from(readFileSync(flags.input)));
    console.log(result instanceof Error ? result.stack : result);
    await first.close?.();
    return;
  }
  const seed = Number(flags.seed);
  console.log(`seed ${seed}`);
  const maxMs = (Number(flags.seconds) * 1000) / chosen.length;
  for (const { name } of chosen) {
    const job = { target: name, seed, maxMs, watched: new SharedArrayBuffer(8 + MAX_WATCHED_BYTES) };
    if (!(await watch(job))) process.exitCode = 1;
  }
}

function findTarget(name: string): Target {
  const target = targets.find((one) => one.name === name);
  if (target !== undefined) return target;
  throw new Error(`no target ${name}; there are ${targets.map((one) => one.name).join(', ')}`);
}

/** Runs a job in a worker. @returns false when something broke */
function watch(job: Job): Promise<boolean> {
  return new Promise((resolve) => {
    const header = new Int32Array(job.watched, 0, 2);
    const worker = new Worker(new URL(import.meta.url), {
      workerData: job,
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
    });
    let lastRun = -1;
    let sinceMs = performance.now();
    let isGood = false;
    const saveWatched = (what: string) => {
      const input = new Uint8Array(job.watched, 8, header[1]).slice();
      const [path] = addFixtures(fixtures, join('crashes', job.target), [input], `${what}; seed ${job.seed}`);
      console.log(`${job.target}: ${what}: fixtures/${path}`);
    };
    const clock = setInterval(() => {
      const run = Atomics.load(header, 0);
      if (run !== lastRun || run === 0) {
        lastRun = run;
        sinceMs = performance.now();
      } else if (performance.now() - sinceMs > HANG_MS) {
        saveWatched(`no answer within ${HANG_MS / 1000} s`);
        void worker.terminate();
      }
    }, 500);
    worker.on('message', (good: boolean) => {
      isGood = good;
    });
    worker.on('error', (error) => saveWatched(error.message));
    worker.on('exit', () => {
      clearInterval(clock);
      resolve(isGood);
    });
  });
}

/** In the worker. */
async function work(job: Job): Promise<void> {
  const target = findTarget(job.target);
  const header = new Int32Array(job.watched, 0, 2);
  const watchedInput = new Uint8Array(job.watched, 8);
  await target.prepare?.();
  const coverage = new Coverage((url) => url === import.meta.url);
  const report = await fuzz(target, {
    seed: job.seed,
    corpus: readCorpus(fixtures, target.name).map(({ bytes }) => bytes),
    maxRuns: Number.POSITIVE_INFINITY,
    maxMs: job.maxMs,
    coverage,
    onRun(input) {
      const watched = input.subarray(0, MAX_WATCHED_BYTES);
      watchedInput.set(watched);
      header[1] = watched.length;
      Atomics.add(header, 0, 1);
    },
  });
  Atomics.store(header, 0, 0); // nothing to watch any more
  coverage.close();
  await target.close?.();
  const finds = report.finds.filter((input) => input.length <= MAX_FIND_BYTES);
  addFixtures(fixtures, join('corpus', target.name), finds, `${FIND_ORIGIN} ${job.seed}`);
  const perSecond = Math.round(report.runs / (report.elapsedMs / 1000));
  console.log(
    `${target.name.padEnd(14)} ${String(report.runs).padStart(9)} runs ${String(perSecond).padStart(7)}/s ${String(finds.length).padStart(4)} finds ${report.crashes.length} crashes`,
  );
  for (const { input, error } of report.crashes) {
    const origin = `${error.message}; seed ${job.seed}`;
    const [path] = addFixtures(fixtures, join('crashes', target.name), [input], origin);
    console.log(`  fixtures/${path}: ${error.stack?.split('\n').slice(0, 6).join('\n  ')}`);
  }
  parentPort?.postMessage(report.crashes.length === 0);
  process.exit();
}

/** Writes inputs of our own making, and FFmpeg's where a target takes a file of its. */
function plant(chosen: readonly Target[]): void {
  for (const target of chosen) {
    const random = new Random(1, target.name);
    const inputs = Array.from({ length: SEEDS_PER_TARGET }, () => target.generate(random));
    const small = inputs.filter((input) => input.length <= MAX_FIND_BYTES);
    const origin = 'made by our own muxers, tools/fuzz/grammar.ts';
    addFixtures(fixtures, join('corpus', target.name), small, origin);
  }
  const source =
    '-f lavfi -i testsrc2=size=64x36:rate=25:duration=0.2 -f lavfi -i sine=sample_rate=44100:duration=0.2';
  const codecs =
    '-c:v libx264 -preset ultrafast -threads 1 -g 3 -bf 1 -c:a aac -b:a 32k -map_metadata -1 -fflags +bitexact';
  const ffmpeg = (format: string) =>
    Uint8Array.from(execFileSync('ffmpeg', ['-v', 'error', ...`${source} ${codecs} ${format} -`.split(' ')]));
  const add = (name: string, input: Uint8Array) =>
    addFixtures(fixtures, join('corpus', name), [input], 'made by FFmpeg from its own test sources');
  const flv = ffmpeg('-f flv');
  add('flv-reader', flv);
  const tags = flvTags(readFlvTags(flv.subarray(13)).map(({ timed }) => ({ ...timed, elapsedMs: 40 })));
  for (const name of ['flv-demuxer', 'ingest']) add(name, tags);
  const mp4 = ffmpeg(
    '-video_track_timescale 90000 -movflags +frag_keyframe+empty_moov+default_base_moof -f mp4',
  );
  const moofAt = Buffer.from(mp4).indexOf('moof') - 4;
  add('mp4-boxes', mp4);
  add('mp4-init', mp4.subarray(0, moofAt));
  add('mp4-fragment', mp4.subarray(moofAt));
}

/**
 * Keeps what reaches code that nothing smaller reaches, and of new signatures as many as there is room
 * for. What once broke something stays.
 */
async function distil(chosen: readonly Target[]): Promise<void> {
  const origins = new Map(readManifest(fixtures).map(({ path, origin }) => [path, origin]));
  const stays = ({ path }: { path: string }) => origins.get(path)?.startsWith(MENDED_ORIGIN) === true;
  for (const target of chosen) {
    await target.prepare?.();
    const coverage = new Coverage((url) => url === import.meta.url);
    const signatures = new Set<string>();
    const superfluous: string[] = [];
    let signatureInputs = 0;
    const corpus = readCorpus(fixtures, target.name);
    coverage.reset();
    for (const entry of [...corpus.filter(stays), ...corpus.filter((one) => !stays(one))]) {
      const result = String(judge(target, entry.bytes));
      const reachesNewCode = coverage.takeNew(true);
      const isNewSignature = !signatures.has(result);
      signatures.add(result);
      if (reachesNewCode || stays(entry)) continue;
      const hasRoom = signatureInputs < MAX_SIGNATURE_INPUTS && entry.bytes.length < MAX_SIGNATURE_BYTES;
      if (isNewSignature && hasRoom) signatureInputs++;
      else superfluous.push(entry.path);
    }
    coverage.close();
    await target.close?.();
    removeFixtures(fixtures, superfluous);
    console.log(`${target.name}: ${corpus.length - superfluous.length} of ${corpus.length} inputs kept`);
  }
  process.exit();
}
