/** Roles in processes of their own, from configuration files. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { program } from './network.ts';

export interface RoleProcess {
  readonly process: ChildProcess;
  /** What it said when it had started. */
  readonly says: string;
}

/** Starts a role; resolves when it says that it runs. */
export async function startRole(
  role: string,
  configPath: string,
  flags: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<RoleProcess> {
  const child = spawn(process.execPath, [program, role, '--config', configPath, ...flags], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, ...env },
  });
  const [says] = await Promise.race([
    once(child.stdout, 'data') as Promise<[Buffer]>,
    once(child, 'exit').then(([code]) => {
      throw new Error(`starling ${role} ended with ${code}`);
    }),
  ]);
  return { process: child, says: String(says) };
}
