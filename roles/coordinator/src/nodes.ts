/**
 * The nodes of the network: who was let in, by which key it is known, where it is and what it is to do. What lasts is in the
 * database, and all nodes follow it; what they report of themselves is true for seconds, and kept in memory.
 */
import { createHash, randomBytes } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Distribution } from '@starling/model/distribution';
import {
  type Fleet,
  type FleetNode,
  type JoinRequest,
  type NewNodeInvitation,
  type Node,
  type NodeInvitation,
  type NodeInvitationWithToken,
  NodeReport,
  type NodeState,
} from '@starling/model/node';
import { claimedNodeId, isProofOf } from '@starling/model/node-identity';
import type { OpenSecret } from '@starling/model/secret';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import type { Caller } from './callers.ts';
import { type Changes, readRevision } from './changes.ts';
import type { Tables, Transaction } from './database.ts';
import type { NodeSighting } from './node-healths.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import type { Peers } from './peers.ts';
import { ApiProblem } from './problem.ts';
import { RowCache } from './row-cache.ts';
import { Snapshot } from './state.ts';

const TOKEN_PREFIX = 'sjt_';
/** 256 bits: beyond guessing, so a fast digest protects the stored token well enough. */
const TOKEN_BYTES = 32;
const ID_BYTES = 8;
const MAX_NODES = 1000;
/** That can still be used. */
const MAX_INVITATIONS = 1000;
/** Nodes that were removed are told so, and invitations that are spent are listed, for so long. */
const KEEP_ENDED_MS = 30 * 24 * 3600 * 1000;
/** A node reports every 5 s; after three missed reports it is lost. */
const LOST_AFTER_MS = 15_000;
const WRITE_LAST_SEEN_EVERY_MS = 60_000;
/** A node of a group that has been lost for so long is gone: the group has another host in its place. */
const REMOVE_LOST_AFTER_MS = 3_600_000;
const LOOK_FOR_LOST_EVERY_MS = 60_000;
/** A proof that was found good need not be checked again for so long. */
const REMEMBER_PROOF_MS = 30_000;
const MAX_REMEMBERED_PROOFS = 10_000;

const sha256Hex = (text: string) => createHash('sha256').update(text).digest('hex');

const PeerReport = Type.Object({ nodeId: Type.String(), report: NodeReport });

/** All nodes as of a revision, those lately removed too. */
interface KnownNodes {
  readonly revision: number;
  readonly rows: ReadonlyMap<string, Selectable<Tables['nodes']>>;
}

export class Nodes {
  readonly #db: Kysely<Tables>;
  readonly #changes: Changes;
  readonly #peers: Peers;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #distribution: Distribution;
  readonly #groupToken: OpenSecret | undefined;
  readonly #lostTimer: NodeJS.Timeout | undefined;
  readonly #known: Snapshot<KnownNodes>;
  readonly #pages: RowCache<Selectable<Tables['nodes']>[]>;
  readonly #invitationPages: RowCache<Selectable<Tables['node_invitations']>[]>;
  /** Since this coordinator started. */
  readonly #lastSeenMs = new Map<string, number>();
  readonly #reports = new Map<string, { readonly report: NodeReport; readonly atMs: number }>();
  readonly #lastSeenWrittenMs = new Map<string, number>();
  readonly #goodProofs = new Map<string, { readonly publicKey: string; readonly untilMs: number }>();

  constructor(options: {
    readonly db: Kysely<Tables>;
    readonly changes: Changes;
    readonly peers: Peers;
    readonly logger: Logger;
    readonly now: () => number;
    readonly distribution: Distribution;
    /** With it nodes of a group join; undefined where there is no group. */
    readonly groupToken: OpenSecret | undefined;
  }) {
    const { db, changes, peers } = options;
    this.#db = db;
    this.#changes = changes;
    this.#peers = peers;
    this.#logger = options.logger;
    this.#now = options.now;
    this.#distribution = options.distribution;
    this.#groupToken = options.groupToken;
    if (options.groupToken !== undefined)
      this.#lostTimer = setInterval(() => this.#removeLost(), LOOK_FOR_LOST_EVERY_MS);
    this.#known = new Snapshot(db, changes, readNodes);
    this.#pages = new RowCache(changes);
    this.#invitationPages = new RowCache(changes);
    peers.onMessage('node-report', (message) => {
      if (Check(PeerReport, message)) this.#takeReport(message.nodeId, message.report);
    });
  }

