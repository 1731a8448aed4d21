/** The report of the engine's bench as text. */
import type { EngineReport, Measurement } from './engine.ts';

const STARLING = 'starling';

/** Whose CPU per gigabyte is divided by whose; a subject and a server each. */
const COMPARISONS = [
  [
    ['http-flv', STARLING],
    ['rtmp', 'nginx-rtmp'],
  ],
  [
    ['http-flv', STARLING],
    ['http-flv', 'node-media-server'],
  ],
  [
    ['rtmp', STARLING],
    ['rtmp', 'nginx-rtmp'],
  ],
  [
    ['rtmp', STARLING],
    ['rtmp', 'node-media-server'],
  ],
  [
    ['hls segments', STARLING],
    ['hls segments', 'nginx'],
  ],
  [
    ['ll-hls parts', STARLING],
    ['ll-hls parts', 'nginx'],
  ],
  ...['floor in C', 'floor in Node'].flatMap((floor) => [
    [
      ['http-flv', floor],
      ['rtmp', 'nginx-rtmp'],
    ] as const,
    [
      ['http-flv', floor],
      ['http-flv', STARLING],
    ] as const,
  ]),
  ...['http-flv', 'rtmp', 'hls segments', 'll-hls parts', 'll-hls reloads'].map(
    (subject) =>
      [
        [subject, STARLING],
        [subject, 'baseline'],
      ] as const,
  ),
] as const;

export interface Ratio {
  /** For instance `http-flv of starling / rtmp of nginx-rtmp`. */
  readonly what: string;
  readonly viewers: number;
  /** Of CPU seconds per gigabyte; the median of the rounds, in each of which both were measured. */
  readonly median: number;
  readonly rounds: readonly number[];
  /** No other program had much of the machine in any of them, and viewers got what was sent. */
  readonly isFirm: boolean;
}

/** Of one core. A busy machine stretches many small writes more than a few large ones. */
const MAX_OTHER_CPU_SHARE = 0.25;
/** Servers that fall behind write more at a time, which is cheaper. */
const MIN_DELIVERED_SHARE = 0.97;

const isFirm = ({ otherCpuShare, deliveredShare = 1 }: Measurement): boolean =>
  otherCpuShare <= MAX_OTHER_CPU_SHARE && deliveredShare >= MIN_DELIVERED_SHARE;

/** CPU per gigabyte of two servers that were measured in the same round, divided. */
export function ratiosOf({ measurements }: EngineReport): Ratio[] {
  const viewerCounts = [...new Set(measurements.map(({ viewers }) => viewers))];
  const find = ([subject, server]: readonly [string, string], viewers: number) =>
    measurements.filter((one) => one.subject === subject && one.server === server && one.viewers === viewers);
  return COMPARISONS.flatMap(([dividend, divisor]) =>
    viewerCounts.flatMap((viewers) => {
      const pairs = find(dividend, viewers).flatMap((our) => {
        const their = find(divisor, viewers).find(({ round }) => round === our.round);
        return their === undefined ? [] : [{ our, their }];
      });
      if (pairs.length === 0) return [];
      const what = `${dividend[0]} of ${dividend[1]} / ${divisor[0]} of ${divisor[1]}`;
      const rounds = pairs.map(({ our, their }) => our.cpuSecondsPerGigabyte / their.cpuSecondsPerGigabyte);
      const areFirm = pairs.every(({ our, their }) => isFirm(our) && isFirm(their));
      return [{ what, viewers, median: median(rounds), rounds, isFirm: areFirm }];
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
    ({ what, viewers, median: middle, rounds, isFirm: areFirm }) =>
      `${what}, ${viewers} viewers: ${middle.toFixed(2)}` +
      (rounds.length > 1 ? ` (${rounds.map((ratio) => ratio.toFixed(2)).join(', ')})` : '') +
      (areFirm
        ? ''
        : ', not firm: other programs had much of the machine, or viewers got less than was sent'),
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
    'CPU seconds per gigabyte, one divided by the other, measured in the same round:',
    ...ratios,
    '',
  ].join('\n');
}
