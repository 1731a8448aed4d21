/** `starling infra deploy`, `diff` and `destroy`: the stacks of a deployment on AWS. */
import { resolve } from 'node:path';
import type { Removal, StackChanges } from '@starling/infra/operate/stack';
import { type Command, InvalidArgumentError } from 'commander';
import type { CommandContext } from '../io.ts';
import { examples, printJson, printTable } from '../output.ts';
import { type AwsFlags, addAwsOptions, withAws } from './operate.ts';

interface TemplateFlags extends AwsFlags {
  readonly template: string;
  readonly bucket?: string;
  readonly parameter?: (readonly [string, string])[];
}

export function addStackCommands(infra: Command, context: CommandContext): void {
  const { io, wantsJson } = context;
  const showChanges = ({ stack, region, isNew, isEmpty, changes }: StackChanges, output = io.stdout) => {
    output.write(`${stack} in ${region}${isNew ? ' (new)' : ''}:\n`);
    printTable(
      output,
      ['CHANGE', 'RESOURCE', 'TYPE', ''],
      changes.map(({ action, resource, type, replacement }) => [
        action,
        resource,
        type,
        replacement === undefined ? '' : replacement === 'True' ? 'made anew' : 'may be made anew',
      ]),
      isEmpty ? 'Nothing changes.' : 'Only outputs, parameters or tags change.',
    );
  };
  const optionsOf = ({ template, parameter, bucket }: TemplateFlags) => ({
    path: resolve(io.cwd, template),
    bucket,
    parameters: new Map(parameter ?? []),
  });
  /** Asks on a terminal; without one, standard input answers. */
  const confirm = async (question: string, wanted: string) => (await io.readLine(question)).trim() === wanted;

  addTemplateOptions(
    infra
      .command('deploy')
      .description('Create the stacks of a deployment, or change them to what the templates say.'),
  )
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `\nPrints the changes first, and asks. When it is interrupted, run it again.${examples(
        'starling infra deploy --template cdk.out',
        'starling infra deploy --template cdk.out --deployment iptv --region eu-west-1 --yes',
        'starling infra deploy --template cdk.out --bucket example-templates',
      )}`,
    )
    .action(async (flags: TemplateFlags & { yes?: true }) => {
      const { deployStacks } = await import('@starling/infra/operate/stack');
      await withAws(
        context,
        flags,
        (aws, name) =>
          deployStacks(aws, name, optionsOf(flags), async (changes) => {
            showChanges(changes, io.stderr);
            return flags.yes === true || confirm('Make these changes? Type yes: ', 'yes');
          }),
        (items) => {
          if (wantsJson()) return printJson(io.stdout, { items });
          for (const { stack, isEmpty, outputs } of items) {
            io.stdout.write(`${stack} ${isEmpty ? 'is as the template says already' : 'is done'}.\n`);
            printTable(io.stdout, ['OUTPUT', 'VALUE'], Object.entries(outputs), 'It has no outputs.');
          }
        },
      );
    });
  addTemplateOptions(
    infra.command('diff').description('Show what `infra deploy` would change; nothing is changed.'),
  )
    .addHelpText('after', examples('starling infra diff --template cdk.out'))
    .action(async (flags: TemplateFlags) => {
      const { diffStacks } = await import('@starling/infra/operate/stack');
      await withAws(
        context,
        flags,
        (aws, name) => diffStacks(aws, name, optionsOf(flags)),
        (items) => {
          if (wantsJson()) return printJson(io.stdout, { items });
          for (const item of items) showChanges(item);
        },
      );
    });
  addAwsOptions(
    infra.command('destroy').description('Remove the stacks of a deployment and what they made.'),
    {
      dryRun: true,
    },
  )
    .option('--remove-protection', 'also of what is protected from deletion: stacks, databases, machines')
    .option('--bucket <name>', 'your bucket, in the region, for templates that are too long for a call')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `\nSays first what stays, such as buckets with recordings, and asks for the name.${examples(
        'starling infra destroy --deployment iptv',
        'starling infra destroy --deployment iptv --remove-protection --yes',
      )}`,
    )
    .action(async (flags: AwsFlags & { removeProtection?: true; bucket?: string; yes?: true }) => {
      const { destroyStacks } = await import('@starling/infra/operate/stack');
      const sayKept = ({ kept }: Removal, output = io.stdout) => {
        for (const { id, type, policy } of kept) {
          output.write(
            policy === 'Snapshot'
              ? `${id} (${type}): a last snapshot of it stays, and costs.\n`
              : `${id} (${type}) stays, and costs: remove it yourself.\n`,
          );
        }
      };
      await withAws(
        context,
        flags,
        (aws, name) =>
          destroyStacks(
            aws,
            name,
            { ...flags, removeProtection: flags.removeProtection === true },
            async (removal) => {
              io.stderr.write(`This removes ${removal.stacks.join(', ')} and all that they made.\n`);
              sayKept(removal, io.stderr);
              return flags.yes === true || confirm(`Type ${name} to remove it: `, name);
            },
          ),
        (removal) => {
          if (wantsJson()) return printJson(io.stdout, removal);
          io.stdout.write(`Removed: ${removal.stacks.join(', ')}.\n`);
          sayKept(removal);
        },
      );
    });
}

function addTemplateOptions(command: Command): Command {
  return addAwsOptions(
    command
      .requiredOption('--template <path>', 'a template, or the folder that `starling infra synth` wrote')
      .option('--bucket <name>', 'your bucket, in the region, for templates that are too long for a call')
      .option('--parameter <key=value...>', 'a parameter of the templates', parseParameter),
    { dryRun: command.name() === 'deploy' },
  );
}

function parseParameter(
  text: string,
  before: (readonly [string, string])[] | undefined,
): (readonly [string, string])[] {
  const [, key, value] = /^([A-Za-z0-9]+)=(.*)$/s.exec(text) ?? [];
  if (key === undefined || value === undefined)
    throw new InvalidArgumentError('Write a name and a value, such as DomainName=example.org.');
  return [...(before ?? []), [key, value]];
}
