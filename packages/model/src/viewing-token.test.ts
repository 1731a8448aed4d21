/** Checked against Node's own Ed25519, not against the library that makes and reads the tokens. */
import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  bearerToken,
  coversChannel,
  newSigningKey,
  type SigningKey,
  signViewingToken,
  type Verdict,
  ViewingTokenVerifier,
} from './viewing-token.ts';

const NOW_UNIX_MS = Date.UTC(2026, 10, 22, 12);
const claims = {
  id: 'token-1',
  channels: ['films', 'sport'],
  expiresAtUnixMs: NOW_UNIX_MS + 60_000,
  maxConcurrent: 2,
  name: 'Ada',
  issuedAtUnixMs: NOW_UNIX_MS,
};

let nowUnixMs = NOW_UNIX_MS;
let key: SigningKey;
let verifier: ViewingTokenVerifier;
beforeEach(async () => {
  nowUnixMs = NOW_UNIX_MS;
  key = await newSigningKey();
  verifier = new ViewingTokenVerifier(() => nowUnixMs);
  verifier.setKeys([key]);
});

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const decode = (part: string | undefined): unknown =>
  JSON.parse(Buffer.from(part ?? '', 'base64url').toString());

/** A token made by hand. */
function forge(header: object, payload: object, by = key): string {
  const signed = `${encode(header)}.${encode(payload)}`;
  const privateKey = createPrivateKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: by.x, d: by.d },
    format: 'jwk',
  });
  return `${signed}.${sign(null, Buffer.from(signed), privateKey).toString('base64url')}`;
}

const header = () => ({ alg: 'EdDSA', typ: 'viewing+jwt', kid: key.id });
const payload = { jti: 'x', exp: claims.expiresAtUnixMs / 1000, channels: ['films'] };

describe('a token', () => {
  it('is a JWT that others can read and check', async () => {
    const token = await signViewingToken(key, claims);
    const [head, body, signature = ''] = token.split('.');
    expect(decode(head)).toEqual(header());
    expect(decode(body)).toEqual({
      jti: 'token-1',
      iat: NOW_UNIX_MS / 1000,
      exp: NOW_UNIX_MS / 1000 + 60,
      channels: ['films', 'sport'],
      maxConcurrent: 2,
      name: 'Ada',
    });
    const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: key.x }, format: 'jwk' });
    expect(verify(null, Buffer.from(`${head}.${body}`), publicKey, Buffer.from(signature, 'base64url'))).toBe(
      true,
    );
  });

  it('tells what it was made for, the second time at once', async () => {
    const token = await signViewingToken(key, claims);
    const { id, channels, expiresAtUnixMs, maxConcurrent } = claims;
    const expected = { id, channels, expiresAtUnixMs, maxConcurrent };
    const first = verifier.verify(token);
    expect(first).toBeInstanceOf(Promise);
    expect(verifier.verify(token)).toBe(first); // the same check, not another
    expect(await first).toEqual(expected);
    expect(verifier.verify(token)).toEqual(expected);
  });

  it('made by another implementation is taken, too', async () => {
    expect(await verifier.verify(forge(header(), payload))).toMatchObject({ id: 'x', channels: ['films'] });
  });

  it('expires, also when it is remembered', async () => {
    const token = await signViewingToken(key, claims);
    await verifier.verify(token);
    nowUnixMs = claims.expiresAtUnixMs - 1;
    expect(verifier.verify(token)).toMatchObject({ id: 'token-1' });
    nowUnixMs = claims.expiresAtUnixMs;
    expect(verifier.verify(token)).toBe('expired');
    expect(await verifier.verify(token)).toBe('expired');
  });

  it('is invalid once its key has been withdrawn, also when it is remembered or being checked', async () => {
    const [remembered, underWay] = [await signViewingToken(key, claims), forge(header(), payload)];
    await verifier.verify(remembered);
    const verdict = verifier.verify(underWay);
    verifier.setKeys([await newSigningKey()]);
    expect(await verdict).toBe('invalid');
    expect(await verifier.verify(remembered)).toBe('invalid');
  });

  it('stays valid when another key is added', async () => {
    const token = await signViewingToken(key, claims);
    const newer = await newSigningKey();
    verifier.setKeys([newer, key]);
    expect(await verifier.verify(token)).toMatchObject({ id: 'token-1' });
    expect(await verifier.verify(await signViewingToken(newer, claims))).toMatchObject({ id: 'token-1' });
  });
});

describe('what is no token of ours', () => {
  const other: SigningKey = {
    id: 'other',
    // RFC 8037, appendix A.1.
    x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo',
    d: 'nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A',
  };
  const cases: [string, () => string][] = [
    ['an empty text', () => ''],
    ['a word', () => 'token'],
    ['three words', () => 'a.b.c'],
    ['a text without end', () => `${'a'.repeat(5000)}.b.c`],
    ['another signer', () => forge(header(), payload, other)],
    ['an unknown key', () => forge({ ...header(), kid: 'other' }, payload, other)],
    ['no key', () => forge({ alg: 'EdDSA', typ: 'viewing+jwt' }, payload)],
    ['no signature', () => `${encode({ ...header(), alg: 'none' })}.${encode(payload)}.`],
    ['another algorithm', () => forge({ ...header(), alg: 'HS256' }, payload)],
    ['another type', () => forge({ ...header(), typ: 'JWT' }, payload)],
    ['no expiry', () => forge(header(), { jti: 'x', channels: ['films'] })],
    ['no id', () => forge(header(), { exp: payload.exp, channels: ['films'] })],
    ['no channels', () => forge(header(), { jti: 'x', exp: payload.exp })],
    ['channels that cannot be', () => forge(header(), { ...payload, channels: ['../x'] })],
    ['a limit of none', () => forge(header(), { ...payload, maxConcurrent: 0 })],
    [
      'a changed claim',
      () => {
        const [head, , signature] = forge(header(), payload).split('.');
        return `${head}.${encode({ ...payload, channels: '*' })}.${signature}`;
      },
    ],
  ];
  it.each(cases)('%s', async (_, token) => {
    expect(await verifier.verify(token())).toBe('invalid');
  });
});

it('remembers ten thousand tokens, and forgets the oldest first', async () => {
  const tokens = ['t0', 't1', 't2'].map((jti) => forge(header(), { ...payload, jti }));
  for (const token of tokens) await verifier.verify(token);
  const answers = (): (Verdict | Promise<Verdict>)[] => tokens.map((token) => verifier.verify(token));
  expect(answers().some((answer) => answer instanceof Promise)).toBe(false);
  for (let number = 0; number < 9_998; number++) {
    await verifier.verify(forge(header(), { ...payload, jti: `u${number}` }));
  }
  expect(answers().map((answer) => answer instanceof Promise)).toEqual([true, false, false]);
}, 30_000);

it('covers its channels, or all', () => {
  expect(coversChannel(claims, 'films')).toBe(true);
  expect(coversChannel(claims, 'film')).toBe(false);
  expect(coversChannel({ ...claims, channels: 'all' }, 'anything')).toBe(true);
});

it.each([
  ['Bearer a.b.c', 'a.b.c'],
  ['bearer   a', 'a'],
  ['Basic abc', undefined],
  ['Bearer a b', undefined],
  ['', undefined],
  [undefined, undefined],
])('reads the header %j', (text, token) => {
  expect(bearerToken(text)).toBe(token);
});
