import { createHmac, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { NetworkEvent, WebhookDelivery } from '@starling/model/webhook';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isForbidden } from '../src/webhook-request.ts';
import { type Lab, startLab } from './support.ts';

let lab: Lab;
let receiver: Server;
let url: string;
let status: number;
let headers: Record<string, string>;
let received: { headers: IncomingHttpHeaders; body: string; path: string }[];

beforeAll(async () => {
  lab = await startLab();
  receiver = createServer(async (request, response) => {
    received.push({ headers: request.headers, body: await text(request), path: request.url ?? '' });
    response.writeHead(status, headers).end();
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
}, 60_000);
afterAll(async () => {
  receiver.close();
  await lab.close();
});
beforeEach(() => {
  received = [];
  status = 204;
  headers = {};
});
afterEach(async () => {
  for (const { id } of await lab.operator.webhooks.list()) await lab.operator.webhooks.remove(id);
});

function published(stream = 'cam'): NetworkEvent {
  return { id: randomUUID(), at: '2026-11-22T12:00:00.000Z', type: 'publish', stream };
}

const report = (...events: NetworkEvent[]) =>
  lab.node.reportBackend({
    nodeId: '00000000000000aa',
    onAirChannels: [],
    publishingStreams: [],
    activeSources: [],
    inputProblems: [],
    destinations: [],
    events,
  });

async function until<T>(ask: () => T | undefined | Promise<T | undefined>): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    await new Promise((wake) => setTimeout(wake, 10));
  }
}

/** The newest delivery, once it is in a state. */
const untilDelivery = (id: string, isSo: (delivery: WebhookDelivery) => boolean) =>
  until(async () => (await lab.operator.webhooks.deliveries(id)).find(isSo));

