/**
 * The deployment file, `deploy.yaml`: what the operator chooses. A profile and a region are enough; everything else
 * has a default. What follows from it is the plan (`plan.ts`).
 */
import { type Static, Type } from 'typebox';
import { Value } from 'typebox/value';
import { TopologyError } from './error.ts';
import { parseRange } from './ipv4.ts';

export const profiles = [
  'classic-iptv',
  'beta',
  'gamma',
  'production',
  'production-containers',
  'production-serverless',
] as const;
export type ProfileName = (typeof profiles)[number];

/** Those that the price table and the images cover. */
export const regions = ['us-east-1', 'eu-west-1', 'eu-central-1', 'ap-south-1'] as const;
export type Region = (typeof regions)[number];

const Cidr = (description: string) =>
  Type.String({ pattern: '^[0-9.]{7,15}/[0-9]{1,2}$', examples: ['203.0.113.7/32'], description });
const Email = Type.String({ pattern: '^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$', maxLength: 254 });
const InstanceType = Type.String({ pattern: '^[a-z0-9]+\\.[a-z0-9]+$', examples: ['t3.small'] });
const Count = (minimum: number, maximum: number, description: string) =>
  Type.Integer({ minimum, maximum, description });

export const DeploymentFile = Type.Object(
  {
    profile: Type.Enum(profiles),
    region: Type.Enum(regions),
    name: Type.Optional(
      Type.String({
        pattern: '^[a-z][a-z0-9-]{0,18}[a-z0-9]$',
        description:
          'Of the deployment: begins the names of its resources and is their tag; starling when left out',
      }),
    ),
    domain: Type.Optional(
      Type.String({
        pattern: '^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,63}$',
        description:
          'watch.DOMAIN and ingest.DOMAIN are the names of the service; starling.example when left out',
      }),
    ),
    vpcName: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}$' })),
    vpcCidr: Type.Optional(Cidr('A /16; 10.0.0.0/16 when left out')),
    frontends: Type.Optional(Count(1, 20, 'Hosts of classic-iptv; 2 when left out')),
    backends: Type.Optional(Count(1, 20, 'Hosts of classic-iptv; 1 when left out')),
    nombre_instance_front: Type.Optional(Count(1, 20, 'The same as frontends')),
    nombre_instance_back: Type.Optional(Count(1, 20, 'The same as backends')),
    instanceTypes: Type.Optional(
      Type.Object(
        {
          bastion: Type.Optional(InstanceType),
          balancer: Type.Optional(InstanceType),
          frontend: Type.Optional(InstanceType),
          backend: Type.Optional(InstanceType),
          app: Type.Optional(InstanceType),
        },
        {
          additionalProperties: false,
          description: 'By role; app is the host with every role of the other profiles',
        },
      ),
    ),
    operatorAddress: Type.Optional(Cidr('From where SSH is taken; from nowhere when left out')),
    allowSshFromAnywhere: Type.Optional(
      Type.Boolean({ description: 'Lets operatorAddress be 0.0.0.0/0; the audit says so' }),
    ),
    keys: Type.Optional(
      Type.Object(
        { bastion: Type.Optional(Type.String()), instances: Type.Optional(Type.String()) },
        {
          additionalProperties: false,
          description: 'Public halves, ssh-ed25519 ...; those that `starling infra keys` made when left out',
        },
      ),
    ),
    ingestFrom: Type.Optional(
      Type.Array(Cidr('From where encoders publish'), {
        maxItems: 20,
        description:
          'classic-iptv: from nowhere when left out, as its matrix has it (an SSH tunnel to the backend works); elsewhere from everywhere',
      }),
    ),
    multiAz: Type.Optional(Type.Boolean({ description: 'Hosts and databases in two zones' })),
    natGateway: Type.Optional(
      Type.Boolean({
        description: 'Hosts without public addresses; encoders come in through a network load balancer',
      }),
    ),
    ssm: Type.Optional(Type.Boolean({ description: 'Session Manager instead of SSH: no port is open' })),
    cloudFront: Type.Optional(Type.Boolean({ description: 'A CDN in front; on in production' })),
    dnssec: Type.Optional(Type.Boolean({ description: 'Signs the zone; on in production' })),
    guardDuty: Type.Optional(
      Type.Boolean({
        description: 'On in production; off where the account has a detector in the region already',
      }),
    ),
    flowLogs: Type.Optional(Type.Boolean({ description: 'Of the VPC; on except in classic-iptv and beta' })),
    aurora: Type.Optional(
      Type.Object(
        { minAcu: Type.Optional(Type.Number({ minimum: 0, maximum: 16, multipleOf: 0.5 })) },
        {
          additionalProperties: false,
          description:
            'production-serverless: 0.5 capacity units when left out; 0 lets it pause, and wait 15 s on the first query',
        },
      ),
    ),
    mediaLive: Type.Optional(
      Type.Boolean({
        description: 'production-serverless: MediaLive encodes instead of FFmpeg on the host; $3.11 an hour',
      }),
    ),
    backupDays: Type.Optional(Count(1, 35, 'Of the database; 7, in production 30, when left out')),
    alarmEmail: Type.Optional(Email),
    budgetUsd: Type.Optional(
      Type.Number({
        exclusiveMinimum: 0,
        description: 'A month; warns at 80 and 100 %. No budget when left out',
      }),
    ),
    schedule: Type.Optional(
      Type.Object(
        {
          timeZone: Type.String({ examples: ['Europe/Paris'], pattern: '^[A-Za-z0-9_+/-]{1,64}$' }),
          start: Type.String({ pattern: '^([01]\\d|2[0-3]):[0-5]\\d$', examples: ['18:00'] }),
          stop: Type.String({ pattern: '^([01]\\d|2[0-3]):[0-5]\\d$', examples: ['02:00'] }),
          days: Type.Optional(
            Type.Array(Type.Enum(['MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN']), {
              minItems: 1,
              uniqueItems: true,
              description: 'On which it starts; every day when left out',
            }),
          ),
        },
        { additionalProperties: false, description: 'When it runs; always when left out' },
      ),
    ),
    ci: Type.Optional(
      Type.Object(
        {
          repository: Type.String({ pattern: '^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$', examples: ['example/tv'] }),
          branch: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9._/-]{1,100}$' })),
        },
        {
          additionalProperties: false,
          description:
            'The GitHub repository, and its branch, whose pushes may deploy; no role for it when left out',
        },
      ),
    ),
  },
  { additionalProperties: false, $id: 'https://starling.example/schema/deploy.json' },
);
export type DeploymentFile = Static<typeof DeploymentFile>;

