import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { Alarm, AlarmKind } from '@starling/model/alarm';
import type { BackendReport } from '@starling/model/entities';
import type { NodeHealth } from '@starling/model/node-health';
import type { WebhookEvent } from '@starling/model/webhook';
import { SMTPServer } from 'smtp-server';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { addReadyAsset, joinNode, type Lab, operatorToken, startLab } from './support.ts';

/** A real SMTP server that asks for a password. */
const mails: { to: string[]; body: string }[] = [];
let isMailRefused = false;
const smtp = new SMTPServer({
  authOptional: false,
  allowInsecureAuth: true,
  disabledCommands: ['STARTTLS'],
  onAuth({ username, password }, _session, done) {
    if (username === 'tv@example.org' && password === 'p@ss/w0rd') done(null, { user: username });
    else done(new Error('Wrong password'));
  },
  onData(stream, { envelope }, done) {
    void text(stream).then((body) => {
      if (isMailRefused) return done(new Error('Mailbox is full'));
      mails.push({ to: envelope.rcptTo.map(({ address }) => address), body });
      done();
    });
  },
});

let lab: Lab;
let receiver: Server;
let receiverUrl: string;
let received: WebhookEvent[];
beforeAll(async () => {
  smtp.listen(0, '127.0.0.1');
  await once(smtp.server, 'listening');
  const { port } = smtp.server.address() as AddressInfo;
  lab = await startLab({ smtpUrl: `smtp://tv%40example.org:p%40ss%2Fw0rd@127.0.0.1:${port}` });
  receiver = createServer(async (request, response) => {
    received.push(JSON.parse(await text(request)));
    response.writeHead(204).end();
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  receiverUrl = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;
  // A coordinator that has just started says nothing of who is missing.
  lab.nowMs += 16_000;
}, 60_000);
afterAll(async () => {
  receiver.close();
  await lab.close();
  await new Promise<void>((done) => smtp.close(done));
});
beforeEach(() => {
  received = [];
  mails.length = 0;
  isMailRefused = false;
});
afterEach(async () => {
  for (const { id } of await lab.operator.webhooks.list()) await lab.operator.webhooks.remove(id);
  for (const { id } of await lab.operator.alarms.list({ state: 'open' }))
    await lab.operator.alarms.resolve(id);
});

async function until<T>(ask: () => T | undefined | Promise<T | undefined>): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

const found = (kind: AlarmKind, target: string, state: Alarm['state'] = 'raised') =>
  until(async () => {
    const alarms = await lab.operator.alarms.list({ kind, target });
    return alarms.find((alarm) => alarm.state === state);
  });

const healthOf = (node: string, more: Partial<NodeHealth> = {}): NodeHealth => ({
  ...{ node, version: '0.1.0', isLeaving: false, disks: [], certificates: [] },
  ...{ refusedPublishCount: 0, recordingFaultCount: 0, balancedFrontends: null },
  ...more,
});
const report = (more: Partial<BackendReport> = {}) =>
  lab.node.reportBackend({
    ...{ nodeId: '00000000000000aa', onAirChannels: [], publishingStreams: [], activeSources: [] },
    ...{ inputProblems: [], destinations: [], events: [] },
    ...more,
  });

/** Lets time go by in steps, so that what is looked at again and again is. @param again what goes on meanwhile */
async function pass(ms: number, again: () => Promise<unknown> = async () => {}): Promise<void> {
  for (let stepMs = 0; stepMs < ms; stepMs += 4000) {
    lab.nowMs += Math.min(4000, ms - stepMs);
    await again();
    await new Promise((wake) => setTimeout(wake, 200));
  }
}

describe('an alarm', () => {
  const full = healthOf('frontend@a:8080', { disks: [{ path: '/data', freeBytes: 5, sizeBytes: 100 }] });

  it('is one while it is open, told once by webhook and e-mail, acknowledged, and over by itself', async () => {
    const { webhook, secret } = await lab.operator.webhooks.create({ url: receiverUrl });
    const mail = await lab.operator.webhooks.create({ url: 'mailto:ops@example.org' });
    expect(secret).toMatch(/^whsec_/);
    expect(mail).toMatchObject({
      secret: null,
      webhook: {
        url: 'mailto:ops@example.org',
        events: ['alarm.raised', 'alarm.acknowledged', 'alarm.resolved'],
      },
    });
    await expect(lab.operator.webhooks.rotateSecret(mail.webhook.id)).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
    });
    await lab.node.reportHealth(full);
    const alarm = await found('disk-filling', 'frontend@a:8080 /data');
    expect(alarm).toMatchObject({ severity: 'warning', acknowledgedAt: null, resolvedAt: null });
    expect(alarm.message).toMatch(/^5\.0 % are free/);
    await pass(8000, () => lab.node.reportHealth(full)); // it goes on, and there is no second one
    expect(await lab.operator.alarms.list({ kind: 'disk-filling' })).toHaveLength(1);

    const acknowledged = await lab.operator.alarms.acknowledge(alarm.id);
    expect(acknowledged).toMatchObject({ state: 'acknowledged', acknowledgedBy: 'operator token' });
    expect(await lab.operator.alarms.acknowledge(alarm.id)).toEqual(acknowledged);
    // Between the bound where it begins and the one where it ends it stays.
    const between = healthOf(full.node, { disks: [{ path: '/data', freeBytes: 11, sizeBytes: 100 }] });
    await pass(20_000, () => lab.node.reportHealth(between));
    expect((await lab.operator.alarms.get(alarm.id)).state).toBe('acknowledged');
    const roomy = healthOf(full.node, { disks: [{ path: '/data', freeBytes: 50, sizeBytes: 100 }] });
    await pass(16_000, () => lab.node.reportHealth(roomy));
    const over = await found('disk-filling', 'frontend@a:8080 /data', 'resolved');
    expect(over).toMatchObject({ id: alarm.id, resolvedBy: null });

    await until(() => (received.length >= 3 && mails.length >= 3 ? true : undefined));
    const types = ['alarm.raised', 'alarm.acknowledged', 'alarm.resolved'];
    expect(received.map(({ type }) => type).sort()).toEqual([...types].sort());
    expect(received.find(({ type }) => type === 'alarm.resolved')).toMatchObject({ alarm: over });
    expect(mails.map(({ to }) => to)).toEqual(types.map(() => ['ops@example.org']));
    const raised = mails.find(({ body }) => body.includes('Subject: [Starling] warning: disk-filling'));
    expect(raised?.body).toContain('From: tv@example.org');
    expect(raised?.body.replace(/=\r?\n/g, '')).toContain(`starling alarm ack ${alarm.id}`);
    const log = await lab.operator.webhooks.deliveries(mail.webhook.id);
    expect(log.map(({ state, attempts }) => [state, attempts])).toEqual(types.map(() => ['delivered', 1]));
    expect(log[0]?.outcome).toMatch(/^250/);
    expect(webhook.events).toContain('alarm.raised');
    expect(lab.log.join('')).not.toContain('p@ss');
    await lab.node.reportHealth({ ...full, isLeaving: true });
  }, 60_000);

  it('is in the audit log where somebody changed it', async () => {
    await lab.node.reportHealth(full);
    const { id } = await found('disk-filling', 'frontend@a:8080 /data');
    await lab.operator.alarms.acknowledge(id);
    await lab.operator.alarms.resolve(id);
    const { items } = await lab.operator.audit({ noun: 'alarms', target: id });
    expect(items.map(({ verb, actorKind, after }) => [verb, actorKind, after?.state])).toEqual([
      ['update', 'operator-token', 'resolved'],
      ['update', 'operator-token', 'acknowledged'],
    ]);
    await lab.node.reportHealth({ ...full, isLeaving: true });
  });

  it('that somebody resolved does not come back at once, while it goes on', async () => {
    const again = { ...full, node: 'frontend@again:8080' };
    await lab.node.reportHealth(again);
    const { id } = await found('disk-filling', 'frontend@again:8080 /data');
    await lab.operator.alarms.resolve(id);
    await expect(lab.operator.alarms.acknowledge(id)).rejects.toMatchObject({ code: 'ALARM_RESOLVED' });
    await pass(8000, () => lab.node.reportHealth(again));
    expect(await lab.operator.alarms.list({ state: 'open', kind: 'disk-filling' })).toEqual([]);
    lab.nowMs += 600_000;
    await lab.node.reportHealth(again);
    expect((await found('disk-filling', 'frontend@again:8080 /data')).id).not.toBe(id);
    await lab.node.reportHealth({ ...again, isLeaving: true });
  });

  it('is not made of a kind that is muted, and settings are checked', async () => {
    await lab.operator.alarms.changeSettings({ mutedKinds: ['disk-filling'], diskFreePercent: 20 });
    await lab.node.reportHealth({ ...full, node: 'frontend@muted:8080' });
    await pass(8000, () => lab.node.reportHealth({ ...full, node: 'frontend@muted:8080' }));
    expect(await lab.operator.alarms.list({ state: 'open', kind: 'disk-filling' })).toEqual([]);
    const settings = await lab.operator.alarms.changeSettings({ mutedKinds: [], diskFreePercent: 10 });
    expect(await lab.operator.alarms.settings()).toEqual(settings);
    for (const body of [{}, { diskFreePercent: 0 }, { nonsense: 1 }, { mutedKinds: ['x'] }]) {
      const { status } = await lab.request('PATCH', '/api/v1/alarms/settings', {
        token: operatorToken,
        body,
      });
      expect(status).toBe(400);
    }
    await lab.node.reportHealth({ ...full, node: 'frontend@muted:8080', isLeaving: true });
  });

  it('comes in pages, newest first', async () => {
    const disks = Array.from({ length: 5 }, (_, n) => ({ path: `/d${n}`, freeBytes: 1, sizeBytes: 100 }));
    await lab.node.reportHealth(healthOf('backend@p:1', { disks }));
    await found('disk-filling', 'backend@p:1 /d4');
    const seen: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const query = `state=open&kind=disk-filling&limit=2${cursor === '' ? '' : `&cursor=${cursor}`}`;
      const response = await lab.request('GET', `/api/v1/alarms?${query}`, { token: operatorToken });
      const page = (await response.json()) as { items: Alarm[]; nextCursor: string | null };
      seen.push(...page.items.map(({ target }) => target));
      cursor = page.nextCursor;
    }
    expect(seen.sort()).toEqual(disks.map(({ path }) => `backend@p:1 ${path}`));
    await lab.node.reportHealth(healthOf('backend@p:1', { isLeaving: true }));
  });
});

