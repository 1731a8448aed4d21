/** The registry of nodes: invitations, joining, what nodes are told and what they may, removal. */
import { CoordinatorClient } from '@starling/model/client';
import type { Fleet } from '@starling/model/node';
import { NodeProver, newNodeIdentity } from '@starling/model/node-identity';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { joinNode, type Lab, nodeReport, nodeToken, startLab, writtenBytes } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
}, 60_000);
afterAll(() => lab.close());

/** What the API refuses something with. */
const codeOf = (answer: Promise<unknown>): Promise<unknown> =>
  answer.then(
    () => 'done',
    (error: { code?: unknown }) => error.code,
  );

/** Follows the fleet as a node; `fleets` grows. */
function follow(client: CoordinatorClient, revision?: number) {
  const fleets: Fleet[] = [];
  const stop = new AbortController();
  const retries: unknown[] = [];
  const ended = client.watchFleet(
    revision,
    (fleet) => fleets.push(fleet),
    stop.signal,
    (error) => retries.push(error),
  );
  return {
    fleets,
    retries,
    last: (name: string) => fleets.at(-1)?.nodes.find((node) => node.name === name),
    async stop() {
      stop.abort();
      await ended;
    },
  };
}

async function joinRequest(token: string, role: 'frontend' | 'backend' = 'frontend') {
  const identity = await newNodeIdentity();
  const proof = await new NodeProver(identity, () => lab.nowMs).proofFor('join');
  const { nodeId, publicKey } = identity;
  return { token, role, nodeId, name: 'fresh', publicKey, proof };
}
const anyone = () => new CoordinatorClient({ baseUrl: lab.url });

describe('an invitation', () => {
  it('lets in one node of its role, in its time, and is kept as a digest only', async () => {
    const { token, invitation } = await lab.operator.nodes.invite({
      ...{ role: 'frontend', name: 'edge-1', expiresInSeconds: 600 },
    });
    expect(token).toMatch(/^sjt_[\w-]{43}$/);
    const request = await joinRequest(token);
    expect(await codeOf(anyone().nodes.join({ ...request, role: 'backend' }))).toBe('INVITATION_REFUSED');
    const node = await anyone().nodes.join(request);
    expect(node).toMatchObject({ name: 'edge-1', role: 'frontend', state: 'joined', health: 'lost' });
    // An answer that got lost: the same node asks again.
    expect((await anyone().nodes.join(request)).id).toBe(node.id);
    expect(await codeOf(anyone().nodes.join(await joinRequest(token)))).toBe('INVITATION_REFUSED');
    const [listed] = await lab.operator.nodes.invitations();
    expect(listed).toEqual({ ...invitation, usedAt: expect.any(String), usedBy: node.id });
    const written = await writtenBytes(lab);
    expect(written.includes(token)).toBe(false);
    expect(lab.log.join('')).not.toContain(token);
    expect(
      await codeOf(lab.operator.nodes.invite({ role: 'backend', name: 'edge-1', expiresInSeconds: 60 })),
    ).toBe('NODE_EXISTS');
  });

  it('expires, can be withdrawn, and needs the key', async () => {
    const late = await lab.operator.nodes.invite({ role: 'frontend', expiresInSeconds: 60 });
    lab.nowMs += 61_000;
    expect(await codeOf(anyone().nodes.join(await joinRequest(late.token)))).toBe('INVITATION_REFUSED');
    const { token, invitation } = await lab.operator.nodes.invite({ role: 'frontend', expiresInSeconds: 60 });
    const request = await joinRequest(token);
    const { publicKey } = await newNodeIdentity();
    expect(await codeOf(anyone().nodes.join({ ...request, publicKey }))).toBe('INVITATION_REFUSED');
    await lab.operator.nodes.withdraw(invitation.id);
    expect(await codeOf(anyone().nodes.join(request))).toBe('INVITATION_REFUSED');
    expect(await codeOf(lab.operator.nodes.withdraw(invitation.id))).toBe('INVITATION_UNKNOWN');
  });

  it('is good for one node also when many come at once', async () => {
    const { token } = await lab.operator.nodes.invite({ role: 'frontend', expiresInSeconds: 60 });
    const requests = await Promise.all(Array.from({ length: 8 }, () => joinRequest(token)));
    const codes = await Promise.all(requests.map((request) => codeOf(anyone().nodes.join(request))));
    expect(codes.filter((code) => code === 'done')).toHaveLength(1);
    expect(codes.filter((code) => code === 'INVITATION_REFUSED')).toHaveLength(7);
  });

  it('is in the audit log, and so is the join, without secrets', async () => {
    const { token } = await lab.operator.nodes.invite({ role: 'backend', expiresInSeconds: 60 });
    await anyone().nodes.join(await joinRequest(token, 'backend'));
    const { items } = await lab.operator.audit({ limit: '3' });
    expect(items.map(({ noun, verb, actorKind }) => [noun, verb, actorKind])).toEqual([
      ['nodes', 'insert', 'anonymous'],
      ['node_invitations', 'update', 'anonymous'],
      ['node_invitations', 'insert', 'operator-token'],
    ]);
    expect(JSON.stringify(items)).toContain('(secret)');
  });
});

