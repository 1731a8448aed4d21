import type { OpenMediaPlayer, Protocol } from './media-player.ts';

/** Loads the code for a protocol, which is large and therefore not part of the page. */
export async function loadMediaPlayer(protocol: Protocol): Promise<OpenMediaPlayer> {
  if (protocol === 'flv') return (await import('./flv-player.ts')).openFlvPlayer;
  if ('MediaSource' in globalThis || 'ManagedMediaSource' in globalThis) {
    return (await import('./hls-player.ts')).openHlsPlayer;
  }
  return (await import('./native-hls-player.ts')).openNativeHlsPlayer;
}
