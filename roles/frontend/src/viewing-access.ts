/**
 * Who may watch what on this frontend, from the state that the coordinator tells.
 *
 * | channel                      | with a token that opens it | with another one | without         |
 * | ---------------------------- | -------------------------- | ---------------- | --------------- |
 * | public                       | yes                        | yes              | yes             |
 * | private                      | yes                        | 403              | 401             |
 * | not in the state             | 404                        | 404              | 404             |
 * | any, before the first state  | 503                        | 503              | 503             |
 *
 * So a private channel is never public by accident. A frontend that follows no coordinator serves everything
 * that is pushed to it.
 */
import type { IncomingMessage } from 'node:http';
import type { FrontendState } from '@starling/model/entities';
import {
  bearerToken,
  coversChannel,
  type Verdict,
  ViewingTokenVerifier,
} from '@starling/model/viewing-token';
import { SegmentNames } from './segment-names.ts';

/** The right of a viewer to be on a private channel. */
export interface Pass {
  readonly tokenId: string;
  readonly expiresAtUnixMs: number;
  /** Viewers with this token at the same time; without a limit when undefined. */
  readonly maxConcurrent: number | undefined;
  /** To be handed on in addresses; undefined when it came in a header, which the player sends again itself. */
  readonly tokenInAddress: string | undefined;
}

export interface Refused {
  readonly status: 401 | 403 | 404 | 503;
  readonly text: string;
}

export type Admission = { readonly pass: Pass | undefined } | Refused;

/** A viewing token, and how it came. */
export interface ShownToken {
  readonly token: string;
  readonly isInAddress: boolean;
}

const UNKNOWN_STATE: Refused = {
  status: 503,
  text: 'This frontend does not know yet who may watch. Try again in a moment.',
};
const UNKNOWN_CHANNEL: Refused = { status: 404, text: 'There is no such channel.' };
const TOKEN_MISSING: Refused = {
  status: 401,
  text: 'This channel is private. Add ?token=... with your viewing token to the address.',
};
const refusals = {
  invalid: 'This is no viewing token of this network.',
  expired: 'The viewing token has expired.',
  revoked: 'The viewing token has been revoked.',
  other: 'The viewing token is for other channels.',
} as const;
const forbidden = (why: keyof typeof refusals): Refused => ({ status: 403, text: refusals[why] });

export const PUBLIC: Admission = { pass: undefined };

interface ChannelAccess {
  readonly isPrivate: boolean;
  readonly maxViewers: number | null;
  readonly names: SegmentNames;
}

export class ViewingAccess {
  readonly #isAlone: boolean;
  readonly #nowUnixMs: () => number;
  readonly #verifier: ViewingTokenVerifier;
  /** Undefined before the first state. */
  #channels: ReadonlyMap<string, ChannelAccess> | undefined;
  #revokedTokenIds: ReadonlySet<string> = new Set();

  /** @param options.isAlone no coordinator is followed: everything may be watched by everybody */
  constructor({ isAlone, nowUnixMs = Date.now }: { isAlone: boolean; nowUnixMs?: () => number }) {
    this.#isAlone = isAlone;
    this.#nowUnixMs = nowUnixMs;
    this.#verifier = new ViewingTokenVerifier(nowUnixMs);
  }

  /** False while nothing may be served because nothing is known. */
  get isKnown(): boolean {
    return this.#isAlone || this.#channels !== undefined;
  }

  update({ channels, viewingTokenKeys, revokedTokenIds }: FrontendState): void {
    const before = this.#channels;
    this.#channels = new Map(
      channels.map(({ name, nameKey, isPrivate, maxViewers }) => {
        const known = before?.get(name)?.names;
        const names = known?.key === nameKey ? known : new SegmentNames(nameKey);
        return [name, { isPrivate, maxViewers, names }];
      }),
    );
    this.#verifier.setKeys(viewingTokenKeys);
    this.#revokedTokenIds = new Set(revokedTokenIds);
  }

  /** Decides on a viewer who wants to begin, or an HLS player that asks for a playlist. At once where it can be. */
  admit(channel: string, shown: ShownToken | undefined): Admission | Promise<Admission> {
    if (this.#isAlone) return PUBLIC;
    if (this.#channels === undefined) return UNKNOWN_STATE;
    const access = this.#channels.get(channel);
    if (access === undefined) return UNKNOWN_CHANNEL;
    if (!access.isPrivate) return PUBLIC;
    if (shown === undefined) return TOKEN_MISSING;
    const verdict = this.#verifier.verify(shown.token);
    if (!(verdict instanceof Promise)) return this.#judge(channel, shown, verdict);
    return verdict.then((settled) => this.#judge(channel, shown, settled));
  }

  #judge(channel: string, { token, isInAddress }: ShownToken, verdict: Verdict): Admission {
    if (typeof verdict === 'string') return forbidden(verdict);
    if (this.#revokedTokenIds.has(verdict.id)) return forbidden('revoked');
    if (!coversChannel(verdict, channel)) return forbidden('other');
    const { id, expiresAtUnixMs, maxConcurrent } = verdict;
    const tokenInAddress = isInAddress ? token : undefined;
    return { pass: { tokenId: id, expiresAtUnixMs, maxConcurrent, tokenInAddress } };
  }

  /** Whether somebody who was let in may stay. */
  mayStay(channel: string, pass: Pass | undefined): boolean {
    if (this.#channels?.get(channel)?.isPrivate !== true) return true;
    return (
      pass !== undefined &&
      pass.expiresAtUnixMs > this.#nowUnixMs() &&
      !this.#revokedTokenIds.has(pass.tokenId)
    );
  }

  /** Undefined for as many as come. */
  maxViewersOf(channel: string): number | undefined {
    return this.#channels?.get(channel)?.maxViewers ?? undefined;
  }

  /** Whether the channel is private now. */
  isPrivate(channel: string): boolean {
    return this.#channels?.get(channel)?.isPrivate ?? false;
  }

  /** What a playlist of the channel calls a media file. */
  mediaAddress(channel: string, name: string): string {
    const access = this.#channels?.get(channel);
    return access?.isPrivate === true ? access.names.inFolder(name) : name;
  }

  /**
   * The file that an address of {@link mediaAddress} stands for.
   * @returns undefined where it may not be had under this address
   */
  mediaFile(channel: string, path: string): string | undefined {
    if (this.#isAlone) return path;
    const access = this.#channels?.get(channel);
    // Who loaded a playlist before the channel became public may go on.
    return access?.names.withoutFolder(path) ?? (access?.isPrivate === false ? path : undefined);
  }
}

/** The viewing token of an HTTP request: `?token=`, or else `Authorization: Bearer`. */
export function shownToken(request: IncomingMessage): ShownToken | undefined {
  const query = /\?(.*)$/s.exec(request.url ?? '')?.[1];
  const inAddress = query?.includes('token=') === true ? new URLSearchParams(query).get('token') : null;
  if (inAddress !== null) return { token: inAddress, isInAddress: true };
  const token = bearerToken(request.headers.authorization);
  return token === undefined ? undefined : { token, isInAddress: false };
}
