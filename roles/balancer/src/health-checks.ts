/** Asks every frontend for `/readyz`, and every backend for a connection, twice a second. */
import { lookup } from 'node:dns/promises';
import { get } from 'node:http';
import { connect, isIP } from 'node:net';
import type { CheckResult } from './admission.ts';

export const CHECK_INTERVAL_MS = 500;
/**
 * With the interval less than a second: who dies right after a check is out within one. A frontend answers in a
 * millisecond; one that takes so long serves nobody well.
 */
const CHECK_TIMEOUT_MS = 400;
const RESOLVE_EVERY_MS = 10_000;

export interface Target {
  readonly host: string;
  readonly port: number;
}

/** What one kind of target is asked. */
export type Probe = (address: string, port: number) => Promise<CheckResult>;

interface Checked {
  readonly target: Target;
  /** The last address that the name led to. */
  address: string | undefined;
  resolvedAtMs: number;
  isBeingChecked: boolean;
}

export class HealthChecks {
  readonly #probe: Probe;
  readonly #onResult: (id: string, result: CheckResult) => void;
  readonly #targets = new Map<string, Checked>();
  readonly #timer: NodeJS.Timeout;

  constructor(probe: Probe, onResult: (id: string, result: CheckResult) => void) {
    this.#probe = probe;
    this.#onResult = onResult;
    this.#timer = setInterval(() => void this.#checkAll(), CHECK_INTERVAL_MS);
  }

  /** Asks those that are new at once, before it resolves. */
  async setTargets(targets: ReadonlyMap<string, Target>): Promise<void> {
    for (const id of this.#targets.keys()) if (!targets.has(id)) this.#targets.delete(id);
    const added: string[] = [];
    for (const [id, target] of targets) {
      if (this.#targets.has(id)) continue;
      this.#targets.set(id, {
        ...{ target, resolvedAtMs: Number.NEGATIVE_INFINITY, isBeingChecked: false },
        address: isIP(target.host) === 0 ? undefined : target.host,
      });
      added.push(id);
    }
    await Promise.all(added.map((id) => this.#check(id)));
  }

  /** Where a target is; undefined while its name leads nowhere. */
  addressOf(id: string): string | undefined {
    return this.#targets.get(id)?.address;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#targets.clear();
  }

  async #checkAll(): Promise<void> {
    await Promise.all([...this.#targets.keys()].map((id) => this.#check(id)));
  }

  async #check(id: string): Promise<void> {
    const checked = this.#targets.get(id);
    if (checked === undefined || checked.isBeingChecked) return;
    checked.isBeingChecked = true;
    try {
      await this.#resolve(checked);
      const { address, target } = checked;
      const result = address === undefined ? 'refused' : await this.#probe(address, target.port);
      if (this.#targets.get(id) === checked) this.#onResult(id, result);
    } finally {
      checked.isBeingChecked = false;
    }
  }

  /** A name server that does not answer changes nothing. */
  async #resolve(checked: Checked): Promise<void> {
    const { host } = checked.target;
    if (isIP(host) !== 0 || performance.now() - checked.resolvedAtMs < RESOLVE_EVERY_MS) return;
    checked.resolvedAtMs = performance.now();
    const looking = lookup(host).then(
      ({ address }) => {
        checked.address = address;
      },
      () => {},
    );
    if (checked.address === undefined) await looking;
  }
}

/** A frontend's `/readyz`. */
export function askReadiness(address: string, port: number): Promise<CheckResult> {
  return new Promise((resolve) => {
    const request = get({ host: address, port, path: '/readyz', agent: false }, (response) => {
      response.resume();
      settle(response.statusCode === 200 ? 'ready' : 'unready');
    });
    const settle = withDeadline(resolve, () => request.destroy());
    request.on('error', () => settle('refused'));
  });
}

/** Whether a backend takes connections. */
export function askForConnection(address: string, port: number): Promise<CheckResult> {
  return new Promise((resolve) => {
    const socket = connect(port, address, () => settle('ready'));
    const settle = withDeadline(resolve, () => socket.destroy());
    socket.on('error', () => settle('refused'));
  });
}

/** The first answer counts, `silent` if there is none in time; `end` is called either way. */
function withDeadline(
  resolve: (result: CheckResult) => void,
  end: () => void,
): (result: CheckResult) => void {
  const settle = (result: CheckResult) => {
    clearTimeout(deadline);
    resolve(result);
    end();
  };
  // When this process itself was late, the answer may lie there unread: it is read first.
  const deadline = setTimeout(() => setImmediate(() => setImmediate(settle, 'silent')), CHECK_TIMEOUT_MS);
  return settle;
}
