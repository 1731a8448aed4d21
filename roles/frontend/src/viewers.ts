/**
 * Who watches on this frontend: one session for each viewer, whatever the protocol.
 *
 * A viewer of an endless response is there while its socket is open. HLS has no such thing, so its
 * multivariant playlist gives every player an address of the media playlist of its own, with a session id;
 * whoever has not asked for it for some target durations has left. Segments carry no id, so that caches
 * between here and the viewers work.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { ViewerProtocol, ViewerStretch } from '@starling/model/entities';
import type { Pass } from './viewing-access.ts';

export type { ViewerProtocol };

/** As far as the protocol tells. */
export interface Client {
  readonly address: string;
  readonly userAgent: string | undefined;
  /** What let it in to a private channel. */
  readonly pass?: Pass | undefined;
}

export interface Viewer extends Client {
  readonly id: string;
  readonly channel: string;
  readonly protocol: ViewerProtocol;
  readonly startedAtUnixMs: number;
  /** Of HLS segments, see {@link ViewerRegistry.countHlsMedia}. */
  sentBytes: number;
  /** HLS: of the media playlist asked for last. */
  rendition: string | undefined;
  /** How far what it has been given is behind the newest here; undefined where the protocol does not tell. */
  latencyMs: number | undefined;
}

/** Up to where a session has been written down. */
interface Recorded {
  recordedUntilUnixMs: number;
  recordedBytes: number;
}

/** A viewer of HLS: there as long as it asks for playlists. */
export interface HlsViewer extends Viewer, Recorded {
  readonly protocol: 'hls';
  readonly clientKey: string;
  lifetimeMs: number;
  askedAtMs: number;
  /** For each request that waits for an answer, what refuses it. */
  readonly waiting: Set<() => void>;
}

/** A viewer with a socket of its own. */
interface ConnectedViewer extends Viewer, Recorded {
  readonly protocol: Exclude<ViewerProtocol, 'hls'>;
  disconnect(): void;
}

export interface ViewerRegistryOptions {
  /** Undefined for as many as come. */
  readonly maxViewersOf?: (channel: string) => number | undefined;
  /** In all channels; bounds the memory. */
  readonly maxViewers?: number;
  /** Whether a viewer that was let in may stay; asked in each sweep. */
  readonly mayStay?: (channel: string, pass: Pass | undefined) => boolean;
  /** Milliseconds on a monotonic clock. */
  readonly nowMs?: () => number;
  /** A viewer has left, or has watched on for some minutes since the last stretch. */
  readonly onStretch?: (stretch: ViewerStretch) => void;
}

/** Said to whom the limits keep out. */
export const CHANNEL_FULL_TEXT = 'This channel has all the viewers that it may have. Try again later.';
export const TOKEN_FULL_TEXT = 'As many watch with this token as may at the same time. Try again later.';

const MAX_VIEWERS = 100_000;
/** Session ids of HLS that are answered no more; the oldest make room. */
const MAX_KICKED_IDS = 10_000;
const MAX_USER_AGENT_CHARACTERS = 256;

/** A player asks once a target duration, and again after half of one when nothing is new (RFC 8216, 6.3.4). */
const HLS_LIFETIME_TARGET_DURATIONS = 2.5;
const HLS_LIFETIME_MARGIN_MS = 3000;
const MAX_HLS_LIFETIME_MS = 12_000;

/** What a frontend that is killed does not know any more is shorter than this. */
const STRETCH_MS = 120_000;

const ID_BYTES = 12;
const ID = /^[\w-]{16}$/;

export class ViewerRegistry {
  readonly #maxViewersOf: (channel: string) => number | undefined;
  readonly #mayStay: (channel: string, pass: Pass | undefined) => boolean;
  readonly #maxViewers: number;
  readonly #nowMs: () => number;
  readonly #onStretch: (stretch: ViewerStretch) => void;
  readonly #viewers = new Map<string, HlsViewer | ConnectedViewer>();
  readonly #counts = new Map<string, Map<ViewerProtocol, number>>();
  readonly #countsByToken = new Map<string, number>();
  readonly #latestHlsByClient = new Map<string, HlsViewer>();
  readonly #kickedIds = new Set<string>();
  #revision = 0;

  constructor(options: ViewerRegistryOptions = {}) {
    this.#maxViewersOf = options.maxViewersOf ?? (() => undefined);
    this.#mayStay = options.mayStay ?? (() => true);
    this.#maxViewers = options.maxViewers ?? MAX_VIEWERS;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#onStretch = options.onStretch ?? (() => undefined);
  }

  /** For the address of a media playlist. Nobody counts as a viewer for it yet. */
  newHlsSessionId(): string {
    return newId();
  }

  /** Rises whenever a viewer comes or leaves. */
  get revision(): number {
    return this.#revision;
  }

