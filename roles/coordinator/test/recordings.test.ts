import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BackendState } from '@starling/model/entities';
import type { ReportedRecording } from '@starling/model/recording';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addReadyAsset, type Lab, operatorToken, startLab } from './support.ts';

const [A, B] = ['a'.repeat(16), 'b'.repeat(16)] as [string, string];
let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
  await lab.operator.channels.create({ name: 'films', loop: [await addReadyAsset(lab, 'film', 10)] });
  await lab.operator.streams.create({ name: 'cam' });
}, 60_000);
afterAll(() => lab.close());

/** What the backends are told now. */
async function orders(): Promise<BackendState['recordings']> {
  const watch = new AbortController();
  let told: BackendState | undefined;
  await lab.node.watchBackendState((state) => {
    told = state;
    watch.abort();
  }, watch.signal);
  if (told === undefined) throw new Error('nothing was told');
  return told.recordings;
}

const part = (number: number, second: number, dir = '/srv/starling') => ({
  number,
  startedAt: new Date(Date.UTC(2026, 10, 22, 12, 0, second)).toISOString(),
  durationMs: 4000,
  sizeBytes: 1000,
  path: `${dir}/recordings/${'0'.repeat(16)}/part-${number}.mp4`,
});

function reported(id: string, changes: Partial<ReportedRecording> = {}): ReportedRecording {
  const createdAt = '2026-11-22T12:00:00.000Z';
  const source = { channel: 'films', stream: null, isAutomatic: false };
  return {
    id,
    name: 'n',
    ...source,
    createdAt,
    isRecording: true,
    end: null,
    parts: [part(1, 0)],
    ...changes,
  };
}

const report = (nodeId: string, recordings: ReportedRecording[], removedIds: string[] = []) =>
  lab.node.reportRecordings({ nodeId, recordings, removedIds });

