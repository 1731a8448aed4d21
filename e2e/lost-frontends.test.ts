/**
 * A frontend that stops reading and one that vanishes: the others are not delayed by one access unit, and those two
 * have the stream again within a second of their return. The frontends are processes; the legs of the backend and
 * one more frontend, which looks at every access unit, are in here.
 *
 * On a machine with other work the times say little: they are printed, and `npm run soak` holds them to 1 s.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FrontendLeg } from '@starling/backend/publisher';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { Channel } from '@starling/net/channel';
import { RtmpServer } from '@starling/net/rtmp-server';
import { pino } from 'pino';
import { afterAll, describe, expect, it } from 'vitest';
import { gop, opening } from '../roles/backend/test/gops.ts';
import { freePort } from '../tools/free-port.ts';
import { until } from './network.ts';
import { startRole } from './role-processes.ts';

const isSoak = process.env.STARLING_SOAK !== undefined;
const MAX_RETURN_MS = isSoak ? 1000 : 5000;
/** 50 units a second of these are 16 Mb/s: sockets that nobody reads are full at once. */
const UNIT_BYTES = 40_000;
/** Longer than a leg waits for a frontend that takes nothing, and for one that does not answer. */
const AWAY_MS = isSoak ? 20_000 : 9000;

const folder = mkdtempSync(join(tmpdir(), 'starling-lost-frontends-'));
const logger = pino({ level: 'silent' });
const closers: (() => unknown)[] = [];
afterAll(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  rmSync(folder, { recursive: true, force: true });
});

interface Ports {
  readonly http: number;
  readonly rtmp: number;
}

async function startFrontend(name: string, { http, rtmp }: Ports) {
  const config = join(folder, `${name}.yaml`);
  writeFileSync(join(folder, 'token'), 'token');
  const listen = (port: number) => ({ host: '127.0.0.1', port });
  writeFileSync(
    config,
    JSON.stringify({ frontend: { http: listen(http), rtmp: listen(rtmp), publishTokenFile: 'token' } }),
  );
  const { process: child } = await startRole('frontend', config);
  closers.push(() => child.kill('SIGKILL'));
  return child;
}

/** The newest segment that a frontend lists; undefined while it lists none. */
async function newestSegment({ http }: Ports): Promise<string | undefined> {
  const url = `http://127.0.0.1:${http}/live/test/main/index.m3u8`;
  const response = await fetch(url, { signal: AbortSignal.timeout(5000) }).catch(() => undefined);
  if (response === undefined || !response.ok) return undefined;
  return (await response.text()).match(/^\d+\.m4s$/gm)?.at(-1);
}

describe('a channel whose frontends are lost', () => {
  it('goes on for the others, unit by unit, and comes back to them', async () => {
    const ports = await Promise.all(
      Array.from(
        { length: 3 },
        async (): Promise<Ports> => ({ http: await freePort(), rtmp: await freePort() }),
      ),
    );
    const [healthy, stopped, vanished] = ports;
    if (healthy === undefined || stopped === undefined || vanished === undefined)
      throw new Error('three ports');
    await startFrontend('healthy', healthy);
    const stoppedProcess = await startFrontend('stopped', stopped);
    const vanishedProcess = await startFrontend('vanished', vanished);

    let observedUnits = 0;
    const observer = await RtmpServer.listen({
      host: '127.0.0.1',
      port: 0,
      logger,
      handlers: {
        onPublish: () => {
          const demuxer = new FlvDemuxer();
          return {
            message: (message) => {
              for (const { type } of demuxer.push(message)) if (type === 'unit') observedUnits++;
            },
            end: () => {},
          };
        },
      },
    });
    closers.push(() => observer.close());

    const channel = new Channel('test');
    const legs = [observer.port, ...ports.map(({ rtmp }) => rtmp)].map(
      (port) =>
        new FrontendLeg(channel, { host: '127.0.0.1', port, publishToken: 'token' }, async () => '', logger),
    );
    closers.push(() => {
      for (const leg of legs) leg.close();
    });
    await until('all legs', 10_000, () => (legs.every(({ isPushing }) => isPushing) ? true : undefined), 10);

    let pushedUnits = 0;
    let number = 0;
    /** A unit is pushed when the one before has come to the observer: one that were held up would hold up all. */
    const pushGop = async () => {
      for (const event of gop(number++, UNIT_BYTES)) {
        const isOther = event.type === 'unit' && event.unit.trackId !== 0;
        if (isOther) continue;
        channel.push([event]);
        if (event.type !== 'unit') continue;
        pushedUnits++;
        await until(`unit ${pushedUnits}`, 2000, () => (observedUnits === pushedUnits ? true : undefined), 1);
      }
    };
    channel.push(opening.filter((event) => event.type !== 'track' || event.track.trackId === 0));
    for (let count = 0; count < 3; count++) await pushGop();
    await until('all frontends', 10_000, async () => {
      const newest = await Promise.all(ports.map(newestSegment));
      return newest.every((one) => one !== undefined && one === newest[0]) ? true : undefined;
    });

    stoppedProcess.kill('SIGSTOP');
    vanishedProcess.kill('SIGKILL');
    const awayUntilMs = performance.now() + AWAY_MS;
    while (performance.now() < awayUntilMs) {
      await pushGop();
      await new Promise((wake) => setTimeout(wake, 300));
    }
    expect(legs.map(({ isPushing }) => isPushing)).toEqual([true, true, false, false]);
    await until('the newest segment', 5000, async () =>
      (await newestSegment(healthy))?.startsWith(`${number - 2}.`) ? true : undefined,
    );

    const isBack = async (who: Ports) => {
      const expected = `${number - 2}.m4s`;
      const sinceMs = performance.now();
      await until(
        'its return',
        10_000,
        async () => ((await newestSegment(who)) === expected ? true : undefined),
        10,
      );
      return performance.now() - sinceMs;
    };
    stoppedProcess.kill('SIGCONT');
    const stoppedMs = await isBack(stopped);
    await startFrontend('vanished', vanished);
    const vanishedMs = await isBack(vanished);
    process.stdout.write(
      `back after ${Math.round(stoppedMs)} ms (stopped) and ${Math.round(vanishedMs)} ms (vanished)\n`,
    );
    expect(Math.max(stoppedMs, vanishedMs)).toBeLessThanOrEqual(MAX_RETURN_MS);
    await pushGop();
    await until('the next segment everywhere', 5000, async () => {
      const newest = await Promise.all(ports.map(newestSegment));
      return newest.every((one) => one === `${number - 2}.m4s`) ? true : undefined;
    });
  });
});
