/**
 * The connection to AWS: one client per service, and one place through which every call goes. There a dry run prints
 * what it would have changed, an interruption is noticed, and an error of AWS becomes one sentence.
 *
 * Region and credentials come from the SDK's default chain: environment, shared files, SSO, the instance's role.
 */
import type { AutoScaling } from '@aws-sdk/client-auto-scaling';
import type { CloudFormation } from '@aws-sdk/client-cloudformation';
import type { EC2, EC2ClientConfig } from '@aws-sdk/client-ec2';
import type { ECS } from '@aws-sdk/client-ecs';
import type { ElastiCache } from '@aws-sdk/client-elasticache';
import type { RDS } from '@aws-sdk/client-rds';
import type { ResourceGroupsTaggingAPI } from '@aws-sdk/client-resource-groups-tagging-api';
import type { S3 } from '@aws-sdk/client-s3';
import type { Scheduler } from '@aws-sdk/client-scheduler';
import { OperateError } from './error.ts';

/** What is told while work goes on. */
export type Progress =
  /** Something begins, or is worth knowing. */
  | { readonly kind: 'step' | 'note'; readonly text: string }
  /** A call that a dry run did not make. */
  | { readonly kind: 'call'; readonly service: string; readonly call: string; readonly input: unknown }
  /** Called again and again while something is waited for. */
  | {
      readonly kind: 'wait';
      readonly label: string;
      readonly elapsedMs: number;
      readonly deadlineMs: number;
    };

