/**
 * The tables, as a list of steps that is only ever appended to. Each step runs once, in order, in a
 * transaction, under Kysely's lock.
 */
import { type Kysely, type Migration, Migrator, sql } from 'kysely';
import type { Logger } from 'pino';
import { DataFolderError } from './data-folder-lock.ts';

const migrations: Record<string, Migration> = {
  '001-assets-channels-streams': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('assets')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('name', 'text', (column) => column.notNull())
        .addColumn('state', 'text', (column) =>
          column.notNull().check(sql`state in ('queued', 'importing', 'ready', 'failed')`),
        )
        .addColumn('error', 'text')
        .addColumn('facts', 'jsonb')
        .addColumn('source_path', 'text', (column) => column.notNull())
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .addCheckConstraint('assets_ready_has_facts', sql`(state = 'ready') = (facts is not null)`)
        .execute();
      await db.schema.createIndex('assets_by_name').on('assets').column('name').execute();
      await db.schema
        .createTable('channels')
        .addColumn('name', 'text', (column) => column.primaryKey())
        .addColumn('title', 'text', (column) => column.notNull())
        .addColumn('kind', 'text', (column) => column.notNull().check(sql`kind in ('playout', 'live')`))
        .addColumn('epoch', 'timestamptz', (column) => column.notNull())
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('runs')
        .addColumn('channel', 'text', (column) =>
          column.notNull().references('channels.name').onDelete('cascade'),
        )
        .addColumn('start_ticks', 'int8', (column) => column.notNull())
        .addColumn('first_media_sequence_number', 'int8', (column) => column.notNull())
        .addColumn('first_discontinuity_sequence', 'int8', (column) => column.notNull())
        .addColumn('loop', sql`text[]`, (column) => column.notNull())
        .addPrimaryKeyConstraint('runs_pkey', ['channel', 'start_ticks'])
        .execute();
      await db.schema.createIndex('runs_by_asset').on('runs').using('gin').column('loop').execute();
      await db.schema
        .createTable('streams')
        .addColumn('name', 'text', (column) =>
          column.primaryKey().references('channels.name').onDelete('cascade'),
        )
        .addColumn('key_sha256', 'text', (column) => column.notNull().unique())
        .addColumn('key_rotated_at', 'timestamptz', (column) => column.notNull())
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('settings')
        .addColumn('name', 'text', (column) => column.primaryKey())
        .addColumn('value', 'jsonb', (column) => column.notNull())
        .execute();
      await sql`insert into settings (name, value) values ('revision', '0')`.execute(db);
    },
  },
  '002-private-channels': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('channels')
        .addColumn('is_private', 'boolean', (column) => column.notNull().defaultTo(false))
        .addColumn('max_viewers', 'int4')
        .execute();
      await db.schema
        .createTable('viewing_tokens')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('key_id', 'text', (column) => column.notNull())
        .addColumn('name', 'text')
        .addColumn('channels', sql`text[]`)
        .addColumn('max_concurrent', 'int4')
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .addColumn('expires_at', 'timestamptz', (column) => column.notNull())
        .addColumn('revoked_at', 'timestamptz')
        .execute();
      await db.schema
        .createIndex('viewing_tokens_by_expiry')
        .on('viewing_tokens')
        .column('expires_at')
        .execute();
    },
  },
  '005-schedules': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('runs')
        .addColumn('origin_ticks', 'int8')
        .addColumn('shuffle_seed', 'int8')
        .addColumn('programme', 'jsonb')
        .execute();
      await db.schema
        .createTable('schedules')
        .addColumn('channel', 'text', (column) =>
          column.primaryKey().references('channels.name').onDelete('cascade'),
        )
        .addColumn('schedule', 'jsonb', (column) => column.notNull())
        .addColumn('asset_ids', sql`text[]`, (column) => column.notNull())
        .addColumn('valid_from_ticks', 'int8', (column) => column.notNull())
        .execute();
      await db.schema
        .createIndex('schedules_by_asset')
        .on('schedules')
        .using('gin')
        .column('asset_ids')
        .execute();
      // A channel that loops over assets is one with nothing but filler.
      await sql`
        insert into schedules (channel, schedule, asset_ids, valid_from_ticks)
        select distinct on (channel) channel, jsonb_build_object(
          'timeZone', 'UTC', 'filler', jsonb_build_object('items', to_jsonb(loop)), 'programmes', '[]'::jsonb
        ), loop, start_ticks
        from runs order by channel, start_ticks desc`.execute(db);
      await db.schema
        .alterTable('channels')
        .addColumn('number', 'int4')
        .addColumn('logo', 'text')
        .addColumn('group_title', 'text')
        .execute();
      await sql`
        update channels set number = numbered.number from (
          select name, row_number() over (order by created_at, name) as number from channels
        ) as numbered where channels.name = numbered.name`.execute(db);
      await db.schema
        .alterTable('channels')
        .alterColumn('number', (column) => column.setNotNull())
        .execute();
      await db.schema.createIndex('channels_by_number').unique().on('channels').column('number').execute();
    },
  },
  '006-sources': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('channels')
        .addColumn('has_sources', 'boolean', (column) => column.notNull().defaultTo(false))
        .addColumn('primary_stream', 'text')
        .addColumn('backup_stream', 'text')
        .addColumn('fallback', 'text', (column) =>
          column.notNull().defaultTo('none').check(sql`fallback in ('playout', 'slate', 'none')`),
        )
        .addColumn('source_choice', 'text', (column) =>
          column
            .notNull()
            .defaultTo('auto')
            .check(sql`source_choice in ('auto', 'primary', 'backup', 'playout', 'slate')`),
        )
        .execute();
      await db.schema
        .alterTable('streams')
        .addColumn('input', 'jsonb', (column) => column.notNull().defaultTo(sql`'{"type":"rtmp"}'::jsonb`))
        .addColumn('transcode', 'jsonb')
        .execute();
      await sql`update channels set has_sources = true, primary_stream = name where kind = 'live'`.execute(
        db,
      );
    },
  },
  '007-webhooks': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('webhooks')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('url', 'text', (column) => column.notNull())
        .addColumn('events', sql`text[]`, (column) => column.notNull())
        .addColumn('secret', 'text', (column) => column.notNull())
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('webhook_deliveries')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('number', 'bigserial', (column) => column.notNull())
        .addColumn('webhook_id', 'text', (column) =>
          column.notNull().references('webhooks.id').onDelete('cascade'),
        )
        .addColumn('event', 'jsonb', (column) => column.notNull())
        .addColumn('state', 'text', (column) =>
          column.notNull().check(sql`state in ('waiting', 'delivered', 'given-up')`),
        )
        .addColumn('attempts', 'integer', (column) => column.notNull())
        .addColumn('outcome', 'text')
        .addColumn('next_attempt_at', 'timestamptz')
        .addCheckConstraint(
          'webhook_deliveries_waiting_has_time',
          sql`(state = 'waiting') = (next_attempt_at is not null)`,
        )
        .execute();
      await db.schema
        .createIndex('webhook_deliveries_due')
        .on('webhook_deliveries')
        .columns(['state', 'next_attempt_at'])
        .execute();
      await db.schema
        .createIndex('webhook_deliveries_by_webhook')
        .on('webhook_deliveries')
        .columns(['webhook_id', 'number'])
        .execute();
    },
  },
  '008-library': {
    async up(db: Kysely<unknown>) {
      await sql`alter table assets rename column source_path to source`.execute(db);
      await sql`alter table assets add column attempt int4 not null default 1`.execute(db);
      await sql`alter table assets drop constraint assets_state_check`.execute(db);
      await sql`
        alter table assets add constraint assets_state_check
        check (state in ('queued', 'importing', 'ready', 'failed', 'cancelled'))
      `.execute(db);
      // Until now every asset had one picture and one sound.
      await sql`
        update assets set facts = facts || jsonb_build_object(
          'videoTracks', jsonb_build_array(jsonb_build_object(
            'widthPx', facts->'widthPx', 'heightPx', facts->'heightPx', 'bitrateBps',
            round((facts->>'sizeBytes')::numeric * 8 * 90000 / (facts->>'durationTicks')::numeric)
          )),
          'audioTracks', '[{ "language": null, "loudnessLufs": null, "gainDb": 0 }]'::jsonb,
          'subtitles', '[]'::jsonb,
          'hasPictures', false
        ) where facts is not null
      `.execute(db);
      await sql`alter table runs add column tracks jsonb`.execute(db);
      await db.schema
        .createTable('watched_folders')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('path', 'text', (column) => column.notNull().unique())
        .addColumn('is_recursive', 'boolean', (column) => column.notNull())
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('watched_files')
        .addColumn('folder', 'text', (column) =>
          column.notNull().references('watched_folders.id').onDelete('cascade'),
        )
        .addColumn('path', 'text', (column) => column.notNull())
        .addColumn('version', 'text', (column) => column.notNull())
        .addPrimaryKeyConstraint('watched_files_pkey', ['folder', 'path'])
        .execute();
    },
  },
  '009-destinations': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('destinations')
        .addColumn('name', 'text', (column) => column.primaryKey())
        .addColumn('channel', 'text', (column) =>
          column.notNull().references('channels.name').onDelete('cascade'),
        )
        .addColumn('url', 'text', (column) => column.notNull())
        .addColumn('is_enabled', 'boolean', (column) => column.notNull())
        .addColumn('takes_enhanced_codecs', 'boolean', (column) => column.notNull())
        .addColumn('accepts_any_certificate', 'boolean', (column) => column.notNull())
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .execute();
    },
  },
  '010-recordings': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('channels')
        .addColumn('record', 'jsonb')
        .addColumn('redundancy', 'int4', (column) =>
          column.notNull().defaultTo(1).check(sql`redundancy in (1, 2)`),
        )
        .execute();
      await db.schema
        .createTable('recordings')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('name', 'text', (column) => column.notNull())
        .addColumn('channel', 'text')
        .addColumn('stream', 'text')
        .addColumn('is_automatic', 'boolean', (column) => column.notNull())
        .addColumn('is_wanted', 'boolean', (column) => column.notNull())
        .addColumn('end_reason', 'text')
        .addColumn('ended_at', 'timestamptz')
        .addColumn('parts', 'jsonb', (column) => column.notNull().defaultTo(sql`'[]'::jsonb`))
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .addColumn('removed_at', 'timestamptz')
        .addCheckConstraint('recordings_have_source', sql`(channel is null) <> (stream is null)`)
        .addCheckConstraint('recordings_end', sql`(end_reason is null) = (ended_at is null)`)
        .execute();
      await db.schema
        .createIndex('recordings_by_creation')
        .on('recordings')
        .columns(['created_at', 'id'])
        .execute();
    },
  },
  '011-dark-after': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('channels')
        .addColumn('dark_after_ms', 'int4', (column) => column.defaultTo(1000))
        .execute();
    },
  },
  '012-pages': {
    async up(db: Kysely<unknown>) {
      for (const table of ['assets', 'viewing_tokens']) {
        await db.schema.createIndex(`${table}_by_creation`).on(table).columns(['created_at', 'id']).execute();
      }
    },
  },
  '013-access': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('accounts')
        .addColumn('name', 'text', (column) => column.primaryKey())
        .addColumn('role', 'text', (column) =>
          column.notNull().check(sql`role in ('operator', 'editor', 'streamer', 'viewer')`),
        )
        .addColumn('password_hash', 'text', (column) => column.notNull())
        .addColumn('has_one_time_password', 'boolean', (column) => column.notNull())
        .addColumn('is_disabled', 'boolean', (column) => column.notNull().defaultTo(false))
        .addColumn('channels', sql`text[]`, (column) => column.notNull())
        .addColumn('totp_secret', 'text')
        .addColumn('is_totp_on', 'boolean', (column) => column.notNull().defaultTo(false))
        .addColumn('totp_last_counter', 'int8', (column) => column.notNull().defaultTo(0))
        .addColumn('recovery_sha256s', sql`text[]`, (column) => column.notNull().defaultTo(sql`'{}'`))
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .addCheckConstraint('accounts_totp_has_secret', sql`not is_totp_on or totp_secret is not null`)
        .execute();
      await db.schema
        .createTable('sessions')
        .addColumn('token_sha256', 'text', (column) => column.primaryKey())
        .addColumn('account', 'text', (column) =>
          column.notNull().references('accounts.name').onDelete('cascade'),
        )
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .addColumn('last_used_at', 'timestamptz', (column) => column.notNull())
        .addColumn('expires_at', 'timestamptz', (column) => column.notNull())
        .execute();
      await db.schema
        .createIndex('sessions_by_account')
        .on('sessions')
        .columns(['account', 'last_used_at'])
        .execute();
      await db.schema.createIndex('sessions_by_expiry').on('sessions').column('expires_at').execute();
      await db.schema
        .createTable('api_tokens')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('name', 'text', (column) => column.notNull())
        .addColumn('token_sha256', 'text', (column) => column.notNull().unique())
        .addColumn('account', 'text', (column) => column.references('accounts.name').onDelete('cascade'))
        .addColumn('scopes', sql`text[]`, (column) => column.notNull())
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .addColumn('expires_at', 'timestamptz', (column) => column.notNull())
        .addColumn('revoked_at', 'timestamptz')
        .execute();
      await db.schema.createIndex('api_tokens_by_account').on('api_tokens').column('account').execute();
      await db.schema
        .createIndex('api_tokens_by_creation')
        .on('api_tokens')
        .columns(['created_at', 'id'])
        .execute();
      await db.schema
        .createTable('login_failures')
        .addColumn('key', 'text', (column) => column.primaryKey())
        .addColumn('count', 'int4', (column) => column.notNull())
        .addColumn('last_at', 'timestamptz', (column) => column.notNull())
        .addColumn('locked_until', 'timestamptz', (column) => column.notNull())
        .execute();
      await db.schema.createIndex('login_failures_by_time').on('login_failures').column('last_at').execute();
      await db.schema
        .alterTable('streams')
        .addColumn('owner', 'text', (column) => column.references('accounts.name').onDelete('set null'))
        .execute();
      await db.schema.createIndex('streams_by_owner').on('streams').column('owner').execute();
      await createAuditLog(db);
    },
  },
  '026-nodes': {
    async up(db: Kysely<unknown>) {
      const isRole = sql`role in ('frontend', 'backend', 'balancer')`;
      await db.schema
        .createTable('nodes')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('name', 'text', (column) => column.notNull())
        .addColumn('role', 'text', (column) => column.notNull().check(isRole))
        .addColumn('public_key', 'text', (column) => column.notNull())
        .addColumn('addresses', 'jsonb')
        .addColumn('version', 'text')
        .addColumn('boot_id', 'text')
        .addColumn('state', 'text', (column) =>
          column.notNull().check(sql`state in ('joined', 'cordoned', 'draining', 'removed')`),
        )
        .addColumn('restart_boot_id', 'text')
        .addColumn('state_after_restart', 'text')
        .addColumn('revision', 'int8', (column) => column.notNull())
        .addColumn('joined_at', 'timestamptz', (column) => column.notNull())
        .addColumn('last_seen_at', 'timestamptz')
        .addColumn('removed_at', 'timestamptz')
        .addCheckConstraint('nodes_removed_has_time', sql`(state = 'removed') = (removed_at is not null)`)
        .addCheckConstraint(
          'nodes_restart',
          sql`(restart_boot_id is null) = (state_after_restart is null) and (restart_boot_id is null or state = 'draining')`,
        )
        .execute();
      await sql`create unique index nodes_by_name on nodes (name) where state <> 'removed'`.execute(db);
      await db.schema.createIndex('nodes_by_revision').on('nodes').column('revision').execute();
      await db.schema
        .createTable('node_invitations')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('token_sha256', 'text', (column) => column.notNull().unique())
        .addColumn('role', 'text', (column) => column.notNull().check(isRole))
        .addColumn('name', 'text')
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .addColumn('expires_at', 'timestamptz', (column) => column.notNull())
        .addColumn('used_at', 'timestamptz')
        .addColumn('used_by', 'text')
        .addCheckConstraint('node_invitations_use', sql`(used_at is null) = (used_by is null)`)
        .execute();
      await db.schema
        .createIndex('node_invitations_by_creation')
        .on('node_invitations')
        .columns(['created_at', 'id'])
        .execute();
      await auditTable(db, 'nodes', auditedTables.nodes ?? ['id']);
      await auditTable(db, 'node_invitations', auditedTables.node_invitations ?? ['id']);
    },
  },
  '029-viewer-sessions': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('spools')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('last_sequence', 'int8', (column) => column.notNull())
        .addColumn('last_at', 'timestamptz', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('viewer_sessions')
        .addColumn('number', 'bigserial', (column) => column.primaryKey())
        .addColumn('viewer_id', 'text', (column) => column.notNull())
        .addColumn('channel', 'text', (column) => column.notNull())
        .addColumn('protocol', 'text', (column) => column.notNull())
        .addColumn('token_id', 'text')
        .addColumn('started_at', 'timestamptz', (column) => column.notNull())
        .addColumn('ended_at', 'timestamptz', (column) => column.notNull())
        .addColumn('sent_bytes', 'int8', (column) => column.notNull())
        .execute();
      for (const columns of [
        ['started_at', 'number'],
        ['channel', 'started_at', 'number'],
        ['viewer_id', 'channel', 'started_at'],
      ]) {
        await db.schema
          .createIndex(`viewer_sessions_by_${columns[0]}`)
          .on('viewer_sessions')
          .columns(columns)
          .execute();
      }
    },
  },
  '032-alarms': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('alarms')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('kind', 'text', (column) => column.notNull())
        .addColumn('target', 'text', (column) => column.notNull())
        .addColumn('severity', 'text', (column) =>
          column.notNull().check(sql`severity in ('warning', 'critical')`),
        )
        .addColumn('state', 'text', (column) =>
          column.notNull().check(sql`state in ('raised', 'acknowledged', 'resolved')`),
        )
        .addColumn('message', 'text', (column) => column.notNull())
        .addColumn('raised_at', 'timestamptz', (column) => column.notNull())
        .addColumn('last_seen_at', 'timestamptz', (column) => column.notNull())
        .addColumn('acknowledged_at', 'timestamptz')
        .addColumn('acknowledged_by', 'text')
        .addColumn('resolved_at', 'timestamptz')
        .addColumn('resolved_by', 'text')
        .addCheckConstraint('alarms_resolved', sql`(state = 'resolved') = (resolved_at is not null)`)
        .execute();
      await sql`
        create unique index alarms_open on alarms (kind, target) where state <> 'resolved'
      `.execute(db);
      await db.schema.createIndex('alarms_by_time').on('alarms').columns(['raised_at', 'id']).execute();
      await db.schema
        .createIndex('alarms_by_kind')
        .on('alarms')
        .columns(['kind', 'raised_at', 'id'])
        .execute();
      await db.schema
        .createIndex('alarms_by_target')
        .on('alarms')
        .columns(['target', 'raised_at', 'id'])
        .execute();
      await db.schema
        .createIndex('alarms_by_state')
        .on('alarms')
        .columns(['state', 'raised_at', 'id'])
        .execute();
      await auditTable(db, 'alarms', auditedTables.alarms ?? ['id']);
    },
  },
  '035-conditional-requests': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('idempotency_keys')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('body_sha256', 'text', (column) => column.notNull())
        .addColumn('answer', 'text')
        .addColumn('created_at', 'timestamptz', (column) => column.notNull())
        .execute();
      await db.schema
        .createIndex('idempotency_keys_by_time')
        .on('idempotency_keys')
        .column('created_at')
        .execute();
    },
  },
  '035-rotations': {
    async up(db: Kysely<unknown>) {
      for (const [table, secret] of [
        ['streams', 'old_key_sha256'],
        ['webhooks', 'old_secret'],
      ] as const) {
        await db.schema
          .alterTable(table)
          .addColumn(secret, 'text')
          .addColumn(`${secret.replace('_sha256', '')}_until`, 'timestamptz')
          .execute();
        await sql`drop trigger audit on ${sql.table(table)}`.execute(db);
        await auditTable(db, table, auditedTables[table] ?? [table]);
      }
    },
  },
  '036-oidc': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('accounts')
        .addColumn('oidc_subject', 'text', (column) => column.unique())
        .execute();
    },
  },
  '047-groups': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('nodes')
        .addColumn('is_of_group', 'boolean', (column) => column.notNull().defaultTo(false))
        .execute();
      // Written to all the time, and worth nothing after a crash: so it is not in the write-ahead log.
      await sql`
        create unlogged table leases (
          id int4 primary key check (id = 1),
          "table" jsonb not null,
          version int8 not null
        )`.execute(db);
    },
  },
};

