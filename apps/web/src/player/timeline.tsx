import { type CSSProperties, useEffect, useRef, useState } from 'react';
import { formatBehind, formatClock, formatClockWithSeconds } from '../format.ts';
import type { RewindExtent } from './rewind-window.ts';

interface TimelineProps {
  readonly extent: RewindExtent;
  /** Of the picture on the screen; undefined while it is not known. */
  readonly dateUnixMs: number | undefined;
  readonly isLive: boolean;
  readonly onSeek: (dateUnixMs: number) => void;
  readonly onSeekBy: (seconds: number) => void;
}

/** What a slider's keys do by themselves is a second, or a tenth of hours: here they go as far as everywhere else. */
const keySteps: Readonly<Record<string, number>> = {
  ArrowLeft: -10,
  ArrowDown: -10,
  ArrowRight: 10,
  ArrowUp: 10,
  PageDown: -60,
  PageUp: 60,
};

/** The seek bar over all that can be rewound to. It counts in seconds behind live, so that it stands still while that moves. */
export function Timeline({ extent, dateUnixMs, isLive, onSeek, onSeekBy }: TimelineProps) {
  const inputRef = useRef<HTMLInputElement>(null);
  /** Where the thumb is held, before it is let go. */
  const [heldSeconds, setHeldSeconds] = useState<number>();
  /** Where it was let go, until the player says where it is. */
  const [sought, setSought] = useState<{ readonly seconds: number; readonly before: number | undefined }>();
  const lengthSeconds = Math.round((extent.liveUnixMs - extent.fromUnixMs) / 1000);
  const playingSeconds =
    isLive || dateUnixMs === undefined ? 0 : Math.min(0, Math.round((dateUnixMs - extent.liveUnixMs) / 1000));
  const soughtSeconds = sought?.before === dateUnixMs ? sought?.seconds : undefined;
  const atSeconds = Math.max(-lengthSeconds, heldSeconds ?? soughtSeconds ?? playingSeconds);
  const atUnixMs = extent.liveUnixMs + atSeconds * 1000;

  useEffect(() => {
    const input = inputRef.current;
    if (input === null) return;
    // React's onChange is the browser's "input": it comes all the while the thumb is moved.
    const onCommit = () => {
      setHeldSeconds(undefined);
      setSought({ seconds: input.valueAsNumber, before: dateUnixMs });
      onSeek(extent.liveUnixMs + input.valueAsNumber * 1000);
    };
    input.addEventListener('change', onCommit);
    return () => input.removeEventListener('change', onCommit);
  });

  const words = atSeconds === 0 ? 'Live' : `${formatBehind(-atSeconds)} behind live`;
  const place: CSSProperties & Record<'--place', string> = {
    '--place': String(1 + atSeconds / lengthSeconds),
  };
  return (
    <div className="timeline" style={place}>
      <span className="timeline-time">{formatClock(extent.fromUnixMs)}</span>
      <span className="timeline-track">
        <input
          ref={inputRef}
          type="range"
          min={-lengthSeconds}
          max={0}
          step={1}
          value={atSeconds}
          aria-label="Time"
          aria-valuetext={`${formatClockWithSeconds(atUnixMs)}, ${words}`}
          onChange={(event) => setHeldSeconds(event.currentTarget.valueAsNumber)}
          onKeyDown={(event) => {
            if (event.ctrlKey || event.altKey || event.metaKey) return;
            const step = keySteps[event.key];
            if (step === undefined && event.key !== 'Home' && event.key !== 'End') return;
            event.preventDefault();
            if (step !== undefined) onSeekBy(step);
            else onSeek(event.key === 'Home' ? extent.fromUnixMs : extent.liveUnixMs);
          }}
        />
        <span className="timeline-bubble" aria-hidden="true" data-held={heldSeconds !== undefined}>
          {atSeconds === 0 ? 'Live' : formatClockWithSeconds(atUnixMs)}
        </span>
      </span>
      <span className="timeline-time">{atSeconds === 0 ? 'Live' : `−${formatBehind(-atSeconds)}`}</span>
    </div>
  );
}
