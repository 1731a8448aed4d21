/** Inputs for the fuzzing of the API, from the JSON Schemas of its OpenAPI document: what fits, and what almost does. */
import fc from 'fast-check';

export interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly patternProperties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly pattern?: string;
  readonly format?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly uniqueItems?: boolean;
  readonly examples?: readonly unknown[];
}

/** Texts that have broken other servers: in SQL, paths, headers, templates, logs, and as JSON keys. */
export const hostileTexts = [
  "' or '1'='1",
  "x'; drop table accounts; --",
  '1; select pg_sleep(10)--',
  '$$; copy settings to program $$id$$',
  '../../../../etc/passwd',
  '..%2f..%2fetc%2fpasswd',
  '..\\..\\windows\\win.ini',
  'x\r\nx-injected: yes\r\n\r\n<script>',
  'x%0d%0ax-injected:%20yes',
  '\u0000',
  'a\u0000b',
  '\ud800',
  '\u202e\ufeff',
  '\u0024{jndi:ldap://127.0.0.1/x}',
  '{{7*7}}<img src=x onerror=alert(1)>',
  '__proto__',
  'constructor',
  'toString',
  '%',
  '_',
  '',
  ' ',
  '-1',
  '1e999',
  'NaN',
  'null',
  'http://169.254.169.254/latest/meta-data/',
  'file:///etc/passwd',
  `${'a'.repeat(5000)}`,
  `${'(a+)+$'.repeat(50)}!`,
] as const;

const hostileValues: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  0.1,
  -0,
  2 ** 31,
  2 ** 53,
  1e308,
  [],
  {},
  [[[[[[]]]]]],
  { length: 1e9 },
  { __proto__: null, toString: 1 },
];

const hostile: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(...hostileTexts),
  fc.constantFrom(...hostileValues),
  fc.jsonValue({ maxDepth: 2 }),
);

/** Names that are taken, so that more than the first check is reached. */
export type Known = readonly string[];

/** What a schema takes, as far as a schema says it. */
export function fitting(schema: Schema, known: Known): fc.Arbitrary<unknown> {
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map((one) => fitting(one, known)));
  switch (schema.type) {
    case 'string':
      return fittingText(schema, known);
    case 'integer':
      return fc.integer({ min: minimumOf(schema), max: Math.min(schema.maximum ?? 2 ** 31, 2 ** 31 - 1) });
    case 'number':
      return fc.double({ min: minimumOf(schema), max: schema.maximum ?? 1e9, noNaN: true });
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'array': {
      const length = { minLength: schema.minItems ?? 0, maxLength: Math.min(schema.maxItems ?? 4, 4) };
      const item = fitting(schema.items ?? {}, known);
      return schema.uniqueItems === true
        ? fc.uniqueArray(item, { ...length, comparator: 'IsStrictlyEqual' })
        : fc.array(item, length);
    }
    case 'object': {
      const { properties = {}, required = [], patternProperties } = schema;
      const record = fc.record(
        Object.fromEntries(Object.entries(properties).map(([key, one]) => [key, fitting(one, known)])),
        { requiredKeys: [...required] },
      );
      const [pattern] = Object.values(patternProperties ?? {});
      return pattern === undefined
        ? record
        : fc.dictionary(fc.string({ minLength: 1, maxLength: 8 }), fitting(pattern, known), { maxKeys: 3 });
    }
    default:
      return fc.jsonValue({ maxDepth: 2 });
  }
}

/** Fits but for one place in it, or is something else altogether. */
export function almostFitting(schema: Schema, known: Known): fc.Arbitrary<unknown> {
  return fc.oneof(
    { weight: 3, arbitrary: fitting(schema, known) },
    {
      weight: 4,
      arbitrary: fc
        .tuple(fitting(schema, known), hostile, fc.nat(), fc.boolean())
        .map(([value, bad, place, isAdded]) => withOneChanged(value, bad, place, isAdded)),
    },
    { weight: 1, arbitrary: hostile },
  );
}

function minimumOf({ minimum, exclusiveMinimum }: Schema): number {
  return minimum ?? (exclusiveMinimum === undefined ? -1000 : exclusiveMinimum + 1);
}

function fittingText(schema: Schema, known: Known): fc.Arbitrary<unknown> {
  const { pattern, format, minLength = 0, maxLength = 60 } = schema;
  if (format === 'date-time')
    return fc
      .date({ min: new Date('1970-01-02'), max: new Date('2100-01-01'), noInvalidDate: true })
      .map((date) => date.toISOString());
  if (pattern !== undefined) {
    const matching = fc.stringMatching(new RegExp(pattern), { maxLength: 64 });
    const taken = known.filter((name) => new RegExp(pattern).test(name));
    return taken.length === 0 ? matching : fc.oneof(fc.constantFrom(...taken), matching);
  }
  const fits = (text: string) => text.length >= minLength && text.length <= (schema.maxLength ?? 1e6);
  return fc.oneof(
    fc.constantFrom(...[...hostileTexts, ...known].filter(fits)),
    fc.string({ minLength, maxLength: Math.max(minLength, Math.min(maxLength, 60)), unit: 'binary' }),
  );
}

/** Changes, removes or adds one value somewhere in a JSON value. */
function withOneChanged(value: unknown, bad: unknown, place: number, isAdded: boolean): unknown {
  if (Array.isArray(value)) {
    if (value.length === 0) return [bad];
    const index = place % value.length;
    return value.map((one, at) =>
      at === index ? withOneChanged(one, bad, Math.floor(place / value.length), isAdded) : one,
    );
  }
  if (typeof value !== 'object' || value === null) return bad;
  const keys = Object.keys(value);
  const key = keys[place % (keys.length + 1)];
  if (key === undefined) return isAdded ? { ...value, 'un\u0000known': bad } : {};
  const next = Math.floor(place / (keys.length + 1));
  return { ...value, [key]: withOneChanged(Reflect.get(value, key), bad, next, isAdded) };
}
