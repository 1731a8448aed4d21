/**
 * The alarms: raised, acknowledged, resolved. They are in the database, so that all coordinators and a restart see the same ones; of each kind
 * one at a time is open about one thing. Who is told of them: `webhooks.ts`. What raises them: `alarm-watch.ts`.
 */
import { randomUUID } from 'node:crypto';
import {
  type Alarm,
  type AlarmKind,
  AlarmSettings,
  type AlarmSettingsChange,
  type AlarmState,
  type AlarmTest,
  defaultAlarmSettings,
} from '@starling/model/alarm';
import type { AlarmEvent } from '@starling/model/webhook';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Static } from 'typebox';
import { Check } from 'typebox/value';
import { auditedTransaction } from './audit.ts';
import type { Tables, Transaction } from './database.ts';
import { type Page, type PageQuery, pageOf, pageRequestOf } from './page.ts';
import { ApiProblem } from './problem.ts';
import type { Webhooks } from './webhooks.ts';

const SETTINGS_NAME = 'alarms';
/** Resolved alarms that are kept; the oldest go. */
const MAX_RESOLVED = 10_000;
/** Open ones are read at each look: more would be noise. */
export const MAX_OPEN = 1000;

export interface AlarmFilter extends Static<typeof PageQuery> {
  readonly state?: AlarmState | 'open' | undefined;
  readonly kind?: AlarmKind | undefined;
  readonly target?: string | undefined;
}

/** What is wrong. */
export type NewAlarm = Pick<Alarm, 'kind' | 'target' | 'severity' | 'message'>;

/** Names a thing that an alarm is about, among all. */
export const alarmKey = ({ kind, target }: Pick<Alarm, 'kind' | 'target'>): string => `${kind} ${target}`;

export interface AlarmsOptions {
  readonly db: Kysely<Tables>;
  readonly webhooks: Webhooks;
  readonly logger: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

export class Alarms {
  readonly #options: AlarmsOptions;

  constructor(options: AlarmsOptions) {
    this.#options = options;
  }

  /** Newest first. @throws ApiProblem REQUEST_INVALID for a bad cursor */
  async list({ state, kind, target, ...query }: AlarmFilter): Promise<Page<Alarm>> {
    const request = pageRequestOf(query, ['raised_at', 'id']);
    const [afterTime, afterId] = request.after ?? [];
    let rows = this.#options.db.selectFrom('alarms').selectAll();
    // As it stands in the index of open alarms.
    if (state === 'open') rows = rows.where('state', '!=', sql.lit('resolved'));
    else if (state !== undefined) rows = rows.where('state', '=', state);
    if (kind !== undefined) rows = rows.where('kind', '=', kind);
    if (target !== undefined) rows = rows.where('target', '=', target);
    if (afterTime !== undefined && afterId !== undefined) {
      rows = rows.where(({ eb, refTuple, tuple }) =>
        eb(refTuple('raised_at', 'id'), '<', tuple(new Date(afterTime), afterId)),
      );
    }
    const found = await rows
      .orderBy('raised_at', 'desc')
      .orderBy('id', 'desc')
      .limit(request.rowLimit)
      .execute();
    return pageOf(found, request, ({ raised_at, id }) => [raised_at.toISOString(), id], alarmOf);
  }

  /** @throws ApiProblem ALARM_UNKNOWN */
  async get(id: string): Promise<Alarm> {
    const row = await this.#options.db
      .selectFrom('alarms')
      .selectAll()
      .where('id', '=', id)
      .executeTakeFirst();
    if (row === undefined) throw unknownAlarm(id);
    return alarmOf(row);
  }

  /** Those that are not resolved, by {@link alarmKey}. */
  async open(): Promise<Map<string, Alarm>> {
    const rows = await this.#options.db
      .selectFrom('alarms')
      .selectAll()
      .where('state', '!=', sql.lit('resolved'))
      .orderBy('raised_at')
      .limit(MAX_OPEN)
      .execute();
    return new Map(rows.map(alarmOf).map((alarm) => [alarmKey(alarm), alarm]));
  }

