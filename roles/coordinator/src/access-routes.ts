/** The routes on who may do what: logging in, accounts, tokens for programs, and the audit log. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import {
  Account,
  AccountUpdate,
  AccountWithPassword,
  ApiToken,
  ApiTokenWithSecret,
  AuditPage,
  LoginRequest,
  LoginSession,
  Me,
  NewAccount,
  NewApiToken,
  PasswordChange,
  PasswordReset,
  RecoveryCodes,
  SecondFactorSecret,
  scopes,
} from '@starling/model/account';
import { Name } from '@starling/model/entities';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { refuseOtherSites } from './access.ts';
import type { Accounts } from './accounts.ts';
import type { ApiTokens } from './api-tokens.ts';
import type { Audit } from './audit.ts';
import type { Caller } from './callers.ts';
import type { Logins } from './logins.ts';
import { type OidcLogins, oidcRoutes } from './oidc.ts';
import { Page, PageQuery } from './page.ts';
import { ApiProblem } from './problem.ts';
import { unixMsOf } from './schedule-routes.ts';
import { readSessionCookie, type Sessions, setSessionCookie } from './sessions.ts';

export interface AccessNouns {
  readonly accounts: Accounts;
  readonly apiTokens: ApiTokens;
  readonly audit: Audit;
  readonly logins: Logins;
  readonly sessions: Sessions;
  readonly oidc: OidcLogins | undefined;
}

/** Of one address; wrong ones lock the account long before. */
const LOGIN_LIMIT = { max: 30, windowMs: 60_000 };
const ById = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) });
const ByName = Type.Object({ name: Name });
const Done = Type.Null({ description: 'Done.' });
const Time = Type.String({ format: 'date-time' });

