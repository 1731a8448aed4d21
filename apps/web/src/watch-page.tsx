import { useEffect, useState } from 'react';
import { Link, useParams, useSearchParams } from 'react-router';
import {
  ChannelNotFoundError,
  type PublicChannel,
  TokenRefusedError,
  useChannel,
  useChannels,
} from './api.ts';
import { ChannelGrid, NowAndNext, OnAirBadge, PrivateBadge } from './channel-grid.tsx';
import { CopyAddresses } from './copy-addresses.tsx';
import { useNowMs, usePageTitle } from './page.ts';
import type { Protocol } from './player/media-player.ts';
import { Player } from './player/player.tsx';
import type { PlayerStatus } from './player/player-state.ts';
import { recall, remember } from './remembered.ts';
import { useViewingToken } from './viewing-token.ts';

const REFRESH_WHILE_PLAYING_MS = 10_000;
/** Who waits for a channel to come back shall not wait much longer than it takes. */
const REFRESH_WHILE_WAITING_MS = 3_000;

export function WatchPage() {
  const { channel: name = '' } = useParams();
  const token = useViewingToken();
  const [status, setStatus] = useState<PlayerStatus['name']>('waiting');
  const channel = useChannel(
    name,
    status === 'playing' ? REFRESH_WHILE_PLAYING_MS : REFRESH_WHILE_WAITING_MS,
  );
  const [protocol, setProtocol] = useProtocol();
  const title = channel.data?.title ?? name;
  usePageTitle(title);

  if (channel.error instanceof ChannelNotFoundError) return <ChannelNotFound name={name} />;
  if (channel.error instanceof TokenRefusedError) return <TokenRefused reason={channel.error.message} />;
  return (
    <div className="page watch">
      <Player
        key={name}
        channelName={name}
        // Whether the channel is private is not known at first, and a public one does not mind.
        token={token}
        title={title}
        // A directory that does not answer says nothing about the channel.
        isOnAir={channel.isError ? undefined : channel.data?.isOnAir}
        protocol={protocol}
        programmeStartUnixMs={startOf(channel.data?.now)}
        onStatusChange={setStatus}
      />
      <div className="watch-about">
        <div className="watch-title">
          <div className="card-title">
            <h1>{title}</h1>
            {channel.data?.isPrivate && <PrivateBadge />}
            {channel.data !== undefined && <OnAirBadge isOnAir={channel.data.isOnAir} />}
          </div>
          {channel.data !== undefined && <NowOnChannel channel={channel.data} />}
        </div>
        <div className="watch-options">
          <ProtocolChoice protocol={protocol} onProtocol={setProtocol} />
          <CopyAddresses channelName={name} token={channel.data?.isPrivate ? token : undefined} />
        </div>
      </div>
      <OtherChannels name={name} />
    </div>
  );
}

function startOf(programme: PublicChannel['now'] | undefined): number | undefined {
  return programme ? Date.parse(programme.startsAt) : undefined;
}

function NowOnChannel({ channel }: { channel: PublicChannel }) {
  return (
    <>
      <p className="muted">{channel.viewerCount} watching</p>
      <NowAndNext channel={channel} nowMs={useNowMs(1_000)} />
    </>
  );
}

const protocolLabels: readonly {
  readonly protocol: Protocol;
  readonly label: string;
  readonly hint: string;
}[] = [
  { protocol: 'hls', label: 'HLS', hint: 'Steady, plays everywhere' },
  { protocol: 'flv', label: 'Low delay', hint: 'About a second behind, by FLV' },
];

function ProtocolChoice(props: { protocol: Protocol; onProtocol: (protocol: Protocol) => void }) {
  return (
    <fieldset className="segmented">
      <legend className="visually-hidden">Delivery</legend>
      {protocolLabels.map(({ protocol, label, hint }) => (
        <label key={protocol} title={hint}>
          <input
            type="radio"
            name="protocol"
            value={protocol}
            checked={props.protocol === protocol}
            onChange={() => props.onProtocol(protocol)}
          />
          <span>{label}</span>
        </label>
      ))}
    </fieldset>
  );
}

function OtherChannels({ name }: { name: string }) {
  const others = useChannels().data?.filter((channel) => channel.name !== name) ?? [];
  if (others.length === 0) return null;
  return (
    <section className="more" aria-labelledby="more-channels">
      <h2 id="more-channels">More channels</h2>
      <ChannelGrid channels={others} isCompact />
    </section>
  );
}

function ChannelNotFound({ name }: { name: string }) {
  return (
    <div className="page notice">
      <h1>There is no channel “{name}”</h1>
      <p>The name may have a typing error, or the channel was taken down. If it is added, it starts here.</p>
      <p>A private channel opens with the whole address that you were given, token included.</p>
      <Link className="button button-primary" to="/">
        See all channels
      </Link>
    </div>
  );
}

function TokenRefused({ reason }: { reason: string }) {
  usePageTitle('No admission');
  return (
    <div className="page notice">
      <h1>This address does not open the channel</h1>
      <p>{reason}</p>
      <Link className="button button-primary" to="/">
        See all channels
      </Link>
    </div>
  );
}

/**
 * The protocol: what the viewer chose on this page, else what the address says (`?via=flv`), else
 * what this browser used last, else HLS. The address follows.
 */
function useProtocol(): [Protocol, (protocol: Protocol) => void] {
  const [search, setSearch] = useSearchParams();
  const [chosen, setChosen] = useState<Protocol>();
  const via = search.get('via');
  const remembered = recall('protocol') === 'flv' ? 'flv' : 'hls';
  const protocol: Protocol = chosen ?? (via === 'hls' || via === 'flv' ? via : remembered);

  useEffect(() => {
    const shown = via === 'flv' ? 'flv' : 'hls';
    if (shown === protocol) return;
    setSearch(
      (before) => {
        const after = new URLSearchParams(before);
        if (protocol === 'hls') after.delete('via');
        else after.set('via', protocol);
        return after;
      },
      { replace: true },
    );
  }, [via, protocol, setSearch]);

  return [
    protocol,
    (next) => {
      remember('protocol', next === 'hls' ? undefined : next);
      setChosen(next);
    },
  ];
}
