/**
 * The embedded PostgreSQL, in a worker thread of its own: PGlite computes on the thread that calls
 * it, and a checkpoint or a recovery would hold up every viewer of the process.
 *
 * Plain JavaScript, so that the same file runs from the sources and beside the bundled program.
 *
 * Messages in: `{ id, sql, parameters }`. Messages out: `{ kind: 'ready' }` once, then for each
 * query `{ kind: 'rows', id, command, rowCount, rows }` or `{ kind: 'error', id, error }`.
 */
import { fsyncSync, readdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite, types } from '@electric-sql/pglite';
import { NodeFS } from '@electric-sql/pglite/nodefs';

/** @type {{ folder: string, isCreateOnly: boolean }} */
const { folder, isCreateOnly } = workerData;

/**
 * PGlite leaves files to the operating system, so a power cut could lose what was acknowledged. Here they reach the disk
 * when PostgreSQL wants them there: `fsync` does what it says, and PostgreSQL is told to use it.
 */
class DurableFolder extends NodeFS {
  async init(pg, options) {
    const { emscriptenOpts } = await super.init(pg, options);
    const addFsync = ({ NODEFS }) => {
      NODEFS.stream_ops.fsync = (stream) => {
        NODEFS.tryFSOperation(() => fsyncSync(stream.nfd)); // its error, as PostgreSQL knows it
        return 0;
      };
    };
    return { emscriptenOpts: { ...emscriptenOpts, preRun: [...emscriptenOpts.preRun, addFsync] } };
  }
}

const startParams = PGlite.defaultStartParams.filter((parameter) => parameter !== '-F');
const database = await PGlite.create({
  fs: new DurableFolder(folder),
  // As `pg` gives them: a 64-bit integer as text.
  parsers: { [types.INT8]: (text) => text },
  startParams: [
    ...(isCreateOnly ? PGlite.defaultStartParams : startParams),
    // Emscripten's fdatasync does nothing.
    ...['-c', 'wal_sync_method=fsync'],
    // The defaults of a server would take 200 MB more memory, and up to 1 GB of disk for the log.
    ...['-c', 'shared_buffers=8MB', '-c', 'max_wal_size=64MB', '-c', 'min_wal_size=32MB'],
  ],
});

if (isCreateOnly) {
  await database.close();
  await syncAll(folder);
  parentPort.postMessage({ kind: 'ready' });
  process.exit(0);
}

/** A folder with all that is in it: a thousand files, which the disk takes faster when it is asked for many at once. */
async function syncAll(folder) {
  const paths = [folder, ...readdirSync(folder, { recursive: true }).map((name) => join(folder, name))];
  const syncSome = async () => {
    for (let path = paths.pop(); path !== undefined; path = paths.pop()) {
      const file = await open(path);
      await file.sync();
      await file.close();
    }
  };
  await Promise.all(Array.from({ length: 32 }, syncSome));
}

parentPort.on('message', async (message) => {
  if (message === 'close') {
    await database.close();
    process.exit(0);
  }
  const { id, sql, parameters } = message;
  try {
    const { command, rowCount, rows } = await database.query(sql, parameters);
    parentPort.postMessage({ kind: 'rows', id, command, rowCount, rows });
  } catch (error) {
    // After a panic PGlite answers no more, and without an SQLSTATE it was not SQL that failed. The
    // thread ends with the error, and the coordinator starts another one.
    if (['PANIC', 'FATAL'].includes(error.severity) || error.code === undefined) throw error;
    parentPort.postMessage({
      kind: 'error',
      id,
      error: { message: error.message, sqlState: error.code, constraint: error.constraint },
    });
  }
});

parentPort.postMessage({ kind: 'ready' });
