/**
 * A channel with live sources: hands the streams of its encoders, its schedule and its slate to the
 * source chain, and gives out what the chain makes of them.
 */
import type { StreamEvent, Track } from '@starling/media/access-unit';
import { msToTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { Channel, ChannelSources, SourceName, SourceReason } from '@starling/model/entities';
import { type AssetFacts, programmeAt } from '@starling/model/schedule';
import { trackSetOf } from '@starling/model/track-set';
import type { Logger } from 'pino';
import type { AssetFile } from './asset-file.ts';
import { DarkWatch } from './dark-watch.ts';
import { Playout, type PlayoutProgramme } from './playout.ts';
import type { Slates } from './slate.ts';
import { type ActiveSource, SourceChain } from './source-chain.ts';

/** A scheduled source starts so far in the past: a channel that begins with it fills the frontends' windows at once. */
const HISTORY_MS = 12_000;
const SLATE_ASSET_ID = 'slate';

type LiveSource = 'primary' | 'backup';

export interface LiveChannelOptions {
  readonly model: Channel;
  readonly sources: ChannelSources;
  readonly programme: PlayoutProgramme;
  readonly slates: Slates;
  readonly nowUnixMs: number;
  openAsset(contentHash: string): Promise<AssetFile>;
  /** What the encoder of a stream has announced; nothing while none publishes. */
  tracksOf(stream: string): readonly Track[];
  readonly logger: Logger;
}

/** A change of what is on the air; undefined is nothing. */
export interface SourceChange {
  readonly from: SourceName | undefined;
  readonly to: SourceName | undefined;
  readonly reason: SourceReason;
}

export class LiveChannel {
  readonly #options: LiveChannelOptions;
  readonly #chain: SourceChain;
  #sources: ChannelSources;
  #title: string;
  #playout: Playout | undefined;
  #slate: Playout | undefined;
  #slateFacts: AssetFacts | undefined;
  readonly #darkWatches = new Map<LiveSource, DarkWatch>();
  #lastActive: ActiveSource | undefined;
  /** Of the last tick. */
  #nowUnixMs: number;
  #isClosed = false;

  constructor(options: LiveChannelOptions) {
    this.#options = options;
    this.#nowUnixMs = options.nowUnixMs;
    const { model, sources } = options;
    this.#sources = sources;
    this.#title = model.title;
    this.#chain = new SourceChain({
      channel: model.name,
      epochUnixMs: model.epochUnixMs,
      order: orderOf(sources),
      choice: model.sourceChoice,
    });
    this.#announce(['primary', 'backup']);
    this.#openScheduled(options.programme);
  }

  /** The streams that it takes. */
  get streams(): string[] {
    return [this.#sources.primary, this.#sources.backup].filter((stream) => stream !== null);
  }

  /** What is on the air; undefined while nothing is. */
  get active(): ActiveSource | undefined {
    return this.#chain.active;
  }

  /** Takes over an edited channel. */
  update(model: Channel, sources: ChannelSources, programme: PlayoutProgramme): void {
    const before = this.#sources;
    const renewed = (['primary', 'backup'] as const).filter((name) => before[name] !== sources[name]);
    this.#sources = sources;
    this.#chain.configure(orderOf(sources), model.sourceChoice, renewed);
    for (const source of renewed) this.#darkWatches.delete(source);
    this.#announce(renewed);
    if (before.fallback !== sources.fallback || this.#title !== model.title) {
      void this.#slate?.close();
      this.#slate = undefined;
      if (sources.fallback !== 'playout') {
        void this.#playout?.close();
        this.#playout = undefined;
      }
    }
    this.#title = model.title;
    this.#playout?.update(programme);
    if (this.#slate && this.#slateFacts)
      this.#slate.update(slateProgramme(this.#slateFacts, programme, this.#nowUnixMs));
    this.#openScheduled(programme);
  }

  /** Takes what an encoder of a stream sends, on the encoder's clock. */
  push(stream: string, event: StreamEvent, nowUnixMs: number): StreamEvent[] {
    return this.#sourcesOf(stream).flatMap((source) => {
      this.#darkWatchOf(source).push(event, nowUnixMs);
      return this.#chain.push(source, event, nowUnixMs);
    });
  }

  /** An encoder of the stream came or left. */
  setPublishing(stream: string, isPublishing: boolean): void {
    for (const source of this.#sourcesOf(stream)) {
      this.#darkWatches.delete(source);
      this.#chain.setDark(source, false);
      this.#chain.setConnected(source, isPublishing);
    }
  }

  /** To be called many times a second. */
  tick(nowUnixMs: number): StreamEvent[] {
    this.#nowUnixMs = nowUnixMs;
    const dueTicks = msToTicks(nowUnixMs - this.#options.model.epochUnixMs, VIDEO_TIMESCALE_HZ);
    const events: StreamEvent[] = [];
    for (const [source, playout] of [
      ['playout', this.#playout],
      ['slate', this.#slate],
    ] as const) {
      for (const event of playout?.eventsUntil(dueTicks) ?? []) {
        events.push(...this.#chain.push(source, event, nowUnixMs));
      }
      void playout?.readAhead();
    }
    events.push(...this.#chain.tick(nowUnixMs));
    return events;
  }

  /** What has changed since the last call; undefined where nothing has. */
  takeChange(): SourceChange | undefined {
    const from = this.#lastActive;
    const to = this.#chain.active;
    if (from === to) return undefined;
    this.#lastActive = to;
    return { from: from?.source, to: to?.source, reason: to?.reason ?? this.#chain.lossReason };
  }

  close(): void {
    this.#isClosed = true;
    void this.#playout?.close();
    void this.#slate?.close();
  }

  #darkWatchOf(source: LiveSource): DarkWatch {
    const known = this.#darkWatches.get(source);
    if (known !== undefined) return known;
    const { logger } = this.#options;
    const watch: DarkWatch = new DarkWatch({
      logger,
      afterMs: () => this.#sources.darkAfterMs,
      onChange: (isDark) => {
        // Not of a picture of a publisher that left meanwhile.
        if (this.#darkWatches.get(source) === watch) this.#chain.setDark(source, isDark);
      },
    });
    this.#darkWatches.set(source, watch);
    return watch;
  }

  /** An encoder that was there before the source announces nothing again. */
  #announce(sources: readonly LiveSource[]): void {
    for (const source of sources) {
      const stream = this.#sources[source];
      if (stream === null) continue;
      for (const track of this.#options.tracksOf(stream)) {
        const { nowUnixMs } = this.#options;
        this.#darkWatchOf(source).push({ type: 'track', track }, nowUnixMs);
        this.#chain.push(source, { type: 'track', track }, nowUnixMs);
      }
    }
  }

  #sourcesOf(stream: string): LiveSource[] {
    return (['primary', 'backup'] as const).filter((name) => this.#sources[name] === stream);
  }

  /** Opens the playouts that the chain has and that are not open. */
  #openScheduled(programme: PlayoutProgramme): void {
    const { openAsset, slates } = this.#options;
    const { fallback } = this.#sources;
    if (fallback === 'playout') this.#playout ??= this.#openPlayout(programme, openAsset);
    if (fallback === 'none' || this.#slate !== undefined) return;
    const title = this.#title;
    void slates.get(title).then((facts) => {
      const isStale = this.#isClosed || title !== this.#title || this.#sources.fallback === 'none';
      if (facts === undefined || isStale || this.#slate !== undefined) return;
      this.#slateFacts = facts;
      this.#slate = this.#openPlayout(slateProgramme(facts, programme, this.#nowUnixMs), (contentHash) =>
        slates.openAsset(contentHash),
      );
    });
  }

  #openPlayout(programme: PlayoutProgramme, openAsset: LiveChannelOptions['openAsset']): Playout {
    const { model, nowUnixMs, logger } = this.#options;
    const startUnixMs = Math.max(model.epochUnixMs, nowUnixMs - HISTORY_MS);
    return new Playout({
      programme,
      openAsset,
      startTicks: msToTicks(startUnixMs - model.epochUnixMs, VIDEO_TIMESCALE_HZ),
      logger,
    });
  }
}

function orderOf({ primary, backup, fallback }: ChannelSources): SourceName[] {
  const order: SourceName[] = [];
  if (primary !== null) order.push('primary');
  if (backup !== null) order.push('backup');
  if (fallback === 'playout') order.push('playout');
  if (fallback !== 'none') order.push('slate');
  return order;
}

/**
 * The slate for ever, from the start of the timeline, on all tracks that the schedule sends now: a viewer who
 * has chosen one of them sees the slate there, too.
 */
function slateProgramme(
  facts: AssetFacts,
  { runs, assets, epochUnixMs }: PlayoutProgramme,
  nowUnixMs: number,
): PlayoutProgramme {
  const nowTicks = msToTicks(nowUnixMs - epochUnixMs, VIDEO_TIMESCALE_HZ);
  const tracks = programmeAt(runs, assets, nowTicks)?.tracks;
  return {
    runs: [
      {
        startTicks: 0,
        firstMediaSequenceNumber: 0,
        firstDiscontinuitySequence: 0,
        loop: [SLATE_ASSET_ID],
        ...(tracks && { tracks: trackSetOf([facts], tracks) }),
      },
    ],
    assets: new Map([[SLATE_ASSET_ID, facts]]),
    epochUnixMs,
  };
}
