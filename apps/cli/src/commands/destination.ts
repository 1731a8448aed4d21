/** `starling destination`: pushes channels to YouTube, Twitch and other servers. */
import type { Destination } from '@starling/model/destination';
import type { Command } from 'commander';
import type { CommandContext } from '../io.ts';
import { examples, formatBytes, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';

interface AddOptions {
  readonly enhanced?: true;
  readonly anyCertificate?: true;
  readonly disabled?: true;
}

export function addDestinationCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const destination = program
    .command('destination')
    .description('Other servers that a channel is pushed to: RTMP, RTMPS, SRT.');
  const destinations = () => requireRunning(dataDir()).client.destinations;

  destination
    .command('add')
    .description('Push a channel to an address.')
    .argument('<name>', 'lower-case letters, digits and hyphens')
    .argument('<channel>')
    .argument(
      '<url>',
      'rtmp[s]://host/app/key or srt://host:port?passphrase=...; "-" reads it from standard input',
    )
    .option('--enhanced', 'it takes codecs of Enhanced RTMP, not only H.264, AAC and MP3')
    .option('--any-certificate', 'take a certificate that nobody vouches for')
    .option('--disabled', 'do not push yet')
    .addHelpText(
      'after',
      examples(
        'starling destination add youtube films - < file-with-the-address',
        'starling destination add twitch films rtmp://live.twitch.tv/app/STREAM-KEY',
        'starling destination add friend films "srt://192.168.1.7:9000?passphrase=PASSPHRASE"',
      ),
    )
    .action(async (name: string, channel: string, url: string, options: AddOptions) => {
      const added = await destinations().create({
        name,
        channel,
        url: url === '-' ? (await io.readStdin()).trim() : url,
        isEnabled: options.disabled !== true,
        takesEnhancedCodecs: options.enhanced === true,
        acceptsAnyCertificate: options.anyCertificate === true,
      });
      if (wantsJson()) return printJson(io.stdout, added);
      const done = added.isEnabled ? `Pushing ${channel} to` : 'Added, not enabled:';
      io.stdout.write(`${done} ${added.address}. See how it goes with: starling destination ls\n`);
    });
  destination
    .command('ls')
    .description('List the destinations, and what happens at each.')
    .option('--channel <name>', 'of this channel only')
    .addHelpText(
      'after',
      examples('starling destination ls', 'starling destination ls --channel films --json'),
    )
    .action(async ({ channel }: { channel?: string }) => {
      const all = await destinations().list();
      const items = all.filter((one) => channel === undefined || one.channel === channel);
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['NAME', 'CHANNEL', 'ADDRESS', 'STATE', 'SINCE', 'MBIT/S', 'SENT', 'DROPPED', 'REASON'],
        items.map(rowOf),
        'There are no destinations. Add one with: starling destination add NAME CHANNEL URL',
      );
    });
  for (const [command, isEnabled, description] of [
    ['enable', true, 'Push to a destination again.'],
    ['disable', false, 'Stop pushing to a destination, and keep its address.'],
  ] as const) {
    destination
      .command(command)
      .description(description)
      .argument('<name>')
      .addHelpText('after', examples(`starling destination ${command} youtube`))
      .action(async (name: string) => {
        const changed = await destinations().update(name, { isEnabled });
        if (wantsJson()) printJson(io.stdout, changed);
      });
  }
  destination
    .command('rm')
    .description('Remove a destination.')
    .argument('<name>')
    .addHelpText('after', examples('starling destination rm youtube'))
    .action(async (name: string) => {
      await destinations().remove(name);
      if (wantsJson()) printJson(io.stdout, { removed: [name] });
    });
}

function rowOf({ name, channel, address, isEnabled, status }: Destination): string[] {
  if (status === null) {
    const state = isEnabled ? 'unknown' : 'disabled';
    return [name, channel, address, state, '', '', '', '', isEnabled ? 'no backend reports on it' : ''];
  }
  const { state, since, reason, retryAt, bitrateBps, sentBytes, droppedUnits } = status;
  const why = [reason ?? '', retryAt === null ? '' : `again at ${retryAt}`].filter((text) => text !== '');
  return [
    ...[name, channel, address, state, since, (bitrateBps / 1e6).toFixed(2)],
    ...[formatBytes(sentBytes), String(droppedUnits), why.join('; ')],
  ];
}
