/** The channels as viewers see them: what is on now and next, from the schedule and the clock. */
import type { BackendState, Channel, ChannelGuide, PublicChannel } from '@starling/model/entities';
import { guideEntryAt } from '@starling/model/guide';
import { type AssetFacts, type ProgrammeInfo, runIndexAt, TIMELINE_HZ } from '@starling/model/schedule';
import type { BackendPresence } from './backend-presence.ts';
import type { FleetViewers } from './fleet-viewers.ts';
import { ApiProblem, unknownChannel } from './problem.ts';
import type { State } from './state.ts';
import type { ViewingRight } from './viewing-tokens.ts';

const HOUR_MS = 3_600_000;
const TICKS_PER_MS = TIMELINE_HZ / 1000;
const MAX_PROGRAMMES_PER_HOUR = 60;

/** A programme of a channel, on the wall clock. */
export interface Programme extends ProgrammeInfo {
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

  /** Of what the guide is made from. */
  async revision(): Promise<number> {
    return (await this.#state.read()).revision;
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
    throw unknownChannel(name);
  }

  /**
   * The guide of every channel that the caller may watch: from what is on at `fromMs` to what is on at the end; at most
   * `maxCount` programmes each. What is too short to be listed is shown as the channel itself, hour by hour, and so is
   * a channel that has no schedule. Where streams go before the schedule, the guide has the schedule: it is what
   * is planned, and nobody knows when a stream will come.
   */
  async programmes(
    right: ViewingRight,
    fromMs: number,
    hours: number,
    maxCount: number,
  ): Promise<Map<Channel, Programme[]>> {
    const directory = await this.#read();
    const untilMs = fromMs + hours * HOUR_MS;
    return new Map(
      channelsFor(directory, right).map((channel) => {
        const programmes = hasSchedule(channel)
          ? programmesFrom(directory, channel, fromMs, 'guide')
          : hourly(channel, fromMs);
        return [channel, [...take(programmes, maxCount, untilMs)]];
      }),
    );
  }

  /** The same for the site. */
  async guide(right: ViewingRight, fromMs: number, hours: number): Promise<ChannelGuide[]> {
    const guide = await this.programmes(right, fromMs, hours, hours * MAX_PROGRAMMES_PER_HOUR);
    return [...guide].map(([{ name }, programmes]) => ({
      name,
      programmes: programmes.map(({ startsAtMs, endsAtMs, ...info }) => ({
        ...info,
        startsAt: iso(startsAtMs),
        endsAt: iso(endsAtMs),
      })),
    }));
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
    const { name, title, number, logo, group, kind, isPrivate } = channel;
    const isOnAir = this.#presence.onAirChannels().includes(name);
    const nowMs = this.#now();
    const source = isOnAir ? (this.#presence.activeSource(name)?.source ?? null) : null;
    const coming =
      isOnAir && hasSchedule(channel)
        ? [...take(programmesFrom(directory, channel, nowMs, 'items'), 2, Number.POSITIVE_INFINITY)]
        : [];
    const planned = (coming[0]?.startsAtMs ?? nowMs) > nowMs ? undefined : coming.shift();
    const now = source === null || source === 'playout' ? planned : undefined;
    const [next] = coming;
    return {
      name,
      title,
      number,
      logo,
      group,
      kind,
      isPrivate,
      isOnAir,
      viewerCount: viewerCounts.get(name) ?? 0,
      source,
      now:
        now === undefined
          ? null
          : { title: now.title, startsAt: iso(now.startsAtMs), endsAt: iso(now.endsAtMs) },
      next: next === undefined ? null : { title: next.title, startsAt: iso(next.startsAtMs) },
    };
  }
}

/** What its schedule says is what it shows, unless a stream goes before it. */
function hasSchedule({ kind, sources }: Channel): boolean {
  return kind === 'playout' && (sources === null || sources.fallback === 'playout');
}

function channelsFor({ state }: Directory, right: ViewingRight): Channel[] {
  return state.channels.filter(({ name, isPrivate }) => !isPrivate || right.covers(name));
}

/** The programmes from what is on at `fromMs`, for ever; `detail` as in {@link guideEntryAt}. */
function* programmesFrom(
  { facts, assetNames }: Directory,
  channel: Channel,
  fromMs: number,
  detail: 'items' | 'guide',
): Generator<Programme> {
  const { runs, epochUnixMs } = channel;
  for (let ticks = Math.ceil((fromMs - epochUnixMs) * TICKS_PER_MS); ; ) {
    const entry = guideEntryAt(channel, { facts, names: assetNames }, ticks, detail);
    if (entry === undefined) {
      const nextRun = runs[runIndexAt(runs, ticks) + 1];
      if (nextRun === undefined) return;
      ticks = nextRun.startTicks;
      continue;
    }
    const { startTicks, endTicks, ...info } = entry;
    yield {
      ...info,
      startsAtMs: epochUnixMs + startTicks / TICKS_PER_MS,
      endsAtMs: epochUnixMs + endTicks / TICKS_PER_MS,
    };
    ticks = endTicks;
  }
}

function* hourly({ title }: Channel, fromMs: number): Generator<Programme> {
  for (let startsAtMs = Math.floor(fromMs / HOUR_MS) * HOUR_MS; ; startsAtMs += HOUR_MS) {
    yield { title, startsAtMs, endsAtMs: startsAtMs + HOUR_MS };
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
