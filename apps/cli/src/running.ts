/** The Starling that runs on a data folder, found by the files that `starling up` and `starling coordinator` keep there. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import { currentSecret } from '@starling/model/secret';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import { CommandError } from './io.ts';

/** `up.json` in the data folder. */
const UpFile = Type.Object({
  pid: Type.Integer({ minimum: 1 }),
  apiUrl: Type.String(),
  /** Server address for encoders, without the stream's name; left out by a coordinator on its own. */
  rtmpUrl: Type.Optional(Type.String()),
  /** Where the operator's token lies; in the data folder when left out. */
  operatorTokenPath: Type.Optional(Type.String()),
  startedAt: Type.String(),
});
type UpFile = Static<typeof UpFile>;

export interface RunningStarling extends UpFile {
  readonly rtmpUrl: string;
  readonly operatorTokenPath: string;
  /** With the operator's token. */
  readonly client: CoordinatorClient;
}

/** Says where a process is that the command line is to speak to. @returns takes it back */
export function announceRunning(
  dataDir: string,
  addresses: Omit<UpFile, 'pid' | 'startedAt'> & { readonly rtmpsUrl?: string },
): () => void {
  const path = join(dataDir, 'up.json');
  const up = { pid: process.pid, ...addresses, startedAt: new Date().toISOString() };
  writeFileSync(path, JSON.stringify(up, null, 2));
  return () => rmSync(path, { force: true });
}

/** @returns undefined when none runs on the folder */
export function findRunning(dataDir: string): RunningStarling | undefined {
  const text = readIfPresent(join(dataDir, 'up.json'));
  if (text === undefined) return undefined;
  let up: unknown;
  try {
    up = JSON.parse(text);
  } catch {
    return undefined; // half written by a process that was killed
  }
  if (!Check(UpFile, up) || !isAlive(up.pid)) return undefined;
  const operatorTokenPath = up.operatorTokenPath ?? join(dataDir, 'operator.token');
  const tokenText = readIfPresent(operatorTokenPath);
  if (tokenText === undefined) return undefined;
  const token = currentSecret(tokenText);
  // A coordinator on its own has no port for encoders: whoever reads it knows a backend's, or the balancer's.
  const { rtmpUrl = 'rtmp://BACKEND:1935/live' } = up;
  return { ...up, rtmpUrl, operatorTokenPath, client: new CoordinatorClient({ baseUrl: up.apiUrl, token }) };
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
