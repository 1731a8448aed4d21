/**
 * Pushes a channel to one destination that is not ours, and never holds the channel up: what the destination
 * does not take waits in a bounded queue; when that is full it is emptied, and the next random access point
 * begins anew. A destination that takes nothing is cut. One that fails is tried again, later and later.
 *
 * | state      | event                                             | next       |
 * | ---------- | ------------------------------------------------- | ---------- |
 * | off        | a random access point of tracks that it can take  | connecting |
 * | connecting | the other side accepts                            | sending    |
 * | connecting, sending | the connection breaks, or takes nothing  | waiting    |
 * | waiting    | its time has come, and there is something to send | connecting |
 * | any        | the channel sends nothing any more                | off        |
 */
import {
  isDefaultTrack,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
} from '@starling/media/access-unit';
import { isLegacyCodec } from '@starling/media/flv/tag';
import { canCarryInTs } from '@starling/media/mpeg-ts/mux';
import { ticksToMs } from '@starling/media/time';
import {
  type DestinationSettings,
  type DestinationState,
  type DestinationStatus,
  type DestinationTarget,
  parseDestinationUrl,
  shownDestinationUrl,
  withoutDestinationSecrets,
} from '@starling/model/destination';
import type { Channel } from '@starling/net/channel';
import type { Logger } from 'pino';
import type { OpenOutlet, OutgoingUnit, Outlet } from './outlet.ts';
import { rtmpOutlets } from './rtmp-outlet.ts';
import { srtOutlets } from './srt-outlet.ts';

export interface DestinationTiming {
  readonly firstRetryMs: number;
  readonly lastRetryMs: number;
  /** After so long a time of sending the next failure counts as the first. */
  readonly healthyAfterMs: number;
  /** Media that may wait; more is skipped. */
  readonly maxBehindMs: number;
  /** A destination that takes nothing for so long is cut. */
  readonly stallMs: number;
  /** A server that sends its publishers away sooner is taken for a broken one. */
  readonly minStayMs: number;
}

export const defaultDestinationTiming: DestinationTiming = {
  firstRetryMs: 1000,
  lastRetryMs: 60_000,
  healthyAfterMs: 5000,
  maxBehindMs: 4000,
  stallMs: 10_000,
  minStayMs: 5000,
};

/** In case that the bit rate is absurd. */
const MAX_QUEUED_BYTES = 32 * 1024 * 1024;
/** Without a unit for so long the connection is given up: servers do not keep a silent publisher. */
const IDLE_MS = 15_000;
const SAMPLE_MS = 1000;
/** The bit rate is that of so many samples. */
const BITRATE_SAMPLES = 5;
const MAX_REASON_CHARS = 300;
const OFF_AIR = 'the channel is off the air';

export interface DestinationOptions {
  readonly settings: DestinationSettings;
  readonly logger: Logger;
  readonly timing?: DestinationTiming;
  /** Milliseconds since 1970. */
  readonly nowUnixMs: () => number;
  /** The state has changed. */
  onChange(): void;
  /** It has failed, and had not before. */
  onFailed(reason: string): void;
  /** It had failed, and has been sent to for a while since. */
  onRestored(): void;
}

export class Destination {
  readonly #options: DestinationOptions;
  readonly #timing: DestinationTiming;
  readonly #target: DestinationTarget;
  readonly #open: OpenOutlet;
  readonly #logger: Logger;
  readonly #sampleTimer: NodeJS.Timeout;
  #state: DestinationState = 'off';
  #sinceUnixMs: number;
  #reason: string | null = OFF_AIR;
  #leaveChannel: (() => void) | undefined;

  /** All default tracks of the channel, and those of them that are sent. */
  #channelTracks: readonly Track[] = [];
  #tracks: readonly Track[] = [];
  #areTracksNew = false;
  /** After a discontinuity: the first track that is announced clears those from before it. */
  #replacesTracks = false;
  #discontinuitySequence: number | undefined;

