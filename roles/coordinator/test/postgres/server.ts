/**
 * A PostgreSQL server of its own, from the system's packages, on a free port of loopback and in a temporary folder.
 * PostgreSQL does not run as root: the account `postgres` of Debian's package runs it then.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { freePort } from '../../../../tools/free-port.ts';

const PASSWORD = 'only-for-the-tests';

export interface PostgresServer {
  /** Of the database with the given name; the one that is always there when undefined. */
  readonly url: (database?: string) => string;
  /** Runs statements one by one on the database that is always there. */
  execute(...statements: string[]): Promise<void>;
  /** `fast` cuts all connections; `immediate` is a crash. */
  stop(mode?: 'fast' | 'immediate'): void;
  start(): void;
  /** Stops it as SIGSTOP does: connections stay open and nothing answers. */
  freeze(): void;
  thaw(): void;
  /** What it has logged. */
  log(): string;
  /** Stops it and removes its files. */
  remove(): void;
}

/** @param settings lines of `postgresql.conf` */
export async function startPostgres(settings: readonly string[] = []): Promise<PostgresServer> {
  const bin = findPrograms();
  const folder = mkdtempSync(join(tmpdir(), 'starling-postgres-'));
  const data = join(folder, 'data');
  const account = process.getuid?.() === 0 ? accountIds('postgres') : undefined;
  if (account !== undefined) chownSync(folder, account.uid, account.gid);
  const run = (program: string, args: readonly string[]) => {
    const { status, stderr, error } = spawnSync(join(bin, program), args, {
      cwd: folder,
      encoding: 'utf8',
      // Not a pipe for the server's own output, which would keep this call waiting for its end.
      stdio: ['ignore', 'ignore', program === 'pg_ctl' ? 'ignore' : 'pipe'],
      ...account,
    });
    if (status !== 0) throw new Error(`${program} failed: ${error?.message ?? stderr ?? `exit ${status}`}`);
  };
  const passwordFile = join(folder, 'password');
  writeFileSync(passwordFile, PASSWORD, { mode: 0o644 });
  run('initdb', [
    ...['-D', data, '-U', 'starling', '--auth=scram-sha-256', `--pwfile=${passwordFile}`],
    ...['--encoding=UTF8', '--locale=C.UTF-8', '--no-sync'],
  ]);
  const port = await freePort();
  const configuration = [`port = ${port}`, "listen_addresses = '127.0.0.1'", "unix_socket_directories = ''"];
  writeFileSync(join(data, 'postgresql.auto.conf'), [...configuration, ...settings, ''].join('\n'));
  const control = (...args: string[]) =>
    run('pg_ctl', ['-D', data, '-w', '-l', join(folder, 'log'), ...args]);
  const url = (database = 'postgres') => `postgres://starling:${PASSWORD}@127.0.0.1:${port}/${database}`;
  const signalAll = (signal: NodeJS.Signals) => {
    for (const pid of processesIn(data)) process.kill(pid, signal);
  };
  const server: PostgresServer = {
    url,
    async execute(...statements) {
      const client = new Client({ connectionString: url() });
      await client.connect();
      try {
        for (const statement of statements) await client.query(statement);
      } finally {
        await client.end();
      }
    },
    start: () => control('start'),
    stop: (mode = 'fast') => control('stop', '-m', mode),
    freeze: () => signalAll('SIGSTOP'),
    thaw: () => signalAll('SIGCONT'),
    log: () => readFileSync(join(folder, 'log'), 'utf8'),
    remove() {
      if (existsSync(join(data, 'postmaster.pid'))) control('stop', '-m', 'immediate');
      rmSync(folder, { recursive: true, force: true });
    },
  };
  server.start();
  return server;
}

/** Debian keeps the programs of each version apart and out of the PATH. */
function findPrograms(): string {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [
    ...versions.map((version) => join(root, version, 'bin')),
    ...(process.env.PATH ?? '').split(':'),
  ];
  const found = folders.find((folder) => existsSync(join(folder, 'initdb')));
  if (found === undefined) throw new Error('PostgreSQL is missing. On Debian: apt-get install postgresql');
  return found;
}

function accountIds(name: string): { uid: number; gid: number } {
  const id = (flag: string) => Number(execFileSync('id', [flag, name], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

/** The server and its children, by their working folder. */
function processesIn(folder: string): number[] {
  return readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    const result = spawnSync('readlink', [`/proc/${entry}/cwd`], { encoding: 'utf8' });
    return result.stdout.trim() === folder ? [Number(entry)] : [];
  });
}
