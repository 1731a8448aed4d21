/** What the kernel knows of the processes that the tests start. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** The processes that a process has started and that live. */
export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((child) => {
      // The name, in brackets, may hold spaces; after it come the state and the parent (proc(5)).
      const [state, parent] =
        read(`/proc/${child}/stat`)
          ?.replace(/^.*\) /s, '')
          .split(' ') ?? [];
      return Number(parent) === pid && state !== 'Z';
    });
}

/** The frontend workers of `starling up`, which has other children too: encoders, imports. */
export function workersOf(mainPid: number): number[] {
  return childrenOf(mainPid).filter((pid) => read(`/proc/${pid}/cmdline`)?.includes('frontend-worker'));
}

export function isRunning(pid: number): boolean {
  const state = read(`/proc/${pid}/stat`)?.replace(/^.*\) /s, '')[0];
  return state !== undefined && state !== 'Z';
}

/** The other ends' ports of the TCP connections over IPv4 that a process has on a port of its own. */
export function peersOf(pid: number, localPort: number): Set<number> {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        return []; // closed meanwhile
      }
    }),
  );
  const peers = new Set<number>();
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, local = '', remote = '', , , , , , , inode = ''] = line.trim().split(/\s+/);
    const portIn = (address: string) => Number.parseInt(address.split(':')[1] ?? '', 16);
    if (inodes.has(inode) && portIn(local) === localPort && portIn(remote) > 0) peers.add(portIn(remote));
  }
  return peers;
}

export function residentMegabytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(read(`/proc/${pid}/status`) ?? '')?.[1]) / 1024;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // it has just ended
  }
}
