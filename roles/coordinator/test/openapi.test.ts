/** The OpenAPI document, as somebody reads it who writes a client. */
import { Check } from 'typebox/value';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Schema } from './schema-arbitrary.ts';
import { type Lab, startLab } from './support.ts';

interface Media {
  readonly schema?: Schema;
  readonly example?: unknown;
  readonly examples?: Readonly<Record<string, { readonly value: unknown }>>;
}
interface Operation {
  readonly summary?: string;
  readonly tags?: readonly string[];
  readonly requestBody?: { readonly content: Readonly<Record<string, Media>> };
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, Media>> }>>;
}

let lab: Lab;
let document: { openapi: string; paths: Record<string, Record<string, Operation>> };
beforeAll(async () => {
  lab = await startLab();
  document = (await (await lab.request('GET', '/api/openapi.json')).json()) as typeof document;
}, 60_000);
afterAll(() => lab.close());

const operations = () =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      name: `${method.toUpperCase()} ${path}`,
      operation,
    })),
  );

it('is of version 3.1, and every operation says in a sentence what it does', () => {
  expect(document.openapi).toMatch(/^3\.1\./);
  const silent = operations().filter(({ operation: { summary, tags } }) => !summary || !tags?.length);
  expect(silent.map(({ name }) => name)).toEqual([]);
});

it('has an example of every body and every answer in JSON, and each is what its schema takes', () => {
  const problems: string[] = [];
  let count = 0;
  const look = (where: string, media: Media | undefined) => {
    if (
      media?.schema === undefined ||
      ['null', undefined].includes(media.schema.type ?? (media.schema.anyOf && 'any'))
    )
      return;
    const values = Object.values(media.examples ?? {}).map(({ value }) => value);
    if (media.example !== undefined) values.push(media.example);
    // Where an answer comes in several forms, the example is in the schema.
    values.push(...(media.schema.examples ?? []));
    if (values.length === 0) problems.push(`${where}: none`);
    for (const value of values) {
      count++;
      if (!Check(media.schema as never, value)) problems.push(`${where}: ${JSON.stringify(value)}`);
    }
  };
  for (const { name, operation } of operations()) {
    look(`${name}, body`, operation.requestBody?.content['application/json']);
    for (const [status, { content }] of Object.entries(operation.responses))
      if (status.startsWith('2')) look(`${name}, ${status}`, content?.['application/json']);
  }
  expect(problems).toEqual([]);
  expect(count).toBeGreaterThan(60);
  // The check itself does check.
  expect(
    Check({ type: 'object', required: ['a'], properties: { a: { type: 'integer' } } } as never, { a: 'x' }),
  ).toBe(false);
});

it('is shown at /api/docs', async () => {
  const page = await lab.request('GET', '/api/docs/static/index.html');
  expect([200, 302]).toContain(page.status);
  expect((await lab.request('GET', '/api/docs')).status).toBe(200);
});
