import { describe, expect, it } from 'vitest';
import { rendezvousOrder } from './distribution.ts';

const nodes = Array.from({ length: 10 }, (_, number) => `node-${number}`);
const channels = Array.from({ length: 2000 }, (_, number) => `channel-${number}`);

describe('the origins of a channel', () => {
  it('are the same whatever the order in which the nodes are known', () => {
    for (const channel of channels.slice(0, 50)) {
      expect(rendezvousOrder(channel, nodes.toReversed())).toEqual(rendezvousOrder(channel, nodes));
    }
  });

  it('are spread evenly', () => {
    const counts = new Map(nodes.map((id) => [id, 0]));
    for (const channel of channels) {
      for (const id of rendezvousOrder(channel, nodes).slice(0, 2)) counts.set(id, (counts.get(id) ?? 0) + 1);
    }
    // 400 each; the standard deviation of a binomial distribution is 18.
    for (const count of counts.values()) expect(Math.abs(count - 400)).toBeLessThan(5 * 18);
  });

  it('move only where the node that left was one, and then by one place', () => {
    for (const channel of channels) {
      const before = rendezvousOrder(channel, nodes);
      expect(rendezvousOrder(channel, nodes.slice(1))).toEqual(before.filter((id) => id !== nodes[0]));
    }
  });
});
