/**
 * The coordinator's database: PostgreSQL, with Kysely over it. Either a server (`postgres-server.ts`), which several
 * coordinators may share, or embedded in the process (`embedded-postgres.ts`); the tables, the migrations
 * and the queries are the same.
 */

import type { ActorKind, Role, Scope } from '@starling/model/account';
import type { Alarm, AlarmKind, AlarmState } from '@starling/model/alarm';
import type {
  AssetState,
  ChannelKind,
  Fallback,
  SourceChoice,
  ViewerProtocol,
} from '@starling/model/entities';
import type { NodeAddresses, NodeRole, NodeState } from '@starling/model/node';
import type { AlwaysRecord, RecordingEnd, ReportedRecording } from '@starling/model/recording';
import type { AssetFacts, ProgrammeInfo } from '@starling/model/schedule';
import type { Schedule } from '@starling/model/schedule-definition';
import type { StreamInput, Transcode } from '@starling/model/stream-input';
import type { TrackSet } from '@starling/model/track-set';
import type { WebhookDelivery, WebhookEvent, WebhookEventType } from '@starling/model/webhook';
import type { ColumnType, Generated, Kysely, Transaction as KyselyTransaction } from 'kysely';
import type { Logger } from 'pino';
import type { StoredLeases } from './lease-table.ts';

/** Written once, never changed. */
type Fixed<T> = ColumnType<T, T, never>;
/** 64 bits: read as text, as `pg` reads it. */
type Int8 = ColumnType<string, number, number>;
type NullableInt8 = ColumnType<string | null, number | null, number | null>;

/** A file of a recording, as the backend that has it last said. */
export type StoredPart = ReportedRecording['parts'][number] & { readonly nodeId: string };

