/**
 * The plan: what a deployment consists of, with every address, rule, route, size and text decided. It is plain data.
 * Emitters translate each resource by its kind and decide nothing; what they need is here, or it is a fault here.
 *
 * - A resource has an `id` that stays the same from run to run (`FrontendsSubnetA`): the logical id in CloudFormation,
 *   in snake case the name in Terraform. Fields that are named for another resource hold its id.
 * - Texts of type {@link Template} may hold `${Id.attribute}`; {@link templateParts} takes them apart.
 * - `stack` is `edge` for what AWS takes in us-east-1 only (the CDN's certificate and firewall, the zone and its key).
 */
import type { StarlingConfig } from '../config.ts';
import type { Deployment } from './deployment.ts';
import { TopologyError } from './error.ts';
import type { Price } from './price.ts';

export interface Plan {
  readonly format: 1;
  readonly deployment: Deployment;
  /** The availability zones, `us-east-1a`; a subnet's `zone` is one of them. */
  readonly zones: readonly string[];
  readonly resources: readonly Resource[];
  /** What runs where. */
  readonly placement: Placement;
  /** Usage that no resource has by itself, such as log gigabytes. */
  readonly usage: readonly Price[];
  /** What the operator gets to see when it is deployed, by name. */
  readonly outputs: Readonly<Record<string, { readonly value: Template; readonly description: string }>>;
}

/** The way in and out: which resources carry it, and the addresses that people use. */
export interface Placement {
  /** Ids of instances, groups or services. */
  readonly ingest: readonly string[];
  readonly playout: readonly string[];
  readonly frontends: readonly string[];
  readonly coordinators: readonly string[];
  /** `https://watch.example.org/` */
  readonly watchUrl: string;
  /** For encoders outside; null where only the operator's SSH tunnel leads in. */
  readonly ingestUrl: string | null;
  /** A sentence each on why things are where they are. */
  readonly reasons: readonly string[];
}

/** Text with `${Id.attribute}` in it; `$${` stands for `${` itself. */
export type Template = string;

/** What a template may ask of a resource; `AWS` has `region`, `account` and `partition`. */
export const attributes = [
  'arn', 'id', 'name', 'endpoint', 'readerEndpoint', 'port', 'dnsName', 'hostedZoneId', 'publicIp', 'privateIp',
  'secretArn', 'nameServers', 'domainName', 'region', 'account', 'partition', 'fullName', 'uri', 'dsRecord',
] as const; // biome-ignore format: a list
export type Attribute = (typeof attributes)[number];

export type TemplatePart = string | { readonly id: string; readonly attribute: Attribute };

/**
 * Takes a template apart.
 * @throws TopologyError PLAN_TEMPLATE for an attribute that does not exist
 */
export function templateParts(text: Template): TemplatePart[] {
  const parts: TemplatePart[] = [];
  let plain = '';
  for (const piece of text.split(/(\$\$\{|\$\{[^}]*\})/)) {
    const [, id, attribute] = /^\$\{([A-Za-z0-9]+)\.([A-Za-z]+)\}$/.exec(piece) ?? [];
    if (piece === '$${') plain += '${';
    else if (!piece.startsWith('${')) plain += piece;
    else if (id === undefined || !attributes.includes(attribute as Attribute)) {
      throw new TopologyError(
        'PLAN_TEMPLATE',
        `${piece} is not \${Id.attribute} with one of ${attributes.join(', ')}.`,
      );
    } else {
      if (plain !== '') parts.push(plain);
      plain = '';
      parts.push({ id, attribute: attribute as Attribute });
    }
  }
  if (plain !== '') parts.push(plain);
  return parts;
}

/** A template that is one attribute of a resource. */
export function ref(id: string, attribute: Attribute): Template {
  return `\${${id}.${attribute}}`;
}

/** What pausing does with a resource, in this order; resuming goes backwards. */
export type PauseKind =
  /** Its sizes become 0. Members are never stopped one by one: the group would replace them. */
  | 'group-to-zero'
  /** The desired count becomes 0. */
  | 'service-to-zero'
  | 'stop-instance'
  /** MediaLive: billed by the hour while it runs. */
  | 'stop-channel'
  /** RDS starts it again after seven days; it has to be stopped again. */
  | 'stop-database'
  | 'stop-cluster'
  /** Cannot be stopped; stays, and costs what it costs. */
  | 'keeps-running';