describe('the fleet', () => {
  it('is told to every node at each change, and not when something else changes', async () => {
    const a = await joinNode(lab, 'frontend', 'told-a');
    const b = await joinNode(lab, 'backend', 'told-b');
    const watch = follow(b.client);
    await expect.poll(() => watch.last('told-a')).toMatchObject({ addresses: null, state: 'joined' });
    const { addresses } = nodeReport();
    await a.client.reportNode(nodeReport());
    await expect.poll(() => watch.last('told-a')?.addresses).toEqual(addresses);
    const countBefore = watch.fleets.length;
    await lab.operator.streams.create({ name: 'cam' });
    await a.client.reportNode(nodeReport({ viewerCount: 7 }));
    await lab.operator.nodes.cordon('told-a');
    await expect.poll(() => watch.last('told-a')?.state).toBe('cordoned');
    expect(watch.fleets.length).toBe(countBefore + 1);
    await watch.stop();

    // Who knows the fleet already hears of the next change only.
    const revision = watch.fleets.at(-1)?.revision;
    const again = follow(b.client, revision);
    await new Promise((wake) => setTimeout(wake, 200));
    expect(again.fleets).toEqual([]);
    await lab.operator.nodes.uncordon('told-a');
    await expect.poll(() => again.last('told-a')?.state).toBe('joined');
    await again.stop();
    const late = follow(b.client, revision);
    await expect.poll(() => late.last('told-a')?.state).toBe('joined');
    await late.stop();
  });

  it('shows operators how the nodes are', async () => {
    const { client } = await joinNode(lab, 'frontend', 'seen');
    expect(await lab.operator.nodes.get('seen')).toMatchObject({
      health: 'lost',
      load: null,
      lastSeenAt: null,
    });
    await client.reportNode(nodeReport({ isReady: false, viewerCount: 3 }));
    const { load, health, version } = await lab.operator.nodes.get('seen');
    expect({ viewerCount: load?.viewerCount, health, version }).toEqual({
      ...{ viewerCount: 3, health: 'unready', version: '0.1.0' },
    });
    await client.reportNode(nodeReport());
    expect((await lab.operator.nodes.get('seen')).health).toBe('ready');
    const seenAt = new Date(lab.nowMs).toISOString();
    lab.nowMs += 16_000;
    expect(await lab.operator.nodes.get('seen')).toMatchObject({ health: 'lost', lastSeenAt: seenAt });
    const names = (await lab.operator.nodes.list()).map(({ name }) => name);
    expect(names).toEqual([...names].sort());
    expect(names).toContain('seen');
    expect(await codeOf(lab.operator.nodes.get('nobody'))).toBe('NODE_UNKNOWN');
  });

  it('comes in pages', async () => {
    const page = async (query: string) =>
      (await (
        await lab.request('GET', `/api/v1/nodes?${query}`, { token: 'operator-token-of-the-tests' })
      ).json()) as {
        items: { name: string }[];
        nextCursor: string | null;
      };
    const all = (await lab.operator.nodes.list()).map(({ name }) => name);
    const first = await page('limit=2');
    const second = await page(`limit=1000&cursor=${first.nextCursor}`);
    expect([...first.items, ...second.items].map(({ name }) => name)).toEqual(all);
    expect(second.nextCursor).toBeNull();
  });

  it('outlasts a restart of the coordinator, and its nodes are known as before', async () => {
    const { client, node, prover } = await joinNode(lab, 'backend', 'lasting');
    await client.reportNode(nodeReport());
    await lab.operator.nodes.drain('lasting');
    lab = await lab.restart();
    const again = new CoordinatorClient({ baseUrl: lab.url, token: () => prover.proofFor('coordinator') });
    expect(await lab.operator.nodes.get('lasting')).toMatchObject({
      id: node.id,
      state: 'draining',
      health: 'lost',
    });
    await again.reportNode(nodeReport());
    expect((await lab.operator.nodes.get('lasting')).health).toBe('ready');
  }, 60_000);
});

