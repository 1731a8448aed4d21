import type { LogLine } from '@starling/model/log';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, startLab } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
}, 60_000);
afterAll(() => lab.close());

const at = (n: number) => new Date(Date.UTC(2026, 10, 22, 12, 0, n)).toISOString();
const ship = (
  node: string,
  messages: readonly string[],
  more: Partial<LogLine> & { droppedCount?: number } = {},
) => {
  const { droppedCount = 0, ...rest } = more;
  const lines = messages.map((message, n) => ({
    ...{ at: at(n), level: 'info' as const, message, channel: null, fields: {} },
    ...rest,
  }));
  return lab.node.shipLogs({ node, lines, droppedCount });
};
const messagesOf = (lines: readonly LogLine[]) => lines.map(({ message }) => message);

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((wake) => setTimeout(wake, 10));
}

describe('the logs of the nodes', () => {
  it('are found by node, channel, level and time', async () => {
    await ship('backend@a:1935', ['one', 'two']);
    await ship('frontend@b:8080', ['three'], { level: 'error', channel: 'news' });
    await ship('frontend@b:8080', ['four'], { level: 'warn' });
    const { logs } = lab.operator;
    expect(messagesOf(await logs.list())).toEqual(['one', 'two', 'three', 'four']);
    expect(messagesOf(await logs.list({ node: 'backend@a:1935' }))).toEqual(['one', 'two']);
    expect(messagesOf(await logs.list({ channel: 'news' }))).toEqual(['three']);
    expect(messagesOf(await logs.list({ level: 'warn' }))).toEqual(['three', 'four']);
    expect(messagesOf(await logs.list({ since: at(1) }))).toEqual(['two']);
    expect(messagesOf(await logs.list({ limit: '1' }))).toEqual(['four']);
    expect(await logs.list({ node: 'nobody' })).toEqual([]);
  });

  it('say what was dropped', async () => {
    await ship('backend@dropping:1', ['after'], { droppedCount: 7 });
    const [first, second] = await lab.operator.logs.list({ node: 'backend@dropping:1' });
    expect(first).toMatchObject({ level: 'warn', fields: { droppedCount: 7 } });
    expect(second?.message).toBe('after');
  });

  it('are followed, and resumed after the coordinator was away, each line once', async () => {
    const lines: LogLine[] = [];
    const stop = new AbortController();
    const query = { node: 'backend@followed:1' };
    await ship(query.node, ['before']);
    const following = lab.operator.logs.follow(query, (line) => lines.push(line), stop.signal);
    await until(() => lines.length === 1);
    await ship(query.node, ['during']);
    await ship('backend@another:1', ['of another']);
    await until(() => lines.length === 2);
    stop.abort();
    await following;
    // The connection is lost, and meanwhile there is more.
    await ship(query.node, ['missed']);
    lab = await lab.restart();
    const again = await lab.request('GET', `/api/v1/logs?node=${encodeURIComponent(query.node)}`, {
      token: 'operator-token-of-the-tests',
      headers: { accept: 'text/event-stream', 'last-event-id': String(lines[1]?.id) },
    });
    const reader = again.body?.pipeThrough(new TextDecoderStream()).getReader();
    await ship(query.node, ['after']);
    let text = '';
    while (!text.includes('after')) text += (await reader?.read())?.value ?? '';
    await reader?.cancel();
    const resumed = [...text.matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json ?? '') as LogLine);
    expect(messagesOf([...lines, ...resumed])).toEqual(['before', 'during', 'missed', 'after']);
    const ids = [...lines, ...resumed].map(({ id }) => id);
    expect(ids).toEqual([...ids].sort((a, b) => a - b));
  });

  it('have a bound for each node, in memory and on disk, and survive a restart', async () => {
    await ship('backend@quiet:1', ['I was here']);
    const long = 'x'.repeat(1000);
    for (let n = 0; n < 5; n++) {
      await ship(
        'backend@loud:1',
        Array.from({ length: 200 }, (_, i) => `${n * 200 + i} ${long}`),
      );
    }
    const check = async () => {
      const loud = await lab.operator.logs.list({ node: 'backend@loud:1', limit: '5000' });
      expect(JSON.stringify(loud).length).toBeLessThan(280_000);
      expect(loud.length).toBeGreaterThan(200);
      expect(loud.at(-1)?.message).toMatch(/^999 /);
      expect(messagesOf(await lab.operator.logs.list({ node: 'backend@quiet:1' }))).toEqual(['I was here']);
    };
    await check();
    lab = await lab.restart();
    await check();
    const { readdirSync, statSync } = await import('node:fs');
    const dir = `${lab.dataDir}/logs`;
    for (const name of readdirSync(dir))
      expect(statSync(`${dir}/${name}`).size).toBeLessThanOrEqual(256 * 1024);
  });

  it('refuse what is none', async () => {
    const send = (body: unknown) =>
      lab.request('POST', '/api/v1/node/logs', { token: 'node-token-of-the-tests', body });
    const line = { at: at(0), level: 'info', message: 'm', channel: null, fields: {} };
    for (const body of [
      { node: '../etc', lines: [], droppedCount: 0 },
      { node: 'a b', lines: [], droppedCount: 0 },
      { node: 'a', lines: Array(201).fill(line), droppedCount: 0 },
      { node: 'a', lines: [{ ...line, level: 'loud' }], droppedCount: 0 },
      { node: 'a', lines: [{ ...line, at: 'now' }], droppedCount: 0 },
    ])
      expect((await send(body)).status).toBe(400);
  });
});
