/** Who this backend is among the others. */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NodeId } from '@starling/model/lease';
import { Check } from 'typebox/value';
import { systemErrorCode } from './error.ts';

/**
 * The id of the backend on this data folder: made at the first start, the same from then on.
 * @throws the system's error when the folder cannot be read or written
 */
export async function readNodeId(dataDir: string): Promise<string> {
  const path = join(dataDir, 'node.id');
  try {
    const text = (await readFile(path, 'utf8')).trim();
    if (Check(NodeId, text)) return text;
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  }
  const id = randomBytes(8).toString('hex');
  await mkdir(dataDir, { recursive: true });
  await writeFile(path, `${id}\n`);
  return id;
}
