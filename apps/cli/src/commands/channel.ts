/** `starling channel`: what is on the air. */
import type { Command } from 'commander';
import type { CommandContext } from '../io.ts';
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
    .command('rm')
    .description('Take a channel off the air and remove it. Its assets stay.')
    .argument('<name>')
    .addHelpText('after', examples('starling channel rm films'))
    .action(async (name: string) => {
      await requireRunning(dataDir()).client.channels.remove(name);
      if (wantsJson()) printJson(io.stdout, { removed: [name] });
    });
}

function splitList(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}