describe('there is an alarm', () => {
  it('for a channel that should have a picture and has none, until it has', async () => {
    const asset = await addReadyAsset(lab, 'film', 60);
    await lab.operator.channels.create({ name: 'films', loop: [asset] });
    await pass(12_000, () => report({ onAirChannels: ['films'] }));
    expect(await lab.operator.alarms.list({ kind: 'channel-dark' })).toEqual([]);
    await pass(16_000, () => report());
    const { id } = await found('channel-dark', 'films');
    await pass(12_000, () => report({ onAirChannels: ['films'] }));
    await until(async () => ((await lab.operator.alarms.get(id)).state === 'resolved' ? true : undefined));
    await lab.operator.channels.remove('films');
  }, 30_000);

  it('for a failover, until the primary is back', async () => {
    await lab.operator.streams.create({ name: 'mix' });
    await lab.operator.channels.setSources('mix', { primary: 'mix', backup: null, fallback: 'slate' });
    const source = (name: 'primary' | 'slate', reason: 'silent' | 'healthy') =>
      report({
        onAirChannels: ['mix'],
        activeSources: [{ channel: 'mix', source: name, since: '2026-11-22T12:00:00.000Z', reason }],
      });
    await source('slate', 'silent');
    const alarm = await found('failover', 'mix');
    expect(alarm.message).toContain('went over to slate');
    await pass(16_000, () => source('primary', 'healthy'));
    await until(async () =>
      (await lab.operator.alarms.get(alarm.id)).state === 'resolved' ? true : undefined,
    );
    await lab.operator.streams.remove('mix');
  }, 30_000);

  it('for a node that goes silent, none for one that says goodbye, and it is over when it is back', async () => {
    await lab.node.reportHealth(healthOf('backend@b:1935'));
    await lab.node.reportHealth(healthOf('frontend@c:8080'));
    await lab.node.reportHealth(healthOf('frontend@c:8080', { isLeaving: true }));
    lab.nowMs += 16_000;
    const { id, severity } = await found('node-lost', 'backend@b:1935');
    expect(severity).toBe('critical');
    expect(await lab.operator.alarms.list({ target: 'frontend@c:8080' })).toEqual([]);
    await pass(16_000, () => lab.node.reportHealth(healthOf('backend@b:1935')));
    await until(async () => ((await lab.operator.alarms.get(id)).state === 'resolved' ? true : undefined));
    await lab.node.reportHealth(healthOf('backend@b:1935', { isLeaving: true }));
  }, 30_000);

  it('for a node of the registry, by its name, until it is let go', async () => {
    const { client } = await joinNode(lab, 'frontend', 'studio');
    const report = () =>
      client.reportNode({
        ...{ bootId: '00000000000000b1', version: '0.1.0', addresses: { host: '10.0.0.9' } },
        ...{ isReady: true, isIdle: false, cpuCores: 0, memoryBytes: 0, channelCount: 0, viewerCount: 0 },
      });
    const disks = [{ path: '/data', freeBytes: 1, sizeBytes: 100 }];
    await client.reportHealth(healthOf('frontend@another:8080', { disks })); // it does not speak for others
    await found('disk-filling', 'studio /data');
    await client.reportHealth(healthOf('frontend@another:8080/worker-2', { disks }));
    await found('disk-filling', 'studio/worker-2 /data');
    await report();
    await pass(16_000, report);
    expect(await lab.operator.alarms.list({ target: 'studio' })).toEqual([]);

    lab.nowMs += 16_000;
    await found('node-lost', 'studio');
    const look = () => lab.node.reportHealth(healthOf('backend@b:1935', { isLeaving: true }));
    await lab.operator.nodes.drain('studio');
    await pass(16_000, look);
    await found('node-lost', 'studio', 'resolved');
    await lab.operator.nodes.remove('studio');
    await pass(16_000, look);
    await found('disk-filling', 'studio /data', 'resolved');
    await found('disk-filling', 'studio/worker-2 /data', 'resolved');
  }, 30_000);

  it('for frontends that a balancer has taken out', async () => {
    const balancer = (admitted: number) =>
      lab.node.reportHealth(healthOf('balancer@d:443', { balancedFrontends: { listed: 3, admitted } }));
    await balancer(2);
    const { message } = await found('node-lost', 'frontends of balancer@d:443');
    expect(message).toMatch(/^1 of 3 frontends/);
    await lab.node.reportHealth(healthOf('balancer@d:443', { isLeaving: true }));
  });

  it('about a node, until it says goodbye', async () => {
    const disks = [{ path: '/data', freeBytes: 1, sizeBytes: 100 }];
    await lab.node.reportHealth(healthOf('backend@g:1935', { disks }));
    expect((await found('disk-filling', 'backend@g:1935 /data')).severity).toBe('critical');
    await pass(16_000, () => lab.node.reportHealth(healthOf('backend@g:1935', { isLeaving: true })));
    await found('disk-filling', 'backend@g:1935 /data', 'resolved');
  });

  it('for a certificate that ends soon', async () => {
    const certificates = (days: number) => [
      { name: 'HTTPS', endsAt: new Date(lab.nowMs + days * 24 * 3600 * 1000).toISOString() },
    ];
    await lab.node.reportHealth(healthOf('balancer@e:443', { certificates: certificates(30) }));
    await pass(4000);
    expect(await lab.operator.alarms.list({ kind: 'certificate-expiring' })).toEqual([]);
    await lab.node.reportHealth(healthOf('balancer@e:443', { certificates: certificates(13) }));
    expect((await found('certificate-expiring', 'balancer@e:443 HTTPS')).severity).toBe('warning');
    await lab.node.reportHealth(healthOf('balancer@e:443', { isLeaving: true }));
  });

  it('for publishes that were refused, and recordings that broke off, also after the node began to count anew', async () => {
    const node = 'backend@f:1935';
    const counts = (refusedPublishCount: number, recordingFaultCount: number) =>
      lab.node.reportHealth(healthOf(node, { refusedPublishCount, recordingFaultCount }));
    await counts(100, 7); // from before: old news
    await counts(103, 7);
    await pass(4000);
    expect(await lab.operator.alarms.list({ target: node })).toEqual([]);
    await counts(2, 1); // it has restarted
    expect((await found('unauthorised-publishes', node)).message).toMatch(/^5 publishes/);
    await found('recording-failing', node);
    await lab.node.reportHealth(healthOf(node, { isLeaving: true }));
  });

  it('for logins that failed, from an address and to an account, until they stop', async () => {
    for (let attempt = 0; attempt < 5; attempt++) {
      const body = { name: 'operator', password: `wrong password ${attempt}` };
      await lab.request('POST', '/api/v1/login', { body });
    }
    await found('failed-logins', 'account operator');
    const { id } = await found('failed-logins', 'address 127.0.0.1');
    lab.nowMs += 600_000 + 121_000;
    await found('failed-logins', 'address 127.0.0.1', 'resolved');
    expect((await lab.operator.alarms.get(id)).resolvedBy).toBeNull();
    expect(await lab.registry.metrics()).toMatch(/^starling_coordinator_failed_logins_total 5$/m);
  });

  it('for many requests without a right', async () => {
    await lab.operator.alarms.changeSettings({ refusedRequests: 10 });
    for (let n = 0; n < 10; n++) await lab.request('GET', '/api/v1/assets', { token: 'wrong' });
    await found('unusual-api-use', 'address 127.0.0.1');
    await lab.operator.alarms.changeSettings({ refusedRequests: 200 });
  });

  it('for a destination that fails, until it is restored', async () => {
    const asset = await addReadyAsset(lab, 'show', 60);
    await lab.operator.channels.create({ name: 'shows', loop: [asset] });
    await lab.operator.destinations.create({
      ...{ name: 'elsewhere', channel: 'shows', url: 'rtmp://192.0.2.1/live/k' },
    });
    const event = (type: 'destination.failed' | 'destination.restored') => ({
      ...{ id: randomUUID(), at: '2026-11-22T12:00:00.000Z', channel: 'shows', destination: 'elsewhere' },
      ...(type === 'destination.failed' ? { type, reason: 'refused' } : { type }),
    });
    await report({ onAirChannels: ['shows'], events: [event('destination.failed')] });
    const { id, message } = await found('destination-failing', 'elsewhere');
    expect(message).toContain('refused');
    await report({ onAirChannels: ['shows'], events: [event('destination.restored')] });
    await pass(16_000, () => report({ onAirChannels: ['shows'] }));
    await until(async () => ((await lab.operator.alarms.get(id)).state === 'resolved' ? true : undefined));
    await lab.operator.channels.remove('shows');
  }, 30_000);

  it('for the connections of a PostgreSQL server, and for none of an embedded one', async () => {
    await lab.operator.alarms.changeSettings({ databaseConnectionsPercent: 1 });
    lab.nowMs += 11_000;
    if (lab.databaseUrl === undefined) {
      await pass(4000);
      expect(await lab.operator.alarms.list({ kind: 'database-connections-high' })).toEqual([]);
    } else {
      expect((await found('database-connections-high', 'PostgreSQL')).message).toMatch(
        /^\d+ of the \d+ conn/,
      );
    }
    await lab.operator.alarms.changeSettings({ databaseConnectionsPercent: 80 });
  });
});

