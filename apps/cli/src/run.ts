/** The command line: which commands there are, and what becomes of their errors. */
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { OperateError } from '@starling/infra/operate/error';
import { ApiError } from '@starling/model/client';
import { MAX_WORKERS } from '@starling/model/config';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import packageJson from '../package.json' with { type: 'json' };
import { addAccountCommands } from './commands/account.ts';
import { addApiTokenCommands } from './commands/api-token.ts';
import { addAuditCommand } from './commands/audit.ts';
import { addAuditLogCommand } from './commands/audit-log.ts';
import { addBackupCommands } from './commands/backup.ts';
import { addChannelCommands } from './commands/channel.ts';
import { addCostCommand } from './commands/cost.ts';
import { addDestinationCommands } from './commands/destination.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addInfraCommands } from './commands/infra.ts';
import { addMediaCommands } from './commands/media.ts';
import { addOperateCommands } from './commands/operate.ts';
import { addRecordingCommands } from './commands/recording.ts';
import { addStackCommands } from './commands/stack.ts';
import { addStreamCommands } from './commands/stream.ts';
import { addTokenCommands } from './commands/token.ts';
import { addViewersCommands } from './commands/viewers.ts';
import { addWebhookCommands } from './commands/webhook.ts';
import { type CommandContext, CommandError, type Io } from './io.ts';
import { examples } from './output.ts';
import { StartError } from './process.ts';
import type { Role } from './role.ts';
import { notRunning } from './running.ts';

const DEFAULT_HTTP_PORT = 8080;
const DEFAULT_RTMP_PORT = 1935;
const DEFAULT_RTMPS_PORT = 1936;
const DEFAULT_DVR_HOURS = 2;
const MAX_DVR_HOURS = 24;

/**
 * Runs one command.
 * @param argv without the names of Node and of the program
 * @returns the exit code: 0 done, 1 failed, 2 misused
 */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  const program = new Command('starling');
  const sharedOptions = () => program.opts<{ data?: string; json?: boolean }>();
  const context: CommandContext = {
    io,
    dataDir: () => resolve(io.cwd, sharedOptions().data ?? io.env.STARLING_DATA ?? 'data'),
    wantsJson: () => sharedOptions().json === true,
  };
  program
    .description('A television network that one person can own.')
    .version(packageJson.version, '-V, --version', 'print the version')
    .option('--data <dir>', 'data folder of the network (default: $STARLING_DATA, or ./data)')
    .option('--json', 'results as JSON')
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .showHelpAfterError('Add --help to see how the command is used.')
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
    });
  addUpCommand(program, context);
  addRoleCommand(program, 'frontend', 'Serve channels to viewers; backends push them here.');
  addRoleCommand(
    program,
    'backend',
    'Make channels from files and encoders, and push them to the frontends.',
  );
  addRoleCommand(program, 'coordinator', 'Keep the API, the database and the site.');
  addBalancerCommand(program, context);
  addMediaCommands(program, context);
  addChannelCommands(program, context);
  addStreamCommands(program, context);
  addDestinationCommands(program, context);
  addRecordingCommands(program, context);
  addTokenCommands(program, context);
  addViewersCommands(program, context);
  addWebhookCommands(program, context);
  addAccountCommands(program, context);
  addApiTokenCommands(program, context);
  addAuditLogCommand(program, context);
  addBackupCommands(program, context);
  addCostCommand(program, context);
  addAuditCommand(program, context);
  const infra = program
    .command('infra')
    .description('The deployment on AWS: what it is made of, and its stacks.');
  addInfraCommands(infra, context);
  addStackCommands(infra, context);
  addOperateCommands(program, context);
  addDoctorCommand(program, context, { httpPort: DEFAULT_HTTP_PORT, rtmpPort: DEFAULT_RTMP_PORT });
  program.addHelpText(
    'after',
    examples('starling up', 'starling media import film.mp4', 'starling channel add films --loop film'),
  );

  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof ApiError && error.code === 'UNREACHABLE') {
      io.stderr.write(`${notRunning(context.dataDir()).message}\n`);
      return 1;
    }
    const isExplained =
      error instanceof CommandError ||
      error instanceof StartError ||
      error instanceof ApiError ||
      error instanceof OperateError;
    if (isExplained) {
      io.stderr.write(`${error.message}\n`);
      return 1;
    }
    throw error;
  }
}

