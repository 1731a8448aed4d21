/** What the network raises the alarm about, and how far each alarm has come. */
import { type Static, Type } from 'typebox';

const Time = Type.String({ format: 'date-time', examples: ['2026-11-22T12:00:00.000Z'] });

export const alarmKinds = [
  'channel-dark',
  'failover',
  'node-lost',
  'certificate-expiring',
  'failed-logins',
  'unusual-api-use',
  'database-connections-high',
  'unauthorised-publishes',
  'disk-filling',
  'destination-failing',
  'recording-failing',
] as const;
export const AlarmKind = Type.Enum(alarmKinds);
export type AlarmKind = (typeof alarmKinds)[number];

/**
 * `raised` -> `acknowledged` (somebody is at it) -> `resolved` (it is over, or somebody said so); from `raised` to `resolved`, too. A
 * resolved alarm stays as it is: what comes again is another one.
 */
export const AlarmState = Type.Union([
  Type.Literal('raised'),
  Type.Literal('acknowledged'),
  Type.Literal('resolved'),
]);
export type AlarmState = Static<typeof AlarmState>;

const TimeOrNull = Type.Union([Time, Type.Null()]);

export const Alarm = Type.Object({
  id: Type.String({ minLength: 1, maxLength: 64 }),
  kind: AlarmKind,
  /** What it is about: a channel, a node, an address. While an alarm is open there is no other about the same. */
  target: Type.String({ minLength: 1, maxLength: 200 }),
  severity: Type.Union([Type.Literal('warning'), Type.Literal('critical')]),
  state: AlarmState,
  /** What is wrong and what to do, in plain words. */
  message: Type.String({ maxLength: 2000 }),
  raisedAt: Time,
  /** When it was last seen to be so. */
  lastSeenAt: Time,
  acknowledgedAt: TimeOrNull,
  acknowledgedBy: Type.Union([Type.String(), Type.Null()]),
  resolvedAt: TimeOrNull,
  /** Null where it was over by itself. */
  resolvedBy: Type.Union([Type.String(), Type.Null()]),
});
export type Alarm = Static<typeof Alarm>;

/** When there is an alarm. What is left out in a change stays as it is. */
export const AlarmSettings = Type.Object(
  {
    channelDarkSeconds: Type.Integer({
      minimum: 1,
      maximum: 3600,
      description: 'Without a picture, of a channel that should have one',
    }),
    nodeLostSeconds: Type.Integer({ minimum: 5, maximum: 3600, description: 'Without a word of a node' }),
    certificateDays: Type.Integer({
      minimum: 1,
      maximum: 365,
      description: 'Left of the life of a certificate',
    }),
    failedLogins: Type.Integer({
      minimum: 1,
      maximum: 10_000,
      description: 'To one account, or from one address, within 10 minutes',
    }),
    refusedRequests: Type.Integer({
      minimum: 1,
      maximum: 100_000,
      description: 'To the API from one address within 10 minutes: without a right, or too many',
    }),
    refusedPublishes: Type.Integer({
      minimum: 1,
      maximum: 10_000,
      description: 'Without the key or token, on one node within 10 minutes',
    }),
    databaseConnectionsPercent: Type.Integer({
      minimum: 1,
      maximum: 100,
      description: 'Of the connections that the PostgreSQL server takes',
    }),
    diskFreePercent: Type.Integer({ minimum: 1, maximum: 90, description: 'Left on a disk' }),
    mutedKinds: Type.Array(AlarmKind, { uniqueItems: true, description: 'Of which there are no alarms' }),
  },
  { additionalProperties: false },
);
export type AlarmSettings = Static<typeof AlarmSettings>;

export const AlarmSettingsChange = Type.Partial(AlarmSettings, {
  additionalProperties: false,
  minProperties: 1,
});
export type AlarmSettingsChange = Static<typeof AlarmSettingsChange>;

export const defaultAlarmSettings: AlarmSettings = {
  channelDarkSeconds: 10,
  nodeLostSeconds: 15,
  certificateDays: 14,
  failedLogins: 5,
  refusedRequests: 200,
  refusedPublishes: 5,
  databaseConnectionsPercent: 80,
  diskFreePercent: 10,
  mutedKinds: [],
};

/** What was sent off to try the ways out. */
export const AlarmTest = Type.Object({
  /** Of the event: deliveries of it are told apart by it. */
  eventId: Type.String(),
  /** Ids of the webhooks that it goes to. */
  webhookIds: Type.Array(Type.String()),
});
export type AlarmTest = Static<typeof AlarmTest>;
