/** Who may do what: accounts and their roles, scopes, tokens for programs, and the record of what was changed. */
import { type Static, Type } from 'typebox';
import { Name } from './entities.ts';

/** What a caller may do, as noun and verb. A route of the API asks for one of them. */
export const scopes = [
  'assets:read',
  'assets:write',
  'library:read',
  'library:write',
  'channels:read',
  'channels:write',
  'schedules:read',
  'schedules:write',
  'streams:read',
  'streams:write',
  'destinations:read',
  'destinations:write',
  'recordings:read',
  'recordings:write',
  'viewing-tokens:read',
  'viewing-tokens:write',
  'viewers:read',
  'viewers:write',
  'webhooks:read',
  'webhooks:write',
  'alarms:read',
  'alarms:write',
  'logs:read',
  'nodes:read',
  'nodes:write',
  'status:read',
  'backup:read',
  'accounts:read',
  'accounts:write',
  'api-tokens:read',
  'api-tokens:write',
  'audit:read',
] as const;
export type Scope = (typeof scopes)[number];
export const Scope = Type.Enum(scopes);

export const Role = Type.Union([
  Type.Literal('operator'),
  Type.Literal('editor'),
  Type.Literal('streamer'),
  Type.Literal('viewer'),
]);
export type Role = Static<typeof Role>;

/** How far a scope goes: to everything, or to what belongs to the account. */
export type Reach = 'all' | 'own';

const editorScopes: readonly Scope[] = [
  'assets:read',
  'assets:write',
  'library:read',
  'recordings:read',
  'recordings:write',
  'channels:read',
  'channels:write',
  'schedules:read',
  'schedules:write',
  'streams:read',
  'alarms:read',
  'status:read',
];

/**
 * What a role may do. An operator: everything. An editor: what is on the channels. A streamer: streams of its own. A
 * viewer: nothing but watch.
 */
export function reachOfRole(role: Role, scope: Scope): Reach | undefined {
  if (role === 'operator') return 'all';
  if (role === 'editor') return editorScopes.includes(scope) ? 'all' : undefined;
  if (role === 'streamer') return scope === 'streams:read' || scope === 'streams:write' ? 'own' : undefined;
  return undefined;
}

/** ASVS 2.1.1 and 2.1.2: at least 12 characters, and room for a sentence. */
export const Password = Type.String({ minLength: 12, maxLength: 128 });
const Time = Type.String({ format: 'date-time', examples: ['2026-11-22T12:00:00.000Z'] });
/** Private channels that the account may watch, beside its own. */
const GivenChannels = Type.Array(Name, { maxItems: 1000, uniqueItems: true });

export const Account = Type.Object({
  name: Name,
  role: Role,
  /** It may not log in, and its tokens are worth nothing. */
  isDisabled: Type.Boolean(),
  channels: GivenChannels,
  /** Its password was made by the network, and has to be replaced at the first login. */
  hasOneTimePassword: Type.Boolean(),
  hasSecondFactor: Type.Boolean(),
  createdAt: Time,
});
export type Account = Static<typeof Account>;

export const NewAccount = Type.Object(
  {
    name: Name,
    role: Role,
    /** One that can be used once is made where none is given. */
    password: Type.Optional(Password),
    channels: Type.Optional(GivenChannels),
  },
  { additionalProperties: false },
);
export type NewAccount = Static<typeof NewAccount>;

/** An account; the password where the network made it, in the one answer that ever holds it. */
export const AccountWithPassword = Type.Object({
  account: Account,
  password: Type.Union([Type.String(), Type.Null()]),
});
export type AccountWithPassword = Static<typeof AccountWithPassword>;

/** What is left out stays as it is. */
export const AccountUpdate = Type.Object(
  {
    role: Type.Optional(Role),
    isDisabled: Type.Optional(Type.Boolean()),
    channels: Type.Optional(GivenChannels),
    /** False takes the second factor away, for who has lost it. */
    hasSecondFactor: Type.Optional(Type.Literal(false)),
  },
  { additionalProperties: false },
);
export type AccountUpdate = Static<typeof AccountUpdate>;

/** Sets a password for somebody else. One that can be used once is made where none is given. */
export const PasswordReset = Type.Object(
  { password: Type.Optional(Password) },
  { additionalProperties: false },
);
export type PasswordReset = Static<typeof PasswordReset>;

export const LoginRequest = Type.Object(
  {
    name: Type.String({ minLength: 1, maxLength: 63, examples: ['operator'] }),
    password: Type.String({ minLength: 1, maxLength: 128 }),
    /** Of the second factor: six digits, or a recovery code. */
    code: Type.Optional(Type.String({ minLength: 6, maxLength: 32 })),
  },
  { additionalProperties: false },
);
export type LoginRequest = Static<typeof LoginRequest>;