interface Common {
  readonly id: string;
  readonly stack: 'main' | 'edge';
  /** For what it is there: one line for people. */
  readonly purpose: string;
  /** `Name`, `starling:deployment`, `starling:profile`, and `starling:role` where it has one. */
  readonly tags: Readonly<Record<string, string>>;
  readonly prices: readonly Price[];
  /** Null for what costs nothing, or the same, whether it is paused or not. */
  readonly pause: PauseKind | null;
}

// Network

export interface Vpc extends Common {
  readonly kind: 'vpc';
  readonly cidr: string;
}
export interface InternetGateway extends Common {
  readonly kind: 'internet-gateway';
  readonly vpc: string;
}
export interface Subnet extends Common {
  readonly kind: 'subnet';
  readonly vpc: string;
  readonly cidr: string;
  readonly zone: string;
  readonly tier: 'public' | 'frontends' | 'backends' | 'app' | 'data';
  /** Instances that do not say otherwise get a public address. */
  readonly givesPublicAddresses: boolean;
}
export interface RouteTable extends Common {
  readonly kind: 'route-table';
  readonly vpc: string;
  readonly subnets: readonly string[];
  /** Beside the VPC's own range, which is always local. */
  readonly routes: readonly Route[];
}
export interface Route {
  readonly id: string;
  readonly destination: string;
  readonly target: { readonly kind: 'internet-gateway' | 'interface' | 'nat-gateway'; readonly id: string };
}
export interface NatGateway extends Common {
  readonly kind: 'nat-gateway';
  readonly subnet: string;
  readonly address: string;
}
/** A public IPv4 address that stays (Elastic IP). */
export interface Address extends Common {
  readonly kind: 'address';
  /** Null for a NAT gateway's, and for one that hosts take among themselves. */
  readonly interface: string | null;
}
export interface Interface extends Common {
  readonly kind: 'interface';
  readonly subnet: string;
  readonly privateIp: string;
  readonly securityGroups: readonly string[];
  /** Off for one that forwards packets of others. */
  readonly sourceDestCheck: boolean;
  readonly instance: string;
  /** 0 is the primary one; Debian calls them ens5, ens6, ens7 on Nitro. */
  readonly deviceIndex: number;
}
export interface SecurityGroup extends Common {
  readonly kind: 'security-group';
  readonly vpc: string;
  readonly name: string;
  readonly description: string;
  readonly ingress: readonly Rule[];
  readonly egress: readonly Rule[];
}
export interface Rule {
  readonly id: string;
  readonly protocol: 'tcp' | 'udp' | 'icmp' | 'all';
  /** Both 0 for `all`; both -1 for `icmp`. */
  readonly fromPort: number;
  readonly toPort: number;
  readonly peer:
    | { readonly cidr: string }
    | { readonly securityGroup: string }
    /** AWS keeps it up to date: the addresses from which the CDN asks. */
    | { readonly prefixList: string; readonly name: string };
  readonly description: string;
}
/** Stateless: what goes out comes back by a rule of its own. */
export interface NetworkAcl extends Common {
  readonly kind: 'network-acl';
  readonly vpc: string;
  readonly subnets: readonly string[];
  readonly entries: readonly AclEntry[];
}
export interface AclEntry {
  readonly id: string;
  readonly ruleNumber: number;
  readonly direction: 'ingress' | 'egress';
  readonly action: 'allow' | 'deny';
  readonly protocol: 'tcp' | 'udp' | 'all';
  readonly fromPort: number;
  readonly toPort: number;
  readonly cidr: string;
}
/** Gateway endpoint: traffic to the service stays inside AWS, at no price. */
export interface GatewayEndpoint extends Common {
  readonly kind: 'gateway-endpoint';
  readonly vpc: string;
  readonly service: 's3' | 'dynamodb';
  readonly routeTables: readonly string[];
}
export interface FlowLog extends Common {
  readonly kind: 'flow-log';
  readonly vpc: string;
  readonly logGroup: string;
  readonly role: string;
}

// Machines

export interface KeyPair extends Common {
  readonly kind: 'key-pair';
  readonly name: string;
  /** Of `keys` in the deployment file. */
  readonly of: 'bastion' | 'instances';
  /** Null when it is to be given at deployment, as a parameter. */
  readonly publicKey: string | null;
}

