/** `starling channel`: what is on the air. */
import type { Channel } from '@starling/model/entities';
import { type Command, InvalidArgumentError, Option } from 'commander';
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
    .option('--private', 'only for who has a viewing token; see starling token create')
    .option('--max-viewers <count>', 'viewers at the same time (default: as many as come)', parseMaxViewers)
    .addHelpText(
      'after',
      examples(
        'starling channel add films --loop film',
        'starling channel add mix --title "The Mix" --loop one,two',
        'starling channel add family --loop holiday --private',
      ),
    )
    .action(async (name: string, options: AddOptions) => {
      const { client, apiUrl } = requireRunning(dataDir());
      const { loop, title, private: isPrivate, maxViewers } = options;
      const added = await client.channels.create({
        name,
        loop,
        ...(title === undefined ? {} : { title }),
        ...(isPrivate === undefined ? {} : { isPrivate }),
        ...(maxViewers === undefined ? {} : { maxViewers: maxViewers === 'none' ? null : maxViewers }),
      });
      if (wantsJson()) return printJson(io.stdout, added);
      io.stdout.write(`Channel ${name} is on: ${apiUrl}/watch/${name}\n`);
    });
  channel
    .command('set')
    .description('Change who may watch a channel, and how it presents itself in guides and on TVs.')
    .argument('<name>')
    .addOption(new Option('--private', 'only for who has a viewing token').conflicts('public'))
    .option('--public', 'for everybody')
    .option(
      '--max-viewers <count>',
      'viewers at the same time, or "none" for as many as come',
      parseMaxViewers,
    )
    .option('--title <title>', 'what viewers see')
    .option('--number <number>', "the channel's number on a TV", parseNumber)
    .option('--logo <url>', 'address of a picture; "none" for the newest picture of the channel')
    .option('--group <group>', 'channels of one group stand together; "none" for the kind of the channel')
    .addHelpText(
      'after',
      examples(
        'starling channel set films --private',
        'starling channel set films --public --max-viewers 200',
        'starling channel set films --max-viewers none',
        'starling channel set films --number 7 --group Films',
        'starling channel set films --logo https://example.org/films.png',
      ),
    )
    .action(async (name: string, options: SetOptions, command: Command) => {
      const { maxViewers, title, number, logo, group } = options;
      if (Object.keys(options).length === 0) {
        command.error('error: say what to change, for instance --private or --title.', { exitCode: 2 });
      }
      const updated = await requireRunning(dataDir()).client.channels.update(name, {
        ...(options.private || options.public ? { isPrivate: options.private === true } : {}),
        ...(maxViewers === undefined ? {} : { maxViewers: maxViewers === 'none' ? null : maxViewers }),
        ...(title !== undefined && { title }),
        ...(number !== undefined && { number }),
        ...(logo !== undefined && { logo: logo === 'none' ? null : logo }),
        ...(group !== undefined && { group: group === 'none' ? null : group }),
      });
      if (wantsJson()) return printJson(io.stdout, updated);
      io.stdout.write(`Channel ${name} is ${accessWords(updated)}.\n`);
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
        const { isOnAir = false, viewerCount = 0, now = null, next = null } = onAir.get(one.name) ?? {};
        return { ...one, isOnAir, viewerCount, now, next };
      });
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['NUMBER', 'NAME', 'TITLE', 'KIND', 'ACCESS', 'ON AIR', 'VIEWERS', 'NOW'],
        items.map(({ name, title, number, kind, isPrivate, isOnAir, viewerCount, now }) => [
          String(number),
          name,
          title,
          kind,
          isPrivate ? 'private' : 'public',
          isOnAir ? 'yes' : 'no',
          String(viewerCount),
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

/** Commander takes null for no value. */
type MaxViewers = number | 'none';

interface AddOptions {
  readonly loop: string[];
  readonly title?: string;
  readonly private?: true;
  readonly maxViewers?: MaxViewers;
}

interface SetOptions {
  readonly private?: true;
  readonly public?: true;
  readonly maxViewers?: MaxViewers;
  readonly title?: string;
  readonly number?: number;
  readonly logo?: string;
  readonly group?: string;
}

function accessWords({ isPrivate, maxViewers }: Channel): string {
  const access = isPrivate ? 'private' : 'public';
  return maxViewers === null ? access : `${access}, for at most ${maxViewers} viewers`;
}

function parseMaxViewers(text: string): MaxViewers {
  if (text === 'none') return text;
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > 1_000_000) {
    throw new InvalidArgumentError('Give a number from 1 to 1000000, or "none".');
  }
  return count;
}

function parseNumber(text: string): number {
  const number = Number(text);
  if (!/^\d{1,5}$/.test(text) || number < 1) throw new InvalidArgumentError('A number is from 1 to 99999.');
  return number;
}
