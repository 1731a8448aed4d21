/** `starling audit-log`: who changed what. */
import type { AuditEntry } from '@starling/model/account';
import { type Command, InvalidArgumentError } from 'commander';
import type { CommandContext } from '../io.ts';
import { examples, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';

interface AuditOptions {
  readonly actor?: string;
  readonly noun?: string;
  readonly target?: string;
  readonly since?: string;
  readonly until?: string;
  readonly cursor?: string;
  readonly limit: string;
}

export function addAuditLogCommand(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  program
    .command('audit-log')
    .description('Who changed what, newest first. With --json also what was there before and after.')
    .option('--actor <name>', 'only what one account or token did')
    .option('--noun <noun>', 'only one kind of thing, for instance channels, streams, accounts or login')
    .option('--target <name>', 'only one thing')
    .option('--since <time>', 'for instance 2026-11-22 or 2026-11-22T18:00:00Z', parseTime)
    .option('--until <time>', 'before this time', parseTime)
    .option('--limit <count>', 'at most so many entries, up to 1000', parseLimit, '100')
    .option('--cursor <cursor>', 'what comes before, as the last answer said')
    .addHelpText(
      'after',
      examples(
        'starling audit-log',
        'starling audit-log --noun login --since 2026-11-22',
        'starling audit-log --target news --json',
      ),
    )
    .action(async (options: AuditOptions) => {
      const page = await requireRunning(dataDir()).client.audit({ ...options });
      if (wantsJson()) return printJson(io.stdout, page);
      printTable(
        io.stdout,
        ['TIME', 'WHO', 'FROM', 'WHAT', 'WHICH', 'CHANGED'],
        page.items.map((entry) => [
          entry.at,
          entry.actor,
          entry.address ?? '',
          `${entry.noun} ${entry.verb}`,
          entry.target,
          changedColumns(entry),
        ]),
        'There is no such entry.',
      );
      if (page.nextCursor !== null) io.stdout.write(`There is more: --cursor ${page.nextCursor}\n`);
    });
}

function changedColumns({ verb, after }: AuditEntry): string {
  return verb === 'update' ? Object.keys(after ?? {}).join(',') : '';
}

/** @returns the time in the form of the API */
function parseTime(text: string): string {
  const unixMs = Date.parse(text);
  if (Number.isNaN(unixMs)) throw new InvalidArgumentError('Give a time such as 2026-11-22T18:00:00Z.');
  return new Date(unixMs).toISOString();
}

function parseLimit(text: string): string {
  if (!/^([1-9]\d{0,2}|1000)$/.test(text)) throw new InvalidArgumentError('Give a number from 1 to 1000.');
  return text;
}
