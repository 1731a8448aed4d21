/** `starling channel schedule`: what a channel plays when. */
import { readFileSync, writeFileSync } from 'node:fs';
import { extname, resolve } from 'node:path';
import type { ScheduleFormat } from '@starling/model/client';
import type { Effective, Schedule } from '@starling/model/schedule-definition';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type CommandContext, CommandError } from '../io.ts';
import { examples, printJson, printTable, splitList } from '../output.ts';
import { requireRunning } from '../running.ts';

const formats = ['yaml', 'csv'] as const satisfies readonly ScheduleFormat[];
const MAX_PREVIEW_HOURS = 744;

export function addScheduleCommands(channel: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const schedule = channel.command('schedule').description('What a channel plays when.');
  const tellChange = (name: string, change: { effectiveAt: string }) => {
    if (wantsJson()) return printJson(io.stdout, change);
    io.stdout.write(`The schedule of ${name} takes effect at ${localTime(change.effectiveAt)}.\n`);
  };

  schedule
    .command('show')
    .description('Print the schedule that was set last.')
    .argument('<name>')
    .addHelpText('after', examples('starling channel schedule show films'))
    .action(async (name: string) => {
      const { client } = requireRunning(dataDir());
      if (wantsJson()) return printJson(io.stdout, await client.schedules.get(name));
      io.stdout.write(await client.schedules.export(name, 'yaml'));
    });
  schedule
    .command('set')
    .description('Let a channel play assets in order, again and again, and nothing else.')
    .argument('<name>')
    .requiredOption('--loop <asset,...>', 'ids or names of assets', splitList)
    .option('--shuffle', 'in another order each time')
    .addOption(effectiveOption())
    .addHelpText(
      'after',
      examples(
        'starling channel schedule set films --loop film,trailer',
        'starling channel schedule set music --loop one,two,three --shuffle --effective now',
      ),
    )
    .action(async (name: string, options: { loop: string[]; shuffle?: true; effective?: Effective }) => {
      const { client } = requireRunning(dataDir());
      const filler = { items: options.loop, ...(options.shuffle && { order: 'shuffle' as const }) };
      const wanted: Schedule = { timeZone: 'UTC', filler, programmes: [] };
      tellChange(name, await client.schedules.set(name, wanted, options.effective));
    });
  schedule
    .command('import')
    .description('Give a channel the schedule in a file: YAML, CSV, or JSON.')
    .argument('<name>')
    .argument('<file>', 'docs/formats/schedule.md says what goes in it')
    .addOption(effectiveOption())
    .addHelpText(
      'after',
      examples(
        'starling channel schedule import films week.yaml',
        'starling channel schedule import films week.csv --effective now',
      ),
    )
    .action(async (name: string, file: string, { effective }: { effective?: Effective }) => {
      const { client } = requireRunning(dataDir());
      const text = readText(resolve(io.cwd, file), file);
      // JSON is YAML, too.
      const format = extname(file).toLowerCase() === '.csv' ? 'csv' : 'yaml';
      tellChange(name, await client.schedules.import(name, text, format, effective));
    });
  schedule
    .command('export')
    .description('Write the schedule as a file.')
    .argument('<name>')
    .addOption(new Option('--format <format>', 'of the file').choices(formats).default('yaml'))
    .option('--out <file>', 'where to write it (default: print it)')
    .addHelpText(
      'after',
      examples(
        'starling channel schedule export films --out week.yaml',
        'starling channel schedule export films --format csv',
      ),
    )
    .action(async (name: string, { format, out }: { format: ScheduleFormat; out?: string }) => {
      const text = await requireRunning(dataDir()).client.schedules.export(name, format);
      if (out === undefined) io.stdout.write(text);
      else writeText(resolve(io.cwd, out), out, text);
      if (out !== undefined && wantsJson()) printJson(io.stdout, { written: out });
    });
  schedule
    .command('preview')
    .description('Print what is on in a span of time, as far ahead as you like.')
    .argument('<name>')
    .option(
      '--from <time>',
      'for instance 2026-12-24T18:00, in local time, or with Z (default: now)',
      parseTime,
    )
    .option('--hours <count>', 'how long', parseHours, 24)
    .addHelpText(
      'after',
      examples(
        'starling channel schedule preview films',
        'starling channel schedule preview films --from 2026-12-24T18:00 --hours 6',
      ),
    )
    .action(async (name: string, { from, hours }: { from?: number; hours: number }) => {
      const items = await requireRunning(dataDir()).client.schedules.preview(name, hours, from);
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['FROM', 'TO', 'TITLE', 'ASSET'],
        items.map(({ startsAt, endsAt, title, assetName }) => [
          localTime(startsAt),
          localTime(endsAt),
          title,
          assetName,
        ]),
        'Nothing is on in that time.',
      );
    });
}

function effectiveOption(): Option {
  return new Option(
    '--effective <when>',
    'boundary: after the programme that is on; now: within a few seconds',
  )
    .choices(['boundary', 'now'])
    .default('boundary');
}

function readText(path: string, name: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new CommandError(`${name} cannot be read: ${reasonOf(error)}.`);
  }
}

function writeText(path: string, name: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new CommandError(`${name} cannot be written: ${reasonOf(error)}.`);
  }
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOENT' ? 'there is no such file or folder' : String(code ?? error);
}

/** On the clock of this machine, to the second. */
function localTime(iso: string): string {
  return new Date(iso).toLocaleString('sv-SE');
}

function parseTime(text: string): number {
  const unixMs = Date.parse(text);
  if (Number.isNaN(unixMs)) throw new InvalidArgumentError('Write a time such as 2026-12-24T18:00.');
  return unixMs;
}

function parseHours(text: string): number {
  const hours = Number(text);
  if (!Number.isInteger(hours) || hours < 1 || hours > MAX_PREVIEW_HOURS) {
    throw new InvalidArgumentError(`Hours are a whole number from 1 to ${MAX_PREVIEW_HOURS}.`);
  }
  return hours;
}
