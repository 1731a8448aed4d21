/**
 * The errors that the API answers with: RFC 9457 problem details with a code of ours. The title
 * belongs to the code; the detail names the thing and says what to do next.
 */
import type { Problem } from '@starling/model/entities';

export const problemCatalogue = {
  REQUEST_INVALID: [400, 'The request is not valid.'],
  TOKEN_MISSING: [401, 'The request carries no valid token.'],
  TOKEN_NOT_ALLOWED: [403, 'The token is not meant for this.'],
  LOGIN_FAILED: [401, 'The name, the password or the code is wrong.'],
  CODE_NEEDED: [401, 'The login needs the code of the second factor.'],
  LOGIN_LOCKED: [429, 'Too many logins have failed.'],
  TOO_MANY_LOGINS: [503, 'Too many log in at once.'],
  OIDC_REFUSED: [403, 'The login elsewhere was not taken.'],
  OIDC_NO_ROLE: [403, 'The login elsewhere comes with no role here.'],
  OIDC_UNAVAILABLE: [503, 'The OpenID Connect server does not answer.'],
  PASSWORD_WRONG: [403, 'The password or the code is wrong.'],
  PASSWORD_CHANGE_NEEDED: [403, 'The one-time password has to be replaced.'],
  REQUEST_CROSS_SITE: [403, 'The request comes from another site.'],
  RATE_LIMITED: [429, 'There were too many requests.'],
  IDEMPOTENCY_KEY_REUSED: [422, 'The idempotency key belongs to another request.'],
  IDEMPOTENCY_KEY_IN_USE: [409, 'The request with this idempotency key has no answer yet.'],
  PRECONDITION_FAILED: [412, 'It was changed meanwhile.'],
  ACCOUNT_UNKNOWN: [404, 'There is no such account.'],
  ACCOUNT_EXISTS: [409, 'There is an account of this name.'],
  ACCOUNT_IS_LAST_OPERATOR: [409, 'The network needs an operator.'],
  SECOND_FACTOR_IS_ON: [409, 'The account has a second factor.'],
  SECOND_FACTOR_IS_OFF: [409, 'The account has no second factor.'],
  SESSION_UNKNOWN: [404, 'There is no such session.'],
  API_TOKEN_UNKNOWN: [404, 'There is no such API token.'],
  TOO_MANY_API_TOKENS: [409, 'There are as many API tokens as there may be.'],
  SCOPE_NOT_HELD: [403, 'Nobody gives away what they may not do.'],
  ROUTE_UNKNOWN: [404, 'There is nothing at this address.'],
  ASSET_UNKNOWN: [404, 'There is no such asset.'],
  ASSET_IN_USE: [409, 'The asset is in use.'],
  ASSET_NOT_READY: [409, 'The asset is not ready.'],
  ASSET_AMBIGUOUS: [409, 'Several assets have this name.'],
  IMPORT_FINISHED: [409, 'The import has finished.'],
  IMPORT_NOT_ENDED: [409, 'The import has not ended.'],
  ASSET_FILE_UNKNOWN: [404, 'The asset has no such file.'],
  FOLDER_UNKNOWN: [404, 'There is no such watched folder.'],
  FOLDER_EXISTS: [409, 'The folder is watched already.'],
  CHANNEL_UNKNOWN: [404, 'There is no such channel.'],
  CHANNEL_EXISTS: [409, 'There is a channel of this name.'],
  CHANNEL_IS_LIVE: [409, 'The channel belongs to a stream.'],
  CHANNEL_NUMBER_TAKEN: [409, 'Another channel has this number.'],
  SCHEDULE_INVALID: [400, 'The schedule is not valid.'],
  STREAM_UNKNOWN: [404, 'There is no such stream.'],
  STREAM_HAS_NO_KEY: [409, 'The stream has no key.'],
  RECORDING_UNKNOWN: [404, 'There is no such recording.'],
  RECORDING_NOT_ENDED: [409, 'The recording goes on.'],
  RECORDING_EMPTY: [409, 'The recording has no file.'],
  RECORDING_ELSEWHERE: [409, 'The file of the recording lies on another machine.'],
  SOURCES_INVALID: [409, 'The channel cannot have these sources.'],
  DESTINATION_UNKNOWN: [404, 'There is no such destination.'],
  DESTINATION_EXISTS: [409, 'There is a destination of this name.'],
  TOO_MANY_DESTINATIONS: [409, 'There are too many destinations.'],
  ALARM_UNKNOWN: [404, 'There is no such alarm.'],
  ALARM_RESOLVED: [409, 'The alarm is over.'],
  WEBHOOK_UNKNOWN: [404, 'There is no such webhook.'],
  TOO_MANY_WEBHOOKS: [409, 'There are too many webhooks.'],
  VIEWING_TOKEN_UNKNOWN: [404, 'There is no such viewing token.'],
  VIEWING_TOKEN_REFUSED: [404, 'The viewing token opens no such channel.'],
  TOO_MANY_VIEWING_TOKENS: [409, 'There are as many viewing tokens as there may be.'],
  NODE_UNKNOWN: [404, 'There is no such node.'],
  NODE_EXISTS: [409, 'There is a node of this name or id.'],
  NODE_REMOVED: [403, 'The node was removed.'],
  NODE_NOT_ITSELF: [403, 'A node speaks for itself only.'],
  NODE_HAS_NOT_REPORTED: [409, 'The node has not reported yet.'],
  TOO_MANY_NODES: [409, 'There are as many nodes as there may be.'],
  INVITATION_UNKNOWN: [404, 'There is no such invitation.'],
  INVITATION_REFUSED: [403, 'The join token lets nobody in.'],
  TOO_MANY_INVITATIONS: [409, 'There are as many invitations as there may be.'],
  VIEWER_UNKNOWN: [404, 'There is no such viewer.'],
  BODY_TOO_LARGE: [413, 'The request body is too large.'],
  TOO_MANY_WATCHERS: [503, 'Too many clients follow the state.'],
  DISK_FULL: [507, 'The disk is full.'],
  DATABASE_UNAVAILABLE: [503, 'The database cannot answer now.'],
  INTERNAL: [500, 'The coordinator failed.'],
} as const satisfies Record<string, readonly [status: number, title: string]>;

export type ProblemCode = keyof typeof problemCatalogue;

/** A request that cannot be done, and why. */
export class ApiProblem extends Error {
  override readonly name = 'ApiProblem';
  readonly code: ProblemCode;
  /** When it may be tried again. */
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ProblemCode, detail: string, options: { readonly retryAfterSeconds?: number } = {}) {
    super(detail);
    this.code = code;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }

  get status(): number {
    return problemCatalogue[this.code][0];
  }

  /** The body of the answer. */
  toProblem(): Problem {
    const [status, title] = problemCatalogue[this.code];
    return {
      type: `urn:starling:problem:${this.code}`,
      title,
      status,
      code: this.code,
      detail: this.message,
    };
  }
}

export function unknownChannel(name: string): ApiProblem {
  return new ApiProblem('CHANNEL_UNKNOWN', `There is no channel ${name}.`);
}