export interface Clock {
  nowMs(): number;
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export interface AwsOptions {
  /** In place of the default chain's. */
  readonly region?: string | undefined;
  /** Reads, but prints each call that would change something in place of making it. */
  readonly dryRun?: boolean | undefined;
  readonly signal: AbortSignal;
  readonly report: (progress: Progress) => void;
  readonly clock?: Clock;
  /** Where a test's AWS is, and how patient the SDK is with it. */
  readonly client?: Pick<EC2ClientConfig, 'endpoint' | 'credentials' | 'maxAttempts'>;
}

export interface Aws {
  readonly region: string;
  readonly dryRun: boolean;
  readonly clock: Clock;
  readonly report: (progress: Progress) => void;
  readonly autoScaling: AutoScaling;
  readonly cloudFormation: CloudFormation;
  readonly ec2: EC2;
  readonly ecs: ECS;
  readonly elastiCache: ElastiCache;
  readonly rds: RDS;
  readonly scheduler: Scheduler;
  readonly tagging: ResourceGroupsTaggingAPI;
  /** Loaded when it is asked for: only long templates need it. */
  s3(): Promise<S3>;
  /** The same account elsewhere. */
  inRegion(region: string): Promise<Aws>;
  /**
   * Asks until `isDone`, with growing pauses. A dry run asks nothing.
   * @param ask may act, too
   * @returns what was asked last
   * @throws OperateError DEADLINE, with what `describe` says of the last answer
   */
  waitFor<T>(
    ask: () => Promise<T>,
    isDone: (answer: T) => boolean,
    how: { describe(answer: T): string; deadlineMs: number },
  ): Promise<T>;
}

const FIRST_PAUSE_MS = 3000;
const MAX_PAUSE_MS = 20_000;
const CALL_DEADLINE_MS = 30_000;
const MAX_ATTEMPTS = 6;

/** Loads the SDK, which takes a quarter of a second: only commands that talk to AWS call this. */
export async function openAws(options: AwsOptions): Promise<Aws> {
  // It would tell every user of Node 20, at every command, about versions of the SDK that are not the pinned ones.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
  const [autoScaling, cloudFormation, ec2, ecs, elastiCache, rds, tagging, scheduler] = await Promise.all([
    import('@aws-sdk/client-auto-scaling'),
    import('@aws-sdk/client-cloudformation'),
    import('@aws-sdk/client-ec2'),
    import('@aws-sdk/client-ecs'),
    import('@aws-sdk/client-elasticache'),
    import('@aws-sdk/client-rds'),
    import('@aws-sdk/client-resource-groups-tagging-api'),
    import('@aws-sdk/client-scheduler'),
  ]);
  const config = {
    ...(options.region === undefined ? {} : { region: options.region }),
    maxAttempts: MAX_ATTEMPTS,
    requestHandler: {
      connectionTimeout: 10_000,
      requestTimeout: CALL_DEADLINE_MS,
      throwOnRequestTimeout: true,
    },
    ...options.client,
  };
  const clock = options.clock ?? systemClock;
  const clients = {
    autoScaling: new autoScaling.AutoScaling(config),
    cloudFormation: new cloudFormation.CloudFormation(config),
    ec2: new ec2.EC2(config),
    ecs: new ecs.ECS(config),
    elastiCache: new elastiCache.ElastiCache(config),
    rds: new rds.RDS(config),
    tagging: new tagging.ResourceGroupsTaggingAPI(config),
    scheduler: new scheduler.Scheduler(config),
  };
  for (const client of Object.values(clients)) watchCalls(client, options);

  return {
    ...clients,
    region: await clients.ec2.config.region().catch((error: unknown) => {
      throw explained(error, 'config', 'region');
    }),
    dryRun: options.dryRun === true,
    clock,
    report: options.report,
    async s3() {
      const { S3 } = await import('@aws-sdk/client-s3');
      const client = new S3(config);
      watchCalls(client, options);
      return client;
    },
    inRegion: (region) => openAws({ ...options, region }),
    async waitFor(ask, isDone, { describe, deadlineMs }) {
      const startedMs = clock.nowMs();
      let pauseMs = FIRST_PAUSE_MS;
      for (;;) {
        const answer = await ask();
        if (isDone(answer) || options.dryRun === true) return answer;
        const elapsedMs = clock.nowMs() - startedMs;
        const label = describe(answer);
        if (elapsedMs >= deadlineMs) {
          throw new OperateError(
            'DEADLINE',
            `After ${Math.round(deadlineMs / 60_000)} minutes AWS is not there yet (${label}). Run the same command again: it goes on from here.`,
          );
        }
        options.report({ kind: 'wait', label, elapsedMs, deadlineMs });
        await clock.sleep(pauseMs * (0.8 + 0.4 * Math.random()), options.signal);
        throwIfInterrupted(options.signal);
        pauseMs = Math.min(pauseMs * 1.3, MAX_PAUSE_MS);
      }
    },
  };
}

const systemClock: Clock = {
  nowMs: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      if (signal.aborted) done();
      else signal.addEventListener('abort', done);
    }),
};

function throwIfInterrupted(signal: AbortSignal): void {
  if (signal.aborted)
    throw new OperateError(
      'INTERRUPTED',
      'Stopped half-way. Run the same command again: it goes on from here.',
    );
}

type AnyClient = Pick<EC2, 'middlewareStack'>;

function watchCalls(client: unknown, { dryRun, signal, report }: AwsOptions): void {
  (client as AnyClient).middlewareStack.add(
    (next, context) => async (args) => {
      const service = (context.clientName ?? '').replace(/Client$/, '');
      const call = (context.commandName ?? '').replace(/Command$/, '');
      throwIfInterrupted(signal);
      if (dryRun === true && !/^(Describe|Get|List)/.test(call)) {
        report({ kind: 'call', service, call, input: args.input });
        return { output: { $metadata: {} }, response: undefined };
      }
      try {
        return await next(args);
      } catch (error) {
        throw explained(error, service, call);
      }
    },
    { step: 'initialize', name: 'starlingCalls' },
  );
}

/** The name that AWS gives an error, which callers that expect one look at. */
export function awsErrorName(error: unknown): string | undefined {
  const cause = error instanceof OperateError ? error.cause : error;
  return cause instanceof Error ? cause.name : undefined;
}

/** Whether AWS refused a call because what it names does not exist. */
export function isMissing(error: unknown): boolean {
  return /NotFound|NotFoundFault|NotFoundException|Missing$/.test(awsErrorName(error) ?? '');
}

