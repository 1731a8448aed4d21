import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addReadyAsset, type Lab, startLab } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
  await lab.operator.channels.create({ name: 'films', loop: [await addReadyAsset(lab, 'film', 10)] });
}, 60_000);
afterAll(() => lab.close());

const url = 'rtmps://a.example/live2/s3cr3t-key?backup=t0k3n';
const add = (name: string, more: object = {}) =>
  lab.operator.destinations.create({ name, channel: 'films', url, ...more });

const status = {
  state: 'waiting',
  since: '2026-11-22T12:00:00.000Z',
  reason: 'the connection was refused',
  retryAt: '2026-11-22T12:00:05.000Z',
  bitrateBps: 0,
  sentBytes: 12,
  droppedUnits: 3,
  failures: 4,
} as const;

/** What backends are told. */
async function stateForBackends() {
  const stop = new AbortController();
  return new Promise<{ name: string; url: string }[]>((resolve) => {
    void lab.node.watchBackendState((state) => {
      resolve([...state.destinations]);
      stop.abort();
    }, stop.signal);
  });
}

describe('destinations', () => {
  it('are shown without their keys, and told to backends with them', async () => {
    const added = await add('youtube');
    expect(added).toMatchObject({ address: 'rtmps://a.example/live2/***', isEnabled: true, status: null });
    expect(await lab.operator.destinations.get('youtube')).toEqual(added);
    expect(await stateForBackends()).toMatchObject([{ name: 'youtube', url }]);
    const shown = JSON.stringify(await lab.operator.destinations.list());
    for (const secret of ['s3cr3t-key', 't0k3n']) {
      expect(shown).not.toContain(secret);
      expect(lab.log.join('')).not.toContain(secret);
    }
  });

  it('have the state that the backend reports', async () => {
    await lab.node.reportBackend({
      nodeId: '00000000000000aa',
      ...{ onAirChannels: [], publishingStreams: [], activeSources: [], inputProblems: [], events: [] },
      destinations: [{ name: 'youtube', ...status }],
    });
    expect((await lab.operator.destinations.get('youtube')).status).toEqual(status);
    const disabled = await lab.operator.destinations.update('youtube', { isEnabled: false });
    expect(disabled).toMatchObject({ isEnabled: false, status: null });
    expect(await stateForBackends()).toEqual([]);
    await lab.operator.destinations.update('youtube', { isEnabled: true });
    expect(await stateForBackends()).toHaveLength(1);
  });

  it('are kept over a restart, and go with their channel', async () => {
    await lab.operator.channels.create({ name: 'brief', loop: ['film'] });
    await add('gone-soon', { channel: 'brief' });
    lab = await lab.restart();
    expect((await lab.operator.destinations.list()).map(({ name }) => name)).toEqual([
      'gone-soon',
      'youtube',
    ]);
    await lab.operator.channels.remove('brief');
    expect((await lab.operator.destinations.list()).map(({ name }) => name)).toEqual(['youtube']);
  });

  it('are refused where they cannot be, and nobody is told the key', async () => {
    const refusals = [
      [() => add('youtube'), 'DESTINATION_EXISTS'],
      [() => add('other', { channel: 'nosuch' }), 'CHANNEL_UNKNOWN'],
      [() => add('other', { url: 'https://a.example/s3cr3t-key' }), 'REQUEST_INVALID'],
      [() => add('other', { url: 'srt://a.example:1?passphrase=s3cr3t' }), 'REQUEST_INVALID'],
      [() => lab.operator.destinations.update('nosuch', { isEnabled: true }), 'DESTINATION_UNKNOWN'],
      [() => lab.operator.destinations.get('nosuch'), 'DESTINATION_UNKNOWN'],
      [() => lab.operator.destinations.remove('nosuch'), 'DESTINATION_UNKNOWN'],
    ] as const;
    for (const [refusal, code] of refusals) {
      const error: unknown = await refusal().catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code });
      expect(String(error)).not.toContain('s3cr3t');
    }
    expect(lab.log.join('')).not.toContain('s3cr3t');
  });

  it('are gone once they are removed', async () => {
    await lab.operator.destinations.remove('youtube');
    expect(await lab.operator.destinations.list()).toEqual([]);
  });
});
