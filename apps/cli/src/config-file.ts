/** The configuration file of roles: read, checked, and the files with secrets that it names. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { StarlingConfig } from '@starling/model/config';
import { Value } from 'typebox/value';
import { parse as parseYaml } from 'yaml';
import { StartError } from './process.ts';

/**
 * Reads and checks the file; paths in it are relative to it.
 * @throws StartError when it cannot be used; `readSecret` when a file with a secret cannot be read
 */
export function readConfig(path: string): { config: StarlingConfig; readSecret: (file: string) => string } {
  let parsed: unknown;
  try {
    parsed = parseYaml(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new StartError(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!Value.Check(StarlingConfig, parsed)) {
    const [first] = Value.Errors(StarlingConfig, parsed);
    throw new StartError(
      `${path}: ${first?.instancePath || 'the file'} ${first?.message ?? 'is not valid'}.`,
    );
  }
  const readSecret = (file: string) => {
    try {
      return readFileSync(resolve(dirname(path), file), 'utf8').trim();
    } catch (error) {
      throw new StartError(
        `${path} names ${file}, which cannot be read (${error instanceof Error ? error.message : error}).`,
      );
    }
  };
  return { config: parsed, readSecret };
}
