/** `starling media`: files in, assets out. */
import { accessSync, constants, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { ApiError, type CoordinatorClient } from '@starling/model/client';
import type { Asset } from '@starling/model/entities';
import { TIMELINE_HZ } from '@starling/model/schedule';
import type { Command } from 'commander';
import { type CommandContext, CommandError, type Io } from '../io.ts';
import { examples, formatBytes, formatDuration, ProgressBar, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';

const POLL_INTERVAL_MS = 300;
/** An import goes on without us; a coordinator that restarts is waited for so long. */
const MAX_UNREACHABLE_MS = 30_000;

export function addMediaCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const media = program.command('media').description('Files that channels play.');
  media
    .command('import')
    .description('Bring files into the house format, and print the id of each asset.')
    .argument('<file...>', 'video files')
    .option('--name <name>', 'name of the asset (default: the name of the file)')
    .addHelpText(
      'after',
      examples('starling media import film.mp4', 'starling media import --name trailer t.mov'),
    )
    .action(async (files: string[], { name }: { name?: string }) => {
      if (name !== undefined && files.length > 1) {
        throw new CommandError('--name names one asset. Import the files one by one.');
      }
      const paths = files.map((file) => readablePath(file, io.cwd));
      const { client } = requireRunning(dataDir());
      const assets: Asset[] = [];
      for (const source of paths) {
        assets.push(await client.assets.create({ source, ...(name === undefined ? {} : { name }) }));
      }
      const ended = await followImports(client, assets, io, (asset) => {
        if (asset.state === 'ready' && !wantsJson()) io.stdout.write(`${asset.id}\n`);
      });
      if (wantsJson()) printJson(io.stdout, { items: ended });
      const failed = ended.filter((asset) => asset.state === 'failed');
      if (failed.length > 0)
        throw new CommandError(failed.map(({ name, error }) => `${name}: ${error}`).join('\n'));
    });
  media
    .command('ls')
    .description('List the assets.')
    .addHelpText('after', examples('starling media ls', 'starling media ls --json'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.assets.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['ID', 'NAME', 'STATE', 'LENGTH', 'PICTURE', 'SIZE'],
        items.map(({ id, name, state, progress, facts }) => [
          id,
          name,
          state === 'importing' ? `importing ${Math.floor(progress * 100)} %` : state,
          facts === null ? '' : formatDuration(facts.durationTicks / TIMELINE_HZ),
          facts === null ? '' : `${facts.widthPx}x${facts.heightPx} ${facts.frameRate}/s`,
          facts === null ? '' : formatBytes(facts.sizeBytes),
        ]),
        'There are no assets. Import one with: starling media import FILE',
      );
    });
  media
    .command('rm')
    .description('Remove assets that no channel plays. The imported copy goes, your file stays.')
    .argument('<id...>', 'ids, as `starling media ls` shows them')
    .addHelpText('after', examples('starling media rm 5f0c63b1a94d2e78'))
    .action(async (ids: string[]) => {
      const { client } = requireRunning(dataDir());
      for (const id of ids) await client.assets.remove(id);
      if (wantsJson()) printJson(io.stdout, { removed: ids });
    });
}

/**
 * Waits for imports and shows how far they are.
 * @param onEnd called for each as it ends
 * @returns the assets as they ended, in the order given
 * @throws CommandError when the user stops waiting; the imports go on
 */
async function followImports(
  client: CoordinatorClient,
  assets: readonly Asset[],
  io: Io,
  onEnd: (asset: Asset) => void,
): Promise<Asset[]> {
  const bar = new ProgressBar(io.stderr);
  let isInterrupted = false;
  let wake: () => void = () => undefined;
  const stopListening = io.onInterrupt(() => {
    isInterrupted = true;
    wake();
  });
  try {
    const ended: Asset[] = [];
    for (const [index, { id }] of assets.entries()) {
      let unreachableSinceMs: number | undefined;
      for (;;) {
        let asset: Asset | undefined;
        try {
          asset = await client.assets.get(id);
          unreachableSinceMs = undefined;
        } catch (error) {
          unreachableSinceMs ??= performance.now();
          const isTemporary = error instanceof ApiError && (error.status === 0 || error.status === 503);
          if (!isTemporary || performance.now() - unreachableSinceMs > MAX_UNREACHABLE_MS) throw error;
        }
        if (asset?.state === 'ready' || asset?.state === 'failed') {
          bar.clear();
          onEnd(asset);
          ended.push(asset);
          break;
        }
        if (asset !== undefined) {
          const place = assets.length > 1 ? ` (${index + 1} of ${assets.length})` : '';
          bar.draw(`${asset.name}${asset.state === 'queued' ? ', waiting' : ''}${place}`, asset.progress);
        }
        if (isInterrupted) {
          throw new CommandError('The import goes on in Starling. See how far it is with: starling media ls');
        }
        await new Promise<void>((resume) => {
          wake = resume;
          setTimeout(resume, POLL_INTERVAL_MS);
        });
      }
    }
    return ended;
  } finally {
    bar.clear();
    stopListening();
  }
}

/** @throws CommandError when there is no such file, or it is not readable */
function readablePath(file: string, cwd: string): string {
  const path = resolve(cwd, file);
  try {
    accessSync(path, constants.R_OK);
    if (!statSync(path).isFile()) throw new CommandError(`${file} is not a file.`);
  } catch (error) {
    if (error instanceof CommandError) throw error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    throw new CommandError(
      code === 'ENOENT' ? `There is no file ${file}.` : `${file} is not readable (${code}).`,
    );
  }
  return path;
}
