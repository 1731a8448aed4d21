/** The state as frontends follow it: who may watch what, who may no longer, and whose pushes are taken. */
import type { FrontendState } from '@starling/model/entities';
import { readRevision } from './changes.ts';
import type { Transaction } from './database.ts';
import type { FleetViewers } from './fleet-viewers.ts';
import type { Nodes } from './nodes.ts';
import type { Snapshot } from './state.ts';
import type { ViewingKeys } from './viewing-keys.ts';
import type { ViewingRules } from './viewing-tokens.ts';
import type { Source } from './watch.ts';

export class FrontendStates implements Source {
  readonly #rules: Snapshot<ViewingRules>;
  readonly #keys: ViewingKeys;
  readonly #viewers: FleetViewers;
  readonly #nodes: Nodes;

  constructor(rules: Snapshot<ViewingRules>, keys: ViewingKeys, viewers: FleetViewers, nodes: Nodes) {
    this.#nodes = nodes;
    this.#rules = rules;
    this.#keys = keys;
    this.#viewers = viewers;
  }

  async read(): Promise<FrontendState> {
    const { revision, channels, revokedTokenIds } = await this.#rules.read();
    const { nodes } = await this.#nodes.read();
    const keys = await this.#keys.read();
    return {
      revision,
      channels: channels.map((channel) => ({ ...channel, nameKey: keys.nameKeyOf(channel.name) })),
      viewingTokenKeys: keys.publicKeys,
      revokedTokenIds: [...revokedTokenIds],
      endedViewerIds: this.#viewers.endedIds,
      backends: nodes
        .filter(({ role }) => role === 'backend')
        .map(({ id, publicKey }) => ({ nodeId: id, publicKey })),
    };
  }

  onChange(listener: () => void): void {
    this.#rules.onChange(listener);
    this.#viewers.onEnded(listener);
  }
}

/** @param now milliseconds since 1970 */
export async function readViewingRules(transaction: Transaction, now: () => number): Promise<ViewingRules> {
  const channels = await transaction
    .selectFrom('channels')
    .select(['name', 'is_private', 'max_viewers'])
    .orderBy('name')
    .execute();
  const tokens = await transaction
    .selectFrom('viewing_tokens')
    .select(['id', 'max_concurrent', 'revoked_at'])
    .where('expires_at', '>', new Date(now()))
    .where((where) =>
      where.or([where('revoked_at', 'is not', null), where('max_concurrent', 'is not', null)]),
    )
    .orderBy('id')
    .execute();
  return {
    revision: await readRevision(transaction),
    channels: channels.map(({ name, is_private, max_viewers }) => ({
      name,
      isPrivate: is_private,
      maxViewers: max_viewers,
    })),
    revokedTokenIds: tokens.filter((token) => token.revoked_at !== null).map(({ id }) => id),
    maxConcurrentByToken: new Map(
      tokens.flatMap(({ id, max_concurrent }) => (max_concurrent === null ? [] : [[id, max_concurrent]])),
    ),
  };
}
