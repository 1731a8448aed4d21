/** The command line: which commands there are, and what becomes of their errors. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { OperateError } from '@starling/infra/operate/error';
import { ApiError } from '@starling/model/client';
import { MAX_WORKERS, type NodeCoordinator, type StarlingConfig } from '@starling/model/config';
import { currentSecret } from '@starling/model/secret';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import packageJson from '../package.json' with { type: 'json' };
import { addAccountCommands } from './commands/account.ts';
import { addAlarmCommands } from './commands/alarm.ts';
import { addApiTokenCommands } from './commands/api-token.ts';
import { addAuditCommand } from './commands/audit.ts';
import { addAuditLogCommand } from './commands/audit-log.ts';
import { addBackupCommands } from './commands/backup.ts';
import { addChannelCommands } from './commands/channel.ts';
import { addCostCommand } from './commands/cost.ts';
import { addDestinationCommands } from './commands/destination.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addInfraCommands } from './commands/infra.ts';
import { addLogsCommand } from './commands/logs.ts';
import { addMediaCommands } from './commands/media.ts';
import { addNodeCommands } from './commands/node.ts';
import { addOperateCommands } from './commands/operate.ts';
import { addRecordingCommands } from './commands/recording.ts';
import { addSecretCommands } from './commands/secret.ts';
import { addStackCommands } from './commands/stack.ts';
import { addStreamCommands } from './commands/stream.ts';
import { addTokenCommands } from './commands/token.ts';
import { addViewersCommands } from './commands/viewers.ts';
import { addWebhookCommands } from './commands/webhook.ts';
import type { RoleSettings } from './config-file.ts';
import { type CommandContext, CommandError, type Io } from './io.ts';
import { examples } from './output.ts';
import { RESTART_EXIT_CODE, StartError } from './process.ts';
import type { Role } from './role.ts';
import { notRunning } from './running.ts';

const DEFAULT_HTTP_PORT = 8080;
const DEFAULT_RTMP_PORT = 1935;
const DEFAULT_RTMPS_PORT = 1936;
const DEFAULT_HTTPS_PORT = 8443;
/** Of one kind, on one machine: their ports lie side by side. */
const MAX_NODES = 20;
/** Where backends push to a frontend. */
const DEFAULT_PUSH_PORT = 1937;
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
  addRoleCommand(program, context, 'frontend', 'Serve channels to viewers; backends push them here.');
  addRoleCommand(
    program,
    context,
    'backend',
    'Make channels from files and encoders, and push them to the frontends.',
  );
  addRoleCommand(program, context, 'coordinator', 'Keep the API, the database and the site.');
  addBalancerCommand(program, context);
  addMediaCommands(program, context);
  addChannelCommands(program, context);
  addStreamCommands(program, context);
  addDestinationCommands(program, context);
  addRecordingCommands(program, context);
  addTokenCommands(program, context);
  addSecretCommands(program, context);
  addViewersCommands(program, context);
  addWebhookCommands(program, context);
  addAlarmCommands(program, context);
  addLogsCommand(program, context);
  addAccountCommands(program, context);
  addApiTokenCommands(program, context);
  addAuditLogCommand(program, context);
  addBackupCommands(program, context);
  addNodeCommands(program, context);
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
    if (error instanceof RestartWanted) return RESTART_EXIT_CODE;
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
  readonly frontends?: number;
  readonly backends?: number;
  readonly balancer?: true;
  readonly https: number;
  readonly distribution: 'all' | 'on-demand';
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
    .option('--frontends <n>', 'a fleet of processes on this machine, with so many frontends', parseNodes)
    .option('--backends <n>', 'the same, with so many backends', parseNodes)
    .option('--balancer', 'the same, with nginx in front, and a self-signed certificate')
    .option('--https <port>', 'port of the balancer', parsePort, DEFAULT_HTTPS_PORT)
    .addOption(
      new Option(
        '--distribution <mode>',
        'of a fleet: every channel to every frontend, or to two, from which the others pull',
      )
        .choices(['all', 'on-demand'])
        .default('all'),
    )
    .addHelpText(
      'after',
      examples(
        'starling up',
        'starling up --frontends 3 --backends 2 --balancer',
        'starling up --data /srv/starling --http 80',
        'starling up --trusted-proxy 10.0.0.0/24',
      ),
    )
    .action(async (options: UpFlags) => {
      // Loaded here, because the other commands do not need the servers.
      if (options.frontends !== undefined || options.backends !== undefined || options.balancer === true) {
        const { workers, tlsCert, trustedProxy, hdhomerun } = options;
        if ([workers, tlsCert, trustedProxy, hdhomerun].some((one) => one !== undefined)) {
          throw new StartError(
            '--workers, --tls-cert, --trusted-proxy and --hdhomerun are for one process; a fleet takes --frontends, --backends and --balancer.',
          );
        }
        const { runFleet } = await import('./fleet.ts');
        await runFleet({
          dataDir: dataDir(),
          frontends: options.frontends ?? 2,
          backends: options.backends ?? 1,
          hasBalancer: options.balancer === true,
          httpPort: options.http,
          httpsPort: options.https,
          rtmpPort: options.rtmp,
          host: options.host,
          dvrHours: options.dvrHours,
          distribution: options.distribution,
        });
        return;
      }
      const { runUp } = await import('./up.ts');
      const why = await runUp({
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
      endAs(why);
    });
}

/** The coordinator had a node end so that its supervisor starts it again. */
class RestartWanted extends Error {}

interface RoleOptions {
  readonly config?: string;
  readonly join?: string;
  readonly name?: string;
  readonly advertise?: string;
  readonly host?: string;
  readonly http: number;
  readonly https: number;
  readonly rtmp: number;
  readonly rtmps: number;
  readonly workers?: number;
  readonly trustedProxy?: string[];
  readonly dvrHours: number;
  readonly names: string[];
  readonly check?: true;
}

async function runRoleCommand(
  role: Role,
  settings: RoleSettings,
  { workers }: RoleOptions,
  { io }: CommandContext,
): Promise<void> {
  // Loaded here, because the other commands do not need the servers.
  const { runRole } = await import('./role.ts');
  const why = await runRole(role, settings, { workers, readJoinToken: () => readJoinToken(io) });
  endAs(why);
}

/** @throws RestartWanted or CommandError, where the process is to end with a code that says so */
function endAs(why: 'stopped' | 'restart' | 'removed'): void {
  if (why === 'restart') throw new RestartWanted();
  if (why === 'removed') throw new CommandError('This node was removed from the network, and has ended.');
}

/** From the environment, from a file that it names, or from whoever sits there. */
async function readJoinToken({ env, readSecret }: Io): Promise<string> {
  const { STARLING_JOIN_TOKEN: token, STARLING_JOIN_TOKEN_FILE: path } = env;
  if (token !== undefined && token !== '') return token;
  if (path === undefined || path === '') return readSecret('Join token: ');
  try {
    // A host of a group has the token that nodes share there, which may have an older one behind it.
    return currentSecret(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new CommandError(`${path} cannot be read: ${error instanceof Error ? error.message : error}`);
  }
}

/** @throws CommandError unless there is either a file or a coordinator to join */
function settingsOf(
  role: Role,
  options: RoleOptions,
  { io, dataDir }: CommandContext,
  makeConfig: (shared: { coordinator: NodeCoordinator; dataDir: string }) => StarlingConfig,
): RoleSettings {
  const { config, join: url, name, advertise, host } = options;
  if ((config === undefined) === (url === undefined))
    throw new CommandError(`Say either --config FILE or --join URL. See: starling ${role} --help`);
  if (url === undefined) return { path: config ?? '' };
  if (!URL.canParse(url))
    throw new CommandError(`${url} is no address of a coordinator, such as http://10.0.0.5:8080.`);
  // Who listens on one address only is to be reached there.
  const advertised =
    advertise ?? (host === undefined || isIP(host) === 0 || /^[0.:]+$/.test(host) ? undefined : host);
  const coordinator = {
    url,
    ...(name === undefined ? {} : { name }),
    ...(advertised === undefined ? {} : { advertise: advertised }),
  };
  return { config: makeConfig({ coordinator, dataDir: dataDir() }), cwd: io.cwd };
}

/** For a role that can be a node. */
function addJoinOptions(command: Command, role: Role): void {
  command
    .option('--config <file>', `configuration file with a section "${role}"`)
    .option(
      '--join <url>',
      'address of the coordinator: be a node of its network. The first time it asks for the token of the invitation, or takes it from $STARLING_JOIN_TOKEN or the file $STARLING_JOIN_TOKEN_FILE. What is kept lies in the data folder',
    )
    .option('--name <name>', 'of the node, where its invitation names none (default: after the machine)')
    .option(
      '--advertise <host>',
      'where the other nodes reach this machine (default: its address towards the coordinator)',
    )
    .option('--host <address>', 'address to listen on, with --join (default: all)');
}

function addRoleCommand(program: Command, context: CommandContext, role: Role, description: string): void {
  const command = program.command(role).description(description);
  if (role === 'coordinator') {
    command
      .requiredOption('--config <file>', `configuration file with a section "${role}"`)
      .addHelpText('after', examples(`starling ${role} --config starling.yaml`))
      .action((options: RoleOptions) =>
        runRoleCommand(role, { path: options.config ?? '' }, options, context),
      );
    return;
  }
  addJoinOptions(command, role);
  command.addHelpText(
    'after',
    examples(`starling ${role} --join http://10.0.0.5:8080`, `starling ${role} --config starling.yaml`),
  );
  const listen = (host: string | undefined, port: number) => (host === undefined ? { port } : { host, port });
  if (role === 'frontend') {
    command
      .option('--http <port>', 'for viewers, with --join', parsePort, DEFAULT_HTTP_PORT)
      .option('--rtmp <port>', 'where backends push to, with --join', parsePort, DEFAULT_PUSH_PORT)
      .option('--workers <n>', 'processes that serve viewers (default: 1, or as the file says)', parseWorkers)
      .option('--trusted-proxy <cidr...>', 'balancers in front that are no nodes, with --join')
      .option(
        '--dvr-hours <hours>',
        'how far back viewers can go, with --join; 0 records nothing',
        parseHours,
        DEFAULT_DVR_HOURS,
      )
      .action((options: RoleOptions) => {
        const { host, http, rtmp, trustedProxy: trustedProxies = [], dvrHours } = options;
        const settings = settingsOf(role, options, context, ({ coordinator, dataDir }) => ({
          frontend: {
            http: { ...listen(host, http), trustedProxies },
            rtmp: listen(host, rtmp),
            coordinator,
            dataDir,
            ...(dvrHours === 0 ? {} : { dvr: { dir: join(dataDir, 'dvr'), hours: dvrHours } }),
          },
        }));
        return runRoleCommand(role, settings, options, context);
      });
  } else {
    command
      .option('--rtmp <port>', 'for encoders, with --join', parsePort, DEFAULT_RTMP_PORT)
      .option('--rtmps <port>', 'for encoders that use TLS, with --join', parsePort, DEFAULT_RTMPS_PORT)
      .action((options: RoleOptions) => {
        const { host, rtmp, rtmps } = options;
        const settings = settingsOf(role, options, context, ({ coordinator, dataDir }) => ({
          backend: {
            rtmp: listen(host, rtmp),
            rtmps: { port: rtmps },
            coordinator,
            dataDir,
          },
        }));
        return runRoleCommand(role, settings, options, context);
      });
  }
}

function addBalancerCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('balancer')
    .description('Keep nginx in front of the fleet: TLS, certificates, health, cache.');
  addJoinOptions(command, 'balancer');
  command
    .option('--names <host...>', 'that are served, with --join', ['localhost'])
    .option('--http <port>', 'that sends viewers on to HTTPS, with --join', parsePort, 80)
    .option('--https <port>', 'for viewers, with --join', parsePort, 443)
    .option('--rtmp <port>', 'handed on to the backends, with --join', parsePort, DEFAULT_RTMP_PORT)
    .option('--rtmps <port>', 'handed on to the backends, with --join', parsePort, DEFAULT_RTMPS_PORT)
    .option('--check', "print nginx's configuration and grade it, and start nothing; with --config")
    .addHelpText(
      'after',
      examples(
        'starling balancer --join http://10.0.0.5:8080 --names tv.example.org',
        'starling balancer --config starling.yaml',
        'starling balancer --config starling.yaml --check',
      ),
    )
    .action(async (options: RoleOptions) => {
      const { host, names, http, https, rtmp, rtmps, config, join: url = '' } = options;
      if (options.check === true) {
        if (config === undefined) throw new CommandError('--check needs --config FILE.');
        const { checkBalancerRole } = await import('./role.ts');
        if (await checkBalancerRole(config, context.wantsJson())) return;
        throw new CommandError('The balancer is not fit to run: see what failed above.');
      }
      const listen = (port: number) => (host === undefined ? { port } : { host, port });
      const settings = settingsOf('balancer', options, context, ({ coordinator, dataDir }) => {
        const { hostname, port, protocol } = new URL(url);
        return {
          balancer: {
            ...{ dataDir, names, coordinator },
            http: listen(http),
            https: listen(https),
            rtmp: listen(rtmp),
            rtmps: listen(rtmps),
            site: {
              host: hostname.replace(/^\[|\]$/g, ''),
              port: Number(port || (protocol === 'https:' ? 443 : 80)),
            },
          },
        };
      });
      return runRoleCommand('balancer', settings, options, context);
    });
}

function parseNodes(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > MAX_NODES)
    throw new InvalidArgumentError(`It is a number from 1 to ${MAX_NODES}.`);
  return count;
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
