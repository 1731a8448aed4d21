/**
 * A fleet behind its balancer while everything in it is hurt, one after the other, under viewers of every kind. Nobody may
 * be lost for good, and nobody may lack a picture or a sound that was to come. How long a picture stands still is printed; on
 * a machine with other work it says little, and `npm run soak` holds it to 2 s, under 300 viewers.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { shownCertificate, startTestFleet, type TestFleet } from './fleet.ts';
import { FlvViewer, HlsViewer, type LightViewer } from './light-viewers.ts';
import { until } from './network.ts';

const isSoak = process.env.STARLING_SOAK !== undefined;
const VIEWERS_EACH = isSoak ? 100 : 3;
const MAX_STALL_MS = 2000;
/** Of a database, of Redis and of the coordinator. */
const OUTAGE_MS = isSoak ? 60_000 : 3000;
const SETTLE_MS = isSoak ? 5000 : 1500;
const CERTIFICATE_SECONDS = isSoak ? 90 : 45;

let fleet: TestFleet;
const viewers: LightViewer[] = [];
const kindOf = (viewer: LightViewer) =>
  viewer instanceof FlvViewer ? 'HTTP-FLV' : lowLatency.has(viewer) ? 'LL-HLS' : 'HLS';
const lowLatency = new Set<LightViewer>();
const sleep = (ms: number) => new Promise((wake) => setTimeout(wake, ms));

beforeAll(async () => {
  fleet = await startTestFleet({
    ...{ frontends: 3, backends: 2, shared: inject('shared') },
    certificateSeconds: CERTIFICATE_SECONDS,
  });
  for (let count = 0; count < VIEWERS_EACH; count++) {
    const reader = new HlsViewer(fleet.site, 'demo', true);
    lowLatency.add(reader);
    viewers.push(reader, new HlsViewer(fleet.site, 'demo'), new FlvViewer(fleet.site, '/live/demo.flv'));
    await sleep(20); // people do not come all at once
  }
  await playing('at the start');
  await sleep(4000); // until the start of each is behind it
}, 300_000);
afterAll(async () => {
  for (const viewer of viewers) viewer.leave();
  await fleet?.stop();
}, 30_000);

/** Everybody gets more. */
async function playing(when: string): Promise<void> {
  const before = viewers.map(({ positionMs }) => positionMs);
  await until(`media for all ${when}`, 30_000, () =>
    viewers.every((viewer, at) => viewer.positionMs !== before[at]) ? true : undefined,
  ).catch((error: unknown) => {
    const standing = viewers.filter((viewer, at) => viewer.positionMs === before[at]).map(kindOf);
    throw new Error(`${standing.length} viewers stand still ${when}: ${standing.join(', ')}`, {
      cause: error,
    });
  });
}

const ready = (count: number) =>
  until(`${count} frontends with viewers`, 30_000, async () =>
    (await fleet.metric('starling_balancer_frontends{state="in"}')) === count ? true : undefined,
  );

/** Does harm, and looks what the viewers went through until all is well again. */
async function under(what: string, harm: () => Promise<void>): Promise<void> {
  for (const viewer of viewers) viewer.forgetStalls();
  const brokenBefore = viewers.map(({ brokenCount }) => brokenCount);
  const missingBefore = viewers.map(({ missing }) => missing.length);
  await harm();
  await sleep(SETTLE_MS);
  await playing(`after: ${what}`);
  const longest = new Map<string, number>();
  for (const viewer of viewers) {
    longest.set(kindOf(viewer), Math.max(longest.get(kindOf(viewer)) ?? 0, viewer.longestStallMs()));
  }
  const broken = viewers.filter(({ brokenCount }, at) => brokenCount !== brokenBefore[at]).length;
  const stalls = [...longest].map(([kind, ms]) => `${kind} ${Math.round(ms)} ms`).join(', ');
  process.stdout.write(`${what}: longest stall ${stalls}; ${broken} of ${viewers.length} had to ask again\n`);
  expect(viewers.flatMap(({ missing }, at) => missing.slice(missingBefore[at]))).toEqual([]);
  if (isSoak) expect(Math.max(...longest.values())).toBeLessThanOrEqual(MAX_STALL_MS);
}

