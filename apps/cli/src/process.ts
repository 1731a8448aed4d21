/** What every long-running command of ours does as a process: log, health, start errors, a clean end. */
import { existsSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BackupError } from '@starling/coordinator/backup-error';
import { DataFolderError } from '@starling/coordinator/data-folder-lock';
import { DatabaseUnavailable } from '@starling/coordinator/database';
import { MailError } from '@starling/coordinator/mail';
import { LOOPBACK } from '@starling/net/address-limits';
import type { HttpOptions } from '@starling/net/http-server';
import { type Logger, pino } from 'pino';
import pinoPretty from 'pino-pretty';
import { Counter, collectDefaultMetrics, Registry } from 'prom-client';
import type { LogShipper } from './log-shipper.ts';

/** A reason not to start, in one sentence that says what to do. */
export class StartError extends Error {}

/** From the signal to the end; a supervisor waits about ten seconds before it kills. */
const STOP_DEADLINE_MS = 4500;

/** How a process ends that is to be started again: EX_TEMPFAIL of sysexits(3). Supervisors restart on it. */
export const RESTART_EXIT_CODE = 75;

/**
 * Waits for SIGINT or SIGTERM, then closes; a part that does not stop in time does not hold up the end.
 * @param ended settles where it is to end for another reason
 * @param leave what comes first after a signal, and has a deadline of its own; a second signal ends the process at once
 * @returns that reason, or `stopped`
 */
export function runUntilStopped<Reason = never>(
  close: () => Promise<void>,
  logger: Logger,
  ended?: Promise<Reason>,
  leave?: () => Promise<void>,
): Promise<Reason | 'stopped'> {
  return new Promise((resolve) => {
    let isStopping = false;
    const stop = (reason: Reason | 'stopped', exitCode: number) => {
      process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
      if (isStopping) return;
      isStopping = true;
      setTimeout(() => {
        logger.error('a part did not stop in time; ending anyway');
        process.exit(exitCode);
      }, STOP_DEADLINE_MS).unref();
      close().then(
        () => resolve(reason),
        (error: unknown) => {
          logger.error({ err: error }, 'stopping failed');
          process.exit(exitCode);
        },
      );
    };
    const onSignal = async (signal: NodeJS.Signals) => {
      logger.info({ signal }, 'stopping');
      process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
      await leave?.();
      stop('stopped', 1);
    };
    process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
    void ended?.then((reason) => stop(reason, RESTART_EXIT_CODE));
  });
}

/**
 * Answers `/healthz` (the process is alive), `/readyz` (it can serve) and `/metrics` (Prometheus).
 * @returns false when the request is for something else
 */
export function answerHealth(
  request: IncomingMessage,
  response: ServerResponse,
  { isReady, metrics }: { isReady: () => boolean; metrics: () => Promise<string> },
): boolean {
  const answer = (status: number, text: string, type = 'text/plain; charset=utf-8') => {
    response.writeHead(status, { 'Content-Type': type, 'Cache-Control': 'no-store' });
    response.end(text);
  };
  switch ((request.url ?? '').split('?', 1)[0]) {
    case '/healthz':
      answer(200, 'alive\n');
      return true;
    case '/readyz':
      if (isReady()) answer(200, 'ready\n');
      else answer(503, 'starting\n');
      return true;
    case '/metrics':
      metrics().then(
        (text) => answer(200, text, Registry.PROMETHEUS_CONTENT_TYPE),
        () => answer(500, 'the metrics could not be collected\n'),
      );
      return true;
    default:
      return false;
  }
}

export function openRegistry(): Registry {
  const registry = new Registry();
  // The default looks at the event loop a hundred times a second, which costs more than an idle channel.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 200 });
  return registry;
}

/** Of an HTTP port that faces the world. */
export interface HttpSettings {
  /** The address to listen on; all of them when undefined. */
  readonly host?: string | undefined;
  /** 0 takes a free port. */
  readonly port: number;
  /** CIDR blocks of balancers, beside loopback. */
  readonly trustedProxies?: readonly string[];
  readonly maxConnectionsPerAddress?: number;
  readonly maxRequestsPerSecondPerAddress?: number;
}

