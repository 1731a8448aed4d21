/**
 * Requests that are done on a condition. `Idempotency-Key`: not if they were done before; a client that got no answer sends
 * the same again, and gets the answer of the first. `If-Match`: not if the thing is another than the one that was read.
 *
 * Both are decided in the transaction of the change, so that neither a crash nor a second coordinator comes in between.
 *
 * Sources: draft-ietf-httpapi-idempotency-key-header-07; RFC 9110, 13.1.1 (If-Match).
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Kysely } from 'kysely';
import { Type } from 'typebox';
import type { Tables, Transaction } from './database.ts';
import { ApiProblem } from './problem.ts';

/** What is kept of a request for so long; then its key is free again. */
const KEEP_MS = 24 * 3600 * 1000;
/** Answers that are longer are not kept. */
const MAX_ANSWER_CHARS = 64 * 1024;
const IV_BYTES = 12;
const TAG_BYTES = 16;

/** The header of requests that make something. Long enough that nobody guesses it: the answer may hold a secret. */
export const IdempotencyKey = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      pattern: '^[\\x21-\\x7e]{16,128}$',
      description: 'A request with the same key and body is done once; good for 24 hours. A UUID does.',
      examples: ['0d9f7c2e-6a53-4a9b-8a7b-1e6f0c2d4b58'],
    }),
  ),
});

/** The header of requests that change or remove something that can be read at the same address. */
export const IfMatch = Type.Object({
  'if-match': Type.Optional(
    Type.String({
      maxLength: 1000,
      description: 'The ETag of what was read: the request is refused (412) when it is not that any more.',
      examples: ['"2jmj7l5rSw0yVb_vlWAYkK_YBwk"'],
    }),
  ),
});

interface Conditions {
  /** Of the request with its key; undefined where it may be done again. */
  readonly request: { readonly id: string; readonly bodySha256: string; readonly key: string } | undefined;
  /** The number of the last change when `If-Match` was true; undefined once that was compared. */
  revision: number | undefined;
  /** The request is written down. */
  isClaimed: boolean;
  readonly nowMs: number;
}

const conditions = new AsyncLocalStorage<Conditions>();

declare module 'fastify' {
  interface FastifyRequest {
    conditions?: Conditions | undefined;
  }
}

/**
 * Has the transaction of a change fail when a condition of its request is not true, any more or at all.
 * @param revision that the change leads to; undefined for what does not count
 * @throws ApiProblem IDEMPOTENCY_KEY_IN_USE or PRECONDITION_FAILED
 */
export async function meetConditions(transaction: Transaction, revision?: number): Promise<void> {
  const own = conditions.getStore();
  if (own === undefined) return;
  if (own.revision !== undefined && revision !== undefined) {
    if (revision !== own.revision + 1) throw changedMeanwhile();
    own.revision = undefined; // what the request changes further is its own
  }
  if (own.request === undefined || own.isClaimed) return;
  const { id, bodySha256 } = own.request;
  const claimed = await transaction
    .insertInto('idempotency_keys')
    .values({ id, body_sha256: bodySha256, created_at: new Date(own.nowMs) })
    .onConflict((conflict) =>
      conflict
        .column('id')
        .doUpdateSet({ body_sha256: bodySha256, created_at: new Date(own.nowMs), answer: null })
        .where('idempotency_keys.created_at', '<', new Date(own.nowMs - KEEP_MS)),
    )
    .returning('id')
    .executeTakeFirst();
  if (claimed === undefined) throw inUse();
  own.isClaimed = true;
}

/** Looks at the conditions of the requests to the routes that are registered on `app` from now on. */
export function guardConditions(app: FastifyInstance, db: Kysely<Tables>, now: () => number): void {
  app.decorateRequest('conditions', undefined);
  // Once it is known who asks for what.
  app.addHook('preHandler', async (request, reply) => {
    const known = requestOf(request);
    if (known !== undefined) {
      const done = await answerOf(db, known, new Date(now() - KEEP_MS));
      if (done !== undefined) {
        reply.header('idempotency-replayed', 'true');
        if (done.location !== null) reply.header('location', done.location);
        if (done.body !== '') reply.type('application/json; charset=utf-8');
        return reply.code(done.status).serializer(String).send(done.body);
      }
    }
    const revision = await revisionToChange(app, db, request);
    if (known !== undefined || revision !== undefined)
      request.conditions = { request: known, revision, isClaimed: false, nowMs: now() };
  });
  app.addHook('preHandler', (request, _reply, done) => {
    if (request.conditions === undefined) done();
    else conditions.run(request.conditions, done);
  });
  app.addHook('onSend', async (request, reply, payload) => {
    const own = request.conditions;
    if (own?.request === undefined || reply.statusCode >= 300) return payload;
    const body = typeof payload === 'string' ? payload : '';
    if (body.length > MAX_ANSWER_CHARS) return payload;
    const location = reply.getHeader('location');
    const answer: Answer = {
      status: reply.statusCode,
      location: typeof location === 'string' ? location : null,
      body,
    };
    await keepAnswer(db, own.request, answer, now());
    return payload;
  });
}

