/** Examples for the OpenAPI document: of every body and every answer, made from those of the smallest parts of their schemas. */
import type { FastifySchema } from 'fastify';
import type { TSchema } from 'typebox';

const JSON_TYPE = 'application/json';
const TIME = '2026-11-22T12:00:00.000Z';

interface Node {
  readonly type?: string;
  readonly examples?: readonly unknown[];
  readonly const?: unknown;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Node[];
  readonly format?: string;
  readonly pattern?: string;
  readonly minLength?: number;
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly items?: Node;
  readonly properties?: Readonly<Record<string, Node>>;
}

/** A schema of a route as the document shows it; the route itself keeps its own. */
export function withExamples(schema: FastifySchema): FastifySchema {
  const { body, response } = schema;
  return {
    ...schema,
    ...(isSchema(body) && { body: withExample(body) }),
    ...(typeof response === 'object' &&
      response !== null && {
        response: Object.fromEntries(
          Object.entries(response).map(([status, answer]) => [
            status,
            status.startsWith('2') ? answerWithExample(answer) : answer,
          ]),
        ),
      }),
  };
}

/** Of an answer that comes in several forms, that in JSON has one. */
function answerWithExample(answer: unknown): unknown {
  if (isSchema(answer)) return withExample(answer);
  const json: unknown = (answer as Forms | undefined)?.content?.[JSON_TYPE]?.schema;
  if (!isSchema(json)) return answer;
  const { content } = answer as Forms;
  return { ...(answer as Forms), content: { ...content, [JSON_TYPE]: { schema: withExample(json) } } };
}

interface Forms {
  readonly content?: Readonly<Record<string, { readonly schema?: unknown }>>;
}

function isSchema(value: unknown): value is TSchema & Node {
  return typeof value === 'object' && value !== null && ('type' in value || 'anyOf' in value);
}

function withExample(schema: TSchema & Node): TSchema {
  return schema.type === 'null' ? schema : { ...schema, examples: [exampleOf(schema)] };
}

/** What a schema takes; where a text has to have a form, its own example says so. */
export function exampleOf(schema: Node): unknown {
  if (schema.examples !== undefined) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.default !== undefined) return schema.default;
  if (schema.enum !== undefined) return schema.enum[0];
  const [first] = schema.anyOf?.filter(({ type }) => type !== 'null') ?? [];
  if (first !== undefined) return exampleOf(first);
  const { minimum, exclusiveMinimum, maximum } = schema;
  switch (schema.type) {
    case 'string':
      return schema.format === 'date-time' ? TIME : textOf(schema);
    case 'integer':
    case 'number':
      return Math.min(Math.max(1, minimum ?? 1, (exclusiveMinimum ?? 0) + 1), maximum ?? Number.MAX_VALUE);
    case 'boolean':
      return true;
    case 'array':
      return schema.items === undefined ? [] : [exampleOf(schema.items)];
    case 'object':
      return Object.fromEntries(
        Object.entries(schema.properties ?? {}).map(([key, property]) => [key, exampleOf(property)]),
      );
    default:
      return null;
  }
}

/** Of a pattern that is a number of characters of one class, such as those of ids and digests: `a` is in all of them. */
function textOf({ pattern, minLength = 0 }: Node): string {
  const length = /^\^\[[^\]]+\]\{(?:\d+,)?(\d+)\}\$$/.exec(pattern ?? '')?.[1];
  return length === undefined ? 'text'.padEnd(minLength, '.') : 'a'.repeat(Number(length));
}