export function accessRoutes(nouns: AccessNouns): FastifyPluginAsyncTypebox {
  const { accounts, apiTokens, audit, logins, sessions } = nouns;
  return async (app) => {
    app.post(
      '/login',
      {
        config: { access: 'public', limit: LOGIN_LIMIT },
        schema: {
          tags: ['login'],
          summary: 'Log in: the answer sets the cookie of a session',
          body: LoginRequest,
          response: { 200: Type.Object({ expiresAt: Time }) },
        },
      },
      async (request, reply) => {
        // Another site could log its own account in, and see what is then done with it.
        refuseOtherSites(request, { isOriginNeeded: false });
        const { token, expiresAt } = await logins.login(request.body, request.ip);
        setSessionCookie(request, reply, token);
        return { expiresAt: expiresAt.toISOString() };
      },
    );
    await app.register(oidcRoutes(nouns.oidc, LOGIN_LIMIT));
    app.post(
      '/logout',
      {
        config: { access: 'signed-in' },
        schema: { tags: ['login'], summary: 'End the session', response: { 204: Done } },
      },
      async (request, reply) => {
        const token = readSessionCookie(request);
        if (token !== undefined) await sessions.end(token);
        setSessionCookie(request, reply, undefined);
        return reply.code(204).send(null);
      },
    );
    app.get(
      '/me',
      {
        config: { access: 'signed-in' },
        schema: { tags: ['login'], summary: 'Who the caller is, and what it may do', response: { 200: Me } },
      },
      async (request) => meOf(callerOf(request)),
    );
    app.get(
      '/me/sessions',
      {
        config: { access: 'signed-in' },
        schema: {
          tags: ['login'],
          summary: 'Where the account is logged in, newest first; 50 at the most',
          response: { 200: Type.Object({ items: Type.Array(LoginSession) }) },
        },
      },
      async (request) => ({
        // A token has no sessions of its own, and is not to look at those of its account.
        items:
          callerOf(request).kind === 'session'
            ? await sessions.list(sessionAccountOf(request), readSessionCookie(request))
            : [],
      }),
    );
    app.delete(
      '/me/sessions/:id',
      {
        config: { access: 'signed-in' },
        schema: {
          tags: ['login'],
          summary: 'Log the account out somewhere',
          params: ById,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        const { id } = request.params;
        if (callerOf(request).kind !== 'session')
          throw new ApiProblem('SESSION_UNKNOWN', `There is no session ${id} of yours.`);
        await sessions.endOf(sessionAccountOf(request), id);
        return reply.code(204).send(null);
      },
    );
    app.post(
      '/me/password',
      {
        config: { access: 'signed-in', limit: LOGIN_LIMIT },
        schema: {
          tags: ['login'],
          summary: 'Choose another password; every session of the account ends, this one too',
          body: PasswordChange,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        const name = sessionAccountOf(request);
        await logins.confirm(name, request.body.password, request.ip);
        await accounts.choosePassword(name, request.body.newPassword);
        setSessionCookie(request, reply, undefined);
        return reply.code(204).send(null);
      },
    );
    app.post(
      '/me/second-factor',
      {
        config: { access: 'signed-in', limit: LOGIN_LIMIT },
        schema: {
          tags: ['login'],
          summary: 'Ask for the secret of a second factor (TOTP); it is on once it was confirmed',
          body: Type.Object({ password: LoginRequest.properties.password }, { additionalProperties: false }),
          response: { 200: SecondFactorSecret },
        },
      },
      async (request) => {
        const name = sessionAccountOf(request);
        await logins.confirm(name, request.body.password, request.ip);
        return accounts.beginSecondFactor(name);
      },
    );
    app.post(
      '/me/second-factor/confirm',
      {
        config: { access: 'signed-in', limit: LOGIN_LIMIT },
        schema: {
          tags: ['login'],
          summary: 'Show that the device knows the secret; the answer alone holds the recovery codes',
          body: Type.Object(
            { code: Type.String({ pattern: '^\\d{6}$', examples: ['123456'] }) },
            { additionalProperties: false },
          ),
          response: { 200: RecoveryCodes },
        },
      },
      async (request) => ({
        recoveryCodes: await accounts.confirmSecondFactor(sessionAccountOf(request), request.body.code),
      }),
    );
    app.post(
      '/me/second-factor/remove',
      {
        config: { access: 'signed-in', limit: LOGIN_LIMIT },
        schema: {
          tags: ['login'],
          summary: 'Take the second factor away',
          body: Type.Object({ password: LoginRequest.properties.password }, { additionalProperties: false }),
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        const name = sessionAccountOf(request);
        await logins.confirm(name, request.body.password, request.ip);
        await accounts.update(name, { hasSecondFactor: false });
        return reply.code(204).send(null);
      },
    );

    app.get(
      '/accounts',
      {
        config: { access: 'accounts:read' },
        schema: {
          tags: ['accounts'],
          summary: 'The accounts by name',
          querystring: PageQuery,
          response: { 200: Page(Account) },
        },
      },
      (request) => accounts.list(request.query),
    );
    app.post(
      '/accounts',
      {
        config: { access: 'accounts:write' },
        schema: {
          tags: ['accounts'],
          summary: 'Add an account; the answer alone holds the password where the network made it',
          body: NewAccount,
          response: { 201: AccountWithPassword },
        },
      },
      async (request, reply) => {
        const added = await accounts.add(request.body);
        return reply.code(201).header('location', `/api/v1/accounts/${added.account.name}`).send(added);
      },
    );
    app.get(
      '/accounts/:name',
      {
        config: { access: 'accounts:read' },
        schema: { tags: ['accounts'], summary: 'One account', params: ByName, response: { 200: Account } },
      },
      (request) => accounts.get(request.params.name),
    );
    app.patch(
      '/accounts/:name',
      {
        config: { access: 'accounts:write' },
        schema: {
          tags: ['accounts'],
          summary: 'Change an account; its sessions and tokens can do what it can do from now on',
          params: ByName,
          body: AccountUpdate,
          response: { 200: Account },
        },
      },
      (request) => accounts.update(request.params.name, request.body),
    );
    app.post(
      '/accounts/:name/password',
      {
        config: { access: 'accounts:write' },
        schema: {
          tags: ['accounts'],
          summary: 'Set the password of an account; its sessions end, and it is not locked any more',
          params: ByName,
          body: PasswordReset,
          response: { 200: AccountWithPassword },
        },
      },
      (request) => accounts.resetPassword(request.params.name, request.body.password),
    );
    app.delete(
      '/accounts/:name/sessions',
      {
        config: { access: 'accounts:write' },
        schema: {
          tags: ['accounts'],
          summary: 'Log an account out everywhere; its tokens stay',
          params: ByName,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        const { name } = await accounts.get(request.params.name);
        await sessions.endOf(name);
        return reply.code(204).send(null);
      },
    );
    app.delete(
      '/accounts/:name',
      {
        config: { access: 'accounts:write' },
        schema: {
          tags: ['accounts'],
          summary: 'Remove an account with its sessions and tokens; its streams stay',
          params: ByName,
          response: { 204: Done },
        },
      },
      async (request, reply) => {
        await accounts.remove(request.params.name);
        return reply.code(204).send(null);
      },
    );

    app.get(
      '/api-tokens',
      {
        config: { access: 'api-tokens:read' },
        schema: {
          tags: ['API tokens'],
          summary: 'All tokens for programs, newest first; ended ones for 30 days',
          response: { 200: Type.Object({ items: Type.Array(ApiToken) }) },
        },
      },
      async () => ({ items: await apiTokens.list() }),
    );
    app.post(
      '/api-tokens',
      {
        config: { access: 'api-tokens:write' },
        schema: {
          tags: ['API tokens'],
          summary: 'Make a token for a program; the answer alone holds it',
          body: NewApiToken,
          response: { 201: ApiTokenWithSecret },
        },
      },
      async (request, reply) => reply.code(201).send(await apiTokens.create(request.body, callerOf(request))),
    );
    app.delete(
      '/api-tokens/:id',
      {
        config: { access: 'api-tokens:write' },
        schema: { tags: ['API tokens'], summary: 'Revoke a token', params: ById, response: { 204: Done } },
      },
      async (request, reply) => {
        await apiTokens.revoke(request.params.id);
        return reply.code(204).send(null);
      },
    );

    app.get(
      '/audit',
      {
        config: { access: 'audit:read' },
        schema: {
          tags: ['audit'],
          summary: 'What was changed, newest first: who, what, from where, before and after',
          querystring: Type.Object(
            {
              actor: Type.Optional(Type.String({ maxLength: 200 })),
              noun: Type.Optional(Type.String({ maxLength: 63, examples: ['channels'] })),
              target: Type.Optional(Type.String({ maxLength: 200 })),
              since: Type.Optional(Time),
              until: Type.Optional(Time),
              cursor: Type.Optional(Type.String({ maxLength: 20 })),
              /** 100 where nothing is said. */
              limit: Type.Optional(Type.String({ pattern: '^([1-9]\\d{0,2}|1000)$' })),
            },
            { additionalProperties: false },
          ),
          response: { 200: AuditPage },
        },
      },
      async (request) => {
        const { since, until, limit, ...filter } = request.query;
        const timeOf = (text: string | undefined) =>
          text === undefined ? undefined : new Date(unixMsOf(text, 0));
        return audit.list({
          ...filter,
          since: timeOf(since),
          until: timeOf(until),
          limit: limit === undefined ? undefined : Number(limit),
        });
      },
    );
  };
}

/** Of a route that asks for somebody. */
function callerOf({ caller }: FastifyRequest): Caller {
  if (caller === undefined) throw new Error('A route that asks for a caller was reached without one');
  return caller;
}

/** @throws ApiProblem TOKEN_NOT_ALLOWED for a token: only who has the password changes it */
function sessionAccountOf(request: FastifyRequest): string {
  const { kind, account } = callerOf(request);
  if (kind !== 'session' || account === null)
    throw new ApiProblem('TOKEN_NOT_ALLOWED', 'This is for who has logged in.');
  return account;
}

function meOf(caller: Caller): Me {
  return {
    account: caller.account,
    role: caller.role,
    scopes: scopes.flatMap((scope) => {
      const reach = caller.reach(scope);
      return reach === undefined ? [] : [{ scope, reach }];
    }),
    channels: [...caller.channels],
    hasOneTimePassword: caller.hasOneTimePassword,
    hasSecondFactor: caller.hasSecondFactor,
    expiresAt: caller.expiresAt?.toISOString() ?? null,
  };
}
