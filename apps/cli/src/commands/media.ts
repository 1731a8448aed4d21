/** `starling media`: files, folders and URLs in, assets out. */
import { accessSync, constants, readdirSync, type Stats, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ApiError, type CoordinatorClient } from '@starling/model/client';
import type { Asset } from '@starling/model/entities';
import { isMediaFileName, LibrarySettings } from '@starling/model/library';
import { TIMELINE_HZ } from '@starling/model/schedule';
import { type Command, InvalidArgumentError } from 'commander';
import { Check } from 'typebox/value';
import { type CommandContext, CommandError, type Io } from '../io.ts';
import { examples, formatBytes, formatDuration, ProgressBar, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';

const POLL_INTERVAL_MS = 300;
/** An import goes on without us; a coordinator that restarts is waited for so long. */
const MAX_UNREACHABLE_MS = 30_000;

interface ImportFlags {
  readonly name?: string;
  readonly recursive?: boolean;
  readonly watch?: boolean;
}

export function addMediaCommands(program: Command, context: CommandContext): void {
  const media = program.command('media').description('Files that channels play.');
  addImportCommand(media, context);
  addAssetCommands(media, context);
  addFolderCommands(media, context);
  addSettingsCommand(media, context);
}

function addImportCommand(media: Command, { io, dataDir, wantsJson }: CommandContext): void {
  media
    .command('import')
    .description('Bring sources into the house format, and print the id of each asset.')
    .argument('<source...>', 'video or sound files, folders of them, or http and https URLs')
    .option('--name <name>', 'name of the asset (default: the name of the file)')
    .option('--recursive', 'folders with the folders in them')
    .option(
      '--watch',
      'folders: import what is put into them, too, from now on; prints the id of each folder',
    )
    .addHelpText(
      'after',
      examples(
        'starling media import film.mp4',
        'starling media import --name trailer t.mov',
        'starling media import https://example.org/film.mp4',
        'starling media import --watch --recursive /srv/films',
      ),
    )
    .action(async (sources: string[], { name, recursive = false, watch = false }: ImportFlags) => {
      const { client } = requireRunning(dataDir());
      if (watch) {
        const paths = sources.map((source) => readableFolder(source, io.cwd));
        const folders = [];
        for (const path of paths) folders.push(await client.library.watch({ path, isRecursive: recursive }));
        if (wantsJson()) printJson(io.stdout, { items: folders });
        else for (const { id } of folders) io.stdout.write(`${id}\n`);
        return;
      }
      const found = sources.flatMap((source) => findSources(source, io.cwd, recursive));
      if (name !== undefined && found.length > 1) {
        throw new CommandError('--name names one asset. Import the files one by one.');
      }
      const assets: Asset[] = [];
      for (const source of found) {
        assets.push(await client.assets.create({ source, ...(name === undefined ? {} : { name }) }));
      }
      await finishImports(client, assets, io, wantsJson());
    });
}

function addAssetCommands(media: Command, { io, dataDir, wantsJson }: CommandContext): void {
  media
    .command('ls')
    .description('List the assets.')
    .addHelpText('after', examples('starling media ls', 'starling media ls --json'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.assets.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['ID', 'NAME', 'STATE', 'LENGTH', 'PICTURE', 'SOUND', 'SIZE', 'NOTE'],
        items.map(({ id, name, state, progress, error, facts }) => [
          id,
          name,
          state === 'importing' ? `importing ${Math.floor(progress * 100)} %` : state,
          ...(facts === null
            ? ['', '', '', '']
            : [
                formatDuration(facts.durationTicks / TIMELINE_HZ),
                `${facts.videoTracks.map(({ heightPx }) => `${heightPx}p`).join(' ')}, ${facts.frameRate}/s`,
                facts.audioTracks.map(({ language }) => language ?? '-').join(' '),
                formatBytes(facts.sizeBytes),
              ]),
          error ?? '',
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
  for (const [name, description] of [
    ['cancel', 'End imports that wait or run.'],
    ['retry', 'Import again what failed or was cancelled.'],
  ] as const) {
    media
      .command(name)
      .description(description)
      .argument('<id...>', 'ids, as `starling media ls` shows them')
      .addHelpText('after', examples(`starling media ${name} 5f0c63b1a94d2e78`))
      .action(async (ids: string[]) => {
        const { client } = requireRunning(dataDir());
        const items: Asset[] = [];
        for (const id of ids) items.push(await client.assets[name](id));
        if (wantsJson()) printJson(io.stdout, { items });
      });
  }
}

function addFolderCommands(media: Command, { io, dataDir, wantsJson }: CommandContext): void {
  media
    .command('folders')
    .description('List the watched folders.')
    .addHelpText('after', examples('starling media folders'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.library.folders();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['ID', 'FOLDER', 'RECURSIVE'],
        items.map(({ id, path, isRecursive }) => [id, path, isRecursive ? 'yes' : 'no']),
        'No folder is watched. Watch one with: starling media import --watch FOLDER',
      );
    });
  media
    .command('unwatch')
    .description('Stop watching folders. What was imported from them stays.')
    .argument('<id...>', 'ids, as `starling media folders` shows them')
    .addHelpText('after', examples('starling media unwatch 5f0c63b1a94d2e78'))
    .action(async (ids: string[]) => {
      const { client } = requireRunning(dataDir());
      for (const id of ids) await client.library.unwatch(id);
      if (wantsJson()) printJson(io.stdout, { removed: ids });
    });
}

function addSettingsCommand(media: Command, { io, dataDir, wantsJson }: CommandContext): void {
  media
    .command('settings')
    .description('Show or change how imports are done. What is in the library stays as it is.')
    .option('--ladder <rungs>', 'qualities of every asset, for instance 1080p,720p,480p', parseList)
    .option('--scale-up <yes|no>', 'whether small sources get every rung, too', parseYesNo)
    .option('--languages <languages>', 'preferred for the default sound, for instance de,en', parseList)
    .option('--max-size <size>', 'of the whole library, for instance 500GB; or none', parseSize)
    .option('--max-hours <hours>', 'longer sources are refused', Number)
    .option('--private-urls <yes|no>', 'whether URLs may lead into private networks', parseYesNo)
    .addHelpText(
      'after',
      examples('starling media settings', 'starling media settings --ladder 720p,480p --max-size 500GB'),
    )
    .action(async (flags: SettingsFlags) => {
      const changed: Record<string, unknown> = {
        ladder: flags.ladder,
        scalesUp: flags.scaleUp,
        languages: flags.languages,
        maxStoreBytes: flags.maxSize,
        maxSourceHours: flags.maxHours,
        allowsPrivateUrls: flags.privateUrls,
      };
      const given = Object.fromEntries(Object.entries(changed).filter(([, value]) => value !== undefined));
      const { library } = requireRunning(dataDir()).client;
      const before = await library.settings();
      const wanted: unknown = { ...before, ...given };
      if (!Check(LibrarySettings, wanted)) {
        throw new CommandError('A value is not allowed. See: starling media settings --help');
      }
      const settings = Object.keys(given).length === 0 ? before : await library.changeSettings(given);
      if (wantsJson()) return printJson(io.stdout, settings);
      const yesNo = (value: boolean) => (value ? 'yes' : 'no');
      printTable(
        io.stdout,
        ['SETTING', 'VALUE'],
        [
          ['--ladder', settings.ladder.join(',')],
          ['--scale-up', yesNo(settings.scalesUp)],
          ['--languages', settings.languages.join(',')],
          ['--max-size', settings.maxStoreBytes === null ? 'none' : formatBytes(settings.maxStoreBytes)],
          ['--max-hours', String(settings.maxSourceHours)],
          ['--private-urls', yesNo(settings.allowsPrivateUrls)],
        ],
        '',
      );
    });
}

interface SettingsFlags {
  readonly ladder?: string[];
  readonly scaleUp?: boolean;
  readonly languages?: string[];
  readonly maxSize?: number | null;
  readonly maxHours?: number;
  readonly privateUrls?: boolean;
}

function parseList(text: string): string[] {
  return text.split(',').filter((item) => item !== '');
}

function parseYesNo(text: string): boolean {
  if (text === 'yes') return true;
  if (text === 'no') return false;
  throw new InvalidArgumentError('Say yes or no.');
}

function parseSize(text: string): number | null {
  if (text === 'none') return null;
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?) ?([kMGT]?)B?$/.exec(text) ?? [];
  if (number === undefined)
    throw new InvalidArgumentError('A size is a number with a unit, such as 500GB, or none.');
  return Math.round(Number(number) * 1000 ** ['', 'k', 'M', 'G', 'T'].indexOf(unit));
}

/**
 * Waits for imports, and prints the id of each asset that came of them.
 * @throws CommandError where one failed
 */
export async function finishImports(
  client: CoordinatorClient,
  assets: readonly Asset[],
  io: Io,
  wantsJson: boolean,
): Promise<void> {
  const ended = await followImports(client, assets, io, (asset) => {
    if (asset.state === 'ready' && !wantsJson) io.stdout.write(`${asset.id}\n`);
  });
  if (wantsJson) printJson(io.stdout, { items: ended });
  const unmade = ended.filter(({ state }) => state !== 'ready');
  if (unmade.length > 0) {
    throw new CommandError(
      unmade.map(({ name, error }) => `${name}: ${error ?? 'The import was cancelled.'}`).join('\n'),
    );
  }
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
        if (asset !== undefined && asset.state !== 'queued' && asset.state !== 'importing') {
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

/**
 * What a word of the command line names: a URL, a file, or the media files of a folder.
 * @throws CommandError when there is nothing of that name, or nothing in it
 */
function findSources(source: string, cwd: string, isRecursive: boolean): string[] {
  if (/^https?:/i.test(source)) return [source];
  const path = resolve(cwd, source);
  const found = statReadable(source, path);
  if (found.isFile()) return [path];
  if (!found.isDirectory()) throw new CommandError(`${source} is neither a file nor a folder.`);
  const files = readdirSync(path, { withFileTypes: true, recursive: isRecursive })
    .filter((entry) => entry.isFile() && isMediaFileName(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  if (files.length === 0) throw new CommandError(`There are no video or sound files in ${source}.`);
  return files;
}

function readableFolder(source: string, cwd: string): string {
  const path = resolve(cwd, source);
  if (!statReadable(source, path).isDirectory()) {
    throw new CommandError(`${source} is not a folder: --watch is for folders.`);
  }
  return path;
}

function statReadable(source: string, path: string): Stats {
  try {
    accessSync(path, constants.R_OK);
    return statSync(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    throw new CommandError(
      code === 'ENOENT' ? `There is no file ${source}.` : `${source} is not readable (${code}).`,
    );
  }
}