/** What a host is and runs. Its files are everything that is put onto it beside the packages and the release. */
export interface Host {
  readonly hostname: string;
  readonly roles: readonly HostRole[];
  /** Of Debian 12. */
  readonly packages: readonly string[];
  /** What is in /etc/starling/starling.yaml; null on a host without a Starling process. */
  readonly config: StarlingConfig | null;
  readonly files: readonly HostFile[];
  /** Enabled and started, in this order. */
  readonly units: readonly string[];
  /** Source ranges whose packets it forwards and masquerades. */
  readonly natFor: readonly string[];
  /** By which services on the host get their secrets; the files themselves are never part of a plan. */
  readonly secretFiles: readonly SecretFile[];
}
export type HostRole = 'bastion' | 'balancer' | 'coordinator' | 'backend' | 'frontend';
export interface HostFile {
  readonly path: string;
  /** Octal, `0644`. */
  readonly mode: string;
  readonly owner: string;
  readonly group: string;
  readonly content: Template;
}
export interface SecretFile {
  readonly path: string;
  /**
   * `ansible`: brought from the operator's key folder, by name, so that all hosts have the same.
   * `made-here`: random, made at the first start. `token`: hexadecimal HMAC-SHA256 of the label, keyed with a secret of
   * Secrets Manager, so that all hosts have the same. `database`, `cache`: the address with its password, fetched
   * again every five minutes.
   */
  readonly from:
    | { readonly kind: 'ansible'; readonly name: string }
    | { readonly kind: 'made-here' }
    | { readonly kind: 'token'; readonly secret: Template; readonly label: string }
    | {
        readonly kind: 'database';
        readonly secret: Template;
        readonly host: Template;
        readonly database: string;
      }
    /** No secret: the cache has no password. */
    | { readonly kind: 'cache'; readonly secret: Template | null; readonly host: Template };
}

interface Machine {
  readonly instanceType: string;
  readonly architecture: 'x86_64' | 'arm64';
  /** Resolved by AWS when it is deployed: Debian 12's newest image. */
  readonly image: { readonly ssmParameter: string; readonly owner: string; readonly namePattern: string };
  readonly metadata: { readonly httpTokens: 'required'; readonly hopLimit: number };
  readonly rootVolume: { readonly sizeGb: number; readonly type: 'gp3'; readonly encrypted: true };
  /** Null: it calls no AWS API. */
  readonly instanceRole: string | null;
  readonly keyPair: string | null;
  readonly detailedMonitoring: boolean;
  /** `standard` for what encodes all day: surplus credits would cost up to $58 a month. */
  readonly cpuCredits: 'standard' | 'unlimited';
  readonly host: Host;
  /** cloud-init, whole. */
  readonly userData: Template;
}
export interface Instance extends Common, Machine {
  readonly kind: 'instance';
  readonly zone: string;
  readonly terminationProtection: boolean;
}
export interface LaunchTemplate extends Common, Machine {
  readonly kind: 'launch-template';
  readonly securityGroups: readonly string[];
  readonly hasPublicAddress: boolean;
}
export interface ScalingGroup extends Common {
  readonly kind: 'scaling-group';
  readonly launchTemplate: string;
  readonly subnets: readonly string[];
  readonly minimum: number;
  readonly maximum: number;
  readonly desired: number;
  readonly targetGroups: readonly string[];
  readonly healthCheck: 'ELB' | 'EC2';
  readonly healthCheckGraceSeconds: number;
  /** Target tracking: average CPU of the group, in percent. */
  readonly targetCpuPercent: number;
  /** Topic that is told of launches and ends. */
  readonly notifies: string | null;
}

// Containers

