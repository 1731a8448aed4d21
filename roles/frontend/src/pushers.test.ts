import type { FrontendState } from '@starling/model/entities';
import { type Audience, NodeProver, newNodeIdentity } from '@starling/model/node-identity';
import { describe, expect, it, vi } from 'vitest';
import { Pushers } from './pushers.ts';

const OWN = '0123456789abcdef';
const stateOf = (...backends: NonNullable<FrontendState['backends']>): FrontendState => ({
  revision: 1,
  channels: [],
  viewingTokenKeys: [],
  revokedTokenIds: [],
  endedViewerIds: [],
  backends,
});
const peer = () => ({ address: '192.0.2.1', disconnect: vi.fn() });

describe('a push', () => {
  it.each<[string, Audience, number]>([
    ['to another frontend', 'push:fedcba9876543210', 0],
    ['to the coordinator', 'coordinator', 0],
    ['of three minutes ago', `push:${OWN}`, -180_000],
    ['of a clock that is three minutes ahead', `push:${OWN}`, 180_000],
  ])('is not taken with a proof %s', async (_, audience, offsetMs) => {
    const identity = await newNodeIdentity();
    const pushers = new Pushers(OWN);
    pushers.update(stateOf(identity));
    const proof = await new NodeProver(identity, () => Date.now() + offsetMs).proofFor(audience);
    expect(await pushers.nodeIdOf(proof)).toBeUndefined();
  });

  it('is taken from backends of the last state, and ends when they are not in it any more', async () => {
    const [first, second] = [await newNodeIdentity(), await newNodeIdentity()];
    const proofOf = (identity: typeof first) => new NodeProver(identity).proofFor(`push:${OWN}`);
    const pushers = new Pushers(OWN);
    expect(await pushers.nodeIdOf(await proofOf(first))).toBeUndefined();
    pushers.update(stateOf(first, second));
    expect(await pushers.nodeIdOf(await proofOf(first))).toBe(first.nodeId);
    const [stays, goes, hasEnded] = [peer(), peer(), peer()];
    pushers.add(first.nodeId, stays);
    pushers.add(second.nodeId, goes);
    pushers.add(second.nodeId, hasEnded)();
    pushers.update(stateOf(first));
    expect(goes.disconnect).toHaveBeenCalledOnce();
    for (const other of [stays, hasEnded]) expect(other.disconnect).not.toHaveBeenCalled();
    expect(await pushers.nodeIdOf(await proofOf(second))).toBeUndefined();
  });

  it('is not taken with anything else, nor by a frontend that is no node', async () => {
    const identity = await newNodeIdentity();
    const pushers = new Pushers(OWN);
    pushers.update(stateOf(identity));
    const proof = await new NodeProver(identity).proofFor(`push:${OWN}`);
    const [head = '', body = '', signature = ''] = proof.split('.');
    const unsigned = Buffer.from(JSON.stringify({ alg: 'none', typ: 'node+jwt' })).toString('base64url');
    const flipped = `${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
    for (const bad of [
      '',
      'x.y.z',
      `${unsigned}.${body}.`,
      `${unsigned}.${body}.x`,
      `${head}.${body}.${flipped}`,
      'x'.repeat(5000),
    ])
      expect(await pushers.nodeIdOf(bad), bad).toBeUndefined();
    const alone = new Pushers(undefined);
    alone.update(stateOf(identity));
    expect(await alone.nodeIdOf(await new NodeProver(identity).proofFor('push:undefined'))).toBeUndefined();
  });
});
