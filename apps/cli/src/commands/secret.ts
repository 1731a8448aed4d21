/** `starling secret`: the files with secrets that programs of the network share. */
import { randomBytes } from 'node:crypto';
import { chownSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { rotatedSecretFile } from '@starling/model/secret';
import type { Command } from 'commander';
import { parseDuration } from '../durations.ts';
import { type CommandContext, CommandError } from '../io.ts';
import { examples, printJson } from '../output.ts';
import { requireRunning } from '../running.ts';

export function addSecretCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  program
    .command('secret')
    .description('The secrets in files: operator.token, node.token, publish.token.')
    .command('rotate')
    .description('Put another secret into a file. Programs that read the file follow, without a restart.')
    .argument('[file]', "the operator's token of the Starling that runs here, when it is not given")
    .option('--overlap <time>', 'how long the old one does as well, for instance 10m or 24h', parseDuration)
    .addHelpText(
      'after',
      examples('starling secret rotate', 'starling secret rotate /etc/starling/node.token --overlap 24h'),
    )
    .action((file: string | undefined, { overlap = 0 }: { overlap?: number }) => {
      const path = file === undefined ? requireRunning(dataDir()).operatorTokenPath : resolve(io.cwd, file);
      const nowMs = Date.now();
      const untilMs = nowMs + overlap * 1000;
      try {
        const text = readFileSync(path, 'utf8');
        replace(path, rotatedSecretFile(text, randomBytes(32).toString('base64url'), untilMs, nowMs));
      } catch (error) {
        throw new CommandError(`${path} cannot be changed: ${(error as Error).message}`);
      }
      const oldUntil = overlap === 0 ? null : new Date(untilMs).toISOString();
      if (wantsJson()) return printJson(io.stdout, { file: path, oldUntil });
      io.stdout.write(
        `${path} holds another secret. The old one ${oldUntil === null ? 'is worthless within a second' : `does as well until ${oldUntil}`}.\n` +
          'Where other machines have a copy of the file, copy it there now.\n',
      );
    });
}

/** Beside its place first, so that nobody reads half of it; who may read it stays as it is. */
function replace(path: string, text: string): void {
  const { mode, uid, gid } = statSync(path);
  writeFileSync(`${path}.new`, text, { mode: mode & 0o777, flush: true });
  if (process.getuid?.() === 0) chownSync(`${path}.new`, uid, gid);
  renameSync(`${path}.new`, path);
}
