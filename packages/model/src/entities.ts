/**
 * The things that the coordinator keeps and the other roles and the site read: one source for
 * validation, types and OpenAPI.
 */
import { type Static, Type } from 'typebox';
import { DestinationSettings, DestinationStatus } from './destination.ts';
import { NodeId } from './lease.ts';
import { LibrarySettings, WatchedFolder } from './library.ts';
import { SpoolId, SpoolSequence } from './owed.ts';
import { AlwaysRecord, RecordingOrders } from './recording.ts';
import { AssetFacts, ProgrammeInfo, Run } from './schedule.ts';
import { NewStreamInput, ShownStreamInput, StreamInput, Transcode } from './stream-input.ts';
import { NetworkEvent } from './webhook.ts';

/** The source of the asset that is generated: FFmpeg draws it, no file is read. */
export const TEST_CARD_SOURCE = 'starling:test-card';

const MAX_OVERLAP_SECONDS = 30 * 24 * 3600;

/** Names appear in addresses: lower-case letters, digits and inner hyphens. */
export const Name = Type.String({ pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$', examples: ['demo'] });

export const AssetState = Type.Union([
  Type.Literal('queued'),
  Type.Literal('importing'),
  Type.Literal('ready'),
  Type.Literal('failed'),
  Type.Literal('cancelled'),
]);
export type AssetState = Static<typeof AssetState>;

export const Asset = Type.Object({
  id: Type.String(),
  name: Type.String(),
  /** Where it is imported from: a file on the machine of the backend, or a URL. */
  source: Type.String(),
  state: AssetState,
  /** 0..1 while importing. */
  progress: Type.Number({ minimum: 0, maximum: 1 }),
  /** One sentence that says why the import failed, or, of a queued one, why it has to be tried again. */
  error: Type.Union([Type.String(), Type.Null()]),
  facts: Type.Union([AssetFacts, Type.Null()]),
  createdAt: Type.String({ format: 'date-time' }),
});
export type Asset = Static<typeof Asset>;

/** Asks for an import. */
export const NewAsset = Type.Object(
  {
    /** An absolute path on the machine of the backend, which reads it, or an http or https URL. */
    source: Type.String({ minLength: 1, maxLength: 4096, examples: ['/home/me/film.mp4'] }),
    /** The file's name without its ending where none is given. */
    name: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
  },
  { additionalProperties: false },
);
export type NewAsset = Static<typeof NewAsset>;

export const ChannelKind = Type.Union([Type.Literal('playout'), Type.Literal('live')]);
export type ChannelKind = Static<typeof ChannelKind>;

const MaxViewers = Type.Union([Type.Integer({ minimum: 1, maximum: 1_000_000 }), Type.Null()]);
const Title = Type.String({ minLength: 1, maxLength: 200 });

/** How a channel presents itself in guides and on TVs. */
const presentation = {
  title: Title,
  /** The channel's number on a TV; no two have the same. */
  number: Type.Integer({ minimum: 1, maximum: 99_999 }),
  /** Address of a picture; null for the newest picture of the channel. */
  logo: Type.Union([
    Type.String({
      pattern: '^https?://[^\\s"<>]+$',
      maxLength: 2000,
      examples: ['https://example.org/logo.png'],
    }),
    Type.Null(),
  ]),
  /** Channels of one group stand together in a player's list; null for the kind of the channel. */
  group: Type.Union([Type.String({ minLength: 1, maxLength: 100 }), Type.Null()]),
};
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
    /**
     * A live stream whose picture is black and does not move is replaced after so many milliseconds; null for
     * never. For films, which may be black between two scenes: longer.
     */
    darkAfterMs: Type.Union([Type.Integer({ minimum: 1000, maximum: 60_000 }), Type.Null()]),
  },
  { additionalProperties: false },
);
export type ChannelSources = Static<typeof ChannelSources>;

/** Sets them all: a second of black where nothing else is said. */
export const NewChannelSources = Type.Object(
  { ...ChannelSources.properties, darkAfterMs: Type.Optional(ChannelSources.properties.darkAfterMs) },
  { additionalProperties: false },
);
export type NewChannelSources = Static<typeof NewChannelSources>;

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

