/** `starling backup`, `restore` and `import-database`: what the coordinator keeps, into a file and back. */
import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { type CommandContext, CommandError } from '../io.ts';
import { examples } from '../output.ts';
import { explainStorage, openLog, storageServers } from '../process.ts';
import { findRunning } from '../running.ts';

export function addBackupCommands(program: Command, { io, dataDir }: CommandContext): void {
  const storage = () => ({ dataDir: dataDir(), databaseUrl: storageServers(io.env).databaseUrl });

  program
    .command('backup')
    .argument('<file>')
    .description('Write all that the coordinator keeps to a file: the database and the keys, not the media.')
    .addHelpText(
      'after',
      `\nStarling may run meanwhile. There are secrets in the file.${examples(
        'starling backup starling.backup.gz',
        'DATABASE_URL=postgres://... starling backup starling.backup.gz',
      )}`,
    )
    .action(async (file: string) => {
      const path = resolve(io.cwd, file);
      const running = findRunning(dataDir());
      if (running === undefined) {
        const { writeBackup } = await import('@starling/coordinator/backup');
        await writeBackup(storage(), path, openLog()).catch(explainStorage);
      } else {
        const unfinished = `${path}.new`;
        try {
          const body = Readable.from(await running.client.backup());
          await pipeline(body, createWriteStream(unfinished, { mode: 0o600 }));
          await rename(unfinished, path);
        } finally {
          await rm(unfinished, { force: true });
        }
      }
      io.stdout.write(`Written to ${path}.\n`);
    });

  program
    .command('restore')
    .argument('<file>')
    .description('Fill an empty data folder, or an empty database at $DATABASE_URL, from a backup.')
    .addHelpText('after', examples('starling restore starling.backup.gz --data /srv/starling'))
    .action(async (file: string) => {
      const { restoreBackup } = await import('@starling/coordinator/backup');
      await restoreBackup(storage(), resolve(io.cwd, file), openLog()).catch(explainStorage);
      io.stdout.write('Restored.\n');
    });

  program
    .command('import-database')
    .requiredOption('--from <dir>', 'data folder of a Starling that has stopped')
    .description('Copy the database of a data folder to an empty one on the server at $DATABASE_URL.')
    .addHelpText('after', examples('DATABASE_URL=postgres://... starling import-database --from data'))
    .action(async ({ from }: { from: string }) => {
      const { databaseUrl } = storage();
      if (databaseUrl === undefined) {
        throw new CommandError(
          'Say where to: set DATABASE_URL to postgres://USER:PASSWORD@HOST:PORT/DATABASE.',
        );
      }
      const { copyToServer } = await import('@starling/coordinator/backup');
      await copyToServer(resolve(io.cwd, from), storage(), openLog()).catch(explainStorage);
      io.stdout.write(
        'Copied. The folder is as it was; from now on the database is the one on the server.\n',
      );
    });
}
