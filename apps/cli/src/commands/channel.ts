/** `starling channel`: what is on the air. */
import type { CoordinatorClient } from '@starling/model/client';
import type {
  Channel,
  ChannelSources,
  ChannelWithStatus,
  NewChannelSources,
  SourceChoice,
} from '@starling/model/entities';
import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import type { CommandContext } from '../io.ts';
import { examples, formatBytes, printJson, printTable, splitList } from '../output.ts';
import { requireRunning } from '../running.ts';
import { addScheduleCommands } from './schedule.ts';

const MAX_RECORD_HOURS = 87_660;
const MAX_RECORD_GB = 1e6;

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
    .description(
      'Change where a channel gets its pictures from, who may watch it, and how it presents itself.',
    )
    .argument('<name>')
    .option('--primary <stream>', 'the stream that is shown whenever it is well; "none" for no stream')
    .option('--backup <stream>', 'the stream that stands in for it; "none" for no stream')
    .addOption(
      new Option('--fallback <what>', 'what comes after the streams').choices(['playout', 'slate', 'none']),
    )
    .option(
      '--dark-after <seconds>',
      'replace a live stream that is black and still for so long, 1 to 60; "never" for films',
      parseDarkAfter,
    )
    .addOption(
      new Option('--private', 'only for who has a viewing token; others are shown out').conflicts('public'),
    )
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
    .addOption(
      new Option('--record <when>', 'always record the channel, an hour to a file').choices(['on', 'off']),
    )
    .option('--record-hours <hours>', 'keep so many hours of that, or "none" for no bound', parseRecordHours)
    .option('--record-gb <gigabytes>', 'keep so much of that, or "none" for no bound', parseRecordGb)
    .option(
      '--redundancy <count>',
      'backends that make the channel at the same time: 1 or 2',
      parseRedundancy,
    )
    .addHelpText(
      'after',
      examples(
        'starling channel set films --primary studio --fallback playout',
        'starling channel set cam --backup phone --fallback slate',
        'starling channel set films --dark-after 5',
        'starling channel set films --private',
        'starling channel set films --public --max-viewers 200',
        'starling channel set films --max-viewers none',
        'starling channel set films --number 7 --group Films',
        'starling channel set films --record on --record-hours 48 --record-gb 200',
        'starling channel set films --redundancy 2',
        'starling channel set films --logo https://example.org/films.png',
      ),
    )
    .action(async (name: string, options: SetOptions, command: Command) => {
      const { primary, backup, fallback, darkAfter, ...presented } = options;
      const { maxViewers, title, number, logo, group, redundancy } = presented;
      const setsSources = [primary, backup, fallback, darkAfter].some((option) => option !== undefined);
      const setsOthers = Object.keys(presented).length > 0;
      if (!setsSources && !setsOthers) {
        command.error('error: say what to change, for instance --primary, --private or --title.', {
          exitCode: 2,
        });
      }
      const { client } = requireRunning(dataDir());
      if (setsSources) await client.channels.setSources(name, await sourcesAfter(client, name, options));
      if (setsOthers) {
        const record = await recordAfter(client, name, options);
        await client.channels.update(name, {
          ...(record !== undefined && { record }),
          ...(redundancy !== undefined && { redundancy }),
          ...(options.private || options.public ? { isPrivate: options.private === true } : {}),
          ...(maxViewers === undefined ? {} : { maxViewers: maxViewers === 'none' ? null : maxViewers }),
          ...(title !== undefined && { title }),
          ...(number !== undefined && { number }),
          ...(logo !== undefined && { logo: logo === 'none' ? null : logo }),
          ...(group !== undefined && { group: group === 'none' ? null : group }),
        });
      }
      const updated = await client.channels.get(name);
      if (wantsJson()) return printJson(io.stdout, updated);
      if (setsSources) io.stdout.write(`Channel ${name} shows ${chainText(updated)}.\n`);
      if (setsOthers) io.stdout.write(`Channel ${name} is ${accessWords(updated)}.\n`);
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
      const { activeSource: active, sourceChoice, sources } = channel;
      io.stdout.write(
        [
          `Chain   ${chainText(channel)}`,
          `Choice  ${sourceChoice}`,
          ...(sources === null ? [] : [`Black   ${darkAfterText(sources)}`]),
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

/** Commander takes null for no value. */
type MaxViewers = number | 'none';
/** Milliseconds. */
type DarkAfter = number | 'never';

interface AddOptions {
  readonly loop: string[];
  readonly title?: string;
  readonly private?: true;
  readonly maxViewers?: MaxViewers;
}

interface SetOptions {
  readonly primary?: string;
  readonly backup?: string;
  readonly fallback?: ChannelSources['fallback'];
  readonly darkAfter?: DarkAfter;
  readonly private?: true;
  readonly public?: true;
  readonly maxViewers?: MaxViewers;
  readonly title?: string;
  readonly number?: number;
  readonly logo?: string;
  readonly group?: string;
  readonly record?: 'on' | 'off';
  readonly recordHours?: Bound;
  readonly recordGb?: Bound;
  readonly redundancy?: number;
}

/** Commander takes null for no value. */
type Bound = number | 'none';

function accessWords({ isPrivate, maxViewers, record, redundancy }: Channel): string {
  const access = isPrivate ? 'private' : 'public';
  return [
    access,
    ...(maxViewers === null ? [] : [`for at most ${maxViewers} viewers`]),
    ...(record === null ? [] : [recordWords(record)]),
    ...(redundancy === 1 ? [] : [`made by ${redundancy} backends`]),
  ].join(', ');
}

function recordWords({ maxHours, maxBytes }: NonNullable<Channel['record']>): string {
  const bounds = [
    ...(maxHours === null ? [] : [`${maxHours} h`]),
    ...(maxBytes === null ? [] : [formatBytes(maxBytes)]),
  ];
  return bounds.length === 0 ? 'always recorded' : `always recorded, ${bounds.join(' or ')} kept`;
}

function parseMaxViewers(text: string): MaxViewers {
  if (text === 'none') return text;
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > 1_000_000) {
    throw new InvalidArgumentError('Give a number from 1 to 1000000, or "none".');
  }
  return count;
}

function parseRecordHours(text: string): Bound {
  if (text === 'none') return text;
  const hours = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || hours <= 0 || hours > MAX_RECORD_HOURS) {
    throw new InvalidArgumentError(`Give hours up to ${MAX_RECORD_HOURS}, or "none".`);
  }
  return hours;
}

function parseRecordGb(text: string): Bound {
  if (text === 'none') return text;
  const gigabytes = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || gigabytes <= 0 || gigabytes > MAX_RECORD_GB) {
    throw new InvalidArgumentError(`Give gigabytes up to ${MAX_RECORD_GB}, or "none".`);
  }
  return gigabytes;
}

function parseRedundancy(text: string): number {
  if (text !== '1' && text !== '2') throw new InvalidArgumentError('It is 1 or 2.');
  return Number(text);
}

function parseNumber(text: string): number {
  const number = Number(text);
  if (!/^\d{1,5}$/.test(text) || number < 1) throw new InvalidArgumentError('A number is from 1 to 99999.');
  return number;
}

/** How the channel is always recorded, with the change; undefined where there is none. A bound alone turns it on. */
async function recordAfter(
  client: CoordinatorClient,
  name: string,
  { record, recordHours, recordGb }: SetOptions,
): Promise<Channel['record'] | undefined> {
  if (record === undefined && recordHours === undefined && recordGb === undefined) return undefined;
  if (record === 'off') return null;
  const { record: before } = await client.channels.get(name);
  const boundOf = (option: Bound | undefined, unit: number, known: number | null = null) =>
    option === undefined ? known : option === 'none' ? null : option * unit;
  const maxBytes = boundOf(recordGb, 1e9, before?.maxBytes);
  return {
    maxHours: boundOf(recordHours, 1, before?.maxHours),
    maxBytes: maxBytes && Math.round(maxBytes),
  };
}

function parseDarkAfter(text: string): DarkAfter {
  if (text === 'never') return text;
  const seconds = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || seconds < 1 || seconds > 60) {
    throw new InvalidArgumentError('Give seconds from 1 to 60, or "never".');
  }
  return Math.round(seconds * 1000);
}

