/**
 * Logging in with an account of somebody else's server: OpenID Connect, authorisation code with PKCE. What that server says
 * of a person decides the role, at each login anew.
 *
 * Sources: OpenID Connect Core 1.0, 3.1 and 15.5.2; RFC 7636 (PKCE); RFC 9700 (OAuth 2.0 security), 2.1 and 4.7.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import type { Role } from '@starling/model/account';
import { Name } from '@starling/model/entities';
import { type OpenSecret, openSecret, type Secret } from '@starling/model/secret';
import type { FastifyReply, FastifyRequest } from 'fastify';
import * as client from 'openid-client';
import type { Logger } from 'pino';
import { Type } from 'typebox';
import { Check } from 'typebox/value';
import { actAs, recordLogin } from './audit.ts';
import type { Changes } from './changes.ts';
import type { Transaction } from './database.ts';
import { hashPassword, newPassword } from './passwords.ts';
import { ApiProblem } from './problem.ts';
import type { Limit } from './rate-limits.ts';
import { type Session, type Sessions, setSessionCookie } from './sessions.ts';

export interface OidcSettings {
  /** https, or http on this machine. */
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: Secret;
  /** Where people reach the site, for instance `https://tv.example.org`. */
  readonly siteUrl: string;
  /** What stands on the button. */
  readonly label: string;
  /** Where the claims say who may do what; dots lead inwards, as in `realm_access.roles`. */
  readonly roleClaim: string;
  /** Which values of the claim make somebody what. */
  readonly roles: Readonly<Partial<Record<Role, readonly string[]>>>;
  /** What the others are; they are let in as nothing when undefined. */
  readonly defaultRole: Role | undefined;
  readonly scopes: readonly string[];
}

/** Where the other server sends people back to, below the address of the site. */
export const OIDC_CALLBACK_PATH = '/api/v1/login/oidc/callback';
const REQUEST_TIMEOUT_SECONDS = 10;
/** The server's own configuration is read again after so long; its keys are when one is unknown. */
const DISCOVERY_MS = 3600 * 1000;
/** To log in over there. */
const ATTEMPT_SECONDS = 600;
const COOKIE = 'starling-oidc';
/** The first one that a person has counts. */
const ROLE_ORDER: readonly Role[] = ['operator', 'editor', 'streamer', 'viewer'];
const MAX_SUBJECT_CHARS = 255;

/** What the browser keeps while its user is over there. */
const Attempt = Type.Object({ state: Type.String(), nonce: Type.String(), verifier: Type.String() });

export class OidcLogins {
  readonly #settings: OidcSettings;
  readonly #sessions: Sessions;
  readonly #changes: Changes;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #clientSecret: OpenSecret;
  #discovered:
    | {
        readonly configuration: Promise<client.Configuration>;
        readonly clientSecret: string;
        readonly atMs: number;
      }
    | undefined;

  constructor(
    settings: OidcSettings,
    parts: {
      readonly sessions: Sessions;
      readonly changes: Changes;
      readonly logger: Logger;
      readonly now: () => number;
    },
  ) {
    this.#settings = settings;
    this.#clientSecret = openSecret(settings.clientSecret);
    this.#sessions = parts.sessions;
    this.#changes = parts.changes;
    this.#logger = parts.logger;
    this.#now = parts.now;
  }

  get label(): string {
    return this.#settings.label;
  }

  /** @throws ApiProblem OIDC_UNAVAILABLE */
  async begin(): Promise<{ readonly url: URL; readonly cookie: string }> {
    const configuration = await this.#discover();
    const attempt = {
      state: client.randomState(),
      nonce: client.randomNonce(),
      verifier: client.randomPKCECodeVerifier(),
    };
    const url = client.buildAuthorizationUrl(configuration, {
      redirect_uri: this.#callbackUrl(),
      scope: this.#settings.scopes.join(' '),
      state: attempt.state,
      nonce: attempt.nonce,
      code_challenge: await client.calculatePKCECodeChallenge(attempt.verifier),
      code_challenge_method: 'S256',
    });
    return { url, cookie: Buffer.from(JSON.stringify(attempt)).toString('base64url') };
  }

