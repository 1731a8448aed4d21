/**
 * The source chain of a channel: primary live, backup live, scheduled playout, slate. It picks the best
 * one that is well, and joins them on one unbroken timeline. Events and time in, events out.
 *
 * The way of a unit: its {@link SourceFeed} judges the source and keeps its newest pictures; the chain
 * moves the unit of the active source to the channel's time ({@link Placement}); the channel's one
 * {@link IngestGrid} sorts, cuts and numbers, as it does for a single encoder.
 */
import { type AccessUnit, type Cue, type StreamEvent, trackIndex } from '@starling/media/access-unit';
import { IngestGrid } from '@starling/media/ingest-grid';
import { compareTicks, rescaleTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { SourceChoice, SourceName, SourceReason } from '@starling/model/entities';
import { type Gop, SourceFeed, type SourceTiming } from './source-feed.ts';

/** With the 40 ms at which the backend looks, a change is made within a second of the last picture. */
export const DEFAULT_TIMING: SourceTiming = { silentAfterMs: 800, healthyAfterMs: 5000, graceMs: 5000 };

const TICKS_PER_MS = VIDEO_TIMESCALE_HZ / 1000;
/** What lies between a random access point and the end of what was emitted is shown so many times as fast. */
const CATCH_UP_SPEED = 8;
/** A hole so small is better than catching up with a whole group of pictures. */
const SMALL_HOLE_TICKS = 200 * TICKS_PER_MS;
/** A live source is moved back to close a hole up to this; a longer one is left, and marked by the grid. */
const MAX_CLOSED_HOLE_TICKS = 1000 * TICKS_PER_MS;
/** Going back to a source waits for its next random access point, which is fresh for so long. */
const FRESH_MS = 150;

export interface SourceChainOptions {
  readonly channel: string;
  /** Wall-clock time of tick 0, in milliseconds since 1970. */
  readonly epochUnixMs: number;
  /** The best first. */
  readonly order: readonly SourceName[];
  readonly choice: SourceChoice;
  readonly timing?: SourceTiming;
}

/** What is on the air, since when (milliseconds since 1970) and why. */
export interface ActiveSource {
  readonly source: SourceName;
  readonly sinceUnixMs: number;
  readonly reason: SourceReason;
}

/**
 * | active                | then                                                                        |
 * | --------------------- | --------------------------------------------------------------------------- |
 * | none                  | the first that is steady, or else well, as soon as there is one             |
 * | is not well           | at once the first other that is steady, or else well; none if there is none |
 * | a better one is steady| that one, at its next random access point                                   |
 *
 * The order is that of the chain; a choice other than `auto` goes first. Steady is a live source that has
 * been well for `healthyAfterMs` or is back within its grace period, and a scheduled
 * source that is well.
 */
export class SourceChain {
  readonly #channel: string;
  readonly #epochUnixMs: number;
  readonly #timing: SourceTiming;
  readonly #grid: IngestGrid;
  readonly #feeds = new Map<SourceName, SourceFeed>();
  #order: readonly SourceName[] = [];
  #choice: SourceChoice = 'auto';
  #active:
    | { readonly info: ActiveSource; readonly feed: SourceFeed; readonly placement: Placement }
    | undefined;
  /** Why there is no active source, for the one that comes next. */
  #reason: SourceReason = 'start';
  #events: StreamEvent[] = [];

  constructor(options: SourceChainOptions) {
    this.#channel = options.channel;
    this.#epochUnixMs = options.epochUnixMs;
    this.#timing = options.timing ?? DEFAULT_TIMING;
    this.#grid = new IngestGrid({
      epochUnixMs: options.epochUnixMs,
      programmeId: `live-${options.channel}`,
      otherKindWaitMs: 0,
    });
    this.#order = options.order;
    this.#choice = options.choice;
    for (const name of options.order) this.#feeds.set(name, this.#openFeed(name));
  }

  /** Undefined while nothing is on the air. */
  get active(): ActiveSource | undefined {
    return this.#active?.info;
  }

  /** Why the last source is not on the air any more; `start` before there was one. */
  get lossReason(): SourceReason {
    return this.#reason;
  }

  /** Takes over an edited chain or choice; a source that was replaced must be named in `renewed`. */
  configure(order: readonly SourceName[], choice: SourceChoice, renewed: readonly SourceName[] = []): void {
    for (const name of this.#feeds.keys()) {
      if (order.includes(name) && !renewed.includes(name)) continue;
      this.#feeds.delete(name);
      if (this.#active?.info.source === name) this.#end('manual');
    }
    for (const name of order) if (!this.#feeds.has(name)) this.#feeds.set(name, this.#openFeed(name));
    this.#order = order;
    this.#choice = choice;
  }

  /**
   * Takes an event of a source: on the encoder's clock for a live one, on the channel's timeline for a
   * scheduled one.
   * @returns events on the channel's timeline, in the order that access-unit.ts prescribes
   */
  push(source: SourceName, event: StreamEvent, nowUnixMs: number): StreamEvent[] {
    const feed = this.#feeds.get(source);
    if (feed === undefined) return [];
    const isActive = this.#active?.feed === feed;
    const seen = feed.take(event, nowUnixMs);
    if (isActive && seen === 'clock') this.#end('clock');
    else if (isActive) this.#forward(event);
    // Only here a better source can be gone back to; a lost one is replaced on the tick.
    if (seen === 'random-access' && !isActive) this.#decide(nowUnixMs);
    return this.#takeEvents();
  }

  /** The publisher of a live source came or left. */
  setConnected(source: SourceName, isConnected: boolean): void {
    this.#feeds.get(source)?.setConnected(isConnected);
  }

  /** Whether the picture of a live source is black and does not move. */
  setDark(source: SourceName, isDark: boolean): void {
    this.#feeds.get(source)?.setDark(isDark);
  }

  /** To be called many times a second: finds the source that has gone silent, and changes. */
  tick(nowUnixMs: number): StreamEvent[] {
    this.#decide(nowUnixMs);
    return this.#takeEvents();
  }

  #openFeed(name: SourceName): SourceFeed {
    return new SourceFeed({ isScheduled: name === 'playout' || name === 'slate', timing: this.#timing });
  }

  #decide(nowMs: number): void {
    for (const feed of this.#feeds.values()) feed.observe(nowMs);
    const choice = this.#choice;
    const names =
      choice === 'auto' || !this.#order.includes(choice)
        ? this.#order
        : [choice, ...this.#order.filter((name) => name !== choice)];
    const active = this.#active;
    const isLost = active !== undefined && !active.feed.isWell;
    const others = names.flatMap((name) => {
      const feed = this.#feeds.get(name);
      return feed === undefined || feed === active?.feed ? [] : [{ name, feed }];
    });
    if (active !== undefined && !isLost) {
      const better = others.find(
        ({ name, feed }) =>
          names.indexOf(name) < names.indexOf(active.info.source) &&
          (feed.isSteady(nowMs) || (name === choice && feed.isWell)),
      );
      const isFresh = nowMs - (better?.feed.gops.at(-1)?.arrivedAtMs ?? 0) <= FRESH_MS;
      if (better === undefined || !isFresh) return;
      this.#start(better.name, better.feed, better.name === choice ? 'manual' : 'healthy', nowMs);
      return;
    }
    let next = others.find(({ feed }) => feed.isSteady(nowMs)) ?? others.find(({ feed }) => feed.isWell);
    if (active !== undefined) {
      // Where nothing can stand in for it, a black picture is better than none, and a silent source may go on
      // where it stopped; one that left may not.
      const { fault } = active.feed;
      if (next === undefined && (fault === 'silent' || fault === 'dark')) return;
      this.#end(fault);
    }
    next ??= others.find(({ feed }) => !feed.isWell && feed.fault === 'dark' && feed.gops.length > 0);
    if (next !== undefined) this.#start(next.name, next.feed, this.#reason, nowMs);
  }

  #end(reason: SourceReason): void {
    if (this.#active === undefined) return;
    this.#emit(this.#grid.endOfPublisher());
    this.#active = undefined;
    this.#reason = reason;
  }

  #start(source: SourceName, feed: SourceFeed, reason: SourceReason, nowMs: number): void {
    this.#end(reason);
    const nowTicks = Math.round((nowMs - this.#epochUnixMs) * TICKS_PER_MS);
    const placement = new Placement(feed, this.#grid, nowTicks);
    this.#active = { info: { source, sinceUnixMs: Math.round(nowMs), reason }, feed, placement };
    for (const track of feed.tracks) this.#forward({ type: 'track', track });
    const placed = placement.gops
      .flatMap(({ units }) => units)
      .filter((unit) => !placement.isBeforeStart(unit))
      .map((unit) => placement.move(unit));
    // Pictures that catch up lie closer together than they came: back into one order with the sound.
    placed.sort((a, b) => placement.compare(a, b));
    for (const unit of placed) this.#pushPlaced(unit);
  }

  #forward(event: StreamEvent): void {
    const active = this.#active;
    if (active === undefined) return;
    if (event.type === 'track') this.#emit(this.#grid.push(event, 0));
    if (event.type === 'unit') this.#pushPlaced(active.placement.move(event.unit));
  }

  /** The grid places an encoder by the time of its first unit's arrival: here, where the unit belongs. */
  #pushPlaced(unit: AccessUnit): void {
    const active = this.#active;
    if (active === undefined) return;
    const ticks = active.placement.timelineTicks(unit);
    this.#emit(this.#grid.push({ type: 'unit', unit }, this.#epochUnixMs + ticks / TICKS_PER_MS));
  }

  #emit(events: readonly StreamEvent[]): void {
    for (const event of events) {
      this.#events.push(
        event.type === 'cue'
          ? { type: 'cue', cue: { ...event.cue, ...this.#programmeAt(event.cue.startTicks) } }
          : event,
      );
    }
  }

  /** The schedule's guide is that of the picture only while the schedule is on. */
  #programmeAt(ticks: number): Pick<Cue, 'programmeId' | 'programme'> {
    const active = this.#active;
    const live = { programmeId: `live-${this.#channel}` };
    if (active === undefined || !active.feed.isScheduled) return live;
    if (active.info.source === 'slate') return { programmeId: 'slate' };
    const gop = active.feed.gops.findLast(({ startTicks }) => startTicks <= ticks) ?? active.feed.gops[0];
    if (gop?.cue === undefined) return live;
    const { programmeId, programme } = gop.cue;
    return { programmeId, ...(programme !== undefined && { programme }) };
  }

  #takeEvents(): StreamEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }
}

/**
 * Where the units of a source lie on the channel's timeline, from one change to the next.
 *
 * A scheduled source lies where its schedule says. A live one is moved so that its newest picture lies at
 * the present. The change is made where the emitted media ends, which is up to a second ago: the source
 * is entered at its last random access point before that, and the pictures from there on to the end
 * are shown {@link CATCH_UP_SPEED} times as fast as they were made. So nothing is missing from the timeline, whatever
 * the distance of the source's key frames.
 */
class Placement {
  /** From the random access point on, and what sound came before it. */
  readonly gops: readonly Gop[];
  readonly #feed: SourceFeed;
  readonly #shiftTicks: number;
  /** The random access point, moved but not yet sped up. */
  readonly #firstTicks: number;
  readonly #startTicks: number;
  readonly #caughtUpTicks: number;

  /**
   * @param grid after the end of the source before
   * @throws Error when the feed has nothing to begin with
   */
  constructor(feed: SourceFeed, grid: IngestGrid, nowTicks: number) {
    this.#feed = feed;
    const endTicks = grid.earliestStartTicks;
    let shiftTicks = feed.isScheduled ? 0 : Math.max(nowTicks, endTicks) - feed.newestTicks;
    const { gops } = feed;
    const isFirst = endTicks === 0;
    // A scheduled source is not moved: a hole that the open segment cannot take in is no small one.
    const latestTicks = feed.isScheduled ? grid.latestSeamlessStartTicks : Number.POSITIVE_INFINITY;
    const enterableTicks = Math.min(endTicks + SMALL_HOLE_TICKS, latestTicks);
    const index = isFirst
      ? feed.isScheduled
        ? 0
        : gops.length - 1
      : Math.max(
          0,
          gops.findLastIndex((gop) => gop.startTicks + shiftTicks <= enterableTicks),
        );
    const gop = gops[index];
    if (gop === undefined) throw new Error('a source without a random access point cannot be changed to');
    this.gops = gops;
    const holeTicks = gop.startTicks + shiftTicks - endTicks;
    if (!isFirst && !feed.isScheduled && holeTicks > 0 && holeTicks <= MAX_CLOSED_HOLE_TICKS)
      shiftTicks -= holeTicks;
    this.#shiftTicks = shiftTicks;
    this.#firstTicks = gop.startTicks + shiftTicks;
    this.#startTicks = Math.max(this.#firstTicks, endTicks);
    const behindTicks = this.#startTicks - this.#firstTicks;
    this.#caughtUpTicks = this.#startTicks + Math.ceil(behindTicks / (CATCH_UP_SPEED - 1));
  }

  /** True for what must not be emitted: it lies before the random access point, or is sound from before the change. */
  isBeforeStart(unit: AccessUnit): boolean {
    const ticks = this.timelineTicks(unit) + this.#shiftTicks;
    return ticks < (unit.kind === 'video' ? this.#firstTicks : this.#startTicks);
  }

  /** The unit with its times on the channel's timeline. */
  move(unit: AccessUnit): AccessUnit {
    if (unit.kind === 'audio') {
      const shift = rescaleTicks(this.#shiftTicks, VIDEO_TIMESCALE_HZ, this.#feed.timescaleHzOf(unit));
      return { ...unit, dtsTicks: unit.dtsTicks + shift, ptsTicks: unit.ptsTicks + shift };
    }
    const dtsTicks = this.#speedUp(unit.dtsTicks + this.#shiftTicks);
    const isSpedUp = unit.dtsTicks + this.#shiftTicks < this.#caughtUpTicks;
    // FLV carries the distance of the two in whole milliseconds.
    const delayTicks = isSpedUp
      ? Math.round((this.#speedUp(unit.ptsTicks + this.#shiftTicks) - dtsTicks) / TICKS_PER_MS) * TICKS_PER_MS
      : unit.ptsTicks - unit.dtsTicks;
    return { ...unit, dtsTicks, ptsTicks: dtsTicks + delayTicks };
  }

  /** The DTS of a unit in ticks of 1/90000 s. */
  timelineTicks(unit: AccessUnit): number {
    return rescaleTicks(unit.dtsTicks, this.#feed.timescaleHzOf(unit), VIDEO_TIMESCALE_HZ);
  }

  compare(a: AccessUnit, b: AccessUnit): number {
    return (
      compareTicks(a.dtsTicks, this.#feed.timescaleHzOf(a), b.dtsTicks, this.#feed.timescaleHzOf(b)) ||
      trackIndex(a) - trackIndex(b)
    );
  }

  #speedUp(ticks: number): number {
    if (ticks >= this.#caughtUpTicks) return ticks;
    return this.#startTicks + Math.round((ticks - this.#firstTicks) / CATCH_UP_SPEED);
  }
}
