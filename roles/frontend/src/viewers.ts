/**
 * Who watches on this frontend: one session for each viewer, whatever the protocol.
 *
 * A viewer of an endless response is there while its socket is open. HLS has no such thing, so its
 * multivariant playlist gives every player an address of the media playlist of its own, with a session id;
 * whoever has not asked for it for some target durations has left. Segments carry no id, so that caches
 * between here and the viewers work.
 */
import { createHash, randomBytes } from 'node:crypto';

export type ViewerProtocol = 'hls' | 'flv' | 'ws-flv' | 'ts' | 'rtmp';

/** As far as the protocol tells. */
export interface Client {
  readonly address: string;
  readonly userAgent: string | undefined;
}

export interface Viewer extends Client {
  readonly id: string;
  readonly channel: string;
  readonly protocol: ViewerProtocol;
  readonly startedAtUnixMs: number;
  /** Of HLS segments, see {@link ViewerRegistry.countHlsMedia}. */
  sentBytes: number;
}

/** A viewer of HLS: there as long as it asks for playlists. */
export interface HlsViewer extends Viewer {
  readonly protocol: 'hls';
  readonly clientKey: string;
  lifetimeMs: number;
  askedAtMs: number;
  /** Requests that wait for an answer. */
  waitingCount: number;
}

/** A viewer with a socket of its own. */
interface ConnectedViewer extends Viewer {
  readonly protocol: Exclude<ViewerProtocol, 'hls'>;
  disconnect(): void;
}

export interface ViewerRegistryOptions {
  /** As many as come when undefined. */
  readonly maxViewersPerChannel?: number | undefined;
  /** In all channels; bounds the memory. */
  readonly maxViewers?: number;
  /** Milliseconds on a monotonic clock. */
  readonly nowMs?: () => number;
}

/** Said to whom the limits keep out. */
export const CHANNEL_FULL_TEXT = 'This channel has all the viewers that it may have. Try again later.';

const MAX_VIEWERS = 100_000;
/** Session ids of HLS that are answered no more; the oldest make room. */
const MAX_KICKED_IDS = 10_000;
const MAX_USER_AGENT_CHARACTERS = 256;

/** A player asks once a target duration, and again after half of one when nothing is new (RFC 8216, 6.3.4). */
const HLS_LIFETIME_TARGET_DURATIONS = 2.5;
const HLS_LIFETIME_MARGIN_MS = 3000;
const MAX_HLS_LIFETIME_MS = 12_000;

const ID_BYTES = 12;
const ID = /^[\w-]{16}$/;

export class ViewerRegistry {
  readonly #maxViewersPerChannel: number;
  readonly #maxViewers: number;
  readonly #nowMs: () => number;
  readonly #viewers = new Map<string, HlsViewer | ConnectedViewer>();
  readonly #counts = new Map<string, Map<ViewerProtocol, number>>();
  readonly #latestHlsByClient = new Map<string, HlsViewer>();
  readonly #kickedIds = new Set<string>();