  /**
   * @param query what the browser came back with, with the question mark
   * @param cookie what it was sent away with
   * @throws ApiProblem OIDC_UNAVAILABLE, OIDC_REFUSED or OIDC_NO_ROLE
   */
  async finish(query: string, cookie: string | undefined, address: string): Promise<Session> {
    const attempt = attemptOf(cookie);
    if (attempt === undefined) throw new ApiProblem('OIDC_REFUSED', 'The login took too long. Begin again.');
    const configuration = await this.#discover();
    const claims = await this.#claims(configuration, query, attempt).catch((error: unknown) => {
      // What it holds (codes, tokens) is not for the log.
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
      this.#logger.warn({ code, address }, 'a login with OpenID Connect failed');
      throw new ApiProblem('OIDC_REFUSED', `${this.label} did not confirm the login. Begin again.`);
    });
    const role = this.#roleOf(claims);
    const subject = `${this.#settings.issuer} ${claims.sub}`;
    if (role === undefined) {
      this.#logger.warn({ address }, 'somebody whom no role is meant for logged in with OpenID Connect');
      throw new ApiProblem('OIDC_NO_ROLE', 'Nobody has given you a role in this network. Ask its operator.');
    }
    return this.#enter(subject, role, wantedName(claims), address);
  }

  #callbackUrl(): string {
    return new URL(OIDC_CALLBACK_PATH, this.#settings.siteUrl).href;
  }

  async #discover(): Promise<client.Configuration> {
    const nowMs = this.#now();
    const clientSecret = this.#clientSecret.current();
    let known = this.#discovered;
    if (known === undefined || known.clientSecret !== clientSecret || nowMs >= known.atMs + DISCOVERY_MS) {
      const { issuer, clientId } = this.#settings;
      const isOnThisMachine = /^http:\/\/(localhost|127\.0\.0\.1|\[::1\])[:/]/.test(`${issuer}/`);
      const configuration = client.discovery(new URL(issuer), clientId, clientSecret, undefined, {
        timeout: REQUEST_TIMEOUT_SECONDS,
        ...(isOnThisMachine && { execute: [client.allowInsecureRequests] }),
      });
      known = { configuration, clientSecret, atMs: nowMs };
      this.#discovered = known;
      configuration.catch(() => {
        this.#discovered = undefined;
      });
    }
    return known.configuration.catch((error: unknown) => {
      this.#logger.error({ err: error }, 'the OpenID Connect server does not answer');
      throw new ApiProblem('OIDC_UNAVAILABLE', `${this.label} does not answer. Try again in a minute.`, {
        retryAfterSeconds: 60,
      });
    });
  }

  /** Of the ID token, and of the server where it keeps the token short. */
  async #claims(
    configuration: client.Configuration,
    query: string,
    { state, nonce, verifier }: { state: string; nonce: string; verifier: string },
  ): Promise<Record<string, unknown> & { readonly sub: string }> {
    const url = new URL(query, this.#callbackUrl());
    const tokens = await client.authorizationCodeGrant(configuration, url, {
      pkceCodeVerifier: verifier,
      expectedState: state,
      expectedNonce: nonce,
      idTokenExpected: true,
    });
    const claims = tokens.claims();
    if (claims === undefined || claims.sub.length > MAX_SUBJECT_CHARS) throw new Error('no subject');
    const isThere = valuesAt(claims, this.#settings.roleClaim).length > 0;
    if (isThere || configuration.serverMetadata().userinfo_endpoint === undefined) return { ...claims };
    return { ...claims, ...(await client.fetchUserInfo(configuration, tokens.access_token, claims.sub)) };
  }

  #roleOf(claims: Record<string, unknown>): Role | undefined {
    const { roles, roleClaim, defaultRole } = this.#settings;
    const values = valuesAt(claims, roleClaim);
    return ROLE_ORDER.find((role) => roles[role]?.some((value) => values.includes(value))) ?? defaultRole;
  }

  /** Finds the account of a person, or makes it. One that has a password of its own is never taken. */
  async #enter(subject: string, role: Role, wanted: string, address: string): Promise<Session> {
    const actor = { kind: 'account', name: wanted, address, request: `GET ${OIDC_CALLBACK_PATH}` } as const;
    // Nobody knows it: who comes from outside logs in there.
    const passwordHash = await hashPassword(newPassword());
    const { session, name } = await actAs(actor, () =>
      this.#changes.make(async (transaction) => {
        const known = await transaction
          .updateTable('accounts')
          .set({ role })
          .where('oidc_subject', '=', subject)
          .returning(['name', 'is_disabled'])
          .executeTakeFirst();
        if (known?.is_disabled === true) throw new ApiProblem('OIDC_REFUSED', 'The account is disabled.');
        const account = known?.name ?? (await freeName(transaction, wanted, subject));
        if (known === undefined) {
          await transaction
            .insertInto('accounts')
            .values({
              name: account,
              role,
              password_hash: passwordHash,
              has_one_time_password: false,
              channels: [],
              totp_secret: null,
              oidc_subject: subject,
              created_at: new Date(this.#now()),
            })
            .execute();
        }
        await recordLogin(transaction, 'succeeded', account);
        return { session: await this.#sessions.begin(transaction, account), name: account };
      }),
    );
    this.#logger.info({ account: name, role, address }, 'logged in with OpenID Connect');
    return session;
  }
}

/**
 * The routes of logging in elsewhere. Browsers come to them by themselves, so they answer with a page of the site.
 * @param oidc undefined where there is no such server
 */