describe('a webhook', () => {
  it('gets each event once, signed with its secret', async () => {
    const { webhook, secret } = await lab.operator.webhooks.create({ url: `${url}/hook?token=t0k3n` });
    expect(webhook.url).toBe(`${url}/hook`);
    const event = published();
    await report(event);
    await report(event); // the backend did not hear that the first was taken
    const [delivery] = await until(() => (received.length > 0 ? received : undefined));
    await untilDelivery(webhook.id, ({ state }) => state === 'delivered');
    expect(received).toHaveLength(1);
    expect(delivery?.path).toBe('/hook?token=t0k3n');
    expect(JSON.parse(delivery?.body ?? '')).toEqual(event);
    expect(delivery?.headers).toMatchObject({
      'content-type': 'application/json',
      'starling-event': 'publish',
    });
    const [, time, digest] =
      /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(delivery?.headers['starling-signature'])) ?? [];
    expect(Number(time)).toBe(Math.floor(lab.nowMs / 1000));
    expect(
      createHmac('sha256', secret ?? '')
        .update(`${time}.${delivery?.body}`)
        .digest('hex'),
    ).toBe(digest);
    const answers = JSON.stringify([
      await lab.operator.webhooks.list(),
      await lab.operator.webhooks.deliveries(webhook.id),
    ]);
    for (const hidden of [secret, 't0k3n']) {
      expect(answers).not.toContain(hidden);
      expect(lab.log.join('')).not.toContain(hidden);
    }
  });

  it('is signed with the old secret too while a new one overlaps with it', async () => {
    const { webhook, secret: old } = await lab.operator.webhooks.create({ url, events: ['publish'] });
    const { secret } = await lab.operator.webhooks.rotateSecret(webhook.id, { overlapSeconds: 3600 });
    expect(secret).not.toBe(old);
    const signersOf = async (count: number) => {
      await report(published());
      const delivery = await until(() => received[count - 1]);
      const { body } = delivery;
      const [time, ...digests] = String(delivery.headers['starling-signature']).split(',');
      const digestOf = (one: string | null) =>
        `v1=${createHmac('sha256', String(one))
          .update(`${time?.slice(2)}.${body}`)
          .digest('hex')}`;
      return digests.map((digest) => [secret, old].findIndex((one) => digestOf(one) === digest));
    };
    expect(await signersOf(1)).toEqual([0, 1]);
    lab.nowMs += 3600_000;
    expect(await signersOf(2)).toEqual([0]);
    const entries = await lab.operator.audit({ noun: 'webhooks', target: webhook.id });
    expect(entries.items[0]).toMatchObject({
      verb: 'update',
      after: { secret: '(secret)', old_secret: '(secret)' },
    });
    expect(lab.log.join('')).not.toContain(secret);
  });

  it('gets only the events that it asked for', async () => {
    const { webhook } = await lab.operator.webhooks.create({ url, events: ['failover'] });
    const failover = { channel: 'mix', from: 'primary', to: 'slate', reason: 'silent' };
    await report(published(), { ...published(), type: 'failover', ...failover });
    const { event } = await untilDelivery(webhook.id, ({ state }) => state === 'delivered');
    expect(event).toMatchObject({ type: 'failover', ...failover });
    expect(await lab.operator.webhooks.deliveries(webhook.id)).toHaveLength(1);
  });

  it('gets an event again after a failure, later and later, and also after a restart', async () => {
    const { webhook } = await lab.operator.webhooks.create({ url });
    status = 500;
    await report(published());
    const failed = await untilDelivery(webhook.id, ({ attempts }) => attempts === 1);
    expect(failed).toMatchObject({ state: 'waiting', outcome: 'HTTP 500' });
    const waitMs = Date.parse(failed.nextAttemptAt ?? '') - lab.nowMs;
    expect(waitMs).toBeGreaterThanOrEqual(500);
    expect(waitMs).toBeLessThanOrEqual(1000);
    status = 200;
    const later = lab.nowMs + 60_000;
    lab = await lab.restart();
    lab.nowMs = later;
    // What is due is found when the next event comes, at the latest.
    await report(published('other'));
    const { attempts } = await untilDelivery(
      webhook.id,
      ({ id, state }) => id === failed.id && state === 'delivered',
    );
    expect(attempts).toBe(2);
  });

  it('is given up where its address is gone, not allowed, or answers with a redirect for ever', async () => {
    status = 410;
    const gone = (await lab.operator.webhooks.create({ url })).webhook;
    const metadata = (await lab.operator.webhooks.create({ url: 'http://169.254.169.254/latest/' })).webhook;
    await report(published());
    expect(await untilDelivery(gone.id, ({ state }) => state === 'given-up')).toMatchObject({
      outcome: 'HTTP 410',
    });
    const refused = await untilDelivery(metadata.id, ({ attempts }) => attempts > 0);
    expect(refused.outcome).toBe('the address is not allowed');
    await lab.operator.webhooks.remove(gone.id);

    status = 302;
    headers = { location: `${url}/elsewhere` };
    const moved = (await lab.operator.webhooks.create({ url: `${url}/here` })).webhook;
    await report(published());
    expect(await untilDelivery(moved.id, ({ attempts }) => attempts > 0)).toMatchObject({
      outcome: 'HTTP 302',
    });
    expect(received.map(({ path }) => path)).not.toContain('/elsewhere');
  });

  it('keeps no more than so many events waiting', async () => {
    const { webhook } = await lab.operator.webhooks.create({ url: 'http://127.0.0.1:1/' });
    for (let i = 0; i < 3; i++) await report(...Array.from({ length: 250 }, () => published()));
    const deliveries = await lab.operator.webhooks.deliveries(webhook.id);
    const count = (state: string) => deliveries.filter((delivery) => delivery.state === state).length;
    expect(count('waiting')).toBeLessThanOrEqual(500);
    expect(count('given-up')).toBeLessThanOrEqual(200);
    expect(deliveries.at(-1)?.state).toBe('given-up');
  });

  it('is refused with an address that is not HTTP, and unknown once it is removed', async () => {
    for (const bad of ['ftp://example.org/', 'file:///etc/passwd', 'nonsense', '']) {
      await expect(lab.operator.webhooks.create({ url: bad })).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
      });
    }
    await expect(lab.operator.webhooks.remove('nosuch')).rejects.toMatchObject({ code: 'WEBHOOK_UNKNOWN' });
    await expect(lab.operator.webhooks.deliveries('nosuch')).rejects.toMatchObject({
      code: 'WEBHOOK_UNKNOWN',
    });
  });
});

describe('where webhooks never go', () => {
  it.each([
    '169.254.169.254',
    '::ffff:169.254.169.254',
    'fe80::1',
    'fd00:ec2::254',
    '0.0.0.0',
    '::',
    '224.0.0.1',
    '255.255.255.255',
  ])('%s', (address) => expect(isForbidden(address)).toBe(true));
  it.each(['127.0.0.1', '10.1.2.3', '192.168.1.5', '93.184.216.34', '::1', '2606:4700::1111'])(
    'but to %s',
    (address) => expect(isForbidden(address)).toBe(false),
  );
});
