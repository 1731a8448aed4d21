import {
  type MediaPlayer,
  type OpenMediaPlayer,
  UnsupportedProtocolError,
  wallClockDelay,
  withoutChoice,
} from './media-player.ts';

/** Safari keeps this much between the newest media and what it plays by itself. */
const NATIVE_HOLD_BACK_S = 6;

/** HLS by the browser itself, for Safari on phones without Media Source Extensions. */
export const openNativeHlsPlayer: OpenMediaPlayer = (video, url, onFailure): MediaPlayer => {
  if (video.canPlayType('application/vnd.apple.mpegurl') === '') throw new UnsupportedProtocolError('HLS');
  const onError = () => {
    const isUndecodable = video.error?.code === MediaError.MEDIA_ERR_DECODE;
    onFailure(isUndecodable ? 'media' : 'network');
  };
  video.addEventListener('error', onError);
  video.src = url;

  const liveEdge = () =>
    video.seekable.length === 0 ? undefined : video.seekable.end(video.seekable.length - 1);
  const readBehindLiveSeconds = () => {
    const edge = liveEdge();
    return edge === undefined ? 0 : Math.max(0, edge - NATIVE_HOLD_BACK_S - video.currentTime);
  };

  return {
    ...withoutChoice,
    protocolName: 'HLS (by the browser)',
    goLive() {
      const edge = liveEdge();
      if (edge !== undefined) video.currentTime = edge - NATIVE_HOLD_BACK_S;
    },
    readBehindLiveSeconds,
    readDateUnixMs: () => playingDate(video)?.getTime(),
    seekTo(dateUnixMs) {
      const date = playingDate(video);
      const edge = liveEdge();
      if (date === null || edge === undefined) return false;
      const position = video.currentTime + (dateUnixMs - date.getTime()) / 1000;
      if (position < video.seekable.start(0) || position > edge - NATIVE_HOLD_BACK_S) return false;
      video.currentTime = position;
      return true;
    },
    readStats() {
      const edge = liveEdge();
      return {
        latencySeconds: edge === undefined ? undefined : edge - video.currentTime,
        wallClockDelaySeconds: wallClockDelay(playingDate(video), Date.now()),
        bitrateBps: undefined,
        frameRate: undefined,
        codecs: undefined,
      };
    },
    close() {
      video.removeEventListener('error', onError);
      video.removeAttribute('src');
      video.load();
    },
  };
};

/** Safari gives the programme date-time of position 0 by `getStartDate`. */
function playingDate(video: HTMLVideoElement): Date | null {
  if (!('getStartDate' in video) || typeof video.getStartDate !== 'function') return null;
  const startDate: unknown = video.getStartDate();
  if (!(startDate instanceof Date) || Number.isNaN(startDate.getTime())) return null;
  return new Date(startDate.getTime() + video.currentTime * 1000);
}
