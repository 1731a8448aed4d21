import { useState } from 'react';
import { Link } from 'react-router';
import { type GuideProgramme, type PublicChannel, useChannels, useGuide, withToken } from './api.ts';
import { DirectoryTrouble, NoChannels, nothingScheduledWords, OnAirBadge } from './channel-grid.tsx';
import { formatClock, formatDay, formatProgrammeTimes, placeInSpan } from './format.ts';
import { useNowMs, usePageTitle } from './page.ts';
import { useViewingToken } from './viewing-token.ts';

const HOUR_MS = 3_600_000;
const SPAN_HOURS = 3;
/** The page begins at a full half hour. */
const GRID_MS = HOUR_MS / 2;
/** Narrower than this, in hundredths of the span, a programme has no room for its words. */
const MIN_WORDS_PERCENT = 3;

interface Span {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** The programmes of all channels, side by side on one scale of time. */
export function GuidePage() {
  usePageTitle('Guide');
  const nowMs = useNowMs(1_000);
  const [turnedHours, setTurnedHours] = useState(0);
  const fromMs = Math.floor(nowMs / GRID_MS) * GRID_MS + turnedHours * HOUR_MS;
  const span = { fromMs, untilMs: fromMs + SPAN_HOURS * HOUR_MS };
  const channels = useChannels();
  const guide = useGuide(fromMs, SPAN_HOURS);
  const byName = new Map(guide.data?.map(({ name, programmes }) => [name, programmes]));
  const isTroubled = channels.isError || guide.isError;

  return (
    <div className="page">
      <div className="page-heading">
        <h1>Guide</h1>
        <p className="muted">
          {formatDay(span.fromMs)}, {formatClock(span.fromMs)} to {formatClock(span.untilMs)}
        </p>
        <fieldset className="guide-turn">
          <legend className="visually-hidden">Time shown</legend>
          <button type="button" onClick={() => setTurnedHours(turnedHours - SPAN_HOURS)}>
            Earlier
          </button>
          <button type="button" disabled={turnedHours === 0} onClick={() => setTurnedHours(0)}>
            Now
          </button>
          <button type="button" onClick={() => setTurnedHours(turnedHours + SPAN_HOURS)}>
            Later
          </button>
        </fieldset>
      </div>
      {isTroubled && <DirectoryTrouble hasOldData={channels.data !== undefined} />}
      {channels.isPending && <p role="status">Loading the guide</p>}
      {channels.data?.length === 0 && <NoChannels />}
      {channels.data !== undefined && channels.data.length > 0 && (
        <div className="guide">
          <Scale span={span} />
          {channels.data
            .toSorted((a, b) => a.number - b.number)
            .map((channel) => (
              <GuideRow
                key={channel.name}
                channel={channel}
                programmes={byName.get(channel.name) ?? []}
                span={span}
                nowMs={nowMs}
              />
            ))}
        </div>
      )}
    </div>
  );
}

/** The half hours above the programmes. They are in the programmes' words, too. */
function Scale({ span }: { span: Span }) {
  const times = Array.from(
    { length: (span.untilMs - span.fromMs) / GRID_MS },
    (_, i) => span.fromMs + i * GRID_MS,
  );
  return (
    <div className="guide-scale" aria-hidden="true">
      {times.map((timeMs) => (
        <span key={timeMs}>{formatClock(timeMs)}</span>
      ))}
    </div>
  );
}

function GuideRow(props: {
  channel: PublicChannel;
  programmes: readonly GuideProgramme[];
  span: Span;
  nowMs: number;
}) {
  const { channel, programmes, span, nowMs } = props;
  const token = useViewingToken();
  const headingId = `guide-${channel.name}`;
  const placed = programmes.flatMap((programme) => {
    const place = placeInSpan(programme, span);
    return place === undefined ? [] : [{ programme, place }];
  });
  return (
    <section className="guide-row" aria-labelledby={headingId}>
      <div className="guide-channel">
        <h2 id={headingId}>
          <span className="guide-number">{channel.number}</span>{' '}
          <Link
            className="guide-link"
            to={withToken(`/watch/${channel.name}`, channel.isPrivate ? token : undefined)}
          >
            {channel.title}
          </Link>
        </h2>
        <OnAirBadge isOnAir={channel.isOnAir} />
      </div>
      {placed.length === 0 ? (
        <p className="guide-empty muted">{nothingScheduledWords(channel)}</p>
      ) : (
        <ol className="guide-programmes">
          {placed.map(({ programme, place }) => {
            const isOn = Date.parse(programme.startsAt) <= nowMs && nowMs < Date.parse(programme.endsAt);
            const words = `${formatProgrammeTimes(programme)} ${programme.title}`;
            return (
              <li
                key={programme.startsAt}
                className="guide-programme"
                data-now={isOn}
                data-tiny={place.widthPercent < MIN_WORDS_PERCENT}
                style={{ left: `${place.startPercent}%`, width: `${place.widthPercent}%` }}
                title={programme.description === undefined ? words : `${words}\n${programme.description}`}
              >
                <p className="guide-title">{programme.title}</p>
                <p className="times">
                  {formatProgrammeTimes(programme)}
                  {programme.category !== undefined && ` · ${programme.category}`}
                </p>
              </li>
            );
          })}
          <NowLine span={span} nowMs={nowMs} />
        </ol>
      )}
    </section>
  );
}

/** Where the present is on the scale. */
function NowLine({ span, nowMs }: { span: Span; nowMs: number }) {
  if (nowMs < span.fromMs || nowMs >= span.untilMs) return null;
  const percent = ((nowMs - span.fromMs) * 100) / (span.untilMs - span.fromMs);
  return <li className="guide-now-line" aria-hidden="true" style={{ left: `${percent}%` }} />;
}
