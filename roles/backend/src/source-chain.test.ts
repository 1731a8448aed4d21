import {
  AAC_SAMPLES_PER_UNIT,
  type AudioTrack,
  type Cue,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
  type VideoTrack,
} from '@starling/media/access-unit';
import { compareTicks, ticksToMs, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import type { SourceName } from '@starling/model/entities';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SourceChain } from './source-chain.ts';

const EPOCH_UNIX_MS = 1_700_000_000_000;
const START_MS = 100_000;
const STEP_MS = 20;

const video = (config: number): VideoTrack => ({
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  config: Uint8Array.of(config),
  codecString: 'avc1.64001f',
  widthPx: 1280,
  heightPx: 720,
  frameDurationTicks: undefined,
});
const AUDIO: AudioTrack = {
  kind: 'audio',
  trackId: 0,
  language: undefined,
  codec: 'aac',
  config: Uint8Array.of(0x11, 0x90),
  codecString: 'mp4a.40.2',
  sampleRateHz: 48_000,
  channelCount: 2,
};

interface EncoderOptions {
  /** Differs where the codec configuration differs. */
  readonly config?: number;
  readonly gopMs?: number;
  readonly frameMs?: number;
  /** Its own clock at the start of the simulation. */
  readonly clockMs?: number;
  readonly hasSound?: boolean;
}

/** Makes what an encoder would send, in the rhythm of the simulation. The payload says who made it. */
class Encoder {
  readonly name: SourceName;
  readonly #options: Required<EncoderOptions>;
  #clockMs: number;
  #nextVideoMs = 0;
  #nextAudioSamples = 0;
  #sinceKeyMs = Number.POSITIVE_INFINITY;
  #isAnnounced = false;

