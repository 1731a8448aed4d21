/** The channels as viewers see them: what is on now and next, from the schedule and the clock. */
import type { BackendState, Channel, PublicChannel } from '@starling/model/entities';
import { type AssetFacts, programmeAfter, programmeAt, TIMELINE_HZ } from '@starling/model/schedule';
import type { BackendPresence } from './backend-presence.ts';
import type { FleetViewers } from './fleet-viewers.ts';
import { ApiProblem } from './problem.ts';
import type { State } from './state.ts';
import type { ViewingRight } from './viewing-tokens.ts';

/** One item of a channel's programme, on the wall clock. */
export interface Programme {
  readonly title: string;
  readonly startsAtMs: number;
  readonly endsAtMs: number;
}

/** The state, with its assets at hand by id. */
interface Directory {
  readonly state: BackendState;
  readonly facts: ReadonlyMap<string, AssetFacts>;
  readonly assetNames: ReadonlyMap<string, string>;
}

export class PublicChannels {
  readonly #state: State;
  readonly #presence: BackendPresence;
  readonly #viewers: FleetViewers;
  readonly #now: () => number;
  #directory: Directory | undefined;

  constructor(state: State, presence: BackendPresence, viewers: FleetViewers, now: () => number) {
    this.#state = state;
    this.#presence = presence;
    this.#viewers = viewers;
    this.#now = now;
  }

  /** By name: the public ones, and the private ones that the caller may watch. */
  async list(right: ViewingRight): Promise<PublicChannel[]> {
    const directory = await this.#read();
    const viewerCounts = this.#viewers.counts();
    return channelsFor(directory, right).map((channel) =>
      this.#publicChannel(directory, channel, viewerCounts),
    );
  }

  /**
   * One channel. A private one is not there for who shows no token.
   * @throws ApiProblem CHANNEL_UNKNOWN or VIEWING_TOKEN_REFUSED
   */
  async get(name: string, right: ViewingRight): Promise<PublicChannel> {
    const directory = await this.#read();
    const channel = channelsFor(directory, right).find((candidate) => candidate.name === name);
    if (channel !== undefined) return this.#publicChannel(directory, channel, this.#viewers.counts());
    if (right.refusal !== undefined) throw new ApiProblem('VIEWING_TOKEN_REFUSED', right.refusal);
    throw new ApiProblem('CHANNEL_UNKNOWN', `There is no channel ${name}.`);
  }

  /**
   * The programme of every channel that the caller may watch, from what is on now, until `hours` from now;
   * at most `maxCount` items each.
   */
  async programmes(right: ViewingRight, hours: number, maxCount: number): Promise<Map<Channel, Programme[]>> {
    const directory = await this.#read();
    const nowMs = this.#now();
    const untilMs = nowMs + hours * 3_600_000;
    return new Map(
      channelsFor(directory, right).map((channel) => [
        channel,
        [...take(programmesFrom(directory, channel, nowMs), maxCount, untilMs)],
      ]),
    );
  }

  async #read(): Promise<Directory> {
    const state = await this.#state.read();
    if (this.#directory?.state !== state) {
      this.#directory = {
        state,
        facts: new Map(state.assets.map(({ id, facts }) => [id, facts])),
        assetNames: new Map(state.assets.map(({ id, name }) => [id, name])),
      };
    }
    return this.#directory;
  }

  #publicChannel(
    directory: Directory,
    channel: Channel,
    viewerCounts: ReadonlyMap<string, number>,
  ): PublicChannel {
    const { name, title, kind, isPrivate } = channel;
    const isOnAir = this.#presence.onAirChannels().includes(name);
    const [now, next] = isOnAir ? programmesFrom(directory, channel, this.#now()) : [];
    return {
      name,
      title,
      kind,
      isPrivate,
      isOnAir,
      viewerCount: viewerCounts.get(name) ?? 0,
      now:
        now === undefined
          ? null
          : { title: now.title, startsAt: iso(now.startsAtMs), endsAt: iso(now.endsAtMs) },
      next: next === undefined ? null : { title: next.title, startsAt: iso(next.startsAtMs) },
    };
  }
}

function channelsFor({ state }: Directory, right: ViewingRight): Channel[] {
  return state.channels.filter(({ name, isPrivate }) => !isPrivate || right.covers(name));
}

/** The programme from what is on at `fromMs`, for ever; nothing for a live channel. */
function* programmesFrom(
  { facts, assetNames }: Directory,
  channel: Channel,
  fromMs: number,
): Generator<Programme> {
  const ticksPerMs = TIMELINE_HZ / 1000;
  const { epochUnixMs, runs } = channel;
  let position = programmeAt(runs, facts, (fromMs - epochUnixMs) * ticksPerMs);
  while (position !== undefined) {
    yield {
      title: assetNames.get(position.assetId) ?? channel.title,
      startsAtMs: epochUnixMs + position.startTicks / ticksPerMs,
      endsAtMs: epochUnixMs + position.endTicks / ticksPerMs,
    };
    position = programmeAfter(runs, facts, position);
  }
}

function* take(programmes: Iterable<Programme>, maxCount: number, untilMs: number): Generator<Programme> {
  let count = 0;
  for (const programme of programmes) {
    if (count++ >= maxCount || programme.startsAtMs >= untilMs) return;
    yield programme;
  }
}

const iso = (unixMs: number) => new Date(unixMs).toISOString();
