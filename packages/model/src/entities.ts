/**
 * The things that the coordinator keeps and the other roles and the site read: one source for
 * validation, types and OpenAPI.
 */
import { type Static, Type } from 'typebox';
import { AssetFacts, Run } from './schedule.ts';

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

export const ChannelKind = Type.Union([Type.Literal('playout'), Type.Literal('live')]);
export type ChannelKind = Static<typeof ChannelKind>;

export const Channel = Type.Object({
  name: Name,
  title: Type.String(),
  kind: ChannelKind,
  /** Wall-clock time of tick 0 of the timeline, in milliseconds since 1970; fixed at creation. */
  epochUnixMs: Type.Integer(),
  /** The programme of a playout channel; empty for a live one. */
  runs: Type.Array(Run),
  createdAt: Type.String({ format: 'date-time' }),
});
export type Channel = Static<typeof Channel>;

/** A live input. Its channel has the same name. The key itself is shown once and never stored. */
export const Stream = Type.Object({
  name: Name,
  createdAt: Type.String({ format: 'date-time' }),
  keyRotatedAt: Type.String({ format: 'date-time' }),
  /** Whether an encoder is publishing now, as the backend last reported. */
  isPublishing: Type.Boolean(),
});
export type Stream = Static<typeof Stream>;

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
});
export type BackendReport = Static<typeof BackendReport>;

/** RFC 9457 problem details, with our code. */
export const Problem = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String(),
  detail: Type.String(),
});
export type Problem = Static<typeof Problem>;
