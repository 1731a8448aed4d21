/** `starling token`: viewing tokens, which open private channels. */
import type { ViewingToken } from '@starling/model/entities';
import { type Command, InvalidArgumentError } from 'commander';
import { parseDuration } from '../durations.ts';
import type { CommandContext } from '../io.ts';
import { examples, printJson, printTable, splitList } from '../output.ts';
import { requireRunning } from '../running.ts';

interface CreateOptions {
  readonly channel?: string[];
  readonly allChannels?: true;
  /** Seconds. */
  readonly expires: number;
  readonly maxViewers?: number;
  readonly name?: string;
}

export function addTokenCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const token = program.command('token').description('Viewing tokens, which open private channels.');
  token
    .command('create')
    .description('Make a viewing token, and print it, once.')
    .option('--channel <name,...>', 'channels that it opens', splitList)
    .option('--all-channels', 'it opens every channel, also those to come')
    .requiredOption('--expires <time>', 'how long it is valid, for instance 90m, 24h or 30d', parseDuration)
    .option(
      '--max-viewers <count>',
      'viewers with it at the same time (default: as many as have it)',
      parseCount,
    )
    .option('--name <name>', 'for whom it is; shows in the list')
    .addHelpText(
      'after',
      examples(
        'starling token create --channel demo --expires 24h',
        'starling token create --channel one,two --expires 30d --max-viewers 2 --name "Aunt Ada"',
        'starling token create --all-channels --expires 365d --json',
      ),
    )
    .action(async (options: CreateOptions, command: Command) => {
      const { channel, allChannels, expires, maxViewers, name } = options;
      if ((channel === undefined) === (allChannels === undefined)) {
        command.error('error: say what it opens: --channel NAME or --all-channels.', { exitCode: 2 });
      }
      const { client, apiUrl, rtmpUrl } = requireRunning(dataDir());
      const created = await client.viewingTokens.create({
        channels: channel ?? null,
        expiresInSeconds: expires,
        ...(maxViewers === undefined ? {} : { maxConcurrent: maxViewers }),
        ...(name === undefined ? {} : { name }),
      });
      if (wantsJson()) return printJson(io.stdout, created);
      const { viewingToken } = created;
      const shown = viewingToken.channels?.[0] ?? 'NAME';
      const query = `?token=${created.token}`;
      io.stdout.write(
        [
          `Id        ${viewingToken.id}`,
          `Opens     ${channelWords(viewingToken)}, until ${viewingToken.expiresAt}`,
          `Token     ${created.token}`,
          `Watch     ${apiUrl}/watch/${shown}${query}`,
          `HLS       ${apiUrl}/live/${shown}/index.m3u8${query}`,
          `RTMP      ${rtmpUrl}/${shown}${query}`,
          `Playlist  ${apiUrl}/playlist.m3u${query}`,
          '',
          'The token is shown this once. Who has it can watch; take it back with:',
          `starling token revoke ${viewingToken.id}`,
          '',
        ].join('\n'),
      );
    });
  token
    .command('ls')
    .description('List the viewing tokens.')
    .addHelpText('after', examples('starling token ls', 'starling token ls --json'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.viewingTokens.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      const nowMs = Date.now();
      printTable(
        io.stdout,
        ['ID', 'NAME', 'CHANNELS', 'VIEWERS', 'STATE', 'EXPIRES'],
        items.map((one) => [
          one.id,
          one.name ?? '',
          channelWords(one),
          one.maxConcurrent === null ? 'any' : String(one.maxConcurrent),
          stateWords(one, nowMs),
          one.expiresAt,
        ]),
        'There are no viewing tokens. Make one with: starling token create --channel NAME --expires 24h',
      );
    });
  token
    .command('revoke')
    .description('Make a viewing token worthless. Who watches with it is shown out.')
    .argument('<id>', 'as shown by starling token ls')
    .addHelpText('after', examples('starling token revoke 5fQ0b1m2S8t5v7x9'))
    .action(async (id: string) => {
      await requireRunning(dataDir()).client.viewingTokens.revoke(id);
      if (wantsJson()) printJson(io.stdout, { revoked: [id] });
    });
  token
    .command('rotate-key')
    .description('Sign new viewing tokens with a new key. Those that are out stay valid until they expire.')
    .addHelpText('after', examples('starling token rotate-key'))
    .action(async () => {
      await requireRunning(dataDir()).client.viewingTokens.rotateKey();
      if (wantsJson()) printJson(io.stdout, { rotated: true });
    });
}

function channelWords({ channels }: ViewingToken): string {
  return channels === null ? 'all channels' : channels.join(',');
}

function stateWords({ revokedAt, expiresAt }: ViewingToken, nowMs: number): string {
  if (revokedAt !== null) return 'revoked';
  return Date.parse(expiresAt) <= nowMs ? 'expired' : 'valid';
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d{1,7}$/.test(text) || count < 1) throw new InvalidArgumentError('Give a number from 1 on.');
  return count;
}