interface UpFlags {
  readonly http: number;
  readonly rtmp: number;
  readonly rtmps: number;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly host?: string;
  readonly workers?: number;
  readonly trustedProxy?: string[];
  readonly dvrHours: number;
  readonly hdhomerun?: true;
}

function addUpCommand(program: Command, { io, dataDir }: CommandContext): void {
  program
    .command('up')
    .description('Run everything on this machine, until Ctrl-C.')
    .option('--http <port>', 'port of the site, the API and HLS', parsePort, DEFAULT_HTTP_PORT)
    .option('--rtmp <port>', 'port for encoders', parsePort, DEFAULT_RTMP_PORT)
    .option('--rtmps <port>', 'port for encoders that use TLS', parsePort, DEFAULT_RTMPS_PORT)
    .option('--tls-cert <file>', 'certificate for it, in PEM (default: one that is made at the first start)')
    .option('--tls-key <file>', 'the private key of the certificate, in PEM')
    .option('--host <address>', 'address to listen on (default: all)')
    .option('--workers <n>', 'processes that serve viewers (default: one per core)', parseWorkers)
    .option(
      '--trusted-proxy <cidr...>',
      'balancers in front, whose X-Forwarded-For is believed (loopback always is)',
    )
    .option(
      '--dvr-hours <hours>',
      'how far back viewers can go; 0 records nothing',
      parseHours,
      DEFAULT_DVR_HOURS,
    )
    .option('--hdhomerun', 'answer Plex and others that look for an HDHomeRun tuner on the local network')
    .addHelpText(
      'after',
      examples(
        'starling up',
        'starling up --data /srv/starling --http 80',
        'starling up --trusted-proxy 10.0.0.0/24',
      ),
    )
    .action(async (options: UpFlags) => {
      // Loaded here, because the other commands do not need the servers.
      const { runUp } = await import('./up.ts');
      await runUp({
        dataDir: dataDir(),
        httpPort: options.http,
        rtmpPort: options.rtmp,
        rtmpsPort: options.rtmps,
        tlsCertificatePath: options.tlsCert && resolve(io.cwd, options.tlsCert),
        tlsPrivateKeyPath: options.tlsKey && resolve(io.cwd, options.tlsKey),
        host: options.host,
        trustedProxies: options.trustedProxy ?? [],
        workers: options.workers ?? Math.min(availableParallelism(), MAX_WORKERS),
        dvrHours: options.dvrHours,
        hdhomerun: options.hdhomerun === true,
      });
    });
}

function addRoleCommand(program: Command, role: Role, description: string): void {
  const command = program
    .command(role)
    .description(description)
    .requiredOption('--config <file>', `configuration file with a section "${role}"`)
    .addHelpText('after', examples(`starling ${role} --config starling.yaml`))
    .action(async (options: { config: string; workers?: number }) => {
      const { runRole } = await import('./role.ts');
      await runRole(role, options.config, { workers: options.workers });
    });
  if (role === 'frontend') {
    command.option('--workers <n>', 'processes that serve viewers (default: as the file says)', parseWorkers);
  }
}

function addBalancerCommand(program: Command, { wantsJson }: CommandContext): void {
  program
    .command('balancer')
    .description('Keep nginx in front of the fleet: TLS, certificates, health, cache.')
    .requiredOption('--config <file>', 'configuration file with a section "balancer"')
    .option('--check', "print nginx's configuration and grade it, and start nothing")
    .addHelpText(
      'after',
      examples(
        'starling balancer --config starling.yaml',
        'starling balancer --config starling.yaml --check',
      ),
    )
    .action(async (options: { config: string; check?: true }) => {
      const { checkBalancerRole, runRole } = await import('./role.ts');
      if (options.check !== true) return runRole('balancer', options.config, { workers: undefined });
      if (await checkBalancerRole(options.config, wantsJson())) return;
      throw new CommandError('The balancer is not fit to run: see what failed above.');
    });
}

function parseWorkers(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > MAX_WORKERS)
    throw new InvalidArgumentError(`It is a number from 1 to ${MAX_WORKERS}.`);
  return count;
}

function parseHours(text: string): number {
  const hours = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || hours > MAX_DVR_HOURS)
    throw new InvalidArgumentError(`Hours are a number from 0 to ${MAX_DVR_HOURS}.`);
  return hours;
}

/** 0 takes a free port. */
function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535)
    throw new InvalidArgumentError('A port is a number from 0 to 65535.');
  return port;
}
