/** `starling channel`: what is on the air. */
import { type Command, InvalidArgumentError } from 'commander';
import type { CommandContext } from '../io.ts';
import { examples, printJson, printTable, splitList } from '../output.ts';
import { requireRunning } from '../running.ts';
import { addScheduleCommands } from './schedule.ts';

export function addChannelCommands(program: Command, context: CommandContext): void {
  const { io, dataDir, wantsJson } = context;
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
    .command('set')
    .description('Change how a channel presents itself in guides and on TVs.')
    .argument('<name>')
    .option('--title <title>', 'what viewers see')
    .option('--number <number>', "the channel's number on a TV", parseNumber)
    .option('--logo <url>', 'address of a picture; "none" for the newest picture of the channel')
    .option('--group <group>', 'channels of one group stand together; "none" for the kind of the channel')
    .addHelpText(
      'after',
      examples(
        'starling channel set films --number 7 --group Films',
        'starling channel set films --logo https://example.org/films.png',
      ),
    )
    .action(async (name: string, options: SetOptions, command: Command) => {
      const { title, number, logo, group } = options;
      if (Object.keys(options).length === 0) {
        command.error('error: say what to change: --title, --number, --logo or --group.', { exitCode: 2 });
      }
      const updated = await requireRunning(dataDir()).client.channels.update(name, {
        ...(title !== undefined && { title }),
        ...(number !== undefined && { number }),
        ...(logo !== undefined && { logo: logo === 'none' ? null : logo }),
        ...(group !== undefined && { group: group === 'none' ? null : group }),
      });
      if (wantsJson()) printJson(io.stdout, updated);
    });
  addScheduleCommands(channel, context);
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
        ['NUMBER', 'NAME', 'TITLE', 'KIND', 'ON AIR', 'NOW'],
        items.map(({ name, title, number, kind, isOnAir, now }) => [
          String(number),
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

interface SetOptions {
  readonly title?: string;
  readonly number?: number;
  readonly logo?: string;
  readonly group?: string;
}

function parseNumber(text: string): number {
  const number = Number(text);
  if (!/^\d{1,5}$/.test(text) || number < 1) throw new InvalidArgumentError('A number is from 1 to 99999.');
  return number;
}
