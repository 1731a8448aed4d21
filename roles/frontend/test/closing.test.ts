/** What a frontend that is closing says, while its HTTP server still takes requests. */
import { once } from 'node:events';
import { request } from 'node:http';
import { listenHttp } from '@starling/net/http-server';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { startFrontend } from '../src/main.ts';

const logger = pino({ level: 'silent' });

it('hangs up instead of saying that its channels are off the air, so that a balancer asks another one', async () => {
  const frontend = await startFrontend({
    ...{ rtmpHost: '127.0.0.1', rtmpPort: 0, publishToken: 'token', logger, registry: new Registry() },
  });
  const http = await listenHttp(
    { host: '127.0.0.1', port: 0 },
    logger,
    (incoming, response) => void frontend.handleRequest(incoming, response),
    frontend.handleUpgrade,
  );
  const ask = async (headers: Record<string, string> = {}) => {
    const asked = request({ host: '127.0.0.1', port: http.port, path: '/live/cam.flv', headers });
    asked.end();
    const [response] = await once(asked, 'response');
    response.resume();
    return response.statusCode;
  };
  const upgrade = { connection: 'upgrade', upgrade: 'websocket' };
  try {
    expect([await ask(), await ask(upgrade)]).toEqual([404, 404]);
    const closed = frontend.close();
    await expect(ask()).rejects.toThrow('socket hang up');
    await expect(ask(upgrade)).rejects.toThrow('socket hang up');
    await closed;
  } finally {
    await http.close();
  }
});
