/** The settings of roles: read, checked, and the files with secrets that they name. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { StarlingConfig } from '@starling/model/config';
import { currentSecret, type Secret } from '@starling/model/secret';
import { Value } from 'typebox/value';
import { parse as parseYaml } from 'yaml';
import { StartError } from './process.ts';

/** Where a role has its settings from. */
export type RoleSettings =
  | { readonly path: string }
  /** Made by the command line; paths in it are relative to the folder. */
  | { readonly config: StarlingConfig; readonly cwd: string };

export interface ReadSettings {
  readonly config: StarlingConfig;
  /** @throws StartError when the file cannot be read */
  readonly readSecret: (file: string) => string;
  /**
   * For what may change while the program runs.
   * @throws StartError when the file cannot be read
   */
  readonly followSecret: (file: string) => Secret;
  readonly resolvePath: (path: string) => string;
}

/**
 * Reads and checks the file, where there is one; paths in it are relative to it.
 * @throws StartError when it cannot be used
 */
export function readSettings(settings: RoleSettings): ReadSettings {
  const path = 'path' in settings ? settings.path : 'The configuration';
  let parsed: unknown;
  try {
    parsed = 'path' in settings ? parseYaml(readFileSync(path, 'utf8')) : settings.config;
  } catch (error) {
    throw new StartError(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!Value.Check(StarlingConfig, parsed)) {
    const [first] = Value.Errors(StarlingConfig, parsed);
    throw new StartError(
      `${path}: ${first?.instancePath || 'the file'} ${first?.message ?? 'is not valid'}.`,
    );
  }
  const folder = 'path' in settings ? dirname(path) : settings.cwd;
  const resolvePath = (file: string) => resolve(folder, file);
  const readSecret = (file: string) => {
    try {
      return currentSecret(readFileSync(resolvePath(file), 'utf8'));
    } catch (error) {
      throw new StartError(
        `${path} names ${file}, which cannot be read (${error instanceof Error ? error.message : error}).`,
      );
    }
  };
  const followSecret = (file: string) => {
    readSecret(file);
    return { file: resolvePath(file) };
  };
  return { config: parsed, readSecret, followSecret, resolvePath };
}