  /** Why there is no room for one more viewer, as a sentence for it; undefined when there is. */
  whyFull(channel: string, pass: Pass | undefined): string | undefined {
    let count = 0;
    for (const ofProtocol of this.countsOf(channel).values()) count += ofProtocol;
    const max = this.#maxViewersOf(channel) ?? Number.POSITIVE_INFINITY;
    if (count >= max || this.#viewers.size >= this.#maxViewers) return CHANNEL_FULL_TEXT;
    if (pass?.maxConcurrent === undefined) return undefined;
    return (this.#countsByToken.get(pass.tokenId) ?? 0) >= pass.maxConcurrent ? TOKEN_FULL_TEXT : undefined;
  }

  /**
   * Adds a viewer with a connection of its own; `close` is to follow.
   * @returns undefined when there is no room for it
   */
  open(
    channel: string,
    protocol: ConnectedViewer['protocol'],
    client: Client,
    disconnect: () => void,
  ): Viewer | undefined {
    if (this.whyFull(channel, client.pass) !== undefined) return undefined;
    const viewer = Object.assign(this.#newViewer(newId(), channel, client), { protocol, disconnect });
    this.#add(viewer);
    return viewer;
  }

  /** The viewer has left. */
  close(viewer: Viewer): void {
    const known = this.#viewers.get(viewer.id);
    if (known !== undefined && known === viewer) this.#remove(known);
  }

  /**
   * A player asks for a media playlist: it is there, maybe from now on. One that shows no session id is
   * known by its address and user agent, so two of a kind behind one address count as one.
   */
  touchHls(
    channel: string,
    sessionId: string | undefined,
    client: Client,
    targetDurationMs: number,
  ): HlsViewer | 'kicked' | 'full' {
    const id = this.#hlsId(channel, sessionId, client);
    if (this.#kickedIds.has(id)) return 'kicked';
    const known = this.#viewers.get(id);
    const viewer = known?.protocol === 'hls' ? known : this.#openHls(id, channel, client);
    if (viewer === undefined) return 'full';
    viewer.askedAtMs = this.#nowMs();
    viewer.lifetimeMs = Math.min(
      MAX_HLS_LIFETIME_MS,
      HLS_LIFETIME_TARGET_DURATIONS * targetDurationMs + HLS_LIFETIME_MARGIN_MS,
    );
    this.#latestHlsByClient.set(viewer.clientKey, viewer);
    return viewer;
  }

  /**
   * A request of this viewer waits; it stays until `endHlsWait`.
   * @param refuse called when it is shown out, after which `endHlsWait` follows
   */
  beginHlsWait(viewer: HlsViewer, refuse: () => void): void {
    viewer.waiting.add(refuse);
  }

  endHlsWait(viewer: HlsViewer, refuse: () => void): void {
    viewer.waiting.delete(refuse);
    viewer.askedAtMs = this.#nowMs();
  }

  /**
   * Segments do not say whose they are: they are credited to the viewer at this address, with this user
   * agent, that asked for a playlist last. They also show that it is there: whoever watches what is over asks for
   * no playlist again.
   */
  countHlsMedia(channel: string, client: Client, sizeBytes: number): void {
    const viewer = this.#latestHlsByClient.get(clientKey(channel, client));
    if (viewer === undefined) return;
    viewer.sentBytes += sizeBytes;
    viewer.askedAtMs = this.#nowMs();
  }

  /**
   * Shows a viewer out. HLS: its session is refused from now on, also when it is not known here yet.
   * @returns false when there is no such viewer
   */
  kick(id: string): boolean {
    this.#kickedIds.add(id);
    const [oldest] = this.#kickedIds;
    if (this.#kickedIds.size > MAX_KICKED_IDS && oldest !== undefined) this.#kickedIds.delete(oldest);
    const viewer = this.#viewers.get(id);
    if (viewer === undefined) return false;
    this.#showOut(viewer);
    return true;
  }

  isKicked(id: string): boolean {
    return this.#kickedIds.has(id);
  }

  /** Everybody who watches, those first who came first. */
  list(): Viewer[] {
    return Array.from(this.#viewers.values(), (viewer) => {
      const { id, channel, protocol, rendition, address, userAgent, pass } = viewer;
      const { startedAtUnixMs, sentBytes, latencyMs } = viewer;
      return {
        ...{ id, channel, protocol, rendition, address, userAgent, pass },
        ...{ startedAtUnixMs, sentBytes, latencyMs },
      };
    });
  }

  /** The number of viewers of each protocol that has any. */
  countsOf(channel: string): ReadonlyMap<ViewerProtocol, number> {
    return this.#counts.get(channel) ?? new Map();
  }

  /**
   * Takes out the HLS viewers that have not been heard of, and shows out those who may not stay; to be called
   * every second or so, and when it has changed who may.
   */
  sweep(): void {
    const nowMs = this.#nowMs();
    const recordBeforeUnixMs = Date.now() - STRETCH_MS;
    for (const viewer of this.#viewers.values()) {
      if (viewer.recordedUntilUnixMs <= recordBeforeUnixMs) this.#record(viewer);
      if (!this.#mayStay(viewer.channel, viewer.pass)) {
        this.#showOut(viewer);
        continue;
      }
      if (viewer.protocol !== 'hls' || viewer.waiting.size > 0) continue;
      if (nowMs - viewer.askedAtMs > viewer.lifetimeMs) this.#remove(viewer);
    }
  }

  /** Everybody is gone: this frontend ends. */
  closeAll(): void {
    for (const viewer of [...this.#viewers.values()]) this.#remove(viewer);
  }

  /** Hands on what there is of a session since the last time. */
  #record(viewer: HlsViewer | ConnectedViewer): void {
    const { id, channel, protocol, pass, sentBytes } = viewer;
    const unseenMs =
      viewer.protocol === 'hls' && viewer.waiting.size === 0 ? this.#nowMs() - viewer.askedAtMs : 0;
    const fromUnixMs = viewer.recordedUntilUnixMs;
    const toUnixMs = Math.max(fromUnixMs, Math.round(Date.now() - unseenMs));
    this.#onStretch({
      ...{ viewerId: id, channel, protocol, tokenId: pass?.tokenId ?? null, fromUnixMs, toUnixMs },
      sentBytes: sentBytes - viewer.recordedBytes,
    });
    viewer.recordedUntilUnixMs = toUnixMs;
    viewer.recordedBytes = sentBytes;
  }

  #showOut(viewer: HlsViewer | ConnectedViewer): void {
    this.#remove(viewer);
    if (viewer.protocol !== 'hls') return viewer.disconnect();
    for (const refuse of [...viewer.waiting]) refuse();
  }

  #hlsId(channel: string, sessionId: string | undefined, client: Client): string {
    const { pass } = client;
    let of = clientKey(channel, client);
    if (sessionId !== undefined && ID.test(sessionId)) {
      const known = this.#viewers.get(sessionId);
      const isFree = known === undefined || (known.protocol === 'hls' && known.channel === channel);
      // Where viewers are limited, an address that is passed around must not make one viewer of many.
      if (isFree && pass?.maxConcurrent === undefined) return sessionId;
      if (isFree) of = `${of} ${sessionId}`;
    }
    const digest = createHash('sha256')
      .update(`${of} ${pass?.tokenId ?? ''}`)
      .digest();
    return idOf(digest.subarray(0, ID_BYTES));
  }

  #openHls(id: string, channel: string, client: Client): HlsViewer | undefined {
    if (this.whyFull(channel, client.pass) !== undefined) return undefined;
    const viewer = Object.assign(this.#newViewer(id, channel, client), {
      protocol: 'hls' as const,
      clientKey: clientKey(channel, client),
      lifetimeMs: 0,
      askedAtMs: 0,
      waiting: new Set<() => void>(),
    });
    this.#add(viewer);
    return viewer;
  }

  /** For `Object.assign`, not for a spread, which gives each object a hidden class of its own (V8 11.3). */
  #newViewer(
    id: string,
    channel: string,
    { address, userAgent, pass }: Client,
  ): Omit<Viewer, 'protocol'> & Recorded {
    const startedAtUnixMs = Date.now();
    return {
      id,
      channel,
      address,
      pass,
      userAgent: userAgent?.slice(0, MAX_USER_AGENT_CHARACTERS),
      startedAtUnixMs,
      sentBytes: 0,
      recordedUntilUnixMs: startedAtUnixMs,
      recordedBytes: 0,
      rendition: undefined,
      latencyMs: undefined,
    };
  }

  #add(viewer: HlsViewer | ConnectedViewer): void {
    this.#revision++;
    this.#viewers.set(viewer.id, viewer);
    this.#countForToken(viewer, 1);
    const counts = this.#counts.get(viewer.channel) ?? new Map<ViewerProtocol, number>();
    this.#counts.set(viewer.channel, counts);
    counts.set(viewer.protocol, (counts.get(viewer.protocol) ?? 0) + 1);
  }

  #remove(viewer: HlsViewer | ConnectedViewer): void {
    this.#revision++;
    this.#viewers.delete(viewer.id);
    this.#record(viewer);
    this.#countForToken(viewer, -1);
    if (viewer.protocol === 'hls' && this.#latestHlsByClient.get(viewer.clientKey) === viewer) {
      this.#latestHlsByClient.delete(viewer.clientKey);
    }
    const counts = this.#counts.get(viewer.channel);
    const left = (counts?.get(viewer.protocol) ?? 1) - 1;
    if (left > 0) counts?.set(viewer.protocol, left);
    else counts?.delete(viewer.protocol);
    if (counts?.size === 0) this.#counts.delete(viewer.channel);
  }

  #countForToken({ pass }: Viewer, change: 1 | -1): void {
    if (pass === undefined) return;
    const count = (this.#countsByToken.get(pass.tokenId) ?? 0) + change;
    if (count > 0) this.#countsByToken.set(pass.tokenId, count);
    else this.#countsByToken.delete(pass.tokenId);
  }
}

function newId(): string {
  return idOf(randomBytes(ID_BYTES));
}

/** Without hyphens, so that a command line does not take an id for an option. */
function idOf(bytes: Buffer): string {
  return bytes.toString('base64url').replaceAll('-', '0');
}

function clientKey(channel: string, { address, userAgent = '' }: Client): string {
  return `${channel} ${address} ${userAgent.slice(0, MAX_USER_AGENT_CHARACTERS)}`;
}
