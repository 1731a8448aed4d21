import { Link } from 'react-router';
import { type PublicChannel, useChannels, withToken } from './api.ts';
import {
  DirectoryTrouble,
  NoChannels,
  nothingScheduledWords,
  OnAirBadge,
  ProgrammeProgress,
} from './channel-grid.tsx';
import {
  formatClock,
  formatNextStart,
  formatProgrammeTimes,
  formatTimeLeft,
  programmeProgress,
} from './format.ts';
import { useNowMs, usePageTitle } from './page.ts';
import { useViewingToken } from './viewing-token.ts';

/** What is on and what follows, for every channel. */
export function GuidePage() {
  usePageTitle('Guide');
  const channels = useChannels();
  const nowMs = useNowMs(1_000);
  return (
    <div className="page">
      <div className="page-heading">
        <h1>Guide</h1>
        <p className="muted">{formatClock(nowMs)}</p>
      </div>
      {channels.isError && <DirectoryTrouble hasOldData={channels.data !== undefined} />}
      {channels.isPending && <p role="status">Loading the guide</p>}
      {channels.data?.length === 0 && <NoChannels />}
      {channels.data !== undefined && channels.data.length > 0 && (
        <table className="guide">
          <thead>
            <tr>
              <th scope="col">Channel</th>
              <th scope="col">Now</th>
              <th scope="col">Next</th>
            </tr>
          </thead>
          <tbody>
            {channels.data.map((channel) => (
              <GuideRow key={channel.name} channel={channel} nowMs={nowMs} />
            ))}
          </tbody>
        </table>
      )}
    </div>
  );
}

function GuideRow({ channel, nowMs }: { channel: PublicChannel; nowMs: number }) {
  const { now, next } = channel;
  const token = useViewingToken();
  return (
    <tr data-on-air={channel.isOnAir}>
      <th scope="row">
        <Link to={withToken(`/watch/${channel.name}`, channel.isPrivate ? token : undefined)}>
          {channel.title}
        </Link>
        <OnAirBadge isOnAir={channel.isOnAir} />
      </th>
      <td className="guide-now">
        {now === null ? (
          <p className="muted">{nothingScheduledWords(channel)}</p>
        ) : (
          <>
            <p className="guide-programme">{now.title}</p>
            <ProgrammeProgress label={`Progress of ${now.title}`} progress={programmeProgress(now, nowMs)} />
            <p className="times">
              <span>{formatProgrammeTimes(now)}</span>
              <span>{formatTimeLeft(now, nowMs)}</span>
            </p>
          </>
        )}
      </td>
      <td className="guide-next" data-label="Next">
        {next === null ? (
          <p className="muted">No schedule</p>
        ) : (
          <>
            <p className="guide-programme">{next.title}</p>
            <p className="times">from {formatNextStart(next.startsAt, now)}</p>
          </>
        )}
      </td>
    </tr>
  );
}
