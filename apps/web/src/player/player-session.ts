/** Keeps one channel playing in one video element: connects, watches, and connects again. */
import { Backoff } from './backoff.ts';
import {
  bufferedEnd,
  type Choice,
  type ChoiceKind,
  type MediaPlayer,
  type MediaStats,
  type PlaybackSource,
  UnsupportedProtocolError,
} from './media-player.ts';
import {
  initialPlayerState,
  nextPlayerState,
  type PlaybackFailure,
  type PlayerEvent,
  type PlayerState,
} from './player-state.ts';
import type { RewindExtent } from './rewind-window.ts';

/** Connected for this long without media that moves, the connection is given up. */
const STARVED_AFTER_MS = 12_000;
/** Media that moved for this long makes a connection a good one. */
const PROVEN_AFTER_MS = 5_000;
/** A pause longer than this lets go of the connection; resuming makes a new one. */
const RELEASE_AFTER_PAUSE_MS = 60_000;
const WATCH_INTERVAL_MS = 1_000;
/** Nearer to the present than this is live: the newest segments are not recorded yet, and some have to be loaded ahead. */
const NEAREST_REWIND_MS = 10_000;

/** What the session needs of a video element. */
export interface SessionVideo extends EventTarget {
  muted: boolean;
  readonly paused: boolean;
  readonly ended: boolean;
  readonly seeking: boolean;
  readonly currentTime: number;
  readonly playbackRate: number;
  readonly buffered: TimeRanges;
  readonly videoWidth: number;
  readonly videoHeight: number;
  readonly error: MediaError | null;
  play(): Promise<void>;
  pause(): void;
  getVideoPlaybackQuality(): { readonly droppedVideoFrames: number; readonly totalVideoFrames: number };
}

export interface PlayerSessionOptions {
  readonly video: SessionVideo;
  /**
   * Loads the code for the protocol, which may fail as any download may, and gives what opens a
   * connection with it.
   */
  readonly loadPlayer: (
    source: PlaybackSource,
  ) => Promise<(onFailure: (failure: PlaybackFailure) => void) => MediaPlayer>;
  /** The browser does not start sound by itself here, so the session muted the video. */
  readonly onAutoplayMuted: () => void;
  /** How far back there is something; undefined where there is nothing. */
  readonly readExtent: () => RewindExtent | undefined;
  readonly random: () => number;
}

/** All that the read-out shows; undefined where it is not known. */
export interface SessionStats extends MediaStats {
  readonly protocolName: string | undefined;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Media ahead of what is on the screen. */
  readonly bufferSeconds: number;
  readonly droppedFrameCount: number;
  readonly frameCount: number;
  readonly stallCount: number;
  readonly playbackRate: number;
}

export class PlayerSession {
  readonly #options: PlayerSessionOptions;
  readonly #backoff: Backoff;
  readonly #listeners = new Set<() => void>();
  readonly #abort = new AbortController();
  readonly #watchTimer: ReturnType<typeof setInterval>;
  #state: PlayerState = initialPlayerState;
  #player: MediaPlayer | undefined;
  #isConnecting = false;
  /** Told apart by this number, a late call of a connection that was given up changes nothing. */
  #attempt = 0;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #wantsToPlay = true;
  #source: PlaybackSource = { kind: 'live' };
  /** Of the last picture that was on the screen, in milliseconds since 1970. */
  #dateUnixMs: number | undefined;
  /** Where the viewer went, until a picture from there is on the screen. */
  #aimUnixMs: number | undefined;
  #lastTime = 0;
  #connectedAtMs = 0;
  #advancedAtMs = 0;
  /** When media began to move without a break; undefined while it does not. */
  #movingSinceMs: number | undefined;
  #pausedAtMs: number | undefined;
  /** What the viewer chose; holds across connections. */
  readonly #chosen = new Map<ChoiceKind, string>();

