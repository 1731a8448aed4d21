/**
 * What the processes of the network last said of themselves. In memory: it is true for seconds only, and after a restart the
 * next reports bring it back.
 */
import { NodeHealth } from '@starling/model/node-health';
import { Check } from 'typebox/value';
import type { Peers } from './peers.ts';

const MAX_NODES = 1000;
/** A node that was lost for so long is not looked for any more. */
const FORGET_AFTER_MS = 7 * 24 * 3600 * 1000;

/** A node, and when it was last heard of. */
export interface NodeSighting {
  readonly node: string;
  readonly lastSeenAtMs: number;
}

export class NodeHealths {
  readonly #peers: Peers;
  readonly #now: () => number;
  readonly #last = new Map<string, { readonly health: NodeHealth; readonly atMs: number }>();
  readonly #listeners: ((health: NodeHealth, before: NodeHealth | undefined) => void)[] = [];

  constructor(peers: Peers, now: () => number) {
    this.#peers = peers;
    this.#now = now;
    peers.onMessage('node-health', (message) => {
      if (Check(NodeHealth, message)) this.#take(message);
    });
  }

  report(health: NodeHealth): void {
    const before = this.#last.get(health.node)?.health;
    this.#take(health);
    this.#peers.send('node-health', health);
    for (const listener of this.#listeners) listener(health, before);
  }

  /** Calls `listener` with each report that comes to this coordinator, and the one before it. */
  onReport(listener: (health: NodeHealth, before: NodeHealth | undefined) => void): void {
    this.#listeners.push(listener);
  }

  /** Of the nodes that have not said that they end. */
  sightings(): NodeSighting[] {
    const nowMs = this.#now();
    for (const [node, { atMs }] of this.#last) {
      if (nowMs - atMs > FORGET_AFTER_MS) this.#last.delete(node);
    }
    return [...this.#last].map(([node, { atMs }]) => ({ node, lastSeenAtMs: atMs }));
  }

  /** What they last said. */
  all(): NodeHealth[] {
    return [...this.#last.values()].map(({ health }) => health);
  }

  #take(health: NodeHealth): void {
    this.#last.delete(health.node);
    if (health.isLeaving) return;
    this.#last.set(health.node, { health, atMs: this.#now() });
    const [oldest] = this.#last.keys();
    if (this.#last.size > MAX_NODES && oldest !== undefined) this.#last.delete(oldest);
  }
}