/** A deployment with every default filled in. */
export interface Deployment {
  readonly profile: ProfileName;
  readonly region: Region;
  readonly name: string;
  readonly domain: string;
  readonly vpcName: string;
  readonly vpcCidr: string;
  readonly frontends: number;
  readonly backends: number;
  readonly instanceTypes: {
    readonly bastion: string;
    readonly balancer: string;
    readonly frontend: string;
    readonly backend: string;
    readonly app: string;
  };
  readonly operatorAddress: string | null;
  readonly keys: { readonly bastion: string | null; readonly instances: string | null };
  readonly ingestFrom: readonly string[];
  readonly multiAz: boolean;
  readonly natGateway: boolean;
  readonly ssm: boolean;
  readonly cloudFront: boolean;
  readonly dnssec: boolean;
  readonly guardDuty: boolean;
  readonly flowLogs: boolean;
  readonly auroraMinAcu: number;
  readonly mediaLive: boolean;
  readonly backupDays: number;
  readonly alarmEmail: string | null;
  readonly budgetUsd: number | null;
  readonly schedule: {
    readonly timeZone: string;
    readonly start: string;
    readonly stop: string;
    readonly days: readonly string[];
  } | null;
  readonly ci: { readonly repository: string; readonly branch: string } | null;
}

const EVERY_DAY = ['MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN'];

/** The settings that only some profiles have a use for. */
const settingsOfProfiles: Partial<Record<keyof DeploymentFile, readonly ProfileName[]>> = {
  frontends: ['classic-iptv'],
  backends: ['classic-iptv'],
  nombre_instance_front: ['classic-iptv'],
  nombre_instance_back: ['classic-iptv'],
  natGateway: ['beta', 'gamma', 'production', 'production-containers'],
  cloudFront: ['gamma', 'production', 'production-containers', 'production-serverless'],
  dnssec: ['gamma', 'production', 'production-containers', 'production-serverless'],
  aurora: ['production-serverless'],
  mediaLive: ['production-serverless'],
  backupDays: ['beta', 'gamma', 'production', 'production-containers', 'production-serverless'],
};

/**
 * Checks a deployment file and fills in its defaults.
 * @param file as it was read from YAML, or put together from flags
 * @throws TopologyError DEPLOY_...
 */
