/** The Starling that runs on a data folder, found by the files that `starling up` keeps there. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import { CommandError } from './io.ts';

/** `up.json` in the data folder. */
const UpFile = Type.Object({
  pid: Type.Integer({ minimum: 1 }),
  apiUrl: Type.String(),
  /** Server address for encoders, without the stream's name. */
  rtmpUrl: Type.String(),
  startedAt: Type.String(),
});
type UpFile = Static<typeof UpFile>;

export interface RunningStarling extends UpFile {
  /** With the operator's token. */
  readonly client: CoordinatorClient;
}

/** @returns undefined when none runs on the folder */
export function findRunning(dataDir: string): RunningStarling | undefined {
  const text = readIfPresent(join(dataDir, 'up.json'));
  const token = readIfPresent(join(dataDir, 'operator.token'))?.trim();
  if (text === undefined || token === undefined) return undefined;
  let up: unknown;
  try {
    up = JSON.parse(text);
  } catch {
    return undefined; // half written by a process that was killed
  }
  if (!Check(UpFile, up) || !isAlive(up.pid)) return undefined;
  return { ...up, client: new CoordinatorClient({ baseUrl: up.apiUrl, token }) };
}

/** @throws CommandError when none runs on the folder */
export function requireRunning(dataDir: string): RunningStarling {
  const running = findRunning(dataDir);
  if (running === undefined) throw notRunning(dataDir);
  return running;
}

export function notRunning(dataDir: string): CommandError {
  return new CommandError(`Starling is not running on ${dataDir}. Start it with: npm start`);
}

function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EACCES') {
      throw new CommandError(`${path} is not readable. Run the command as the user that runs Starling.`);
    }
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // It lives, but belongs to another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
