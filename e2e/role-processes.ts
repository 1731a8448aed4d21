/** Roles in processes of their own, from configuration files. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { program } from './network.ts';

/** A port that nobody has, soon to be somebody's; with `inARow`, the first of several. */
export async function freePort(inARow = 1): Promise<number> {
  for (;;) {
    const first = await tryPort(0);
    const next = Array.from({ length: inARow - 1 }, (_, index) => tryPort((first ?? 0) + 1 + index));
    if (first !== undefined && (await Promise.all(next)).every((port) => port !== undefined)) return first;
  }
}

/** @returns undefined when somebody has the port */
async function tryPort(port: number): Promise<number | undefined> {
  const server = createServer();
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  } catch {
    return undefined;
  }
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : undefined;
}

export interface RoleProcess {
  readonly process: ChildProcess;
  /** What it said when it had started. */
  readonly says: string;
}

/** Starts a role; resolves when it says that it runs. */
export async function startRole(
  role: string,
  configPath: string,
  ...flags: readonly string[]
): Promise<RoleProcess> {
  const child = spawn(process.execPath, [program, role, '--config', configPath, ...flags], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [says] = await Promise.race([
    once(child.stdout, 'data') as Promise<[Buffer]>,
    once(child, 'exit').then(([code]) => {
      throw new Error(`starling ${role} ended with ${code}`);
    }),
  ]);
  return { process: child, says: String(says) };
}
