/** Passwords: argon2id, a bounded number of them at a time. */
import { randomInt } from 'node:crypto';
import { hash, verify } from '@node-rs/argon2';
import { ApiProblem } from './problem.ts';

/** argon2id, the library's own choice. OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane; about 30 ms. */
const ARGON2 = { memoryCost: 19_456, timeCost: 2, parallelism: 1 };
/** Each takes a thread of Node's pool of four, which reads files too. */
const MAX_RUNNING = 2;
/** More are refused at once: a flood of logins may not take the service along. */
const MAX_WAITING = 32;

/** Without those that look like one another. */
const ALPHABET = 'abcdefghjkmnpqrstuvwxyz23456789';
const GROUPS = 5;
const GROUP_CHARS = 4;

/** Lets two through at a time, and turns away who would wait behind too many. */
export class Turnstile {
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** @throws ApiProblem TOO_MANY_LOGINS */
  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running < MAX_RUNNING) this.#running++;
    else if (this.#waiting.length < MAX_WAITING) await new Promise<void>((go) => this.#waiting.push(go));
    else {
      throw new ApiProblem('TOO_MANY_LOGINS', 'Try again in a few seconds.', { retryAfterSeconds: 5 });
    }
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}

export function hashPassword(password: string): Promise<string> {
  return hash(password.normalize('NFC'), ARGON2);
}

/** A hash that no password has, so that a name that is unknown takes as long as one that is not. */
let nobodysHash: Promise<string> | undefined;

/** @param passwordHash undefined where there is no such account */
export async function isPassword(password: string, passwordHash: string | undefined): Promise<boolean> {
  nobodysHash ??= hashPassword(newPassword());
  const isRight = await verify(passwordHash ?? (await nobodysHash), password.normalize('NFC'));
  return isRight && passwordHash !== undefined;
}

/** 99 bits, in a form that people can type. */
export function newPassword(): string {
  const group = () =>
    Array.from({ length: GROUP_CHARS }, () => ALPHABET[randomInt(ALPHABET.length)]).join('');
  return Array.from({ length: GROUPS }, group).join('-');
}