describe('a fleet from nothing', () => {
  it('is one site for Chromium, under a certificate that was issued over ACME', async () => {
    const names = (await fleet.client.nodes.list()).map(({ name, health }) => `${name} ${health}`);
    expect(names.sort()).toEqual(
      ['backend-1', 'backend-2', 'balancer', 'frontend-1', 'frontend-2', 'frontend-3'].map(
        (name) => `${name} ready`,
      ),
    );
    expect(await shownCertificate(fleet.httpsPort, fleet.root)).toBeDefined();
    const browser = await launchChromium('--ignore-certificate-errors');
    try {
      const page = await browser.newPage({ ignoreHTTPSErrors: true });
      await page.goto(`${fleet.site}/watch/demo`);
      const position = () =>
        page.evaluate('document.querySelector("video")?.currentTime ?? 0') as Promise<number>;
      const first = await until('the picture', 30_000, async () => (await position()) || undefined);
      await until('more of it', 30_000, async () => ((await position()) > first + 2 ? true : undefined));
    } finally {
      await browser.close();
    }
  });

  it('has one frontend more with one command, which carries viewers', async () => {
    const startedAtMs = performance.now();
    const { httpPort } = await fleet.addFrontend();
    const upMs = Math.round(performance.now() - startedAtMs);
    const carried = await until(
      'viewers on the new frontend',
      30_000,
      async () => {
        const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
        const counts = [...text.matchAll(/^starling_frontend_viewers\{.*\} (\d+)$/gm)];
        return counts.some(([, count]) => Number(count) > 0) ? performance.now() : undefined;
      },
      50,
    );
    const carriedMs = Math.round(carried - startedAtMs);
    process.stdout.write(
      `a fourth frontend: started after ${upMs} ms, carries viewers after ${carriedMs} ms\n`,
    );
    if (isSoak) expect(carriedMs).toBeLessThanOrEqual(5000);
    await ready(4);
    await fleet.client.nodes.remove('frontend-4');
    await ready(3);
  });
});

const nginxPid = () => Number(readFileSync(join(fleet.folder, 'balancer', 'nginx', 'nginx.pid'), 'utf8'));

describe(`${3 * VIEWERS_EACH} viewers of a fleet go on`, () => {
  it('when a frontend is killed', async () => {
    await under('kill -9 a frontend', async () => {
      await fleet.signal('frontend-1', 'SIGKILL');
      await ready(2);
    });
    await fleet.start('frontend-1');
    await ready(3);
  });

  it('when a backend of a channel that two make is killed', async () => {
    await under('kill -9 a backend', () => fleet.signal('backend-1', 'SIGKILL'));
    await fleet.start('backend-1');
    await until('two that make the channel', 30_000, async () =>
      (await fleet.client.leases()).some(
        ({ name, holders }) => name === 'channel/demo' && holders.length === 2,
      )
        ? true
        : undefined,
    );
  });

  it('when a frontend stands still', async () => {
    await under('SIGSTOP a frontend', async () => {
      await fleet.signal('frontend-2', 'SIGSTOP');
      await ready(2);
    });
    await fleet.signal('frontend-2', 'SIGCONT');
    await ready(3);
  });

  it('while PostgreSQL is gone', { timeout: OUTAGE_MS + 60_000 }, async () => {
    await under('no PostgreSQL', async () => {
      fleet.postgres.stop('immediate');
      await sleep(OUTAGE_MS);
    });
    fleet.postgres.start();
    await until('the coordinator', 30_000, () => fleet.client.channels.list().catch(() => undefined));
  });

  it('while Redis is gone', { timeout: OUTAGE_MS + 60_000 }, async () => {
    await under('no Redis', async () => {
      await fleet.redis.stop();
      await sleep(OUTAGE_MS);
    });
    await fleet.redis.start();
  });

  it('while the coordinator is gone', { timeout: OUTAGE_MS + 60_000 }, async () => {
    await under('no coordinator', async () => {
      await fleet.signal('coordinator', 'SIGKILL');
      await sleep(OUTAGE_MS);
    });
    await fleet.start('coordinator');
  });

  it('when nginx is restarted', async () => {
    await under('restart nginx', async () => {
      const before = nginxPid();
      process.kill(before, 'SIGTERM');
      await until('another nginx', 15_000, () => {
        try {
          return nginxPid() !== before || undefined;
        } catch {
          return undefined; // between the two
        }
      });
    });
  });

  it('when the certificate is renewed', { timeout: CERTIFICATE_SECONDS * 1000 + 60_000 }, async () => {
    await under('another certificate', async () => {
      const before = await shownCertificate(fleet.httpsPort, fleet.root);
      await until('another certificate', CERTIFICATE_SECONDS * 1000, async () => {
        const now = await shownCertificate(fleet.httpsPort, fleet.root);
        return now !== undefined && now.serialNumber !== before?.serialNumber ? true : undefined;
      });
    });
  });

  it('when every node is restarted, one after the other', { timeout: 180_000 }, async () => {
    for (const name of ['frontend-1', 'frontend-2', 'frontend-3']) {
      try {
        await under(`restart ${name}`, () => fleet.signal(name, 'SIGTERM'));
      } finally {
        await fleet.start(name);
      }
      await ready(3);
    }
    for (const name of ['backend-1', 'backend-2', 'coordinator']) {
      await under(`restart ${name}`, async () => {
        await fleet.signal(name, 'SIGTERM');
        await fleet.start(name);
      });
      await sleep(2000); // until it makes the channel again
    }
  });
});
