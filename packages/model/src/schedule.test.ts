import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AssetFacts, programmeAfter, programmeAt, type Run, withLoopAfter } from './schedule.ts';

function facts(durationTicks: number, segmentCount: number, config = 'a'): AssetFacts {
  return {
    contentHash: '0'.repeat(64),
    configHash: config.repeat(64),
    durationTicks,
    segmentCount,
    sizeBytes: 1,
    widthPx: 1280,
    heightPx: 720,
    frameRate: 25,
    videoTracks: [{ widthPx: 1280, heightPx: 720, bitrateBps: 2_000_000 }],
    audioTracks: [{ language: null, loudnessLufs: -20, gainDb: -3 }],
    subtitles: [],
    hasPictures: true,
  };
}

const SECOND = 90_000;
const DAY = 86_400 * SECOND;

/** News 6 s in 3 segments, film 5 s in 3, both of one configuration; foreign 4 s in 2 of another. */
const assets = new Map([
  ['news', facts(6 * SECOND, 3)],
  ['film', facts(5 * SECOND, 3)],
  ['foreign', facts(4 * SECOND, 2, 'b')],
]);

function run(
  startTicks: number,
  loop: string[],
  firstMediaSequenceNumber = 0,
  firstDiscontinuitySequence = 0,
): Run {
  return { startTicks, firstMediaSequenceNumber, firstDiscontinuitySequence, loop };
}

describe('programmeAt', () => {
  it('finds item, loop and segment number', () => {
    const runs = [run(SECOND, ['news', 'film'], 100, 7)];
    expect(programmeAt(runs, assets, SECOND)).toEqual({
      assetId: 'news',
      itemIndex: 0,
      loopIndex: 0,
      startTicks: SECOND,
      endTicks: 7 * SECOND,
      firstMediaSequenceNumber: 100,
      discontinuitySequence: 7,
      programmeId: 'r90000-l0-i0',
      tracks: { heightsPx: [720], languages: [null] },
    });
    // Two loops of 11 s and the 6 s of the news later.
    expect(programmeAt(runs, assets, (1 + 22 + 6) * SECOND)).toEqual({
      assetId: 'film',
      itemIndex: 1,
      loopIndex: 2,
      startTicks: 29 * SECOND,
      endTicks: 34 * SECOND,
      firstMediaSequenceNumber: 100 + 12 + 3,
      discontinuitySequence: 7,
      programmeId: 'r90000-l2-i1',
      tracks: { heightsPx: [720], languages: [null] },
    });
  });

  it('has nothing before the first run and in a run with an unknown asset', () => {
    expect(programmeAt([], assets, 0)).toBeUndefined();
    expect(programmeAt([run(10, ['news'])], assets, 9)).toBeUndefined();
    expect(programmeAt([run(10, ['news', 'lost'])], assets, 10)).toBeUndefined();
  });

  it('raises the discontinuity sequence where the configuration changes, from last to first too', () => {
    const runs = [run(0, ['news', 'film', 'foreign'])];
    const sequences: number[] = [];
    for (let ticks = 0, i = 0; i < 7; i++) {
      const position = programmeAt(runs, assets, ticks);
      sequences.push(position?.discontinuitySequence ?? -1);
      ticks = position?.endTicks ?? 0;
    }
    //              news film foreign | news film foreign | news
    expect(sequences).toEqual([0, 0, 1, 2, 2, 3, 4]);
  });

  it('cuts a run where the next one starts', () => {
    const runs = [run(0, ['news']), run(8 * SECOND, ['film'], 4, 1)];
    expect(programmeAt(runs, assets, 7 * SECOND)).toMatchObject({
      assetId: 'news',
      startTicks: 6 * SECOND,
      endTicks: 8 * SECOND,
    });
    expect(programmeAt(runs, assets, 8 * SECOND)).toMatchObject({
      assetId: 'film',
      firstMediaSequenceNumber: 4,
      discontinuitySequence: 1,
      programmeId: 'r720000-l0-i0',
    });
  });

  it('stays exact after a century', () => {
    const odd = new Map([
      ['a', facts(2_880_001, 17)],
      ['b', facts(1_919_999, 11, 'b')],
    ]);
    const ticks = 36_525 * DAY + 123_457;
    const loopTicks = 2_880_001n + 1_919_999n;
    const elapsed = BigInt(ticks) - 7n;
    const loops = elapsed / loopTicks;
    const isFirst = elapsed % loopTicks < 2_880_001n;
    expect(programmeAt([run(7, ['a', 'b'], 5, 3)], odd, ticks)).toMatchObject({
      loopIndex: Number(loops),
      startTicks: Number(7n + loops * loopTicks + (isFirst ? 0n : 2_880_001n)),
      firstMediaSequenceNumber: Number(5n + loops * 28n + (isFirst ? 0n : 17n)),
      discontinuitySequence: Number(3n + loops * 2n + (isFirst ? 0n : 1n)),
    });
  });

  const anyAssets = fc
    .array(
      fc.record({
        durationTicks: fc.integer({ min: 1, max: 1000 }),
        segmentCount: fc.integer({ min: 1, max: 9 }),
        config: fc.constantFrom('a', 'b', 'c'),
      }),
      { minLength: 1, maxLength: 6 },
    )
    .map(
      (list) =>
        new Map(list.map((one, i) => [`${i}`, facts(one.durationTicks, one.segmentCount, one.config)])),
    );

  it('plays items one after another without gap or overlap, each numbered on from the one before', () => {
    fc.assert(
      fc.property(
        anyAssets,
        fc.integer({ min: 0, max: 500 }),
        fc.integer({ min: 0, max: 2 ** 45 }),
        (known, startTicks, offsetTicks) => {
          const runs = [run(startTicks, [...known.keys()], 11, 5)];
          let position = programmeAt(runs, known, startTicks + offsetTicks);
          for (let i = 0; i < 15; i++) {
            if (!position) throw new Error('nothing is on');
            const item = known.get(position.assetId);
            const next = programmeAfter(runs, known, position);
            expect(position.endTicks - position.startTicks).toBe(item?.durationTicks);
            expect(next?.startTicks).toBe(position.endTicks);
            expect(next?.firstMediaSequenceNumber).toBe(
              position.firstMediaSequenceNumber + (item?.segmentCount ?? 0),
            );
            const isChange = item?.configHash !== known.get(next?.assetId ?? '')?.configHash;
            expect(next?.discontinuitySequence).toBe(position.discontinuitySequence + (isChange ? 1 : 0));
            // The same answer at every time within the item.
            expect(programmeAt(runs, known, position.endTicks - 1)).toEqual(position);
            position = next;
          }
        },
      ),
    );
  });
});

