/** What every way of playing a channel offers, whatever the protocol and the library behind it. */
import type { PlaybackFailure } from './player-state.ts';

/** One connection to a channel's media, feeding one video element. */
export interface MediaPlayer {
  /** "HLS", "HTTP-FLV": what the read-out calls it. */
  readonly protocolName: string;
  /** Moves to the newest position that can be played without running dry. */
  goLive(): void;
  /** How far playback is behind the position that {@link goLive} would move to, in seconds. */
  readBehindLiveSeconds(): number;
  /** Wall-clock time of what is on the screen, from the stream; undefined where it does not say so. */
  readDateUnixMs(): number | undefined;
  /**
   * Moves to another time.
   * @returns false when it is not in this player's media
   */
  seekTo(dateUnixMs: number): boolean;
  readStats(): MediaStats;
  /** Undefined where there is none. */
  readChoice(kind: ChoiceKind): Choice | undefined;
  /** Does nothing when there is no such option. */
  choose(kind: ChoiceKind, option: string): void;
  /** Ends the connection and lets go of the video element. */
  close(): void;
}

/** Renditions of one channel that a viewer chooses among. */
export type ChoiceKind = 'quality' | 'sound';

/** Two options or more, as they are called. */
export interface Choice {
  readonly options: readonly string[];
  readonly chosen: string;
}

/** The quality is whatever the connection carries. */
export const AUTOMATIC_QUALITY = 'Auto';

/** For players that are given one rendition, or choose by themselves. */
export const withoutChoice: Pick<MediaPlayer, 'readChoice' | 'choose'> = {
  readChoice: () => undefined,
  choose() {},
};

/** What only the library knows; undefined where it does not. */
export interface MediaStats {
  /** From the newest media that the server offers to what is on the screen. */
  readonly latencySeconds: number | undefined;
  /** From the programme date-time of what is on the screen to this computer's clock. */
  readonly wallClockDelaySeconds: number | undefined;
  /** Measured over the last seconds. */
  readonly bitrateBps: number | undefined;
  readonly frameRate: number | undefined;
  /** RFC 6381 codec strings. */
  readonly codecs: string | undefined;
}

/** This browser lacks what the protocol needs. */
export class UnsupportedProtocolError extends Error {}

/**
 * Connects. After `onFailure` the player is of no more use and is to be closed. Playback itself is
 * started by the caller.
 * @throws UnsupportedProtocolError
 */
export type OpenMediaPlayer = (
  video: HTMLVideoElement,
  url: string,
  onFailure: (failure: PlaybackFailure) => void,
) => MediaPlayer;

/** What is played: the channel as it is now, or the recording of it from some time on. */
export type PlaybackSource =
  | { readonly kind: 'live' }
  | { readonly kind: 'recording'; readonly startUnixMs: number };

/** How a channel can be delivered. */
export type Protocol = 'hls' | 'flv';

/** A clock that is off by more than this says nothing about the delay. */
const MAX_PLAUSIBLE_DELAY_S = 3_600;

/** Playback that ran dry goes on with so much in the buffer; Chromium begins with 0.2 s. */
const RESUME_S = 0.5;
const RESUME_INTERVAL_MS = 100;
/** How long a seek has to make playback go on. */
const RESUME_AGAIN_MS = 1000;

/** Nearer to a gap than this, playback is moved: before the picture stands still. */
const GAP_MARGIN_S = 0.06;

/** The time from `playingDate` to `nowMs`, unless this computer's clock is evidently wrong. */
export function wallClockDelay(playingDate: Date | null, nowMs: number): number | undefined {
  if (playingDate === null) return undefined;
  const delaySeconds = (nowMs - playingDate.getTime()) / 1000;
  return delaySeconds > 0 && delaySeconds < MAX_PLAUSIBLE_DELAY_S ? delaySeconds : undefined;
}

/** The end of the buffered range that playback is in, or undefined when it is in none. */
export function bufferedEnd(buffered: TimeRanges, currentTime: number): number | undefined {
  for (let index = 0; index < buffered.length; index += 1) {
    // The edges of appended media differ from the position by a fraction of a frame.
    if (buffered.start(index) <= currentTime + 0.1 && currentTime <= buffered.end(index)) {
      return buffered.end(index);
    }
  }
  return undefined;
}

/**
 * Where playback has to be moved to when on its way between two positions it has come to a gap, or has passed one;
 * undefined where there was none. Over a small gap the clock and the sound run on, but Chromium's decoder waits at its
 * beginning for the missing pictures, however much there is after it, until playback is moved.
 */
export function beyondGap(buffered: TimeRanges, from: number, to: number): number | undefined {
  for (let index = 0; index < buffered.length; index += 1) {
    const gapEnd = buffered.start(index);
    // The edges of appended media differ from the position by a fraction of a frame, so the first gap is a larger one.
    const hasReached = index === 0 ? to < gapEnd - 0.1 : buffered.end(index - 1) <= to + GAP_MARGIN_S;
    if (from < gapEnd && hasReached) return Math.max(to, gapEnd + 0.001);
  }
  return undefined;
}

/** What {@link resumeEarly} needs of a video element. */
export type StallingVideo = Pick<
  HTMLVideoElement,
  'paused' | 'seeking' | 'readyState' | 'buffered' | 'currentTime' | 'addEventListener'
>;

/**
 * Has playback that ran dry go on as soon as there is something to play. Each time that it runs dry Chromium asks for twice
 * as much as before, up to 3 s of sound (its AudioRendererAlgorithm, IncreasePlaybackThreshold), which a live stream takes
 * 3 s to bring. Seeking makes it forget, and where playback stands it moves nothing.
 */
export function resumeEarly(video: StallingVideo, signal: AbortSignal): void {
  let timer: ReturnType<typeof setInterval> | undefined;
  let soughtAtMs = Number.NEGATIVE_INFINITY;
  const stop = () => {
    clearInterval(timer);
    timer = undefined;
  };
  const look = () => {
    if (video.paused || video.readyState > 2) return stop(); // HAVE_FUTURE_DATA: it goes on by itself
    const end = bufferedEnd(video.buffered, video.currentTime);
    const isPlayable = end !== undefined && end - video.currentTime >= RESUME_S;
    if (video.seeking || !isPlayable || Date.now() - soughtAtMs < RESUME_AGAIN_MS) return;
    soughtAtMs = Date.now();
    video.currentTime += 0.001;
  };
  video.addEventListener('waiting', () => (timer ??= setInterval(look, RESUME_INTERVAL_MS)), { signal });
  signal.addEventListener('abort', stop);
}
