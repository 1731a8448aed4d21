/**
 * Webhooks: events are sent to addresses of the operator's, signed, and again until they are taken; those of `mailto:` as e-mails. The
 * queue is in the database, so that it survives a restart; it is bounded for each address.
 */
import { createHmac, randomBytes } from 'node:crypto';
import type { BackendReport, Rotation } from '@starling/model/entities';
import {
  alarmEventTypes,
  type NewWebhook,
  type Webhook,
  type WebhookDelivery,
  type WebhookEvent,
  type WebhookWithSecret,
  webhookEventTypes,
} from '@starling/model/webhook';
import type { Kysely, Selectable } from 'kysely';
import type { Logger } from 'pino';
import { auditedTransaction } from './audit.ts';
import type { Tables } from './database.ts';
import type { Mail } from './mail.ts';
import type { CoordinatorMetrics } from './metrics.ts';
import { ApiProblem } from './problem.ts';
import { takeOnce } from './spools.ts';
import { post } from './webhook-request.ts';

const MAX_WEBHOOKS = 50;
/** What may wait for one address; a further event drives out the oldest. */
const MAX_WAITING = 500;
/** What is kept of an address's deliveries that have ended. */
const MAX_KEPT = 200;
const MAX_IN_FLIGHT = 16;
/** A slow address must not take the places of the others. */
const MAX_IN_FLIGHT_PER_WEBHOOK = 2;
const MAX_ATTEMPTS = 12;
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 600_000;
/** Whoever sends a delivery has it to itself for so long, which is more than an answer may take. */
const CLAIM_MS = 15_000;
/** Another coordinator may have died over a delivery. */
const LOOK_EVERY_MS = 30_000;
/** When the database cannot answer. */
const DATABASE_RETRY_MS = 5000;

export interface WebhooksOptions {
  readonly db: Kysely<Tables>;
  readonly mail: Mail;
  readonly metrics: CoordinatorMetrics;
  readonly logger: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

export class Webhooks {
  readonly #db: Kysely<Tables>;
  readonly #mail: Mail;
  readonly #metrics: CoordinatorMetrics;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #stop = new AbortController();
  /** Of deliveries: the webhook of each. */
  readonly #inFlight = new Map<string, string>();
  readonly #running = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | undefined;
  #isLooking = false;
  #isLookingAgain = false;

  constructor({ db, mail, metrics, logger, now }: WebhooksOptions) {
    this.#db = db;
    this.#mail = mail;
    this.#metrics = metrics;
    this.#logger = logger;
    this.#now = now;
    this.#look();
  }

  /** All webhooks, oldest first. */
  async list(): Promise<Webhook[]> {
    const rows = await this.#db
      .selectFrom('webhooks')
      .selectAll()
      .orderBy('created_at')
      .orderBy('id')
      .execute();
    return rows.map(webhookOf);
  }

  /** @throws ApiProblem REQUEST_INVALID for an address that is neither HTTP nor of an e-mail, or TOO_MANY_WEBHOOKS */
  async add(webhook: NewWebhook): Promise<WebhookWithSecret> {
    const { url } = webhook;
    const isMail = mailAddressOf(url) !== undefined;
    if (!isMail && (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))) {
      throw new ApiProblem(
        'REQUEST_INVALID',
        'The address of a webhook begins with https:// or http://, or is of the form mailto:NAME@HOST.',
      );
    }
    const events = webhook.events ?? [...(isMail ? alarmEventTypes : webhookEventTypes)];
    const secret = isMail ? '' : newSecret();
    const row = await auditedTransaction(this.#db, async (transaction) => {
      const { count } = await transaction
        .selectFrom('webhooks')
        .select(({ fn }) => fn.countAll<string>().as('count'))
        .executeTakeFirstOrThrow();
      if (Number(count) >= MAX_WEBHOOKS) {
        throw new ApiProblem('TOO_MANY_WEBHOOKS', `There are ${MAX_WEBHOOKS} webhooks already. Remove one.`);
      }
      return transaction
        .insertInto('webhooks')
        .values({
          id: randomBytes(8).toString('hex'),
          url,
          events,
          secret,
          created_at: new Date(this.#now()),
        })
        .returningAll()
        .executeTakeFirstOrThrow();
    });
    this.#logger.info({ webhook: row.id, events }, 'webhook added');
    return { webhook: webhookOf(row), secret: isMail ? null : secret };
  }

