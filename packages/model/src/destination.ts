/**
 * Where a channel is pushed to beside our own frontends: an RTMP or RTMPS server, or an SRT listener. The address
 * holds a stream key, so there is a form of it for people to see.
 */
import { type Static, Type } from 'typebox';

const EntityName = Type.String({ pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$', examples: ['youtube'] });

/** What happens at a destination. */
export const DestinationState = Type.Union([
  Type.Literal('off', { description: 'there is nothing to send' }),
  Type.Literal('connecting'),
  Type.Literal('sending'),
  Type.Literal('waiting', { description: 'it failed, and is tried again later' }),
]);
export type DestinationState = Static<typeof DestinationState>;

/** What the backend says of a destination. */
export const DestinationStatus = Type.Object({
  state: DestinationState,
  since: Type.String({ format: 'date-time' }),
  /** Why it waits or is off; while it is sent to, what of the channel it does not get. */
  reason: Type.Union([Type.String({ maxLength: 1000 }), Type.Null()]),
  /** Null unless it waits. */
  retryAt: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]),
  /** What the network took in the last seconds. */
  bitrateBps: Type.Integer({ minimum: 0 }),
  /** Since the backend has had the destination, over all connections. */
  sentBytes: Type.Integer({ minimum: 0 }),
  /** Access units that were left out because it took them too slowly. */
  droppedUnits: Type.Integer({ minimum: 0 }),
  /** Times that a connection broke off or did not come about. */
  failures: Type.Integer({ minimum: 0 }),
});
export type DestinationStatus = Static<typeof DestinationStatus>;

/** A destination as the API shows it, without what is secret. */
export const Destination = Type.Object({
  name: EntityName,
  channel: EntityName,
  /** Of the address what may be seen; the stream key is `***`. */
  address: Type.String({ examples: ['rtmps://a.rtmps.youtube.com/live2/***'] }),
  isEnabled: Type.Boolean(),
  /** It takes codecs of Enhanced RTMP, and not only H.264, AAC and MP3. */
  takesEnhancedCodecs: Type.Boolean(),
  /** RTMPS: also a certificate that nobody vouches for. */
  acceptsAnyCertificate: Type.Boolean(),
  createdAt: Type.String({ format: 'date-time' }),
  /** Null while no backend reports on it, and for one that is not enabled. */
  status: Type.Union([DestinationStatus, Type.Null()]),
});
export type Destination = Static<typeof Destination>;

