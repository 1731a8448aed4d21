/** Secrets in files, which may be changed while the programs that use them run. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';

/** Itself, where it never changes, or the file that holds it: see {@link rotatedSecretFile} for its form. */
export type Secret = string | { readonly file: string };

export interface OpenSecret {
  /** What to show to others. */
  current(): string;
  /** Whether somebody has shown it, or an older one whose time is not over. Takes as long for a wrong one as for the right one. */
  accepts(presented: string): boolean;
  /** All that are accepted now, that to show first. */
  accepted(): string[];
}

/** How old what is known of a file may be: where it does, and where somebody shows what it does not hold. */
const LOOK_EVERY_MS = 1000;
const LOOK_AGAIN_MS = 100;

const sha256 = (text: string) => createHash('sha256').update(text).digest();

/**
 * A file is read again within a second of its change. While it cannot be read, what it held last counts.
 * @throws the system's error when the file cannot be read at first
 */
export function openSecret(secret: Secret, nowUnixMs: () => number = Date.now): OpenSecret {
  const isFixed = typeof secret === 'string';
  let version = isFixed ? '' : versionOf(secret.file);
  let kept = parse(isFixed ? secret : readFileSync(secret.file, 'utf8'));
  let lookedAtMs = performance.now();
  /** @returns whether it was read again */
  const look = (everyMs: number): boolean => {
    const nowMs = performance.now();
    if (isFixed || nowMs - lookedAtMs < everyMs) return false;
    lookedAtMs = nowMs;
    try {
      const newest = versionOf(secret.file);
      if (newest === version) return false;
      kept = parse(readFileSync(secret.file, 'utf8'));
      version = newest;
      return true;
    } catch {
      return false; // it is being replaced, or its disk is away: the next look finds it
    }
  };
  const accepted = () => kept.filter(({ untilUnixMs }) => untilUnixMs > nowUnixMs());
  return {
    current() {
      look(LOOK_EVERY_MS);
      return currentOf(kept);
    },
    accepted() {
      look(LOOK_EVERY_MS);
      return accepted().map((one) => one.secret);
    },
    accepts(presented) {
      look(LOOK_EVERY_MS);
      const digest = sha256(presented);
      // Digests are of equal length, so that the comparison takes the same time for any text.
      const isAmong = () => accepted().filter((one) => timingSafeEqual(one.digest, digest)).length > 0;
      return isAmong() || (look(LOOK_AGAIN_MS) && isAmong());
    },
  };
}

/** The secret to show of those in a file's text; empty where it holds none. */
export function currentSecret(fileText: string): string {
  return currentOf(parse(fileText));
}

/**
 * The text of a file with another secret. A file holds the secret to show in its first line, and in each further one an older secret
 * that is still taken: `SECRET until 2026-12-01T00:00:00.000Z`.
 * @param untilUnixMs how long the one that was current is taken
 */
export function rotatedSecretFile(
  fileText: string,
  newSecret: string,
  untilUnixMs: number,
  nowUnixMs: number,
): string {
  const lines = parse(fileText)
    .map((one) => (isCurrent(one) ? { ...one, untilUnixMs } : one))
    .filter((one) => one.untilUnixMs > nowUnixMs)
    .map((one) => `${one.secret} until ${new Date(one.untilUnixMs).toISOString()}`);
  return `${[newSecret, ...lines].join('\n')}\n`;
}

interface Kept {
  readonly secret: string;
  readonly digest: Buffer;
  /** Infinite for the one to show. */
  readonly untilUnixMs: number;
}

const isCurrent = ({ untilUnixMs }: Kept) => untilUnixMs === Number.POSITIVE_INFINITY;
const currentOf = (kept: readonly Kept[]) => kept.find(isCurrent)?.secret ?? '';

/** An empty file holds none, and so lets nobody in. */
function parse(fileText: string): Kept[] {
  const [first = '', ...rest] = fileText.trim().split('\n');
  const current = { secret: first.trim(), untilUnixMs: Number.POSITIVE_INFINITY };
  const older = rest.map((line) => {
    const [, secret = '', until = ''] = /^(\S+) until (\S+)\s*$/.exec(line) ?? [];
    return { secret, untilUnixMs: Date.parse(until) };
  });
  return [current, ...older]
    .filter(({ secret, untilUnixMs }) => secret !== '' && !Number.isNaN(untilUnixMs))
    .map((one) => ({ ...one, digest: sha256(one.secret) }));
}

function versionOf(file: string): string {
  const { ino, size, mtimeMs } = statSync(file);
  return `${ino} ${size} ${mtimeMs}`;
}
