import type { PlayerState } from './player-state.ts';

export interface StatusWords {
  readonly title: string;
  readonly detail?: string;
}

/** What is written over the picture; undefined while there is nothing to explain. */
export function statusWords({ status, isOnAir }: PlayerState): StatusWords | undefined {
  switch (status.name) {
    case 'playing':
    case 'paused':
      return undefined;
    case 'offline':
      return { title: 'Off the air', detail: 'This page starts playing by itself when it is back.' };
    case 'error':
      return status.cause === 'unsupported'
        ? {
            title: 'This browser cannot play this channel',
            detail: 'Copy its address into VLC or another player, or open this page in another browser.',
          }
        : {
            title: 'The picture cannot be decoded here',
            detail: 'The other kind of delivery may work, or another browser.',
          };
    case 'waiting':
      switch (status.reason) {
        case 'connecting':
          return { title: 'Connecting' };
        case 'buffering':
          return { title: 'Waiting for the picture' };
        case 'reconnecting':
          return isOnAir === true
            ? {
                title: 'The channel is about to play',
                detail: 'Its stream does not answer yet. Trying again.',
              }
            : { title: 'The connection is lost', detail: 'Trying again until it is back.' };
      }
  }
}