export interface Repository extends Common {
  readonly kind: 'repository';
  readonly name: string;
  readonly keepImages: number;
}
export interface ContainerCluster extends Common {
  readonly kind: 'container-cluster';
  readonly name: string;
  readonly insights: boolean;
}
export interface TaskDefinition extends Common {
  readonly kind: 'task-definition';
  readonly family: string;
  readonly cpuUnits: number;
  readonly memoryMb: number;
  readonly executionRole: string;
  readonly taskRole: string;
  readonly volumes: readonly {
    readonly name: string;
    readonly fileSystem: string;
    readonly accessPoint: string;
  }[];
  readonly containers: readonly Container[];
}
export interface Container {
  readonly name: string;
  readonly repository: string;
  /** A `sha256:` digest, given at deployment as the parameter `ImageDigest`. */
  readonly command: readonly string[];
  readonly user: string;
  readonly readonlyRootFilesystem: true;
  readonly dropCapabilities: readonly string[];
  readonly ports: readonly number[];
  readonly environment: Readonly<Record<string, Template>>;
  /** Environment variable to secret (`arn`, or `arn:key::`). */
  readonly secrets: Readonly<Record<string, Template>>;
  /** Started when these are healthy, and stopped before them. */
  readonly after: readonly string[];
  readonly mounts: readonly { readonly volume: string; readonly path: string; readonly readonly: boolean }[];
  /** Writable, in memory or on the task's disk. */
  readonly scratch: readonly string[];
  readonly healthCommand: readonly string[] | null;
  readonly logGroup: string;
  readonly essential: boolean;
}
export interface ContainerService extends Common {
  readonly kind: 'container-service';
  readonly name: string;
  readonly cluster: string;
  readonly taskDefinition: string;
  readonly desired: number;
  readonly minimum: number;
  readonly maximum: number;
  readonly targetCpuPercent: number;
  readonly subnets: readonly string[];
  readonly securityGroups: readonly string[];
  readonly hasPublicAddress: boolean;
  readonly targets: readonly {
    readonly targetGroup: string;
    readonly container: string;
    readonly port: number;
  }[];
  readonly healthCheckGraceSeconds: number;
}
export interface FileSystem extends Common {
  readonly kind: 'file-system';
  readonly encrypted: true;
  readonly subnets: readonly string[];
  readonly securityGroups: readonly string[];
  /** What tasks see of it; null where hosts mount all of it. */
  readonly accessPoint: {
    readonly id: string;
    readonly path: string;
    readonly uid: number;
    readonly gid: number;
  } | null;
}

// Load balancing and delivery