/** In the order in which they run. */
export const migrationNames: readonly string[] = Object.keys(migrations).sort();

/** Tables whose changes are in the audit log: the column that names a row, and those that hold secrets. */
const auditedTables: Readonly<Record<string, readonly [key: string, ...secrets: string[]]>> = {
  alarms: ['id'],
  accounts: ['name', 'password_hash', 'totp_secret', 'totp_last_counter', 'recovery_sha256s'],
  api_tokens: ['id', 'token_sha256'],
  assets: ['id'],
  channels: ['name'],
  // Its address has the stream key in it.
  destinations: ['name', 'url'],
  node_invitations: ['id', 'token_sha256'],
  nodes: ['id'],
  recordings: ['id'],
  schedules: ['channel'],
  settings: ['name'],
  // An input may hold a passphrase, or a password in its address.
  streams: ['name', 'key_sha256', 'old_key_sha256', 'input'],
  viewing_tokens: ['id'],
  watched_folders: ['id'],
  webhooks: ['id', 'secret', 'old_secret', 'url'],
};

/** Tables that came after the audit log: the migration that makes one has it audited. */
const auditedLater: readonly string[] = ['alarms', 'node_invitations', 'nodes'];

/** Those that hold no changes of anybody's: what follows from others, or what is counted and reported. */
export const unauditedTables = [
  'audit_entries',
  'idempotency_keys',
  'leases',
  'login_failures',
  'runs',
  'sessions',
  'spools',
  'viewer_sessions',
  'watched_files',
  'webhook_deliveries',
];

