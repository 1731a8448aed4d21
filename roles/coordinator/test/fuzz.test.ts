/**
 * Every operation of the OpenAPI document, with bodies, paths, queries and headers made from its schemas and from what has
 * broken other servers. Whatever comes in, nothing fails, nothing of the inside is told, and nothing else is changed.
 */
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { problemCatalogue } from '../src/problem.ts';
import { almostFitting, fitting, hostileTexts, type Schema } from './schema-arbitrary.ts';
import { addReadyAsset, type Lab, nodeToken, operatorToken, startLab } from './support.ts';

const isSoak = process.env.STARLING_SOAK === '1';
const REQUESTS_PER_OPERATION = isSoak ? 1000 : 10;
/** Printed where it fails; `STARLING_SEED` runs it again. */
const SEED = Number(process.env.STARLING_SEED ?? Math.floor(Math.random() * 2 ** 31));
const PASSWORD = 'correct horse battery';

interface Parameter {
  readonly in: string;
  readonly name: string;
  readonly schema: Schema;
}

interface Operation {
  readonly method: string;
  readonly path: string;
  readonly isForNodes: boolean;
  readonly parameters: readonly Parameter[];
  readonly body: Schema | undefined;
}

interface Document {
  readonly paths: Readonly<
    Record<
      string,
      Readonly<
        Record<
          string,
          {
            readonly security?: readonly Record<string, unknown>[];
            readonly parameters?: readonly Parameter[];
            readonly requestBody?: { readonly content: Record<string, { readonly schema: Schema }> };
          }
        >
      >
    >
  >;
}

/** Answers of these never end. */
const ENDLESS = /\/watch$/;

let lab: Lab;
const operations: Operation[] = [];
/** What there is, for paths and references to meet. */
const known: string[] = ['cam', 'films', 'ada', 'out'];
/** That no answer may hold; the operator's and the node's token among them. */
const secrets: string[] = [operatorToken, nodeToken, PASSWORD];

beforeAll(async () => {
  lab = await startLab();
  const { operator } = lab;
  const asset = await addReadyAsset(lab, 'film', 10);
  const { key } = await operator.streams.create({ name: 'cam' });
  await operator.channels.create({ name: 'films', title: 'Films', loop: [asset] });
  await operator.accounts.create({ name: 'ada', role: 'editor', password: PASSWORD });
  await operator.destinations.create({
    name: 'out',
    channel: 'films',
    url: 'rtmp://127.0.0.1:1/app/hidden-key',
  });
  const webhook = await operator.webhooks.create({ url: 'http://127.0.0.1:1/?password=hidden-password' });
  known.push(asset, webhook.webhook.id);
  secrets.push(key ?? '', webhook.secret ?? '', 'hidden-key', 'hidden-password');
  const document = (await (await lab.request('GET', '/api/openapi.json')).json()) as Document;
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, { security = [], parameters = [], requestBody }] of Object.entries(methods)) {
      if (ENDLESS.test(path)) continue;
      operations.push({
        method: method.toUpperCase(),
        path,
        isForNodes: security.some((one) => 'node' in one),
        parameters,
        body: requestBody?.content['application/json']?.schema,
      });
    }
  }
}, 60_000);
afterAll(() => lab.close());

interface Attempt {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
}

/** A header value as a client can send it; others never leave it. */
const headerText = fc.constantFrom(...hostileTexts.filter((text) => /^[\t\x20-\x7e]*$/.test(text)));