/** More than one only where a schedule alone makes the channel, for then all make the same. */
const Redundancy = Type.Integer({ minimum: 1, maximum: 2 });

export const Channel = Type.Object({
  name: Name,
  ...presentation,
  kind: ChannelKind,
  /** Wall-clock time of tick 0 of the timeline, in milliseconds since 1970; fixed at creation. */
  epochUnixMs: Type.Integer(),
  /** The programme of a playout channel; empty for a live one. */
  runs: Type.Array(Run),
  /** Only who shows a viewing token may see it. */
  isPrivate: Type.Boolean(),
  /** At the same time, on all frontends together; null for as many as come. */
  maxViewers: MaxViewers,
  /** Null for a channel that its schedule alone makes, and that never had a live source. */
  sources: Type.Union([ChannelSources, Type.Null()]),
  sourceChoice: SourceChoice,
  /** Null for one that is recorded only when asked for. */
  record: Type.Union([AlwaysRecord, Type.Null()]),
  /** Backends that make the channel at the same time. */
  redundancy: Redundancy,
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

/** Changes a channel; what is left out stays. */
export const ChannelUpdate = Type.Object(
  {
    title: Type.Optional(presentation.title),
    number: Type.Optional(presentation.number),
    logo: Type.Optional(presentation.logo),
    group: Type.Optional(presentation.group),
    isPrivate: Type.Optional(Type.Boolean()),
    maxViewers: Type.Optional(MaxViewers),
    record: Type.Optional(Channel.properties.record),
    redundancy: Type.Optional(Redundancy),
  },
  { additionalProperties: false, minProperties: 1 },
);
export type ChannelUpdate = Static<typeof ChannelUpdate>;

/** Asks for a playout channel that loops over assets, each given by its id or its name. */
export const NewChannel = Type.Object(
  {
    name: Name,
    /** The name where none is given. */
    title: Type.Optional(Title),
    loop: Type.Array(Type.String({ minLength: 1, maxLength: 200 }), { minItems: 1, maxItems: 10_000 }),
    isPrivate: Type.Optional(Type.Boolean()),
    maxViewers: Type.Optional(MaxViewers),
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
  /** The account that it belongs to; null for the network itself. */
  owner: Type.Union([Name, Type.Null()]),
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
    isPrivate: Type.Optional(Type.Boolean()),
    /** RTMP where none is given. */
    input: Type.Optional(NewStreamInput),
    /** To go through as it is where none is given. */
    transcode: Type.Optional(Transcode),
    /** The account that it belongs to: the network where none is given, or the streamer who adds it. */
    owner: Type.Optional(Name),
  },
  { additionalProperties: false },
);
export type NewStream = Static<typeof NewStream>;

/** Gives a stream to an account; null takes it back. */
export const StreamUpdate = Type.Object(
  { owner: Type.Union([Name, Type.Null()]) },
  { additionalProperties: false },
);
export type StreamUpdate = Static<typeof StreamUpdate>;

/** For how long an old secret does beside the new one, so that who uses it has time to change. */
export const Rotation = Type.Object(
  {
    /** Not at all when left out. */
    overlapSeconds: Type.Optional(
      Type.Integer({ minimum: 0, maximum: MAX_OVERLAP_SECONDS, examples: [86_400] }),
    ),
  },
  { additionalProperties: false },
);
export type Rotation = Static<typeof Rotation>;

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
  ...presentation,
  kind: ChannelKind,
  isPrivate: Type.Boolean(),
  isOnAir: Type.Boolean(),
  /** Who watches now, on all frontends. */
  viewerCount: Type.Integer({ minimum: 0 }),
  /** Where the picture comes from now; null when off the air, and for a channel without live sources. */
  source: Type.Union([SourceName, Type.Null()]),
  /** The programme that is on now; null when off the air, while a stream or the slate is shown, and between two. */
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

/** A programme of the guide. */
export const GuideProgramme = Type.Object({
  ...ProgrammeInfo.properties,
  title: Type.String(),
  startsAt: Type.String({ format: 'date-time' }),
  endsAt: Type.String({ format: 'date-time' }),
});
export type GuideProgramme = Static<typeof GuideProgramme>;

/** What one channel shows in a span of time. */
export const ChannelGuide = Type.Object({ name: Name, programmes: Type.Array(GuideProgramme) });
export type ChannelGuide = Static<typeof ChannelGuide>;

export const ScheduleChange = Type.Object({
  /** Until then all stays as it was. */
  effectiveAt: Type.String({ format: 'date-time' }),
});
export type ScheduleChange = Static<typeof ScheduleChange>;

/** An item that a schedule leads to. */
export const ScheduledItem = Type.Object({
  startsAt: Type.String({ format: 'date-time' }),
  endsAt: Type.String({ format: 'date-time' }),
  /** The programme's, or the asset's name. */
  title: Type.String(),
  assetId: Type.String(),
  assetName: Type.String(),
});
export type ScheduledItem = Static<typeof ScheduledItem>;

/** Everything that a backend needs to know. It gets the whole state at each change. */
export const BackendState = Type.Object({
  revision: Type.Integer({ minimum: 0 }),
  channels: Type.Array(Channel),
  streams: Type.Array(
    Type.Object({
      name: Name,
      /** SHA-256 of the stream key, in hex. The key has 160 random bits, so a fast hash is enough. */
      keySha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
      /** The key before, where it still does. */
      oldKey: Type.Optional(
        Type.Object({ sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }), untilUnixMs: Type.Number() }),
      ),
      input: StreamInput,
      transcode: Type.Union([Transcode, Type.Null()]),
    }),
  ),
  /** Those that are enabled. */
  destinations: Type.Array(DestinationSettings),
  /** Assets that are ready. */
  assets: Type.Array(Type.Object({ id: Type.String(), name: Type.String(), facts: AssetFacts })),
  /** Imports that wait for a backend or run on one, oldest first. */
  imports: Type.Array(
    Type.Object({
      assetId: Type.String(),
      source: Type.String(),
      /** Counts how often the operator asked for it. */
      attempt: Type.Integer({ minimum: 1 }),
    }),
  ),
  library: LibrarySettings,
  folders: Type.Array(WatchedFolder),
  recordings: RecordingOrders,
});
export type BackendState = Static<typeof BackendState>;

