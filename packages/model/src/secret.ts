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
  let kept = parse(typeof secret === 'string' ? secret : readFileSync(secret.file, 'utf8'));
  if (typeof secret !== 'string') {
    const { file } = secret;
    let version = versionOf(file);
    let lookedAtMs = performance.now();
    const look = (everyMs = LOOK_EVERY_MS) => {
      const nowMs = performance.now();
      if (nowMs - lookedAtMs < everyMs) return;
      lookedAtMs = nowMs;
      try {
        const newest = versionOf(file);
        if (newest === version) return;
        kept = parse(readFileSync(file, 'utf8'));
        version = newest;
      } catch {
        // It is being replaced, or its disk is away: the next look finds it.
      }
    };
    return {
      current() {
        look();
        return kept.current;
      },
      accepted() {
        look();
        return allOf(kept, nowUnixMs());
      },
      accepts(presented) {
        look();
        if (isAmong(kept, presented, nowUnixMs())) return true;
        look(LOOK_AGAIN_MS);
        return isAmong(kept, presented, nowUnixMs());
      },
    };
  }
  return {
    current: () => kept.current,
    accepted: () => allOf(kept, nowUnixMs()),
    accepts: (presented) => isAmong(kept, presented, nowUnixMs()),
  };
}

/** The secret to show of those in a file's text. */
export function currentSecret(fileText: string): string {
  return parse(fileText).current;
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
  const { current, older } = parse(fileText);
  const lines = [{ secret: current, untilUnixMs }, ...older]
    .filter((one) => one.secret !== '' && one.untilUnixMs > nowUnixMs)
    .map((one) => `${one.secret} until ${new Date(one.untilUnixMs).toISOString()}`);
  return `${[newSecret, ...lines].join('\n')}\n`;
}

interface Kept {
  readonly current: string;
  readonly older: readonly { readonly secret: string; readonly untilUnixMs: number }[];
  /** With when they end. */
  readonly digests: readonly { readonly digest: Buffer; readonly untilUnixMs: number }[];
}

function parse(fileText: string): Kept {
  const [first = '', ...rest] = fileText.trim().split('\n');
  const current = first.trim();
  const older = rest.flatMap((line) => {
    const [, secret = '', until = ''] = /^(\S+) until (\S+)\s*$/.exec(line) ?? [];
    const untilUnixMs = Date.parse(until);
    return Number.isNaN(untilUnixMs) ? [] : [{ secret, untilUnixMs }];
  });
  const all = [{ secret: current, untilUnixMs: Number.POSITIVE_INFINITY }, ...older];
  const digests = all
    .filter(({ secret }) => secret !== '') // an empty file lets nobody in
    .map(({ secret, untilUnixMs }) => ({ digest: sha256(secret), untilUnixMs }));
  return { current, older, digests };
}

function allOf({ current, older }: Kept, nowUnixMs: number): string[] {
  return [
    current,
    ...older.filter(({ untilUnixMs }) => untilUnixMs > nowUnixMs).map(({ secret }) => secret),
  ].filter((secret) => secret !== '');
}

/** Digests are of equal length, so that the comparison takes the same time for any text. */
function isAmong({ digests }: Kept, presented: string, nowUnixMs: number): boolean {
  const digest = sha256(presented);
  return (
    digests.filter((one) => timingSafeEqual(one.digest, digest) && one.untilUnixMs > nowUnixMs).length > 0
  );
}

function versionOf(file: string): string {
  const { ino, size, mtimeMs } = statSync(file);
  return `${ino} ${size} ${mtimeMs}`;
}