export function oidcRoutes(oidc: OidcLogins | undefined, limit: Limit): FastifyPluginAsyncTypebox {
  const Redirect = { 302: Type.Null({ description: 'To the other server, or back to the site.' }) };
  return async (app) => {
    app.get(
      '/login/methods',
      {
        config: { access: 'public' },
        schema: {
          tags: ['login'],
          summary: 'How people log in: with a password, and maybe elsewhere',
          response: {
            200: Type.Object({
              oidc: Type.Union([
                Type.Object({ label: Type.String({ examples: ['Example Ltd'] }) }),
                Type.Null(),
              ]),
            }),
          },
        },
      },
      async () => ({ oidc: oidc === undefined ? null : { label: oidc.label } }),
    );
    app.get(
      '/login/oidc',
      {
        config: { access: 'public', limit },
        exposeHeadRoute: false,
        schema: { tags: ['login'], summary: 'Log in with OpenID Connect', response: Redirect },
      },
      async (request, reply) => {
        try {
          const { url, cookie } = await required(oidc).begin();
          setAttemptCookie(request, reply, cookie);
          return reply.redirect(url.href, 302);
        } catch (error) {
          return backToSite(reply, error);
        }
      },
    );
    app.get(
      '/login/oidc/callback',
      {
        config: { access: 'public', limit },
        exposeHeadRoute: false,
        schema: {
          tags: ['login'],
          summary:
            'Where the OpenID Connect server sends people back to: the answer sets the cookie of a session',
          response: Redirect,
        },
      },
      async (request, reply) => {
        const attempt = readAttemptCookie(request);
        // Good for one attempt.
        setAttemptCookie(request, reply, undefined);
        try {
          const query = request.url.slice(request.url.indexOf('?'));
          const session = await required(oidc).finish(query, attempt, request.ip);
          setSessionCookie(request, reply, session.token);
          return reply.redirect('/login?from=outside', 302);
        } catch (error) {
          return backToSite(reply, error);
        }
      },
    );
  };
}

function required(oidc: OidcLogins | undefined): OidcLogins {
  if (oidc === undefined)
    throw new ApiProblem('OIDC_REFUSED', 'This network knows no OpenID Connect server.');
  return oidc;
}

/** With the code of the reason, for the page to say in words of its own. */
function backToSite(reply: FastifyReply, error: unknown): FastifyReply {
  if (!(error instanceof ApiProblem)) throw error;
  return reply.redirect(`/login?refused=${error.code}`, 302);
}

/** It comes back with a request from another site, and so cannot be as strict as the session's. */
function setAttemptCookie(request: FastifyRequest, reply: FastifyReply, value: string | undefined): void {
  const attributes = [
    'Path=/',
    'HttpOnly',
    'SameSite=Lax',
    `Max-Age=${value === undefined ? 0 : ATTEMPT_SECONDS}`,
    ...(request.protocol === 'https' ? ['Secure'] : []),
  ];
  // A second one, the session's, may follow.
  reply.header('set-cookie', [`${attemptCookieName(request)}=${value ?? ''}`, ...attributes].join('; '));
}

function readAttemptCookie(request: FastifyRequest): string | undefined {
  const prefix = `${attemptCookieName(request)}=`;
  const pairs = request.headers.cookie?.split(';').map((pair) => pair.trim());
  return pairs?.find((pair) => pair.startsWith(prefix))?.slice(prefix.length);
}

function attemptCookieName(request: FastifyRequest): string {
  return request.protocol === 'https' ? `__Host-${COOKIE}` : COOKIE;
}

function attemptOf(cookie: string | undefined) {
  try {
    const attempt: unknown = JSON.parse(Buffer.from(cookie ?? '', 'base64url').toString());
    return Check(Attempt, attempt) ? attempt : undefined;
  } catch {
    return undefined;
  }
}

/** The texts at a place in the claims: one, or a list of them. */
function valuesAt(claims: Record<string, unknown>, path: string): string[] {
  let value: unknown = claims;
  for (const key of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return [];
    value = Reflect.get(value, key);
  }
  return [value].flat().filter((one) => typeof one === 'string');
}

/** What the person is called over there, as far as names here can be so. */
function wantedName(claims: Record<string, unknown>): string {
  const said = [claims.preferred_username, claims.email, claims.name].find((one) => typeof one === 'string');
  const name = String(said ?? '')
    .replace(/@.*$/s, '')
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 40)
    .replace(/^-+|-+$/g, '');
  return Check(Name, name) ? name : 'person';
}

/** The name, or where another account has it the name with digits that are the same each time. */
async function freeName(transaction: Transaction, wanted: string, subject: string): Promise<string> {
  const digest = createHash('sha256').update(subject).digest('hex').slice(0, 8);
  for (const name of [wanted, `${wanted}-${digest}`, `${wanted}-${randomBytes(8).toString('hex')}`]) {
    const taken = await transaction
      .selectFrom('accounts')
      .select('name')
      .where('name', '=', name)
      .executeTakeFirst();
    if (taken === undefined) return name;
  }
  throw new Error('three names are taken, one of 64 random bits');
}
