/** Recordings: what of a channel or a stream is kept as files, on the machine of the backend that makes it. */
import { type Static, Type } from 'typebox';
import { NodeId } from './lease.ts';

/** The names of channels and streams. */
const EntityName = Type.String({ minLength: 1, maxLength: 63 });
export const RecordingId = Type.String({ pattern: '^[0-9a-f]{16}$' });
const DateTime = Type.String({ format: 'date-time' });
const RecordingName = Type.String({ minLength: 1, maxLength: 200 });

/** Why a recording ended. */
export const RecordingEnd = Type.Union([
  Type.Literal('stopped', { description: 'the operator stopped it' }),
  Type.Literal('complete', { description: 'its hour is over; the next recording goes on' }),
  Type.Literal('interrupted', { description: 'its backend ended, and another recording went on, or none' }),
  Type.Literal('source-removed', { description: 'the channel or stream was removed' }),
  Type.Literal('too-many-parts', { description: 'its source broke off again and again' }),
  Type.Literal('disk-full', { description: 'there is no room left on the disk' }),
  Type.Literal('disk-failed', { description: 'the disk cannot be written to' }),
]);
export type RecordingEnd = Static<typeof RecordingEnd>;

/** A channel that is always recorded: an hour to each recording. What is over either bound is removed, oldest first. */
export const AlwaysRecord = Type.Object(
  {
    /** Null for no bound. */
    maxHours: Type.Union([Type.Number({ exclusiveMinimum: 0, maximum: 87_660 }), Type.Null()]),
    maxBytes: Type.Union([Type.Integer({ minimum: 1 }), Type.Null()]),
  },
  { additionalProperties: false },
);
export type AlwaysRecord = Static<typeof AlwaysRecord>;

/** What is recorded: a channel, or a live input as it comes in. */
const Source = {
  channel: Type.Union([EntityName, Type.Null()]),
  stream: Type.Union([EntityName, Type.Null()]),
};

/** One file of a recording. */
const partFields = {
  startedAt: DateTime,
  durationMs: Type.Integer({ minimum: 0 }),
  sizeBytes: Type.Integer({ minimum: 0 }),
  /** On the machine of its backend. */
  path: Type.String({ maxLength: 4096 }),
};

export const Recording = Type.Object({
  id: RecordingId,
  name: RecordingName,
  ...Source,
  /** Made because the channel is always recorded. */
  isAutomatic: Type.Boolean(),
  /** `waiting`: nothing has come yet. `stopping`: its last file is being finished. */
  state: Type.Union([
    Type.Literal('waiting'),
    Type.Literal('recording'),
    Type.Literal('stopping'),
    Type.Literal('ended'),
  ]),
  /** Null while it goes on. */
  endReason: Type.Union([RecordingEnd, Type.Null()]),
  createdAt: DateTime,
  /** Of the first file; null while there is none. */
  startedAt: Type.Union([DateTime, Type.Null()]),
  endedAt: Type.Union([DateTime, Type.Null()]),
  durationMs: partFields.durationMs,
  sizeBytes: partFields.sizeBytes,
  /** In the order of time: a further one where the codecs changed, nothing came for a while, or the backend was restarted. */
  parts: Type.Array(Type.Object({ number: Type.Integer({ minimum: 1 }), backend: NodeId, ...partFields })),
});
export type Recording = Static<typeof Recording>;

/** Asks for a recording of a channel or of a stream. */
export const NewRecording = Type.Object(
  {
    channel: Type.Optional(EntityName),
    stream: Type.Optional(EntityName),
    /** What is recorded, and when, where none is given. */
    name: Type.Optional(RecordingName),
  },
  { additionalProperties: false },
);
export type NewRecording = Static<typeof NewRecording>;

/** What a backend is to do. */
export const RecordingOrders = Type.Object({
  /** To be recorded by whoever runs the channel or gets the stream. */
  wanted: Type.Array(Type.Object({ id: RecordingId, name: RecordingName, ...Source, createdAt: DateTime })),
  /** Whose files are to be deleted. */
  removedIds: Type.Array(RecordingId),
});
export type RecordingOrders = Static<typeof RecordingOrders>;

/** Of one recording. */
export const MAX_PARTS = 1000;

/** What a backend has of one recording. */
export const ReportedRecording = Type.Object({
  id: RecordingId,
  name: RecordingName,
  ...Source,
  isAutomatic: Type.Boolean(),
  createdAt: DateTime,
  isRecording: Type.Boolean(),
  /** Null while it may go on. */
  end: Type.Union([Type.Object({ reason: RecordingEnd, at: DateTime }), Type.Null()]),
  parts: Type.Array(Type.Object({ number: Type.Integer({ minimum: 1 }), ...partFields }), {
    maxItems: MAX_PARTS,
  }),
});
export type ReportedRecording = Static<typeof ReportedRecording>;

/** In one report, so that it fits into a request. */
export const MAX_REPORTED_RECORDINGS = 500;
export const MAX_REPORTED_PARTS = 2000;

/** A backend's report on recordings: those that run, and those of which something changed. */
export const RecordingReport = Type.Object({
  nodeId: NodeId,
  recordings: Type.Array(ReportedRecording, { maxItems: MAX_REPORTED_RECORDINGS }),
  /** Whose files it has deleted. */
  removedIds: Type.Array(RecordingId, { maxItems: 10_000 }),
});
export type RecordingReport = Static<typeof RecordingReport>;
