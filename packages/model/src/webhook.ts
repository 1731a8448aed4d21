/** What the network tells others when something happens to a stream or a channel. */
import { type Static, Type } from 'typebox';
import { Alarm } from './alarm.ts';

/** The names of streams and channels in events. */
const EntityName = Type.String({ minLength: 1, maxLength: 63 });
const SourceOrNothing = Type.Union([Type.String({ maxLength: 32 }), Type.Null()]);

const eventHead = {
  /** The same each time that the event is told. It goes into a header of deliveries. */
  id: Type.String({ pattern: '^[\\w.:-]{1,64}$' }),
  at: Type.String({ format: 'date-time' }),
};

/** Something that happened, as a backend saw it. */
export const NetworkEvent = Type.Union([
  Type.Object({ ...eventHead, type: Type.Literal('publish'), stream: EntityName }),
  /** The publisher left and did not come back within its grace period. */
  Type.Object({ ...eventHead, type: Type.Literal('unpublish'), stream: EntityName }),
  /** A channel changed its source; `to` is null when nothing is left. */
  Type.Object({
    ...eventHead,
    type: Type.Literal('failover'),
    channel: EntityName,
    from: SourceOrNothing,
    to: SourceOrNothing,
    reason: Type.String({ maxLength: 32 }),
  }),
  /** A destination broke off or could not be reached; it is tried again. Told once until it is restored. */
  Type.Object({
    ...eventHead,
    type: Type.Literal('destination.failed'),
    channel: EntityName,
    destination: EntityName,
    reason: Type.String({ maxLength: 1000 }),
  }),
  /** A destination that had failed has taken the channel for some seconds. */
  Type.Object({
    ...eventHead,
    type: Type.Literal('destination.restored'),
    channel: EntityName,
    destination: EntityName,
  }),
]);
export type NetworkEvent = Static<typeof NetworkEvent>;

/** An alarm came up, somebody is at it, or it is over. */
export const AlarmEvent = Type.Object({
  ...eventHead,
  type: Type.Union([
    Type.Literal('alarm.raised'),
    Type.Literal('alarm.acknowledged'),
    Type.Literal('alarm.resolved'),
  ]),
  alarm: Alarm,
});
export type AlarmEvent = Static<typeof AlarmEvent>;

/** What others are told of. */
export const WebhookEvent = Type.Union([NetworkEvent, AlarmEvent]);
export type WebhookEvent = Static<typeof WebhookEvent>;

export const alarmEventTypes = ['alarm.raised', 'alarm.acknowledged', 'alarm.resolved'] as const;
export const webhookEventTypes = [
  'publish',
  'unpublish',
  'failover',
  'destination.failed',
  'destination.restored',
  ...alarmEventTypes,
] as const;
export const WebhookEventType = Type.Enum(webhookEventTypes);
export type WebhookEventType = (typeof webhookEventTypes)[number];

/** Asks for events to be sent to an address. */
export const NewWebhook = Type.Object(
  {
    /** `https:`, `http:`, or `mailto:` for an e-mail. */
    url: Type.String({ minLength: 1, maxLength: 2048, examples: ['https://example.org/starling'] }),
    /** All where none are given; by e-mail alarms. */
    events: Type.Optional(Type.Array(WebhookEventType, { minItems: 1, uniqueItems: true })),
  },
  { additionalProperties: false },
);
export type NewWebhook = Static<typeof NewWebhook>;

export const Webhook = Type.Object({
  id: Type.String(),
  /** Without its query and its password, which may be secret. */
  url: Type.String(),
  events: Type.Array(WebhookEventType),
  createdAt: Type.String({ format: 'date-time' }),
});
export type Webhook = Static<typeof Webhook>;

/** A webhook and what its deliveries are signed with, in the one answer that ever holds it; null for e-mails. */
export const WebhookWithSecret = Type.Object({
  webhook: Webhook,
  secret: Type.Union([Type.String(), Type.Null()]),
});
export type WebhookWithSecret = Static<typeof WebhookWithSecret>;

/** One event on its way to one address. */
export const WebhookDelivery = Type.Object({
  id: Type.String(),
  event: WebhookEvent,
  state: Type.Union([Type.Literal('waiting'), Type.Literal('delivered'), Type.Literal('given-up')]),
  attempts: Type.Integer({ minimum: 0 }),
  /** What came of the last attempt: what the other side answered, or why it did not. */
  outcome: Type.Union([Type.String(), Type.Null()]),
  /** Null unless it waits. */
  nextAttemptAt: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]),
});
export type WebhookDelivery = Static<typeof WebhookDelivery>;
