/** `starling stream`: live inputs from OBS, FFmpeg and other encoders. */
import type { StreamWithKey } from '@starling/model/entities';
import type { Command } from 'commander';
import type { CommandContext } from '../io.ts';
import { examples, printJson, printTable } from '../output.ts';
import { type RunningStarling, requireRunning } from '../running.ts';

export function addStreamCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const stream = program.command('stream').description('Live inputs, each with a channel of its name.');

  const printKey = ({ stream: { name }, key }: StreamWithKey, { rtmpUrl, apiUrl }: RunningStarling) => {
    const server = `${rtmpUrl}/${name}`;
    const url = `${server}?key=${key}`;
    const watchUrl = `${apiUrl}/watch/${name}`;
    if (wantsJson()) return printJson(io.stdout, { name, server, key, url, watchUrl });
    io.stdout.write(
      [
        `Server      ${server}`,
        `Stream key  ${key}`,
        `URL         ${url}`,
        `Watch       ${watchUrl}`,
        '',
        'The key is shown this once. In OBS: Settings, Stream, Service "Custom...", then enter the',
        'server and the stream key. FFmpeg and other encoders take the URL.',
        '',
      ].join('\n'),
    );
  };

  stream
    .command('add')
    .description('Add a live input, and print its stream key, once.')
    .argument('<name>', 'lower-case letters, digits and hyphens; part of the address')
    .option('--title <title>', 'what viewers see (default: the name)')
    .option('--private', 'only for who has a viewing token; see starling token create')
    .addHelpText(
      'after',
      examples('starling stream add cam', 'starling stream add cam --title "Roof camera" --json'),
    )
    .action(async (name: string, { title, private: isPrivate }: { title?: string; private?: true }) => {
      const running = requireRunning(dataDir());
      printKey(
        await running.client.streams.create({
          name,
          ...(title === undefined ? {} : { title }),
          ...(isPrivate === undefined ? {} : { isPrivate }),
        }),
        running,
      );
    });
  stream
    .command('ls')
    .description('List the live inputs.')
    .addHelpText('after', examples('starling stream ls', 'starling stream ls --json'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.streams.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['NAME', 'PUBLISHING', 'KEY SINCE'],
        items.map(({ name, isPublishing, keyRotatedAt }) => [
          name,
          isPublishing ? 'yes' : 'no',
          keyRotatedAt,
        ]),
        'There are no streams. Add one with: starling stream add NAME',
      );
    });
  stream
    .command('rotate-key')
    .description('Replace the stream key. The old one is refused from now on.')
    .argument('<name>')
    .addHelpText('after', examples('starling stream rotate-key cam'))
    .action(async (name: string) => {
      const running = requireRunning(dataDir());
      printKey(await running.client.streams.rotateKey(name), running);
    });
  stream
    .command('rm')
    .description('Remove a live input and its channel.')
    .argument('<name>')
    .addHelpText('after', examples('starling stream rm cam'))
    .action(async (name: string) => {
      await requireRunning(dataDir()).client.streams.remove(name);
      if (wantsJson()) printJson(io.stdout, { removed: [name] });
    });
}
