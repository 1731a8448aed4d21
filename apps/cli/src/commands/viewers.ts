/** `starling viewers`: who watches now. */
import type { Command } from 'commander';
import type { CommandContext } from '../io.ts';
import { examples, formatBytes, formatDuration, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';

export function addViewersCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const viewers = program.command('viewers').description('Who watches now, on all frontends.');
  viewers
    .command('ls')
    .description('List who watches, newest first.')
    .option('--channel <name>', 'only this channel')
    .addHelpText('after', examples('starling viewers ls', 'starling viewers ls --channel demo --json'))
    .action(async ({ channel }: { channel?: string }) => {
      const list = await requireRunning(dataDir()).client.viewers.list(channel);
      if (wantsJson()) return printJson(io.stdout, list);
      const nowMs = Date.now();
      printTable(
        io.stdout,
        ['ID', 'CHANNEL', 'PROTOCOL', 'RENDITION', 'ADDRESS', 'FOR', 'SENT', 'BEHIND', 'PLAYER'],
        list.items.map((one) => [
          one.id,
          one.channel,
          one.protocol,
          one.rendition ?? '',
          one.address,
          formatDuration(Math.max(0, nowMs - Date.parse(one.startedAt)) / 1000),
          formatBytes(one.sentBytes),
          one.latencyMs === null ? '' : `${(one.latencyMs / 1000).toFixed(1)} s`,
          one.userAgent ?? '',
        ]),
        'Nobody watches.',
      );
    });
  viewers
    .command('history')
    .description('List who watched, those that began last first; kept for 90 days.')
    .option('--channel <name>', 'only this channel')
    .option('--limit <n>', 'so many sessions, at most 1000', '100')
    .addHelpText(
      'after',
      examples('starling viewers history', 'starling viewers history --channel demo --json'),
    )
    .action(async ({ channel, limit }: { channel?: string; limit: string }) => {
      const sessions = await requireRunning(dataDir()).client.viewers.sessions(Number(limit), channel);
      if (wantsJson()) return printJson(io.stdout, { items: sessions });
      printTable(
        io.stdout,
        ['ID', 'CHANNEL', 'PROTOCOL', 'FROM', 'FOR', 'SENT'],
        sessions.map((one) => [
          one.viewerId,
          one.channel,
          one.protocol,
          one.startedAt,
          formatDuration((Date.parse(one.endedAt) - Date.parse(one.startedAt)) / 1000),
          formatBytes(one.sentBytes),
        ]),
        'Nobody has watched.',
      );
    });
  viewers
    .command('kick')
    .description('Show a viewer out. To keep it out, revoke its viewing token.')
    .argument('<id>', 'as shown by starling viewers ls')
    .addHelpText('after', examples('starling viewers kick hD3c0b1m2S8t5v7x'))
    .action(async (id: string) => {
      await requireRunning(dataDir()).client.viewers.kick(id);
      if (wantsJson()) printJson(io.stdout, { kicked: [id] });
    });
}
