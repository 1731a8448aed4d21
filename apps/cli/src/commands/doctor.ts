/** `starling doctor`: whether this machine can run the network, and what to do where it cannot. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { type CommandContext, CommandError, type TextOutput } from '../io.ts';
import {
  checkClock,
  checkDataFolder,
  checkDisk,
  checkFfmpeg,
  checkNode,
  checkPort,
  type Finding,
} from '../machine-checks.ts';
import { examineNode } from '../node-checks.ts';
import { examples, printJson } from '../output.ts';
import { findRunning } from '../running.ts';

interface DoctorOptions {
  readonly http: string;
  readonly rtmp: string;
  readonly config?: string;
}

export function addDoctorCommand(
  program: Command,
  { io, dataDir, wantsJson }: CommandContext,
  defaults: { readonly httpPort: number; readonly rtmpPort: number },
): void {
  program
    .command('doctor')
    .description('Check this machine, and say what to do where something is wrong.')
    .option('--http <port>', 'port of the site that `up` is to use', String(defaults.httpPort))
    .option('--rtmp <port>', 'port for encoders that `up` is to use', String(defaults.rtmpPort))
    .option('--config <file>', 'look at the node of this configuration file, and at every peer that it needs')
    .addHelpText(
      'after',
      examples(
        'starling doctor',
        'starling doctor --data /srv/starling --json',
        'starling doctor --config starling.yaml',
      ),
    )
    .action(async (options: DoctorOptions) => {
      const findings =
        options.config === undefined
          ? await examine(dataDir(), options)
          : await examineNode(resolve(io.cwd, options.config), io.env);
      if (wantsJson()) printJson(io.stdout, { findings });
      else for (const finding of findings) printFinding(io.stdout, finding);
      const failedCount = findings.filter(({ result }) => result === 'fail').length;
      if (failedCount > 0) throw new CommandError(`${failedCount} of ${findings.length} checks failed.`);
    });
}

function printFinding(output: TextOutput, { check, result, message, advice }: Finding): void {
  output.write(`${result.padEnd(4)}  ${check.padEnd(22)}  ${message}\n`);
  if (advice !== undefined) output.write(`${' '.repeat(30)}${advice}\n`);
}

async function examine(dataDir: string, options: DoctorOptions): Promise<Finding[]> {
  const running = findRunning(dataDir);
  const ours =
    running === undefined
      ? []
      : [new URL(running.apiUrl).port || '80', new URL(running.rtmpUrl).port || '1935'];
  return [
    checkNode(),
    ...(await checkFfmpeg()),
    checkDataFolder(dataDir),
    await checkDisk(dataDir),
    await checkPort('port http', options.http, '--http', ours),
    await checkPort('port rtmp', options.rtmp, '--rtmp', ours),
    await checkRunning(dataDir),
    await checkClock(),
  ];
}

async function checkRunning(dataDir: string): Promise<Finding> {
  const check = 'starling';
  const running = findRunning(dataDir);
  if (running === undefined) {
    return { check, result: 'ok', message: 'not running', advice: 'Start it with: npm start' };
  }
  try {
    const { onAirChannels } = await running.client.status();
    const message = `running at ${running.apiUrl}, ${onAirChannels.length} channels on the air`;
    return { check, result: 'ok', message };
  } catch {
    const message = `process ${running.pid} is there, but does not answer at ${running.apiUrl}`;
    return { check, result: 'fail', message, advice: 'Stop it and start it again. Its log says why.' };
  }
}