/** Who the caller is. */
export const Me = Type.Object({
  /** Null for a token that belongs to no account. */
  account: Type.Union([Name, Type.Null()]),
  role: Role,
  /** What it may do; `own`: with what belongs to the account. */
  scopes: Type.Array(
    Type.Object({ scope: Scope, reach: Type.Union([Type.Literal('all'), Type.Literal('own')]) }),
  ),
  channels: GivenChannels,
  /** Nothing can be done before the password has been replaced. */
  hasOneTimePassword: Type.Boolean(),
  hasSecondFactor: Type.Boolean(),
  /** When the session or the token ends at the latest; null for the operator token. */
  expiresAt: Type.Union([Time, Type.Null()]),
});
export type Me = Static<typeof Me>;

/** Somebody who is logged in at some browser. */
export const LoginSession = Type.Object({
  id: Type.String({ pattern: '^[0-9a-f]{16}$' }),
  createdAt: Time,
  /** To the minute. */
  lastUsedAt: Time,
  expiresAt: Time,
  /** It is the one that asks. */
  isThisOne: Type.Boolean(),
});
export type LoginSession = Static<typeof LoginSession>;

export const PasswordChange = Type.Object(
  { password: Type.String({ minLength: 1, maxLength: 128 }), newPassword: Password },
  { additionalProperties: false },
);
export type PasswordChange = Static<typeof PasswordChange>;

/** The shared secret of a second factor, in the one answer that ever holds it. */
export const SecondFactorSecret = Type.Object({
  /** In base 32. */
  secret: Type.String(),
  /** For authenticator apps, as text or as a QR code. */
  uri: Type.String(),
});
export type SecondFactorSecret = Static<typeof SecondFactorSecret>;

export const RecoveryCodes = Type.Object({ recoveryCodes: Type.Array(Type.String()) });
export type RecoveryCodes = Static<typeof RecoveryCodes>;

/** A bearer token for a program. The token itself is not kept. */
export const ApiToken = Type.Object({
  id: Type.String(),
  name: Type.String(),
  /** Whose it is: it can do no more than the account. Null for one of the operator's. */
  account: Type.Union([Name, Type.Null()]),
  scopes: Type.Array(Scope),
  createdAt: Time,
  expiresAt: Time,
  revokedAt: Type.Union([Time, Type.Null()]),
});
export type ApiToken = Static<typeof ApiToken>;

const MAX_API_TOKEN_SECONDS = 366 * 24 * 3600;

export const NewApiToken = Type.Object(
  {
    name: Type.String({ minLength: 1, maxLength: 100, examples: ['nightly schedule'] }),
    scopes: Type.Array(Scope, {
      minItems: 1,
      uniqueItems: true,
      examples: [['channels:read', 'schedules:write']],
    }),
    expiresInSeconds: Type.Integer({ minimum: 60, maximum: MAX_API_TOKEN_SECONDS, examples: [86_400] }),
    account: Type.Optional(Name),
  },
  { additionalProperties: false },
);
export type NewApiToken = Static<typeof NewApiToken>;

export const ApiTokenWithSecret = Type.Object({ apiToken: ApiToken, token: Type.String() });
export type ApiTokenWithSecret = Static<typeof ApiTokenWithSecret>;

export const ActorKind = Type.Union([
  Type.Literal('operator-token', { description: 'who holds the token in the data folder' }),
  Type.Literal('account', { description: 'who logged in' }),
  Type.Literal('api-token', { description: 'a program' }),
  Type.Literal('anonymous', { description: 'who tried to log in' }),
  Type.Literal('system', { description: 'the network itself' }),
]);
export type ActorKind = Static<typeof ActorKind>;

/** One change: who, what, from where, before and after. Secrets are left out. */
export const AuditEntry = Type.Object({
  /** Ascending, with gaps. */
  number: Type.Integer(),
  at: Time,
  actorKind: ActorKind,
  /** The account, or the name of the token. */
  actor: Type.String(),
  /** Where the request came from; null for what the network did. */
  address: Type.Union([Type.String(), Type.Null()]),
  /** Method and route. */
  request: Type.Union([Type.String(), Type.Null()]),
  /** The table that was changed, or `login`. */
  noun: Type.String(),
  /** `insert`, `update`, `delete`, or how a login went. */
  verb: Type.String(),
  /** Which of them. */
  target: Type.String(),
  /** What was there; of an update the columns that changed. */
  before: Type.Union([Type.Record(Type.String(), Type.Unknown()), Type.Null()]),
  after: Type.Union([Type.Record(Type.String(), Type.Unknown()), Type.Null()]),
});
export type AuditEntry = Static<typeof AuditEntry>;

/** Newest first. */
export const AuditPage = Type.Object({
  items: Type.Array(AuditEntry),
  /** Goes into `cursor` for the entries before these; null when there are none. */
  nextCursor: Type.Union([Type.String(), Type.Null()]),
});
export type AuditPage = Static<typeof AuditPage>;