  /**
   * Signs with a new secret from now on, and with the old one as well while they overlap.
   * @throws ApiProblem WEBHOOK_UNKNOWN, or REQUEST_INVALID for e-mails, which are not signed
   */
  async rotateSecret(id: string, { overlapSeconds = 0 }: Rotation): Promise<WebhookWithSecret> {
    const secret = newSecret();
    const until = new Date(this.#now() + overlapSeconds * 1000);
    const row = await auditedTransaction(this.#db, async (transaction) => {
      const rotated = await transaction
        .updateTable('webhooks')
        .set(({ ref }) => ({
          secret,
          old_secret: overlapSeconds > 0 ? ref('secret') : null,
          old_secret_until: overlapSeconds > 0 ? until : null,
        }))
        .where('id', '=', id)
        .returningAll()
        .executeTakeFirst();
      if (rotated === undefined) throw unknownWebhook(id);
      if (mailAddressOf(rotated.url) !== undefined)
        throw new ApiProblem('REQUEST_INVALID', 'E-mails are not signed: there is no secret to rotate.');
      return rotated;
    });
    this.#logger.info({ webhook: id, overlapSeconds }, 'secret of a webhook rotated');
    return { webhook: webhookOf(row), secret };
  }

  /** @throws ApiProblem WEBHOOK_UNKNOWN */
  async remove(id: string): Promise<void> {
    const { numDeletedRows } = await auditedTransaction(this.#db, (transaction) =>
      transaction.deleteFrom('webhooks').where('id', '=', id).executeTakeFirst(),
    );
    if (numDeletedRows === 0n) throw unknownWebhook(id);
    this.#logger.info({ webhook: id }, 'webhook removed');
  }

  /**
   * What was sent to an address and what waits for it, newest first.
   * @throws ApiProblem WEBHOOK_UNKNOWN
   */
  async deliveries(id: string): Promise<WebhookDelivery[]> {
    const known = await this.#db.selectFrom('webhooks').select('id').where('id', '=', id).executeTakeFirst();
    if (known === undefined) throw unknownWebhook(id);
    const rows = await this.#db
      .selectFrom('webhook_deliveries')
      .selectAll()
      .where('webhook_id', '=', id)
      .orderBy('number', 'desc')
      .execute();
    return rows.map((row) => ({
      id: row.id,
      event: row.event,
      state: row.state,
      attempts: row.attempts,
      outcome: row.outcome,
      nextAttemptAt: row.next_attempt_at?.toISOString() ?? null,
    }));
  }