export interface Tables {
  assets: {
    id: Fixed<string>;
    name: string;
    state: AssetState;
    error: string | null;
    /** JSON. */
    facts: ColumnType<AssetFacts | null, string | null, string | null>;
    source: Fixed<string>;
    attempt: number;
    created_at: Fixed<Date>;
  };
  channels: {
    name: Fixed<string>;
    title: string;
    kind: Fixed<ChannelKind>;
    number: number;
    logo: string | null;
    group_title: string | null;
    epoch: Fixed<Date>;
    created_at: Fixed<Date>;
    is_private: ColumnType<boolean, boolean | undefined, boolean>;
    max_viewers: number | null;
    /** False: the schedule alone makes the channel, and the columns that follow mean nothing. */
    has_sources: Generated<boolean>;
    primary_stream: string | null;
    backup_stream: string | null;
    fallback: Generated<Fallback>;
    /** Null: never. */
    dark_after_ms: Generated<number | null>;
    source_choice: Generated<SourceChoice>;
    /** JSON. */
    record: ColumnType<AlwaysRecord | null, string | null | undefined, string | null>;
    redundancy: Generated<number>;
  };
  runs: {
    channel: Fixed<string>;
    start_ticks: Int8;
    first_media_sequence_number: Int8;
    first_discontinuity_sequence: Int8;
    loop: string[];
    /** JSON. */
    tracks: ColumnType<TrackSet | null, string | null, string | null>;
    origin_ticks: NullableInt8;
    shuffle_seed: NullableInt8;
    /** JSON. */
    programme: ColumnType<ProgrammeInfo | null, string | null, string | null>;
  };
  schedules: {
    channel: Fixed<string>;
    /** JSON, with assets by id. */
    schedule: ColumnType<Schedule, string, string>;
    /** All that it names. */
    asset_ids: string[];
    valid_from_ticks: Int8;
  };
  streams: {
    name: Fixed<string>;
    key_sha256: string;
    key_rotated_at: Date;
    /** The key before, while it does beside the new one. */
    old_key_sha256: string | null;
    old_key_until: Date | null;
    created_at: Fixed<Date>;
    /** JSON, with the secrets in it. */
    input: ColumnType<StreamInput, string, string>;
    /** JSON. */
    transcode: ColumnType<Transcode | null, string | null, never>;
    /** The account whose it is. */
    owner: string | null;
  };
  destinations: {
    name: Fixed<string>;
    channel: Fixed<string>;
    /** In clear, with the stream key in it: the backend needs it. */
    url: Fixed<string>;
    is_enabled: boolean;
    takes_enhanced_codecs: Fixed<boolean>;
    accepts_any_certificate: Fixed<boolean>;
    created_at: Fixed<Date>;
  };
  webhooks: {
    id: Fixed<string>;
    /** May hold a password. */
    url: Fixed<string>;
    events: WebhookEventType[];
    /** In clear: deliveries are signed with it. Empty for e-mails. */
    secret: string;
    /** The one before, with which deliveries are signed too for a time. */
    old_secret: string | null;
    old_secret_until: Date | null;
    created_at: Fixed<Date>;
  };
  webhook_deliveries: {
    id: Fixed<string>;
    /** The order in which they were queued. */
    number: Generated<string>;
    webhook_id: Fixed<string>;
    /** JSON. */
    event: ColumnType<WebhookEvent, string, never>;
    state: WebhookDelivery['state'];
    attempts: number;
    outcome: string | null;
    next_attempt_at: Date | null;
  };
  /** Of those that are not resolved there is one for each kind and target. */
  alarms: {
    id: Fixed<string>;
    kind: Fixed<AlarmKind>;
    target: Fixed<string>;
    severity: Fixed<Alarm['severity']>;
    state: AlarmState;
    message: string;
    raised_at: Fixed<Date>;
    last_seen_at: Date;
    acknowledged_at: Date | null;
    acknowledged_by: string | null;
    resolved_at: Date | null;
    /** Null where it was over by itself. */
    resolved_by: string | null;
  };
  watched_folders: {
    id: Fixed<string>;
    path: Fixed<string>;
    is_recursive: Fixed<boolean>;
    created_at: Fixed<Date>;
  };
  /** What was reported of the folders: it is not imported again. */
  watched_files: {
    folder: Fixed<string>;
    path: Fixed<string>;
    version: string;
  };
  recordings: {
    id: Fixed<string>;
    name: Fixed<string>;
    channel: Fixed<string | null>;
    stream: Fixed<string | null>;
    is_automatic: Fixed<boolean>;
    /** The backends are to make it. */
    is_wanted: boolean;
    end_reason: RecordingEnd | null;
    ended_at: Date | null;
    /** JSON. */
    parts: ColumnType<StoredPart[], string | undefined, string>;
    created_at: Fixed<Date>;
    /** The backends are to delete its files; the row goes when they have. */
    removed_at: Date | null;
  };
  viewing_tokens: {
    /** The `jti`. The token itself is not kept. */
    id: Fixed<string>;
    key_id: Fixed<string>;
    name: Fixed<string | null>;
    /** Null: all. */
    channels: Fixed<string[] | null>;
    max_concurrent: Fixed<number | null>;
    created_at: Fixed<Date>;
    expires_at: Fixed<Date>;
    revoked_at: Date | null;
  };
  accounts: {
    name: Fixed<string>;
    role: Role;
    /** argon2id, in the form of the PHC. */
    password_hash: string;
    has_one_time_password: boolean;
    is_disabled: Generated<boolean>;
    /** Private channels that it may watch. */
    channels: string[];
    /** In base 32; kept while the account tries it out, too. */
    totp_secret: string | null;
    is_totp_on: Generated<boolean>;
    /** Of the last code that was taken: none is taken twice. */
    totp_last_counter: ColumnType<string, number | undefined, number>;
    recovery_sha256s: Generated<string[]>;
    /** Issuer and subject of who logs in with OpenID Connect. */
    oidc_subject: Fixed<string | null>;
    created_at: Fixed<Date>;
  };
  sessions: {
    token_sha256: Fixed<string>;
    account: Fixed<string>;
    created_at: Fixed<Date>;
    /** To the minute. */
    last_used_at: Date;
    expires_at: Fixed<Date>;
  };
  api_tokens: {
    id: Fixed<string>;
    name: Fixed<string>;
    token_sha256: Fixed<string>;
    account: Fixed<string | null>;
    scopes: Fixed<Scope[]>;
    created_at: Fixed<Date>;
    expires_at: Fixed<Date>;
    revoked_at: Date | null;
  };
  /** Requests that were done, for who sends them again. */
  idempotency_keys: {
    /** SHA-256 of who asks and the key. */
    id: Fixed<string>;
    body_sha256: string;
    /** Encrypted with the key; null while there is none. */
    answer: ColumnType<string | null, string | undefined, string | null>;
    created_at: Date;
  };
  nodes: {
    id: Fixed<string>;
    name: string;
    role: Fixed<NodeRole>;
    public_key: string;
    /** JSON. */
    addresses: ColumnType<NodeAddresses | null, string | null | undefined, string | null>;
    version: string | null;
    boot_id: string | null;
    state: NodeState;
    /** While it is to restart: the start that is to end, and what the node is to be after it. */
    restart_boot_id: string | null;
    state_after_restart: NodeState | null;
    /** Of the last change that the others heard of. */
    revision: Int8;
    joined_at: Date;
    /** To the minute; not among what the others hear of. */
    last_seen_at: Date | null;
    removed_at: Date | null;
    /** It joined as a host of a group, which comes and goes. */
    is_of_group: Generated<boolean>;
  };
  /** Of all coordinators together: one row, which a crash of the server may take away. */
  leases: {
    id: Fixed<number>;
    /** JSON. */
    table: ColumnType<StoredLeases, string, string>;
    /** Counts the writes. */
    version: Int8;
  };
  node_invitations: {
    id: Fixed<string>;
    token_sha256: Fixed<string>;
    role: Fixed<NodeRole>;
    name: Fixed<string | null>;
    created_at: Fixed<Date>;
    expires_at: Fixed<Date>;
    used_at: Date | null;
    used_by: string | null;
  };
  /** By account or address, also of accounts that there are not. */
  login_failures: {
    key: Fixed<string>;
    count: number;
    last_at: Date;
    locked_until: Date;
  };
  viewer_sessions: {
    number: Generated<string>;
    viewer_id: Fixed<string>;
    channel: Fixed<string>;
    protocol: Fixed<ViewerProtocol>;
    token_id: Fixed<string | null>;
    started_at: Date;
    ended_at: Date;
    sent_bytes: ColumnType<string, number, number>;
  };
  /** Up to which of its entries what a node owes has been taken. */
  spools: {
    id: Fixed<string>;
    last_sequence: ColumnType<string, number, number>;
    last_at: Date;
  };
  audit_entries: {
    number: ColumnType<string, never, never>;
    at: ColumnType<Date, never, never>;
    actor_kind: Fixed<ActorKind>;
    actor: Fixed<string>;
    address: Fixed<string | null>;
    request: Fixed<string | null>;
    noun: Fixed<string>;
    verb: Fixed<string>;
    target: Fixed<string>;
    before: Fixed<Record<string, unknown> | null>;
    after: Fixed<Record<string, unknown> | null>;
  };
  settings: {
    name: Fixed<string>;
    /** JSON. */
    value: ColumnType<unknown, string, string>;
  };
}

