/**
 * Keeps a second process off a data folder: two engines on the same database files would destroy them.
 *
 * The lock is a listening Unix socket, so the operating system ends it with the process, kill -9 included.
 */
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** `sun_path` holds 104 bytes on macOS and 108 on Linux, the final zero included. */
const MAX_SOCKET_PATH_BYTES = 100;

/** The data folder cannot be used. The message is one sentence that says why and what to do. */
export class DataFolderError extends Error {
  override readonly name = 'DataFolderError';
}

export interface DataFolderLock {
  readonly release: () => Promise<void>;
}

/** @throws DataFolderError when another process holds the lock of the folder */
export async function lockDataFolder(folder: string): Promise<DataFolderLock> {
  const path = socketPath(resolve(folder));
  let server = await listen(path);
  if (server === undefined) {
    if (await isAnswering(path)) {
      throw new DataFolderError(
        `Another Starling uses the data folder ${folder}. Stop it, or choose another folder with --data.`,
      );
    }
    // Left behind by a process that was killed.
    await rm(path, { force: true });
    server = await listen(path);
  }
  if (server === undefined)
    throw new DataFolderError(`The data folder ${folder} cannot be locked: ${path} is in use.`);
  const held = server;
  return { release: () => new Promise((done) => held.close(() => done())) };
}

function socketPath(folder: string): string {
  const path = join(folder, 'coordinator.lock');
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return path;
  const digest = createHash('sha256').update(folder).digest('hex').slice(0, 16);
  return join(tmpdir(), `starling-${digest}.lock`);
}

/** @returns undefined when there is such a socket already */
function listen(path: string): Promise<Server | undefined> {
  return new Promise((done, fail) => {
    const server = createServer((connection) => connection.destroy());
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? done(undefined) : fail(error),
    );
    server.listen(path, () => {
      server.unref();
      done(server);
    });
  });
}

function isAnswering(path: string): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      done(true);
    });
    socket.once('error', () => done(false));
  });
}