  /**
   * Queues events for all who asked for them. An event that is told again is not sent again.
   * @returns those that were not told before, as far as the spool says
   */
  async take<Event extends WebhookEvent>(
    reported: readonly Event[],
    spool?: BackendReport['eventSpool'],
  ): Promise<readonly Event[]> {
    if (reported.length === 0) return [];
    const fresh = await this.#db.transaction().execute(async (transaction) => {
      const events =
        spool === undefined
          ? reported
          : await takeOnce(
              transaction,
              spool.spoolId,
              reported.map((value, at) => ({ value, sequence: spool.sequences[at] ?? 0 })),
              new Date(this.#now()),
            );
      const webhooks = await transaction.selectFrom('webhooks').select(['id', 'events']).execute();
      for (const { id: webhook, events: wanted } of webhooks) {
        const deliveries = events.filter(({ type }) => wanted.includes(type));
        if (deliveries.length === 0) continue;
        await transaction
          .insertInto('webhook_deliveries')
          .values(
            deliveries.map((event) => ({
              id: `${event.id}-${webhook}`,
              webhook_id: webhook,
              event: JSON.stringify(event),
              state: 'waiting' as const,
              attempts: 0,
              outcome: null,
              next_attempt_at: new Date(this.#now()),
            })),
          )
          .onConflict((conflict) => conflict.column('id').doNothing())
          .execute();
        const waiting = transaction
          .selectFrom('webhook_deliveries')
          .select('id')
          .where('webhook_id', '=', webhook)
          .where('state', '=', 'waiting')
          .orderBy('number', 'desc')
          .offset(MAX_WAITING);
        await transaction
          .updateTable('webhook_deliveries')
          .set({ state: 'given-up', outcome: 'too many were waiting', next_attempt_at: null })
          .where('id', 'in', waiting)
          .execute();
        const ended = transaction
          .selectFrom('webhook_deliveries')
          .select('id')
          .where('webhook_id', '=', webhook)
          .where('state', '!=', 'waiting')
          .orderBy('number', 'desc')
          .offset(MAX_KEPT);
        await transaction.deleteFrom('webhook_deliveries').where('id', 'in', ended).execute();
      }
      return events;
    });
    this.#look();
    return fresh;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await Promise.all(this.#running);
  }

  /** Looks for what is due, now. */
  #look(): void {
    if (this.#isLooking) {
      this.#isLookingAgain = true;
      return;
    }
    this.#isLooking = true;
    clearTimeout(this.#timer);
    this.#track(
      this.#startDue()
        .catch((error: unknown) => {
          if (!this.#stop.signal.aborted) this.#logger.error({ err: error }, 'webhooks cannot be looked for');
          return DATABASE_RETRY_MS;
        })
        .then((waitMs) => {
          this.#isLooking = false;
          if (this.#stop.signal.aborted) return;
          if (this.#isLookingAgain) {
            this.#isLookingAgain = false;
            this.#look();
          } else {
            const limitMs = Math.min(waitMs ?? LOOK_EVERY_MS, LOOK_EVERY_MS);
            this.#timer = setTimeout(() => this.#look(), Math.max(0, limitMs));
            this.#timer.unref();
          }
        }),
    );
  }

  /** @returns how long it is until the next is due; undefined when none waits, or one that ends will look again */
  async #startDue(): Promise<number | undefined> {
    const waiting = await this.#db
      .selectFrom('webhook_deliveries')
      .innerJoin('webhooks', 'webhooks.id', 'webhook_deliveries.webhook_id')
      .select([
        'webhook_deliveries.id',
        'webhook_id',
        'event',
        'attempts',
        'next_attempt_at',
        'url',
        'secret',
        'old_secret',
        'old_secret_until',
      ])
      .where('state', '=', 'waiting')
      .orderBy('next_attempt_at')
      .orderBy('number')
      .limit(MAX_WEBHOOKS * MAX_IN_FLIGHT_PER_WEBHOOK + MAX_IN_FLIGHT)
      .execute();
    for (const delivery of waiting) {
      if (this.#stop.signal.aborted || this.#inFlight.size >= MAX_IN_FLIGHT) return undefined;
      if (this.#inFlight.has(delivery.id)) continue;
      const waitMs = (delivery.next_attempt_at?.getTime() ?? 0) - this.#now();
      if (waitMs > 0) return waitMs;
      const ofSame = [...this.#inFlight.values()].filter((webhook) => webhook === delivery.webhook_id);
      if (ofSame.length >= MAX_IN_FLIGHT_PER_WEBHOOK) continue;
      this.#inFlight.set(delivery.id, delivery.webhook_id);
      this.#track(
        this.#deliver(delivery)
          .catch((error: unknown) => {
            if (!this.#stop.signal.aborted)
              this.#logger.error({ err: error }, 'the outcome of a webhook could not be kept');
          })
          .then(() => {
            this.#inFlight.delete(delivery.id);
            if (!this.#stop.signal.aborted) this.#look();
          }),
      );
    }
    return undefined;
  }

  async #deliver(delivery: {
    readonly id: string;
    readonly event: WebhookEvent;
    readonly attempts: number;
    readonly next_attempt_at: Date | null;
    readonly url: string;
    readonly secret: string;
    readonly old_secret: string | null;
    readonly old_secret_until: Date | null;
    readonly webhook_id: string;
  }): Promise<void> {
    const claimedUntil = new Date(this.#now() + CLAIM_MS);
    const { numUpdatedRows } = await this.#db
      .updateTable('webhook_deliveries')
      .set({ next_attempt_at: claimedUntil })
      .where('id', '=', delivery.id)
      .where('state', '=', 'waiting')
      .where('next_attempt_at', '=', delivery.next_attempt_at)
      .executeTakeFirst();
    if (numUpdatedRows === 0n) return; // another coordinator has it
    const { isDelivered, isGone, outcome } = await this.#send(delivery);
    if (this.#stop.signal.aborted) {
      // It is sent again after the restart, or by another coordinator.
      await this.#db
        .updateTable('webhook_deliveries')
        .set({ next_attempt_at: delivery.next_attempt_at })
        .where('id', '=', delivery.id)
        .where('next_attempt_at', '=', claimedUntil)
        .execute();
      return;
    }
    const attempts = delivery.attempts + 1;
    const isOver = isDelivered || isGone || attempts >= MAX_ATTEMPTS;
    this.#metrics.deliveries.inc({ result: isDelivered ? 'delivered' : isOver ? 'given-up' : 'failed' });
    const retryMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempts - 1)) * (0.5 + Math.random() / 2);
    const log = { webhook: delivery.webhook_id, event: delivery.event.type, attempts, outcome };
    if (!isDelivered && isOver) this.#logger.warn(log, 'a webhook was given up');
    await this.#db
      .updateTable('webhook_deliveries')
      .set({
        state: isDelivered ? 'delivered' : isOver ? 'given-up' : 'waiting',
        attempts,
        outcome,
        next_attempt_at: isOver ? null : new Date(this.#now() + retryMs),
      })
      .where('id', '=', delivery.id)
      .where('state', '=', 'waiting')
      .execute();
  }

  async #send(delivery: {
    readonly id: string;
    readonly event: WebhookEvent;
    readonly url: string;
    readonly secret: string;
    readonly old_secret: string | null;
    readonly old_secret_until: Date | null;
  }): Promise<{ readonly isDelivered: boolean; readonly isGone: boolean; readonly outcome: string }> {
    const { id, event, url, secret, old_secret: old, old_secret_until: until } = delivery;
    const { signal } = this.#stop;
    const mailAddress = mailAddressOf(url);
    if (mailAddress !== undefined)
      return { ...(await this.#mail.send(mailAddress, event, signal)), isGone: false };
    const body = JSON.stringify(event);
    const timestamp = Math.floor(this.#now() / 1000);
    const secrets =
      old !== null && until !== null && until.getTime() > this.#now() ? [secret, old] : [secret];
    const signatures = secrets.map((one) => `v1=${signature(one, timestamp, body)}`);
    const { status, outcome } = await post(url, body, {
      signal,
      headers: {
        'content-type': 'application/json',
        'user-agent': 'Starling-Webhooks/1',
        'starling-event': event.type,
        'starling-delivery': id,
        'starling-signature': [`t=${timestamp}`, ...signatures].join(','),
      },
    });
    const isDelivered = status !== undefined && status >= 200 && status < 300;
    // 410 Gone: the address is not coming back (RFC 9110, 15.5.11).
    return { isDelivered, isGone: status === 410, outcome };
  }

  #track(promise: Promise<void>): void {
    this.#running.add(promise);
    void promise.then(() => this.#running.delete(promise));
  }
}

const newSecret = () => `whsec_${randomBytes(32).toString('base64url')}`;

/**
 * HMAC-SHA256 over the time of sending and the body, in hex. The receiver computes the same and refuses
 * old times, so that a delivery that was overheard cannot be sent to it again.
 */
export function signature(secret: string, timestampSeconds: number, body: string): string {
  return createHmac('sha256', secret).update(`${timestampSeconds}.${body}`).digest('hex');
}

/** Of `mailto:` with one address and nothing else; undefined for other addresses. */
function mailAddressOf(url: string): string | undefined {
  return /^mailto:([^\s@,;:<>()?&%"\\]+@[a-z0-9.[\]:-]+)$/i.exec(url)?.[1];
}

function webhookOf(row: Selectable<Tables['webhooks']>): Webhook {
  const { origin, pathname } = new URL(row.url);
  return {
    id: row.id,
    url: mailAddressOf(row.url) === undefined ? `${origin}${pathname}` : row.url,
    events: row.events,
    createdAt: row.created_at.toISOString(),
  };
}

function unknownWebhook(id: string): ApiProblem {
  return new ApiProblem('WEBHOOK_UNKNOWN', `There is no webhook ${id}.`);
}
