import { useId } from 'react';
import { Link } from 'react-router';
import { type PublicChannel, useChannels, withToken } from './api.ts';
import { formatNextStart, formatProgrammeTimes, formatTimeLeft, programmeProgress } from './format.ts';
import { useNowMs, usePageTitle } from './page.ts';
import { Poster } from './poster.tsx';
import { Thumbnail } from './thumbnail.tsx';
import { useViewingToken } from './viewing-token.ts';

export function ChannelGridPage() {
  usePageTitle('Channels');
  const channels = useChannels();
  const onAirCount = channels.data?.filter((channel) => channel.isOnAir).length;
  return (
    <div className="page">
      <div className="page-heading">
        <h1>Channels</h1>
        {onAirCount !== undefined && channels.data?.length !== 0 && (
          <p className="muted">{onAirCount === 1 ? '1 on the air' : `${onAirCount} on the air`}</p>
        )}
      </div>
      {channels.isError && <DirectoryTrouble hasOldData={channels.data !== undefined} />}
      {channels.isPending && <LoadingCards />}
      {channels.data?.length === 0 && <NoChannels />}
      {channels.data !== undefined && channels.data.length > 0 && <ChannelGrid channels={channels.data} />}
    </div>
  );
}

/** @param isCompact small cards, where the grid is not what the page is about */
export function ChannelGrid(props: { channels: readonly PublicChannel[]; isCompact?: boolean }) {
  const { channels, isCompact = false } = props;
  const nowMs = useNowMs(1_000);
  return (
    // Few channels get large cards, so that a network of one does not look lost.
    <ul className="channel-grid" data-size={isCompact ? 'compact' : gridSize(channels.length)}>
      {channels.map((channel) => (
        <li key={channel.name}>
          <ChannelCard channel={channel} nowMs={nowMs} />
        </li>
      ))}
    </ul>
  );
}

function gridSize(channelCount: number): 'one' | 'two' | 'many' {
  if (channelCount === 1) return 'one';
  return channelCount === 2 ? 'two' : 'many';
}

function ChannelCard({ channel, nowMs }: { channel: PublicChannel; nowMs: number }) {
  const summaryId = useId();
  const viewingToken = useViewingToken();
  const token = channel.isPrivate ? viewingToken : undefined;
  return (
    <article className="card" data-on-air={channel.isOnAir}>
      <div className="card-picture">
        <Poster name={channel.name} title={channel.title} />
        {channel.isOnAir && <Thumbnail channelName={channel.name} token={token} />}
      </div>
      <div className="card-text">
        <div className="card-title">
          <h2>
            <Link to={withToken(`/watch/${channel.name}`, token)} aria-describedby={summaryId}>
              {channel.title}
            </Link>
          </h2>
          {channel.isPrivate && <PrivateBadge />}
          <OnAirBadge isOnAir={channel.isOnAir} />
        </div>
        <div id={summaryId}>
          <NowAndNext channel={channel} nowMs={nowMs} />
        </div>
      </div>
    </article>
  );
}

export function OnAirBadge({ isOnAir }: { isOnAir: boolean }) {
  return (
    <span className="badge" data-on-air={isOnAir}>
      {isOnAir ? 'On air' : 'Off air'}
    </span>
  );
}

export function PrivateBadge() {
  return <span className="badge">Private</span>;
}

/** What is on, how far it is, and what follows. */
export function NowAndNext({ channel, nowMs }: { channel: PublicChannel; nowMs: number }) {
  const { now, next } = channel;
  return (
    <div className="now-next">
      {now === null ? (
        <p className="now-title">{nothingScheduledWords(channel)}</p>
      ) : (
        <>
          <p className="now-title">{now.title}</p>
          <ProgrammeProgress label={`Progress of ${now.title}`} progress={programmeProgress(now, nowMs)} />
          <p className="times">
            <span>{formatProgrammeTimes(now)}</span>
            <span>{formatTimeLeft(now, nowMs)}</span>
          </p>
        </>
      )}
      {next !== null && (
        <p className="next-title">
          <span className="muted">Next</span> {formatNextStart(next.startsAt, now)} {next.title}
        </p>
      )}
    </div>
  );
}

/** What to say of a channel without a programme. */
export function nothingScheduledWords(channel: PublicChannel): string {
  if (channel.source === 'slate') return 'Back soon';
  if (channel.source === 'primary' || channel.source === 'backup') return 'Live now';
  if (channel.kind === 'live') return channel.isOnAir ? 'Live now' : 'Nobody is broadcasting now';
  return channel.isOnAir ? 'Between programmes' : 'Nothing on now';
}

export function ProgrammeProgress({ label, progress }: { label: string; progress: number }) {
  const percent = Math.round(progress * 100);
  return <progress className="progress" aria-label={label} max={100} value={percent} />;
}

/** The list could not be had just now. It is asked for again by itself. */
export function DirectoryTrouble({ hasOldData }: { hasOldData: boolean }) {
  return (
    <p className="trouble" role="status">
      {hasOldData
        ? 'The list of channels cannot be reached just now; this is how it was. Trying again.'
        : 'The list of channels cannot be reached. Trying again.'}
    </p>
  );
}

export function NoChannels() {
  return (
    <div className="notice">
      <h2>No channels yet</h2>
      <p>
        Add a live channel, and give the server address and the key that it prints to OBS or another encoder:
      </p>
      <pre>
        <code>npx starling stream add NAME</code>
      </pre>
      <p>Or put files on the air around the clock:</p>
      <pre>
        <code>{'npx starling media import FILE\nnpx starling channel add NAME --loop ASSET'}</code>
      </pre>
      <p className="muted">The channel shows up here by itself.</p>
    </div>
  );
}

function LoadingCards() {
  return (
    <>
      <p className="visually-hidden" role="status">
        Loading the channels
      </p>
      <div className="channel-grid" data-size="many" aria-hidden="true">
        {['first', 'second', 'third'].map((key) => (
          <div key={key} className="card card-loading" />
        ))}
      </div>
    </>
  );
}
