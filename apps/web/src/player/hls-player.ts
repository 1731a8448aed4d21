import Hls, {
  type ErrorData,
  ErrorTypes,
  Events,
  type FragBufferedData,
  type HlsConfig,
  type Level,
  type LevelDetails,
  type LoaderResponse,
  type LoadPolicy,
  type RetryConfig,
} from 'hls.js';
import { BitrateMeter } from './bitrate-meter.ts';
import {
  AUTOMATIC_QUALITY,
  type Choice,
  type ChoiceKind,
  type MediaPlayer,
  type OpenMediaPlayer,
  resumeEarly,
  UnsupportedProtocolError,
  wallClockDelay,
} from './media-player.ts';
import type { PlaybackFailure } from './player-state.ts';

const BITRATE_WINDOW_S = 12;
/** Nobody sees a move that is shorter, but for the pause that it makes. */
const SAME_PLACE_S = 0.2;
/** The oldest media of the playlist may be gone before it is loaded. */
const OLDEST_MEDIA_MARGIN_S = 6;

/** HLS through hls.js and Media Source Extensions. */
export const openHlsPlayer: OpenMediaPlayer = (video, url, onFailure): MediaPlayer => {
  if (!Hls.isSupported()) throw new UnsupportedProtocolError('HLS');
  const hls = new Hls(createHlsConfig(Math.random));
  const bitrate = new BitrateMeter(BITRATE_WINDOW_S);
  let hasRecoveredMedia = false;

  hls.on(Events.ERROR, (_event, data) => {
    if (!data.fatal) return;
    if (data.type === ErrorTypes.MEDIA_ERROR && !hasRecoveredMedia) {
      hasRecoveredMedia = true;
      hls.recoverMediaError();
      return;
    }
    onFailure(classifyHlsError(data));
  });
  hls.on(Events.FRAG_BUFFERED, (_event, data) => addToBitrate(bitrate, data));
  // Before the first picture hls.js moves to where it starts, wherever the video was moved meanwhile.
  let hasPicture = false;
  const onLoadedData = () => {
    hasPicture = true;
  };
  video.addEventListener('loadeddata', onLoadedData, { once: true });
  const closing = new AbortController();
  resumeEarly(video, closing.signal);
  hls.loadSource(url);
  hls.attachMedia(video);

  const readBehindLiveSeconds = () =>
    hls.liveSyncPosition === null ? 0 : Math.max(0, hls.liveSyncPosition - video.currentTime);

  return {
    protocolName: 'HLS',
    goLive() {
      if (hls.liveSyncPosition !== null) video.currentTime = hls.liveSyncPosition;
    },
    readBehindLiveSeconds,
    readDateUnixMs: () => dateAt(hls.latestLevelDetails, video.currentTime),
    seekTo(dateUnixMs) {
      const position = positionOf(hls.latestLevelDetails, dateUnixMs);
      if (!hasPicture || position === undefined || position > (hls.liveSyncPosition ?? 0)) return false;
      if (Math.abs(position - video.currentTime) > SAME_PLACE_S) video.currentTime = position;
      return true;
    },
    readStats() {
      const level = hls.levels[hls.currentLevel];
      return {
        latencySeconds: hls.latestLevelDetails === null ? undefined : hls.latency,
        wallClockDelaySeconds: wallClockDelay(hls.playingDate, Date.now()),
        bitrateBps: bitrate.read(),
        frameRate: level !== undefined && level.frameRate > 0 ? level.frameRate : undefined,
        codecs: level === undefined ? undefined : codecNames(level.videoCodec, level.audioCodec),
      };
    },
    readChoice(kind) {
      const options = [...optionsOf(hls, kind).keys()];
      if (options.length < 2) return undefined;
      return { options, chosen: chosenOf(hls, kind) };
    },
    choose(kind, option) {
      const index = optionsOf(hls, kind).get(option);
      if (index === undefined) return;
      if (kind === 'sound') hls.audioTrack = index;
      else hls.nextLevel = index; // what is loaded of the old one is played to its end
    },
    close() {
      closing.abort();
      video.removeEventListener('loadeddata', onLoadedData);
      hls.destroy();
    },
  };
};

type DatedFragment = Pick<LevelDetails['fragments'][number], 'start' | 'duration' | 'programDateTime'>;

/** The wall-clock time of a position, in milliseconds since 1970; undefined where the playlist does not reach. */
export function dateAt(
  details: { readonly fragments: readonly DatedFragment[] } | null,
  position: number,
): number | undefined {
  const fragment = details?.fragments.find(({ start, duration }) => position < start + duration);
  if (fragment === undefined || fragment.programDateTime === null || position < fragment.start - 1)
    return undefined;
  return fragment.programDateTime + (position - fragment.start) * 1000;
}

