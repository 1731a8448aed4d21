import type { ImportReport } from '@starling/model/entities';
import { defaultLibrarySettings } from '@starling/model/library';
import type { AssetFacts } from '@starling/model/schedule';
import { pino } from 'pino';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { BackendError, type BackendErrorCode } from './error.ts';
import { Imports } from './imports.ts';
import type { ImportOptions } from './library.ts';

const facts: AssetFacts = {
  contentHash: 'a'.repeat(64),
  configHash: 'b'.repeat(64),
  durationTicks: 180_000,
  segmentCount: 1,
  sizeBytes: 1000,
  widthPx: 1280,
  heightPx: 720,
  frameRate: 25,
  videoTracks: [{ widthPx: 1280, heightPx: 720, bitrateBps: 4000 }],
  audioTracks: [{ language: null, loudnessLufs: null, gainDb: 0 }],
  subtitles: [],
  hasPictures: true,
};

/** A library whose imports end when the test says so. */
function startImports(options: { retryWaitsMs?: number[] } = {}) {
  const running = new Map<string, { end(outcome?: BackendErrorCode): void }>();
  const begun: string[] = [];
  const reports: [assetId: string, report: ImportReport][] = [];
  const run = (source: string, { signal }: ImportOptions) =>
    new Promise<AssetFacts>((resolve, reject) => {
      begun.push(source);
      const end = (code?: BackendErrorCode) => {
        running.delete(source);
        if (code === undefined) resolve(facts);
        else reject(new BackendError(code, `${source}: ${code}.`));
      };
      running.set(source, { end });
      signal.addEventListener('abort', () => end('IMPORT_CANCELLED'));
    });
  const imports = new Imports({
    library: {
      import: (source, _settings, importOptions) => run(source, importOptions),
      importFrom: ({ identity }, importOptions) => run(identity, importOptions),
    },
    coordinator: {
      async reportImport(assetId, report) {
        reports.push([assetId, report]);
      },
    },
    logger: pino({ level: 'silent' }),
    parallelism: 2,
    ...options,
  });
  open.push(imports);
  const queue = (...names: string[]) =>
    imports.setQueue(
      names.map((name) => ({ assetId: name, source: `/${name}`, attempt: 1 })),
      defaultLibrarySettings,
    );
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  return { imports, running, begun, reports, queue, settled };
}

const open: Imports[] = [];
afterEach(async () => {
  vi.useRealTimers();
  for (const imports of open.splice(0)) await imports.close();
});

describe('the queue of imports', () => {
  it('runs as many at once as it may, the oldest first', async () => {
    const { running, begun, reports, queue, settled } = startImports();
    queue('a', 'b', 'c', 'd');
    expect(begun).toEqual(['/a', '/b']);
    running.get('/b')?.end();
    await settled();
    expect(begun).toEqual(['/a', '/b', '/c']);
    expect(reports).toEqual([['b', { state: 'ready', facts }]]);
    queue('a', 'b', 'c', 'd'); // the coordinator's word from before the report
    running.get('/a')?.end('IMPORT_NOT_MEDIA');
    await settled();
    expect(begun).toEqual(['/a', '/b', '/c', '/d']);
    expect(reports.at(-1)).toEqual(['a', { state: 'failed', error: '/a: IMPORT_NOT_MEDIA.' }]);
  });

  it('stops what is no longer wanted, says nothing about it, and goes on', async () => {
    const { running, begun, reports, queue, settled } = startImports();
    queue('a', 'b', 'c');
    queue('b', 'c');
    await settled();
    expect(begun).toEqual(['/a', '/b', '/c']);
    expect([...running.keys()]).toEqual(['/b', '/c']);
    expect(reports).toEqual([]);
  });

  it('runs one again that the operator asks for again, also when its end and the wish come in one', async () => {
    const { imports, running, begun, queue, settled } = startImports();
    queue('a');
    running.get('/a')?.end('IMPORT_NOT_MEDIA');
    await settled();
    imports.setQueue([{ assetId: 'a', source: '/a', attempt: 2 }], defaultLibrarySettings);
    expect(begun).toEqual(['/a', '/a']);
  });

  it('tries again what may pass, later each time, and gives its turn to others meanwhile', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const { running, begun, reports, queue, settled } = startImports({ retryWaitsMs: [1000, 10_000] });
    queue('a', 'b', 'c');
    running.get('/a')?.end('IMPORT_URL_FAILED');
    await settled();
    expect(begun).toEqual(['/a', '/b', '/c']);
    expect(reports).toEqual([['a', { state: 'queued', error: '/a: IMPORT_URL_FAILED.' }]]);
    running.get('/b')?.end();
    await settled();
    vi.advanceTimersByTime(700);
    expect(begun).toHaveLength(3);
    vi.advanceTimersByTime(600);
    expect(begun).toEqual(['/a', '/b', '/c', '/a']);
    running.get('/a')?.end('IMPORT_URL_FAILED');
    await settled();
    vi.advanceTimersByTime(7000);
    expect(begun).toHaveLength(4);
    vi.advanceTimersByTime(6000);
    expect(begun).toHaveLength(5);
    running.get('/a')?.end('IMPORT_URL_FAILED'); // once more than there are waits
    await settled();
    expect(reports.at(-1)).toEqual(['a', { state: 'failed', error: '/a: IMPORT_URL_FAILED.' }]);
  });

  it('does not try again what was cancelled while it waited', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const { running, begun, queue, settled } = startImports({ retryWaitsMs: [1000] });
    queue('a');
    running.get('/a')?.end('IMPORT_STALLED');
    await settled();
    queue();
    vi.advanceTimersByTime(10_000);
    expect(begun).toEqual(['/a']);
  });
});
