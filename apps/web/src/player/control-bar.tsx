import type { ReactNode } from 'react';
import { formatSeconds } from '../format.ts';
import {
  ExitFullscreenIcon,
  FullscreenIcon,
  HelpIcon,
  MutedIcon,
  PauseIcon,
  PictureInPictureIcon,
  PlayIcon,
  SoundIcon,
  StartOverIcon,
  StatsIcon,
} from '../icons.tsx';
import { keyName, type PlayerAction, shortcuts } from './keyboard.ts';
import type { Choice, ChoiceKind } from './media-player.ts';
import type { RewindExtent } from './rewind-window.ts';
import { Timeline } from './timeline.tsx';

interface ControlBarProps {
  /** Neither off the air nor failed: there is something to pause and a live edge to be at. */
  readonly hasMedia: boolean;
  readonly isPaused: boolean;
  readonly isLive: boolean;
  readonly isBehind: boolean;
  readonly latencySeconds: number | undefined;
  /** Undefined where nothing can be rewound to. */
  readonly extent: RewindExtent | undefined;
  readonly dateUnixMs: number | undefined;
  /** There is more of the programme that is on than what is still to come. */
  readonly canStartOver: boolean;
  readonly isMuted: boolean;
  readonly volume: number;
  readonly isFullscreen: boolean;
  readonly showsStats: boolean;
  readonly quality: Choice | undefined;
  readonly spoken: Choice | undefined;
  readonly onChoice: (kind: ChoiceKind, option: string) => void;
  readonly act: (action: PlayerAction) => void;
  readonly onVolume: (volume: number) => void;
  readonly onSeek: (dateUnixMs: number) => void;
  readonly onSeekBy: (seconds: number) => void;
}

export function ControlBar(props: ControlBarProps) {
  const { act } = props;
  return (
    <fieldset className="controls" aria-label="Player controls">
      {props.hasMedia && props.extent !== undefined && (
        <Timeline
          extent={props.extent}
          dateUnixMs={props.dateUnixMs}
          isLive={!props.isBehind}
          onSeek={props.onSeek}
          onSeekBy={props.onSeekBy}
        />
      )}
      <ControlButton
        action="toggle-play"
        label={props.isPaused ? 'Play' : 'Pause'}
        isDisabled={!props.hasMedia}
        act={act}
      >
        {props.isPaused ? <PlayIcon /> : <PauseIcon />}
      </ControlButton>
      {props.hasMedia && props.canStartOver && (
        <ControlButton action="start-over" label="Start the programme over" act={act}>
          <StartOverIcon />
        </ControlButton>
      )}
      <ControlButton action="toggle-mute" label={props.isMuted ? 'Turn sound on' : 'Mute'} act={act}>
        {props.isMuted ? <MutedIcon /> : <SoundIcon />}
      </ControlButton>
      <input
        className="volume"
        type="range"
        min="0"
        max="100"
        step="5"
        aria-label="Volume"
        value={props.isMuted ? 0 : Math.round(props.volume * 100)}
        onChange={(event) => props.onVolume(event.currentTarget.valueAsNumber / 100)}
      />
      {props.hasMedia && props.isBehind && (
        <button type="button" className="live-pill live-pill-behind" onClick={() => act('go-live')}>
          Go live
        </button>
      )}
      {props.hasMedia && !props.isBehind && (
        <p className="live-pill" data-live={props.isLive}>
          Live
        </p>
      )}
      {props.hasMedia && !props.isBehind && props.latencySeconds !== undefined && (
        <p className="latency" title="Behind the newest picture that the server has">
          <span className="visually-hidden">Latency </span>
          {formatSeconds(props.latencySeconds)}
        </p>
      )}
      <span className="controls-gap" />
      <ChoiceMenu kind="sound" label="Sound" choice={props.spoken} onChoice={props.onChoice} />
      <ChoiceMenu kind="quality" label="Quality" choice={props.quality} onChoice={props.onChoice} />
      <ControlButton action="toggle-stats" label="Stream details" isPressed={props.showsStats} act={act}>
        <StatsIcon />
      </ControlButton>
      <ControlButton action="toggle-help" label="Keys" act={act}>
        <HelpIcon />
      </ControlButton>
      {document.pictureInPictureEnabled && (
        <ControlButton action="toggle-picture-in-picture" label="Picture in picture" act={act}>
          <PictureInPictureIcon />
        </ControlButton>
      )}
      <ControlButton
        action="toggle-fullscreen"
        label={props.isFullscreen ? 'Leave full screen' : 'Full screen'}
        act={act}
      >
        {props.isFullscreen ? <ExitFullscreenIcon /> : <FullscreenIcon />}
      </ControlButton>
    </fieldset>
  );
}

/** The system's own menu: it knows the keyboard, the screen reader and the small screen. */
function ChoiceMenu(props: {
  kind: ChoiceKind;
  label: string;
  choice: Choice | undefined;
  onChoice: (kind: ChoiceKind, option: string) => void;
}) {
  const { kind, label, choice, onChoice } = props;
  if (choice === undefined) return null;
  return (
    <select
      className="choice"
      aria-label={label}
      title={label}
      value={choice.chosen}
      onChange={(event) => onChoice(kind, event.currentTarget.value)}
    >
      {choice.options.map((option) => (
        <option key={option}>{option}</option>
      ))}
    </select>
  );
}

function ControlButton(props: {
  action: PlayerAction;
  label: string;
  isPressed?: boolean;
  isDisabled?: boolean;
  act: (action: PlayerAction) => void;
  children: ReactNode;
}) {
  const keys = shortcuts.find(({ action }) => action === props.action)?.keys ?? [];
  return (
    <button
      type="button"
      className="control"
      data-action={props.action}
      aria-label={props.label}
      aria-pressed={props.isPressed}
      aria-disabled={props.isDisabled}
      title={`${props.label} (${keys.map(keyName).join(', ')})`}
      onClick={() => props.act(props.action)}
    >
      {props.children}
    </button>
  );
}