/** A backend's report on one import. */
export const ImportReport = Type.Union([
  Type.Object({ state: Type.Literal('importing'), progress: Type.Number({ minimum: 0, maximum: 1 }) }),
  /** It failed for a reason that may pass, and will be tried again. */
  Type.Object({ state: Type.Literal('queued'), error: Type.String({ maxLength: 2000 }) }),
  Type.Object({ state: Type.Literal('ready'), facts: AssetFacts }),
  Type.Object({ state: Type.Literal('failed'), error: Type.String({ maxLength: 2000 }) }),
]);
export type ImportReport = Static<typeof ImportReport>;

/** Of one report. */
export const MAX_REPORTED_EVENTS = 256;

/** A backend's report on what it has on the air; sent at each change and every 5 s. */
export const BackendReport = Type.Object({
  nodeId: NodeId,
  onAirChannels: Type.Array(Name),
  publishingStreams: Type.Array(Name),
  /** What is on the air of the channels that have live sources. */
  activeSources: Type.Array(Type.Object({ channel: Name, ...ActiveSource.properties })),
  /** Why nothing comes of the streams that the backend has to fetch. */
  inputProblems: Type.Array(Type.Object({ stream: Name, problem: Type.String({ maxLength: 2000 }) })),
  /** What happens at the destinations. */
  destinations: Type.Array(Type.Object({ name: Name, ...DestinationStatus.properties })),
  /** What happened since the last report that was taken; the coordinator knows by its id what comes again. */
  events: Type.Array(NetworkEvent, { maxItems: MAX_REPORTED_EVENTS }),
  /** The spool that the events are of, and their numbers in it. Left out by backends that have none. */
  eventSpool: Type.Optional(
    Type.Object({
      spoolId: SpoolId,
      sequences: Type.Array(SpoolSequence, { maxItems: MAX_REPORTED_EVENTS }),
    }),
  ),
});
export type BackendReport = Static<typeof BackendReport>;

