/**
 * Viewing tokens: the right to watch private channels, as a signed text that expires. The coordinator
 * signs them; whoever has the public keys can check them without asking anybody.
 *
 * Sources: RFC 7519 (JSON Web Token), RFC 8037 (EdDSA in it), RFC 8725 (what to beware of).
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  type CryptoKey,
  decodeProtectedHeader,
  errors,
  exportJWK,
  generateKeyPair,
  importJWK,
  jwtVerify,
  SignJWT,
} from 'jose';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import { Name, ViewingTokenKey } from './entities.ts';

const ALGORITHM = 'EdDSA';
/** Keeps other tokens that the same key may sign one day from being taken for these (RFC 8725, 3.11). */
const TYPE = 'viewing+jwt';
const ALL_CHANNELS = '*';

/** Longer texts are no tokens of ours. */
const MAX_TOKEN_CHARS = 4096;
/** Tokens whose check is remembered; the longest known make room. */
const MAX_REMEMBERED = 10_000;
/** Tokens that are being checked; one more is refused. */
const MAX_CHECKING = 1000;

const Claims = Type.Object({
  jti: Type.String({ minLength: 1, maxLength: 64 }),
  exp: Type.Integer(),
  channels: Type.Union([Type.Literal(ALL_CHANNELS), Type.Array(Name)]),
  maxConcurrent: Type.Optional(Type.Integer({ minimum: 1 })),
  name: Type.Optional(Type.String()),
});

/** A key pair that signs. The file that holds it is the secret. */
export const SigningKey = Type.Object({ ...ViewingTokenKey.properties, d: Type.String() });
export type SigningKey = Static<typeof SigningKey>;

/** What a token says. */
export interface ViewingClaims {
  readonly id: string;
  readonly channels: readonly string[] | 'all';
  readonly expiresAtUnixMs: number;
  /** Viewers at the same time; without a limit when undefined. */
  readonly maxConcurrent: number | undefined;
}

/** A key pair with a random id. */
export async function newSigningKey(): Promise<SigningKey> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true });
  const { x = '', d = '' } = await exportJWK(privateKey);
  return { id: randomBytes(6).toString('base64url'), x, d };
}

/**
 * Signs a token.
 * @param name for whom it is; goes into the token
 */
export async function signViewingToken(
  key: SigningKey,
  claims: ViewingClaims & { readonly name: string | undefined; readonly issuedAtUnixMs: number },
): Promise<string> {
  const { id, channels, expiresAtUnixMs, maxConcurrent, name, issuedAtUnixMs } = claims;
  const payload = {
    channels: channels === 'all' ? ALL_CHANNELS : [...channels],
    ...(maxConcurrent === undefined ? {} : { maxConcurrent }),
    ...(name === undefined ? {} : { name }),
  };
  const privateKey = await importJWK({ kty: 'OKP', crv: 'Ed25519', x: key.x, d: key.d }, ALGORITHM);
  return new SignJWT(payload)
    .setProtectedHeader({ alg: ALGORITHM, typ: TYPE, kid: key.id })
    .setJti(id)
    .setIssuedAt(Math.floor(issuedAtUnixMs / 1000))
    .setExpirationTime(Math.floor(expiresAtUnixMs / 1000))
    .sign(privateKey);
}

export type Verdict = ViewingClaims | 'invalid' | 'expired';

interface Remembered {
  readonly claims: ViewingClaims;
  readonly keyId: string;
}

/** Checks tokens: each once, then from memory, where it is found by its digest. */
export class ViewingTokenVerifier {
  readonly #nowUnixMs: () => number;
  #keys: ReadonlyMap<string, ViewingTokenKey> = new Map();
  readonly #remembered = new Map<string, Remembered>();
  readonly #checking = new Map<string, Promise<Verdict>>();

  constructor(nowUnixMs: () => number = Date.now) {
    this.#nowUnixMs = nowUnixMs;
  }

  /** Tokens of keys that are not among them are invalid from now on. */
  setKeys(keys: readonly ViewingTokenKey[]): void {
    this.#keys = new Map(keys.map((key) => [key.id, key]));
    for (const [digest, { keyId }] of this.#remembered) {
      if (!this.#keys.has(keyId)) this.#remembered.delete(digest);
    }
  }

  /**
   * Whether a token is one of ours and still valid. Revocation is not looked at.
   * @returns at once when it has been checked before or has not the form of a token; else a promise, which never rejects
   */
  verify(token: string): Verdict | Promise<Verdict> {
    if (token.length > MAX_TOKEN_CHARS || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return 'invalid';
    const digest = createHash('sha256').update(token).digest('base64url');
    const known = this.#remembered.get(digest);
    if (known !== undefined) {
      if (this.#nowUnixMs() < known.claims.expiresAtUnixMs) return known.claims;
      this.#remembered.delete(digest);
      return 'expired';
    }
    const underWay = this.#checking.get(digest);
    if (underWay !== undefined) return underWay;
    const key = this.#keyOf(token);
    if (key === undefined || this.#checking.size >= MAX_CHECKING) return 'invalid';
    const checking = this.#check(token, key).then((verdict) => {
      this.#checking.delete(digest);
      if (typeof verdict === 'string') return verdict;
      if (!this.#keys.has(key.id)) return 'invalid'; // withdrawn meanwhile
      this.#remember(digest, { claims: verdict, keyId: key.id });
      return verdict;
    });
    this.#checking.set(digest, checking);
    return checking;
  }

  #keyOf(token: string): ViewingTokenKey | undefined {
    try {
      return this.#keys.get(decodeProtectedHeader(token).kid ?? '');
    } catch {
      return undefined;
    }
  }

  async #check(token: string, { x }: ViewingTokenKey): Promise<Verdict> {
    try {
      const key: CryptoKey | Uint8Array = await importJWK({ kty: 'OKP', crv: 'Ed25519', x }, ALGORITHM);
      const { payload } = await jwtVerify(token, key, {
        algorithms: [ALGORITHM],
        typ: TYPE,
        currentDate: new Date(this.#nowUnixMs()),
      });
      if (!Check(Claims, payload)) return 'invalid';
      const { jti, exp, channels, maxConcurrent } = payload;
      return {
        id: jti,
        channels: channels === ALL_CHANNELS ? 'all' : channels,
        expiresAtUnixMs: exp * 1000,
        maxConcurrent,
      };
    } catch (error) {
      return error instanceof errors.JWTExpired ? 'expired' : 'invalid';
    }
  }

  #remember(digest: string, remembered: Remembered): void {
    this.#remembered.set(digest, remembered);
    const [oldest] = this.#remembered.keys();
    if (this.#remembered.size > MAX_REMEMBERED && oldest !== undefined) this.#remembered.delete(oldest);
  }
}

/** Whether the token's holder may watch the channel. */
export function coversChannel({ channels }: ViewingClaims, channel: string): boolean {
  return channels === 'all' || channels.includes(channel);
}

/** The token in an `Authorization` header (RFC 6750, 2.1); undefined when there is none. */
export function bearerToken(authorization: string | undefined): string | undefined {
  return /^bearer +([\x21-\x7e]+)$/i.exec(authorization ?? '')?.[1];
}