describe('a test', () => {
  it('goes to everybody who hears of alarms, and is tried again where it is not taken', async () => {
    await lab.operator.webhooks.create({ url: receiverUrl, events: ['publish'] });
    const hook = await lab.operator.webhooks.create({ url: receiverUrl, events: ['alarm.raised'] });
    const mail = await lab.operator.webhooks.create({ url: 'mailto:ops@example.org' });
    isMailRefused = true;
    const { eventId, webhookIds } = await lab.operator.alarms.test();
    expect(webhookIds.sort()).toEqual([hook.webhook.id, mail.webhook.id].sort());
    const failed = await until(async () =>
      (await lab.operator.webhooks.deliveries(mail.webhook.id)).find(({ attempts }) => attempts === 1),
    );
    expect(failed).toMatchObject({ state: 'waiting', event: { id: eventId } });
    expect(failed.outcome).toContain('Mailbox is full');
    isMailRefused = false;
    lab.nowMs += 2000;
    await lab.operator.alarms.test(); // has the queue looked at
    await until(() => (mails.length >= 2 && received.length >= 2 ? true : undefined));
    expect(received.map(({ type }) => type)).toEqual(['alarm.raised', 'alarm.raised']);
    expect(await lab.operator.alarms.list({ target: 'test' })).toEqual([]);
  });

  it.each(['mailto:', 'mailto:a@b,c@d', 'mailto:a@b?bcc=c@d', 'mailto:a%0Ab@c', 'mailto:a b@c'])(
    '%s is no address',
    async (url) => {
      await expect(lab.operator.webhooks.create({ url })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    },
  );
});

it('alarms are still there after a restart, and end where the reason is gone', async () => {
  const full = healthOf('frontend@z:8080', { disks: [{ path: '/data', freeBytes: 5, sizeBytes: 100 }] });
  await lab.node.reportHealth(full);
  const { id } = await found('disk-filling', 'frontend@z:8080 /data');
  lab = await lab.restart();
  const roomy = healthOf('frontend@z:8080', { disks: [{ path: '/data', freeBytes: 50, sizeBytes: 100 }] });
  await pass(16_000, () => lab.node.reportHealth(roomy));
  await until(async () => ((await lab.operator.alarms.get(id)).state === 'resolved' ? true : undefined));
}, 60_000);
