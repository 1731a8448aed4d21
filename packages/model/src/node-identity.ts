/**
 * What a node shows to prove that it is itself: a text that it signs with its key, good for a minute and for one audience.
 * Whoever has the public key can check it without asking anybody. The private half never leaves the node.
 *
 * Sources: RFC 7519 (JSON Web Token), RFC 8037 (EdDSA in it), RFC 8725 (what to beware of).
 */
import { randomBytes } from 'node:crypto';
import { decodeProtectedHeader, exportJWK, generateKeyPair, importJWK, jwtVerify, SignJWT } from 'jose';
import { type Static, Type } from 'typebox';
import { CoordinatorClient } from './client.ts';
import { NodeId } from './lease.ts';
import { NodePublicKey } from './node.ts';
import { openSecret, type Secret } from './secret.ts';

const ALGORITHM = 'EdDSA';
/** Keeps other tokens from being taken for these (RFC 8725, 3.11). */
const TYPE = 'node+jwt';
const LIFETIME_SECONDS = 60;
/** Clocks of machines may differ by so much. */
const CLOCK_TOLERANCE_SECONDS = 60;
/** A proof is used again while it is good for so long. */
const FRESH_FOR_MS = 30_000;
const MAX_PROOF_CHARS = 1024;

/** Whom a proof is for: nobody else takes it. */
export type Audience = 'join' | 'coordinator' | `push:${string}` | `pull:${string}`;

/** A node's id and key pair. The file that holds it is the secret. */
export const NodeIdentity = Type.Object({
  nodeId: NodeId,
  publicKey: NodePublicKey,
  privateKey: Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }),
});
export type NodeIdentity = Static<typeof NodeIdentity>;

/** @param nodeId of a node that has one already */
export async function newNodeIdentity(nodeId = randomBytes(8).toString('hex')): Promise<NodeIdentity> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true });
  const { x = '', d = '' } = await exportJWK(privateKey);
  return { nodeId, publicKey: x, privateKey: d };
}

/** Makes a node's proofs; each is used for half of its life. */
export class NodeProver {
  readonly nodeId: string;
  readonly #identity: NodeIdentity;
  readonly #nowUnixMs: () => number;
  readonly #made = new Map<Audience, { readonly proof: Promise<string>; readonly untilUnixMs: number }>();

  constructor(identity: NodeIdentity, nowUnixMs: () => number = Date.now) {
    this.nodeId = identity.nodeId;
    this.#identity = identity;
    this.#nowUnixMs = nowUnixMs;
  }

  proofFor(audience: Audience): Promise<string> {
    const nowUnixMs = this.#nowUnixMs();
    const known = this.#made.get(audience);
    // A clock that was set back must not keep a proof for ever.
    if (known !== undefined && nowUnixMs < known.untilUnixMs && known.untilUnixMs <= nowUnixMs + FRESH_FOR_MS)
      return known.proof;
    for (const [other, { untilUnixMs }] of this.#made) {
      if (untilUnixMs <= nowUnixMs) this.#made.delete(other);
    }
    const proof = this.#sign(audience, nowUnixMs);
    this.#made.set(audience, { proof, untilUnixMs: nowUnixMs + FRESH_FOR_MS });
    return proof;
  }

  async #sign(audience: Audience, nowUnixMs: number): Promise<string> {
    const { nodeId, publicKey: x, privateKey: d } = this.#identity;
    const key = await importJWK({ kty: 'OKP', crv: 'Ed25519', x, d }, ALGORITHM);
    const nowSeconds = Math.floor(nowUnixMs / 1000);
    return new SignJWT({})
      .setProtectedHeader({ alg: ALGORITHM, typ: TYPE })
      .setIssuer(nodeId)
      .setAudience(audience)
      .setIssuedAt(nowSeconds)
      .setExpirationTime(nowSeconds + LIFETIME_SECONDS)
      .sign(key);
  }
}

/** Whether a text has the form of a proof; whether it is good is another question. */
export function isNodeProof(text: string): boolean {
  if (text.length > MAX_PROOF_CHARS || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)) return false;
  try {
    return decodeProtectedHeader(text).typ === TYPE;
  } catch {
    return false;
  }
}

/** The node that a proof says it is of, unchecked; undefined when it is none. */
export function claimedNodeId(proof: string): string | undefined {
  if (!isNodeProof(proof)) return undefined;
  try {
    const payload: unknown = JSON.parse(Buffer.from(proof.split('.')[1] ?? '', 'base64url').toString());
    const { iss } = payload as { iss?: unknown };
    return typeof iss === 'string' ? iss : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Whether a node with this public key signed the proof, lately, for this audience.
 * @param nowUnixMs milliseconds since 1970
 */
export async function isProofOf(
  node: { readonly nodeId: string; readonly publicKey: string },
  proof: string,
  audience: Audience,
  nowUnixMs: number,
): Promise<boolean> {
  if (!isNodeProof(proof)) return false;
  try {
    const key = await importJWK({ kty: 'OKP', crv: 'Ed25519', x: node.publicKey }, ALGORITHM);
    await jwtVerify(proof, key, {
      algorithms: [ALGORITHM],
      typ: TYPE,
      issuer: node.nodeId,
      audience,
      currentDate: new Date(nowUnixMs),
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      maxTokenAge: LIFETIME_SECONDS,
      requiredClaims: ['exp', 'iat'],
    });
    return true;
  } catch {
    return false;
  }
}

/** How a role comes to its coordinator: with its own key, or with the token that the nodes of a network share. */
export type CoordinatorAccess = {
  readonly baseUrl: string;
  readonly token: Secret | NodeIdentity;
};

/** Undefined for a node that shows the shared token. */
export function identityOf({ token }: CoordinatorAccess): NodeIdentity | undefined {
  return typeof token === 'object' && 'nodeId' in token ? token : undefined;
}

export function openCoordinator({ baseUrl, token }: CoordinatorAccess): CoordinatorClient {
  if (typeof token === 'string' || 'file' in token) {
    const secret = openSecret(token);
    return new CoordinatorClient({ baseUrl, token: async () => secret.current() });
  }
  const prover = new NodeProver(token);
  return new CoordinatorClient({ baseUrl, token: () => prover.proofFor('coordinator') });
}
