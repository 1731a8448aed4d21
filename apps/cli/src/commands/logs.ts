/** `starling logs`: what all nodes say. */
import { type LogLine, type LogQuery, logLevels } from '@starling/model/log';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseDuration } from '../durations.ts';
import type { CommandContext, TextOutput } from '../io.ts';
import { examples } from '../output.ts';
import { requireRunning } from '../running.ts';

interface LogsOptions extends Omit<LogQuery, 'limit'> {
  readonly follow?: true;
  readonly lines?: string;
}

export function addLogsCommand(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  program
    .command('logs')
    .description('The logs of all nodes, as the coordinator gathers them, oldest first.')
    .option('-f, --follow', 'go on with what comes, until Ctrl-C')
    .option('--node <name>', 'only of one node, for instance frontend@studio-2:8080')
    .option('--channel <name>', 'only about one channel')
    .addOption(new Option('--level <level>', 'only lines of this level and worse').choices(logLevels))
    .option('--since <time>', 'for instance 10m, 2h or 2026-11-22T18:00:00Z', parseSince)
    .option('-n, --lines <count>', 'at most so many, the newest (default: 200)', parseCount)
    .addHelpText(
      'after',
      examples(
        'starling logs',
        'starling logs -f --channel news',
        'starling logs --node backend@studio-1:1935 --level warn --since 2h',
      ),
    )
    .action(async ({ follow, lines, ...filter }: LogsOptions) => {
      const { client } = requireRunning(dataDir());
      const query: LogQuery = { ...filter, ...(lines === undefined ? {} : { limit: lines }) };
      const print = (line: LogLine) =>
        io.stdout.write(wantsJson() ? `${JSON.stringify(line)}\n` : textOf(line, io.stdout));
      if (follow !== true) {
        for (const line of await client.logs.list(query)) print(line);
        return;
      }
      const stop = new AbortController();
      const forget = io.onInterrupt(() => stop.abort());
      await client.logs.follow(query, print, stop.signal);
      forget();
    });
}

const colours: Partial<Record<LogLine['level'], number>> = { warn: 33, error: 31, fatal: 31 };

function textOf({ at, node, level, message, fields }: LogLine, output: TextOutput): string {
  const colour = output.isTTY === true ? colours[level] : undefined;
  const shownLevel = level.toUpperCase().padEnd(5);
  const rest = Object.entries(fields).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  const line = [at, colour === undefined ? shownLevel : `\u001b[${colour}m${shownLevel}\u001b[0m`, node];
  // Names and reasons come from peers, and may hold what would move the cursor.
  const text = [message, ...rest].join('  ').replace(/\p{Cc}/gu, ' ');
  return `${line.join('  ')}  ${text}\n`;
}

/** @returns the time in the form of the API */
function parseSince(text: string): string {
  const unixMs = /^\d+[smhd]$/.test(text) ? Date.now() - parseDuration(text) * 1000 : Date.parse(text);
  if (Number.isNaN(unixMs))
    throw new InvalidArgumentError('Give a time such as 10m, 2h or 2026-11-22T18:00:00Z.');
  return new Date(unixMs).toISOString();
}

function parseCount(text: string): string {
  if (!/^([1-9]\d{0,2}|[1-4]\d{3}|5000)$/.test(text))
    throw new InvalidArgumentError('Give a number from 1 to 5000.');
  return text;
}
