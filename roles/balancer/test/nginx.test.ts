/** A real nginx, and what becomes of it when it gets another configuration. */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { describeNginx, Nginx, NginxError } from '../src/nginx.ts';

const program = '/usr/sbin/nginx';
const logger = pino({ level: 'silent' });
const dir = mkdtempSync(join(tmpdir(), 'starling-nginx-'));
const nginx = new Nginx({ program, dir, logger });
let port: number;
let stranger: Server;

const config = (revision: string, listenPort: number, more = '') => ({
  revision,
  text: `
pid ${dir}/nginx.pid; ${more}
events {}
http {
  access_log off; proxy_temp_path ${dir}/p; client_body_temp_path ${dir}/b;
  fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
  server { listen unix:${dir}/control.sock; location = /revision { return 200 ${revision}; } }
  server { listen 127.0.0.1:${listenPort}; return 200 "this is ${revision}"; }
}`,
});
/** For a moment old workers take connections, too. */
const serves = (text: string) =>
  vi.waitFor(async () => {
    const headers = { Connection: 'close' };
    expect(await (await fetch(`http://127.0.0.1:${port}/`, { headers })).text()).toBe(text);
  });
const onDisk = () => readFileSync(join(dir, 'nginx.conf'), 'utf8');
const masterPid = () => Number(readFileSync(join(dir, 'nginx.pid'), 'utf8'));

beforeAll(async () => {
  const free = createServer().listen(0, '127.0.0.1');
  stranger = createServer().listen(0, '127.0.0.1');
  await Promise.all([once(free, 'listening'), once(stranger, 'listening')]);
  port = (free.address() as AddressInfo).port;
  free.close();
  await once(free, 'close');
});

afterAll(async () => {
  await nginx.stop();
  stranger.close();
  rmSync(dir, { recursive: true, force: true });
});

describe('nginx', () => {
  beforeEach(() => nginx.apply(config('good', port)));

  it('takes another configuration as the same process', async () => {
    const pid = masterPid();
    await serves('this is good');
    await nginx.apply(config('better', port));
    await serves('this is better');
    expect(masterPid()).toBe(pid);
  });

  it('runs on when its agent is killed, and is taken over by the next one', async () => {
    const pid = masterPid();
    const next = new Nginx({ program, dir, logger });
    await next.apply(config('next', port));
    await serves('this is next');
    expect(masterPid()).toBe(pid);
  });

  it.each([
    ['that it does not understand', () => config('bad', port, 'worker_processes nonsense;'), /invalid value/],
    [
      'with the port of another program',
      () => config('bad', (stranger.address() as AddressInfo).port),
      /not take/,
    ],
  ])('goes back to the last good configuration after one %s', async (_, bad, why) => {
    const refusal: unknown = await nginx.apply(bad()).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(NginxError);
    expect(String(refusal)).toMatch(why);
    await serves('this is good');
    expect(onDisk()).toBe(config('good', port).text);
    expect(nginx.running?.revision).toBe('good');
  });

  it('that cannot start says why, and leaves nothing behind that is in the way', async () => {
    await nginx.stop();
    const taken = (stranger.address() as AddressInfo).port;
    await expect(nginx.apply(config('bad', taken))).rejects.toThrow(/Address already in use/);
    await nginx.apply(config('good', port));
    await serves('this is good');
  });

  it('that is missing is named in one sentence', async () => {
    await expect(describeNginx(join(dir, 'nowhere'))).rejects.toThrow(/cannot be started .*Install nginx/);
  });
});