/** What an HTTP port is opened with: refusals are counted. */
export function httpOptions(registry: Registry, settings: HttpSettings): HttpOptions {
  const { trustedProxies = [], maxConnectionsPerAddress, maxRequestsPerSecondPerAddress } = settings;
  const refused = new Counter({
    name: 'starling_http_refused_total',
    help: 'HTTP connections and requests beyond what one address may have',
    labelNames: ['reason'],
    registers: [registry],
  });
  return {
    trustedProxies: [...LOOPBACK, ...trustedProxies],
    onRefused: (reason) => refused.inc({ reason }),
    limits: {
      ...(maxConnectionsPerAddress === undefined ? {} : { maxConnectionsPerAddress }),
      ...(maxRequestsPerSecondPerAddress === undefined ? {} : { maxRequestsPerSecondPerAddress }),
    },
  };
}

/**
 * A port that cannot be opened, as a sentence.
 * @param remedy what chooses another port, for instance `--http PORT`
 * @returns a {@link StartError}, or the error itself where it is of another kind
 */
export function asStartError(error: unknown, port: number, remedy: string): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'EADDRINUSE') {
    return new StartError(`Port ${port} is in use by another program. Choose another one with ${remedy}.`);
  }
  if (code === 'EACCES') {
    return new StartError(`This account may not open port ${port}. Choose one above 1023 with ${remedy}.`);
  }
  return error;
}

/** The servers that the coordinator keeps its things on and sends e-mails through, which only the environment names: all have passwords. */
export function storageServers(env: Readonly<Record<string, string | undefined>>): {
  readonly databaseUrl: string | undefined;
  readonly redisUrl: string | undefined;
  readonly smtpUrl: string | undefined;
} {
  return {
    databaseUrl: env.DATABASE_URL || undefined,
    redisUrl: env.REDIS_URL || undefined,
    smtpUrl: env.SMTP_URL || undefined,
  };
}

/** @throws StartError when the coordinator's storage cannot be used; the error itself where it is of another kind */
export function explainStorage(error: unknown): never {
  const isKnown = [BackupError, DataFolderError, DatabaseUnavailable, MailError].some(
    (kind) => error instanceof kind,
  );
  throw isKnown && error instanceof Error ? new StartError(error.message, { cause: error }) : error;
}

/** The program of a frontend's worker, beside this one. */
export function workerProgram(): string {
  return join(dirname(fileURLToPath(import.meta.url)), 'frontend-worker.js');
}

/** The built site, beside the program in a checkout. */
export function findSite(): string | undefined {
  const here = dirname(fileURLToPath(import.meta.url));
  const site = join(here, '..', 'apps', 'web', 'dist');
  return existsSync(site) ? site : undefined;
}

/**
 * Lines for people on a terminal, JSON for machines; on standard error, as standard output carries the results.
 * @param logShipper gets the lines, too
 */
export function openLog(logShipper?: LogShipper, sink = openLogSink()): Logger {
  const level = process.env.STARLING_LOG_LEVEL ?? 'info';
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  if (logShipper === undefined) return pino(options, sink);
  // The logger has the level; its outputs take what comes.
  const streams = [sink, logShipper].map((stream) => ({ level: 'trace' as const, stream }));
  return pino(options, pino.multistream(streams));
}

/** Where the log goes, for one line of JSON at a time. */
export function openLogSink(): { write(line: string): void } {
  if (!process.stderr.isTTY) return pino.destination({ fd: 2, sync: true });
  return pinoPretty({ destination: 2, sync: true, translateTime: 'SYS:HH:MM:ss', ignore: 'pid,hostname' });
}

/** What the first start says of the account that it made: the password is shown this once, and can be used once. */
export function firstAccountText(
  account: { readonly name: string; readonly password: string } | undefined,
): string {
  if (account === undefined) return '';
  const { name, password } = account;
  return `  To log in for the first time: name ${name}, password ${password}
  The password is shown this once, and has to be replaced. Another one: npx starling account password ${name}\n\n`;
}
