/**
 * The things that the coordinator keeps and the other roles and the site read: one source for
 * validation, types and OpenAPI.
 */
import { type Static, Type } from 'typebox';
import { AssetFacts, Run } from './schedule.ts';
import { NewStreamInput, ShownStreamInput, StreamInput, Transcode } from './stream-input.ts';
import { NetworkEvent } from './webhook.ts';

/** The source of the asset that is generated: FFmpeg draws it, no file is read. */
export const TEST_CARD_SOURCE = 'starling:test-card';

/** Names appear in addresses: lower-case letters, digits and inner hyphens. */
export const Name = Type.String({ pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$', examples: ['demo'] });

export const AssetState = Type.Union([
  Type.Literal('queued'),
  Type.Literal('importing'),
  Type.Literal('ready'),
  Type.Literal('failed'),
]);
export type AssetState = Static<typeof AssetState>;

export const Asset = Type.Object({
  id: Type.String(),
  name: Type.String(),
  state: AssetState,
  /** 0..1 while importing. */
  progress: Type.Number({ minimum: 0, maximum: 1 }),
  /** One sentence that says why the import failed; null otherwise. */
  error: Type.Union([Type.String(), Type.Null()]),
  facts: Type.Union([AssetFacts, Type.Null()]),
  createdAt: Type.String({ format: 'date-time' }),
});
export type Asset = Static<typeof Asset>;

/** Asks for an import. The file is read by the backend, so the path is one on its machine. */
export const NewAsset = Type.Object(
  {
    sourcePath: Type.String({ minLength: 1, maxLength: 4096, examples: ['/home/me/film.mp4'] }),
    /** The file's name without its ending where none is given. */
    name: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
  },
  { additionalProperties: false },
);
export type NewAsset = Static<typeof NewAsset>;

export const ChannelKind = Type.Union([Type.Literal('playout'), Type.Literal('live')]);
export type ChannelKind = Static<typeof ChannelKind>;

/** The sources that a channel may have, the best first. */
export const SourceName = Type.Union([
  Type.Literal('primary'),
  Type.Literal('backup'),
  Type.Literal('playout'),
  Type.Literal('slate'),
]);
export type SourceName = Static<typeof SourceName>;

/** What goes first: the order of the chain, or the operator's choice. */
export const SourceChoice = Type.Union([Type.Literal('auto'), SourceName]);
export type SourceChoice = Static<typeof SourceChoice>;

/**
 * What a channel shows while no live stream is well. `playout`: its programme, and the slate where that has
 * nothing. `none`: nothing, the channel goes off the air.
 */
export const Fallback = Type.Union([Type.Literal('playout'), Type.Literal('slate'), Type.Literal('none')]);
export type Fallback = Static<typeof Fallback>;

/** Where a channel's pictures come from. */
export const ChannelSources = Type.Object(
  {
    /** The stream that is shown whenever it is well. */
    primary: Type.Union([Name, Type.Null()]),
    /** The stream that is shown while the primary one is not well. */
    backup: Type.Union([Name, Type.Null()]),
    fallback: Fallback,
  },
  { additionalProperties: false },
);
export type ChannelSources = Static<typeof ChannelSources>;

/** Why the active source is the active one. */
export const SourceReason = Type.Union([
  Type.Literal('start', { description: 'it was the first that was well' }),
  Type.Literal('silent', { description: 'nothing came any more from the one before' }),
  Type.Literal('left', { description: 'the publisher of the one before left' }),
  Type.Literal('clock', { description: 'the time of the one before was set' }),
  Type.Literal('dark', { description: 'the picture of the one before was black and did not move' }),
  Type.Literal('healthy', { description: 'it is better than the one before, and well again' }),
  Type.Literal('manual', { description: 'the operator chose it, or changed the chain' }),
]);
export type SourceReason = Static<typeof SourceReason>;

/** What is on the air of a channel with live sources, as the backend last reported. */
export const ActiveSource = Type.Object({
  source: SourceName,
  since: Type.String({ format: 'date-time' }),
  reason: SourceReason,
});
export type ActiveSource = Static<typeof ActiveSource>;

export const Channel = Type.Object({
  name: Name,
  title: Type.String(),
  kind: ChannelKind,
  /** Wall-clock time of tick 0 of the timeline, in milliseconds since 1970; fixed at creation. */
  epochUnixMs: Type.Integer(),
  /** The programme of a playout channel; empty for a live one. */
  runs: Type.Array(Run),
  /** Null for a channel that its schedule alone makes, and that never had a live source. */
  sources: Type.Union([ChannelSources, Type.Null()]),
  sourceChoice: SourceChoice,
  createdAt: Type.String({ format: 'date-time' }),
});
export type Channel = Static<typeof Channel>;

/** A channel as its operator sees it. */
export const ChannelWithStatus = Type.Object({
  ...Channel.properties,
  /** Null while nothing is on the air, and for a channel without live sources. */
  activeSource: Type.Union([ActiveSource, Type.Null()]),
});
export type ChannelWithStatus = Static<typeof ChannelWithStatus>;

const Title = Type.String({ minLength: 1, maxLength: 200 });

/** Asks for a playout channel that loops over assets, each given by its id or its name. */
export const NewChannel = Type.Object(
  {
    name: Name,
    /** The name where none is given. */
    title: Type.Optional(Title),
    loop: Type.Array(Type.String({ minLength: 1, maxLength: 200 }), { minItems: 1, maxItems: 10_000 }),
  },
  { additionalProperties: false },
);
export type NewChannel = Static<typeof NewChannel>;

/** A live input. Its channel has the same name. The key itself is shown once and never stored. */
export const Stream = Type.Object({
  name: Name,
  input: ShownStreamInput,
  /** Null where it goes through as it is. */
  transcode: Type.Union([Transcode, Type.Null()]),
  createdAt: Type.String({ format: 'date-time' }),
  keyRotatedAt: Type.String({ format: 'date-time' }),
  /** Whether an encoder is publishing now, as the backend last reported. */
  isPublishing: Type.Boolean(),
  /** Why nothing comes of an input that the backend has to fetch; null where something does. */
  problem: Type.Union([Type.String(), Type.Null()]),
});
export type Stream = Static<typeof Stream>;

/** Asks for a live input and the channel of the same name. */
export const NewStream = Type.Object(
  {
    name: Name,
    title: Type.Optional(Title),
    /** RTMP where none is given. */
    input: Type.Optional(NewStreamInput),
    /** To go through as it is where none is given. */
    transcode: Type.Optional(Transcode),
  },
  { additionalProperties: false },
);
export type NewStream = Static<typeof NewStream>;

/**
 * A stream and its key, in the one answer that ever holds it: the stream key of RTMP, or the passphrase of
 * SRT. A stream that is pulled has none.
 */
export const StreamWithKey = Type.Object({
  stream: Stream,
  key: Type.Union([Type.String({ examples: ['sk_f3Q0b1m2S8t5v7x9y0z1A2B3C4D'] }), Type.Null()]),
});
export type StreamWithKey = Static<typeof StreamWithKey>;

/** What a viewer's page shows of a channel. */
export const PublicChannel = Type.Object({
  name: Name,
  title: Type.String(),
  kind: ChannelKind,
  isOnAir: Type.Boolean(),
  /** The programme that is on now; null when off the air or live. */
  now: Type.Union([
    Type.Object({
      title: Type.String(),
      startsAt: Type.String({ format: 'date-time' }),
      endsAt: Type.String({ format: 'date-time' }),
    }),
    Type.Null(),
  ]),
  next: Type.Union([
    Type.Object({ title: Type.String(), startsAt: Type.String({ format: 'date-time' }) }),
    Type.Null(),
  ]),
});
export type PublicChannel = Static<typeof PublicChannel>;

/** Everything that a backend needs to know. It gets the whole state at each change. */
export const BackendState = Type.Object({
  revision: Type.Integer({ minimum: 0 }),
  channels: Type.Array(Channel),
  streams: Type.Array(
    Type.Object({
      name: Name,
      /** SHA-256 of the stream key, in hex. The key has 160 random bits, so a fast hash is enough. */
      keySha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
      input: StreamInput,
      transcode: Type.Union([Transcode, Type.Null()]),
    }),
  ),
  /** Assets that are ready. */
  assets: Type.Array(Type.Object({ id: Type.String(), name: Type.String(), facts: AssetFacts })),
  /** Imports that wait for a backend or run on one, oldest first. */
  imports: Type.Array(Type.Object({ assetId: Type.String(), sourcePath: Type.String() })),
});
export type BackendState = Static<typeof BackendState>;

/** A backend's report on one import. */
export const ImportReport = Type.Union([
  Type.Object({ state: Type.Literal('importing'), progress: Type.Number({ minimum: 0, maximum: 1 }) }),
  Type.Object({ state: Type.Literal('ready'), facts: AssetFacts }),
  Type.Object({ state: Type.Literal('failed'), error: Type.String({ maxLength: 2000 }) }),
]);
export type ImportReport = Static<typeof ImportReport>;

/** A backend's report on what it has on the air; sent at each change and every 5 s. */
export const BackendReport = Type.Object({
  onAirChannels: Type.Array(Name),
  publishingStreams: Type.Array(Name),
  /** What is on the air of the channels that have live sources. */
  activeSources: Type.Array(Type.Object({ channel: Name, ...ActiveSource.properties })),
  /** Why nothing comes of the streams that the backend has to fetch. */
  inputProblems: Type.Array(Type.Object({ stream: Name, problem: Type.String({ maxLength: 2000 }) })),
  /** What happened since the last report that was taken; the coordinator knows by its id what comes again. */
  events: Type.Array(NetworkEvent, { maxItems: 256 }),
});
export type BackendReport = Static<typeof BackendReport>;

/** What the coordinator says of itself. */
export const CoordinatorStatus = Type.Object({
  startedAt: Type.String({ format: 'date-time' }),
  /** Of the {@link BackendState}. */
  revision: Type.Integer({ minimum: 0 }),
  /** Backends that follow the state now. */
  watcherCount: Type.Integer({ minimum: 0 }),
  /** The time of the last backend report; null when there was none since the start. */
  backendReportedAt: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]),
  onAirChannels: Type.Array(Name),
  publishingStreams: Type.Array(Name),
});
export type CoordinatorStatus = Static<typeof CoordinatorStatus>;

/** RFC 9457 problem details, with our code. */
export const Problem = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String(),
  detail: Type.String(),
});
export type Problem = Static<typeof Problem>;