  constructor(options: ViewerRegistryOptions = {}) {
    this.#maxViewersPerChannel = options.maxViewersPerChannel ?? Number.POSITIVE_INFINITY;
    this.#maxViewers = options.maxViewers ?? MAX_VIEWERS;
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  /** For the address of a media playlist. Nobody counts as a viewer for it yet. */
  newHlsSessionId(): string {
    return newId();
  }

  /** True when the channel may have one more. */
  hasRoom(channel: string): boolean {
    let count = 0;
    for (const ofProtocol of this.countsOf(channel).values()) count += ofProtocol;
    return count < this.#maxViewersPerChannel && this.#viewers.size < this.#maxViewers;
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
    if (!this.hasRoom(channel)) return undefined;
    const viewer = { ...this.#newViewer(newId(), channel, client), protocol, disconnect };
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

  /** A request of this viewer waits; it stays until `endHlsWait`. */
  beginHlsWait(viewer: HlsViewer): void {
    viewer.waitingCount += 1;
  }

  endHlsWait(viewer: HlsViewer): void {
    viewer.waitingCount -= 1;
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
   * Shows a viewer out. HLS: its session is refused from now on.
   * @returns false when there is no such viewer
   */
  kick(id: string): boolean {
    const viewer = this.#viewers.get(id);
    if (viewer === undefined) return false;
    this.#remove(viewer);
    if (viewer.protocol !== 'hls') {
      viewer.disconnect();
      return true;
    }
    this.#kickedIds.add(id);
    const [oldest] = this.#kickedIds;
    if (this.#kickedIds.size > MAX_KICKED_IDS && oldest !== undefined) this.#kickedIds.delete(oldest);
    return true;
  }

  /** Everybody who watches, those first who came first. */
  list(): Viewer[] {
    return Array.from(
      this.#viewers.values(),
      ({ id, channel, protocol, address, userAgent, startedAtUnixMs, sentBytes }) => ({
        ...{ id, channel, protocol, address, userAgent, startedAtUnixMs, sentBytes },
      }),
    );
  }

  /** The number of viewers of each protocol that has any. */
  countsOf(channel: string): ReadonlyMap<ViewerProtocol, number> {
    return this.#counts.get(channel) ?? new Map();
  }

  /** Takes out the HLS viewers that have not been heard of; to be called every second or so. */
  sweep(): void {
    const nowMs = this.#nowMs();
    for (const viewer of this.#viewers.values()) {
      if (viewer.protocol !== 'hls' || viewer.waitingCount > 0) continue;
      if (nowMs - viewer.askedAtMs > viewer.lifetimeMs) this.#remove(viewer);
    }
  }

  #hlsId(channel: string, sessionId: string | undefined, client: Client): string {
    if (sessionId !== undefined && ID.test(sessionId)) {
      const known = this.#viewers.get(sessionId);
      if (known === undefined || (known.protocol === 'hls' && known.channel === channel)) return sessionId;
    }
    const digest = createHash('sha256').update(clientKey(channel, client)).digest();
    return digest.subarray(0, ID_BYTES).toString('base64url');
  }

  #openHls(id: string, channel: string, client: Client): HlsViewer | undefined {
    if (!this.hasRoom(channel)) return undefined;
    const viewer: HlsViewer = {
      ...this.#newViewer(id, channel, client),
      protocol: 'hls',
      clientKey: clientKey(channel, client),
      lifetimeMs: 0,
      askedAtMs: 0,
      waitingCount: 0,
    };
    this.#add(viewer);
    return viewer;
  }

  #newViewer(id: string, channel: string, { address, userAgent }: Client): Omit<Viewer, 'protocol'> {
    return {
      id,
      channel,
      address,
      userAgent: userAgent?.slice(0, MAX_USER_AGENT_CHARACTERS),
      startedAtUnixMs: Date.now(),
      sentBytes: 0,
    };
  }

  #add(viewer: HlsViewer | ConnectedViewer): void {
    this.#viewers.set(viewer.id, viewer);
    const counts = this.#counts.get(viewer.channel) ?? new Map<ViewerProtocol, number>();
    this.#counts.set(viewer.channel, counts);
    counts.set(viewer.protocol, (counts.get(viewer.protocol) ?? 0) + 1);
  }

  #remove(viewer: HlsViewer | ConnectedViewer): void {
    this.#viewers.delete(viewer.id);
    if (viewer.protocol === 'hls' && this.#latestHlsByClient.get(viewer.clientKey) === viewer) {
      this.#latestHlsByClient.delete(viewer.clientKey);
    }
    const counts = this.#counts.get(viewer.channel);
    const left = (counts?.get(viewer.protocol) ?? 1) - 1;
    if (left > 0) counts?.set(viewer.protocol, left);
    else counts?.delete(viewer.protocol);
    if (counts?.size === 0) this.#counts.delete(viewer.channel);
  }
}

function newId(): string {
  return randomBytes(ID_BYTES).toString('base64url');
}

function clientKey(channel: string, { address, userAgent = '' }: Client): string {
  return `${channel} ${address} ${userAgent.slice(0, MAX_USER_AGENT_CHARACTERS)}`;
}
