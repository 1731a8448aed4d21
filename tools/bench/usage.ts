/** What processes and the machine use, as the kernel counts it in /proc. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
const pageBytes = Number(execFileSync('getconf', ['PAGESIZE'], { encoding: 'utf8' }));

export interface Usage {
  readonly cpuSeconds: number;
  readonly rssBytes: number;
}

/** Of a process and all below it. */
export function usageOf(pid: number): Usage {
  let ticks = 0;
  let pages = 0;
  for (const one of processTree(pid)) {
    const stat = readStat(one);
    ticks += Number(stat?.[11] ?? 0) + Number(stat?.[12] ?? 0);
    pages += Number(stat?.[21] ?? 0);
  }
  return { cpuSeconds: ticks / ticksPerSecond, rssBytes: pages * pageBytes };
}

/**
 * What the threads of one process that live have run: to the nanosecond, where {@link usageOf} counts hundredths of a
 * second (Documentation/scheduler/sched-stats.rst).
 */
export function runSecondsOf(pid: number): number {
  const nanos = readdirSync(`/proc/${pid}/task`).map((task) =>
    Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ', 1)[0]),
  );
  return nanos.reduce((sum, one) => sum + one, 0) / 1e9;
}

/** Of one process. `pssBytes` shares out the pages that it has in common with others (proc_pid_smaps(5)). */
export function memoryOf(pid: number): { readonly rssBytes: number; readonly pssBytes: number } {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const bytes = (name: string) => 1024 * Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(rollup)?.[1]);
  return { rssBytes: bytes('Rss'), pssBytes: bytes('Pss') };
}

/** CPU seconds that all cores together have been busy since the machine started. */
export function machineBusySeconds(): number {
  const line = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? '';
  const [user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0] = line.split(/ +/).slice(1).map(Number);
  return (user + nice + system + irq + softIrq) / ticksPerSecond;
}

function processTree(pid: number): number[] {
  const tree = [pid];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    if (Number(readStat(Number(entry))?.[1]) === pid) tree.push(...processTree(Number(entry)));
  }
  return tree;
}

/** Fields of /proc/PID/stat after the name: [0] state, [1] parent, [11] user ticks, [12] system ticks, [21] resident pages. */
function readStat(pid: number): string[] | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ');
  } catch {
    return undefined; // it has just ended
  }
}
