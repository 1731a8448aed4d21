import mpegts from 'mpegts.js';
import { BitrateMeter } from './bitrate-meter.ts';
import {
  beyondGap,
  type MediaPlayer,
  type OpenMediaPlayer,
  resumeEarly,
  UnsupportedProtocolError,
  withoutChoice,
} from './media-player.ts';
import type { PlaybackFailure } from './player-state.ts';

/** Media in the buffer. From the timeline to the screen it is about 0.05 s more (e2e/low-latency.test.ts). */
const TARGET_LATENCY_S = 0.55;
/** With more in the buffer than this, playback goes faster until the target is reached. */
const MAX_LATENCY_S = 0.7;
/** Further behind than this, playing faster would take too long, so playback jumps. */
const JUMP_LATENCY_S = 6;
const GAP_WATCH_INTERVAL_MS = 40;
const STATISTICS_INTERVAL_MS = 1_000;
const BITRATE_WINDOW_S = 8;

mpegts.LoggingControl.applyConfig({ enableDebug: false, enableVerbose: false, enableInfo: false });

/** HTTP-FLV through mpegts.js and Media Source Extensions: the least delay, the least buffer. */
export const openFlvPlayer: OpenMediaPlayer = (video, url, onFailure): MediaPlayer => {
  if (!mpegts.getFeatureList().mseLivePlayback) throw new UnsupportedProtocolError('HTTP-FLV');
  const bitrate = new BitrateMeter(BITRATE_WINDOW_S);
  const player = mpegts.createPlayer(
    { type: 'flv', isLive: true, url },
    {
      // Its default would tell the address of the page, which may hold a viewing token.
      referrerPolicy: 'no-referrer',
      enableStashBuffer: false,
      lazyLoad: false,
      deferLoadAfterSourceOpen: false,
      liveSync: true,
      liveSyncTargetLatency: TARGET_LATENCY_S,
      liveSyncMaxLatency: MAX_LATENCY_S,
      liveSyncPlaybackRate: 1.15,
      autoCleanupSourceBuffer: true,
      autoCleanupMaxBackwardDuration: 40,
      autoCleanupMinBackwardDuration: 30,
      statisticsInfoReportInterval: STATISTICS_INTERVAL_MS,
    },
  );

  // mpegts.js is still inside its own call when it tells of an end; closing it there would break it.
  const failLater = (failure: PlaybackFailure) => queueMicrotask(() => onFailure(failure));
  player.on(mpegts.Events.ERROR, (type: unknown, detail: unknown, info: unknown) =>
    failLater(classifyFlvError(type, detail, info)),
  );
  player.on(mpegts.Events.LOADING_COMPLETE, () => failLater('ended'));
  player.on(mpegts.Events.STATISTICS_INFO, (info: unknown) => {
    const kilobytesPerSecond = numberField(info, 'speed');
    if (kilobytesPerSecond !== undefined) {
      bitrate.add(kilobytesPerSecond * 1024 * (STATISTICS_INTERVAL_MS / 1000), STATISTICS_INTERVAL_MS / 1000);
    }
  });

  const newestEnd = () =>
    video.buffered.length === 0 ? undefined : video.buffered.end(video.buffered.length - 1);
  const readLatencySeconds = () => {
    const end = newestEnd();
    return end === undefined ? undefined : end - video.currentTime;
  };
  const goLive = () => {
    const end = newestEnd();
    if (end !== undefined) video.currentTime = Math.max(video.currentTime, end - TARGET_LATENCY_S);
  };
  const keepUp = () => {
    if (video.paused) return;
    if ((readLatencySeconds() ?? 0) > JUMP_LATENCY_S) goLive();
  };
  video.addEventListener('progress', keepUp);
  // Where the codec configuration changes, mpegts.js gives the last picture before it to the new decoder, which drops
  // it; and where the server skipped media for a slow viewer, more is missing.
  let watchedTime = 0;
  const gapTimer = setInterval(() => {
    const to = video.seeking ? undefined : beyondGap(video.buffered, watchedTime, video.currentTime);
    if (to !== undefined && !video.paused) video.currentTime = to;
    watchedTime = video.currentTime;
  }, GAP_WATCH_INTERVAL_MS);

  const closing = new AbortController();
  // mpegts.js would notice when it next appends. Where the picture that it kept back at a change of the codec configuration
  // is a key frame, the browser gives it to the new decoder, which cannot decode it.
  video.addEventListener('error', () => failLater('media'), { signal: closing.signal });
  resumeEarly(video, closing.signal);

  player.attachMediaElement(video);
  player.load();

  return {
    ...withoutChoice,
    protocolName: 'HTTP-FLV',
    goLive,
    readBehindLiveSeconds: () => Math.max(0, (readLatencySeconds() ?? 0) - MAX_LATENCY_S),
    // A timestamp of FLV has no date, and the buffer reaches back a few seconds only.
    readDateUnixMs: () => undefined,
    seekTo: () => false,
    readStats() {
      return {
        latencySeconds: readLatencySeconds(),
        wallClockDelaySeconds: undefined,
        bitrateBps: bitrate.read(),
        frameRate: numberField(player.mediaInfo, 'fps'),
        codecs: codecNames(player.mediaInfo),
      };
    },
    close() {
      closing.abort();
      clearInterval(gapTimer);
      video.removeEventListener('progress', keepUp);
      player.destroy();
    },
  };
};

function classifyFlvError(type: unknown, detail: unknown, info: unknown): PlaybackFailure {
  if (type !== mpegts.ErrorTypes.NETWORK_ERROR) return 'media';
  const isNotFound =
    detail === mpegts.ErrorDetails.NETWORK_STATUS_CODE_INVALID && numberField(info, 'code') === 404;
  return isNotFound ? 'not-found' : 'network';
}

function codecNames(mediaInfo: unknown): string | undefined {
  const known = ['videoCodec', 'audioCodec']
    .map((key) => ownValue(mediaInfo, key))
    .filter((codec) => typeof codec === 'string' && codec !== '');
  return known.length === 0 ? undefined : known.join(', ');
}

function numberField(value: unknown, key: string): number | undefined {
  const found = ownValue(value, key);
  return typeof found === 'number' && Number.isFinite(found) && found >= 0 ? found : undefined;
}

function ownValue(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return Object.getOwnPropertyDescriptor(value, key)?.value;
}