/** The channel's sources with the change; those of a schedule alone are the schedule. */
async function sourcesAfter(
  client: CoordinatorClient,
  name: string,
  { primary, backup, fallback, darkAfter }: SetOptions,
): Promise<NewChannelSources> {
  const { sources, runs } = await client.channels.get(name);
  const streamOf = (option: string | undefined, before: string | null = null) =>
    option === undefined ? before : option === 'none' ? null : option;
  return {
    primary: streamOf(primary, sources?.primary),
    backup: streamOf(backup, sources?.backup),
    fallback: fallback ?? sources?.fallback ?? (runs.length > 0 ? 'playout' : 'slate'),
    ...(sources !== null && { darkAfterMs: sources.darkAfterMs }),
    ...(darkAfter !== undefined && { darkAfterMs: darkAfter === 'never' ? null : darkAfter }),
  };
}

function darkAfterText({ darkAfterMs }: ChannelSources): string {
  return darkAfterMs === null ? 'is left on the air' : `is replaced after ${darkAfterMs / 1000} s`;
}

function chainText({ sources }: ChannelWithStatus): string {
  if (sources === null) return 'schedule';
  const { primary, backup, fallback } = sources;
  const streams = [primary, backup].filter((stream) => stream !== null);
  const scheduled = { playout: ['schedule', 'slate'], slate: ['slate'], none: [] }[fallback];
  return [...streams, ...scheduled].join(' -> ') || 'nothing';
}