interface Answer {
  readonly status: number;
  readonly location: string | null;
  readonly body: string;
}

/** Of a POST with a key, by somebody who is known. Who asks is part of what the request is. */
function requestOf(request: FastifyRequest): Conditions['request'] {
  const { caller, method, routeOptions } = request;
  const key = request.headers['idempotency-key'];
  // An answer of a login is its cookie, which is not kept.
  const isOpen = routeOptions.config.access === 'public';
  if (method !== 'POST' || typeof key !== 'string' || caller === undefined || isOpen) return undefined;
  return {
    id: sha256(`${caller.id}\n${caller.account}\n${key}`).toString('hex'),
    bodySha256: sha256(`${routeOptions.url}\n${request.url}\n${JSON.stringify(request.body)}`).toString(
      'hex',
    ),
    key,
  };
}

/**
 * @param since requests before it are forgotten
 * @returns undefined when the request was not done yet
 * @throws ApiProblem IDEMPOTENCY_KEY_REUSED for another request, IDEMPOTENCY_KEY_IN_USE while there is no answer
 */
async function answerOf(
  db: Kysely<Tables>,
  { id, bodySha256, key }: NonNullable<Conditions['request']>,
  since: Date,
): Promise<Answer | undefined> {
  const row = await db
    .selectFrom('idempotency_keys')
    .select(['body_sha256', 'answer'])
    .where('id', '=', id)
    .where('created_at', '>', since)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  if (row.body_sha256 !== bodySha256) {
    throw new ApiProblem(
      'IDEMPOTENCY_KEY_REUSED',
      'Another request was made with this key. Make a new key for each request.',
    );
  }
  if (row.answer === null) throw inUse();
  const answer: unknown = JSON.parse(opened(row.answer, key));
  return answer as Answer;
}

async function keepAnswer(
  db: Kysely<Tables>,
  { id, bodySha256, key }: NonNullable<Conditions['request']>,
  answer: Answer,
  nowMs: number,
): Promise<void> {
  await db
    .deleteFrom('idempotency_keys')
    .where('created_at', '<', new Date(nowMs - KEEP_MS))
    .execute();
  const sealedAnswer = sealed(JSON.stringify(answer), key);
  await db
    .insertInto('idempotency_keys')
    .values({ id, body_sha256: bodySha256, created_at: new Date(nowMs), answer: sealedAnswer })
    .onConflict((conflict) => conflict.column('id').doUpdateSet({ answer: sealedAnswer }))
    .execute();
}

/**
 * Compares what can be read at the address of a change with what `If-Match` says.
 * @returns the number of the change before it; undefined without a condition
 * @throws ApiProblem PRECONDITION_FAILED
 */
async function revisionToChange(
  app: FastifyInstance,
  db: Kysely<Tables>,
  request: FastifyRequest,
): Promise<number | undefined> {
  const wanted = request.headers['if-match'];
  const { url: route = '' } = request.routeOptions;
  if (wanted === undefined || !['PUT', 'PATCH', 'DELETE'].includes(request.method)) return undefined;
  if (!app.hasRoute({ method: 'GET', url: route })) {
    throw new ApiProblem('PRECONDITION_FAILED', 'Nothing can be read at this address, so nothing has a tag.');
  }
  const { value } = await db
    .selectFrom('settings')
    .select('value')
    .where('name', '=', 'revision')
    .executeTakeFirstOrThrow();
  const { authorization, cookie } = request.headers;
  const read = await app.inject({
    method: 'GET',
    url: request.url,
    headers: {
      ...(authorization !== undefined && { authorization }),
      ...(cookie !== undefined && { cookie }),
    },
  });
  const tag = read.headers.etag;
  // Strong comparison: RFC 9110, 13.1.1. A tag in quotes holds no comma of ours.
  const isTrue =
    read.statusCode === 200 && (wanted.trim() === '*' || wanted.split(',').some((one) => one.trim() === tag));
  if (!isTrue) throw changedMeanwhile();
  return Number(value);
}

function changedMeanwhile(): ApiProblem {
  return new ApiProblem(
    'PRECONDITION_FAILED',
    'It is not what was read any more. Read it again, then decide.',
  );
}

function inUse(): ApiProblem {
  return new ApiProblem(
    'IDEMPOTENCY_KEY_IN_USE',
    'The request with this key is being done, or was done and its answer was lost. Ask again in a moment; if this stays, look whether it was done.',
    { retryAfterSeconds: 1 },
  );
}

const sha256 = (text: string) => createHash('sha256').update(text).digest();

/** The answer may hold a secret, which only who has the key of the request is to read: the key itself is not kept. */
function sealed(text: string, key: string): string {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keyFrom(key), iv);
  const body = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), body]).toString('base64');
}

function opened(sealedText: string, key: string): string {
  const bytes = Buffer.from(sealedText, 'base64');
  const decipher = createDecipheriv('aes-256-gcm', keyFrom(key), bytes.subarray(0, IV_BYTES));
  decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
  return Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]).toString();
}

function keyFrom(key: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, '', 'starling idempotent answer', 32));
}
