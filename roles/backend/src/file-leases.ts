/**
 * Leases in a folder that the backends of one machine share, for those that have no coordinator to ask.
 *
 *   <dir>/<lease>/<fencing token>    holds the holder's id; its time of change is that of the last renewal
 *
 * A lease is taken by making the file of the next token, which only one process can do.
 */
import { mkdir, open, readdir, readFile, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { LeaseGrant, LeaseWish } from '@starling/model/lease';
import { systemErrorCode } from './error.ts';
import type { LeaseAuthority } from './leases.ts';

/** With the renewals in between, another backend has the lease within 3 s of its holder's death. */
const TTL_MS = 2500;
/** When two wanted the same token. */
const CONTENTION_RETRY_MS = 20;

interface Holder {
  readonly fencingToken: number;
  readonly nodeId: string;
  readonly renewedAtUnixMs: number;
}

export class FileLeases implements LeaseAuthority {
  readonly #dir: string;
  readonly #nodeId: string;
  readonly #names = new Set<string>();

  constructor(dir: string, nodeId: string) {
    this.#dir = dir;
    this.#nodeId = nodeId;
  }

  /** @throws the system's error when the folder cannot be used */
  async renew(wishes: readonly LeaseWish[]): Promise<LeaseGrant[]> {
    const names = new Set(wishes.map(({ name }) => name));
    for (const name of this.#names) if (!names.has(name)) await this.#release(name);
    const grants: LeaseGrant[] = [];
    for (const wish of wishes) {
      this.#names.add(wish.name);
      grants.push(await this.#renewOne(wish));
    }
    return grants;
  }

  async releaseAll(): Promise<void> {
    for (const name of this.#names) await this.#release(name);
  }

  async #renewOne({ name, maxHolders }: LeaseWish): Promise<LeaseGrant> {
    const holders = await this.#holders(name);
    const now = Date.now();
    const live = holders.filter(isLive(now));
    const own = live.find(({ nodeId }) => nodeId === this.#nodeId);
    const before = live.filter(({ fencingToken }) => own === undefined || fencingToken < own.fencingToken);
    if (before.length >= maxHolders) {
      if (own !== undefined) await this.#drop(name, own.fencingToken);
      return refused(name, Math.min(...before.map(({ renewedAtUnixMs }) => renewedAtUnixMs + TTL_MS - now)));
    }
    if (own !== undefined) {
      await utimes(this.#path(name, own.fencingToken), now / 1000, now / 1000);
      return { name, fencingToken: own.fencingToken, isFirst: before.length === 0, retryInMs: 0 };
    }
    return this.#takeNext(name, maxHolders, holders);
  }

  async #takeNext(name: string, maxHolders: number, holders: readonly Holder[]): Promise<LeaseGrant> {
    const fencingToken = 1 + Math.max(0, ...holders.map((holder) => holder.fencingToken));
    try {
      const file = await open(this.#path(name, fencingToken), 'wx', 0o600);
      await file.writeFile(this.#nodeId).finally(() => file.close());
    } catch (error) {
      if (systemErrorCode(error) === 'EEXIST') return refused(name, CONTENTION_RETRY_MS);
      throw error;
    }
    // Another may have taken a lower token at the same time.
    const before = (await this.#holders(name))
      .filter(isLive(Date.now()))
      .filter((holder) => holder.fencingToken < fencingToken);
    if (before.length >= maxHolders) {
      await this.#drop(name, fencingToken);
      return refused(name, CONTENTION_RETRY_MS);
    }
    // The newest file stays whatever becomes of its holder, so that tokens never go back.
    const dead = holders.filter((holder) => !before.some((one) => one.fencingToken === holder.fencingToken));
    for (const holder of dead) await rm(this.#path(name, holder.fencingToken), { force: true });
    return { name, fencingToken, isFirst: before.length === 0, retryInMs: 0 };
  }

  /** All whose file is there, dead ones too. */
  async #holders(name: string): Promise<Holder[]> {
    const folder = this.#folder(name);
    await mkdir(folder, { recursive: true });
    const holders: Holder[] = [];
    for (const file of await readdir(folder)) {
      const fencingToken = Number(file);
      if (!Number.isSafeInteger(fencingToken)) continue;
      const path = this.#path(name, fencingToken);
      try {
        const [nodeId, { mtimeMs }] = [await readFile(path, 'utf8'), await stat(path)];
        holders.push({ fencingToken, nodeId, renewedAtUnixMs: mtimeMs });
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT') throw error; // else given up meanwhile
      }
    }
    return holders;
  }

  async #release(name: string): Promise<void> {
    this.#names.delete(name);
    for (const { fencingToken, nodeId } of await this.#holders(name)) {
      if (nodeId === this.#nodeId) await this.#drop(name, fencingToken);
    }
  }

  /** As if it had run out long ago. */
  async #drop(name: string, fencingToken: number): Promise<void> {
    await utimes(this.#path(name, fencingToken), 0, 0);
  }

  #folder(name: string): string {
    return join(this.#dir, name.replaceAll('/', '-'));
  }

  #path(name: string, fencingToken: number): string {
    return join(this.#folder(name), String(fencingToken));
  }
}

const isLive = (nowUnixMs: number) => (holder: Holder) => holder.renewedAtUnixMs > nowUnixMs - TTL_MS;

function refused(name: string, retryInMs: number): LeaseGrant {
  return { name, fencingToken: null, isFirst: false, retryInMs: Math.max(0, Math.ceil(retryInMs)) };
}
