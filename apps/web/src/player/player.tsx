import { type RefObject, useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { mediaPaths } from '../api.ts';
import { PlayIcon, SoundIcon } from '../icons.tsx';
import { recall, remember } from '../remembered.ts';
import { ControlBar } from './control-bar.tsx';
import { HelpDialog } from './help-dialog.tsx';
import { actionForKey, describeFocus, type PlayerAction } from './keyboard.ts';
import { loadMediaPlayer } from './load-media-player.ts';
import type { Choice, PlaybackSource, Protocol } from './media-player.ts';
import { PlayerSession, type SessionStats } from './player-session.ts';
import { initialPlayerState, type PlayerStatus } from './player-state.ts';
import { type RewindExtent, RewindWindow } from './rewind-window.ts';
import { StatsPanel } from './stats-panel.tsx';
import { statusWords } from './status-words.ts';

const VOLUME_STEP = 0.1;
const SEEK_STEP_S = 10;
const REWIND_REFRESH_MS = 10_000;
/** Programmes that began this short a time ago need no button to start over. */
const MIN_STARTED_MS = 15_000;
const STATS_INTERVAL_MS = 500;
const CONTROLS_HIDE_AFTER_MS = 3_000;
const ANNOUNCEMENT_MS = 1_500;
/** Less than this is what playback makes up for by itself. */
const BEHIND_LIVE_S = 3;

interface PlayerProps {
  readonly channelName: string;
  readonly title: string;
  /** Opens a private channel. */
  readonly token: string | undefined;
  /** What the directory says; undefined while it cannot be reached. */
  readonly isOnAir: boolean | undefined;
  readonly protocol: Protocol;
  /** Of the programme that is on, in milliseconds since 1970; undefined where the guide does not know it. */
  readonly programmeStartUnixMs: number | undefined;
  readonly onStatusChange: (status: PlayerStatus['name']) => void;
}

export function Player(props: PlayerProps) {
  const { channelName, token, title, isOnAir, protocol, programmeStartUnixMs, onStatusChange } = props;
  const rootRef = useRef<HTMLElement>(null);
  const videoRef = useRef<HTMLVideoElement>(null);
  const [isMutedForAutoplay, setMutedForAutoplay] = useState(false);
  const sound = useSound(videoRef);
  const readExtent = useRewindWindow(channelName, token);
  const onAutoplayMuted = () => setMutedForAutoplay(true);
  const session = useSession(videoRef, channelName, token, protocol, readExtent, onAutoplayMuted);
  const state = useSyncExternalStore(
    session?.subscribe ?? subscribeToNothing,
    session?.getState ?? getInitialState,
  );
  const { stats, behindLiveSeconds, dateUnixMs, extent, quality, spoken, refresh } = useSessionStats(
    session,
    readExtent,
  );
  const isFullscreen = useFullscreen(rootRef);
  const [showsStats, setShowsStats] = useState(() => recall('showsStats') === 'yes');
  const [isHelpOpen, setHelpOpen] = useState(false);
  const [hasShortcuts, setHasShortcuts] = useState(() => recall('hasShortcuts') !== 'no');
  const [announcement, announce] = useAnnouncement();
  const status = state.status;
  const isIdle = useIdle(rootRef, status.name === 'playing');

  useEffect(() => session?.setOnAir(isOnAir), [session, isOnAir]);
  useEffect(() => onStatusChange(status.name), [onStatusChange, status.name]);

  const canStartOver =
    extent !== undefined &&
    programmeStartUnixMs !== undefined &&
    extent.liveUnixMs - programmeStartUnixMs > MIN_STARTED_MS;

  const act = (action: PlayerAction) => {
    const video = videoRef.current;
    const root = rootRef.current;
    if (session === undefined || video === null || root === null) return;
    switch (action) {
      case 'toggle-play':
        session.togglePlay();
        return;
      case 'toggle-mute':
        setMutedForAutoplay(false);
        announce(sound.toggleMute());
        return;
      case 'volume-up':
        setMutedForAutoplay(false);
        announce(sound.changeBy(VOLUME_STEP));
        return;
      case 'volume-down':
        announce(sound.changeBy(-VOLUME_STEP));
        return;
      case 'seek-back':
      case 'seek-forward':
        if (extent === undefined) return;
        session.seekBy(action === 'seek-back' ? -SEEK_STEP_S : SEEK_STEP_S);
        announce(action === 'seek-back' ? '10 seconds back' : '10 seconds forward');
        return;
      case 'start-over':
        if (!canStartOver || programmeStartUnixMs === undefined) return;
        session.seekTo(programmeStartUnixMs);
        announce('From the start');
        return;
      case 'go-live':
        session.goLive();
        announce('Live');
        return;
      case 'toggle-fullscreen':
        void toggleFullscreen(root, video);
        return;
      case 'toggle-picture-in-picture':
        void togglePictureInPicture(video);
        return;
      case 'toggle-stats':
        remember('showsStats', showsStats ? undefined : 'yes');
        setShowsStats(!showsStats);
        return;
      case 'toggle-help':
        setHelpOpen(!isHelpOpen);
        return;
    }
  };

  useKeys(rootRef, hasShortcuts && !isHelpOpen, act);

  const changeHasShortcuts = (next: boolean) => {
    remember('hasShortcuts', next ? undefined : 'no');
    setHasShortcuts(next);
  };

  const words = statusWords(state);
  const isBehind = behindLiveSeconds > BEHIND_LIVE_S;
  return (
    <section
      ref={rootRef}
      className="player"
      aria-label={`Player: ${title}`}
      data-testid="player-state"
      data-state={status.name}
      data-idle={isIdle}
      data-fullscreen={isFullscreen}
    >
      <div className="player-screen">
        <video
          ref={videoRef}
          muted={sound.isMuted}
          playsInline
          aria-label={title}
          onVolumeChange={sound.readFromVideo}
          onDoubleClick={() => act('toggle-fullscreen')}
          onPointerUp={(event) => {
            // While it plays, a finger only brings the controls up; a mouse has them already.
            const isMouse = event.pointerType === 'mouse';
            if (event.button === 0 && (isMouse || status.name === 'paused')) act('toggle-play');
          }}
        />
        {words !== undefined && (
          <div className="player-words" data-urgent={status.name === 'offline' || status.name === 'error'}>
            {status.name === 'waiting' && <span className="spinner" />}
            <p className="player-words-title">{words.title}</p>
            {words.detail !== undefined && <p>{words.detail}</p>}
            {status.name === 'error' && status.cause === 'media' && (
              <button type="button" className="button" onClick={() => session?.retryNow()}>
                Try again
              </button>
            )}
          </div>
        )}
        {status.name === 'paused' && (
          // A picture of a button: the click goes to the video, and the control bar has the real one.
          <span className="big-play" aria-hidden="true">
            <PlayIcon />
          </span>
        )}
        {isMutedForAutoplay && sound.isMuted && status.name === 'playing' && (
          <button type="button" className="unmute" onClick={() => act('toggle-mute')}>
            <SoundIcon /> Unmute
          </button>
        )}
        {announcement !== '' && (
          <p className="announcement" aria-hidden="true">
            {announcement}
          </p>
        )}
        <ControlBar
          hasMedia={status.name !== 'offline' && status.name !== 'error'}
          isPaused={status.name === 'paused'}
          isLive={status.name === 'playing' && !isBehind}
          isBehind={isBehind}
          latencySeconds={stats?.latencySeconds}
          extent={extent}
          dateUnixMs={dateUnixMs}
          canStartOver={canStartOver}
          isMuted={sound.isMuted}
          volume={sound.volume}
          isFullscreen={isFullscreen}
          showsStats={showsStats}
          quality={quality}
          spoken={spoken}
          onChoice={(kind, option) => {
            session?.choose(kind, option);
            refresh(); // the menu shows what was chosen at once
          }}
          act={act}
          onVolume={(volume) => {
            setMutedForAutoplay(false);
            sound.set(volume);
          }}
          onSeek={(seekUnixMs) => session?.seekTo(seekUnixMs)}
          onSeekBy={(seconds) => session?.seekBy(seconds)}
        />
      </div>
      {showsStats && stats !== undefined && <StatsPanel stats={stats} onClose={() => act('toggle-stats')} />}
      <p className="visually-hidden" role="status">
        {announcement === '' ? spokenStatus(status, words?.title) : announcement}
      </p>
      {isHelpOpen && (
        <HelpDialog
          hasShortcuts={hasShortcuts}
          onHasShortcuts={changeHasShortcuts}
          onClose={() => setHelpOpen(false)}
        />
      )}
    </section>
  );
}

function spokenStatus(status: PlayerStatus, words: string | undefined): string {
  if (status.name === 'playing') return 'Playing';
  if (status.name === 'paused') return 'Paused';
  return words ?? '';
}

function useSession(
  videoRef: RefObject<HTMLVideoElement | null>,
  channelName: string,
  token: string | undefined,
  protocol: Protocol,
  readExtent: () => RewindExtent | undefined,
  onAutoplayMuted: () => void,
): PlayerSession | undefined {
  const [session, setSession] = useState<PlayerSession>();
  const onAutoplayMutedRef = useRef(onAutoplayMuted);
  useEffect(() => {
    const video = videoRef.current;
    if (video === null) return;
    const paths = mediaPaths(channelName, token);
    const addressOf = (source: PlaybackSource) => {
      // mpegts.js takes only whole addresses.
      const url = new URL(source.kind === 'live' ? paths[protocol] : paths.dvr, location.href);
      if (source.kind !== 'live') url.searchParams.set('start', String(source.startUnixMs / 1000));
      return url.href;
    };
    const opened = new PlayerSession({
      video,
      loadPlayer: async (source) => {
        // A recording is HLS, however the channel is watched live.
        const openPlayer = await loadMediaPlayer(source.kind === 'live' ? protocol : 'hls');
        return (onFailure) => openPlayer(video, addressOf(source), onFailure);
      },
      readExtent,
      onAutoplayMuted: () => onAutoplayMutedRef.current(),
      random: Math.random,
    });
    setSession(opened);
    return () => opened.close();
  }, [videoRef, channelName, token, protocol, readExtent]);
  return session;
}

/** Asks the server now and then how far back the channel can be rewound. @returns reads the last answer */
function useRewindWindow(channelName: string, token: string | undefined): () => RewindExtent | undefined {
  const [rewindWindow] = useState(() => new RewindWindow(() => performance.now()));
  useEffect(() => {
    rewindWindow.hear(undefined);
    const abort = new AbortController();
    const refresh = async () => {
      const signal = AbortSignal.any([abort.signal, AbortSignal.timeout(REWIND_REFRESH_MS)]);
      try {
        const response = await fetch(mediaPaths(channelName, token).dvrExtent, { signal });
        rewindWindow.hear(response.ok ? await response.json() : undefined);
      } catch {
        // What was heard before goes on to hold for a while.
      }
    };
    void refresh();
    const timer = setInterval(refresh, REWIND_REFRESH_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [channelName, token, rewindWindow]);
  return rewindWindow.read;
}

interface SessionReading {
  readonly stats: SessionStats | undefined;
  readonly behindLiveSeconds: number;
  readonly dateUnixMs: number | undefined;
  readonly extent: RewindExtent | undefined;
  readonly quality: Choice | undefined;
  /** Which of the sounds, mostly languages. */
  readonly spoken: Choice | undefined;
}

function useSessionStats(session: PlayerSession | undefined, readExtent: () => RewindExtent | undefined) {
  const [reading, setReading] = useState<SessionReading>({
    stats: undefined,
    behindLiveSeconds: 0,
    dateUnixMs: undefined,
    extent: undefined,
    quality: undefined,
    spoken: undefined,
  });
  const refresh = useCallback(() => {
    if (session === undefined) return;
    setReading({
      stats: session.readStats(),
      behindLiveSeconds: session.readBehindLiveSeconds(),
      dateUnixMs: session.readDateUnixMs(),
      extent: readExtent(),
      quality: session.readChoice('quality'),
      spoken: session.readChoice('sound'),
    });
  }, [session, readExtent]);
  useEffect(() => {
    const timer = setInterval(refresh, STATS_INTERVAL_MS);
    return () => clearInterval(timer);
  }, [refresh]);
  return { ...reading, refresh };
}

/** The video's sound as the controls show it. What the viewer chose is remembered for the next visit. */
function useSound(videoRef: RefObject<HTMLVideoElement | null>) {
  const [volume, setVolume] = useState(rememberedVolume);
  const [isMuted, setMuted] = useState(() => recall('isMuted') === 'yes');

  useEffect(() => {
    // Before the session starts playback: whether there is sound decides whether that is allowed.
    if (videoRef.current !== null) videoRef.current.volume = rememberedVolume();
  }, [videoRef]);

  const apply = (nextVolume: number, nextMuted: boolean): string => {
    const video = videoRef.current;
    if (video === null) return '';
    video.volume = nextVolume;
    video.muted = nextMuted;
    remember('volume', String(nextVolume));
    remember('isMuted', nextMuted ? 'yes' : undefined);
    return nextMuted ? 'Sound off' : `Volume ${Math.round(nextVolume * 100)} %`;
  };
  return {
    volume,
    isMuted,
    readFromVideo: () => {
      const video = videoRef.current;
      if (video === null) return;
      setVolume(video.volume);
      setMuted(video.muted);
    },
    /** @returns words that say what is now so */
    toggleMute: () => apply(volume === 0 && !isMuted ? 0 : Math.max(volume, VOLUME_STEP), !isMuted),
    changeBy: (step: number) => {
      const next = Math.min(1, Math.max(0, Math.round((volume + step) * 20) / 20));
      return apply(next, next === 0 || (isMuted && step < 0));
    },
    set: (next: number) => apply(next, next === 0),
  };
}

function rememberedVolume(): number {
  const volume = Number(recall('volume') ?? 1);
  return volume >= 0 && volume <= 1 ? volume : 1;
}

function useFullscreen(rootRef: RefObject<HTMLElement | null>): boolean {
  const [isFullscreen, setFullscreen] = useState(false);
  useEffect(() => {
    const onChange = () => setFullscreen(document.fullscreenElement === rootRef.current);
    document.addEventListener('fullscreenchange', onChange);
    return () => document.removeEventListener('fullscreenchange', onChange);
  }, [rootRef]);
  return isFullscreen;
}

/** Whether the viewer has neither moved nor typed for a while, so that the controls may go. */
function useIdle(rootRef: RefObject<HTMLElement | null>, mayIdle: boolean): boolean {
  const [isIdle, setIdle] = useState(false);
  useEffect(() => {
    const root = rootRef.current;
    if (root === null || !mayIdle) {
      setIdle(false);
      return;
    }
    let timer: ReturnType<typeof setTimeout>;
    const wake = () => {
      setIdle(false);
      clearTimeout(timer);
      timer = setTimeout(() => setIdle(true), CONTROLS_HIDE_AFTER_MS);
    };
    wake();
    const events = ['pointermove', 'pointerdown', 'keydown', 'focusin'];
    for (const event of events) root.addEventListener(event, wake);
    return () => {
      clearTimeout(timer);
      for (const event of events) root.removeEventListener(event, wake);
    };
  }, [rootRef, mayIdle]);
  return isIdle;
}

/** Words that are shown and spoken for a moment. */
function useAnnouncement(): [string, (words: string) => void] {
  const [words, setWords] = useState('');
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const announce = useCallback((next: string) => {
    clearTimeout(timer.current);
    setWords(next);
    timer.current = setTimeout(() => setWords(''), ANNOUNCEMENT_MS);
  }, []);
  return [words, announce];
}

function useKeys(
  rootRef: RefObject<HTMLElement | null>,
  isEnabled: boolean,
  act: (action: PlayerAction) => void,
): void {
  useEffect(() => {
    if (!isEnabled) return;
    const onKeyDown = (event: KeyboardEvent) => {
      if (rootRef.current === null || event.defaultPrevented) return;
      const action = actionForKey(event, describeFocus(document.activeElement, rootRef.current));
      if (action === undefined) return;
      event.preventDefault();
      act(action);
    };
    document.addEventListener('keydown', onKeyDown);
    return () => document.removeEventListener('keydown', onKeyDown);
  });
}

async function toggleFullscreen(root: HTMLElement, video: HTMLVideoElement): Promise<void> {
  try {
    if (document.fullscreenElement !== null) await document.exitFullscreen();
    else if (document.fullscreenEnabled) await root.requestFullscreen();
    // iPhones fill the screen with the video alone.
    else if ('webkitEnterFullscreen' in video && typeof video.webkitEnterFullscreen === 'function') {
      video.webkitEnterFullscreen();
    }
  } catch {
    // Refused by the browser or by the page that embeds this one.
  }
}

async function togglePictureInPicture(video: HTMLVideoElement): Promise<void> {
  try {
    if (document.pictureInPictureElement !== null) await document.exitPictureInPicture();
    else if (document.pictureInPictureEnabled) await video.requestPictureInPicture();
  } catch {
    // Refused, for instance because there is no picture yet.
  }
}

const subscribeToNothing = () => () => {};
const getInitialState = () => initialPlayerState;
