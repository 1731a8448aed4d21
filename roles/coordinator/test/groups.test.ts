/** Hosts of a group: their nodes join without an invitation, and are gone when their hosts are. */
import { CoordinatorClient } from '@starling/model/client';
import type { NodeRole } from '@starling/model/node';
import { type NodeIdentity, NodeProver, newNodeIdentity } from '@starling/model/node-identity';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { joinNode, type Lab, nodeReport, nodeToken, operatorToken, startLab } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab({ isOfGroup: true });
}, 60_000);
afterAll(() => lab.close());

const anyone = (at: Lab) => new CoordinatorClient({ baseUrl: at.url });
const codeOf = (answer: Promise<unknown>): Promise<unknown> =>
  answer.then(
    () => 'done',
    (error: { code?: unknown }) => error.code,
  );

async function joinWith(
  token: string,
  role: NodeRole,
  { at = lab, known }: { at?: Lab; known?: NodeIdentity } = {},
) {
  const identity = known ?? (await newNodeIdentity());
  const prover = new NodeProver(identity, () => at.nowMs);
  const { nodeId, publicKey } = identity;
  const proof = await prover.proofFor('join');
  const node = await anyone(at).nodes.join({ token, role, nodeId, name: `${role}-app`, publicKey, proof });
  const client = new CoordinatorClient({ baseUrl: at.url, token: () => prover.proofFor('coordinator') });
  return { node, client, identity };
}
const names = async () => (await lab.operator.nodes.list()).map(({ name }) => name);

describe('a node of a group', () => {
  it('joins with the token of the group, under a name of its own', async () => {
    const first = await joinWith(nodeToken, 'backend');
    const second = await joinWith(nodeToken, 'backend');
    expect([first.node, second.node]).toMatchObject([
      { name: 'backend-app', role: 'backend', state: 'joined', isOfGroup: true },
      { name: 'backend-app-2', isOfGroup: true },
    ]);
    // An answer that got lost: the same node asks again, and no other takes its place.
    const again = await joinWith(nodeToken, 'backend', { known: first.identity });
    expect(again.node.id).toBe(first.node.id);
    const { publicKey, privateKey } = await newNodeIdentity();
    const other = { nodeId: first.identity.nodeId, publicKey, privateKey };
    expect(await codeOf(joinWith(nodeToken, 'backend', { known: other }))).toBe('NODE_EXISTS');
    expect(await codeOf(joinWith(operatorToken, 'backend'))).toBe('INVITATION_REFUSED');
    expect(lab.log.join('')).not.toContain(nodeToken);
  });

  it('needs an invitation where the coordinator is of no group', async () => {
    const alone = await startLab();
    expect(await codeOf(joinWith(nodeToken, 'backend', { at: alone }))).toBe('INVITATION_REFUSED');
    await alone.close();
  });

  it('that leaves is drained, and removed when nothing is left; a restart is none of that', async () => {
    const { node, client } = await joinWith(nodeToken, 'frontend');
    const stateOf = async () => (await lab.operator.nodes.get(node.name)).state;
    await client.reportNode(nodeReport({ isIdle: true }));
    await client.reportNode(nodeReport({ isIdle: true, bootId: 'fedcba9876543210' }));
    expect(await stateOf()).toBe('joined');
    await client.reportNode(nodeReport({ isLeaving: true, isIdle: true }));
    expect(await stateOf()).toBe('draining');
    await client.reportNode(nodeReport({ isLeaving: true, isIdle: false }));
    expect(await stateOf()).toBe('draining');
    await client.reportNode(nodeReport({ isLeaving: true, isIdle: true }));
    expect(await codeOf(client.reportNode(nodeReport()))).toBe('NODE_REMOVED');
    expect(await names()).not.toContain(node.name);
  });

  it('that was invited does not leave by itself', async () => {
    const { node, client } = await joinNode(lab, 'frontend', 'invited');
    await client.reportNode(nodeReport({ isLeaving: true, isIdle: true }));
    expect(await lab.operator.nodes.get(node.name)).toMatchObject({ state: 'joined', isOfGroup: false });
  });

  it('is removed when it has been lost for an hour, and joins again under a new key', async () => {
    const lost = await joinWith(nodeToken, 'frontend');
    const kept = await joinWith(nodeToken, 'frontend');
    lab.nowMs += 3_599_000;
    await kept.client.reportNode(nodeReport());
    await joinWith(nodeToken, 'backend');
    expect(await names()).toContain(lost.node.name);
    lab.nowMs += 2000;
    await joinWith(nodeToken, 'backend');
    const left = await names();
    expect(left).toContain(kept.node.name);
    expect(left).toContain('invited');
    expect(left).not.toContain(lost.node.name);
    expect(await codeOf(lost.client.reportNode(nodeReport()))).toBe('NODE_REMOVED');
    expect((await joinWith(nodeToken, 'frontend')).node.isOfGroup).toBe(true);
  });
});
