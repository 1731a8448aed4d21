import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../src/run.ts';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'starling-infra-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function starling(...argv: string[]) {
  const texts = { stdout: '', stderr: '' };
  const code = await run(argv, {
    stdout: { write: (text) => (texts.stdout += text) },
    stderr: { write: (text) => (texts.stderr += text) },
    env: {},
    cwd: folder,
    readStdin: async () => '',
    readSecret: async () => '',
    readLine: async () => '',
    onInterrupt: () => () => undefined,
  });
  return { code, ...texts };
}

describe('starling infra', () => {
  it('makes keys, and puts their public halves into what it writes', async () => {
    expect((await starling('infra', 'keys')).code).toBe(0);
    const { code, stdout, stderr } = await starling(
      'infra',
      'synth',
      '--profile',
      'classic-iptv',
      '--region',
      'us-east-1',
      '--emit',
      'terraform',
      '--json',
    );
    expect(code).toBe(0);
    expect(stderr).toMatch(/^warning: PLAN_NOBODY_GETS_IN/);
    const [main = ''] = (JSON.parse(stdout) as { files: string[] }).files;
    const { variable } = JSON.parse(readFileSync(main, 'utf8')) as {
      variable: Record<string, { default?: string }>;
    };
    expect(variable.bastion_public_key?.default).toBe(
      readFileSync(join(folder, 'deploy/keys/bastion.pub'), 'utf8').trim(),
    );
  });

  it.each(['ansible', 'diagram', 'matrix', 'prices', 'plan'])(
    'writes the same %s each time',
    async (what) => {
      const written = async (out: string) => {
        const { code, stdout } = await starling(
          'infra',
          'synth',
          '--profile',
          'classic-iptv',
          '--region',
          'eu-west-1',
          '--emit',
          what,
          '--out',
          out,
          '--json',
        );
        expect(code).toBe(0);
        return (JSON.parse(stdout) as { files: string[] }).files.map((path) => readFileSync(path, 'utf8'));
      };
      expect(await written('one')).toEqual(await written('two'));
    },
  );

  it('writes nothing that AWS would refuse, and says why', async () => {
    writeFileSync(
      join(folder, 'deploy.yaml'),
      'profile: classic-iptv\nregion: eu-west-1\ninstanceTypes: { bastion: t3.micro }\n',
    );
    const { code, stderr } = await starling(
      'infra',
      'synth',
      '--file',
      'deploy.yaml',
      '--emit',
      'plan',
      '--out',
      'none',
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /PLAN_INTERFACE_LIMIT: BastionA: .* a t3\.micro takes 2\. These take 3: t3\.small/,
    );
  });

  it.each([
    ['terraform', 'beta', /--emit cloudformation/],
    ['ansible', 'production', /set themselves up/],
  ])('says for which profile %s is', async (emit, profile, says) => {
    const { code, stderr } = await starling(
      'infra',
      'synth',
      '--profile',
      profile,
      '--region',
      'us-east-1',
      '--emit',
      emit,
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(says);
  });

  it('draws the network, as Mermaid or SVG', async () => {
    const draw = (...flags: string[]) => starling('infra', 'diagram', '--profile', 'classic-iptv', ...flags);
    expect((await draw()).stdout).toMatch(/^flowchart[\s\S]*Bastion/);
    expect((await draw('--svg', 'network.svg')).code).toBe(0);
    expect(readFileSync(join(folder, 'network.svg'), 'utf8')).toMatch(/^<svg[\s\S]*<\/svg>/);
  });

  it('prints the inventory', async () => {
    expect((await starling('infra', 'inventory', '--profile', 'classic-iptv')).stdout).toMatch(
      /bastions:\n\s+hosts:\n\s+bastion:/,
    );
  });
});

describe('docs/deploy.md', () => {
  it('has only commands and options that the program has', async () => {
    const text = readFileSync(join(import.meta.dirname, '../../../docs/deploy.md'), 'utf8').replace(
      /\\\n/g,
      ' ',
    );
    const lines = [
      ...text.matchAll(/(?:^|`|\n\s*)(?:npx )?starling ((?:infra |schedule )?[a-z]+)([^\n`#]*)/g),
    ];
    expect(lines.length).toBeGreaterThan(25);
    const helps = new Map<string, string>();
    for (const [, command = '', rest = ''] of lines) {
      if (command === 'up') continue;
      const help = helps.get(command) ?? (await starling(...command.split(' '), '--help')).stdout;
      helps.set(command, help);
      expect(help, command).toContain(`Usage: starling ${command}`);
      for (const [flag] of rest.matchAll(/--[a-z-]+/g))
        expect(help, `${command} ${flag}`).toMatch(new RegExp(`${flag}\\b`));
    }
  });
});
