/** Each role in a process of its own, from one configuration file, as in a fleet. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { freePort } from '../tools/free-port.ts';
import { ffmpegComplaints, program, run, until } from './network.ts';
import { startRole as startRoleProcess } from './role-processes.ts';

const folder = mkdtempSync(join(tmpdir(), 'starling-roles-'));
const configPath = join(folder, 'starling.yaml');
const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function startRole(role: string): Promise<ChildProcess> {
  const { process, says } = await startRoleProcess(role, configPath);
  children.push(process);
  expect(says).toContain(`${role}: `);
  return process;
}

function publish(url: string): void {
  const args = `-v error -re -f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=r=48000 -t 60 -c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p -c:a aac -f flv`;
  children.push(spawn('ffmpeg', [...args.split(' '), url], { stdio: 'ignore' }));
}

describe('roles as processes', () => {
  it('carry a live stream from an encoder to a viewer, also while the coordinator is gone', async () => {
    const [api, ingest, push, site] = [
      await freePort(),
      await freePort(),
      await freePort(),
      await freePort(),
    ];
    mkdirSync(join(folder, 'data'), { recursive: true });
    for (const name of ['operator', 'node', 'publish'])
      writeFileSync(join(folder, `${name}.token`), `${name}-secret\n`);
    writeFileSync(
      configPath,
      `
coordinator:
  dataDir: ${folder}/data
  http: { host: 127.0.0.1, port: ${api} }
  operatorTokenFile: operator.token
  nodeTokenFile: node.token
backend:
  dataDir: ${folder}/data
  rtmp: { host: 127.0.0.1, port: ${ingest} }
  coordinator: { url: "http://127.0.0.1:${api}", tokenFile: node.token }
  frontends: [{ host: 127.0.0.1, port: ${push}, publishTokenFile: publish.token }]
frontend:
  http: { host: 127.0.0.1, port: ${site} }
  rtmp: { host: 127.0.0.1, port: ${push} }
  publishTokenFile: publish.token
  coordinator: { url: "http://127.0.0.1:${api}", tokenFile: node.token }
  dataDir: ${folder}/frontend
`,
    );
    const coordinator = await startRole('coordinator');
    await startRole('frontend');
    await startRole('backend');
    const client = new CoordinatorClient({ baseUrl: `http://127.0.0.1:${api}`, token: 'operator-secret' });
    const { key } = await client.streams.create({ name: 'cam' });
    const isOpen = async (path: string) => {
      const response = await fetch(`http://127.0.0.1:${site}${path}`);
      await response.body?.cancel();
      return response.ok ? true : undefined;
    };
    await until('the backend to know the stream', 10_000, async () => {
      const probe = await run('timeout', [
        ...['1', 'ffmpeg', '-v', 'error', '-re', '-f', 'lavfi', '-i', 'testsrc2=s=160x90', '-c:v', 'libx264'],
        ...['-f', 'flv', `rtmp://127.0.0.1:${ingest}/live/cam?key=${key}`],
      ]);
      return probe.stderr.includes('Wrong stream') ? undefined : true;
    });
    coordinator.kill('SIGKILL');
    await until('the probe to be gone', 10_000, async () => {
      publish(`rtmp://127.0.0.1:${ingest}/live/cam?key=${key}`);
      await new Promise((wake) => setTimeout(wake, 3000));
      return isOpen('/live/cam/index.m3u8');
    });
    expect(await ffmpegComplaints(`http://127.0.0.1:${site}/live/cam.flv`, 3)).toBe('');
    expect((await fetch(`http://127.0.0.1:${site}/readyz`)).status).toBe(200);
  });

  it('a frontend alone takes an encoder that shows its token, and no other', async () => {
    const [push, site] = [await freePort(), await freePort()];
    writeFileSync(join(folder, 'publish.token'), 'publish-secret');
    writeFileSync(
      configPath,
      JSON.stringify({
        frontend: {
          http: { host: '127.0.0.1', port: site },
          rtmp: { host: '127.0.0.1', port: push },
          publishTokenFile: 'publish.token',
        },
      }),
    );
    await startRole('frontend');
    const refused = await run('ffmpeg', [
      ...['-v', 'error', '-f', 'lavfi', '-i', 'testsrc2=s=160x90', '-t', '1', '-c:v', 'libx264', '-f', 'flv'],
      `rtmp://127.0.0.1:${push}/live/solo?token=guess`,
    ]);
    expect(refused.stderr).toContain('pushes from backends only');
    publish(`rtmp://127.0.0.1:${push}/live/solo?token=publish-secret`);
    await until('HLS', 15_000, async () =>
      (await fetch(`http://127.0.0.1:${site}/live/solo/index.m3u8`)).ok ? true : undefined,
    );
    expect(await ffmpegComplaints(`http://127.0.0.1:${site}/live/solo/index.m3u8`, 3)).toBe('');
  });

  it.each([
    ['frontend:\n  http: { port: 99999 }\n', /starling\.yaml: .+/],
    ['backend: {}\n', /has no section "frontend"|starling\.yaml: .+/],
    ['frontend: [\n', /cannot be read/],
  ])('say in one line what is wrong with the file %j', async (text, expected) => {
    writeFileSync(configPath, text);
    const failed = await run(process.execPath, [program, 'frontend', '--config', configPath]);
    expect(failed.exitCode).toBe(1);
    expect(failed.stderr).toMatch(expected);
    expect(failed.stderr).not.toContain('    at ');
  });
});
