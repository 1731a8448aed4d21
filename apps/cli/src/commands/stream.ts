/** `starling stream`: live inputs from OBS, FFmpeg and other encoders. */
import type { StreamWithKey } from '@starling/model/entities';
import {
  type LiveEncoderName,
  type LivePreset,
  type NewStreamInput,
  PULL_SCHEMES,
  type ShownStreamInput,
} from '@starling/model/stream-input';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseDuration } from '../durations.ts';
import type { CommandContext } from '../io.ts';
import { examples, printJson, printTable } from '../output.ts';
import { type RunningStarling, requireRunning } from '../running.ts';

export function addStreamCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const stream = program.command('stream').description('Live inputs, each with a channel of its name.');

  const printStream = (added: StreamWithKey, running: RunningStarling) => {
    const { name, input } = added.stream;
    const watchUrl = `${running.apiUrl}/watch/${name}`;
    if (input.type === 'rtmp') return printKey(added, running);
    const { key } = added;
    if (input.type === 'pull') {
      if (wantsJson()) return printJson(io.stdout, { name, address: input.address, watchUrl });
      io.stdout.write(`Pulling ${input.address}. Watch it at ${watchUrl}\n`);
      return;
    }
    const { hostname } = new URL(running.rtmpUrl.replace(/^rtmp:/, 'http:'));
    const url = `srt://${hostname}:${input.port}?passphrase=${key}&pbkeylen=16`;
    if (wantsJson()) return printJson(io.stdout, { name, port: input.port, passphrase: key, url, watchUrl });
    io.stdout.write(
      [
        `URL         ${url}`,
        `Passphrase  ${key}`,
        `Watch       ${watchUrl}`,
        '',
        'The passphrase is shown this once. In OBS, enter the URL as the server and leave the key empty.',
        '',
      ].join('\n'),
    );
  };
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
    .addOption(
      new Option('--srt <port>', 'wait for an SRT caller on this port, instead of RTMP').argParser(parsePort),
    )
    .addOption(
      new Option(
        '--input <url>',
        `pull from an address instead (${PULL_SCHEMES.join(', ')}); "-" reads it from standard input`,
      ).conflicts('srt'),
    )
    .addOption(
      new Option(
        '--transcode <preset>',
        'bring it into the house format with this preset of x264, so that changes to the schedule are seamless',
      ).choices(['ultrafast', 'superfast', 'veryfast', 'faster', 'fast', 'medium']),
    )
    .addOption(
      new Option('--encoder <name>', 'transcode with this encoder; x264 where the hardware cannot')
        .choices(['x264', 'nvenc', 'qsv', 'vaapi', 'videotoolbox'])
        .default('x264'),
    )
    .option('--owner <account>', 'the streamer whose it is; see starling account add')
    .option('--private', 'only for who has a viewing token; see starling token create')
    .addHelpText(
      'after',
      examples(
        'starling stream add studio --transcode veryfast',
        'starling stream add cam --title "Roof camera"',
        'starling stream add studio --srt 9000',
        'starling stream add feed --input udp://239.1.1.1:5000',
        'starling stream add door --input - < file-with-the-rtsp-address',
      ),
    )
    .action(
      async (
        name: string,
        { title, owner, private: isPrivate, srt, input: url, transcode, encoder }: AddOptions,
      ) => {
        const running = requireRunning(dataDir());
        const input: NewStreamInput | undefined =
          srt !== undefined
            ? { type: 'srt-listener', port: srt }
            : url !== undefined
              ? { type: 'pull', url: url === '-' ? (await io.readStdin()).trim() : url }
              : undefined;
        const added = await running.client.streams.create({
          name,
          ...(title === undefined ? {} : { title }),
          ...(owner === undefined ? {} : { owner }),
          ...(isPrivate === undefined ? {} : { isPrivate }),
          ...(input === undefined ? {} : { input }),
          ...(transcode === undefined ? {} : { transcode: { preset: transcode, encoder } }),
        });
        printStream(added, running);
      },
    );
  stream
    .command('ls')
    .description('List the live inputs.')
    .addHelpText('after', examples('starling stream ls', 'starling stream ls --json'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.streams.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['NAME', 'INPUT', 'OWNER', 'PUBLISHING', 'KEY SINCE', 'PROBLEM'],
        items.map(({ name, input, owner, isPublishing, keyRotatedAt, problem }) => [
          name,
          inputText(input),
          owner ?? '',
          isPublishing ? 'yes' : 'no',
          input.type === 'pull' ? '' : keyRotatedAt,
          problem ?? '',
        ]),
        'There are no streams. Add one with: starling stream add NAME',
      );
    });
  stream
    .command('give')
    .description('Give a live input to an account: a streamer can then rotate its key and remove it.')
    .argument('<name>')
    .argument('[account]', 'nobody where it is left out')
    .addHelpText('after', examples('starling stream give cam alice', 'starling stream give cam'))
    .action(async (name: string, account: string | undefined) => {
      const given = await requireRunning(dataDir()).client.streams.update(name, { owner: account ?? null });
      if (wantsJson()) printJson(io.stdout, given);
    });
  stream
    .command('rotate-key')
    .description('Replace the stream key. The old one is refused from now on, or after the overlap.')
    .argument('<name>')
    .option('--overlap <time>', 'how long the old key does as well, for instance 10m or 24h', parseDuration)
    .addHelpText(
      'after',
      examples('starling stream rotate-key cam', 'starling stream rotate-key cam --overlap 24h'),
    )
    .action(async (name: string, { overlap }: { overlap?: number }) => {
      const running = requireRunning(dataDir());
      const rotation = overlap === undefined ? {} : { overlapSeconds: overlap };
      printStream(await running.client.streams.rotateKey(name, rotation), running);
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

interface AddOptions {
  readonly title?: string;
  readonly owner?: string;
  readonly private?: true;
  readonly srt?: number;
  readonly input?: string;
  readonly transcode?: LivePreset;
  readonly encoder: LiveEncoderName;
}

function inputText(input: ShownStreamInput): string {
  if (input.type === 'rtmp') return 'RTMP';
  return input.type === 'pull' ? input.address : `SRT on port ${input.port}`;
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535) {
    throw new InvalidArgumentError('A port is a number from 1 to 65535.');
  }
  return port;
}