export interface LoadBalancer extends Common {
  readonly kind: 'load-balancer';
  readonly type: 'application' | 'network';
  readonly name: string;
  readonly subnets: readonly string[];
  readonly securityGroups: readonly string[];
  readonly idleTimeoutSeconds: number | null;
  readonly dropInvalidHeaders: boolean;
  /** Id of a bucket. */
  readonly accessLogs: string | null;
  readonly deletionProtection: boolean;
}
export interface TargetGroup extends Common {
  readonly kind: 'target-group';
  readonly name: string;
  readonly vpc: string;
  readonly protocol: 'HTTP' | 'TCP';
  readonly port: number;
  readonly targetType: 'instance' | 'ip';
  /** Ids of instances; empty where a group or service registers its members. */
  readonly targets: readonly string[];
  readonly healthCheck: {
    readonly protocol: 'HTTP' | 'TCP';
    readonly path: string | null;
    readonly port: number;
    readonly intervalSeconds: number;
    readonly healthyCount: number;
    readonly unhealthyCount: number;
  };
  readonly drainSeconds: number;
}
export interface Listener extends Common {
  readonly kind: 'listener';
  readonly loadBalancer: string;
  readonly protocol: 'HTTP' | 'HTTPS' | 'TCP' | 'TLS';
  readonly port: number;
  readonly certificate: string | null;
  readonly tlsPolicy: string | null;
  readonly action:
    | { readonly kind: 'forward'; readonly targetGroup: string }
    | { readonly kind: 'redirect'; readonly protocol: 'HTTPS'; readonly port: number };
  /** Before the action above, in this order. */
  readonly rules: readonly {
    readonly id: string;
    readonly priority: number;
    readonly paths: readonly string[];
    readonly targetGroup: string;
  }[];
}
export interface Certificate extends Common {
  readonly kind: 'certificate';
  readonly domainName: string;
  readonly alternativeNames: readonly string[];
  /** Id of the zone in which it proves itself; null: the operator sets the CNAME that ACM shows. */
  readonly zone: string | null;
}
export interface Zone extends Common {
  readonly kind: 'zone';
  readonly name: string;
}
/** The key that signs a zone (KMS, ECC_NIST_P256) and the switch. */
export interface ZoneSigning extends Common {
  readonly kind: 'zone-signing';
  readonly zone: string;
  readonly keySigningKeyName: string;
}
export interface DnsRecord extends Common {
  readonly kind: 'record';
  readonly zone: string;
  readonly name: string;
  readonly type: 'A' | 'AAAA' | 'CAA' | 'CNAME';
  readonly ttlSeconds: number;
  readonly target:
    | { readonly kind: 'values'; readonly values: readonly Template[] }
    /** Id of a load balancer or distribution. */
    | { readonly kind: 'alias'; readonly id: string };
}
export interface CachePolicy extends Common {
  readonly kind: 'cache-policy';
  readonly name: string;
  readonly minTtlSeconds: number;
  readonly defaultTtlSeconds: number;
  readonly maxTtlSeconds: number;
  /** In the key and passed on: LL-HLS asks with `_HLS_msn` and `_HLS_part`, private channels with a token. */
  readonly queryStrings: readonly string[];
  readonly headers: readonly string[];
}
export interface Distribution extends Common {
  readonly kind: 'distribution';
  readonly aliases: readonly string[];
  readonly certificate: string;
  readonly minimumTls: 'TLSv1.2_2021';
  readonly priceClass: 'PriceClass_100' | 'PriceClass_All';
  readonly webAcl: string | null;
  readonly logBucket: string | null;
  readonly origin: {
    readonly id: string;
    readonly domainName: Template;
    readonly protocol: 'https-only' | 'http-only';
    readonly httpPort: number;
    readonly httpsPort: number;
    readonly readTimeoutSeconds: number;
    readonly keepaliveSeconds: number;
  };
  readonly behaviours: readonly {
    /** `*` is the default one, and last. */
    readonly path: string;
    /** Id of a cache policy of the plan, or AWS's own by its id. */
    readonly cachePolicy: { readonly id: string } | { readonly managed: string; readonly name: string };
    readonly originRequestPolicy: { readonly managed: string; readonly name: string } | null;
    readonly methods: 'read' | 'all';
    readonly compress: boolean;
  }[];
}
export interface WebAcl extends Common {
  readonly kind: 'web-acl';
  readonly name: string;
  readonly scope: 'REGIONAL' | 'CLOUDFRONT';
  /** Load balancers; a distribution names its own. */
  readonly protects: readonly string[];
  readonly rules: readonly (
    | {
        readonly kind: 'rate';
        readonly name: string;
        readonly priority: number;
        readonly per5Minutes: number;
        readonly exceptPathPrefix: string;
      }
    | {
        readonly kind: 'managed';
        readonly name: string;
        readonly priority: number;
        readonly group: string;
        /** Rules of the group that only count, because the product needs what they block. */
        readonly countOnly: readonly string[];
      }
  )[];
}

// Data