/** A right to watch private channels. The token itself is shown once and never stored. */
export const ViewingToken = Type.Object({
  /** The `jti` of the token. */
  id: Type.String(),
  /** For whom it is, in the operator's words. */
  name: Type.Union([Type.String(), Type.Null()]),
  /** Null: all channels, also those to come. */
  channels: Type.Union([Type.Array(Name), Type.Null()]),
  /** Viewers at the same time; null for as many as have the token. */
  maxConcurrent: Type.Union([Type.Integer({ minimum: 1 }), Type.Null()]),
  createdAt: Type.String({ format: 'date-time' }),
  expiresAt: Type.String({ format: 'date-time' }),
  revokedAt: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]),
});
export type ViewingToken = Static<typeof ViewingToken>;

const SECONDS_OF_TEN_YEARS = 3653 * 24 * 3600;

/** Asks for a viewing token. */
export const NewViewingToken = Type.Object(
  {
    /** Null: all channels, also those to come. The token goes into addresses, so it may not get long. */
    channels: Type.Union([Type.Array(Name, { minItems: 1, maxItems: 32, uniqueItems: true }), Type.Null()]),
    expiresInSeconds: Type.Integer({ minimum: 1, maximum: SECONDS_OF_TEN_YEARS }),
    maxConcurrent: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 })),
    name: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
  },
  { additionalProperties: false },
);
export type NewViewingToken = Static<typeof NewViewingToken>;

/** A viewing token, in the one answer that ever holds it. */
export const ViewingTokenWithSecret = Type.Object({ viewingToken: ViewingToken, token: Type.String() });
export type ViewingTokenWithSecret = Static<typeof ViewingTokenWithSecret>;

/** The public half of a key that signs viewing tokens: an Ed25519 key (RFC 8037). */
export const ViewingTokenKey = Type.Object({
  /** The `kid` in the header of the tokens. */
  id: Type.String(),
  /** The point, in base64url. */
  x: Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }),
});
export type ViewingTokenKey = Static<typeof ViewingTokenKey>;

export const ViewerId = Type.String({ pattern: '^[A-Za-z0-9_-]{16}$' });

/** Everything that a frontend needs to know. It gets the whole state at each change. */
export const FrontendState = Type.Object({
  /** Of the {@link BackendState} as well. */
  revision: Type.Integer({ minimum: 0 }),
  /** Channels that are not among them are not served. */
  channels: Type.Array(
    Type.Object({
      name: Name,
      isPrivate: Type.Boolean(),
      maxViewers: MaxViewers,
      /** Secret, in base64url. While the channel is private, the names of its segments are made with it. */
      nameKey: Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }),
    }),
  ),
  viewingTokenKeys: Type.Array(ViewingTokenKey),
  /** Of tokens that have not expired yet. */
  revokedTokenIds: Type.Array(Type.String()),
  /** Viewers that were shown out lately. */
  endedViewerIds: Type.Array(ViewerId),
  /** Backends whose pushes are taken. Left out by coordinators that know no nodes. */
  backends: Type.Optional(
    Type.Array(Type.Object({ nodeId: NodeId, publicKey: Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }) })),
  ),
});
export type FrontendState = Static<typeof FrontendState>;

export const ViewerProtocol = Type.Union([
  Type.Literal('hls'),
  Type.Literal('flv'),
  Type.Literal('ws-flv'),
  Type.Literal('ts'),
  Type.Literal('rtmp'),
]);
export type ViewerProtocol = Static<typeof ViewerProtocol>;

const viewerFields = {
  /** One for each viewer, whatever the number of frontends that serve it. */
  id: ViewerId,
  channel: Name,
  protocol: ViewerProtocol,
  /** HLS: of the media playlist asked for last. */
  rendition: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
  address: Type.String({ maxLength: 64 }),
  userAgent: Type.Union([Type.String({ maxLength: 256 }), Type.Null()]),
  sentBytes: Type.Integer({ minimum: 0 }),
  /**
   * How far what the viewer has been given is behind the newest on its frontend; what it buffers comes on
   * top. Null where the protocol does not tell.
   */
  latencyMs: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  /** Of the viewing token that let it in, on a private channel. */
  tokenId: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
};