  close(): void {
    clearInterval(this.#lostTimer);
  }

  /** The fleet, as nodes follow it. */
  async read(): Promise<Fleet> {
    const { revision, rows } = await this.#known.read();
    const nodes = [...rows.values()].filter(isInFleet).map(fleetNodeOf);
    return { revision, nodes, distribution: this.#distribution };
  }

  onChange(listener: () => void): void {
    this.#known.onChange(listener);
  }

  /** Ids of the nodes that were removed lately. */
  async removedIds(): Promise<ReadonlySet<string>> {
    const { rows } = await this.#known.read();
    return new Set([...rows.values()].filter((row) => !isInFleet(row)).map(({ id }) => id));
  }

  /** What a node is to do; `joined` for one that the registry does not know. */
  async standings(): Promise<(nodeId: string) => NodeState> {
    const { rows } = await this.#known.read();
    return (nodeId) => rows.get(nodeId)?.state ?? 'joined';
  }

  /** Every node, and when it was last heard of; who was let go is not missed. */
  async sightings(): Promise<(NodeSighting & { readonly isMissed: boolean })[]> {
    const { rows } = await this.#known.read();
    return [...rows.values()].filter(isInFleet).map((row) => ({
      node: row.name,
      lastSeenAtMs: Math.max(
        this.#lastSeenMs.get(row.id) ?? 0,
        (row.last_seen_at ?? row.joined_at).getTime(),
      ),
      isMissed: row.state !== 'draining' || row.restart_boot_id !== null,
    }));
  }

  /**
   * Whom a proof is of.
   * @returns undefined when it is none, or nobody's
   * @throws ApiProblem NODE_REMOVED
   */
  async callerOf(proof: string): Promise<Caller | undefined> {
    const nodeId = claimedNodeId(proof);
    if (nodeId === undefined) return undefined;
    const row = (await this.#known.read()).rows.get(nodeId);
    if (row === undefined || !(await this.#isGood(proof, row))) return undefined;
    if (!isInFleet(row)) {
      throw new ApiProblem(
        'NODE_REMOVED',
        `${row.name} was removed. To have it back, invite it again: starling node invite --role ${row.role}.`,
      );
    }
    return {
      kind: 'node',
      id: `node:${nodeId}`,
      name: row.name,
      node: { id: nodeId, role: row.role },
      account: null,
      role: 'viewer',
      channels: [],
      hasOneTimePassword: false,
      hasSecondFactor: false,
      expiresAt: null,
      reach: () => undefined,
    };
  }

  async #isGood(proof: string, { id: nodeId, public_key: publicKey }: Selectable<Tables['nodes']>) {
    const nowMs = this.#now();
    const known = this.#goodProofs.get(proof);
    if (known !== undefined && known.publicKey === publicKey && nowMs < known.untilMs) return true;
    if (!(await isProofOf({ nodeId, publicKey }, proof, 'coordinator', nowMs))) return false;
    this.#goodProofs.delete(proof);
    this.#goodProofs.set(proof, { publicKey, untilMs: nowMs + REMEMBER_PROOF_MS });
    for (const [oldest, { untilMs }] of this.#goodProofs) {
      if (nowMs < untilMs && this.#goodProofs.size <= MAX_REMEMBERED_PROOFS) break;
      this.#goodProofs.delete(oldest);
    }
    return true;
  }

  /** By name. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async list(query: Static<typeof PageQuery>): Promise<Page<Node>> {
    const request = pageRequestOf(query, ['name']);
    const { after } = request;
    const rows = await this.#pages.get(request.id, () =>
      this.#db
        .selectFrom('nodes')
        .selectAll()
        .where('state', '<>', 'removed')
        .$if(after !== undefined, (query) => query.where('name', '>', after?.[0] ?? ''))
        .orderBy('name')
        .limit(request.rowLimit)
        .execute(),
    );
    return pageOf(
      rows,
      request,
      (row) => [row.name],
      (row) => this.#nodeOf(row),
    );
  }

  /** @throws ApiProblem NODE_UNKNOWN */
  async get(name: string): Promise<Node> {
    const { rows } = await this.#known.read();
    const row = [...rows.values()].find((one) => isInFleet(one) && one.name === name);
    if (row === undefined) throw unknownNode(name);
    return this.#nodeOf(row);
  }

  /** Newest first. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async invitations(query: Static<typeof PageQuery>): Promise<Page<NodeInvitation>> {
    const request = pageRequestOf(query, ['created_at', 'id']);
    const { after } = request;
    const rows = await this.#invitationPages.get(request.id, () =>
      this.#db
        .selectFrom('node_invitations')
        .selectAll()
        .$if(after !== undefined, (query) =>
          query.where(sql<boolean>`(created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]})`),
        )
        .orderBy('created_at', 'desc')
        .orderBy('id', 'desc')
        .limit(request.rowLimit)
        .execute(),
    );
    return pageOf(rows, request, (row) => [row.created_at.toISOString(), row.id], invitationOf);
  }

  /**
   * Makes an invitation.
   * @throws ApiProblem NODE_EXISTS or TOO_MANY_INVITATIONS
   */
  async invite({ role, name, expiresInSeconds }: NewNodeInvitation): Promise<NodeInvitationWithToken> {
    const token = `${TOKEN_PREFIX}${randomBytes(TOKEN_BYTES).toString('base64url')}`;
    const nowMs = this.#now();
    const now = new Date(nowMs);
    const row = await this.#changes.make(async (transaction) => {
      if (name !== undefined) await refuseKnownName(transaction, name);
      const longAgo = new Date(nowMs - KEEP_ENDED_MS);
      await transaction.deleteFrom('node_invitations').where('expires_at', '<', longAgo).execute();
      const { count } = await transaction
        .selectFrom('node_invitations')
        .select(({ fn }) => fn.countAll<string>().as('count'))
        .where('expires_at', '>', now)
        .where('used_at', 'is', null)
        .executeTakeFirstOrThrow();
      if (Number(count) >= MAX_INVITATIONS) {
        throw new ApiProblem('TOO_MANY_INVITATIONS', `There are ${MAX_INVITATIONS} already. Withdraw one.`);
      }
      return transaction
        .insertInto('node_invitations')
        .values({
          id: randomBytes(ID_BYTES).toString('hex'),
          token_sha256: sha256Hex(token),
          role,
          name: name ?? null,
          created_at: now,
          expires_at: new Date(nowMs + expiresInSeconds * 1000),
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ invitation: row.id, role, name }, 'node invited');
    return { invitation: invitationOf(row), token };
  }

  /** @throws ApiProblem INVITATION_UNKNOWN */
  async withdraw(id: string): Promise<void> {
    await this.#changes.make(async (transaction) => {
      const { numDeletedRows } = await transaction
        .deleteFrom('node_invitations')
        .where('id', '=', id)
        .executeTakeFirst();
      if (numDeletedRows === 0n)
        throw new ApiProblem('INVITATION_UNKNOWN', `There is no invitation ${id} any more.`);
    });
    this.#logger.info({ invitation: id }, 'invitation withdrawn');
  }

  /**
   * Lets a node in. One that did not hear the answer may ask again, with the same key.
   * @throws ApiProblem INVITATION_REFUSED, NODE_EXISTS or TOO_MANY_NODES
   */
  async join(request: JoinRequest): Promise<Node> {
    const { token, nodeId, publicKey, role } = request;
    const nowMs = this.#now();
    if (!(await isProofOf({ nodeId, publicKey }, request.proof, 'join', nowMs))) {
      throw new ApiProblem(
        'INVITATION_REFUSED',
        'The proof is not signed with the key, or the clocks of both machines differ by more than a minute. Set the clock.',
      );
    }
    const isOfGroup = this.#groupToken?.accepts(token) === true;
    const row = await this.#changes.make(async (transaction) => {
      const invitation = await transaction
        .selectFrom('node_invitations')
        .selectAll()
        .where('token_sha256', '=', sha256Hex(token))
        .executeTakeFirst();
      const known = await transaction
        .selectFrom('nodes')
        .selectAll()
        .where('id', '=', nodeId)
        .executeTakeFirst();
      const isSameKey = known !== undefined && isInFleet(known) && known.public_key === publicKey;
      if (isSameKey && (isOfGroup || invitation?.used_by === nodeId)) return known;
      // One answer for all that is wrong: whoever guesses learns nothing.
      const isGood =
        invitation !== undefined &&
        invitation.used_at === null &&
        invitation.expires_at.getTime() > nowMs &&
        invitation.role === role;
      if (!isOfGroup && !isGood) {
        throw new ApiProblem(
          'INVITATION_REFUSED',
          `The join token is unknown, used or expired, or not for a ${role}. Make another one: starling node invite --role ${role}.`,
        );
      }
      if (known !== undefined && isInFleet(known)) {
        throw new ApiProblem(
          'NODE_EXISTS',
          `The node of this data folder is ${known.name} already. Remove it first: starling node rm ${known.name}.`,
        );
      }
      const name = invitation?.name ?? (await freeName(transaction, request.name));
      await refuseKnownName(transaction, name);
      const longAgo = new Date(nowMs - KEEP_ENDED_MS);
      await transaction.deleteFrom('nodes').where('removed_at', '<', longAgo).execute();
      await transaction.deleteFrom('nodes').where('id', '=', nodeId).execute();
      const { count } = await transaction
        .selectFrom('nodes')
        .select(({ fn }) => fn.countAll<string>().as('count'))
        .where('state', '<>', 'removed')
        .executeTakeFirstOrThrow();
      if (Number(count) >= MAX_NODES)
        throw new ApiProblem('TOO_MANY_NODES', `There are ${MAX_NODES} already. Remove one.`);
      if (invitation !== undefined) {
        await transaction
          .updateTable('node_invitations')
          .set({ used_at: new Date(nowMs), used_by: nodeId })
          .where('id', '=', invitation.id)
          .execute();
      }
      return transaction
        .insertInto('nodes')
        .values({
          id: nodeId,
          name,
          role,
          public_key: publicKey,
          state: 'joined',
          revision: await readRevision(transaction),
          joined_at: new Date(nowMs),
          is_of_group: isOfGroup,
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ node: row.name, role, nodeId, isOfGroup }, 'node joined');
    if (isOfGroup) await this.#removeLost(); // it may be in the place of one
    return this.#nodeOf(row);
  }

  /**
   * Takes what a node says of itself. The others hear of it where it is somewhere else than before, or has been started anew.
   * @throws ApiProblem NODE_REMOVED
   */
  async report(nodeId: string, report: NodeReport): Promise<void> {
    const row = (await this.#known.read()).rows.get(nodeId);
    if (row === undefined || !isInFleet(row))
      throw new ApiProblem('NODE_REMOVED', 'This node was removed meanwhile.');
    this.#takeReport(nodeId, report);
    this.#peers.send('node-report', { nodeId, report });
    const isSame =
      row.boot_id === report.bootId &&
      row.version === report.version &&
      isDeepStrictEqual(row.addresses, report.addresses);
    if (!isSame) await this.#takeStart(nodeId, report);
    else await this.#writeLastSeen(nodeId);
    if (row.is_of_group && report.isLeaving === true) {
      if (row.state !== 'draining') await this.setState(row.name, 'draining');
      else if (report.isIdle) await this.remove(row.name);
    }
  }

  /** Removes the nodes of a group that nobody has heard of for an hour: their hosts are gone. Never rejects. */
  async #removeLost(): Promise<void> {
    const since = new Date(this.#now() - REMOVE_LOST_AFTER_MS);
    try {
      const rows = await this.#db
        .selectFrom('nodes')
        .select(['id', 'name'])
        .where('is_of_group', '=', true)
        .where('state', '<>', 'removed')
        .where((where) => where(where.fn.coalesce('last_seen_at', 'joined_at'), '<', since))
        .execute();
      for (const { id, name } of rows) {
        if ((this.#lastSeenMs.get(id) ?? 0) > since.getTime()) continue;
        this.#logger.warn({ node: name }, 'node of the group has been lost for an hour');
        await this.remove(name);
      }
    } catch (error) {
      // The database is away, or another coordinator was first: the next look is soon.
      this.#logger.warn({ err: error }, 'lost nodes of the group cannot be removed now');
    }
  }

  /** A node that was to restart has done so, when another start of it reports. */
  async #takeStart(nodeId: string, { bootId, version, addresses }: NodeReport): Promise<void> {
    const row = await this.#changes.make(async (transaction) => {
      const known = await transaction
        .selectFrom('nodes')
        .selectAll()
        .where('id', '=', nodeId)
        .where('state', '<>', 'removed')
        .executeTakeFirst();
      if (known === undefined) return undefined;
      const hasRestarted = known.restart_boot_id !== null && known.restart_boot_id !== bootId;
      await transaction
        .updateTable('nodes')
        .set({
          boot_id: bootId,
          version,
          addresses: JSON.stringify(addresses),
          last_seen_at: new Date(this.#now()),
          revision: await readRevision(transaction),
          ...(hasRestarted
            ? {
                state: known.state_after_restart ?? 'joined',
                restart_boot_id: null,
                state_after_restart: null,
              }
            : {}),
        })
        .where('id', '=', nodeId)
        .execute();
      return known;
    });
    this.#logger.info({ node: row?.name, version, ...addresses }, 'node has started');
  }

  async #writeLastSeen(nodeId: string): Promise<void> {
    const nowMs = this.#now();
    if (nowMs - (this.#lastSeenWrittenMs.get(nodeId) ?? 0) < WRITE_LAST_SEEN_EVERY_MS) return;
    this.#lastSeenWrittenMs.set(nodeId, nowMs);
    await this.#db
      .updateTable('nodes')
      .set({ last_seen_at: new Date(nowMs) })
      .where('id', '=', nodeId)
      .execute();
  }

  #takeReport(nodeId: string, report: NodeReport): void {
    const atMs = this.#now();
    for (const [other, { atMs: otherAtMs }] of this.#reports) {
      if (atMs - otherAtMs > LOST_AFTER_MS) this.#reports.delete(other);
    }
    this.#reports.set(nodeId, { report, atMs });
    this.#lastSeenMs.set(nodeId, atMs);
  }

  /**
   * Has a node work on with what it has and get nothing new (`cordoned`), hand that to the others (`draining`), or work
   * (`joined`).
   * @throws ApiProblem NODE_UNKNOWN
   */
  async setState(name: string, state: 'joined' | 'cordoned' | 'draining'): Promise<Node> {
    return this.#change(name, () => ({ state, restart_boot_id: null, state_after_restart: null }));
  }

  /**
   * Has a node hand over what it has and end, for its supervisor to start it again; then it is what it was before.
   * @throws ApiProblem NODE_UNKNOWN or NODE_HAS_NOT_REPORTED
   */
  async restart(name: string): Promise<Node> {
    return this.#change(name, (row) => {
      if (row.boot_id === null) {
        throw new ApiProblem('NODE_HAS_NOT_REPORTED', `${name} has joined, but never started.`);
      }
      return {
        state: 'draining',
        restart_boot_id: row.boot_id,
        state_after_restart: row.state_after_restart ?? (row.state === 'cordoned' ? 'cordoned' : 'joined'),
      };
    });
  }

  /** Refuses the key of a node everywhere. @throws ApiProblem NODE_UNKNOWN */
  async remove(name: string): Promise<void> {
    await this.#change(name, () => ({
      state: 'removed',
      removed_at: new Date(this.#now()),
      restart_boot_id: null,
      state_after_restart: null,
    }));
  }

