import { describe, expect, it } from 'vitest';
import { ApiError, CoordinatorClient } from './client.ts';
import { defaultLibrarySettings } from './library.ts';

/** Answers each request with the next of the given answers, and keeps what was asked. */
function fakeFetch(...answers: (Response | Error)[]) {
  const requests: { url: string; method: string; headers: Headers; body: unknown }[] = [];
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const body = typeof init?.body === 'string' ? JSON.parse(init.body) : undefined;
    const method = init?.method ?? 'GET';
    requests.push({ url: String(input), method, headers: new Headers(init?.headers), body });
    const answer = answers.shift() ?? new Error('no answer left');
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { fetch, requests };
}

const state = (revision: number) => ({
  ...{ revision, channels: [], streams: [], destinations: [], assets: [], imports: [], folders: [] },
  recordings: { wanted: [], removedIds: [] },
  library: defaultLibrarySettings,
});

/** A stream that ends after the chunks. */
function eventStream(chunks: readonly string[]): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
      controller.close();
    },
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
}

describe('requests', () => {
  it('carry the token and the body, and escape names', async () => {
    const { fetch, requests } = fakeFetch(
      new Response(null, { status: 204 }),
      new Response(null, { status: 204 }),
    );
    const client = new CoordinatorClient({ baseUrl: 'http://host:1/', token: 'T', fetch });
    await client.reportImport('a/b', { state: 'importing', progress: 0.5 });
    await client.channels.remove('x?y');
    expect(requests[0]).toMatchObject({
      url: 'http://host:1/api/v1/backend/imports/a%2Fb',
      method: 'POST',
      body: { state: 'importing', progress: 0.5 },
    });
    expect(requests[0]?.headers.get('authorization')).toBe('Bearer T');
    expect(requests[1]).toMatchObject({ url: 'http://host:1/api/v1/channels/x%3Fy', method: 'DELETE' });
    // Fastify refuses an empty body that is announced as JSON.
    expect(requests[1]?.headers.get('content-type')).toBe(null);
  });

  it('raise what the coordinator said', async () => {
    const problem = {
      type: 'x',
      title: 'In use',
      status: 409,
      code: 'ASSET_IN_USE',
      detail: 'Played by: films.',
    };
    const { fetch } = fakeFetch(Response.json(problem, { status: 409 }));
    const error = await new CoordinatorClient({ baseUrl: 'http://h', fetch }).assets
      .remove('a')
      .catch((e) => e);
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ code: 'ASSET_IN_USE', status: 409, detail: 'Played by: films.' });
  });

  it.each([
    ['a connection that fails', new TypeError('fetch failed'), 'UNREACHABLE', 0],
    [
      'an error page of a proxy',
      new Response('<h1>Bad gateway</h1>', { status: 502 }),
      'UNEXPECTED_ANSWER',
      502,
    ],
    ['an answer of another form', Response.json({ items: [{ id: 5 }] }), 'UNEXPECTED_ANSWER', 200],
  ])('raise an ApiError on %s', async (_what, answer, code, status) => {
    const { fetch } = fakeFetch(answer);
    const list = new CoordinatorClient({ baseUrl: 'http://h', fetch }).assets.list();
    await expect(list).rejects.toMatchObject({ name: 'ApiError', code, status });
  });
});

describe('the watch', () => {
  it('reads events however they are cut, and skips pings', async () => {
    const text = `: ping\n\nid: 1\ndata: ${JSON.stringify(state(1))}\n\n: ping\n\nid: 2\ndata: ${JSON.stringify(state(2))}\n\n`;
    for (const cut of [1, 3, 7, 64, text.length]) {
      const chunks = text.match(new RegExp(`[^]{1,${cut}}`, 'g')) ?? [];
      const { fetch } = fakeFetch(eventStream(chunks));
      const revisions: number[] = [];
      const stop = new AbortController();
      await new CoordinatorClient({ baseUrl: 'http://h', fetch }).watchBackendState((next) => {
        revisions.push(next.revision);
        if (next.revision === 2) stop.abort();
      }, stop.signal);
      expect(revisions).toEqual([1, 2]);
    }
  });

  it('comes back after a lost connection, later each time, and soon again after a success', async () => {
    const event = (revision: number) => eventStream([`data: ${JSON.stringify(state(revision))}\n\n`]);
    const { fetch } = fakeFetch(new Error('down'), new Error('down'), event(7), event(8));
    const revisions: number[] = [];
    const delaysMs: number[] = [];
    const stop = new AbortController();
    await new CoordinatorClient({ baseUrl: 'http://h', fetch }).watchBackendState(
      ({ revision }) => {
        revisions.push(revision);
        if (revision === 8) stop.abort();
      },
      stop.signal,
      (_error, delayMs) => delaysMs.push(delayMs),
    );
    expect(revisions).toEqual([7, 8]);
    expect(delaysMs).toHaveLength(3);
    const within = (delayMs: number | undefined, capMs: number) => {
      expect(delayMs).toBeGreaterThanOrEqual(capMs / 2);
      expect(delayMs).toBeLessThanOrEqual(capMs);
    };
    within(delaysMs[0], 250);
    within(delaysMs[1], 500);
    within(delaysMs[2], 250);
  });

  it('ends at once when told to, while it waits', async () => {
    const stop = new AbortController();
    const { fetch } = fakeFetch();
    const watch = new CoordinatorClient({ baseUrl: 'http://h', fetch }).watchBackendState(
      () => undefined,
      stop.signal,
      () => stop.abort(),
    );
    await watch;
    expect(stop.signal.aborted).toBe(true);
  });
});
