/** The commands for AWS, as a user types them, against the fake AWS. What they do is tested in `ops/infra/test`. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { addRoleStack, emptyWorld, REGION, type World } from '../../../ops/infra/test/operate/world.ts';
import { run } from '../src/run.ts';

let world: World;
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'starling-operate-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeEach(async () => {
  world = await emptyWorld();
  vi.stubEnv('AWS_ENDPOINT_URL', world.fake.endpoint);
  vi.stubEnv('AWS_REGION', REGION);
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDEXAMPLE');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'of-the-fake');
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await world.fake.close();
});

async function starling(line: string, options: { answer?: string; env?: Record<string, string> } = {}) {
  let stdout = '';
  let stderr = '';
  const code = await run(line.split(' '), {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    env: options.env ?? {},
    cwd: folder,
    readStdin: async () => '',
    readSecret: async () => '',
    readLine: async () => options.answer ?? '',
    onInterrupt: () => () => {},
  });
  return { code, stdout, stderr };
}

const tags = (role: string) => ({ 'starling:deployment': 'iptv', 'starling:role': role });

describe('pause, resume, status', () => {
  it('show what there is, in a table and as JSON, and exit with 0', async () => {
    const { id } = world.cloud.addInstance(tags('frontend'), { ip: 'elastic' });
    world.cloud.addCache('iptv-cache', tags('cache'), 'cache.t4g.micro');
    const status = await starling('status --deployment iptv');
    expect(status).toMatchObject({ code: 0, stderr: '' });
    expect(status.stdout).toMatch(
      new RegExp(`^instance +${id} +frontend +running at 203\\.0\\.113\\.\\d+$`, 'm'),
    );
    expect(status.stdout).toContain('iptv in eu-west-1 is running.\n');
    expect(status.stdout).toContain('iptv-cache goes on running, for about $12.41 a month.');
    const json = JSON.parse(
      (await starling('status --json', { env: { STARLING_DEPLOYMENT: 'iptv' } })).stdout,
    );
    expect(json).toMatchObject({
      deployment: 'iptv',
      region: REGION,
      condition: 'running',
      units: [{ kind: 'instance', id, role: 'frontend', condition: 'running' }, { kind: 'cache' }],
    });
  });

  it('a dry run prints the calls and makes none', async () => {
    const { id } = world.cloud.addInstance(tags('frontend'));
    const { code, stdout } = await starling('pause --deployment iptv --dry-run');
    expect(code).toBe(0);
    expect(stdout).toBe(`EC2 StopInstances {"InstanceIds":["${id}"]}\nNone of these calls was made.\n`);
    expect(JSON.parse((await starling('pause --deployment iptv --dry-run --json')).stdout)).toEqual({
      calls: [{ service: 'EC2', call: 'StopInstances', input: { InstanceIds: [id] } }],
    });
    expect(world.fake.mutations).toEqual([]);
    expect((await starling('resume --deployment iptv --dry-run')).stdout).toBe('There is nothing to do.\n');
  });

  it('pause says what it does meanwhile to standard error, and resume brings it back', async () => {
    const instance = world.cloud.addInstance(tags('frontend'));
    // The command waits by the clock of this machine; the fake's goes with it.
    const ticking = setInterval(() => world.fake.advance(60_000), 100);
    try {
      const paused = await starling('pause --deployment iptv');
      expect(paused).toMatchObject({ code: 0, stderr: `Pausing frontend ${instance.id}\n` });
      expect(paused.stdout).toContain('iptv in eu-west-1 is paused.');
      expect((await starling('resume --deployment iptv')).stdout).toContain('iptv in eu-west-1 is running.');
    } finally {
      clearInterval(ticking);
    }
  }, 60_000);
});

describe('what goes wrong', () => {
  it('is one sentence to standard error, and exit code 1', async () => {
    expect(await starling('status')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Nothing in eu-west-1 is tagged starling:deployment=starling: check the name and the region.\n',
    });
    world.fake.denied.add('ec2:DescribeInstances');
    const denied = await starling('status --deployment iptv');
    expect(denied.code).toBe(1);
    expect(denied.stderr).toMatch(/^These AWS credentials may not call ec2:DescribeInstances \(.*\n$/);
  });

  it('without a region, without credentials, with nobody there: what to do', async () => {
    vi.stubEnv('AWS_REGION', undefined);
    vi.stubEnv('AWS_CONFIG_FILE', join(folder, 'none'));
    vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', join(folder, 'none'));
    vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
    expect(await starling('status')).toMatchObject({
      code: 1,
      stderr: 'No AWS region is set: add --region eu-west-1, or set AWS_REGION, and try again.\n',
    });
    vi.stubEnv('AWS_ACCESS_KEY_ID', undefined);
    const nobody = await starling('status --region eu-west-1');
    expect(nobody.code).toBe(1);
    expect(nobody.stderr).toMatch(
      /^There are no AWS credentials \(.*run `aws configure sso` and `aws sso login`.*\n$/,
    );
  });

  it.each([
    'scale',
    'scale --frontends 0',
    'scale frontend',
    'scale frontend=many',
    'schedule set --days mon',
    'schedule override',
    'schedule override --end --until 22:00',
    'infra deploy',
    'infra deploy --template x --parameter Key',
  ])('misused: %s is exit code 2, before AWS is asked', async (line) => {
    const { code, stderr } = await starling(line);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^error: .*\n/);
    expect(world.fake.calls).toEqual([]);
  });
});

describe('scale and schedule', () => {
  it('work from the command line', async () => {
    world.cloud.addGroup('iptv-frontends', tags('frontend'), { min: 1, desired: 1, max: 4 });
    addRoleStack(world.cloud);
    for (const stack of world.cloud.stacks.values()) stack.tags = { 'starling:deployment': 'iptv' };
    expect((await starling('scale --frontends 3 --deployment iptv')).stdout).toBe(
      'iptv-frontends: at least 3 from now on, and up to 4 under load.\n',
    );
    const hours = '--days mon-fri --from 09:00 --to 17:00 --zone Europe/Dublin';
    const set = await starling(`schedule set ${hours} --deployment iptv`);
    expect(set).toMatchObject({ code: 0, stderr: '' });
    const ls = await starling('schedule ls --deployment iptv --json');
    expect(JSON.parse(ls.stdout)).toEqual({
      items: [{ name: 'hours', hours: 'mon-fri 09:00-17:00 Europe/Dublin' }],
      overrideUntil: null,
    });
    expect((await starling('schedule override --until 2099-01-01T08:00 --deployment iptv')).stdout).toContain(
      'Overridden: until 2099-01-01T08:00:00Z it stays as it is.',
    );
    expect((await starling('schedule override --end --deployment iptv')).stdout).not.toContain('Overridden');
    expect((await starling('schedule rm --deployment iptv')).stdout).toContain('There are no opening hours');
    expect((await starling(`schedule set ${hours.replace('mon-fri', 'noday')} --deployment iptv`)).code).toBe(
      1,
    );
  });
});

describe('infra deploy, diff, destroy', () => {
  it('show the changes, ask, and do it', async () => {
    const template = { Resources: { Bucket: { Type: 'AWS::S3::Bucket', DeletionPolicy: 'Retain' } } };
    writeFileSync(join(folder, 'template.json'), JSON.stringify(template));
    const ticking = setInterval(() => world.fake.advance(60_000), 100);
    const line = '--template template.json --deployment iptv';
    try {
      const diff = await starling(`infra diff ${line}`);
      expect(diff).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^Add +Bucket +AWS::S3::Bucket$/m),
      });
      expect(await starling(`infra deploy ${line}`, { answer: 'no' })).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('The stack starling-iptv is as it was.\n'),
      });
      expect((await starling(`infra deploy ${line}`, { answer: 'yes' })).stdout).toContain(
        'starling-iptv is done.',
      );
      expect((await starling(`infra deploy ${line} --yes`)).stdout).toContain(
        'is as the template says already',
      );
      expect((await starling('infra destroy --deployment iptv', { answer: 'iptw' })).code).toBe(1);
      const destroyed = await starling('infra destroy --deployment iptv', { answer: 'iptv' });
      expect(destroyed.stdout).toBe(
        'Removed: starling-iptv.\nstarling-iptv-bucket (AWS::S3::Bucket) stays, and costs: remove it yourself.\n',
      );
      expect((await starling(`infra deploy ${line} --dry-run`)).stdout).toMatch(
        /^CloudFormation CreateChangeSet .*"TemplateBody":"\(\d+ characters\)"/,
      );
    } finally {
      clearInterval(ticking);
    }
  }, 120_000);
});