/** Asks for a channel to be pushed to an address. */
export const NewDestination = Type.Object(
  {
    name: EntityName,
    channel: EntityName,
    /** `rtmp[s]://host[:port]/app/key` or `srt://host:port?streamid=...&passphrase=...`. */
    url: Type.String({ minLength: 1, maxLength: 2048, examples: ['rtmp://live.example.org/app/key'] }),
    isEnabled: Type.Optional(Type.Boolean()),
    takesEnhancedCodecs: Type.Optional(Type.Boolean()),
    acceptsAnyCertificate: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
export type NewDestination = Static<typeof NewDestination>;

/** Changes a destination. */
export const DestinationUpdate = Type.Object({ isEnabled: Type.Boolean() }, { additionalProperties: false });
export type DestinationUpdate = Static<typeof DestinationUpdate>;

/** An enabled destination as the backend needs it, secrets included. */
export const DestinationSettings = Type.Object({
  name: EntityName,
  channel: EntityName,
  url: Type.String(),
  takesEnhancedCodecs: Type.Boolean(),
  acceptsAnyCertificate: Type.Boolean(),
});
export type DestinationSettings = Static<typeof DestinationSettings>;

/** An address, taken apart. */
export type DestinationTarget =
  | {
      readonly protocol: 'rtmp' | 'rtmps';
      readonly host: string;
      readonly port: number;
      readonly app: string;
      /** With its query; secret. */
      readonly streamName: string;
      /** As it is written in the `connect` command. */
      readonly tcUrl: string;
    }
  | {
      readonly protocol: 'srt';
      readonly host: string;
      readonly port: number;
      /** By the names that FFmpeg has for them; secret. */
      readonly options: ReadonlyMap<string, string>;
    };

/** Not an address that can be pushed to; the message says why, and holds nothing of the address. */
export class DestinationUrlError extends Error {
  override readonly name = 'DestinationUrlError';
}

const DEFAULT_PORT = { rtmp: 1935, rtmps: 443 } as const;
/** What an SRT address may set. Everything else would be an option for FFmpeg that nobody has thought about. */
const SRT_OPTIONS = ['streamid', 'passphrase', 'pbkeylen', 'latency', 'mode'] as const;
const MAX_SRT_OPTION_CHARS = 512;

/**
 * Takes the address of a destination apart. For RTMP the last part of the path is the stream key, as encoders
 * write it, and what comes before it the application.
 * @throws DestinationUrlError
 */
export function parseDestinationUrl(url: string): DestinationTarget {
  if (/[\s\p{Cc}]/u.test(url)) throw new DestinationUrlError('An address has no spaces.');
  const [, scheme = '', authority = '', path = '', query] =
    /^([a-z]+):\/\/([^/?#]*)([^?]*)(?:\?(.*))?$/i.exec(url) ?? [];
  const protocol = scheme.toLowerCase();
  if (protocol !== 'rtmp' && protocol !== 'rtmps' && protocol !== 'srt') {
    throw new DestinationUrlError('An address begins with rtmp://, rtmps:// or srt://.');
  }
  if (authority.includes('@')) {
    throw new DestinationUrlError(
      'An address has no user and password; the key stands in its path or query.',
    );
  }
  const [, bracketed, plain, portText] =
    /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/i.exec(authority) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined) throw new DestinationUrlError('The address has no host.');
  const port = portText === undefined ? undefined : Number(portText);
  if (port !== undefined && (port < 1 || port > 65_535)) {
    throw new DestinationUrlError('A port is a number from 1 to 65535.');
  }
  if (protocol === 'srt') {
    if (port === undefined) throw new DestinationUrlError('An SRT address has a port.');
    return { protocol, host, port, options: srtOptions(query ?? '') };
  }
  const parts = path.split('/').filter((part) => part !== '');
  const key = parts.pop();
  if (key === undefined || parts.length === 0) {
    throw new DestinationUrlError('The address of an RTMP server ends in an application and a stream key.');
  }
  const app = parts.join('/');
  return {
    protocol,
    host,
    port: port ?? DEFAULT_PORT[protocol],
    app,
    streamName: query === undefined ? key : `${key}?${query}`,
    tcUrl: `${protocol}://${authority}/${app}`,
  };
}

function srtOptions(query: string): Map<string, string> {
  const options = new Map<string, string>();
  for (const pair of query.split('&').filter((one) => one !== '')) {
    const at = pair.indexOf('=');
    const name = SRT_OPTIONS.find((known) => known === pair.slice(0, Math.max(at, 0)));
    if (name === undefined) {
      throw new DestinationUrlError(`After the ? of an SRT address may stand: ${SRT_OPTIONS.join(', ')}.`);
    }
    const value = decoded(pair.slice(at + 1));
    if (value.length > MAX_SRT_OPTION_CHARS || /\p{Cc}/u.test(value)) {
      throw new DestinationUrlError(`The ${name} of the SRT address is too long or has control characters.`);
    }
    if (name === 'passphrase' && (value.length < 10 || value.length > 79)) {
      throw new DestinationUrlError('An SRT passphrase has 10 to 79 characters.');
    }
    if (name === 'mode' && value !== 'caller') {
      throw new DestinationUrlError('A destination is called: the mode of its address is caller.');
    }
    options.set(name, value);
  }
  return options;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new DestinationUrlError('A % in the address is not followed by two hexadecimal digits.');
  }
}

/** Of an address what people may see: protocol, host, and the first part of an RTMP path. */
export function shownDestinationUrl(url: string): string {
  const target = parseDestinationUrl(url);
  const host = target.host.includes(':') ? `[${target.host}]` : target.host;
  if (target.protocol === 'srt') return `srt://${host}:${target.port}`;
  const isDefaultPort = target.port === DEFAULT_PORT[target.protocol];
  const [application] = target.app.split('/');
  return `${target.protocol}://${host}${isDefaultPort ? '' : `:${target.port}`}/${application}/***`;
}

/** A text that others wrote, for instance a server's refusal, without what is secret of the address. */
export function withoutDestinationSecrets(text: string, target: DestinationTarget): string {
  return secretsOf(target)
    .filter((secret) => secret !== '')
    .sort((a, b) => b.length - a.length)
    .reduce((shown, secret) => shown.replaceAll(secret, '***'), text);
}

function secretsOf(target: DestinationTarget): string[] {
  if (target.protocol === 'srt') {
    return ['streamid', 'passphrase'].flatMap((name) => target.options.get(name) ?? []);
  }
  const [key = '', query = ''] = target.streamName.split('?');
  const values = query.split('&').map((pair) => pair.slice(pair.indexOf('=') + 1));
  // Short ones are words, which may stand in any text.
  return [target.streamName, key, query, ...values].filter((secret) => secret.length > 4);
}
