/**
 * `npm run bench [-- engine] [OPTIONS]`
 *
 *   npm run bench                       HTTP-FLV and RTMP play at 300 viewers, a minute and a half
 *   npm run bench -- engine             all protocols at 100, 300 and 800 viewers
 *     --viewers 100,300,800  --seconds 20  --rounds 1  --only http-flv,rtmp,hls,ll-hls,floor  --json
 *     --warm-up 60                       so many seconds of the stream before the first viewer
 *     --patience 60                      before each measurement wait so long for a quiet machine, in seconds
 *     --baseline OTHER/dist/starling.js   an older build, measured beside
 *   npm run bench -- playout            200 playout channels of one backend, beside FFmpeg processes
 *     --channels 200  --ffmpeg 20  --seconds 30  --json
 *   npm run bench -- api                reads a second from a coordinator on PostgreSQL, a minute and a half
 *     --connections 32  --seconds 10
 *   npm run bench -- fleet              how soon 200 nodes have heard of a change, a minute
 *     --nodes 200  --changes 40
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { benchApi, serveApiLoad } from './api.ts';
import { serveCrowd } from './crowd-process.ts';
import { benchEngine, SUBJECTS } from './engine.ts';
import { benchFleet } from './fleet.ts';
import { serveFloor } from './floor.ts';
import { benchPlayout, playoutTableOf } from './playout.ts';
import { serveSink } from './playout-sink.ts';
import { ratiosOf, tableOf } from './table.ts';

const program = fileURLToPath(import.meta.url);

async function main(): Promise<void> {
  const [noun] = process.argv.slice(2);
  if (noun === 'api-load') return serveApiLoad();
  if (noun === 'api') return benchApiReads(process.argv.slice(3));
  if (noun === 'fleet') return benchFleetWatch(process.argv.slice(3));
  if (noun === 'crowd') return serveCrowd();
  if (noun === 'floor') return serveFloor(process.argv.slice(3));
  if (noun === 'sink') return serveSink();
  if (noun === 'playout') return runPlayout(process.argv.slice(3));
  const isShort = noun !== 'engine';
  const { values } = parseArgs({
    args: process.argv.slice(isShort ? 2 : 3),
    options: {
      viewers: { type: 'string', default: isShort ? '300' : '100,300,800' },
      seconds: { type: 'string', default: isShort ? '10' : '20' },
      rounds: { type: 'string', default: '1' },
      'warm-up': { type: 'string', default: isShort ? '0' : '60' },
      patience: { type: 'string', default: '0' },
      only: { type: 'string', default: isShort ? 'http-flv,rtmp' : 'http-flv,rtmp,hls,ll-hls' },
      baseline: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const asked = values.only.split(',');
  const report = await benchEngine({
    benchProgram: program,
    starlingProgram: join(dirname(program), 'starling.js'),
    baselineProgram: values.baseline,
    viewerCounts: values.viewers.split(',').map(Number),
    measureSeconds: Number(values.seconds),
    rounds: Number(values.rounds),
    warmUpSeconds: Number(values['warm-up']),
    patienceSeconds: Number(values.patience),
    only: SUBJECTS.filter((subject) => asked.includes(subject)),
    progress: (text) => process.stderr.write(`${text}\n`),
  });
  process.stdout.write(
    values.json ? `${JSON.stringify({ ...report, ratios: ratiosOf(report) }, null, 2)}\n` : tableOf(report),
  );
}

async function runPlayout(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      channels: { type: 'string', default: '200' },
      ffmpeg: { type: 'string', default: '20' },
      seconds: { type: 'string', default: '30' },
      json: { type: 'boolean', default: false },
    },
  });
  const report = await benchPlayout({
    benchProgram: program,
    starlingProgram: join(dirname(program), 'starling.js'),
    channels: Number(values.channels),
    ffmpegProcesses: Number(values.ffmpeg),
    measureSeconds: Number(values.seconds),
    progress: (text) => process.stderr.write(`${text}\n`),
  });
  process.stdout.write(values.json ? `${JSON.stringify(report, null, 2)}\n` : playoutTableOf(report));
}

async function benchApiReads(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      connections: { type: 'string', default: '32' },
      seconds: { type: 'string', default: '10' },
    },
  });
  const table = await benchApi({
    benchProgram: program,
    starlingProgram: join(dirname(program), 'starling.js'),
    connections: Number(values.connections),
    seconds: Number(values.seconds),
    progress: (text) => process.stderr.write(`${text}\n`),
  });
  process.stdout.write(table);
}

async function benchFleetWatch(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      nodes: { type: 'string', default: '200' },
      changes: { type: 'string', default: '40' },
    },
  });
  const table = await benchFleet({
    starlingProgram: join(dirname(program), 'starling.js'),
    nodes: Number(values.nodes),
    changes: Number(values.changes),
    progress: (text) => process.stderr.write(`${text}\n`),
  });
  process.stdout.write(table);
}

await main();
