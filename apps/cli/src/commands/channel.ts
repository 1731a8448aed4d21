/** `starling channel`: what is on the air. */
import type { ChannelSources, ChannelWithStatus, SourceChoice } from '@starling/model/entities';
import { Argument, type Command, Option } from 'commander';
import { type CommandContext, CommandError } from '../io.ts';
import { examples, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';

export function addChannelCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const channel = program.command('channel').description('Channels that play assets around the clock.');
  channel
    .command('add')
    .description('Add a channel that plays assets in order, again and again.')
    .argument('<name>', 'lower-case letters, digits and hyphens; part of the address')
    .requiredOption('--loop <asset,...>', 'ids or names of assets', splitList)
    .option('--title <title>', 'what viewers see (default: the name)')
    .addHelpText(
      'after',
      examples(
        'starling channel add films --loop film',
        'starling channel add mix --title "The Mix" --loop one,two',
      ),
    )
    .action(async (name: string, { loop, title }: { loop: string[]; title?: string }) => {
      const { client, apiUrl } = requireRunning(dataDir());
      const added = await client.channels.create({ name, loop, ...(title === undefined ? {} : { title }) });
      if (wantsJson()) return printJson(io.stdout, added);
      io.stdout.write(`Channel ${name} is on: ${apiUrl}/watch/${name}\n`);
    });
  channel
    .command('ls')
    .description('List the channels and what is on.')
    .addHelpText('after', examples('starling channel ls', 'starling channel ls --json'))
    .action(async () => {
      const { client } = requireRunning(dataDir());
      const onAir = new Map((await client.publicChannels.list()).map((one) => [one.name, one]));
      const items = (await client.channels.list()).map((one) => {
        const { isOnAir = false, now = null, next = null } = onAir.get(one.name) ?? {};
        return { ...one, isOnAir, now, next };
      });
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['NAME', 'TITLE', 'KIND', 'ON AIR', 'NOW'],
        items.map(({ name, title, kind, isOnAir, now }) => [
          name,
          title,
          kind,
          isOnAir ? 'yes' : 'no',
          now?.title ?? '',
        ]),
        'There are no channels. Add one with: starling channel add NAME --loop ASSET',
      );
    });
  channel
    .command('set')
    .description('Set the chain of sources: what is shown, and what instead when it fails.')
    .argument('<name>')
    .option('--primary <stream>', 'the stream that is shown whenever it is well; "none" for no stream')
    .option('--backup <stream>', 'the stream that stands in for it; "none" for no stream')
    .addOption(
      new Option('--fallback <what>', 'what comes after the streams').choices(['playout', 'slate', 'none']),
    )
    .addHelpText(
      'after',
      examples(
        'starling channel set films --primary studio --fallback playout',
        'starling channel set cam --backup phone --fallback slate',
      ),
    )
    .action(async (name: string, options: SetOptions) => {
      const { client } = requireRunning(dataDir());
      const { sources, runs } = await client.channels.get(name);
      const known = sources ?? {
        primary: null,
        backup: null,
        fallback: runs.length > 0 ? 'playout' : 'slate',
      };
      if (Object.keys(options).length === 0) {
        throw new CommandError('Say what to set: --primary, --backup or --fallback.');
      }
      const streamOf = (option: string | undefined, before: string | null) =>
        option === undefined ? before : option === 'none' ? null : option;
      const updated = await client.channels.setSources(name, {
        primary: streamOf(options.primary, known.primary),
        backup: streamOf(options.backup, known.backup),
        fallback: options.fallback ?? known.fallback,
      });
      if (wantsJson()) return printJson(io.stdout, updated);
      io.stdout.write(`${chainText(updated)}\n`);
    });
  channel
    .command('source')
    .description('Show which source is on the air, or put one first.')
    .argument('<name>')
    .addArgument(
      new Argument('[source]', 'auto leaves the choice to the chain').choices([
        'auto',
        'primary',
        'backup',
        'playout',
        'slate',
      ]),
    )
    .addHelpText('after', examples('starling channel source films', 'starling channel source films slate'))
    .action(async (name: string, source: SourceChoice | undefined) => {
      const { client } = requireRunning(dataDir());
      if (source !== undefined) await client.channels.chooseSource(name, source);
      const channel = await client.channels.get(name);
      if (wantsJson()) return printJson(io.stdout, channel);
      const { activeSource: active, sourceChoice } = channel;
      io.stdout.write(
        [
          `Chain   ${chainText(channel)}`,
          `Choice  ${sourceChoice}`,
          `On air  ${active === null ? 'nothing' : `${active.source}, since ${active.since} (${active.reason})`}`,
          '',
        ].join('\n'),
      );
    });
  channel
    .command('rm')
    .description('Take a channel off the air and remove it. Its assets stay.')
    .argument('<name>')
    .addHelpText('after', examples('starling channel rm films'))
    .action(async (name: string) => {
      await requireRunning(dataDir()).client.channels.remove(name);
      if (wantsJson()) printJson(io.stdout, { removed: [name] });
    });
}

interface SetOptions {
  readonly primary?: string;
  readonly backup?: string;
  readonly fallback?: ChannelSources['fallback'];
}

function chainText({ sources }: ChannelWithStatus): string {
  if (sources === null) return 'schedule';
  const { primary, backup, fallback } = sources;
  const streams = [primary, backup].filter((stream) => stream !== null);
  const scheduled = { playout: ['schedule', 'slate'], slate: ['slate'], none: [] }[fallback];
  return [...streams, ...scheduled].join(' -> ') || 'nothing';
}

function splitList(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}