  #outlet: Outlet | undefined;
  #outletSinceMs = 0;
  /** Opens the connection that the other side asked for. */
  #moveTo: OpenOutlet | undefined;
  /** Begins with a random access point, unless what came before it has been sent. */
  #queue: OutgoingUnit[] = [];
  #queuedBytes = 0;
  /** Until the next random access point nothing is queued. */
  #isSkipping = true;
  /** It is skipped because the destination was too slow. */
  #isBehind = false;

  #retryTimer: NodeJS.Timeout | undefined;
  #retryAtUnixMs: number | undefined;
  /** Without a good time between them. */
  #failuresInARow = 0;
  #failures = 0;
  #hasFailed = false;
  #droppedUnits = 0;
  /** Of connections that have ended. */
  #earlierBytes = 0;
  #samples: { readonly atMs: number; readonly sentBytes: number }[] = [];
  #fullSinceMs: number | undefined;
  #lastUnitAtMs = 0;

  constructor(options: DestinationOptions) {
    const { settings, logger, timing = defaultDestinationTiming } = options;
    this.#options = options;
    this.#timing = timing;
    this.#target = parseDestinationUrl(settings.url);
    this.#open = outletsOf(this.#target, settings);
    this.#logger = logger.child({
      channel: settings.channel,
      destination: settings.name,
      address: shownDestinationUrl(settings.url),
    });
    this.#sinceUnixMs = options.nowUnixMs();
    this.#sampleTimer = setInterval(() => this.#sample(performance.now()), SAMPLE_MS);
  }

  get settings(): DestinationSettings {
    return this.#options.settings;
  }

  get status(): DestinationStatus {
    const [oldest] = this.#samples;
    const newest = this.#samples.at(-1);
    const spanMs = oldest === undefined || newest === undefined ? 0 : newest.atMs - oldest.atMs;
    const sampledBytes = (newest?.sentBytes ?? 0) - (oldest?.sentBytes ?? 0);
    return {
      state: this.#state,
      since: new Date(this.#sinceUnixMs).toISOString(),
      reason: this.#reason,
      retryAt: this.#retryAtUnixMs === undefined ? null : new Date(this.#retryAtUnixMs).toISOString(),
      bitrateBps: spanMs > 0 ? Math.max(0, Math.round((sampledBytes * 8000) / spanMs)) : 0,
      sentBytes: this.#sentBytes,
      droppedUnits: this.#droppedUnits,
      failures: this.#failures,
    };
  }

  /** From now on what the channel has is sent, as soon as there is something. */
  attach(channel: Channel): void {
    this.#leaveChannel?.();
    this.#channelTracks = [];
    this.#discontinuitySequence = undefined;
    this.#isSkipping = true;
    this.#leaveChannel = channel.tap((events) => this.#take(events));
  }

  /** The channel is off the air. */
  detach(): void {
    this.#leaveChannel?.();
    this.#leaveChannel = undefined;
    this.#turnOff(OFF_AIR);
  }

  close(): void {
    this.#leaveChannel?.();
    this.#leaveChannel = undefined;
    clearInterval(this.#sampleTimer);
    clearTimeout(this.#retryTimer);
    this.#dropOutlet();
  }

  #take(events: readonly StreamEvent[]): void {
    for (const event of events) {
      switch (event.type) {
        case 'timeline':
          break;
        case 'cue':
          this.#replacesTracks = event.cue.discontinuitySequence !== this.#discontinuitySequence;
          this.#discontinuitySequence = event.cue.discontinuitySequence;
          break;
        case 'track':
          this.#takeTrack(event.track);
          break;
        case 'unit':
          if (isDefaultTrack(event.unit)) this.#takeUnit(event);
          break;
      }
    }
    this.#sendQueue();
  }

  #takeTrack(track: Track): void {
    const others = this.#replacesTracks
      ? []
      : this.#channelTracks.filter((known) => trackIndex(known) !== trackIndex(track));
    this.#replacesTracks = false;
    this.#channelTracks = [...others, ...(isDefaultTrack(track) ? [track] : [])].sort(
      (a, b) => trackIndex(a) - trackIndex(b),
    );
    this.#areTracksNew = true;
  }

  /** When all that were announced are known: at the first unit after them. */
  #chooseTracks(): void {
    this.#areTracksNew = false;
    const carried = this.#channelTracks.filter((one) => this.#canCarry(one));
    // Sound alone is not what somebody wants who pushes a picture.
    const hasLostPicture = this.#channelTracks.some((one) => one.kind === 'video' && !carried.includes(one));
    this.#tracks = hasLostPicture ? [] : carried;
    if (this.#tracks.length === 0) this.#turnOff(this.#leftOut ?? 'the channel has no tracks');
    else if (this.#state === 'sending') this.#enter('sending', this.#leftOut);
  }

  /** What the destination does not get, in words. */
  get #leftOut(): string | null {
    const codecs = this.#channelTracks.filter((track) => !this.#canCarry(track)).map(({ codec }) => codec);
    return codecs.length === 0 ? null : `it does not take the ${codecs.join(' and ')} of the channel`;
  }

  #canCarry(track: Track): boolean {
    if (this.#target.protocol === 'srt') return canCarryInTs(track);
    return isLegacyCodec(track.codec) || this.settings.takesEnhancedCodecs;
  }

  #takeUnit({ unit }: Extract<StreamEvent, { type: 'unit' }>): void {
    if (this.#areTracksNew) this.#chooseTracks();
    const track = this.#tracks.find(({ kind }) => kind === unit.kind);
    if (track === undefined) return;
    this.#lastUnitAtMs = performance.now();
    const isStart = unit.isRandomAccess && (unit.kind === 'video' || this.#tracks.length === 1);
    if (isStart) this.#begin();
    if (this.#isSkipping) {
      if (this.#isBehind) this.#droppedUnits++;
      return;
    }
    this.#queue.push({ unit, track, tracks: this.#tracks });
    this.#queuedBytes += unit.data.length;
    if (this.#isQueueTooLong()) {
      this.#isSkipping = true;
      this.#isBehind = this.#state === 'sending';
      if (this.#isBehind) this.#droppedUnits += this.#queue.length;
      this.#emptyQueue();
    }
  }

  /** At a random access point a connection may begin, and what is skipped may end. */
  #begin(): void {
    if (this.#moveTo !== undefined) this.#move(this.#moveTo);
    if (this.#state === 'sending') {
      if (this.#outlet?.isFull !== false) return;
      this.#isSkipping = false;
      this.#isBehind = false;
      return;
    }
    this.#emptyQueue(); // it is to begin with the newest
    this.#isSkipping = false;
    const mayRetry = this.#state === 'waiting' && this.#retryTimer === undefined;
    if (this.#state === 'off' || mayRetry) this.#connect(this.#open);
  }

  #isQueueTooLong(): boolean {
    const [first] = this.#queue;
    const last = this.#queue.at(-1);
    if (first === undefined || last === undefined) return false;
    const atMs = ({ unit, track }: OutgoingUnit) => ticksToMs(unit.dtsTicks, timescaleHz(track));
    return atMs(last) - atMs(first) > this.#timing.maxBehindMs || this.#queuedBytes > MAX_QUEUED_BYTES;
  }

  #emptyQueue(): void {
    this.#queue = [];
    this.#queuedBytes = 0;
  }

  #sendQueue(): void {
    const outlet = this.#outlet;
    if (this.#state !== 'sending' || outlet === undefined || outlet.isFull || this.#queue.length === 0)
      return;
    const units = this.#queue;
    this.#emptyQueue();
    outlet.send(units);
    if (outlet.isFull) this.#fullSinceMs ??= performance.now();
  }

  #connect(open: OpenOutlet): void {
    this.#enter('connecting', null);
    this.#outletSinceMs = performance.now();
    const outlet: Outlet = open({
      onReady: () => {
        this.#logger.info(`the destination takes the channel${this.#hasFailed ? ' again' : ''}`);
        this.#outletSinceMs = performance.now();
        this.#enter('sending', this.#leftOut);
        this.#sendQueue();
      },
      onDrain: () => {
        this.#fullSinceMs = undefined;
        this.#sendQueue();
      },
      onMove: (next) => {
        this.#moveTo = next;
      },
      onEnd: (reason) => this.#fail(reason),
    });
    this.#outlet = outlet;
  }

  #move(open: OpenOutlet): void {
    this.#moveTo = undefined;
    if (performance.now() - this.#outletSinceMs < this.#timing.minStayMs)
      return this.#fail('it sends the stream away at once');
    this.#logger.info('the destination asks for another connection');
    this.#dropOutlet();
    this.#connect(open);
  }

  #fail(untrustedReason: string): void {
    this.#dropOutlet();
    const reason = withoutDestinationSecrets(untrustedReason, this.#target).slice(0, MAX_REASON_CHARS);
    const { firstRetryMs, lastRetryMs } = this.#timing;
    const retryMs =
      Math.min(lastRetryMs, firstRetryMs * 2 ** this.#failuresInARow) * (0.5 + Math.random() / 2);
    this.#failuresInARow++;
    this.#failures++;
    if (!this.#hasFailed) {
      this.#logger.warn({ reason }, 'the destination failed; it is tried again');
      this.#hasFailed = true;
      this.#options.onFailed(reason);
    }
    this.#retryAtUnixMs = this.#options.nowUnixMs() + retryMs;
    this.#enter('waiting', reason);
    this.#retryTimer = setTimeout(() => {
      this.#retryAtUnixMs = undefined;
      this.#retryTimer = undefined;
      if (this.#queue.length > 0) this.#connect(this.#open); // else the next random access point does it
    }, retryMs);
  }

  #turnOff(reason: string): void {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = undefined;
    this.#retryAtUnixMs = undefined;
    this.#dropOutlet();
    this.#enter('off', reason);
  }

  #dropOutlet(): void {
    this.#earlierBytes = this.#sentBytes;
    this.#outlet?.close();
    this.#outlet = undefined;
    this.#moveTo = undefined;
    this.#fullSinceMs = undefined;
    this.#samples = [];
    this.#emptyQueue();
    this.#isSkipping = true;
    this.#isBehind = false;
  }

  #enter(state: DestinationState, reason: string | null): void {
    if (this.#state === state && this.#reason === reason) return;
    if (this.#state !== state) this.#sinceUnixMs = this.#options.nowUnixMs();
    this.#state = state;
    this.#reason = reason;
    this.#options.onChange();
  }

  get #sentBytes(): number {
    return this.#earlierBytes + (this.#outlet?.sentBytes ?? 0);
  }

  #sample(nowMs: number): void {
    if (this.#state !== 'off' && nowMs - this.#lastUnitAtMs > IDLE_MS)
      this.#turnOff('the channel sends nothing');
    if (this.#state !== 'sending') return;
    this.#samples.push({ atMs: nowMs, sentBytes: this.#sentBytes });
    if (this.#samples.length > BITRATE_SAMPLES) this.#samples.shift();
    if (this.#fullSinceMs !== undefined && nowMs - this.#fullSinceMs > this.#timing.stallMs) {
      return this.#fail('it takes nothing');
    }
    if (nowMs - this.#outletSinceMs > this.#timing.healthyAfterMs && this.#fullSinceMs === undefined) {
      this.#failuresInARow = 0;
      if (this.#hasFailed) this.#options.onRestored();
      this.#hasFailed = false;
    }
  }
}

function outletsOf(target: DestinationTarget, { acceptsAnyCertificate }: DestinationSettings): OpenOutlet {
  if (target.protocol === 'srt') return srtOutlets(target);
  const { protocol, host, port, app, streamName, tcUrl } = target;
  const tls = protocol === 'rtmps' ? { acceptsAnyCertificate } : undefined;
  return rtmpOutlets({ host, port, tls, app, streamName, tcUrl });
}