describe('withLoopAfter', () => {
  it('begins the new loop where the item ends, numbered on', () => {
    const before = [run(0, ['news', 'film'])];
    const after = withLoopAfter(before, assets, 12 * SECOND, ['foreign', 'news']);
    expect(after).toEqual([run(0, ['news', 'film']), run(17 * SECOND, ['foreign', 'news'], 9, 1)]);
    // What was on is not touched.
    for (const ticks of [0, 7 * SECOND, 16.9 * SECOND]) {
      expect(programmeAt(after, assets, ticks)).toEqual(programmeAt(before, assets, ticks));
    }
  });

  it('gives up an edit that did not begin yet', () => {
    const once = withLoopAfter([run(0, ['news'])], assets, SECOND, ['film']);
    expect(withLoopAfter(once, assets, 2 * SECOND, ['foreign'])).toEqual([
      run(0, ['news']),
      run(6 * SECOND, ['foreign'], 3, 1),
    ]);
  });

  it('keeps the tracks that a channel has, and marks it where others come', () => {
    const german = { language: 'de', loudnessLufs: -20, gainDb: -3 };
    const more = new Map([...assets, ['german', { ...facts(4 * SECOND, 2), audioTracks: [german] }]]);
    const added = withLoopAfter([run(0, ['news'])], more, SECOND, ['german']);
    expect(added.at(-1)).toEqual(run(6 * SECOND, ['german'], 3, 1)); // its own tracks are all there are
    const back = withLoopAfter(added, more, 7 * SECOND, ['news']);
    const tracks = { heightsPx: [720], languages: ['de'] };
    expect(back.at(-1)).toEqual({ ...run(10 * SECOND, ['news'], 5, 1), tracks });
    expect(programmeAt(back, more, 11 * SECOND)).toMatchObject({ assetId: 'news', tracks });
  });

  it('starts a channel that had no programme', () => {
    expect(withLoopAfter([], assets, 42, ['film'])).toEqual([run(42, ['film'])]);
  });
});