describe('a recording', () => {
  it('is wanted until it is stopped, and grows as the backend says', async () => {
    const { id, name, state } = await lab.operator.recordings.start({ channel: 'films' });
    expect([name, state]).toEqual(['films 2026-11-22T12:00:00.640Z', 'waiting']);
    expect((await orders()).wanted).toMatchObject([{ id, channel: 'films', stream: null }]);

    await report(A, [reported(id)]);
    await report(A, [reported(id, { parts: [{ ...part(1, 0), durationMs: 9000, sizeBytes: 5000 }] })]);
    expect(await lab.operator.recordings.get(id)).toMatchObject({
      state: 'recording',
      durationMs: 9000,
      sizeBytes: 5000,
      startedAt: '2026-11-22T12:00:00.000Z',
    });
    await expect(lab.operator.recordings.import(id)).rejects.toMatchObject({ code: 'RECORDING_NOT_ENDED' });

    expect(await lab.operator.recordings.stop(id)).toMatchObject({ state: 'stopping', endReason: 'stopped' });
    expect((await orders()).wanted).toEqual([]);
    const end = { reason: 'stopped', at: '2026-11-22T12:00:09.000Z' } as const;
    await report(A, [reported(id, { isRecording: false, end })]);
    expect(await lab.operator.recordings.stop(id)).toMatchObject({ state: 'ended', sizeBytes: 1000 });
  });

  it('is of a channel or a stream that there is', async () => {
    const { recordings } = lab.operator;
    await expect(recordings.start({ channel: 'none' })).rejects.toMatchObject({ code: 'CHANNEL_UNKNOWN' });
    await expect(recordings.start({ stream: 'none' })).rejects.toMatchObject({ code: 'STREAM_UNKNOWN' });
    await expect(recordings.start({})).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(recordings.start({ channel: 'films', stream: 'cam' })).rejects.toMatchObject({
      status: 400,
    });
    await expect(recordings.get('f'.repeat(16))).rejects.toMatchObject({ code: 'RECORDING_UNKNOWN' });
  });

  it('ends by a fault on the disk, and is not wanted any more', async () => {
    const { id } = await lab.operator.recordings.start({ channel: 'films' });
    const end = { reason: 'disk-full', at: '2026-11-22T12:00:04.000Z' } as const;
    await report(A, [reported(id, { isRecording: false, end })]);
    expect(await lab.operator.recordings.get(id)).toMatchObject({
      state: 'ended',
      endReason: 'disk-full',
      endedAt: end.at,
    });
    expect((await orders()).wanted).toEqual([]);
  });

  it('goes on with another backend, and has the files of both in order', async () => {
    const { id } = await lab.operator.recordings.start({ stream: 'cam', name: 'Concert' });
    await report(A, [reported(id, { channel: null, stream: 'cam' })]);
    await report(B, [reported(id, { channel: null, stream: 'cam', parts: [part(1, 7)] })]);
    // The first comes back from the dead, and has nothing more to add.
    const end = { reason: 'interrupted', at: '2026-11-22T12:00:04.000Z' } as const;
    await report(A, [reported(id, { channel: null, stream: 'cam', isRecording: false, end })]);
    const recording = await lab.operator.recordings.get(id);
    expect(recording).toMatchObject({ name: 'Concert', state: 'recording', durationMs: 8000 });
    expect(recording.parts.map(({ number, backend }) => [number, backend])).toEqual([
      [1, A],
      [2, B],
    ]);
    await lab.operator.streams.remove('cam');
    expect(await lab.operator.recordings.get(id)).toMatchObject({ endReason: 'source-removed' });
  });

  it('of a channel that is always recorded is taken in as the backend makes it', async () => {
    const record = { maxHours: 48, maxBytes: 2e9 };
    expect(await lab.operator.channels.update('films', { record })).toMatchObject({ record });
    const id = 'c'.repeat(16);
    await report(A, [reported(id, { isAutomatic: true })]);
    expect(await lab.operator.recordings.get(id)).toMatchObject({ isAutomatic: true, state: 'recording' });
    await expect(lab.operator.recordings.stop(id)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await report(A, [], [id]);
    await expect(lab.operator.recordings.get(id)).rejects.toMatchObject({ code: 'RECORDING_UNKNOWN' });
  });

  it('is gone at once when it is removed, and its files as soon as the backend has heard', async () => {
    const { id } = await lab.operator.recordings.start({ channel: 'films' });
    await report(A, [reported(id)]);
    await lab.operator.recordings.remove(id);
    await expect(lab.operator.recordings.get(id)).rejects.toMatchObject({ code: 'RECORDING_UNKNOWN' });
    expect((await orders()).removedIds).toContain(id);
    await report(A, [reported(id, { isRecording: false })]);
    expect((await orders()).removedIds).toContain(id);
    await report(A, [], [id]);
    expect((await orders()).removedIds).not.toContain(id);
  });

  it('is imported file by file', async () => {
    const { id } = await lab.operator.recordings.start({ channel: 'films', name: 'Night' });
    await report(A, [reported(id, { parts: [part(1, 0), part(2, 8)], isRecording: false })]);
    await lab.operator.recordings.stop(id);
    const assets = await lab.operator.recordings.import(id);
    expect(assets.map(({ name, source }) => [name, source])).toEqual([
      ['Night (1)', part(1, 0).path],
      ['Night (2)', part(2, 8).path],
    ]);
  });

  it('outlives a restart of the coordinator', async () => {
    const before = await lab.operator.recordings.list();
    lab = await lab.restart();
    const after = await lab.operator.recordings.list();
    expect(after.map(({ id, name, parts }) => [id, name, parts.length])).toEqual(
      before.map(({ id, name, parts }) => [id, name, parts.length]),
    );
  });
});

describe('the file of a recording', () => {
  it('is served with byte ranges where it lies on this machine, and no other file is', async () => {
    const { id } = await lab.operator.recordings.start({ channel: 'films' });
    const folder = join(lab.dataDir, 'recordings', id);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'part-1.mp4'), 'fragmented');
    const path = join(folder, 'part-1.mp4');
    const elsewhere = '/etc/passwd';
    await report(A, [
      reported(id, {
        parts: [
          { ...part(1, 0), path },
          { ...part(2, 9), path: elsewhere },
        ],
        isRecording: false,
      }),
    ]);
    const get = (query: string, headers = {}) =>
      fetch(`${lab.url}/api/v1/recordings/${id}/file${query}`, {
        headers: { authorization: `Bearer ${operatorToken}`, ...headers },
      });
    const whole = await get('');
    expect([whole.status, whole.headers.get('content-type'), await whole.text()]).toEqual([
      200,
      'video/mp4',
      'fragmented',
    ]);
    const some = await get('?part=1', { range: 'bytes=3-5' });
    expect([some.status, some.headers.get('content-range'), await some.text()]).toEqual([
      206,
      'bytes 3-5/10',
      'gme',
    ]);
    const other = await get('?part=2');
    expect([other.status, await other.json()]).toMatchObject([409, { code: 'RECORDING_ELSEWHERE' }]);
    expect((await get('?part=3')).status).toBe(409);
  });
});

describe('two backends', () => {
  it('make a channel of a schedule together, and none with live sources', async () => {
    expect(await lab.operator.channels.update('films', { redundancy: 2 })).toMatchObject({ redundancy: 2 });
    await lab.operator.streams.create({ name: 'live' });
    await expect(lab.operator.channels.update('live', { redundancy: 2 })).rejects.toMatchObject({
      code: 'SOURCES_INVALID',
    });
    const sources = { primary: 'live', backup: null, fallback: 'slate' } as const;
    expect(await lab.operator.channels.setSources('films', sources)).toMatchObject({ redundancy: 1 });
  });

  it('ask for leases, which the operator can see', async () => {
    const wish = { name: 'channel/films', maxHolders: 1, fencingToken: 7 };
    // Just started: what a node says that it holds is believed.
    const { leases, ttlMs } = await lab.node.renewLeases(A, [wish]);
    expect([ttlMs, leases]).toEqual([
      3000,
      [{ name: 'channel/films', fencingToken: 7, isFirst: true, retryInMs: 0 }],
    ]);
    expect(await lab.operator.leases()).toMatchObject([
      { name: 'channel/films', holders: [{ nodeId: A, fencingToken: 7 }] },
    ]);
    await lab.node.releaseLeases(A);
    expect(await lab.operator.leases()).toEqual([]);
  });
});