export interface SubnetGroup extends Common {
  readonly kind: 'subnet-group';
  readonly for: 'database' | 'cache';
  readonly name: string;
  readonly subnets: readonly string[];
}
export interface ParameterGroup extends Common {
  readonly kind: 'parameter-group';
  readonly for: 'database' | 'cluster';
  readonly family: string;
  readonly parameters: Readonly<Record<string, string>>;
}
export interface Database extends Common {
  readonly kind: 'database';
  readonly name: string;
  readonly engine: 'postgres';
  readonly engineVersion: string;
  readonly instanceClass: string;
  readonly storageGb: number;
  readonly multiAz: boolean;
  readonly zone: string | null;
  readonly subnetGroup: string;
  readonly parameterGroup: string;
  readonly securityGroups: readonly string[];
  readonly databaseName: string;
  readonly userName: string;
  readonly port: number;
  readonly encrypted: true;
  readonly isPublic: false;
  readonly backupDays: number;
  readonly deletionProtection: boolean;
  readonly logExports: readonly string[];
  readonly caCertificate: string;
  /** RDS keeps the password in a secret of its own (`${Id.secretArn}`) and rotates it. */
  readonly managesPassword: true;
}
export interface AuroraCluster extends Common {
  readonly kind: 'aurora-cluster';
  readonly name: string;
  readonly engineVersion: string;
  readonly minAcu: number;
  readonly maxAcu: number;
  /** Of no connection, until it pauses; null unless minAcu is 0. */
  readonly pauseAfterSeconds: number | null;
  readonly subnetGroup: string;
  readonly parameterGroup: string;
  readonly securityGroups: readonly string[];
  readonly databaseName: string;
  readonly userName: string;
  readonly port: number;
  readonly encrypted: true;
  readonly isPublic: false;
  readonly backupDays: number;
  readonly deletionProtection: boolean;
  readonly logExports: readonly string[];
  readonly managesPassword: true;
  readonly writer: { readonly id: string; readonly zone: string };
}
/** Replication group of ElastiCache. */
export interface Cache extends Common {
  readonly kind: 'cache';
  readonly name: string;
  readonly engine: 'redis';
  readonly engineVersion: string;
  readonly nodeType: string;
  /** Replicas come on top of the primary. */
  readonly nodes: number;
  readonly multiAz: boolean;
  readonly subnetGroup: string;
  readonly securityGroups: readonly string[];
  readonly port: number;
  readonly encryptedInTransit: true;
  readonly encryptedAtRest: true;
  /** Id of a secret with the password under `value`; null: security groups alone keep others out. */
  readonly password: string | null;
  readonly snapshotDays: number;
}
export interface Table extends Common {
  readonly kind: 'table';
  readonly name: string;
  readonly partitionKey: string;
  readonly sortKey: string | null;
  readonly expiryAttribute: string | null;
  readonly pointInTimeRecovery: true;
}
export interface Bucket extends Common {
  readonly kind: 'bucket';
  /** The name ends in the account's number. */
  readonly name: Template;
  readonly holds: 'recordings' | 'logs';
  readonly versioned: boolean;
  readonly transitions: readonly { readonly days: number; readonly storageClass: string }[];
  readonly lifecyclePrefix: string;
  readonly expireDays: number | null;
  /** Always: no public access, encryption (SSE-S3), TLS only. */
  readonly logsTo: string | null;
}

// Secrets and identities

export interface Secret extends Common {
  readonly kind: 'secret';
  readonly name: string;
  readonly description: string;
  /** AWS makes it: JSON with one key, `value`. */
  readonly lengthChars: number;
}
/** Of a secret that its service manages (RDS): no function of ours sees the password. */
export interface Rotation extends Common {
  readonly kind: 'rotation';
  readonly secret: Template;
  readonly days: number;
}
export interface Role extends Common {
  readonly kind: 'role';
  readonly name: string;
  readonly trusts:
    | { readonly service: string; readonly sourceAccountOnly: boolean }
    /** Through the provider; all conditions have to hold (StringEquals). */
    | { readonly oidcProvider: string; readonly conditions: Readonly<Record<string, string>> };
  readonly managedPolicies: readonly string[];
  readonly statements: readonly {
    readonly sid: string;
    readonly actions: readonly string[];
    readonly resources: readonly Template[];
    readonly conditions: Readonly<Record<string, Readonly<Record<string, Template>>>>;
  }[];
  /** It also gets an instance profile of this id. */
  readonly instanceProfile: string | null;
}
export interface OidcProvider extends Common {
  readonly kind: 'oidc-provider';
  readonly url: string;
  readonly audiences: readonly string[];
}

// Watching over it