/**
 * The table, what fills it, and what keeps it as it is. The trigger writes where `starling.actor` is set in the transaction,
 * see `audit.ts`.
 */
async function createAuditLog(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('audit_entries')
    .addColumn('number', 'bigserial', (column) => column.primaryKey())
    .addColumn('at', 'timestamptz', (column) => column.notNull().defaultTo(sql`clock_timestamp()`))
    .addColumn('actor_kind', 'text', (column) => column.notNull())
    .addColumn('actor', 'text', (column) => column.notNull())
    .addColumn('address', 'text')
    .addColumn('request', 'text')
    .addColumn('noun', 'text', (column) => column.notNull())
    .addColumn('verb', 'text', (column) => column.notNull())
    .addColumn('target', 'text', (column) => column.notNull())
    .addColumn('before', 'jsonb')
    .addColumn('after', 'jsonb')
    .execute();
  for (const column of ['actor', 'noun', 'target', 'at'] as const) {
    await db.schema
      .createIndex(`audit_entries_by_${column}`)
      .on('audit_entries')
      .columns(column === 'at' ? ['at'] : [column, 'number'])
      .execute();
  }
  await sql`
    create or replace function audit_change() returns trigger language plpgsql as $$
    declare
      actor jsonb := nullif(current_setting('starling.actor', true), '')::jsonb;
      before jsonb := case tg_op when 'INSERT' then null else to_jsonb(old) end;
      after jsonb := case tg_op when 'DELETE' then null else to_jsonb(new) end;
      target text := coalesce(after, before) ->> tg_argv[0];
      secret text;
    begin
      if actor is null or (tg_table_name = 'settings' and target = 'revision') then
        return null;
      end if;
      if tg_op = 'UPDATE' then
        select jsonb_object_agg(key, value) into before
          from jsonb_each(to_jsonb(old)) where value is distinct from to_jsonb(new) -> key;
        select jsonb_object_agg(key, value) into after
          from jsonb_each(to_jsonb(new)) where value is distinct from to_jsonb(old) -> key;
        if after is null then
          return null;
        end if;
      end if;
      for i in 1 .. tg_nargs - 1 loop
        secret := tg_argv[i];
        if before ->> secret is not null then
          before := jsonb_set(before, array[secret], '"(secret)"');
        end if;
        if after ->> secret is not null then
          after := jsonb_set(after, array[secret], '"(secret)"');
        end if;
      end loop;
      insert into audit_entries (actor_kind, actor, address, request, noun, verb, target, before, after)
        values (actor ->> 'kind', actor ->> 'name', actor ->> 'address', actor ->> 'request',
          tg_table_name, lower(tg_op), target, before, after);
      return null;
    end $$`.execute(db);
  for (const [table, columns] of Object.entries(auditedTables)) {
    if (!auditedLater.includes(table)) await auditTable(db, table, columns);
  }
  await sql`
    create or replace function keep_audit_entry() returns trigger language plpgsql as $$
    begin
      if tg_op = 'DELETE' and old.at < now() - interval '400 days' then
        return old;
      end if;
      raise exception 'The audit log is only ever added to.';
    end $$`.execute(db);
  await sql`
    create trigger keep before update or delete on audit_entries
      for each row execute function keep_audit_entry()`.execute(db);
}

/** Has the changes of a table written down from now on. */
async function auditTable(
  db: Kysely<unknown>,
  table: string,
  [key, ...secrets]: readonly [key: string, ...secrets: string[]],
): Promise<void> {
  await sql`
    create trigger audit after insert or update or delete on ${sql.table(table)}
      for each row execute function audit_change(${sql.join([key, ...secrets].map((column) => sql.lit(column)))})
  `.execute(db);
}

/**
 * Brings the tables up to date. Of several coordinators that do so at once, one does it and the others wait.
 * @param upTo the last migration to run; all when undefined
 * @throws DataFolderError when the database was last used by a newer Starling; Error when a step fails
 */
export async function migrate<Tables>(db: Kysely<Tables>, logger: Logger, upTo?: string): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });
  const { error, results = [] } =
    upTo === undefined ? await migrator.migrateToLatest() : await migrator.migrateTo(upTo);
  for (const { migrationName, status } of results) {
    if (status === 'Success') logger.info({ migration: migrationName }, 'database brought up to date');
  }
  if (error instanceof Error && error.message.startsWith('corrupted migrations')) {
    throw new DataFolderError('The database was last used by a newer Starling. Update Starling.', {
      cause: error,
    });
  }
  if (error !== undefined) throw error;
}
