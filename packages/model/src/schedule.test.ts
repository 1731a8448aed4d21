import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AssetFacts,
  numberedOn,
  programmeAfter,
  programmeAt,
  type Run,
  segmentIndexFrom,
  segmentStartTicks,
} from './schedule.ts';
import { passOrder } from './shuffle.ts';

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
      originTicks: SECOND,
      firstSegmentIndex: 0,
      segmentCount: 3,
      firstMediaSequenceNumber: 100,
      discontinuitySequence: 7,
      programmeId: 'r90000-l0-i0',
      programme: undefined,
      tracks: { heightsPx: [720], languages: [null] },
    });
    // Two loops of 11 s and the 6 s of the news later.
    expect(programmeAt(runs, assets, (1 + 22 + 6) * SECOND)).toEqual({
      assetId: 'film',
      itemIndex: 1,
      loopIndex: 2,
      startTicks: 29 * SECOND,
      endTicks: 34 * SECOND,
      originTicks: 29 * SECOND,
      firstSegmentIndex: 0,
      segmentCount: 3,
      firstMediaSequenceNumber: 100 + 12 + 3,
      discontinuitySequence: 7,
      programmeId: 'r90000-l2-i1',
      programme: undefined,
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

describe('segments', () => {
  it('start every 2 s; a short rest shares its length with the segment before', () => {
    const starts = (durationTicks: number, frameRate = 25) => {
      const asset = { ...facts(durationTicks, Math.ceil(durationTicks / (2 * SECOND))), frameRate };
      return Array.from({ length: asset.segmentCount }, (_, i) => segmentStartTicks(asset, i) / SECOND);
    };
    expect(starts(4 * SECOND)).toEqual([0, 2]);
    expect(starts(5 * SECOND)).toEqual([0, 2, 4]);
    expect(starts(4.5 * SECOND, 24)).toEqual([0, 2, 3.25]);
    expect(starts(0.5 * SECOND)).toEqual([0]);
    // 2.04 s at 25 fps: 51 frames, 25 of them in the second segment.
    expect(starts(2.04 * SECOND)).toEqual([0, 1.04]);
  });

  it('are found by an offset', () => {
    const asset = { ...facts(4.5 * SECOND, 3), frameRate: 24 };
    const offsets = [0, 0.1, 2, 2.1, 3.25, 3.3, 4, 4.4];
    expect(offsets.map((offset) => segmentIndexFrom(asset, offset * SECOND))).toEqual([
      0, 1, 1, 2, 2, 3, 3, 3,
    ]);
  });
});

describe('a cut item', () => {
  const cutAt = (seconds: number) =>
    programmeAt([run(0, ['news']), run(seconds * SECOND, ['film'])], assets, 0)?.segmentCount;

  it('has the segments that have begun', () => {
    expect([0.1, 2, 2.5, 4, 4.5, 6, 7].map(cutAt)).toEqual([1, 1, 2, 2, 3, 3, 3]);
  });

  it('gives a rest of less than half a second to the segment before', () => {
    expect([2.1, 2.499, 4.1].map(cutAt)).toEqual([1, 1, 2]);
  });
});

describe('a run that joins its loop in progress', () => {
  it('begins in the middle of an item and is numbered from there', () => {
    // 12 s into the loop of 11 s: 1 s into the second pass's news is no start of a segment, 13 s is.
    const runs = [{ ...run(100 * SECOND, ['news', 'film'], 50, 3), originTicks: (100 - 13) * SECOND }];
    expect(programmeAt(runs, assets, 100 * SECOND)).toMatchObject({
      assetId: 'news',
      loopIndex: 1,
      startTicks: 100 * SECOND,
      originTicks: 98 * SECOND,
      endTicks: 104 * SECOND,
      firstSegmentIndex: 1,
      segmentCount: 2,
      firstMediaSequenceNumber: 50,
      discontinuitySequence: 3,
    });
    expect(programmeAt(runs, assets, 104 * SECOND)).toMatchObject({
      assetId: 'film',
      originTicks: 104 * SECOND,
      firstSegmentIndex: 0,
      firstMediaSequenceNumber: 52,
      discontinuitySequence: 3,
    });
  });
});

describe('a shuffled loop', () => {
  const many = new Map(Array.from({ length: 8 }, (_, i) => [`${i}`, facts((2 + i) * SECOND, 1)]));

  it('plays every item once in each pass, in an order of its own, and none twice in a row', () => {
    const runs = [{ ...run(0, [...many.keys()]), shuffleSeed: 7 }];
    const played: string[] = [];
    for (let ticks = 0; played.length < 8 * 200; ) {
      const position = programmeAt(runs, many, ticks);
      played.push(position?.assetId ?? '');
      ticks = position?.endTicks ?? 0;
    }
    const passes = Array.from({ length: 200 }, (_, i) => played.slice(8 * i, 8 * i + 8));
    for (const pass of passes) expect([...pass].sort()).toEqual([...many.keys()]);
    expect(new Set(passes.map(String)).size).toBe(200);
    expect(played.filter((assetId, i) => assetId === played[i + 1])).toEqual([]);
    // Every item comes in every place: 200 passes, so 25 each on average.
    for (const assetId of many.keys()) {
      for (let place = 0; place < 8; place++) {
        expect(passes.filter((pass) => pass[place] === assetId).length).toBeGreaterThan(8);
      }
    }
  });

  it('is the same in every version of the program', () => {
    // What is on the air must not change with an update. Change the algorithm only together with the field.
    expect(passOrder(Array(8).fill('a'), 7, 0)).toEqual([5, 7, 0, 1, 4, 6, 3, 2]);
    expect(passOrder(['a', 'b', 'a', 'b', 'a'], 7, 3)).toEqual([0, 4, 2, 1, 3]);
  });
});

describe('numberedOn', () => {
  const content = (startTicks: number, ...loop: string[]) => ({ startTicks, loop });

  it('starts a channel at 0', () => {
    expect(numberedOn([], assets, content(42, 'film'))).toEqual(run(42, ['film']));
  });

  it('goes on where the run before is cut', () => {
    const before = [run(0, ['news', 'film'])];
    // News 6 s, film 5 s, news again from 11 s on: 17 s is its end, 14 s is 3 s into it.
    expect(numberedOn(before, assets, content(17 * SECOND, 'film'))).toEqual(
      run(17 * SECOND, ['film'], 9, 0),
    );
    expect(numberedOn(before, assets, content(14 * SECOND, 'foreign'))).toEqual(
      run(14 * SECOND, ['foreign'], 8, 1),
    );
  });

  it('puts a discontinuity after time in which nothing is on', () => {
    const runs = [run(0, ['news'])];
    runs.push(numberedOn(runs, assets, content(6 * SECOND)));
    runs.push(numberedOn(runs, assets, content(60 * SECOND, 'news')));
    const tracks = { heightsPx: [720], languages: [null] }; // kept for what comes after
    const nothing = { ...run(6 * SECOND, [], 3, 1), tracks };
    expect(runs.slice(1)).toEqual([nothing, run(60 * SECOND, ['news'], 3, 1)]);
    expect(programmeAt(runs, assets, 30 * SECOND)).toBeUndefined();
  });

  it('keeps the tracks that a channel has, and marks it where others come', () => {
    const german = { language: 'de', loudnessLufs: -20, gainDb: -3 };
    const more = new Map([...assets, ['german', { ...facts(4 * SECOND, 2), audioTracks: [german] }]]);
    const runs = [run(0, ['news'])];
    const next = (...args: Parameters<typeof content>) => {
      runs.push(numberedOn(runs, more, content(...args)));
      return runs.at(-1);
    };
    const tracks = { heightsPx: [720], languages: ['de'] };
    expect(next(6 * SECOND, 'german')).toEqual(run(6 * SECOND, ['german'], 3, 1)); // its own are all there are
    expect(next(10 * SECOND, 'news')).toEqual({ ...run(10 * SECOND, ['news'], 5, 1), tracks });
    expect(next(16 * SECOND)).toEqual({ ...run(16 * SECOND, [], 8, 2), tracks });
    expect(next(60 * SECOND, 'news')).toEqual({ ...run(60 * SECOND, ['news'], 8, 2), tracks });
    expect(programmeAt(runs, more, 61 * SECOND)).toMatchObject({ assetId: 'news', tracks });
  });

  it('refuses a run in the past', () => {
    expect(() => numberedOn([run(10, ['news'])], assets, content(10, 'film'))).toThrow(/cannot follow/);
  });
});
