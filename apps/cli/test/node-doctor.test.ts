/** `starling doctor --config` with real peers: a coordinator, a frontend, certificates. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startCoordinator } from '@starling/coordinator/main';
import { startFrontend } from '@starling/frontend/main';
import { CoordinatorClient } from '@starling/model/client';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { generate } from 'selfsigned';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { freePort } from '../../../tools/free-port.ts';
import { joinNetwork } from '../src/joining.ts';
import { checkSkew, examineNode } from '../src/node-checks.ts';
import { run } from '../src/run.ts';

const folder = mkdtempSync(join(tmpdir(), 'starling-doctor-'));
const configPath = join(folder, 'starling.yaml');
const closers: (() => Promise<unknown>)[] = [];
let coordinatorPort: number;
let frontendPort: number;

beforeAll(async () => {
  const logger = pino({ level: 'silent' });
  const coordinator = await startCoordinator({
    ...{ dataDir: join(folder, 'coordinator'), logger, registry: new Registry(), webDir: undefined },
    ...{ operatorToken: 'operator', nodeToken: 'node' },
  });
  closers.push(() => coordinator.close());
  coordinatorPort = (await coordinator.listen('127.0.0.1', 0)).port;
  const frontend = await startFrontend({
    ...{ rtmpHost: '127.0.0.1', rtmpPort: 0, publishToken: 'publish', logger, registry: new Registry() },
  });
  closers.push(() => frontend.close());
  frontendPort = frontend.rtmpPort;
  for (const [name, secret] of Object.entries({
    'node.token': 'node',
    'publish.token': 'publish',
    'wrong.token': 'x',
  }))
    writeFileSync(join(folder, name), `${secret}\n`);
  mkdirSync(join(folder, 'backend'));
  for (const [name, days] of Object.entries({ good: 90, short: 5, gone: -1 })) {
    const nowMs = Date.now();
    const { cert, private: key } = await generate([{ name: 'commonName', value: name }], {
      ...{ keyType: 'ec', curve: 'P-256', algorithm: 'sha256' },
      notBeforeDate: new Date(nowMs - 10 * 86_400_000),
      notAfterDate: new Date(nowMs + days * 86_400_000),
    });
    writeFileSync(join(folder, `${name}.crt`), cert);
    writeFileSync(join(folder, `${name}.key`), key);
  }
}, 180_000);
afterAll(async () => {
  for (const close of closers.reverse()) await close();
  rmSync(folder, { recursive: true, force: true });
});

interface Wanted {
  readonly rtmpPort?: number;
  readonly tokenFile?: string;
  readonly coordinatorPort?: number;
  readonly frontendPort?: number;
  readonly certificate?: string;
  readonly key?: string;
}

function writeConfig(wanted: Wanted = {}): void {
  const { certificate = 'good', key = certificate } = wanted;
  const backend = {
    dataDir: join(folder, 'backend'),
    rtmp: { host: '127.0.0.1', port: wanted.rtmpPort ?? 0 },
    rtmps: { port: 0, certificateFile: `${certificate}.crt`, privateKeyFile: `${key}.key` },
    coordinator: {
      url: `http://127.0.0.1:${wanted.coordinatorPort ?? coordinatorPort}`,
      tokenFile: wanted.tokenFile ?? 'node.token',
    },
    frontends: [
      { host: '127.0.0.1', port: wanted.frontendPort ?? frontendPort, publishTokenFile: 'publish.token' },
    ],
  };
  writeFileSync(configPath, stringify({ backend }));
}

const findingOf = async (check: string) =>
  (await examineNode(configPath, {})).find((finding) => finding.check === check);

describe('a node', () => {
  it('that has all that it needs is well', async () => {
    writeConfig();
    const findings = await examineNode(configPath, {});
    // The disk and the clock are those of the machine that runs the test.
    const failed = findings.filter(({ check, result }) => result !== 'ok' && !/^(disk|clock)$/.test(check));
    expect(failed).toEqual([]);
    const checks = ['node', 'ffmpeg', 'ffmpeg parts', 'coordinator', 'clock skew', 'frontend', 'port rtmp'];
    expect(findings.map(({ check }) => check)).toEqual(
      expect.arrayContaining([...checks, 'certificate RTMPS']),
    );
  });

  it.each<[string, Wanted, string, string, RegExp]>([
    ['a coordinator that does not answer', { coordinatorPort: 1 }, 'coordinator', 'fail', /does not answer/],
    ['another token', { tokenFile: 'wrong.token' }, 'coordinator', 'fail', /answers 401/],
    ['no token', { tokenFile: 'nosuch.token' }, 'node token', 'fail', /nosuch\.token/],
    [
      'a frontend that does not answer',
      { frontendPort: 1 },
      'frontend',
      'fail',
      /127\.0\.0\.1:1 .*ECONNREFUSED/,
    ],
    ['a certificate that ends soon', { certificate: 'short' }, 'certificate RTMPS', 'warn', /^ends /],
    ['a certificate that ended', { certificate: 'gone' }, 'certificate RTMPS', 'fail', /^ended /],
    [
      "another certificate's key",
      { certificate: 'good', key: 'short' },
      'certificate RTMPS',
      'fail',
      /good\.crt/,
    ],
  ])('with %s is not', async (_what, wanted, check, result, message) => {
    writeConfig(wanted);
    const finding = await findingOf(check);
    expect(finding).toMatchObject({ result, message: expect.stringMatching(message) });
    expect(finding?.advice).toMatch(/\.$/);
  });

  it('whose port something else has is not; one that speaks RTMP there is taken for itself', async () => {
    const port = await freePort();
    const other: Server = createServer((socket) => socket.end('220 smtp\r\n'));
    await new Promise<void>((listening) => other.listen(port, '127.0.0.1', listening));
    writeConfig({ rtmpPort: port });
    expect(await findingOf('port rtmp')).toMatchObject({ result: 'fail' });
    other.close();
    writeConfig({ rtmpPort: frontendPort });
    expect(await findingOf('port rtmp')).toMatchObject({ result: 'ok' });
  });

  it('that joins by invitation is well once it has joined, with the frontends that it heard of', async () => {
    const dataDir = join(folder, 'joined');
    mkdirSync(dataDir);
    const coordinatorUrl = `http://127.0.0.1:${coordinatorPort}`;
    const backend = { dataDir, rtmp: { host: '127.0.0.1', port: 0 }, coordinator: { url: coordinatorUrl } };
    writeFileSync(configPath, stringify({ backend }));
    expect(await findingOf('node key')).toMatchObject({
      result: 'fail',
      message: 'this node has not joined yet',
      advice: expect.stringContaining('starling node invite --role backend'),
    });

    const operator = new CoordinatorClient({ baseUrl: coordinatorUrl, token: 'operator' });
    const { token } = await operator.nodes.invite({ role: 'backend', expiresInSeconds: 60 });
    await joinNetwork({
      ...{ dataDir, coordinatorUrl, role: 'backend', name: 'studio', advertisedHost: '127.0.0.1' },
      ...{ readJoinToken: async () => token, logger: pino({ level: 'silent' }) },
    });
    const addresses = { host: '127.0.0.1', pushPorts: [frontendPort, 1] };
    const frontend = { id: '00000000000000f1', name: 'edge', role: 'frontend', addresses };
    const fleet = {
      revision: 1,
      nodes: [{ ...frontend, publicKey: 'A'.repeat(43), state: 'joined', restartBootId: null }],
    };
    writeFileSync(join(dataDir, 'fleet.json'), JSON.stringify(fleet));
    const findings = await examineNode(configPath, {});
    expect(findings).toContainEqual({
      ...{ check: 'coordinator', result: 'ok', message: `${coordinatorUrl} answers, and takes the key` },
    });
    const frontends = findings.filter(({ check }) => check === 'frontend');
    expect(frontends.map(({ result }) => result)).toEqual(['ok', 'fail']);

    await operator.nodes.remove('studio');
    expect(await findingOf('coordinator')).toMatchObject({
      result: 'fail',
      advice: expect.stringMatching(/^Was this node removed\?/),
    });
  });

  it('is judged by the exit code, and as JSON', async () => {
    writeConfig({ coordinatorPort: 1 });
    let stdout = '';
    const output = {
      write(text: string) {
        stdout += text;
      },
    };
    const code = await run(['doctor', '--config', configPath, '--json'], {
      ...{ stdout: output, stderr: { write: () => {} }, env: {}, cwd: folder },
      ...{
        readStdin: async () => '',
        readSecret: async () => '',
        readLine: async () => '',
        onInterrupt: () => () => {},
      },
    });
    expect(code).toBe(1);
    expect(JSON.parse(stdout).findings).toContainEqual(
      expect.objectContaining({ check: 'coordinator', result: 'fail' }),
    );
  });
});

describe('a clock', () => {
  const at = 1_000_000_000;
  it.each([
    ['that agrees', at, 'ok'],
    ['that agrees to the second of the header', at - 999, 'ok'],
    ['that is 5 s ahead', at - 6000, 'warn'],
    ['that is 5 s behind', at + 5100, 'warn'],
    ['that is a minute ahead', at - 61_000, 'fail'],
  ])('%s', (_what, dateUnixMs, result) => {
    expect(checkSkew(dateUnixMs, at, at + 50)).toMatchObject([{ check: 'clock skew', result }]);
  });
  it('that cannot be compared says nothing', () => expect(checkSkew(Number.NaN, at, at)).toEqual([]));
});
