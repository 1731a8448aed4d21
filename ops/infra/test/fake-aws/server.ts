/** The fake AWS as a server on loopback: for the SDK, for awscli, for whoever speaks AWS. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { Cloud } from './cloud.ts';
import { cloudFormation } from './cloudformation.ts';
import { type Buckets, s3 } from './s3.ts';
import { type Callable, scheduler } from './scheduler.ts';
import { autoScaling, ec2, ecs, elastiCache, type Handlers, rds, tagging } from './services.ts';
import { AwsError, type Response, Wire } from './wire.ts';

export interface RecordedCall {
  /** As in a policy of IAM: `ec2:StopInstances`. */
  readonly call: string;
  readonly input: Readonly<Record<string, unknown>>;
}

/** By the name that requests are signed for: folder of the description in botocore. */
const folders = {
  ec2: 'ec2',
  autoscaling: 'autoscaling',
  ecs: 'ecs',
  rds: 'rds',
  elasticache: 'elasticache',
  tagging: 'resourcegroupstaggingapi',
  scheduler: 'scheduler',
  cloudformation: 'cloudformation',
  s3: 's3',
} as const;
type ServiceName = keyof typeof folders;

let wires: Record<ServiceName, Wire> | undefined;

/** Read once: EC2's alone is 1.3 MB. */
function loadWires(): Record<ServiceName, Wire> {
  wires ??= Object.fromEntries(
    Object.entries(folders).map(([service, folder]) => [service, new Wire(folder)]),
  ) as Record<ServiceName, Wire>;
  return wires;
}

/** What each protocol's services call it when there are too many requests, and when one is not allowed. */
const refusals: Record<ServiceName, { throttled: string; denied: string }> = {
  ec2: { throttled: 'RequestLimitExceeded', denied: 'UnauthorizedOperation' },
  autoscaling: { throttled: 'Throttling', denied: 'AccessDenied' },
  ecs: { throttled: 'ThrottlingException', denied: 'AccessDeniedException' },
  rds: { throttled: 'Throttling', denied: 'AccessDenied' },
  elasticache: { throttled: 'Throttling', denied: 'AccessDenied' },
  tagging: { throttled: 'ThrottledException', denied: 'AccessDeniedException' },
  scheduler: { throttled: 'ThrottlingException', denied: 'AccessDeniedException' },
  cloudformation: { throttled: 'Throttling', denied: 'AccessDenied' },
  s3: { throttled: 'SlowDown', denied: 'AccessDenied' },
};

export class FakeAws {
  /** By region. */
  readonly clouds = new Map<string, Cloud>();
  /** Of all regions: their names are the world's. */
  readonly buckets: Buckets = new Map();
  readonly calls: RecordedCall[] = [];
  /** Calls that are not allowed, as `ec2:StopInstances`. */
  readonly denied = new Set<string>();
  /** How many times more a call is refused because there are too many. */
  readonly throttled = new Map<string, number>();
  /**
   * Where the client is killed: the connection drops at the call of that number, from 0, and at every one after it.
   * `isDone`: after the call had its effect.
   */
  cut: { readonly atCall: number; readonly isDone: boolean } | undefined;
  readonly #server: Server;
  readonly #handlers = new Map<string, Record<ServiceName, Handlers>>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<FakeAws> {
    const server = createServer();
    const fake = new FakeAws(server);
    loadWires();
    server.on('request', (request, response) => void fake.#answer(request, response));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return fake;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  cloud(region = 'eu-west-1'): Cloud {
    let cloud = this.clouds.get(region);
    if (cloud === undefined) {
      cloud = new Cloud(region);
      this.clouds.set(region, cloud);
      this.#handlers.set(region, handlersOf(cloud, this.buckets));
    }
    return cloud;
  }

  /** Of all regions. */
  advance(ms: number): void {
    for (const cloud of this.clouds.values()) cloud.advance(ms);
  }

  /** The calls that change something. */
  get mutations(): RecordedCall[] {
    return this.calls.filter(({ call }) => !/:(Describe|Get|List)/.test(call));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    const scope =
      /Credential=[^/]+\/\d+\/([^/]+)\/([^/]+)\//.exec(String(request.headers.authorization)) ?? [];
    const [, region = '', service = ''] = scope;
    const wire = loadWires()[service as ServiceName];
    if (wire === undefined) {
      response.writeHead(404).end(`no service ${service}`);
      return;
    }
    this.cloud(region);
    let answer: Response;
    try {
      const { method = '', url = '', headers } = request;
      const { operation, input } = wire.read({ method, url, headers, body });
      const call = `${service}:${operation}`;
      const number = this.calls.push({ call, input }) - 1;
      const isCut = this.cut !== undefined && number >= this.cut.atCall;
      if (isCut && (!this.cut?.isDone || number > this.cut.atCall)) return void request.socket.destroy();
      const output = this.#act(region, service as ServiceName, operation, input);
      if (isCut) return void request.socket.destroy();
      answer = wire.write(operation, output);
    } catch (error) {
      if (error instanceof AwsError) answer = wire.writeError(error);
      else {
        console.error(error);
        answer = { status: 500, headers: {}, body: String(error) };
      }
    }
    response.writeHead(answer.status, answer.headers).end(answer.body);
  }

  #act(region: string, service: ServiceName, operation: string, input: Record<string, unknown>): object {
    const call = `${service}:${operation}`;
    const left = this.throttled.get(call) ?? 0;
    if (left > 0) {
      this.throttled.set(call, left - 1);
      throw new AwsError(refusals[service].throttled, 'Rate exceeded', service === 'ec2' ? 503 : 400);
    }
    if (this.denied.has(call)) {
      const who = 'arn:aws:iam::123456789012:user/anna';
      throw new AwsError(refusals[service].denied, `User: ${who} is not authorized to perform: ${call}`, 403);
    }
    const handler = this.#handlers.get(region)?.[service][operation];
    if (handler === undefined) throw new AwsError('InvalidAction', `${call} is not modelled`);
    return handler(input as never);
  }
}

function handlersOf(cloud: Cloud, buckets: Buckets): Record<ServiceName, Handlers> {
  const all = loadWires();
  const own = { ec2: ec2(cloud), autoscaling: autoScaling(cloud), ecs: ecs(cloud), rds: rds(cloud) };
  const callable = Object.fromEntries(
    Object.entries(own).map(([name, handlers]) => [name, { wire: all[name as ServiceName], handlers }]),
  ) as Record<string, Callable>;
  return {
    ...own,
    elasticache: elastiCache(cloud),
    tagging: tagging(cloud),
    scheduler: scheduler(cloud, callable),
    cloudformation: cloudFormation(cloud, buckets),
    s3: s3(buckets, cloud.region),
  };
}
