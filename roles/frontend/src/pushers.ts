/**
 * Which backends may push to this frontend: those of the last state that the coordinator told, each known by its key. A push
 * is refused, and ended, as soon as its backend is not among them.
 */
import type { FrontendState } from '@starling/model/entities';
import { claimedNodeId, isProofOf } from '@starling/model/node-identity';
import type { RtmpPeer } from '@starling/net/rtmp-server';

export class Pushers {
  readonly #ownNodeId: string | undefined;
  /** Public keys by node. */
  #backends: ReadonlyMap<string, string> = new Map();
  readonly #pushes = new Map<RtmpPeer, string>();

  /** @param ownNodeId whom the proofs have to be for; none is taken when undefined */
  constructor(ownNodeId: string | undefined) {
    this.#ownNodeId = ownNodeId;
  }

  update({ backends = [] }: FrontendState): void {
    this.#backends = new Map(backends.map(({ nodeId, publicKey }) => [nodeId, publicKey]));
    for (const [peer, nodeId] of this.#pushes) {
      if (!this.#backends.has(nodeId)) peer.disconnect('its backend was removed from the network');
    }
  }

  /** The backend that made a proof, lately and for this frontend; undefined when there is none. */
  async nodeIdOf(proof: string): Promise<string | undefined> {
    const nodeId = claimedNodeId(proof);
    const publicKey = this.#backends.get(nodeId ?? '');
    if (nodeId === undefined || publicKey === undefined || this.#ownNodeId === undefined) return undefined;
    const isGood = await isProofOf({ nodeId, publicKey }, proof, `push:${this.#ownNodeId}`, Date.now());
    // It may have been removed meanwhile.
    return isGood && this.#backends.get(nodeId) === publicKey ? nodeId : undefined;
  }

  /** @returns is to be called when the push has ended */
  add(nodeId: string, peer: RtmpPeer): () => void {
    this.#pushes.set(peer, nodeId);
    return () => this.#pushes.delete(peer);
  }
}
