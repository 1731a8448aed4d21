/**
 * What a playout channel has had, made again from its schedule for a frontend that joins: a second playout, begun
 * in the past, gives the same events. So nothing of it has to be kept in memory.
 */
import { BACKLOG_DURATION_TICKS, type History, type HistoryReader } from '@starling/net/channel';
import { Playout, type PlayoutOptions } from './playout.ts';

export interface PlayoutHistoryOptions extends Pick<PlayoutOptions, 'programme' | 'openAsset' | 'logger'> {
  /** Where the channel's playout begins. */
  readonly pushedTicks: number;
}

export class PlayoutHistory implements History {
  readonly #options: PlayoutHistoryOptions;
  #programme: PlayoutOptions['programme'];
  #pushedTicks: number;

  constructor(options: PlayoutHistoryOptions) {
    this.#options = options;
    this.#programme = options.programme;
    this.#pushedTicks = options.pushedTicks;
  }

  /** Takes an edited programme; what has been played does not change. */
  update(programme: PlayoutOptions['programme']): void {
    this.#programme = programme;
  }

  /** Everything before this time has been pushed into the channel. */
  advance(pushedTicks: number): void {
    this.#pushedTicks = pushedTicks;
  }

  open(): HistoryReader {
    const { openAsset, logger } = this.#options;
    const playout = new Playout({
      programme: this.#programme,
      openAsset,
      logger,
      startTicks: Math.max(0, this.#pushedTicks - BACKLOG_DURATION_TICKS),
      readAheadSegments: 1, // every leg of every channel may be reading at the same time
      maxBehindTicks: Number.POSITIVE_INFINITY,
    });
    let lastDueTicks = Number.NEGATIVE_INFINITY;
    return {
      readAhead: () => playout.readAhead(),
      take: () => {
        const events = playout.eventsUntil(this.#pushedTicks, 'copied');
        const { nextDueTicks } = playout;
        // Where nothing is on and nothing will be, it stays where it is.
        const isUpToDate = nextDueTicks >= this.#pushedTicks || nextDueTicks === lastDueTicks;
        lastDueTicks = nextDueTicks;
        return { events, isUpToDate };
      },
      close: () => void playout.close(),
    };
  }
}
