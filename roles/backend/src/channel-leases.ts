/** Which leases the channels need. */
import type { Channel, ChannelSources } from '@starling/model/entities';

interface LeasedChannel extends Pick<Channel, 'name' | 'kind' | 'redundancy'> {
  readonly sources: Pick<ChannelSources, 'primary' | 'backup'> | null;
}

/**
 * The name of the lease that each channel runs under. A stream comes in where the channel of its name runs; channels
 * that take it have one lease together, for the encoder publishes to one backend.
 */
export function leaseNames(channels: readonly LeasedChannel[]): (channel: string) => string {
  const nameOf = new Map<string, string>();
  for (const { name, sources } of channels) {
    nameOf.set(name, sources === null ? `channel/${name}` : `live/${name}`);
  }
  // Of channels with a stream in common, the first gives the name; until nothing changes any more.
  const ofStream = new Map<string, string>();
  for (let hasChanged = true; hasChanged; ) {
    hasChanged = false;
    for (const { name, kind, sources } of channels) {
      const ownStream = kind === 'live' ? name : undefined;
      for (const stream of [ownStream, sources?.primary, sources?.backup]) {
        if (stream === undefined || stream === null) continue;
        const own = nameOf.get(name) ?? name;
        const other = ofStream.get(stream) ?? own;
        const [first = own] = [own, other].sort();
        hasChanged ||= own !== other;
        nameOf.set(name, first);
        ofStream.set(stream, first);
      }
    }
  }
  return (channel) => nameOf.get(channel) ?? `channel/${channel}`;
}

/** Its holder imports into the library and tidies it; the other backends only read. */
export const LIBRARY_LEASE = 'library/media';

/** The leases of all channels, and that of the library, each with the number of backends that may hold it. */
export function wantedLeases(channels: readonly LeasedChannel[]): Map<string, number> {
  const leaseOf = leaseNames(channels);
  const ofChannels = channels.map(({ name, sources, redundancy }): [string, number] => {
    return [leaseOf(name), sources === null ? redundancy : 1];
  });
  return new Map([[LIBRARY_LEASE, 1], ...ofChannels]);
}