describe('a node', () => {
  it('speaks for itself only', async () => {
    const one = await joinNode(lab, 'backend', 'honest');
    const other = await joinNode(lab, 'backend', 'other');
    expect(await codeOf(one.client.renewLeases(other.node.id, []))).toBe('NODE_NOT_ITSELF');
    expect(await codeOf(one.client.releaseLeases(other.node.id))).toBe('NODE_NOT_ITSELF');
    expect(await codeOf(one.client.renewLeases(one.node.id, []))).toBe('done');
    const shared = new CoordinatorClient({ baseUrl: lab.url, token: nodeToken });
    expect(await codeOf(shared.reportNode(nodeReport()))).toBe('NODE_NOT_ITSELF');
    expect(await codeOf(shared.renewLeases(other.node.id, []))).toBe('done');
  });

  it('that was removed is refused at once, also where it had got in before, and may be invited again', async () => {
    const gone = await joinNode(lab, 'backend', 'gone');
    await gone.client.reportNode(nodeReport());
    const witness = await joinNode(lab, 'frontend', 'witness');
    const states: string[][] = [];
    const stop = new AbortController();
    const watching = witness.client.watchFrontendState(
      ({ backends = [] }) => states.push(backends.map(({ nodeId }) => nodeId)),
      stop.signal,
    );
    await expect.poll(() => states.at(-1)).toContain(gone.node.id);
    const watch = follow(gone.client);
    await expect.poll(() => watch.last('gone')).toBeDefined();
    await lab.operator.nodes.remove('gone');
    await expect.poll(() => watch.retries.length, { timeout: 5000 }).toBeGreaterThan(0);
    await expect.poll(() => states.at(-1)).not.toContain(gone.node.id);
    expect(await codeOf(gone.client.reportNode(nodeReport()))).toBe('NODE_REMOVED');
    expect(await codeOf(gone.client.renewLeases(gone.node.id, []))).toBe('NODE_REMOVED');
    expect(await codeOf(lab.operator.nodes.get('gone'))).toBe('NODE_UNKNOWN');
    await watch.stop();
    stop.abort();
    await watching;
    const back = await joinNode(lab, 'backend', 'gone', await newNodeIdentity(gone.node.id));
    expect(back.node).toMatchObject({ id: gone.node.id, state: 'joined' });
    expect(await codeOf(back.client.reportNode(nodeReport()))).toBe('done');
    // Its first key stays what it was.
    expect(
      (await lab.request('GET', '/api/v1/node/watch', { token: await gone.prover.proofFor('coordinator') }))
        .status,
    ).toBe(401);
  });

  it('that is to restart is drained until another start of it reports, and is then what it was', async () => {
    const { client } = await joinNode(lab, 'frontend', 'again');
    expect(await codeOf(lab.operator.nodes.restart('again'))).toBe('NODE_HAS_NOT_REPORTED');
    await client.reportNode(nodeReport());
    await lab.operator.nodes.cordon('again');
    const ordered = await lab.operator.nodes.restart('again');
    expect(ordered).toMatchObject({ state: 'draining', restartBootId: nodeReport().bootId });
    expect((await lab.operator.nodes.restart('again')).state).toBe('draining');
    await client.reportNode(nodeReport({ isIdle: true }));
    expect(await lab.operator.nodes.get('again')).toMatchObject({ state: 'draining', isIdle: true });
    await client.reportNode(nodeReport({ bootId: 'fedcba9876543210' }));
    expect(await lab.operator.nodes.get('again')).toMatchObject({ state: 'cordoned', restartBootId: null });
  });

  it('that takes the name of another gets a number; one of a data folder that has joined is refused', async () => {
    const first = await joinNode(lab, 'frontend', 'twin');
    const second = await joinNode(lab, 'frontend', 'twin');
    expect([first.node.name, second.node.name]).toEqual(['twin', 'twin-2']);
    expect(await codeOf(joinNode(lab, 'frontend', 'x', await newNodeIdentity(first.node.id)))).toBe(
      'NODE_EXISTS',
    );
  });

  it('that drains keeps its lease until another has had it for 2 s, and gets no other', async () => {
    const leaver = await joinNode(lab, 'backend', 'leaver');
    const heir = await joinNode(lab, 'backend', 'heir');
    const wish = (fencingToken: number | null) => [{ name: 'channel/moved', maxHolders: 1, fencingToken }];
    const tokenOf = async (who: typeof leaver, fencingToken: number | null) =>
      (await who.client.renewLeases(who.node.id, wish(fencingToken))).leases[0]?.fencingToken ?? null;
    // Nothing is free in the first seconds after the start of a coordinator.
    const held = await expect
      .poll(() => tokenOf(leaver, null), { timeout: 5000 })
      .not.toBeNull()
      .then(() => tokenOf(leaver, null));
    expect(await tokenOf(heir, null)).toBeNull();
    await lab.operator.nodes.drain('leaver');
    expect(await tokenOf(leaver, held)).toBe(held);
    const inherited = await tokenOf(heir, null);
    expect(inherited).toBeGreaterThan(held ?? 0);
    expect(await tokenOf(leaver, held)).toBe(held);
    await expect
      .poll(
        async () => {
          expect(await tokenOf(heir, inherited)).toBe(inherited);
          return tokenOf(leaver, held);
        },
        { timeout: 5000, interval: 300 },
      )
      .toBeNull();
    await heir.client.releaseLeases(heir.node.id);
    expect(await tokenOf(leaver, null)).toBeNull();
    await lab.operator.nodes.uncordon('leaver');
    expect(await tokenOf(leaver, null)).not.toBeNull();
  });
});
