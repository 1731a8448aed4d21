import { useEffect, useRef, useState } from 'react';
import { formatBitrate, formatFrameRate, formatSeconds } from '../format.ts';
import { CloseIcon } from '../icons.tsx';
import type { SessionStats } from './player-session.ts';

/** Samples in the curve: a minute, at two a second. */
const HISTORY_LENGTH = 120;

/** Where the stream comes from, how far behind it is, and how well it plays. */
export function StatsPanel({ stats, onClose }: { stats: SessionStats; onClose: () => void }) {
  const frameRate = useMeasuredFrameRate(stats);
  const history = useHistory(stats);
  const rows: readonly [label: string, value: string][] = [
    ['Protocol', stats.protocolName ?? '–'],
    ['Behind the live edge', formatSeconds(stats.latencySeconds)],
    ['Behind the clock', formatSeconds(stats.wallClockDelaySeconds)],
    ['Resolution', stats.widthPx === 0 ? '–' : `${stats.widthPx} × ${stats.heightPx}`],
    ['Frame rate', formatFrameRate(stats.frameRate ?? frameRate)],
    ['Bit rate', formatBitrate(stats.bitrateBps)],
    ['Buffer', formatSeconds(stats.bufferSeconds)],
    ['Speed', `${stats.playbackRate.toFixed(2)} ×`],
    ['Dropped frames', `${stats.droppedFrameCount} of ${stats.frameCount}`],
    ['Stalls', String(stats.stallCount)],
    ['Codecs', stats.codecs ?? '–'],
  ];
  return (
    <section className="stats" aria-label="Stream details">
      <div className="stats-heading">
        <h2>Stream details</h2>
        <button type="button" className="control" onClick={onClose} aria-label="Close stream details">
          <CloseIcon />
        </button>
      </div>
      <dl>
        {rows.map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <Curve values={history} />
    </section>
  );
}

/** The buffer over the last minute, the newest on the right. */
function Curve({ values }: { values: readonly number[] }) {
  const top = Math.max(2, ...values);
  const points = values
    .map((value, index) => {
      const x = 240 - (values.length - 1 - index) * (240 / (HISTORY_LENGTH - 1));
      return `${x.toFixed(1)},${(34 - (value / top) * 32).toFixed(1)}`;
    })
    .join(' ');
  return (
    <figure className="stats-curve">
      <svg viewBox="0 0 240 36" preserveAspectRatio="none" aria-hidden="true">
        <polyline points={points} />
      </svg>
      <figcaption>Buffer over the last minute, up to {formatSeconds(top)}</figcaption>
    </figure>
  );
}

function useHistory(stats: SessionStats): readonly number[] {
  const [history, setHistory] = useState<readonly number[]>([]);
  useEffect(() => {
    setHistory((before) => [...before, stats.bufferSeconds].slice(-HISTORY_LENGTH));
  }, [stats]);
  return history;
}

/** Frames shown per second over about the last five seconds, for streams that do not say it. */
function useMeasuredFrameRate(stats: SessionStats): number | undefined {
  const samples = useRef<{ atMs: number; frameCount: number }[]>([]);
  const [frameRate, setFrameRate] = useState<number>();
  useEffect(() => {
    const newest = { atMs: performance.now(), frameCount: stats.frameCount };
    samples.current = [...samples.current, newest].slice(-10);
    const oldest = samples.current[0];
    if (oldest === undefined || newest.atMs - oldest.atMs < 2_000) return;
    const frames = newest.frameCount - oldest.frameCount;
    setFrameRate(frames < 0 ? undefined : Math.round((frames * 1_000) / (newest.atMs - oldest.atMs)));
  }, [stats]);
  return frameRate;
}