  constructor(name: SourceName, options: EncoderOptions = {}) {
    this.name = name;
    this.#options = { config: 1, gopMs: 2000, frameMs: 40, clockMs: 0, hasSound: true, ...options };
    this.#clockMs = this.#options.clockMs;
    this.setClock(this.#clockMs);
  }

  get mark(): number {
    return this.name.charCodeAt(0);
  }

  setClock(ms: number): void {
    this.#clockMs = ms;
    this.#nextVideoMs = ms;
    this.#nextAudioSamples = Math.ceil((ms * 48) / AAC_SAMPLES_PER_UNIT) * AAC_SAMPLES_PER_UNIT;
    this.#sinceKeyMs = Number.POSITIVE_INFINITY; // an encoder that starts anew starts with a key frame
  }

  reconnect(): void {
    this.#isAnnounced = false;
    this.setClock(0);
  }

  /** What it makes in the next milliseconds. */
  run(ms: number): StreamEvent[] {
    const { frameMs, gopMs, config, hasSound } = this.#options;
    const events: StreamEvent[] = [];
    if (!this.#isAnnounced) {
      events.push({ type: 'track', track: video(config) });
      if (hasSound) events.push({ type: 'track', track: AUDIO });
    }
    this.#isAnnounced = true;
    this.#clockMs += ms;
    for (;;) {
      const audioMs = this.#nextAudioSamples / 48;
      if (this.#nextVideoMs <= audioMs || !hasSound) {
        if (this.#nextVideoMs >= this.#clockMs) break;
        const isRandomAccess = this.#sinceKeyMs >= gopMs;
        if (isRandomAccess) this.#sinceKeyMs = 0;
        const ticks = this.#nextVideoMs * 90;
        events.push(unit('video', ticks, isRandomAccess, this.mark));
        this.#nextVideoMs += frameMs;
        this.#sinceKeyMs += frameMs;
      } else {
        if (audioMs >= this.#clockMs) break;
        events.push(unit('audio', this.#nextAudioSamples, true, this.mark));
        this.#nextAudioSamples += AAC_SAMPLES_PER_UNIT;
      }
    }
    return events;
  }
}

function unit(kind: 'video' | 'audio', ticks: number, isRandomAccess: boolean, mark: number): StreamEvent {
  return {
    type: 'unit',
    unit: {
      kind,
      trackId: 0,
      dtsTicks: ticks,
      ptsTicks: ticks,
      isRandomAccess,
      data: Uint8Array.of(mark, 0),
    },
  };
}

/** A chain on a clock of its own. Encoders that are in `stopped` make nothing. */
class Simulation {
  readonly chain: SourceChain;
  readonly encoders: readonly Encoder[];
  readonly stopped = new Set<Encoder>();
  readonly events: StreamEvent[] = [];
  /** When each of them was emitted. */
  readonly #atMs: number[] = [];
  nowMs = START_MS;

  constructor(encoders: readonly Encoder[]) {
    this.encoders = encoders;
    this.chain = new SourceChain({
      channel: 'test',
      epochUnixMs: EPOCH_UNIX_MS,
      order: encoders.map(({ name }) => name),
      choice: 'auto',
    });
  }

  run(ms: number): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += STEP_MS;
      const nowUnixMs = EPOCH_UNIX_MS + this.nowMs;
      for (const encoder of this.encoders) {
        if (this.stopped.has(encoder)) continue;
        for (const event of encoder.run(STEP_MS)) {
          this.#emit(this.chain.push(encoder.name, event, nowUnixMs));
        }
      }
      this.#emit(this.chain.tick(nowUnixMs));
    }
    return this;
  }

  /** What an encoder makes in so long comes in now. */
  deliver(encoder: Encoder, ms: number): void {
    for (const event of encoder.run(ms)) {
      this.#emit(this.chain.push(encoder.name, event, EPOCH_UNIX_MS + this.nowMs));
    }
  }

  #emit(events: readonly StreamEvent[]): void {
    for (const event of events) {
      this.events.push(event);
      this.#atMs.push(this.nowMs);
    }
  }

  get active(): string {
    return this.chain.active?.source ?? 'none';
  }

  /** Pictures as [seconds on the timeline, source]. */
  pictures(): { ms: number; atMs: number; source: SourceName | undefined; isRandomAccess: boolean }[] {
    return this.events.flatMap((event, i) =>
      event.type === 'unit' && event.unit.kind === 'video'
        ? [
            {
              ms: ticksToMs(event.unit.dtsTicks, VIDEO_TIMESCALE_HZ),
              atMs: this.#atMs[i] ?? 0,
              source: this.encoders.find(({ mark }) => mark === event.unit.data[0])?.name,
              isRandomAccess: event.unit.isRandomAccess,
            },
          ]
        : [],
    );
  }

  /** Changes of the source of pictures, with the hole that each left on the timeline. */
  changes(): { from: string; to: string; holeMs: number; isRandomAccess: boolean }[] {
    const pictures = this.pictures();
    return pictures.flatMap((picture, i) => {
      const before = pictures[i - 1];
      if (before === undefined || before.source === picture.source) return [];
      return [
        {
          from: String(before.source),
          to: String(picture.source),
          holeMs: picture.ms - before.ms,
          isRandomAccess: picture.isRandomAccess,
        },
      ];
    });
  }
}

/** Much cheaper than `expect`, for what is checked of each unit. */
function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(`broken: ${what}`);
}

/** The contract of access-unit.ts, and what the chain adds to it. */
function checkContract(events: readonly StreamEvent[]): void {
  expect(events[0]?.type ?? 'timeline').toBe('timeline');
  const tracks = new Map<number, Track>();
  const lastTicks = new Map<number, { ticks: number; hz: number }>();
  let lastUnit: { ticks: number; hz: number; index: number } | undefined;
  let cue: Cue | undefined;
  let mayAnnounce = true;
  let opensSegment = false;
  for (const event of events) {
    if (event.type === 'track') {
      must(mayAnnounce, 'a track comes first of all or after a discontinuity');
      tracks.set(trackIndex(event.track), event.track);
    } else if (event.type === 'cue') {
      if (cue !== undefined) {
        must(event.cue.mediaSequenceNumber === cue.mediaSequenceNumber + 1, 'the numbers are contiguous');
        must(event.cue.startTicks > cue.startTicks, 'segments start one after another');
        must(event.cue.programDateTimeUnixMs >= cue.programDateTimeUnixMs, 'dates do not run backwards');
        const step = event.cue.discontinuitySequence - cue.discontinuitySequence;
        must(step === 0 || step === 1, 'discontinuities are counted');
        mayAnnounce = step === 1;
      }
      ({ cue } = event);
      opensSegment = true;
    } else if (event.type === 'unit') {
      const { unit } = event;
      const track = tracks.get(trackIndex(unit));
      if (track === undefined || cue === undefined)
        throw new Error('a unit without its track or before a cue');
      const hz = timescaleHz(track);
      const last = lastTicks.get(trackIndex(unit));
      must(
        last === undefined || compareTicks(unit.dtsTicks, hz, last.ticks, last.hz) > 0,
        'times of a track rise',
      );
      if (lastUnit !== undefined) {
        const order = compareTicks(unit.dtsTicks, hz, lastUnit.ticks, lastUnit.hz);
        must(order > 0 || (order === 0 && trackIndex(unit) > lastUnit.index), 'units are sorted');
      }
      must(
        compareTicks(unit.dtsTicks, hz, cue.startTicks, VIDEO_TIMESCALE_HZ) >= 0,
        'units come after their cue',
      );
      must(unit.ptsTicks >= unit.dtsTicks, 'no picture is shown before it is decoded');
      must(Number.isInteger(unit.dtsTicks) && Number.isInteger(unit.ptsTicks), 'times are whole ticks');
      must(!opensSegment || !cue.isIndependent || unit.isRandomAccess, 'segments start where a decoder can');
      opensSegment = false;
      mayAnnounce = false;
      lastTicks.set(trackIndex(unit), { ticks: unit.dtsTicks, hz });
      lastUnit = { ticks: unit.dtsTicks, hz, index: trackIndex(unit) };
    }
  }
}

function discontinuities(events: readonly StreamEvent[]): number {
  const sequences = events.flatMap((event) =>
    event.type === 'cue' ? [event.cue.discontinuitySequence] : [],
  );
  return (sequences.at(-1) ?? 0) - (sequences[0] ?? 0);
}

/** Playout and slate run on the channel's time. */
const playout = (options: EncoderOptions = {}) => new Encoder('playout', { clockMs: START_MS, ...options });
const slate = (options: EncoderOptions = {}) => new Encoder('slate', { clockMs: START_MS, ...options });

describe('a source that goes silent', () => {
  it('is replaced within a second, without a hole on the timeline, and gone back to when it is well again', () => {
    const primary = new Encoder('primary', { clockMs: 777_000 });
    const backup = new Encoder('backup', { clockMs: 5_000 });
    const simulation = new Simulation([primary, backup, playout()]);
    simulation.run(8000);
    expect(simulation.active).toBe('primary');
    simulation.stopped.add(primary);
    simulation.run(840);
    expect(simulation.active).toBe('backup');
    expect(simulation.chain.active?.reason).toBe('silent');
    simulation.run(9160);
    primary.reconnect();
    simulation.stopped.delete(primary);
    simulation.run(4900);
    expect(simulation.active).toBe('backup');
    simulation.run(4000);
    expect(simulation.active).toBe('primary');
    expect(simulation.chain.active?.reason).toBe('healthy');

    checkContract(simulation.events);
    expect(discontinuities(simulation.events)).toBe(0);
    const changes = simulation.changes().slice(-2);
    expect(changes.map(({ from, to }) => `${from} to ${to}`)).toEqual([
      'primary to backup',
      'backup to primary',
    ]);
    for (const { holeMs, isRandomAccess } of changes) {
      expect(isRandomAccess).toBe(true);
      expect(holeMs).toBeLessThanOrEqual(100);
    }
  });

  it('leaves no hole even where the key frames of the next one are ten seconds apart', () => {
    const primary = new Encoder('primary');
    const simulation = new Simulation([primary, new Encoder('backup', { gopMs: 10_000 })]);
    simulation.run(8000);
    simulation.stopped.add(primary);
    simulation.run(4000);
    expect(simulation.active).toBe('backup');
    checkContract(simulation.events);
    expect(discontinuities(simulation.events)).toBe(0);
    const pictures = simulation.pictures();
    const longest = Math.max(...pictures.slice(1).map(({ ms }, i) => ms - (pictures[i]?.ms ?? ms)));
    expect(longest).toBeLessThanOrEqual(100);
  });

  it('is gone back to at its next key frame when it is back within its grace period', () => {
    const primary = new Encoder('primary');
    const simulation = new Simulation([primary, slate()]);
    simulation.run(8000);
    simulation.stopped.add(primary);
    simulation.chain.setConnected('primary', false);
    simulation.run(3000);
    expect(simulation.active).toBe('slate');
    expect(simulation.chain.active?.reason).toBe('left');
    simulation.chain.setConnected('primary', true);
    primary.reconnect();
    simulation.stopped.delete(primary);
    simulation.run(2500);
    expect(simulation.active).toBe('primary');
    // Once: a source that comes and goes is waited for.
    simulation.stopped.add(primary);
    simulation.run(2000);
    simulation.stopped.delete(primary);
    simulation.run(3000);
    expect(simulation.active).toBe('slate');
    checkContract(simulation.events);
    expect(discontinuities(simulation.events)).toBe(0);
  });

  it.each([
    ['a moment', 2500],
    ['ten seconds', 10_000],
  ])('is not gone back to while what it made in %s comes in all at once', (_what, heldUpMs) => {
    const primary = new Encoder('primary', { gopMs: 1000 });
    const simulation = new Simulation([primary, new Encoder('backup'), slate()]);
    simulation.run(8000);
    simulation.stopped.add(primary);
    simulation.run(heldUpMs);
    expect(simulation.active).toBe('backup');
    simulation.deliver(primary, heldUpMs);
    simulation.stopped.delete(primary);
    simulation.run(12_000);
    expect(simulation.active).toBe('primary');
    checkContract(simulation.events);
    const aheadMs = Math.max(...simulation.pictures().map(({ ms, atMs }) => ms - atMs));
    expect(aheadMs).toBeLessThan(100);
  });

  it('is waited for where nothing can stand in for it', () => {
    const primary = new Encoder('primary');
    const simulation = new Simulation([primary]);
    simulation.run(4000);
    simulation.stopped.add(primary);
    simulation.run(5000);
    simulation.stopped.delete(primary);
    simulation.run(4000);
    expect(simulation.active).toBe('primary');
    checkContract(simulation.events);
  });
});

describe('a change of source', () => {
  it('is a discontinuity where the codec configuration differs, and only there', () => {
    const primary = new Encoder('primary', { config: 1 });
    const backup = new Encoder('backup', { config: 2 });
    const simulation = new Simulation([primary, backup, slate({ config: 2 })]);
    simulation.run(8000);
    simulation.stopped.add(primary);
    simulation.run(3000);
    expect(simulation.active).toBe('backup');
    expect(discontinuities(simulation.events)).toBe(1);
    simulation.stopped.add(backup);
    simulation.run(3000);
    expect(simulation.active).toBe('slate');
    expect(discontinuities(simulation.events)).toBe(1);
    checkContract(simulation.events);
  });

  it('keeps playout where its schedule says', () => {
    const primary = new Encoder('primary');
    const simulation = new Simulation([primary, playout()]);
    simulation.run(20_000);
    simulation.stopped.add(primary);
    simulation.run(6000);
    const onAir = simulation.pictures().filter(({ source }) => source === 'playout');
    // The pictures of a frame grid of 40 ms, where the grid began with the simulation.
    for (const { ms } of onAir.slice(-50)) expect((ms - START_MS) % 40).toBe(0);
  });

  it('names the programme of the source', () => {
    const primary = new Encoder('primary');
    const simulation = new Simulation([primary, slate()]);
    simulation.run(8000);
    simulation.stopped.add(primary);
    simulation.run(6000);
    const ids = simulation.events.flatMap((event) => (event.type === 'cue' ? [event.cue.programmeId] : []));
    expect(ids[0]).toBe('live-test');
    expect(ids.at(-1)).toBe('slate');
  });

  it('follows the operator, and the chain again when the operator says so', () => {
    const simulation = new Simulation([new Encoder('primary'), playout(), slate()]);
    simulation.run(10_000);
    simulation.chain.configure(['primary', 'playout', 'slate'], 'slate');
    simulation.run(2500);
    expect([simulation.active, simulation.chain.active?.reason]).toEqual(['slate', 'manual']);
    simulation.run(10_000);
    expect(simulation.active).toBe('slate');
    simulation.chain.configure(['primary', 'playout', 'slate'], 'auto');
    simulation.run(2500);
    expect(simulation.active).toBe('primary');
    checkContract(simulation.events);
    expect(discontinuities(simulation.events)).toBe(0);
  });
});

describe('a source whose clock is set back', () => {
  it('is left at once, and gone back to when it has been well for a while', () => {
    const primary = new Encoder('primary', { clockMs: 60_000 });
    const simulation = new Simulation([primary, playout()]);
    simulation.run(8000);
    primary.setClock(10_000);
    simulation.run(100);
    expect([simulation.active, simulation.chain.active?.reason]).toEqual(['playout', 'clock']);
    simulation.run(8000);
    expect(simulation.active).toBe('primary');
    checkContract(simulation.events);
    expect(discontinuities(simulation.events)).toBe(0);
  });
});

describe('a black picture that does not move', () => {
  it('counts as a fault until it moves again', () => {
    const simulation = new Simulation([new Encoder('primary'), slate()]);
    simulation.run(8000);
    simulation.chain.setDark('primary', true);
    simulation.run(100);
    expect([simulation.active, simulation.chain.active?.reason]).toEqual(['slate', 'dark']);
    simulation.chain.setDark('primary', false);
    simulation.run(8000);
    expect(simulation.active).toBe('primary');
    checkContract(simulation.events);
  });
});

describe('black pictures where there is nothing else', () => {
  it('are shown, from the start and when they come', () => {
    const simulation = new Simulation([new Encoder('primary')]);
    simulation.chain.setDark('primary', true);
    simulation.run(3000);
    expect(simulation.active).toBe('primary');
    simulation.chain.setDark('primary', false);
    simulation.run(1000);
    simulation.chain.setDark('primary', true);
    simulation.run(3000);
    expect(simulation.active).toBe('primary');
    checkContract(simulation.events);
    expect(discontinuities(simulation.events)).toBe(0);
    expect(simulation.nowMs - (simulation.pictures().at(-1)?.ms ?? 0)).toBeLessThanOrEqual(200);
  });
});

describe('whatever happens', () => {
  interface Action {
    readonly ms: number;
    readonly what: string;
    readonly who: number;
    readonly byMs: number;
  }
  const action: fc.Arbitrary<Action> = fc.record({
    ms: fc.integer({ min: 20, max: 4000 }),
    what: fc.constantFrom('stop', 'go', 'reconnect', 'leave', 'back', 'forth', 'dark', 'light', 'choose'),
    who: fc.integer({ min: 0, max: 3 }),
    byMs: fc.integer({ min: 0, max: 30_000 }),
  });
  const encoder = fc.record({
    gopMs: fc.constantFrom(400, 1000, 2000, 4000, 10_000),
    frameMs: fc.constantFrom(16, 20, 33, 40),
    clockMs: fc.integer({ min: 0, max: 1_000_000 }),
    config: fc.constantFrom(1, 1, 1, 2),
    hasSound: fc.constantFrom(true, true, true, false),
  });

  /** Runs a script; the scheduled sources stay well, so the channel must never stop. */
  function play(options: readonly EncoderOptions[], script: readonly Action[]) {
    const live = [new Encoder('primary', options[0]), new Encoder('backup', options[1])];
    const simulation = new Simulation([...live, playout(), slate()]);
    const lastMs: number[] = [];
    const run = (ms: number) => {
      simulation.run(ms);
      const pictureMs = simulation.pictures().at(-1)?.ms ?? START_MS;
      lastMs.push(simulation.nowMs - pictureMs);
    };
    run(3000);
    for (const { ms, what, who, byMs } of script) {
      const source = simulation.encoders[who];
      const encoder = live[who % 2];
      if (encoder === undefined || source === undefined) continue;
      if (what === 'stop') simulation.stopped.add(encoder);
      if (what === 'go') simulation.stopped.delete(encoder);
      if (what === 'leave' || what === 'reconnect') {
        simulation.chain.setConnected(encoder.name, what === 'reconnect');
        if (what === 'leave') simulation.stopped.add(encoder);
        else simulation.stopped.delete(encoder);
        encoder.reconnect();
      }
      if (what === 'back') encoder.setClock(byMs);
      if (what === 'forth') encoder.setClock(1_000_000 + byMs * 1000);
      if (what === 'dark' || what === 'light') simulation.chain.setDark(encoder.name, what === 'dark');
      if (what === 'choose') {
        const choice = byMs % 2 === 0 ? 'auto' : source.name;
        simulation.chain.configure(['primary', 'backup', 'playout', 'slate'], choice);
      }
      run(ms);
    }
    return { simulation, lateMs: Math.max(...lastMs) };
  }

  /**
   * Found by the property below. The backup stops 197 ms before the schedule's next key frame, in a segment that
   * is already 2.36 s long: with the hole it would have outlasted the target duration.
   */
  it('a small hole before a scheduled source is filled where the open segment is too long to take it in', () => {
    const encoders = [
      { gopMs: 400, frameMs: 16 },
      { gopMs: 4000, frameMs: 16 },
    ];
    const { simulation } = play(encoders, [
      { ms: 340, what: 'light', who: 0, byMs: 0 },
      { ms: 2980, what: 'forth', who: 0, byMs: 0 },
      { ms: 1400, what: 'stop', who: 1, byMs: 0 },
      { ms: 3800, what: 'go', who: 1, byMs: 0 },
      { ms: 720, what: 'dark', who: 0, byMs: 0 },
      { ms: 3500, what: 'stop', who: 0, byMs: 0 },
      { ms: 20, what: 'stop', who: 1, byMs: 0 },
      { ms: 240, what: 'stop', who: 0, byMs: 0 },
      { ms: 20, what: 'dark', who: 1, byMs: 0 },
    ]);
    checkContract(simulation.events);
    expect(simulation.active).toBe('playout');
    expect(discontinuities(simulation.events)).toBe(0);
  });

  /** The same scripts in every run. The second seed once found a needless discontinuity. */
  const seeds = [20261122, 524669191];

  it.each(seeds)(
    'the events keep their contract, and the pictures never stop for more than a second (%i)',
    (seed) => {
      fc.assert(
        fc.property(encoder, encoder, fc.array(action, { maxLength: 12 }), (primary, backup, script) => {
          const { simulation, lateMs } = play([primary, backup], script);
          checkContract(simulation.events);
          const pictures = simulation.pictures();
          const longest = Math.max(...pictures.slice(1).map(({ ms }, i) => ms - (pictures[i]?.ms ?? ms)));
          expect(longest).toBeLessThanOrEqual(1000);
          expect(lateMs).toBeLessThanOrEqual(1100);
        }),
        { seed, numRuns: 150 },
      );
    },
  );

  it.each(seeds)('there is no discontinuity as long as all configurations are equal (%i)', (seed) => {
    fc.assert(
      fc.property(encoder, encoder, fc.array(action, { maxLength: 12 }), (primary, backup, script) => {
        const same = { config: 1, hasSound: true };
        const { simulation } = play(
          [
            { ...primary, ...same },
            { ...backup, ...same },
          ],
          script,
        );
        expect(discontinuities(simulation.events)).toBe(0);
      }),
      { seed, numRuns: 150 },
    );
  });
});