export interface LogGroup extends Common {
  readonly kind: 'log-group';
  readonly name: string;
  readonly retentionDays: number;
}
export interface MetricFilter extends Common {
  readonly kind: 'metric-filter';
  readonly logGroup: string;
  readonly pattern: string;
  readonly namespace: string;
  readonly metric: string;
}
export interface Topic extends Common {
  readonly kind: 'topic';
  readonly name: string;
  readonly email: string | null;
  /** Services that may publish: `cloudwatch.amazonaws.com`. */
  readonly publishers: readonly string[];
}
export interface Alarm extends Common {
  readonly kind: 'alarm';
  readonly name: string;
  readonly description: string;
  readonly namespace: string;
  readonly metric: string;
  readonly dimensions: Readonly<Record<string, Template>>;
  readonly statistic: 'Sum' | 'Average' | 'Maximum' | 'Minimum';
  readonly periodSeconds: number;
  readonly evaluationPeriods: number;
  readonly threshold: number;
  readonly comparison: 'GreaterThanThreshold' | 'LessThanThreshold' | 'GreaterThanOrEqualToThreshold';
  readonly missingData: 'notBreaching' | 'breaching';
  readonly topic: string;
}
export interface ThreatDetector extends Common {
  readonly kind: 'threat-detector';
  readonly publishing: 'FIFTEEN_MINUTES' | 'ONE_HOUR' | 'SIX_HOURS';
}
export interface Budget extends Common {
  readonly kind: 'budget';
  readonly name: string;
  readonly limitUsd: number;
  readonly email: string;
  readonly thresholdsPercent: readonly number[];
}
/** EventBridge Scheduler: one call of an AWS API at a time of day. */
export interface Schedule extends Common {
  readonly kind: 'schedule';
  readonly name: string;
  readonly expression: string;
  readonly timeZone: string;
  readonly role: string;
  readonly does: 'pause' | 'resume';
  /** Id of what is paused. */
  readonly subject: string;
  /** `arn:aws:scheduler:::aws-sdk:ec2:stopInstances` */
  readonly call: string;
  /** Its argument: JSON. */
  readonly input: Template;
}

// Serverless

export interface LambdaFunction extends Common {
  readonly kind: 'function';
  readonly name: string;
  readonly runtime: 'nodejs22.x';
  readonly architecture: 'arm64';
  readonly handler: string;
  /** The source itself: CommonJS, at most 4,096 characters. */
  readonly code: string;
  readonly memoryMb: number;
  readonly timeoutSeconds: number;
  readonly reservedConcurrency: number;
  readonly role: string;
  readonly logGroup: string;
  readonly environment: Readonly<Record<string, Template>>;
}
export interface HttpApi extends Common {
  readonly kind: 'http-api';
  readonly name: string;
  readonly function: string;
  readonly routes: readonly { readonly id: string; readonly method: string; readonly path: string }[];
  readonly logGroup: string;
  readonly throttle: { readonly ratePerSecond: number; readonly burst: number };
}
export interface MediaLiveChannel extends Common {
  readonly kind: 'media-live-channel';
  readonly name: string;
  readonly role: string;
  readonly inputSecurityGroup: { readonly id: string; readonly cidrs: readonly string[] };
  readonly input: { readonly id: string; readonly streamName: string };
  /** Where it pushes its RTMP: a backend's ingest, `rtmp://host:1935/live`. */
  readonly destination: { readonly url: Template; readonly streamName: string };
  readonly rungs: readonly {
    readonly name: string;
    readonly widthPx: number;
    readonly heightPx: number;
    readonly bitrateBps: number;
  }[];
}

export type Resource =
  | Vpc | InternetGateway | Subnet | RouteTable | NatGateway | Address | Interface | SecurityGroup | NetworkAcl
  | GatewayEndpoint | FlowLog
  | KeyPair | Instance | LaunchTemplate | ScalingGroup
  | Repository | ContainerCluster | TaskDefinition | ContainerService | FileSystem
  | LoadBalancer | TargetGroup | Listener | Certificate | Zone | ZoneSigning | DnsRecord | CachePolicy | Distribution
  | WebAcl
  | SubnetGroup | ParameterGroup | Database | AuroraCluster | Cache | Table | Bucket
  | Secret | Rotation | Role | OidcProvider
  | LogGroup | MetricFilter | Topic | Alarm | ThreatDetector | Budget | Schedule
  | LambdaFunction | HttpApi | MediaLiveChannel; // biome-ignore format: by chapter

export type Kind = Resource['kind'];
export type ResourceOf<K extends Kind> = Extract<Resource, { kind: K }>;

/** The resources of one kind, in the order of the plan. */
export function resourcesOf<K extends Kind>(plan: Plan, kind: K): ResourceOf<K>[] {
  return plan.resources.filter((one): one is ResourceOf<K> => one.kind === kind);
}

/**
 * The resource with that id.
 * @throws TopologyError PLAN_DANGLING when there is none of that kind
 */
export function resourceOf<K extends Kind>(plan: Plan, kind: K, id: string): ResourceOf<K> {
  const found = resourcesOf(plan, kind).find((one) => one.id === id);
  if (found === undefined)
    throw new TopologyError('PLAN_DANGLING', `The plan has no ${kind} with the id ${id}.`);
  return found;
}