  constructor(options: PlayerSessionOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.random);
    const { video } = options;
    const { signal } = this.#abort;
    video.addEventListener('timeupdate', () => this.#onTimeUpdate(), { signal });
    video.addEventListener('waiting', () => this.#onWaiting(), { signal });
    video.addEventListener('play', () => this.#onPlay(), { signal });
    video.addEventListener('pause', () => this.#onPause(), { signal });
    video.addEventListener('ended', () => this.#fail(this.#attempt, 'ended'), { signal });
    this.#watchTimer = setInterval(() => this.#watch(), WATCH_INTERVAL_MS);
    void this.#connect();
  }

  readonly getState = (): PlayerState => this.#state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Passes on what the directory says; undefined when it cannot be reached. */
  setOnAir(isOnAir: boolean | undefined): void {
    const isBack = isOnAir === true && this.#state.isOnAir !== true;
    this.#dispatch({ type: 'directory', isOnAir });
    if (isBack && this.#player === undefined) {
      this.#backoff.reset();
      this.#reconnectNow();
    } else if (isOnAir === undefined && this.#isIdle()) {
      // Without a directory only an attempt can tell whether the channel is back.
      this.#scheduleRetry();
    }
  }

  /** Off the air there is nothing to pause, and the promise to start by itself has to hold. */
  togglePlay(): void {
    const { name } = this.#state.status;
    if (name === 'offline' || name === 'error') return;
    if (this.#wantsToPlay) this.#pause();
    else this.#resume();
  }

  goLive(): void {
    this.#aimUnixMs = undefined;
    this.#dateUnixMs = undefined;
    if (this.#source.kind === 'live') this.#player?.goLive();
    else this.#open({ kind: 'live' });
    if (!this.#wantsToPlay) this.#resume();
  }

  /** Goes to another time, in milliseconds since 1970; as near to it as there is something. */
  seekTo(dateUnixMs: number): void {
    const extent = this.#options.readExtent();
    if (extent === undefined) return;
    const aimUnixMs = Math.max(dateUnixMs, extent.fromUnixMs);
    if (this.#player?.seekTo(aimUnixMs) === true) {
      this.#aimUnixMs = aimUnixMs;
      return;
    }
    if (extent.liveUnixMs - aimUnixMs < NEAREST_REWIND_MS) return this.goLive();
    this.#open({ kind: 'recording', startUnixMs: aimUnixMs });
  }

  /** Goes back or forth. */
  seekBy(seconds: number): void {
    const dateUnixMs = this.readDateUnixMs();
    if (dateUnixMs !== undefined) this.seekTo(dateUnixMs + seconds * 1000);
  }

  /** Wall-clock time of what is on the screen, or is to be in a moment; undefined while it is not known. */
  readDateUnixMs(): number | undefined {
    if (this.#aimUnixMs !== undefined) return this.#aimUnixMs;
    if (this.#player === undefined || !this.#wantsToPlay) return this.#dateUnixMs;
    const dateUnixMs = this.#player.readDateUnixMs();
    if (dateUnixMs !== undefined || this.#source.kind !== 'live') return dateUnixMs ?? this.#dateUnixMs;
    // The stream does not say it, but how far behind the server's present it is.
    const latencySeconds = this.#player.readStats().latencySeconds;
    const liveUnixMs = this.#options.readExtent()?.liveUnixMs;
    if (latencySeconds === undefined || liveUnixMs === undefined) return this.#dateUnixMs;
    return liveUnixMs - latencySeconds * 1000;
  }

  retryNow(): void {
    this.#dispatch({ type: 'retried' });
    this.#backoff.reset();
    this.#reconnectNow();
  }

  readBehindLiveSeconds(): number {
    const isRecording = this.#source.kind === 'recording';
    if (isRecording || !this.#wantsToPlay) {
      const dateUnixMs = this.readDateUnixMs();
      const liveUnixMs = this.#options.readExtent()?.liveUnixMs;
      if (dateUnixMs !== undefined && liveUnixMs !== undefined) return (liveUnixMs - dateUnixMs) / 1000;
    }
    return this.#player?.readBehindLiveSeconds() ?? 0;
  }

  readChoice(kind: ChoiceKind): Choice | undefined {
    return this.#player?.readChoice(kind);
  }

  choose(kind: ChoiceKind, option: string): void {
    this.#chosen.set(kind, option);
    this.#player?.choose(kind, option);
  }

  readStats(): SessionStats {
    const { video } = this.#options;
    const stats = this.#player?.readStats();
    const quality = video.getVideoPlaybackQuality();
    const end = bufferedEnd(video.buffered, video.currentTime);
    return {
      protocolName: this.#player?.protocolName,
      latencySeconds: stats?.latencySeconds,
      wallClockDelaySeconds: stats?.wallClockDelaySeconds,
      bitrateBps: stats?.bitrateBps,
      frameRate: stats?.frameRate,
      codecs: stats?.codecs,
      widthPx: video.videoWidth,
      heightPx: video.videoHeight,
      bufferSeconds: end === undefined ? 0 : end - video.currentTime,
      droppedFrameCount: quality.droppedVideoFrames,
      frameCount: quality.totalVideoFrames,
      stallCount: this.#state.stallCount,
      playbackRate: video.playbackRate,
    };
  }

  /** Stops playing for good. */
  close(): void {
    this.#abort.abort();
    clearInterval(this.#watchTimer);
    this.#disconnect();
    this.#listeners.clear();
  }

  async #connect(): Promise<void> {
    const { loadPlayer } = this.#options;
    this.#disconnect();
    const attempt = this.#attempt;
    this.#isConnecting = true;
    this.#connectedAtMs = Date.now();
    try {
      const openPlayer = await loadPlayer(this.#source);
      if (attempt !== this.#attempt) return;
      this.#lastTime = 0;
      this.#player = openPlayer((failure) => this.#fail(attempt, failure));
      this.#isConnecting = false;
    } catch (error) {
      this.#fail(attempt, error instanceof UnsupportedProtocolError ? 'unsupported' : 'network');
      return;
    }
    if (this.#wantsToPlay) await this.#startPlayback(attempt);
  }

  /** Starts with sound where the browser allows it, else muted, else leaves it to the viewer. */
  async #startPlayback(attempt: number): Promise<void> {
    const { video, onAutoplayMuted } = this.#options;
    try {
      await video.play();
    } catch (error) {
      const isRefused = error instanceof DOMException && error.name === 'NotAllowedError';
      if (!isRefused || attempt !== this.#attempt) return;
      if (video.muted) {
        this.#pause();
        return;
      }
      video.muted = true;
      onAutoplayMuted();
      await this.#startPlayback(attempt);
    }
  }

  #disconnect(): void {
    this.#attempt += 1;
    this.#isConnecting = false;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = undefined;
    this.#movingSinceMs = undefined;
    const player = this.#player;
    this.#player = undefined;
    player?.close();
  }

  #fail(attempt: number, failure: PlaybackFailure): void {
    if (attempt !== this.#attempt) return;
    this.#noteDate();
    const hasHeld = Date.now() - this.#connectedAtMs > PROVEN_AFTER_MS;
    this.#disconnect();
    if (this.#source.kind === 'recording') {
      // At its end, and where there is none any more, live is what is left.
      const isOver = failure === 'not-found' || failure === 'ended';
      const startUnixMs = this.#dateUnixMs ?? this.#source.startUnixMs;
      this.#source = isOver ? { kind: 'live' } : { kind: 'recording', startUnixMs };
      this.#aimUnixMs = isOver ? undefined : startUnixMs;
    }
    this.#dispatch({ type: 'failed', failure });
    const { status, isOnAir } = this.#state;
    if (status.name === 'error' && status.cause === 'unsupported') return;
    // When the directory knows that the channel is off the air, it also tells when it is back.
    if (status.name === 'offline' && isOnAir === false) return;
    // The server is well, and every moment is one without a picture.
    if (failure === 'media' && hasHeld && status.name === 'waiting') this.#reconnectNow();
    else this.#scheduleRetry();
  }

  #scheduleRetry(): void {
    if (!this.#wantsToPlay) return;
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined;
      void this.#connect();
    }, this.#backoff.nextDelayMs());
  }

  #reconnectNow(): void {
    if (this.#wantsToPlay) void this.#connect();
  }

  /** Connects to another source, playing or paused as before. */
  #open(source: PlaybackSource): void {
    this.#source = source;
    this.#aimUnixMs = source.kind === 'recording' ? source.startUnixMs : undefined;
    this.#dispatch({ type: 'moved' });
    this.#backoff.reset();
    void this.#connect();
  }

  #noteDate(): void {
    this.#dateUnixMs = this.readDateUnixMs();
  }

  /** Neither connected nor about to be. */
  #isIdle(): boolean {
    return this.#player === undefined && this.#retryTimer === undefined && !this.#isConnecting;
  }

  #pause(): void {
    this.#noteDate();
    this.#wantsToPlay = false;
    this.#pausedAtMs = Date.now();
    this.#options.video.pause();
    this.#dispatch({ type: 'paused' });
  }

  #resume(): void {
    this.#wantsToPlay = true;
    this.#pausedAtMs = undefined;
    this.#connectedAtMs = Date.now();
    this.#dispatch({ type: 'resumed' });
    if (this.#resumeWhereItWas()) return;
    if (this.#player === undefined) this.#reconnectNow();
    else void this.#startPlayback(this.#attempt);
  }

  /** @returns true when that takes a connection of its own */
  #resumeWhereItWas(): boolean {
    const extent = this.#options.readExtent();
    const dateUnixMs = this.#aimUnixMs ?? this.#dateUnixMs;
    if (extent === undefined || dateUnixMs === undefined) return false;
    if (extent.liveUnixMs - dateUnixMs < NEAREST_REWIND_MS || this.#player?.seekTo(dateUnixMs) === true)
      return false;
    this.#open({ kind: 'recording', startUnixMs: Math.max(dateUnixMs, extent.fromUnixMs) });
    return true;
  }

  #onTimeUpdate(): void {
    const { video } = this.#options;
    const hasAdvanced = video.currentTime > this.#lastTime;
    this.#lastTime = video.currentTime;
    if (!hasAdvanced || video.paused || video.seeking || this.#player === undefined) return;
    const nowMs = Date.now();
    this.#advancedAtMs = nowMs;
    this.#aimUnixMs = undefined;
    this.#movingSinceMs ??= nowMs;
    if (nowMs - this.#movingSinceMs > PROVEN_AFTER_MS) this.#backoff.reset();
    this.#dispatch({ type: 'advanced' });
  }

  #onWaiting(): void {
    this.#movingSinceMs = undefined;
    if (!this.#options.video.seeking) this.#dispatch({ type: 'ran-dry' });
  }

  /** The viewer may also play and pause by media keys or in the picture-in-picture window. */
  #onPlay(): void {
    if (!this.#wantsToPlay) this.#resume();
  }

  #onPause(): void {
    const { video } = this.#options;
    // Libraries pause the element when they let go of it, and browsers when they cannot decode: not the viewer's wish.
    const isOfItself = !video.paused || video.ended || video.error !== null;
    if (isOfItself || this.#player === undefined || !this.#wantsToPlay) return;
    this.#pause();
  }

  #watch(): void {
    const nowMs = Date.now();
    if (this.#player === undefined) return;
    for (const [kind, option] of this.#chosen) {
      const choice = this.#player.readChoice(kind);
      if (choice?.options.includes(option) && choice.chosen !== option) this.#player.choose(kind, option);
    }
    if (!this.#wantsToPlay) {
      if (this.#pausedAtMs !== undefined && nowMs - this.#pausedAtMs > RELEASE_AFTER_PAUSE_MS) {
        this.#disconnect();
      }
      return;
    }
    const stillSinceMs = Math.max(this.#connectedAtMs, this.#advancedAtMs);
    if (nowMs - stillSinceMs > STARVED_AFTER_MS) this.#fail(this.#attempt, 'starved');
  }

  #dispatch(event: PlayerEvent): void {
    const next = nextPlayerState(this.#state, event);
    if (next === this.#state) return;
    this.#state = next;
    // Off the air for certain: a connection would only play the last seconds again.
    if (next.status.name === 'offline' && next.isOnAir === false) this.#disconnect();
    for (const listener of this.#listeners) listener();
  }
}
