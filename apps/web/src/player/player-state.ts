/** What the player is doing, as one value that changes in one function. */

export type PlayerStatus =
  /** No media moves yet: the first connection, an empty buffer, or another attempt after a failure. */
  | { readonly name: 'waiting'; readonly reason: 'connecting' | 'buffering' | 'reconnecting' }
  | { readonly name: 'playing' }
  /** The viewer paused, or the browser refused to start by itself. */
  | { readonly name: 'paused' }
  | { readonly name: 'offline' }
  | { readonly name: 'error'; readonly cause: 'unsupported' | 'media' };

export interface PlayerState {
  readonly status: PlayerStatus;
  /** What the directory last said; undefined while it says nothing. */
  readonly isOnAir: boolean | undefined;
  /** Times that the picture froze for want of data. */
  readonly stallCount: number;
  /** Undecodable-media failures since media last moved. */
  readonly mediaFailureCount: number;
}

/** Why a connection to the media ended. */
export type PlaybackFailure =
  /** The server has no such stream now. */
  | 'not-found'
  /** No connection, a refusal, or a server fault. */
  | 'network'
  /** The server ended the stream. */
  | 'ended'
  /** Connected, but no media moved for too long. */
  | 'starved'
  /** The browser could not decode what came. */
  | 'media'
  /** This browser cannot play this protocol at all. */
  | 'unsupported';

export type PlayerEvent =
  | { readonly type: 'directory'; readonly isOnAir: boolean | undefined }
  /** The viewer asked for another attempt. */
  | { readonly type: 'retried' }
  | { readonly type: 'advanced' }
  /** The viewer went to another time, whose media is not there yet. */
  | { readonly type: 'moved' }
  | { readonly type: 'ran-dry' }
  | { readonly type: 'paused' }
  | { readonly type: 'resumed' }
  | { readonly type: 'failed'; readonly failure: PlaybackFailure };

/** Failures in a row after which the viewer is told that the media cannot be played. */
const MAX_MEDIA_FAILURES = 3;

export const initialPlayerState: PlayerState = {
  status: { name: 'waiting', reason: 'connecting' },
  isOnAir: undefined,
  stallCount: 0,
  mediaFailureCount: 0,
};

/**
 * The next state. Media that moves is the truth; the directory only decides what an absence of
 * media means, so a directory that is down or late takes nobody's picture away.
 *
 * | event        | waiting       | playing       | paused    | offline     | error               |
 * | ------------ | ------------- | ------------- | --------- | ----------- | ------------------- |
 * | directory: off | offline     | -             | -         | -           | offline (a)         |
 * | directory: on  | -           | -             | -         | reconnecting | -                  |
 * | retried      | connecting (b) | -            | -         | connecting (b) | connecting (b)   |
 * | advanced     | playing       | -             | playing   | playing     | playing             |
 * | moved        | buffering (b) | buffering (b) | -         | -           | connecting (b)      |
 * | ran-dry      | -             | buffering (b) | -         | -           | -                   |
 * | paused       | paused        | paused        | -         | -           | -                   |
 * | resumed      | -             | -             | buffering (b) | -       | -                   |
 * | failed       | reconnecting (b), offline when the stream is not found, error after three media failures |
 *
 * (a) not when the browser cannot play the protocol; (b) offline when the directory says off the air.
 */
export function nextPlayerState(state: PlayerState, event: PlayerEvent): PlayerState {
  const next = applyEvent(state, event);
  const isIdle =
    next.status.name === 'waiting' || (next.status.name === 'error' && next.status.cause === 'media');
  return next.isOnAir === false && isIdle ? { ...next, status: { name: 'offline' } } : next;
}

function applyEvent(state: PlayerState, event: PlayerEvent): PlayerState {
  const { status } = state;
  switch (event.type) {
    case 'directory': {
      const isBack = event.isOnAir === true && status.name === 'offline';
      if (event.isOnAir === state.isOnAir && !isBack) return state;
      return {
        ...state,
        isOnAir: event.isOnAir,
        status: isBack ? { name: 'waiting', reason: 'reconnecting' } : status,
      };
    }
    case 'retried':
      if (status.name === 'playing' || status.name === 'paused') return state;
      return { ...state, status: { name: 'waiting', reason: 'connecting' }, mediaFailureCount: 0 };
    case 'advanced':
      return status.name === 'playing'
        ? state
        : { ...state, status: { name: 'playing' }, mediaFailureCount: 0 };
    case 'moved':
      if (status.name === 'paused' || status.name === 'offline') return state;
      return {
        ...state,
        status: { name: 'waiting', reason: status.name === 'error' ? 'connecting' : 'buffering' },
        mediaFailureCount: status.name === 'error' ? 0 : state.mediaFailureCount,
      };
    case 'ran-dry':
      if (status.name !== 'playing') return state;
      return {
        ...state,
        status: { name: 'waiting', reason: 'buffering' },
        stallCount: state.stallCount + 1,
      };
    case 'paused':
      if (status.name !== 'playing' && status.name !== 'waiting') return state;
      return { ...state, status: { name: 'paused' } };
    case 'resumed':
      if (status.name !== 'paused') return state;
      return { ...state, status: { name: 'waiting', reason: 'buffering' } };
    case 'failed':
      return applyFailure(state, event.failure);
  }
}

function applyFailure(state: PlayerState, failure: PlaybackFailure): PlayerState {
  const mediaFailureCount = state.mediaFailureCount + (failure === 'media' ? 1 : 0);
  const next = { ...state, mediaFailureCount };
  if (failure === 'unsupported') return { ...next, status: { name: 'error', cause: 'unsupported' } };
  if (mediaFailureCount >= MAX_MEDIA_FAILURES) return { ...next, status: { name: 'error', cause: 'media' } };
  if (failure === 'not-found' && state.isOnAir !== true) return { ...next, status: { name: 'offline' } };
  if (state.status.name === 'paused' || state.status.name === 'offline') return next;
  return { ...next, status: { name: 'waiting', reason: 'reconnecting' } };
}
