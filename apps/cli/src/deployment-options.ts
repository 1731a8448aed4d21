/** Which deployment a command is about: `--profile` and `--region`, or a deployment file, whose values flags replace. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { profiles, regions } from '@starling/model/topology/deployment';
import { drawPlan } from '@starling/model/topology/draw-plan';
import { TopologyError } from '@starling/model/topology/error';
import type { Plan } from '@starling/model/topology/plan';
import { type Command, Option } from 'commander';
import { parse as parseYaml } from 'yaml';
import { CommandError, type Io } from './io.ts';

export interface DeploymentOptions {
  readonly file?: string;
  readonly profile?: string;
  readonly region?: string;
}

export function addDeploymentOptions(command: Command): Command {
  return command
    .option('--file <deploy.yaml>', 'deployment file')
    .addOption(new Option('--profile <profile>', 'what is deployed').choices(profiles))
    .addOption(new Option('--region <region>', 'where (default: eu-west-1)').choices(regions));
}

/**
 * @param changes settings that replace those of the file
 * @throws CommandError for a file that cannot be read or is not valid
 */
export function planOfOptions(
  io: Io,
  { file, profile, region }: DeploymentOptions,
  changes: Readonly<Record<string, unknown>> = {},
): Plan {
  if (file === undefined && profile === undefined) {
    throw new CommandError(`Say which deployment: --profile ${profiles.join('|')}, or --file deploy.yaml.`);
  }
  const given = file === undefined ? {} : readDeploymentFile(resolve(io.cwd, file));
  try {
    return drawPlan({
      region: 'eu-west-1',
      ...given,
      ...(profile === undefined ? {} : { profile }),
      ...(region === undefined ? {} : { region }),
      ...changes,
    });
  } catch (error) {
    if (error instanceof TopologyError) throw new CommandError(error.message);
    throw error;
  }
}

function readDeploymentFile(path: string): object {
  let content: unknown;
  try {
    content = parseYaml(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new CommandError(`${path} cannot be read: ${(error as Error).message}`);
  }
  if (typeof content === 'object' && content !== null && !Array.isArray(content)) return content;
  throw new CommandError(
    `${path} is not a deployment file: it has to hold settings such as "profile: beta".`,
  );
}
