/** The report of the engine's bench as text. */
import type { EngineReport, Measurement } from './engine.ts';

/** What is compared, with whose figure ours is divided by. */
const COMPARISONS = [
  { ours: 'http-flv', theirs: 'http-flv', server: 'baseline' },
  { ours: 'rtmp', theirs: 'rtmp', server: 'baseline' },
  { ours: 'hls segments', theirs: 'hls segments', server: 'baseline' },
  { ours: 'll-hls parts', theirs: 'll-hls parts', server: 'baseline' },
  { ours: 'll-hls reloads', theirs: 'll-hls reloads', server: 'baseline' },
  { ours: 'http-flv', theirs: 'rtmp', server: 'nginx-rtmp' },
  { ours: 'http-flv', theirs: 'http-flv', server: 'node-media-server' },
  { ours: 'rtmp', theirs: 'rtmp', server: 'nginx-rtmp' },
  { ours: 'rtmp', theirs: 'rtmp', server: 'node-media-server' },
  { ours: 'hls segments', theirs: 'hls segments', server: 'nginx' },
  { ours: 'll-hls parts', theirs: 'll-hls parts', server: 'nginx' },
] as const;

export interface Ratio {
  /** For instance `http-flv / rtmp of nginx-rtmp`. */
  readonly what: string;
  readonly viewers: number;
  /** Of CPU seconds per gigabyte; the median of the rounds, in each of which both were measured. */
  readonly median: number;
  readonly rounds: readonly number[];
}

/** CPU per gigabyte of ours divided by theirs, round by round. */
export function ratiosOf({ measurements }: EngineReport): Ratio[] {
  const viewerCounts = [...new Set(measurements.map(({ viewers }) => viewers))];
  return COMPARISONS.flatMap(({ ours, theirs, server }) =>
    viewerCounts.flatMap((viewers) => {
      const rounds = measurements
        .filter((one) => one.server === 'starling' && one.subject === ours && one.viewers === viewers)
        .flatMap((our) => {
          const their = measurements.find(
            (one) =>
              one.server === server &&
              one.subject === theirs &&
              one.viewers === viewers &&
              one.round === our.round,
          );
          return their === undefined ? [] : [our.cpuSecondsPerGigabyte / their.cpuSecondsPerGigabyte];
        });
      if (rounds.length === 0) return [];
      return [{ what: `${ours} / ${theirs} of ${server}`, viewers, median: median(rounds), rounds }];
    }),
  );
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] ?? Number.NaN) + (sorted[sorted.length >> 1] ?? Number.NaN)) / 2;
}

const COLUMNS: readonly (readonly [heading: string, cell: (one: Measurement) => string])[] = [
  ['subject', ({ subject }) => subject],
  ['server', ({ server }) => server],
  ['viewers', ({ viewers }) => String(viewers)],
  ['round', ({ round }) => String(round)],
  ['GB', ({ gigabytes }) => gigabytes.toFixed(2)],
  ['delivered', ({ deliveredShare }) => percent(deliveredShare)],
  ['CPU s/GB', ({ cpuSecondsPerGigabyte }) => cpuSecondsPerGigabyte.toFixed(3)],
  ['RSS MB', ({ rssMegabytes }) => rssMegabytes.toFixed(0)],
  ['requests/s', ({ requestsPerSecond }) => figure(requestsPerSecond || Number.NaN)],
  ['per CPU s', ({ requestsPerCpuSecond }) => figure(requestsPerCpuSecond || Number.NaN)],
  ['gap p99', ({ report }) => figure(report.gaps.p99Ms)],
  ['join p50', ({ report }) => figure(report.joins.p50Ms)],
  ['join p99', ({ report }) => figure(report.joins.p99Ms)],
  ['delay p50', ({ report }) => figure(report.delays.p50Ms)],
  ['delay p99', ({ report }) => figure(report.delays.p99Ms)],
  ['answer p50', ({ report }) => figure(report.answers.p50Ms)],
  ['answer p99', ({ report }) => figure(report.answers.p99Ms)],
  ['lost', ({ report, viewers }) => String(report.errors + Math.max(0, viewers - report.openCount))],
  ['viewers CPU', ({ crowdCpuShare }) => percent(crowdCpuShare)],
  ['other CPU', ({ otherCpuShare }) => percent(otherCpuShare)],
];

function figure(value: number): string {
  if (Number.isNaN(value)) return '';
  return value.toFixed(value < 10 ? 1 : 0);
}

function percent(share: number | undefined): string {
  return share === undefined ? '' : `${(100 * share).toFixed(0)} %`;
}

/** Conditions, measurements and ratios; times are in milliseconds. */
export function tableOf(report: EngineReport): string {
  const { conditions, versions, measurements } = report;
  const rows = [
    COLUMNS.map(([heading]) => heading),
    ...measurements.map((one) => COLUMNS.map(([, cell]) => cell(one))),
  ];
  const used = COLUMNS.map((_, column) => rows.slice(1).some((row) => row[column] !== ''));
  const lines = rows.map((row) =>
    row
      .flatMap((cell, column) => {
        const width = Math.max(...rows.map((other) => other[column]?.length ?? 0));
        return used[column] ? [column < 2 ? cell.padEnd(width) : cell.padStart(width)] : [];
      })
      .join('  '),
  );
  const ratios = ratiosOf(report).map(
    ({ what, viewers, median: middle, rounds }) =>
      `${what}, ${viewers} viewers: ${middle.toFixed(2)}` +
      (rounds.length > 1 ? ` (${rounds.map((ratio) => ratio.toFixed(2)).join(', ')})` : ''),
  );
  return [
    `${conditions.cores} cores of ${conditions.cpu}, Linux ${conditions.kernel}; load average before: ` +
      `${conditions.loadAverageBefore.map((load) => load.toFixed(2)).join(', ')}`,
    Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', '),
    `stream of ${conditions.bitrateBps / 1e6} Mb/s; times in milliseconds; CPU shares of one core`,
    '',
    ...lines,
    '',
    'CPU seconds per gigabyte, ours divided by theirs in the same round:',
    ...ratios,
    '',
  ].join('\n');
}