  async #change(
    name: string,
    changeOf: (row: Selectable<Tables['nodes']>) => {
      state: NodeState;
      removed_at?: Date;
      restart_boot_id: string | null;
      state_after_restart: NodeState | null;
    },
  ): Promise<Node> {
    const row = await this.#changes.make(async (transaction) => {
      const known = await transaction
        .selectFrom('nodes')
        .selectAll()
        .where('name', '=', name)
        .where('state', '<>', 'removed')
        .executeTakeFirst();
      if (known === undefined) throw unknownNode(name);
      return transaction
        .updateTable('nodes')
        .set({ ...changeOf(known), revision: await readRevision(transaction) })
        .where('id', '=', known.id)
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info(
      { node: name, state: row.state, isToRestart: row.restart_boot_id !== null },
      'node is to change',
    );
    return this.#nodeOf(row);
  }

  #nodeOf(row: Selectable<Tables['nodes']>): Node {
    const last = this.#reports.get(row.id);
    const isLost = last === undefined || this.#now() - last.atMs > LOST_AFTER_MS;
    const lastSeenMs = Math.max(last?.atMs ?? 0, row.last_seen_at?.getTime() ?? 0);
    const { cpuCores = 0, memoryBytes = 0, channelCount = 0, viewerCount = 0 } = last?.report ?? {};
    return {
      ...fleetNodeOf(row),
      bootId: row.boot_id,
      version: row.version,
      joinedAt: row.joined_at.toISOString(),
      isOfGroup: row.is_of_group,
      lastSeenAt: lastSeenMs === 0 ? null : new Date(lastSeenMs).toISOString(),
      health: isLost ? 'lost' : last.report.isReady ? 'ready' : 'unready',
      isIdle: !isLost && last.report.isIdle,
      load: isLost ? null : { cpuCores, memoryBytes, channelCount, viewerCount },
    };
  }
}

