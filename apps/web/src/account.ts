/** The account of whoever sits at this browser: logging in and out, and what it may change about itself. */
import { useQuery } from '@tanstack/react-query';
import { field, text } from './api.ts';
import { recall, remember } from './remembered.ts';
import { keepViewingToken } from './viewing-token.ts';

const REQUEST_TIMEOUT_MS = 15_000;

export interface Me {
  readonly account: string;
  readonly role: string;
  readonly hasOneTimePassword: boolean;
  readonly hasSecondFactor: boolean;
}

/** The network refused, and says why in words for people. */
export class RefusedError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Who is logged in; null for nobody. Viewers, who never were, cost no request. */
export function useMe() {
  return useQuery({ queryKey: ['me'], queryFn: readMe });
}

async function readMe(): Promise<Me | null> {
  if (recall('hasSession') === undefined) return null;
  try {
    return meOf(await ask('GET', '/me'));
  } catch (error) {
    if (!(error instanceof RefusedError) || error.code !== 'TOKEN_MISSING') throw error;
    remember('hasSession', undefined);
    return null;
  }
}

/**
 * Logs in, and gets what opens the private channels of the account.
 * @throws RefusedError `CODE_NEEDED` where the second factor is to be shown too
 */
export async function logIn(name: string, password: string, code: string | undefined): Promise<void> {
  await ask('POST', '/login', { name, password, ...(code === undefined ? {} : { code }) });
  await arriveFromOutside();
}

/** Finds itself logged in, as after a login elsewhere, and gets what opens the private channels of the account. */
export async function arriveFromOutside(): Promise<void> {
  remember('hasSession', 'true');
  if ((await readMe())?.hasOneTimePassword !== false) return;
  const token = field(await ask('POST', '/me/viewing-token'), 'token');
  if (typeof token === 'string') keepViewingToken(token);
}

/** What people call the server where they can log in too; null where there is none. */
export async function readOutsideLabel(): Promise<string | null> {
  const oidc = field(await ask('GET', '/login/methods'), 'oidc');
  return oidc === null ? null : text(oidc, 'label');
}

export async function logOut(): Promise<void> {
  await ask('POST', '/logout');
  remember('hasSession', undefined);
  keepViewingToken(undefined);
}

/** Ends every session of the account. */
export async function changePassword(password: string, newPassword: string): Promise<void> {
  await ask('POST', '/me/password', { password, newPassword });
  remember('hasSession', undefined);
}

/** @returns the secret for an authenticator app, and its address */
export async function beginSecondFactor(password: string): Promise<{ secret: string; uri: string }> {
  const answer = await ask('POST', '/me/second-factor', { password });
  return { secret: text(answer, 'secret'), uri: text(answer, 'uri') };
}

/** @returns the recovery codes */
export async function confirmSecondFactor(code: string): Promise<string[]> {
  const codes = field(await ask('POST', '/me/second-factor/confirm', { code }), 'recoveryCodes');
  if (!Array.isArray(codes)) throw new TypeError('There are no recovery codes.');
  return codes.map(String);
}

export async function removeSecondFactor(password: string): Promise<void> {
  await ask('POST', '/me/second-factor/remove', { password });
}

/** Takes the answer apart. @throws TypeError when it has another form */
export function meOf(value: unknown): Me {
  return {
    account: text(value, 'account'),
    role: text(value, 'role'),
    hasOneTimePassword: field(value, 'hasOneTimePassword') === true,
    hasSecondFactor: field(value, 'hasSecondFactor') === true,
  };
}

async function ask(method: 'GET' | 'POST', path: string, body?: unknown): Promise<unknown> {
  const response = await fetch(`/api/v1${path}`, {
    method,
    headers: {
      accept: 'application/json',
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
  });
  if (response.status === 204) return undefined;
  const answer: unknown = await response.json();
  if (response.ok) return answer;
  throw new RefusedError(text(answer, 'code'), `${text(answer, 'title')} ${text(answer, 'detail')}`);
}