const patterns: readonly [RegExp, (what: string, message: string) => OperateError][] = [
  [
    /^(CredentialsProviderError|TokenProviderError)$/,
    (_what, message) =>
      new OperateError(
        'AWS_NO_CREDENTIALS',
        `There are no AWS credentials (${message}): run \`aws configure sso\` and \`aws sso login\`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and try again.`,
      ),
  ],
  [
    /^(InvalidClientTokenId|UnrecognizedClient|AuthFailure|SignatureDoesNotMatch|ExpiredToken|RequestExpired|InvalidSignature|IncompleteSignature|MissingAuthenticationToken|OptInRequired)/,
    (what, message) =>
      new OperateError(
        'AWS_CREDENTIALS_REFUSED',
        `AWS does not take the credentials (${what}: ${message}): log in again, for instance with \`aws sso login\`, and check the clock of this machine.`,
      ),
  ],
  [
    /AccessDenied|UnauthorizedOperation|NotAuthorized|AuthorizationError|Forbidden/i,
    (what, message) =>
      new OperateError(
        'AWS_DENIED',
        `These AWS credentials may not call ${what} (${message}): have it allowed, as docs/deploy.md lists, and run the same command again.`,
      ),
  ],
  [
    /Throttl|RequestLimitExceeded|TooManyRequests|SlowDown|RequestThrottled|Bandwidth/,
    (what) =>
      new OperateError(
        'AWS_THROTTLED',
        `AWS gets too many requests from this account and refused ${what} several times over: wait a minute and run the same command again, which goes on from here.`,
      ),
  ],
  [
    /InsufficientInstanceCapacity|InsufficientCapacity|InstanceLimitExceeded|VcpuLimitExceeded|QuotaExceeded|InsufficientDBInstanceCapacity/,
    (what, message) =>
      new OperateError(
        'AWS_NO_CAPACITY',
        `AWS has no room for it (${what}: ${message}): run the same command again later, or change the instance type in the deployment file.`,
      ),
  ],
];

/** @param service as the SDK names it; with `call`, what the operator may have to be allowed */
function explained(error: unknown, service: string, call: string): unknown {
  if (error instanceof OperateError) return error;
  const { name, message, code, status } = facts(error);
  const what = `${service.toLowerCase()}:${call}`;
  const text = message.replace(/\s+/g, ' ').replace(/[.\s]+$/, '');
  for (const [pattern, make] of patterns) {
    if (!pattern.test(name)) continue;
    const found = make(what, text);
    return new OperateError(found.code, found.message, { cause: error });
  }
  if (/Region is missing/.test(text)) {
    return new OperateError(
      'AWS_NO_REGION',
      'No AWS region is set: add --region eu-west-1, or set AWS_REGION, and try again.',
      { cause: error },
    );
  }
  if (code !== undefined || /Timeout/.test(name) || (status ?? 0) >= 500) {
    return new OperateError(
      'AWS_UNREACHABLE',
      `AWS did not answer ${what} (${text || code || name}): check the connection and https://health.aws.amazon.com, and run the same command again, which goes on from here.`,
      { cause: error },
    );
  }
  // Not of AWS, but a mistake of ours.
  if (status === undefined) return error;
  return new OperateError('AWS_REFUSED', `AWS refused ${what}: ${text} (${name}).`, { cause: error });
}

function facts(error: unknown): { name: string; message: string; code?: string; status?: number } {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const { code, $metadata } = error as { code?: unknown; $metadata?: { httpStatusCode?: number } };
  return {
    name: error.name,
    message: error.message,
    // Of the socket; services put their own codes into `name` (and into `Code`).
    ...(typeof code === 'string' && /^(E[A-Z]+|UND_ERR\w*)$/.test(code) ? { code } : {}),
    ...($metadata?.httpStatusCode === undefined ? {} : { status: $metadata.httpStatusCode }),
  };
}