async function readNodes(transaction: Transaction): Promise<KnownNodes> {
  const rows = await transaction.selectFrom('nodes').selectAll().orderBy('name').execute();
  return {
    revision: Math.max(0, ...rows.map(({ revision }) => Number(revision))),
    rows: new Map(rows.map((row) => [row.id, row])),
  };
}

const isInFleet = ({ state }: Selectable<Tables['nodes']>) => state !== 'removed';

function unknownNode(name: string): ApiProblem {
  return new ApiProblem('NODE_UNKNOWN', `There is no node ${name}.`);
}

async function hasName(transaction: Transaction, name: string): Promise<boolean> {
  const row = await transaction
    .selectFrom('nodes')
    .select('id')
    .where('name', '=', name)
    .where('state', '<>', 'removed')
    .executeTakeFirst();
  return row !== undefined;
}

async function refuseKnownName(transaction: Transaction, name: string): Promise<void> {
  if (await hasName(transaction, name))
    throw new ApiProblem('NODE_EXISTS', `There is a node ${name} already. Choose another name.`);
}

/** The name that a node has chosen, or with a number where another one has it. */
async function freeName(transaction: Transaction, wanted: string): Promise<string> {
  for (let number = 1; number <= MAX_NODES; number++) {
    const name = number === 1 ? wanted : `${wanted.slice(0, 58)}-${number}`;
    if (!(await hasName(transaction, name))) return name;
  }
  throw new ApiProblem('NODE_EXISTS', `There are too many nodes called ${wanted}. Choose another name.`);
}

function fleetNodeOf(row: Selectable<Tables['nodes']>): FleetNode {
  const { id, name, role, state, addresses } = row;
  return { id, name, role, publicKey: row.public_key, addresses, state, restartBootId: row.restart_boot_id };
}

function invitationOf(row: Selectable<Tables['node_invitations']>): NodeInvitation {
  return {
    id: row.id,
    role: row.role,
    name: row.name,
    createdAt: row.created_at.toISOString(),
    expiresAt: row.expires_at.toISOString(),
    usedAt: row.used_at?.toISOString() ?? null,
    usedBy: row.used_by,
  };
}
