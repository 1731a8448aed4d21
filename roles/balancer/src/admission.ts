/**
 * Which frontends get viewers, and how many, from what the health checks find. Pure: time comes in.
 *
 * | check             | of a frontend that is out                       | of one that is in                          |
 * | ----------------- | ----------------------------------------------- | ------------------------------------------ |
 * | `ready`           | in after two in a row, later if it flaps; its share grows in steps | stays                   |
 * | `unready` (503)   | stays out                                       | out after four in a row: a channel that has just started makes all frontends unready for a moment |
 * | `refused`         | stays out                                       | out at once: nobody listens there          |
 * | `silent`          | stays out                                       | out at once, unless half of those that answer would go |
 *
 * When nobody is in, all that still answer get viewers: something may beat nothing.
 */
import { FULL_WEIGHT } from './nginx-config.ts';

export type CheckResult = 'ready' | 'unready' | 'refused' | 'silent';

interface Member {
  isIn: boolean;
  /** When it came in last; shares grow from then on. */
  inSinceMs: number;
  /** Others were there to carry the load while it warms up. */
  hasSlowStart: boolean;
  last: CheckResult | undefined;
  /** Checks in a row with the last result. */
  runLength: number;
  readySinceMs: number;
  /** When it was taken out, those times that still count. */
  ejectedAtMs: number[];
}

const READY_CHECKS = 2;
const UNREADY_CHECKS = 4;
/** From the start of each step on: a cold cache and a cold process warm up. */
const SLOW_START: readonly (readonly [afterMs: number, weight: number])[] = [
  [0, 1],
  [2500, 3],
  [5000, 6],
  [7500, FULL_WEIGHT],
];
/** Frontends that come in together start together: none of them is warm. */
const SETTLED_MS = 2000;
/** Ejections in this time make the way back longer: 1 s, 2 s, 4 s, up to the last value. */
const FLAP_MEMORY_MS = 600_000;
const MAX_HOLD_MS = 30_000;

export class Admission {
  readonly #members = new Map<string, Member>();

  /** Those who are not named are forgotten. */
  setMembers(ids: readonly string[]): void {
    for (const id of this.#members.keys()) if (!ids.includes(id)) this.#members.delete(id);
    for (const id of ids) {
      if (this.#members.has(id)) continue;
      this.#members.set(id, {
        ...{ isIn: false, inSinceMs: 0, hasSlowStart: false, last: undefined, runLength: 0 },
        ...{ readySinceMs: 0, ejectedAtMs: [] },
      });
    }
  }

  /**
   * Takes the result of a check.
   * @returns what became of it, when it came in or went out
   */
  observe(id: string, result: CheckResult, nowMs: number): 'admitted' | 'ejected' | undefined {
    const member = this.#members.get(id);
    if (member === undefined) return undefined;
    const isFirst = member.last === undefined;
    member.runLength = member.last === result ? member.runLength + 1 : 1;
    if (result === 'ready' && member.last !== 'ready') member.readySinceMs = nowMs;
    member.last = result;
    if (member.isIn) {
      if (!this.#isToGo(member)) return undefined;
      member.isIn = false;
      member.ejectedAtMs = [...member.ejectedAtMs, nowMs].filter((atMs) => nowMs - atMs < FLAP_MEMORY_MS);
      return 'ejected';
    }
    if (result !== 'ready') return undefined;
    const others = [...this.#members.values()].filter((other) => other !== member && other.isIn);
    if (others.length > 0 && !isFirst) {
      if (member.runLength < READY_CHECKS) return undefined;
      if (nowMs - member.readySinceMs < holdMs(member.ejectedAtMs.length)) return undefined;
    }
    member.isIn = true;
    member.inSinceMs = nowMs;
    member.hasSlowStart = others.some(
      (other) => nowMs - other.inSinceMs >= SETTLED_MS && weightOf(other, nowMs) === FULL_WEIGHT,
    );
    return 'admitted';
  }

  /** The share of each; 0 for who gets none. */
  weights(nowMs: number): ReadonlyMap<string, number> {
    const members = [...this.#members];
    if (members.some(([, { isIn }]) => isIn)) {
      return new Map(members.map(([id, member]) => [id, member.isIn ? weightOf(member, nowMs) : 0]));
    }
    const isDead = ({ last }: Member) => last === 'refused' || last === undefined;
    return new Map(members.map(([id, member]) => [id, isDead(member) ? 0 : FULL_WEIGHT]));
  }

  /** Frontends that are in. */
  get admittedCount(): number {
    return [...this.#members.values()].filter(({ isIn }) => isIn).length;
  }

  #isToGo(member: Member): boolean {
    switch (member.last) {
      case 'refused':
        return true;
      case 'unready':
        return member.runLength >= UNREADY_CHECKS;
      case 'silent': {
        const answering = [...this.#members.values()].filter(({ last }) => last !== 'refused').length;
        return this.admittedCount - 1 >= answering / 2;
      }
      default:
        return false;
    }
  }
}

function weightOf({ inSinceMs, hasSlowStart }: Member, nowMs: number): number {
  if (!hasSlowStart) return FULL_WEIGHT;
  return SLOW_START.findLast(([afterMs]) => nowMs - inSinceMs >= afterMs)?.[1] ?? FULL_WEIGHT;
}

function holdMs(ejections: number): number {
  return ejections <= 1 ? 0 : Math.min(MAX_HOLD_MS, 1000 * 2 ** (ejections - 2));
}