  /** @returns undefined where there is one about the same already */
  async raise({ kind, target, severity, message }: NewAlarm): Promise<Alarm | undefined> {
    const now = new Date(this.#options.now());
    const row = await this.#options.db
      .insertInto('alarms')
      .values({
        ...{ id: randomUUID(), kind, target, severity, message, state: 'raised' },
        ...{ raised_at: now, last_seen_at: now },
      })
      // The index of open alarms: another coordinator may have been faster.
      .onConflict((conflict) =>
        conflict.columns(['kind', 'target']).where('state', '!=', sql.lit('resolved')).doNothing(),
      )
      .returningAll()
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const alarm = alarmOf(row);
    this.#options.logger.warn({ alarm: kind, target, severity }, `alarm: ${message}`);
    await this.#tell('alarm.raised', alarm);
    return alarm;
  }

  /** It is still so. */
  async touch(id: string, message: string): Promise<void> {
    await this.#options.db
      .updateTable('alarms')
      .set({ last_seen_at: new Date(this.#options.now()), message })
      .where('id', '=', id)
      .where('state', '!=', 'resolved')
      .execute();
  }

  /** It is over by itself. */
  async clear(id: string): Promise<void> {
    const row = await this.#options.db
      .updateTable('alarms')
      .set({ state: 'resolved', resolved_at: new Date(this.#options.now()) })
      .where('id', '=', id)
      .where('state', '!=', 'resolved')
      .returningAll()
      .executeTakeFirst();
    if (row === undefined) return;
    this.#options.logger.info({ alarm: row.kind, target: row.target }, 'alarm is over');
    await this.#tell('alarm.resolved', alarmOf(row));
    await this.#trim();
  }

  /**
   * Somebody is at it. Who says so again changes nothing.
   * @throws ApiProblem ALARM_UNKNOWN or ALARM_RESOLVED
   */
  async acknowledge(id: string, by: string): Promise<Alarm> {
    const { alarm, isChanged } = await auditedTransaction(this.#options.db, async (transaction) => {
      const before = await lockAlarm(transaction, id);
      if (before.state === 'resolved')
        throw new ApiProblem('ALARM_RESOLVED', `Alarm ${id} was over at ${before.resolvedAt}.`);
      if (before.state === 'acknowledged') return { alarm: before, isChanged: false };
      const row = await transaction
        .updateTable('alarms')
        .set({
          state: 'acknowledged',
          acknowledged_at: new Date(this.#options.now()),
          acknowledged_by: by,
        })
        .where('id', '=', id)
        .returningAll()
        .executeTakeFirstOrThrow();
      return { alarm: alarmOf(row), isChanged: true };
    });
    if (isChanged) await this.#tell('alarm.acknowledged', alarm);
    return alarm;
  }

  /**
   * Somebody says that it is over. Who says so again changes nothing.
   * @throws ApiProblem ALARM_UNKNOWN
   */
  async resolve(id: string, by: string): Promise<Alarm> {
    const { alarm, isChanged } = await auditedTransaction(this.#options.db, async (transaction) => {
      const before = await lockAlarm(transaction, id);
      if (before.state === 'resolved') return { alarm: before, isChanged: false };
      const row = await transaction
        .updateTable('alarms')
        .set({ state: 'resolved', resolved_at: new Date(this.#options.now()), resolved_by: by })
        .where('id', '=', id)
        .returningAll()
        .executeTakeFirstOrThrow();
      return { alarm: alarmOf(row), isChanged: true };
    });
    if (isChanged) await this.#tell('alarm.resolved', alarm);
    return alarm;
  }

  settings(): Promise<AlarmSettings> {
    return readSettings(this.#options.db);
  }

  async changeSettings(changed: AlarmSettingsChange): Promise<AlarmSettings> {
    const settings = await auditedTransaction(this.#options.db, async (transaction) => {
      const next = { ...(await readSettings(transaction)), ...changed };
      const value = JSON.stringify(next);
      await transaction
        .insertInto('settings')
        .values({ name: SETTINGS_NAME, value })
        .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
        .execute();
      return next;
    });
    this.#options.logger.info({ changed }, 'settings of the alarms changed');
    return settings;
  }

  /** Tells everybody who hears of alarms of one that is none, to try the ways out. */
  async test(by: string): Promise<AlarmTest> {
    const at = new Date(this.#options.now()).toISOString();
    const event = await this.#tell('alarm.raised', {
      ...{ id: `test-${randomUUID()}`, kind: 'failover', target: 'test', severity: 'warning' },
      ...{ state: 'raised', raisedAt: at, lastSeenAt: at, message: `This is a test by ${by}. All is well.` },
      ...{ acknowledgedAt: null, acknowledgedBy: null, resolvedAt: null, resolvedBy: null },
    });
    const webhooks = await this.#options.webhooks.list();
    return {
      eventId: event.id,
      webhookIds: webhooks.filter(({ events }) => events.includes('alarm.raised')).map(({ id }) => id),
    };
  }

  async #tell(type: AlarmEvent['type'], alarm: Alarm): Promise<AlarmEvent> {
    const at = new Date(this.#options.now()).toISOString();
    const event: AlarmEvent = { id: `${alarm.id}-${type.replace('alarm.', '')}`, at, type, alarm };
    await this.#options.webhooks.take([event]);
    return event;
  }

  async #trim(): Promise<void> {
    const tooMany = this.#options.db
      .selectFrom('alarms')
      .select('id')
      .where('state', '=', 'resolved')
      .orderBy('raised_at', 'desc')
      .offset(MAX_RESOLVED);
    await this.#options.db.deleteFrom('alarms').where('id', 'in', tooMany).execute();
  }
}

async function lockAlarm(transaction: Transaction, id: string): Promise<Alarm> {
  const row = await transaction
    .selectFrom('alarms')
    .selectAll()
    .where('id', '=', id)
    .forUpdate()
    .executeTakeFirst();
  if (row === undefined) throw unknownAlarm(id);
  return alarmOf(row);
}

async function readSettings(db: Kysely<Tables>): Promise<AlarmSettings> {
  const row = await db
    .selectFrom('settings')
    .select('value')
    .where('name', '=', SETTINGS_NAME)
    .executeTakeFirst();
  // Those that a later version added have their default.
  const kept = { ...defaultAlarmSettings, ...(row?.value as object | undefined) };
  return Check(AlarmSettings, kept) ? kept : defaultAlarmSettings;
}

function alarmOf(row: Selectable<Tables['alarms']>): Alarm {
  return {
    id: row.id,
    kind: row.kind,
    target: row.target,
    severity: row.severity,
    state: row.state,
    message: row.message,
    raisedAt: row.raised_at.toISOString(),
    lastSeenAt: row.last_seen_at.toISOString(),
    acknowledgedAt: row.acknowledged_at?.toISOString() ?? null,
    acknowledgedBy: row.acknowledged_by,
    resolvedAt: row.resolved_at?.toISOString() ?? null,
    resolvedBy: row.resolved_by,
  };
}

function unknownAlarm(id: string): ApiProblem {
  return new ApiProblem('ALARM_UNKNOWN', `There is no alarm ${id}.`);
}