function attemptsOf({ method, path, parameters, body }: Operation): fc.Arbitrary<Attempt> {
  const textFor = ({ schema }: Parameter) =>
    fc.oneof(fitting(schema, known), fc.constantFrom<unknown>(...hostileTexts)).map(String);
  const inPath = parameters.filter((one) => one.in === 'path');
  const inQuery = parameters.filter((one) => one.in === 'query');
  return fc
    .record({
      inPath: fc.tuple(...inPath.map(textFor)),
      inQuery: fc.tuple(...inQuery.map((one) => fc.option(textFor(one), { nil: undefined }))),
      strange: fc.option(fc.tuple(fc.constantFrom(...hostileTexts), fc.constantFrom(...hostileTexts)), {
        freq: 8,
        nil: undefined,
      }),
      headers: fc.dictionary(
        fc.constantFrom(
          'if-none-match',
          'x-forwarded-host',
          'accept',
          'range',
          'cookie',
          'origin',
          'referer',
        ),
        headerText,
        { maxKeys: 2 },
      ),
      body:
        body === undefined
          ? fc.constant(undefined)
          : fc.oneof(
              {
                weight: 12,
                arbitrary: almostFitting(body, known).map((value) => JSON.stringify(value) ?? 'undefined'),
              },
              {
                weight: 1,
                arbitrary: fc.constantFrom('', '{', '[[[[', '{"a":1,"a":2}', '{"__proto__":{"x":1}}'),
              },
              { weight: 1, arbitrary: fc.constantFrom('['.repeat(20_000), `"${'a'.repeat(100_000)}"`) },
              { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
            ),
    })
    .map(({ inPath: values, inQuery: queries, strange, headers, body: text }) => {
      const filled = inPath.reduce(
        (so, { name }, index) => so.replace(`{${name}}`, encoded(values[index] ?? '')),
        path,
      );
      const pairs = inQuery.flatMap(({ name }, index) =>
        queries[index] === undefined ? [] : [`${name}=${encoded(queries[index])}`],
      );
      if (strange !== undefined) pairs.push(`${encoded(strange[0])}=${encoded(strange[1])}`);
      return {
        path: pairs.length === 0 ? filled : `${filled}?${pairs.join('&')}`,
        headers: { ...headers, ...(text !== undefined && { 'content-type': 'application/json' }) },
        body: method === 'GET' ? undefined : text,
      };
    });
}

/** Half a surrogate pair cannot be encoded. An empty segment would be another address. */
const encoded = (text: string) =>
  encodeURIComponent(text.replace(/\p{Surrogate}/gu, '\ufffd') || '%').replaceAll('.', '%2e');

/** What the inside of a server looks like from outside. */
const INSIDES =
  /\bat .{1,200}:\d+:\d+\b|node_modules|\.ts:\d|roles\/coordinator|syntax error at|violates .{1,40} constraint|relation "|\bpg_(?!sleep)|kysely|PGlite|\$argon2/i;

/** The operator token is exempt from the limits on this machine; it opens what is for people, and not what is for nodes. */
async function check({ method, isForNodes }: Operation, { path, headers, body }: Attempt): Promise<void> {
  const response = await fetch(`${lab.url}${path}`, {
    method,
    redirect: 'manual',
    signal: AbortSignal.timeout(20_000),
    headers: { ...headers, authorization: `Bearer ${isForNodes ? nodeToken : operatorToken}` },
    ...(body === undefined ? {} : { body }),
  });
  const text = await response.text();
  const answer = `${response.status} ${text.slice(0, 500)}`;
  expect(response.status, answer).toBeLessThan(500);
  expect(response.headers.get('x-injected')).toBe(null);
  const type = response.headers.get('content-type') ?? '';
  if (response.status >= 400) {
    expect(type, answer).toMatch(/^application\/problem\+json/);
    const problem: unknown = JSON.parse(text);
    expect(problem).toMatchObject({
      status: response.status,
      code: expect.toSatisfy((code: string) => code in problemCatalogue),
    });
    expect(text).not.toMatch(INSIDES);
  }
  // What the backup is for is to hold them, and a watched path may be called anything.
  if (!path.startsWith('/api/v1/backup'))
    for (const secret of secrets)
      if (!(body ?? '').includes(secret) && !path.includes(secret)) expect(text).not.toContain(secret);
}

it(
  `does no harm, ${REQUESTS_PER_OPERATION} times for each operation`,
  async () => {
    expect(operations.length).toBeGreaterThan(80);
    const tablesBefore = await tables();
    // What destroys what the others need comes last.
    const order = operations.toSorted(
      (a, b) => Number(a.method === 'DELETE') - Number(b.method === 'DELETE'),
    );
    const statuses = new Map<string, number>();
    for (const operation of order) {
      const property = fc.asyncProperty(attemptsOf(operation), async (attempt) => {
        const name = `${operation.method} ${operation.path}`;
        statuses.set(name, (statuses.get(name) ?? 0) + 1);
        await check(operation, attempt);
      });
      await fc.assert(property, { numRuns: REQUESTS_PER_OPERATION, seed: SEED });
    }
    expect(statuses.size).toBe(operations.length);
    expect(await tables()).toEqual(tablesBefore);
    expect((await lab.request('GET', '/readyz')).status).toBe(200);
    // Nothing was logged as a fault of ours.
    const faults = lab.log.filter((line) => Number(JSON.parse(line).level) >= 50);
    expect(faults).toEqual([]);
    for (const secret of secrets) expect(lab.log.filter((line) => line.includes(secret))).toEqual([]);
  },
  240_000 + REQUESTS_PER_OPERATION * 1500,
);

/** The tables that a backup holds: none was dropped, and none is new. */
async function tables(): Promise<string[]> {
  const response = await lab.request('GET', '/api/v1/backup', { token: operatorToken });
  const text = gunzipSync(Buffer.from(await response.arrayBuffer())).toString();
  return [...new Set([...text.matchAll(/^\{"table":"(\w+)"/gm)].map(([, name = '']) => name))];
}
