/** `starling infra synth`, `inventory`, `diagram` and `keys`: what a deployment consists of, as files. Nothing is asked of AWS. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Plan } from '@starling/model/topology/plan';
import { type Command, Option } from 'commander';
import { addDeploymentOptions, type DeploymentOptions, planOfOptions } from '../deployment-options.ts';
import { type CommandContext, CommandError } from '../io.ts';
import { examples, printJson } from '../output.ts';

const emits = ['cloudformation', 'terraform', 'ansible', 'diagram', 'matrix', 'prices', 'plan'] as const;

interface SynthOptions extends DeploymentOptions {
  readonly emit: (typeof emits)[number];
  readonly out: string;
  readonly keys: string;
}

export function addInfraCommands(infra: Command, { io, wantsJson }: CommandContext): void {
  addDeploymentOptions(infra.command('synth'))
    .description('Write what a deployment consists of as files. Asks nothing of AWS.')
    .addOption(new Option('--emit <what>', 'what to write').choices(emits).makeOptionMandatory())
    .option('--out <dir>', 'folder to write to', 'deploy')
    .option('--keys <dir>', 'folder of the keys, whose public halves go into it (default: keys in --out)')
    .addHelpText(
      'after',
      examples(
        'starling infra synth --profile classic-iptv --region us-east-1 --emit terraform --out deploy',
        'starling infra synth --profile production --region eu-west-1 --emit diagram --out docs/network',
        'starling infra synth --file deploy.yaml --emit cloudformation --out deploy/aws',
        'starling infra synth --file deploy.yaml --emit ansible',
      ),
    )
    .action(async (options: SynthOptions) => {
      const folder = resolve(io.cwd, options.out);
      const plan = await checkedPlan(options, resolve(io.cwd, options.keys ?? join(options.out, 'keys')));
      const names =
        options.emit === 'cloudformation'
          ? await writeTemplates(plan, folder)
          : await writeFiles(plan, options.emit, folder);
      const paths = names.map((name) => join(folder, name));
      if (wantsJson()) printJson(io.stdout, { files: paths });
      else for (const path of paths) io.stdout.write(`${path}\n`);
    });

  addDeploymentOptions(infra.command('inventory'))
    .description("Print Ansible's inventory of a deployment.")
    .addHelpText('after', examples('starling infra inventory --profile classic-iptv --region us-east-1'))
    .action(async (options: DeploymentOptions) => {
      const plan = await checkedPlan(options, undefined);
      const { ansibleInventory } = await import('@starling/infra/ansible/inventory');
      io.stdout.write(ansibleInventory(plan));
    });

  addDeploymentOptions(infra.command('diagram'))
    .description('Draw the network of a deployment: as Mermaid, or as an SVG file.')
    .option('--svg <file>', 'write an SVG file instead')
    .addHelpText(
      'after',
      examples(
        'starling infra diagram --profile classic-iptv --region us-east-1',
        'starling infra diagram --file deploy.yaml --svg network.svg',
      ),
    )
    .action(async (options: DeploymentOptions & { svg?: string }) => {
      const plan = await checkedPlan(options, undefined);
      const { mermaidDiagram, svgDiagram } = await import('@starling/model/topology/diagram');
      if (options.svg === undefined) io.stdout.write(mermaidDiagram(plan));
      else writeFileSync(resolve(io.cwd, options.svg), svgDiagram(plan));
    });

  infra
    .command('keys')
    .description("Make the operator's SSH keys and the tokens that hosts share, where there are none.")
    .option('--out <dir>', 'folder, for you alone', 'deploy/keys')
    .option('--rotate', 'make new SSH keys; the old ones stay until --forget-old')
    .option('--forget-old', 'remove the keys that a rotation left')
    .addHelpText(
      'after',
      examples('starling infra keys', 'starling infra keys --rotate', 'starling infra keys --forget-old'),
    )
    .action(async ({ out, rotate, forgetOld }: { out: string; rotate?: true; forgetOld?: true }) => {
      const folder = resolve(io.cwd, out);
      const { forgetOldKeys, makeKeys } = await import('@starling/infra/keys');
      if (forgetOld === true) {
        const forgotten = forgetOldKeys(folder);
        if (wantsJson()) printJson(io.stdout, { forgotten });
        else
          io.stdout.write(
            forgotten.length === 0 ? 'There were no old keys.\n' : `Removed ${forgotten.join(', ')}.\n`,
          );
        return;
      }
      const { made, publicKeys } = await inOneSentence(() => makeKeys(folder, { rotate: rotate === true }));
      if (wantsJson()) return printJson(io.stdout, { folder, made, publicKeys });
      io.stdout.write(
        made.length === 0 ? `${folder} has all keys.\n` : `Made in ${folder}: ${made.join(', ')}.\n`,
      );
      if (rotate === true)
        io.stdout.write(
          'Run synth, terraform apply and the playbook, then starling infra keys --forget-old.\n',
        );
    });

  /** The plan, with the public keys of the folder where the file has none. @throws CommandError when AWS would refuse it */
  async function checkedPlan(options: DeploymentOptions, keysFolder: string | undefined): Promise<Plan> {
    const { readPublicKeys } = await import('@starling/infra/keys');
    const first = planOfOptions(io, options);
    const known = keysFolder === undefined ? undefined : readPublicKeys(keysFolder);
    const { keys } = first.deployment;
    const plan =
      known === undefined
        ? first
        : planOfOptions(io, options, {
            keys: { bastion: keys.bastion ?? known.bastion, instances: keys.instances ?? known.instances },
          });
    const { validatePlan } = await import('@starling/model/topology/validate');
    const findings = validatePlan(plan);
    const faults = findings.filter(({ isWarning }) => !isWarning);
    if (faults.length > 0)
      throw new CommandError(faults.map(({ code, sentence }) => `${code}: ${sentence}`).join('\n'));
    for (const { code, sentence } of findings) io.stderr.write(`warning: ${code}: ${sentence}\n`);
    return plan;
  }
}

async function writeFiles(
  plan: Plan,
  emit: Exclude<SynthOptions['emit'], 'cloudformation'>,
  folder: string,
): Promise<string[]> {
  const { emitters } = await import('@starling/infra/synth');
  const files: Readonly<Record<string, string>> = await inOneSentence(async () => emitters[emit](plan));
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }
  return Object.keys(files);
}

async function writeTemplates(plan: Plan, folder: string): Promise<string[]> {
  // The CDK takes seconds to load; nothing else needs it.
  const { writeAssembly } = await import('@starling/infra/cloudformation/synthesize');
  return ['manifest.json', ...writeAssembly(plan, folder).map(({ name }) => `${name}.template.json`)];
}

async function inOneSentence<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Error && ['AnsibleError', 'KeysError', 'TerraformError'].includes(error.name))
      throw new CommandError(error.message);
    throw error;
  }
}