export function readDeployment(file: unknown): Deployment {
  if (!Value.Check(DeploymentFile, file)) {
    // Of an unknown setting both its own schema, `false`, and the object's complain.
    const errors = [...Value.Errors(DeploymentFile, file)].filter((error) => error.keyword !== 'boolean');
    const problems = errors.slice(0, 5).map((error) => {
      const where = error.instancePath === '' ? 'the file' : error.instancePath.slice(1).replaceAll('/', '.');
      const unknown = error.keyword === 'additionalProperties' ? error.params.additionalProperties : [];
      return `${where} ${error.message}${unknown.length > 0 ? `: ${unknown.join(', ')}` : ''}`;
    });
    throw new TopologyError(
      'DEPLOY_INVALID',
      `The deployment is not valid: ${problems.join('; ')}. docs/deploy.schema.json lists what it may hold.`,
    );
  }
  const { profile } = file;
  for (const [setting, where] of Object.entries(settingsOfProfiles)) {
    if (file[setting as keyof DeploymentFile] !== undefined && !where.includes(profile)) {
      throw new TopologyError(
        'DEPLOY_NOT_IN_PROFILE',
        `${setting} means nothing in the profile ${profile}; it belongs to ${where.join(', ')}. Remove it, or choose one of those.`,
      );
    }
  }
  checkRanges(file);
  checkKeys(file);
  const isProduction = profile.startsWith('production');
  const isClassic = profile === 'classic-iptv';
  const types = file.instanceTypes ?? {};
  const name = file.name ?? 'starling';
  return {
    profile,
    region: file.region,
    name,
    domain: file.domain ?? 'starling.example',
    vpcName: file.vpcName ?? `${name}-vpc`,
    vpcCidr: file.vpcCidr ?? '10.0.0.0/16',
    frontends: same(file, 'frontends', 'nombre_instance_front') ?? 2,
    backends: same(file, 'backends', 'nombre_instance_back') ?? 1,
    instanceTypes: {
      bastion: types.bastion ?? 't3.small',
      balancer: types.balancer ?? 't3.micro',
      frontend: types.frontend ?? 't3.micro',
      backend: types.backend ?? 't3.small',
      app: types.app ?? { beta: 't3.micro', production: 't3.medium' }[profile as string] ?? 't3.small',
    },
    operatorAddress: file.operatorAddress ?? null,
    keys: { bastion: file.keys?.bastion ?? null, instances: file.keys?.instances ?? null },
    ingestFrom: file.ingestFrom ?? (isClassic ? [] : ['0.0.0.0/0']),
    multiAz: file.multiAz ?? (isProduction && profile !== 'production-serverless'),
    natGateway: file.natGateway ?? false,
    ssm: file.ssm ?? false,
    cloudFront: file.cloudFront ?? isProduction,
    dnssec: file.dnssec ?? isProduction,
    guardDuty: file.guardDuty ?? (profile === 'production' || profile === 'production-containers'),
    flowLogs: file.flowLogs ?? (isProduction || profile === 'gamma'),
    auroraMinAcu: file.aurora?.minAcu ?? 0.5,
    mediaLive: file.mediaLive ?? false,
    backupDays: file.backupDays ?? (isProduction ? 30 : 7),
    alarmEmail: file.alarmEmail ?? null,
    budgetUsd: file.budgetUsd ?? null,
    schedule:
      file.schedule === undefined ? null : { ...file.schedule, days: file.schedule.days ?? EVERY_DAY },
    ci: file.ci === undefined ? null : { repository: file.ci.repository, branch: file.ci.branch ?? 'main' },
  };
}

function same(
  file: DeploymentFile,
  ours: 'frontends' | 'backends',
  seeds: 'nombre_instance_front' | 'nombre_instance_back',
): number | undefined {
  const [one, other] = [file[ours], file[seeds]];
  if (one !== undefined && other !== undefined && one !== other) {
    throw new TopologyError(
      'DEPLOY_INVALID',
      `${ours} is ${one} and ${seeds} is ${other}; both mean the same. Keep one of them.`,
    );
  }
  return one ?? other;
}

function checkRanges(file: DeploymentFile): void {
  const ranges = {
    vpcCidr: file.vpcCidr === undefined ? [] : [file.vpcCidr],
    operatorAddress: file.operatorAddress === undefined ? [] : [file.operatorAddress],
    ingestFrom: file.ingestFrom ?? [],
  };
  for (const [setting, texts] of Object.entries(ranges)) {
    for (const text of texts) {
      const range = parseRange(text);
      if (range === undefined) {
        throw new TopologyError(
          'DEPLOY_CIDR',
          `${setting}: ${text} is not an address range such as 203.0.113.7/32 for one address, or 203.0.113.0/24.`,
        );
      }
      if (setting === 'vpcCidr' && range.prefixBits !== 16) {
        throw new TopologyError('DEPLOY_CIDR', `vpcCidr: ${text} has to be a /16, such as 10.20.0.0/16.`);
      }
    }
  }
  if (file.operatorAddress?.endsWith('/0') && file.allowSshFromAnywhere !== true) {
    throw new TopologyError(
      'DEPLOY_SSH_OPEN',
      `operatorAddress: ${file.operatorAddress} opens SSH to everybody. Give your own address, such as 203.0.113.7/32, or set allowSshFromAnywhere: true if it has to be so.`,
    );
  }
}

function checkKeys(file: DeploymentFile): void {
  for (const [role, key] of Object.entries(file.keys ?? {})) {
    // 4 + 11 bytes for the name, 4 + 32 for the key: 51 bytes, 68 characters in Base64 (RFC 8709).
    if (!/^ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}( [ -~]{1,100})?$/.test(key)) {
      throw new TopologyError(
        'DEPLOY_KEY',
        `keys.${role} is not an Ed25519 public key of the form "ssh-ed25519 AAAA... comment". \`starling infra keys\` makes one.`,
      );
    }
  }
  if (file.keys?.bastion !== undefined && file.keys.bastion === file.keys.instances) {
    throw new TopologyError(
      'DEPLOY_KEY',
      'keys.bastion and keys.instances are the same key; the bastion has one of its own.',
    );
  }
}

/** The published schema, for editors: `docs/deploy.schema.json`. */
export function deploymentJsonSchema(): string {
  return `${JSON.stringify({ $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'deploy.yaml', ...DeploymentFile }, null, 2)}\n`;
}