export type Transaction = KyselyTransaction<Tables>;

/** The database cannot be asked: it is stopping, has failed, or has too much to do. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable';
}

/** An error that PostgreSQL answered with. */
export class SqlError extends Error {
  override readonly name = 'SqlError';
  /** PostgreSQL documentation, appendix A: for instance `23505`, unique violation. */
  readonly sqlState: string | undefined;
  readonly constraint: string | undefined;

  constructor(message: string, sqlState: string | undefined, constraint: string | undefined) {
    super(message);
    this.sqlState = sqlState;
    this.constraint = constraint;
  }
}

/** The channel of PostgreSQL's NOTIFY on which coordinators tell each other of their changes. */
export const CHANGE_CHANNEL = 'starling_changes';

/** What is done to a database before it is used. */
export type Prepare = (kysely: Kysely<Tables>, logger: Logger) => Promise<void>;

export interface Database {
  readonly kysely: Kysely<Tables>;
  /** What this process is called when it tells the others of its changes. */
  readonly origin: string;
  /** Whether it answers. It is brought back by itself. */
  readonly isUp: () => boolean;
  /**
   * Calls `listener` after each change (`changes.ts`) that another process has committed, and when that may have
   * been missed.
   */
  readonly onChangeElsewhere: (listener: () => void) => void;
  readonly close: () => Promise<void>;
}
