/**
 * The operator's keys: an SSH key pair for the bastion and another one for the other hosts, and the tokens that hosts
 * of classic-iptv share. They are made here and stay here: only public halves go into a plan, and Ansible brings
 * tokens to the hosts.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

export class KeysError extends Error {
  override readonly name = 'KeysError';
}

export const sshKeys = ['bastion', 'instances'] as const;
export type SshKey = (typeof sshKeys)[number];
const tokens = ['operator.token', 'node.token', 'publish.token'] as const;
const TOKEN_BYTES = 32;

export interface MadeKeys {
  /** Of the files that were made now; the others were there. */
  readonly made: readonly string[];
  /** One line each, for `keys` of deploy.yaml. */
  readonly publicKeys: Readonly<Record<SshKey, string>>;
}

/**
 * Makes what is missing: `bastion`, `instances` and their `.pub`, and `secrets/*.token`. The folder is 0700, what is
 * secret 0400.
 * @param rotate makes new SSH keys beside the old ones, which are `*.old` until {@link forgetOldKeys}
 * @throws KeysError when the folder is somebody else's or open to others, or ssh-keygen is missing or fails
 */
export async function makeKeys(folder: string, { rotate }: { rotate: boolean }): Promise<MadeKeys> {
  prepare(folder);
  prepare(join(folder, 'secrets'));
  const made: string[] = [];
  if (rotate && sshKeys.some((name) => existsSync(join(folder, `${name}.old`)))) {
    throw new KeysError(
      `${folder} holds old keys already. Run the playbook, so that the hosts know the new ones, and then starling infra keys --forget-old.`,
    );
  }
  for (const name of sshKeys) {
    const path = join(folder, name);
    if (existsSync(path) && !rotate) continue;
    // First made whole under another name: a key that is cut short would lock the operator out.
    const fresh = join(folder, `${name}.new`);
    for (const leftover of [fresh, `${fresh}.pub`]) rmSync(leftover, { force: true });
    await generate(fresh, name);
    chmodSync(fresh, 0o400);
    if (existsSync(path)) {
      renameSync(path, `${path}.old`);
      renameSync(`${path}.pub`, `${path}.old.pub`);
    }
    renameSync(`${fresh}.pub`, `${path}.pub`);
    renameSync(fresh, path);
    made.push(name, `${name}.pub`);
  }
  for (const name of tokens) {
    const path = join(folder, 'secrets', name);
    if (existsSync(path)) continue;
    writeFileSync(path, randomBytes(TOKEN_BYTES).toString('hex'), { mode: 0o400, flag: 'wx' });
    made.push(`secrets/${name}`);
  }
  return {
    made,
    publicKeys: { bastion: publicKey(folder, 'bastion'), instances: publicKey(folder, 'instances') },
  };
}

/** Removes the keys that a rotation left. */
export function forgetOldKeys(folder: string): string[] {
  const old = sshKeys
    .flatMap((name) => [`${name}.old`, `${name}.old.pub`])
    .filter((name) => existsSync(join(folder, name)));
  for (const name of old) rmSync(join(folder, name));
  return old;
}

/** The public half that is in the folder, or undefined. */
export function readPublicKeys(folder: string): Readonly<Record<SshKey, string>> | undefined {
  return sshKeys.every((name) => existsSync(join(folder, `${name}.pub`)))
    ? { bastion: publicKey(folder, 'bastion'), instances: publicKey(folder, 'instances') }
    : undefined;
}

function publicKey(folder: string, name: SshKey): string {
  return readFileSync(join(folder, `${name}.pub`), 'utf8').trim();
}

function prepare(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const stat = lstatSync(folder);
  if (!stat.isDirectory()) throw new KeysError(`${folder} is no folder of its own.`);
  if (process.getuid !== undefined && stat.uid !== process.getuid()) {
    throw new KeysError(`${folder} belongs to somebody else. Choose another folder with --out.`);
  }
  if ((stat.mode & 0o077) !== 0) {
    throw new KeysError(
      `${folder} is open to others (mode ${(stat.mode & 0o777).toString(8)}). Run chmod 700 ${folder}, or choose another folder with --out.`,
    );
  }
}

async function generate(path: string, name: SshKey): Promise<void> {
  try {
    await promisify(execFile)(
      'ssh-keygen',
      ['-q', '-t', 'ed25519', '-N', '', '-C', `starling-${name}`, '-f', path],
      {
        timeout: 30_000,
      },
    );
  } catch (error) {
    const { code, stderr } = error as NodeJS.ErrnoException & { stderr?: string };
    throw new KeysError(
      code === 'ENOENT'
        ? 'ssh-keygen is not installed. Install the OpenSSH client.'
        : `ssh-keygen failed: ${stderr?.trim() ?? code}`,
    );
  }
}
