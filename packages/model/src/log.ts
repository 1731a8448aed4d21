/** Lines of the log on their way from a node to the coordinator and to who reads them. Secrets are taken out at the node. */
import { type Static, Type } from 'typebox';
import { Name } from './entities.ts';
import { NodeName } from './node-health.ts';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export const LogLevel = Type.Enum(logLevels);
export type LogLevel = (typeof logLevels)[number];

/** Of a line, as JSON; longer ones are cut. */
export const MAX_LOG_LINE_CHARS = 8192;
export const MAX_LOG_BATCH = 200;

const lineFields = {
  at: Type.String({ format: 'date-time' }),
  level: LogLevel,
  message: Type.String({ maxLength: MAX_LOG_LINE_CHARS }),
  /** Which it is about; null where it is about none. */
  channel: Type.Union([Type.String({ maxLength: 63 }), Type.Null()]),
  /** Whatever else it says. */
  fields: Type.Record(Type.String(), Type.Unknown()),
};

export const ShippedLogLine = Type.Object(lineFields);
export type ShippedLogLine = Static<typeof ShippedLogLine>;

/** From a node. */
export const LogBatch = Type.Object({
  node: NodeName,
  lines: Type.Array(ShippedLogLine, { maxItems: MAX_LOG_BATCH }),
  /** Lines before these that the node had no room for. */
  droppedCount: Type.Integer({ minimum: 0 }),
});
export type LogBatch = Static<typeof LogBatch>;

export const LogLine = Type.Object({
  /** Ascending in the order in which the coordinator got them. */
  id: Type.Integer({ minimum: 0 }),
  node: NodeName,
  ...lineFields,
});
export type LogLine = Static<typeof LogLine>;

export const LogQuery = Type.Object({
  node: Type.Optional(NodeName),
  channel: Type.Optional(Name),
  /** And what is worse. */
  level: Type.Optional(LogLevel),
  since: Type.Optional(Type.String({ format: 'date-time' })),
  /** The newest of them: 200 when left out. */
  limit: Type.Optional(Type.String({ pattern: '^([1-9]\\d{0,2}|[1-4]\\d{3}|5000)$', examples: ['200'] })),
});
export type LogQuery = Static<typeof LogQuery>;

const levelsByPino: Readonly<Record<number, LogLevel>> = {
  10: 'trace',
  20: 'debug',
  30: 'info',
  40: 'warn',
  50: 'error',
  60: 'fatal',
};

/**
 * A line as pino writes it, without secrets.
 * @returns undefined for what is none
 */
export function shippedLogLine(json: string): ShippedLogLine | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch {
    return undefined;
  }
  if (typeof parsed !== 'object' || parsed === null) return undefined;
  const { level, time, msg, ...rest } = parsed as Record<string, unknown>;
  const atMs = typeof time === 'string' || typeof time === 'number' ? new Date(time).getTime() : Number.NaN;
  if (Number.isNaN(atMs)) return undefined;
  const fields = withoutSecrets(rest) as Record<string, unknown>;
  return {
    at: new Date(atMs).toISOString(),
    level: levelsByPino[Number(level)] ?? 'info',
    message: scrubbed(typeof msg === 'string' ? msg : '').slice(0, MAX_LOG_LINE_CHARS),
    channel: typeof rest.channel === 'string' ? rest.channel.slice(0, 63) : null,
    fields: JSON.stringify(fields).length > MAX_LOG_LINE_CHARS ? { isTooLong: true } : fields,
  };
}

const SECRET = '(secret)';
const secretName =
  /pass(word|phrase|wd)?$|secret|token$|^authorization$|cookie|(^|[a-z_-])key$|^key$|^code$/i;
const MAX_DEPTH = 6;

/** What stands under a name that secrets have, and what looks like one in a text, is replaced. */
function withoutSecrets(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return scrubbed(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= MAX_DEPTH) return '(deep)';
  if (Array.isArray(value)) return value.map((item) => withoutSecrets(item, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [
      name,
      secretName.test(name) && typeof item === 'string' && !isErrorCode(name, item)
        ? SECRET
        : withoutSecrets(item, depth + 1),
    ]),
  );
}

/** `code` of an error, such as ECONNREFUSED, and not that of a second factor. */
const isErrorCode = (name: string, text: string) => name === 'code' && /^[A-Z][A-Z0-9_.]+$/.test(text);

/**
 * Tokens and keys where they stand in texts: queries of addresses, passwords in addresses, headers, and what the network makes itself
 * (stream keys, API tokens, webhook secrets, JSON Web Tokens).
 */
function scrubbed(text: string): string {
  return text
    .replace(
      /([?&;\s](?:token|key|passphrase|password|secret|code|streamid|sig|signature)=)[^&\s"'<>]+/gi,
      `$1${SECRET}`,
    )
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^/\s@"'<>]+@/gi, `$1${SECRET}@`)
    .replace(/\b(Bearer|Basic)\s+[\w.~+/=-]+/gi, `$1 ${SECRET}`)
    .replace(/\b(?:sk_|sat_|whsec_)[\w-]{10,}/g, SECRET)
    .replace(/\beyJ[\w-]+\.[\w-]+\.[\w-]+/g, SECRET)
    .replace(/\b(starling=)[\w-]{20,}/g, `$1${SECRET}`);
}