/** Somebody who watches now. */
export const Viewer = Type.Object({ ...viewerFields, startedAt: Type.String({ format: 'date-time' }) });
export type Viewer = Static<typeof Viewer>;

/** Who watches now. */
export const ViewerList = Type.Object({
  /** Those who came last, newest first. */
  items: Type.Array(Viewer),
  /** Of all channels that were asked for and have viewers. */
  totals: Type.Array(Type.Object({ channel: Name, viewerCount: Type.Integer({ minimum: 1 }) })),
});
export type ViewerList = Static<typeof ViewerList>;

/** In one report, so that it fits into a request. */
export const MAX_REPORTED_VIEWERS = 500;

/** Of one report. */
export const MAX_REPORTED_STRETCHES = 500;

/** A stretch of a session as one frontend saw it; it may have more before and after, there and on other frontends. */
export const ViewerStretch = Type.Object({
  viewerId: ViewerId,
  channel: Name,
  protocol: ViewerProtocol,
  tokenId: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
  fromUnixMs: Type.Integer({ minimum: 0 }),
  toUnixMs: Type.Integer({ minimum: 0 }),
  /** What this frontend sent of it. */
  sentBytes: Type.Integer({ minimum: 0 }),
});
export type ViewerStretch = Static<typeof ViewerStretch>;

/** What a frontend owes, see `spool.ts`. */
export const OwedStretches = Type.Object({
  spoolId: SpoolId,
  entries: Type.Array(Type.Object({ sequence: SpoolSequence, value: ViewerStretch }), {
    maxItems: MAX_REPORTED_STRETCHES,
  }),
});
export type OwedStretches = Static<typeof OwedStretches>;

export const ViewerSession = Type.Object({
  viewerId: ViewerId,
  channel: Name,
  protocol: ViewerProtocol,
  /** Of the viewing token that let it in, on a private channel. */
  tokenId: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
  startedAt: Type.String({ format: 'date-time', examples: ['2026-11-22T12:00:00.000Z'] }),
  /** Of one that goes on: when it was last heard of, some minutes ago. */
  endedAt: Type.String({ format: 'date-time', examples: ['2026-11-22T12:40:00.000Z'] }),
  /** By the frontends; a cache in front may have sent more. */
  sentBytes: Type.Integer({ minimum: 0 }),
});
export type ViewerSession = Static<typeof ViewerSession>;

/** A frontend's report on its viewers; sent at each change and every 2 s. */
export const FrontendReport = Type.Object({
  /** Random, new at each start. */
  frontendId: Type.String({ minLength: 8, maxLength: 64 }),
  /** Viewers that came, and as many others as fit, those first whose last report is the oldest. */
  viewers: Type.Array(Type.Object({ ...viewerFields, startedAtUnixMs: Type.Integer({ minimum: 0 }) }), {
    maxItems: MAX_REPORTED_VIEWERS,
  }),
  leftIds: Type.Array(ViewerId, { maxItems: 10 * MAX_REPORTED_VIEWERS }),
  /** What the coordinator knew of this frontend before is void. */
  isFresh: Type.Boolean(),
  /** Stretches of sessions that are over, or have gone on for some minutes. */
  owed: Type.Optional(OwedStretches),
});
export type FrontendReport = Static<typeof FrontendReport>;
export type ReportedViewer = FrontendReport['viewers'][number];

export const FrontendReportAnswer = Type.Object({
  /** False: the coordinator has started anew; all viewers are to be reported again. */
  isKnown: Type.Boolean(),
  /** Channels and viewing tokens that have all the viewers that they may have, all frontends taken together. */
  fullChannels: Type.Array(Name),
  fullTokenIds: Type.Array(Type.String()),
  /** Up to which number what was owed has been taken. Left out where nothing was, or by a coordinator that takes none. */
  takenSequence: Type.Optional(Type.Integer({ minimum: 0 })),
});
export type FrontendReportAnswer = Static<typeof FrontendReportAnswer>;

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
