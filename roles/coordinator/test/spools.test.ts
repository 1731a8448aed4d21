/** What nodes owe is taken once, however often it is offered and whatever fails in between. */
import { randomUUID } from 'node:crypto';
import type { FrontendReport, ViewerSession, ViewerStretch } from '@starling/model/entities';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, operatorToken, startLab } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
}, 60_000);
afterAll(() => lab.close());

let spools = 0;
const newSpoolId = () => (spools++).toString(16).padStart(24, '0');
const minute = 60_000;

const stretch = (change: Partial<ViewerStretch> = {}): ViewerStretch => ({
  ...{ viewerId: 'viewer0000000001', channel: 'films', protocol: 'hls', tokenId: null },
  ...{ fromUnixMs: lab.nowMs, toUnixMs: lab.nowMs + minute, sentBytes: 100 },
  ...change,
});

/** Offers stretches as a frontend does, the first of them under `first`. */
function offer(spoolId: string, first: number, ...stretches: ViewerStretch[]) {
  const report: FrontendReport = { frontendId: 'frontend-1', viewers: [], leftIds: [], isFresh: true };
  const entries = stretches.map((value, at) => ({ sequence: first + at, value }));
  return lab.node.reportFrontend({ ...report, owed: { spoolId, entries } });
}
const sessions = (channel: string) => lab.operator.viewers.sessions(100, channel);

describe('stretches of sessions', () => {
  it('are one session, whichever frontends they come from, and count once', async () => {
    const [one, other] = [newSpoolId(), newSpoolId()];
    const from = lab.nowMs;
    expect(await offer(one, 1, stretch())).toMatchObject({ takenSequence: 1 });
    await offer(one, 1, stretch(), stretch({ fromUnixMs: from + minute, toUnixMs: from + 2 * minute }));
    await offer(other, 1, stretch({ fromUnixMs: from - 5000, toUnixMs: from + minute, sentBytes: 7 }));
    await offer(other, 1, stretch({ sentBytes: 7 }));
    expect(await sessions('films')).toEqual([
      {
        ...{ viewerId: 'viewer0000000001', channel: 'films', protocol: 'hls', tokenId: null },
        startedAt: new Date(from - 5000).toISOString(),
        endedAt: new Date(from + 2 * minute).toISOString(),
        sentBytes: 207,
      },
    ]);
  });

  it('far apart, of others, or of another channel are sessions of their own', async () => {
    const from = lab.nowMs;
    await offer(
      newSpoolId(),
      1,
      stretch({ channel: 'news' }),
      stretch({ channel: 'news', fromUnixMs: from + 10 * minute, toUnixMs: from + 11 * minute }),
      stretch({ channel: 'news', viewerId: 'viewer0000000002' }),
      stretch({ channel: 'sports' }),
    );
    expect(await sessions('news')).toHaveLength(3);
    expect(await sessions('sports')).toHaveLength(1);
  });

  it('are listed in pages', async () => {
    const many = Array.from({ length: 7 }, (_, at) =>
      stretch({ channel: 'pages', viewerId: `viewer00000000${at + 10}`, fromUnixMs: lab.nowMs + at }),
    );
    await offer(newSpoolId(), 1, ...many);
    const seen: string[] = [];
    for (let cursor = ''; ; ) {
      const path = `/api/v1/viewer-sessions?channel=pages&limit=3${cursor}`;
      const response = await lab.request('GET', path, { token: operatorToken });
      const page = (await response.json()) as { items: ViewerSession[]; nextCursor: string | null };
      seen.push(...page.items.map(({ viewerId }) => viewerId));
      if (page.nextCursor === null) break;
      cursor = `&cursor=${page.nextCursor}`;
    }
    expect(seen).toEqual(many.map(({ viewerId }) => viewerId).reverse());
  });

  it('are known after a restart of the coordinator', async () => {
    const spoolId = newSpoolId();
    await offer(spoolId, 5, stretch({ channel: 'restart' }));
    lab = await lab.restart();
    await offer(spoolId, 5, stretch({ channel: 'restart' }));
    expect(await sessions('restart')).toMatchObject([{ sentBytes: 100 }]);
  });
});

describe('events', () => {
  it('are delivered once, also when their delivery has been forgotten meanwhile', async () => {
    const { webhook } = await lab.operator.webhooks.create({ url: 'http://127.0.0.1:9/' });
    const event = {
      id: randomUUID(),
      at: new Date(lab.nowMs).toISOString(),
      type: 'publish',
      stream: 'cam',
    } as const;
    const report = (spoolId: string, sequence: number) =>
      lab.node.reportBackend({
        ...{ nodeId: '00000000000000aa', onAirChannels: [], publishingStreams: [], activeSources: [] },
        ...{ inputProblems: [], destinations: [], events: [event] },
        eventSpool: { spoolId, sequences: [sequence] },
      });
    const spoolId = newSpoolId();
    await report(spoolId, 3);
    await lab.operator.webhooks.remove(webhook.id); // and its deliveries
    const { webhook: next } = await lab.operator.webhooks.create({ url: 'http://127.0.0.1:9/' });
    await report(spoolId, 3);
    expect(await lab.operator.webhooks.deliveries(next.id)).toEqual([]);
    await report(spoolId, 4);
    expect(await lab.operator.webhooks.deliveries(next.id)).toHaveLength(1);
  });
});
