/** `starling recording`: keeps what was on as files. */
import type { CoordinatorClient } from '@starling/model/client';
import type { Recording, RecordingEnd } from '@starling/model/recording';
import type { Command } from 'commander';
import { type CommandContext, CommandError } from '../io.ts';
import { examples, formatBytes, formatDuration, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';
import { finishImports } from './media.ts';

const POLL_INTERVAL_MS = 100;
/** The backend hears of a stop at once; what takes longer is none of ours. */
const MAX_STOP_MS = 10_000;

const endWords: Readonly<Record<RecordingEnd, string>> = {
  stopped: 'stopped',
  complete: 'complete',
  interrupted: 'interrupted: the backend ended',
  'source-removed': 'its channel or stream was removed',
  'too-many-parts': 'its source broke off too often',
  'disk-full': 'the disk is full',
  'disk-failed': 'the disk cannot be written to',
};

interface StartFlags {
  readonly stream?: string;
  readonly name?: string;
}

export function addRecordingCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const recording = program.command('recording').description('Files of what was on, in MP4.');
  recording
    .command('start')
    .description('Record a channel, or a stream as it comes in, until it is stopped. Prints the id.')
    .argument('[channel]')
    .option('--stream <stream>', 'record this stream instead of a channel')
    .option('--name <name>', 'name of the recording (default: what is recorded, and when)')
    .addHelpText(
      'after',
      examples(
        'starling recording start films',
        'starling recording start --stream cam --name "Concert"',
        'starling channel set films --record on --record-hours 48',
      ),
    )
    .action(async (channel: string | undefined, { stream, name }: StartFlags, command: Command) => {
      if ((channel === undefined) === (stream === undefined)) {
        command.error('error: name a channel, or a stream with --stream.', { exitCode: 2 });
      }
      const started = await requireRunning(dataDir()).client.recordings.start({
        ...(channel !== undefined && { channel }),
        ...(stream !== undefined && { stream }),
        ...(name !== undefined && { name }),
      });
      if (wantsJson()) return printJson(io.stdout, started);
      io.stdout.write(`${started.id}\n`);
    });
  recording
    .command('stop')
    .description('End a recording, and wait until its file is finished.')
    .argument('<id>')
    .addHelpText('after', examples('starling recording stop 5f0c63b1a94d2e78'))
    .action(async (id: string) => {
      const { client } = requireRunning(dataDir());
      const ended = await stopAndWait(client, id);
      if (wantsJson()) return printJson(io.stdout, ended);
      io.stdout.write(
        `${formatDuration(ended.durationMs / 1000)}, ${formatBytes(ended.sizeBytes)}\n${pathsOf(ended)}`,
      );
    });
  recording
    .command('ls')
    .description('List the recordings, newest first.')
    .addHelpText('after', examples('starling recording ls', 'starling recording ls --json'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.recordings.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['ID', 'NAME', 'OF', 'STATE', 'STARTED', 'LENGTH', 'SIZE', 'FILES'],
        items.map((one) => [
          one.id,
          one.name,
          one.channel ?? `stream ${one.stream}`,
          one.state === 'ended' && one.endReason !== null ? endWords[one.endReason] : one.state,
          one.startedAt ?? '',
          formatDuration(one.durationMs / 1000),
          formatBytes(one.sizeBytes),
          String(one.parts.length),
        ]),
        'There are no recordings. Make one with: starling recording start CHANNEL',
      );
    });
  recording
    .command('rm')
    .description('Delete recordings and their files. One that goes on is ended.')
    .argument('<id...>')
    .addHelpText('after', examples('starling recording rm 5f0c63b1a94d2e78'))
    .action(async (ids: string[]) => {
      const { client } = requireRunning(dataDir());
      for (const id of ids) await client.recordings.remove(id);
      if (wantsJson()) printJson(io.stdout, { removed: ids });
    });
  recording
    .command('import')
    .description('Make assets of a recording that has ended, one of each file, and print their ids.')
    .argument('<id>')
    .option('--name <name>', 'name of the asset (default: that of the recording)')
    .addHelpText('after', examples('starling recording import 5f0c63b1a94d2e78 --name concert'))
    .action(async (id: string, { name }: { name?: string }) => {
      const { client } = requireRunning(dataDir());
      const queued = await client.recordings.import(id, name);
      await finishImports(client, queued, io, wantsJson());
    });
}

async function stopAndWait(client: CoordinatorClient, id: string): Promise<Recording> {
  const deadlineMs = performance.now() + MAX_STOP_MS;
  let recording = await client.recordings.stop(id);
  while (recording.state !== 'ended') {
    if (performance.now() > deadlineMs) {
      throw new CommandError(
        'The recording is still being finished. See how far it is with: starling recording ls',
      );
    }
    await new Promise((wake) => setTimeout(wake, POLL_INTERVAL_MS));
    recording = await client.recordings.get(id);
  }
  return recording;
}

function pathsOf({ parts }: Recording): string {
  return parts.map(({ path }) => `${path}\n`).join('');
}