/** The position of a wall-clock time; undefined where the playlist has none, or not for long. */
export function positionOf(
  details: { readonly fragments: readonly DatedFragment[] } | null,
  dateUnixMs: number,
): number | undefined {
  const fragment = details?.fragments.find(
    ({ duration, programDateTime }) =>
      programDateTime !== null && dateUnixMs < programDateTime + duration * 1000,
  );
  const oldest = details?.fragments[0];
  if (fragment === undefined || oldest === undefined || fragment.programDateTime === null) return undefined;
  // Between two stretches of a recording there may be none: then the later one is next.
  const position = fragment.start + Math.max(0, dateUnixMs - fragment.programDateTime) / 1000;
  return position < oldest.start + OLDEST_MEDIA_MARGIN_S ? undefined : position;
}

/** What hls.js calls by a number, by the name that it has for viewers. */
function optionsOf(hls: Hls, kind: ChoiceKind): ReadonlyMap<string, number> {
  if (kind === 'sound') return new Map(hls.audioTracks.map(({ name }, index) => [name, index]));
  if (hls.levels.length < 2) return new Map();
  // From the best on; one of each name, since a picture may come with sounds in several codecs.
  const levels = hls.levels.map((level, index) => [qualityName(level), index] as const).reverse();
  return new Map([[AUTOMATIC_QUALITY, -1], ...levels]);
}

function chosenOf(hls: Hls, kind: ChoiceKind): Choice['chosen'] {
  if (kind === 'sound') return hls.audioTracks[hls.audioTrack]?.name ?? '';
  const level = hls.levels[hls.manualLevel]; // -1 when it chooses itself
  return level === undefined ? AUTOMATIC_QUALITY : qualityName(level);
}

/** "720p", "720p50"; the bit rate where there is no picture. */
export function qualityName(level: Pick<Level, 'height' | 'frameRate' | 'bitrate'>): string {
  if (level.height === 0) return `${Math.round(level.bitrate / 1000)} kb/s`;
  return `${level.height}p${level.frameRate > 31 ? Math.round(level.frameRate) : ''}`;
}

/**
 * The settings of hls.js for live channels.
 *
 * `liveSyncDurationCount` keeps its default of 3 segments by not being set: a value set here, even
 * the same one, would overrule the HOLD-BACK and PART-HOLD-BACK of the playlist (hls.js 1.7
 * `LatencyController.targetLatency`), and with them the latency that the server asks for: 1.2 s
 * behind the newest part (docs/decisions/005-part-target.md).
 *
 * `maxLiveSyncPlaybackRate` lets playback catch up; hls.js does not by itself. After a start up to a
 * segment too early that takes 20 s, and 10 % faster is not heard.
 * @param random a number from 0 to 1, 1 excluded; spreads the retries of many viewers
 */
export function createHlsConfig(random: () => number): Partial<HlsConfig> {
  return {
    lowLatencyMode: true,
    maxLiveSyncPlaybackRate: 1.1,
    // After each stall the target grows by this, up to a target duration. The 1 s of hls.js would put
    // a viewer beyond 2 s for good after one hiccup.
    liveSyncOnStallIncrease: 0.4,
    backBufferLength: 30,
    // Of a recording hls.js would load ten minutes ahead, which a viewer who seeks on never sees.
    maxMaxBufferLength: 60,
    // A missing channel has to be told from a slow one at once, so the first playlist is asked for
    // once, and the session decides when to ask again.
    manifestLoadPolicy: loadPolicy(10_000, 0, random),
    playlistLoadPolicy: loadPolicy(10_000, 12, random),
    fragLoadPolicy: loadPolicy(20_000, 12, random),
  };
}

function loadPolicy(maxLoadTimeMs: number, maxNumRetry: number, random: () => number): LoadPolicy {
  const retry: RetryConfig = {
    maxNumRetry,
    retryDelayMs: 500 + random() * 500,
    maxRetryDelayMs: 3_000 + random() * 1_000,
    backoff: 'exponential',
    shouldRetry,
  };
  return {
    default: { maxTimeToFirstByteMs: maxLoadTimeMs, maxLoadTimeMs, timeoutRetry: retry, errorRetry: retry },
  };
}

/** Also retries a refused connection (status 0), which hls.js takes for a CORS error and gives up on. */
function shouldRetry(
  retryConfig: RetryConfig | null | undefined,
  retryCount: number,
  isTimeout: boolean,
  response: LoaderResponse | undefined,
): boolean {
  if (!retryConfig || retryCount >= retryConfig.maxNumRetry) return false;
  const status = response?.code;
  return isTimeout || status === 0 || (status !== undefined && status >= 500);
}

function classifyHlsError(data: ErrorData): PlaybackFailure {
  if (data.type !== ErrorTypes.NETWORK_ERROR) return 'media';
  // Only a playlist stands for the channel: a segment may just have left the window.
  return data.response?.code === 404 && data.frag === undefined ? 'not-found' : 'network';
}

function addToBitrate(bitrate: BitrateMeter, { frag, part, stats }: FragBufferedData): void {
  if (frag.sn === 'initSegment') return;
  bitrate.add(stats.total, part === null ? frag.duration : part.duration);
}

function codecNames(...codecs: (string | undefined)[]): string | undefined {
  const known = codecs.filter((codec) => codec !== undefined && codec !== '');
  return known.length === 0 ? undefined : known.join(', ');
}
