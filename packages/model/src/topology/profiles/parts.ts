/** What the profiles of the StreamrP2P review are put together from. Each part adds its resources to the draft. */
import type { Region } from '../deployment.ts';
import type { Draft } from '../draft.ts';
import { formatRange, parseRange } from '../ipv4.ts';
import { type AclEntry, type ResourceOf, type Role, type Rule, ref, type Template } from '../plan.ts';
import { always, assumed, HOURS_PER_MONTH, type Price, perHour } from '../price.ts';

export const ANYWHERE = '0.0.0.0/0';
export const RTMP_PORT = 1935;
export const RTMPS_PORT = 1936;
/** Where backends push to frontends; encoders have 1935. */
export const PUSH_PORT = 1937;
export const FRONTEND_PORT = 8080;
export const COORDINATOR_PORT = 8090;
export const POSTGRES_PORT = 5432;
const REDIS_PORT = 6379;
const NFS_PORT = 2049;

export const DATABASE_NAME = 'starling';
export const DATABASE_USER = 'starling';

/** CloudFront's `origin-facing` list has another id in every region. */
const cdnPrefixLists: Record<Region, string> = {
  'us-east-1': 'pl-3b927c52',
  'eu-west-1': 'pl-4fa04526',
  'eu-central-1': 'pl-a3a144ca',
  'ap-south-1': 'pl-9aa247f3',
};

/** The CDN, as a peer of rules. */
export function cdn(region: Region): Rule['peer'] {
  return { prefixList: cdnPrefixLists[region], name: 'com.amazonaws.global.cloudfront.origin-facing' };
}

export interface Network {
  readonly zones: readonly string[];
  readonly publicSubnets: readonly string[];
  /** Where load balancers have their addresses. */
  readonly publicRanges: readonly string[];
  /** Where hosts are: the public ones, or private ones behind a NAT gateway. */
  readonly appSubnets: readonly string[];
  readonly appRanges: readonly string[];
  readonly dataSubnets: readonly string[];
  readonly appIsPublic: boolean;
}

/**
 * A VPC over two zones: public subnets, subnets without a way out for data, and with `natGateway` private ones for the
 * hosts. NACLs say for subnets what security groups say for hosts, replies included.
 * @param options.offersHttp port 80 is open, for redirects or ACME
 */
export function drawNetwork(draft: Draft, options: { offersHttp: boolean }): Network {
  const { region, vpcCidr, natGateway, ingestFrom, operatorAddress, name } = draft.deployment;
  const base = parseRange(vpcCidr)?.first ?? 0;
  const zones = [`${region}a`, `${region}b`];
  const letters = ['A', 'B'];
  draft.add('vpc', { id: 'Vpc', purpose: 'The network', cidr: vpcCidr });
  draft.add('internet-gateway', { id: 'InternetGateway', purpose: 'Way to the internet', vpc: 'Vpc' });
  const range = (offset: number) => formatRange({ first: base + offset, last: 0, prefixBits: 20 });
  const tier = (which: 'public' | 'app' | 'data', idPrefix: string, offset: number, purpose: string) =>
    letters.map((letter, index) => {
      const cidr = range(offset + index * 0x1000);
      const id = draft.add('subnet', {
        ...{
          id: `${idPrefix}Subnet${letter}`,
          purpose,
          vpc: 'Vpc',
          cidr,
          zone: zones[index] ?? '',
          tier: which,
        },
        givesPublicAddresses: false,
      });
      return { id, cidr };
    });
  const publics = tier('public', 'Public', 0x0000, 'Load balancer, and hosts without a NAT gateway');
  const apps = natGateway ? tier('app', 'App', 0x4000, 'Hosts') : [];
  const datas = tier('data', 'Data', 0x8000, 'Database and cache: no way out, no way in but from the hosts');
  const ids = (subnets: readonly { id: string }[]) => subnets.map(({ id }) => id);
  draft.add('route-table', {
    id: 'PublicRoutes',
    purpose: 'Straight out',
    vpc: 'Vpc',
    subnets: ids(publics),
    routes: [
      {
        id: 'PublicDefaultRoute',
        destination: ANYWHERE,
        target: { kind: 'internet-gateway', id: 'InternetGateway' },
      },
    ],
  });
  if (natGateway) {
    draft.add('address', {
      ...{ id: 'NatAddress', purpose: 'The NAT gateway', interface: null },
      prices: [always('ipv4/hour', HOURS_PER_MONTH)],
    });
    draft.add('nat-gateway', {
      ...{
        id: 'NatGateway',
        purpose: 'Way out of the hosts',
        subnet: 'PublicSubnetA',
        address: 'NatAddress',
      },
      prices: [always('nat/hour', HOURS_PER_MONTH)],
      pause: 'keeps-running',
    });
    draft.add('route-table', {
      id: 'AppRoutes',
      purpose: 'Out through the NAT gateway',
      vpc: 'Vpc',
      subnets: ids(apps),
      routes: [
        { id: 'AppDefaultRoute', destination: ANYWHERE, target: { kind: 'nat-gateway', id: 'NatGateway' } },
      ],
    });
  }
  draft.add('route-table', {
    ...{
      id: 'DataRoutes',
      purpose: 'Nowhere but inside the VPC',
      vpc: 'Vpc',
      subnets: ids(datas),
      routes: [],
    },
  });
  draft.add('gateway-endpoint', {
    id: 'StorageEndpoint',
    purpose: 'Recordings and releases stay inside AWS',
    vpc: 'Vpc',
    service: 's3',
    routeTables: natGateway ? ['PublicRoutes', 'AppRoutes'] : ['PublicRoutes'],
  });

  const hosts = natGateway ? apps : publics;
  const entries = new AclEntries();
  // Public: what the service offers, and replies to what hosts asked for. Security groups say the rest.
  const offered: [number, number, string][] = [
    ...(options.offersHttp ? [[80, 80, ANYWHERE] as [number, number, string]] : []),
    [443, 443, ANYWHERE],
    ...ingestFrom.map((cidr): [number, number, string] => [RTMP_PORT, RTMPS_PORT, cidr]),
    ...(operatorAddress === null || natGateway
      ? []
      : [[22, 22, operatorAddress] as [number, number, string]]),
  ];
  draft.add('network-acl', {
    id: 'PublicAcl',
    purpose: 'What may enter the public subnets',
    vpc: 'Vpc',
    subnets: ids(publics),
    entries: [
      ...entries.make('PublicAclIn', 'ingress', [
        ['all', 0, 0, vpcCidr],
        ...offered.map(([from, to, cidr]) => ['tcp', from, to, cidr] as const),
        // Replies: what hosts open outwards comes back to the ports that Linux gives out (32768 to 60999), through
        // a NAT gateway to 1024 to 65535.
        ['tcp', natGateway ? 1024 : 32_768, natGateway ? 65_535 : 60_999, ANYWHERE],
        ['udp', natGateway ? 1024 : 32_768, natGateway ? 65_535 : 60_999, ANYWHERE],
      ]),
      ...entries.make('PublicAclOut', 'egress', [['all', 0, 0, ANYWHERE]]),
    ],
  });
  if (natGateway) {
    draft.add('network-acl', {
      id: 'AppAcl',
      purpose: 'What may enter the subnets of the hosts',
      vpc: 'Vpc',
      subnets: ids(apps),
      entries: [
        ...entries.make('AppAclIn', 'ingress', [
          ['all', 0, 0, vpcCidr],
          ...ingestFrom.map((cidr) => ['tcp', RTMP_PORT, RTMPS_PORT, cidr] as const),
          ['tcp', 32_768, 60_999, ANYWHERE],
          ['udp', 32_768, 60_999, ANYWHERE],
        ]),
        ...entries.make('AppAclOut', 'egress', [['all', 0, 0, ANYWHERE]]),
      ],
    });
  }
  const replies = [1024, 65_535] as const;
  const dataPorts = [POSTGRES_PORT, REDIS_PORT];
  const withinData = datas.map(({ cidr }) => cidr);
  draft.add('network-acl', {
    id: 'DataAcl',
    purpose: 'Database and cache: asked by the hosts, and answering them',
    vpc: 'Vpc',
    subnets: ids(datas),
    entries: [
      ...entries.make('DataAclIn', 'ingress', [
        ...hosts.flatMap(({ cidr }) => dataPorts.map((port) => ['tcp', port, port, cidr] as const)),
        // The cache's nodes copy from each other.
        ...withinData.flatMap((cidr) => [
          ['tcp', REDIS_PORT, REDIS_PORT, cidr] as const,
          ['tcp', ...replies, cidr] as const,
        ]),
      ]),
      ...entries.make('DataAclOut', 'egress', [
        ...hosts.map(({ cidr }) => ['tcp', ...replies, cidr] as const),
        ...withinData.map((cidr) => ['tcp', ...replies, cidr] as const),
      ]),
    ],
  });
  if (draft.deployment.flowLogs) {
    draft.add('log-group', {
      id: 'FlowLogGroup',
      purpose: 'Who spoke to whom',
      name: `/starling/${name}/flow`,
      retentionDays: 14,
    });
    draft.add('role', {
      id: 'FlowLogRole',
      purpose: 'Writes the flow logs',
      name: `${name}-${region}-flow-logs`,
      trusts: { service: 'vpc-flow-logs.amazonaws.com', sourceAccountOnly: true },
      managedPolicies: [],
      statements: [
        {
          sid: 'Write',
          actions: ['logs:CreateLogStream', 'logs:DescribeLogStreams', 'logs:PutLogEvents'],
          resources: [`${ref('FlowLogGroup', 'arn')}:*`],
          conditions: {},
        },
      ],
      instanceProfile: null,
    });
    draft.add('flow-log', {
      ...{ id: 'FlowLog', purpose: 'Every connection of the VPC', vpc: 'Vpc', logGroup: 'FlowLogGroup' },
      role: 'FlowLogRole',
    });
  }
  return {
    zones,
    publicSubnets: ids(publics),
    publicRanges: publics.map(({ cidr }) => cidr),
    appSubnets: ids(hosts),
    appRanges: hosts.map(({ cidr }) => cidr),
    dataSubnets: ids(datas),
    appIsPublic: !natGateway,
  };
}

type AclLine = readonly [AclEntry['protocol'], number, number, string];

class AclEntries {
  make(prefix: string, direction: AclEntry['direction'], lines: readonly AclLine[]): AclEntry[] {
    return lines.map(([protocol, fromPort, toPort, cidr], index) => ({
      ...{ id: `${prefix}${index}`, ruleNumber: 100 + index * 10, direction, action: 'allow' as const },
      ...{ protocol, fromPort, toPort, cidr },
    }));
  }
}

export function tcp(id: string, port: number, peer: string | Rule['peer'], description: string): Rule {
  const from = typeof peer === 'string' ? { cidr: peer } : peer;
  return { id, protocol: 'tcp', fromPort: port, toPort: port, peer: from, description };
}

export function everythingOut(id: string): Rule {
  const all = { protocol: 'all', fromPort: 0, toPort: 0 } as const;
  return { id: `${id}Out`, ...all, peer: { cidr: ANYWHERE }, description: 'Everything out' };
}

/** AWS lets everything out of a group that has no egress rule of its own; this one lets nothing out. */
export function nothingOut(id: string): Rule {
  const none = { protocol: 'icmp', fromPort: -1, toPort: -1 } as const;
  return { id: `${id}Out`, ...none, peer: { cidr: '255.255.255.255/32' }, description: 'Nothing out' };
}

/**
 * Security groups of the balancers, the hosts, the database and the cache.
 * @param throughNlb encoders come in through a network load balancer, which ends their TLS
 * @param isGroup there are several hosts, whose backends push to the frontends of all; they share a file system
 */
export function drawGroups(
  draft: Draft,
  network: Network,
  options: { throughNlb: boolean; isGroup: boolean; hasCache: boolean },
): void {
  const { name, cloudFront, ingestFrom, operatorAddress, region } = draft.deployment;
  const group = (id: string, description: string, ingress: readonly Rule[], egress: readonly Rule[]) =>
    draft.add('security-group', {
      ...{ id, purpose: description, vpc: 'Vpc', name: `${name}-${id.replace('Group', '').toLowerCase()}` },
      ...{ description, ingress, egress },
    });
  const fromApp = { securityGroup: 'AppGroup' };
  group(
    'AlbGroup',
    'Application load balancer',
    cloudFront
      ? [tcp('AlbHttps', 443, cdn(region), 'HTTPS from the CDN')]
      : [
          tcp('AlbHttp', 80, ANYWHERE, 'HTTP, to be redirected'),
          tcp('AlbHttps', 443, ANYWHERE, 'HTTPS from viewers'),
        ],
    [
      tcp('AlbToFrontends', FRONTEND_PORT, fromApp, 'To the frontends'),
      tcp('AlbToCoordinators', COORDINATOR_PORT, fromApp, 'To the coordinators'),
    ],
  );
  if (options.throughNlb) {
    group(
      'NlbGroup',
      'Network load balancer, for encoders',
      ingestFrom.flatMap((cidr, index) => [
        tcp(`NlbRtmp${index}`, RTMP_PORT, cidr, 'RTMP from encoders'),
        tcp(`NlbRtmps${index}`, RTMPS_PORT, cidr, 'RTMPS from encoders'),
      ]),
      [tcp('NlbToBackends', RTMP_PORT, fromApp, 'To the backends')],
    );
  }
  group(
    'AppGroup',
    'Hosts with frontend, backend and coordinator',
    [
      tcp('AppFrontend', FRONTEND_PORT, { securityGroup: 'AlbGroup' }, 'HTTP from the load balancer'),
      tcp('AppCoordinator', COORDINATOR_PORT, { securityGroup: 'AlbGroup' }, 'API from the load balancer'),
      ...(options.isGroup
        ? [
            tcp('AppPush', PUSH_PORT, fromApp, 'RTMP from backends to frontends'),
            tcp('AppPassOn', RTMP_PORT, fromApp, 'RTMP of encoders, from host to host'),
          ]
        : []),
      ...(options.throughNlb
        ? [tcp('AppRtmp', RTMP_PORT, { securityGroup: 'NlbGroup' }, 'RTMP from the load balancer')]
        : ingestFrom.flatMap((cidr, index) => [
            tcp(`AppRtmp${index}`, RTMP_PORT, cidr, 'RTMP from encoders'),
            tcp(`AppRtmps${index}`, RTMPS_PORT, cidr, 'RTMPS from encoders'),
          ])),
      ...(operatorAddress === null || !network.appIsPublic
        ? []
        : [tcp('AppSsh', 22, operatorAddress, 'SSH from the operator')]),
    ],
    [everythingOut('App')],
  );
  group(
    'DatabaseGroup',
    'Database',
    [tcp('DatabaseIn', POSTGRES_PORT, fromApp, 'PostgreSQL from the hosts')],
    [nothingOut('Database')],
  );
  if (options.hasCache) {
    group(
      'CacheGroup',
      'Cache',
      [
        tcp('CacheIn', REDIS_PORT, fromApp, 'Redis from the hosts'),
        tcp('CachePeers', REDIS_PORT, { securityGroup: 'CacheGroup' }, 'Copies among its nodes'),
      ],
      [tcp('CachePeersOut', REDIS_PORT, { securityGroup: 'CacheGroup' }, 'Copies among its nodes')],
    );
  }
  if (options.isGroup) {
    group(
      'FilesGroup',
      'File system',
      [tcp('FilesIn', NFS_PORT, fromApp, 'NFS from the hosts')],
      [nothingOut('Files')],
    );
  }
}

/** RDS PostgreSQL in the data subnets; its password in a secret of RDS's own that changes every 30 days. */
export function drawDatabase(draft: Draft, network: Network): void {
  const { name, multiAz, backupDays, profile } = draft.deployment;
  const isProduction = profile.startsWith('production');
  const storageGb = 20;
  const copies = multiAz ? 2 : 1;
  draft.add('subnet-group', {
    ...{
      id: 'DatabaseSubnets',
      purpose: 'Where the database may be',
      for: 'database',
      name: `${name}-database`,
    },
    subnets: network.dataSubnets,
  });
  draft.add('parameter-group', {
    id: 'DatabaseParameters',
    purpose: 'TLS only; slow queries are logged',
    for: 'database',
    family: 'postgres17',
    parameters: { 'rds.force_ssl': '1', log_min_duration_statement: '1000', log_connections: '1' },
  });
  draft.add('database', {
    id: 'Database',
    tagRole: 'database',
    purpose: 'Accounts, channels, schedules, the ledger',
    pause: 'stop-database',
    prices: [
      perHour('rds/postgres/db.t3.micro/hour', copies),
      always('rds/gp3/gb-month', storageGb * copies),
      always('secret/month', 1),
    ],
    name: `${name}-database`,
    engine: 'postgres',
    engineVersion: '17',
    instanceClass: 'db.t3.micro',
    storageGb,
    multiAz,
    zone: multiAz ? null : (network.zones[0] ?? null),
    subnetGroup: 'DatabaseSubnets',
    parameterGroup: 'DatabaseParameters',
    securityGroups: ['DatabaseGroup'],
    databaseName: DATABASE_NAME,
    userName: DATABASE_USER,
    port: POSTGRES_PORT,
    encrypted: true,
    isPublic: false,
    backupDays,
    deletionProtection: isProduction,
    logExports: ['postgresql'],
    caCertificate: 'rds-ca-rsa2048-g1',
    managesPassword: true,
  });
  draft.add('rotation', {
    ...{ id: 'DatabaseRotation', purpose: 'A new password every 30 days', days: 30 },
    secret: ref('Database', 'secretArn'),
  });
}

/** ElastiCache: one node, in production a primary and a replica that takes over. */
export function drawCache(draft: Draft, network: Network, password: string | null): void {
  const { name, profile } = draft.deployment;
  const nodes = profile.startsWith('production') ? 2 : 1;
  draft.add('subnet-group', {
    ...{ id: 'CacheSubnets', purpose: 'Where the cache may be', for: 'cache', name: `${name}-cache` },
    subnets: network.dataSubnets,
  });
  draft.add('cache', {
    id: 'Cache',
    tagRole: 'cache',
    purpose: 'Rate limits and presence, which several coordinators share',
    pause: 'keeps-running',
    prices: [always('elasticache/redis/cache.t4g.micro/hour', nodes * HOURS_PER_MONTH)],
    name: `${name}-cache`,
    engine: 'redis',
    engineVersion: '7.1',
    nodeType: 'cache.t4g.micro',
    nodes,
    multiAz: nodes > 1,
    subnetGroup: 'CacheSubnets',
    securityGroups: ['CacheGroup'],
    port: REDIS_PORT,
    encryptedInTransit: true,
    encryptedAtRest: true,
    password,
    snapshotDays: nodes > 1 ? 1 : 0,
  });
}

/** The zone, and with `dnssec` the key that signs it. */
export function drawZone(draft: Draft): void {
  const { domain, dnssec, cloudFront } = draft.deployment;
  const stack = dnssec || cloudFront ? 'edge' : 'main';
  draft.add('zone', {
    ...{ id: 'Zone', stack, purpose: 'Names that stay', name: domain },
    prices: [always('route53/zone-month', 1)],
  });
  draft.add('record', {
    ...{ id: 'AuthorityRecord', stack, purpose: 'Who may issue certificates for the domain (RFC 8659)' },
    ...{ zone: 'Zone', name: domain, type: 'CAA', ttlSeconds: 3600 },
    target: { kind: 'values', values: ['0 issue "amazon.com"', '0 issue "letsencrypt.org"'] },
  });
  if (dnssec) {
    draft.add('zone-signing', {
      ...{ id: 'ZoneSigning', stack: 'edge', purpose: 'DNSSEC', zone: 'Zone' },
      keySigningKeyName: 'starling',
      prices: [always('kms/key-month', 1)],
    });
  }
}

/** Load balancer for HTTP: TLS, health checks, /live/ to the frontends and the rest to the coordinators. */
export function drawHttpBalancer(
  draft: Draft,
  network: Network,
  options: { targets: readonly string[]; targetType: 'instance' | 'ip'; lcuHours: number; hasZone: boolean },
): void {
  const { name, domain, profile, cloudFront } = draft.deployment;
  const isProduction = profile.startsWith('production');
  const { targets, targetType } = options;
  const host = cloudFront ? `origin.${domain}` : `watch.${domain}`;
  draft.add('certificate', {
    id: 'Certificate',
    purpose: 'TLS of the load balancers',
    domainName: host,
    alternativeNames: isProduction || draft.deployment.natGateway ? [`ingest.${domain}`] : [],
    zone: options.hasZone ? 'Zone' : null,
  });
  if (isProduction) {
    draft.add('bucket', {
      id: 'AccessLogs',
      purpose: 'Who asked for what, at the load balancer and the CDN',
      name: `${name}-access-logs-${ref('AWS', 'account')}-${ref('AWS', 'region')}`,
      holds: 'logs',
      versioned: false,
      transitions: [],
      lifecyclePrefix: '',
      expireDays: 90,
      logsTo: null,
    });
  }
  draft.add('load-balancer', {
    id: 'HttpBalancer',
    tagRole: 'balancer',
    purpose: 'Where viewers come in',
    pause: 'keeps-running',
    prices: [
      always('alb/hour', HOURS_PER_MONTH),
      assumed('alb/lcu-hour', options.lcuHours),
      always('ipv4/hour', 2 * HOURS_PER_MONTH),
    ],
    type: 'application',
    name: `${name}-http`,
    subnets: network.publicSubnets,
    securityGroups: ['AlbGroup'],
    // HTTP-FLV and events of the API stay open; a channel that is silent for two minutes is gone anyway.
    idleTimeoutSeconds: 120,
    dropInvalidHeaders: true,
    accessLogs: isProduction ? 'AccessLogs' : null,
    deletionProtection: isProduction,
  });
  const target = (id: string, short: string, port: number, purpose: string) =>
    draft.add('target-group', {
      ...{ id, purpose, name: `${name}-${short}`, vpc: 'Vpc', protocol: 'HTTP', port, targetType, targets },
      healthCheck: {
        ...{
          protocol: 'HTTP',
          path: '/readyz',
          port,
          intervalSeconds: 10,
          healthyCount: 2,
          unhealthyCount: 3,
        },
      },
      drainSeconds: 30,
    });
  target('FrontendTargets', 'frontends', FRONTEND_PORT, 'Frontends that are ready');
  target('CoordinatorTargets', 'coordinators', COORDINATOR_PORT, 'Coordinators that are ready');
  if (!cloudFront) {
    draft.add('listener', {
      ...{
        id: 'HttpListener',
        purpose: 'Redirects to HTTPS',
        loadBalancer: 'HttpBalancer',
        protocol: 'HTTP',
      },
      ...{ port: 80, certificate: null, tlsPolicy: null, rules: [] },
      action: { kind: 'redirect', protocol: 'HTTPS', port: 443 },
    });
  }
  draft.add('listener', {
    ...{
      id: 'HttpsListener',
      purpose: 'Site, API and media',
      loadBalancer: 'HttpBalancer',
      protocol: 'HTTPS',
    },
    port: 443,
    certificate: 'Certificate',
    tlsPolicy: 'ELBSecurityPolicy-TLS13-1-2-2021-06',
    action: { kind: 'forward', targetGroup: 'CoordinatorTargets' },
    rules: [{ id: 'MediaRule', priority: 10, paths: ['/live/*'], targetGroup: 'FrontendTargets' }],
  });
  if (options.hasZone) {
    draft.add('record', {
      ...{ id: cloudFront ? 'OriginRecord' : 'WatchRecord', purpose: `${host} leads to the load balancer` },
      ...{
        zone: 'Zone',
        name: host,
        type: 'A',
        ttlSeconds: 60,
        target: { kind: 'alias', id: 'HttpBalancer' },
      },
    });
  }
}

/** Load balancer for encoders: ends TLS on 1936, passes plain RTMP on. */
export function drawIngestBalancer(
  draft: Draft,
  network: Network,
  targetType: 'instance' | 'ip',
  targets: readonly string[],
): void {
  const { name, domain, profile } = draft.deployment;
  const isProduction = profile.startsWith('production');
  draft.add('load-balancer', {
    id: 'IngestBalancer',
    tagRole: 'ingest',
    purpose: 'Where encoders come in',
    pause: 'keeps-running',
    prices: [always('nlb/hour', HOURS_PER_MONTH), always('ipv4/hour', 2 * HOURS_PER_MONTH)],
    type: 'network',
    name: `${name}-ingest`,
    subnets: network.publicSubnets,
    securityGroups: ['NlbGroup'],
    idleTimeoutSeconds: null,
    dropInvalidHeaders: false,
    accessLogs: null,
    deletionProtection: isProduction,
  });
  draft.add('target-group', {
    ...{ id: 'IngestTargets', purpose: 'Backends that take encoders', name: `${name}-ingest`, vpc: 'Vpc' },
    ...{ protocol: 'TCP', port: RTMP_PORT, targetType, targets, drainSeconds: 10 },
    healthCheck: {
      ...{
        protocol: 'TCP',
        path: null,
        port: RTMP_PORT,
        intervalSeconds: 10,
        healthyCount: 2,
        unhealthyCount: 2,
      },
    },
  });
  draft.add('listener', {
    ...{
      id: 'RtmpListener',
      purpose: 'RTMP',
      loadBalancer: 'IngestBalancer',
      protocol: 'TCP',
      port: RTMP_PORT,
    },
    ...{
      certificate: null,
      tlsPolicy: null,
      action: { kind: 'forward', targetGroup: 'IngestTargets' },
      rules: [],
    },
  });
  draft.add('listener', {
    ...{
      id: 'RtmpsListener',
      purpose: 'RTMPS',
      loadBalancer: 'IngestBalancer',
      protocol: 'TLS',
      port: RTMPS_PORT,
    },
    ...{ certificate: 'Certificate', tlsPolicy: 'ELBSecurityPolicy-TLS13-1-2-2021-06', rules: [] },
    action: { kind: 'forward', targetGroup: 'IngestTargets' },
  });
  if (draft.resources.some(({ kind }) => kind === 'zone')) {
    draft.add('record', {
      ...{
        id: 'IngestRecord',
        purpose: 'ingest leads to the load balancer',
        zone: 'Zone',
        name: `ingest.${domain}`,
      },
      ...{ type: 'A', ttlSeconds: 60, target: { kind: 'alias', id: 'IngestBalancer' } },
    });
  }
}

/**
 * The web application firewall. Media is left out of the rate rule: one LL-HLS player asks four times a second, so a
 * household of two would be shut out by 2,000 requests in five minutes.
 * @param options.protects load balancers; of no account when it stands before the CDN
 */
export function drawFirewall(
  draft: Draft,
  options: { protects: readonly string[]; millionRequests: number; plane: Price['plane'] },
): void {
  const isEdge = draft.deployment.cloudFront;
  const rules: ResourceOf<'web-acl'>['rules'] = [
    { kind: 'rate', name: 'rate', priority: 10, per5Minutes: 2000, exceptPathPrefix: '/live/' },
    {
      ...{ kind: 'managed', name: 'common', priority: 20, group: 'AWSManagedRulesCommonRuleSet' },
      // Schedules and imports are larger than 8 KB; the API has its own bound.
      countOnly: ['SizeRestrictions_BODY'],
    },
    {
      kind: 'managed',
      name: 'known-bad-inputs',
      priority: 30,
      group: 'AWSManagedRulesKnownBadInputsRuleSet',
      countOnly: [],
    },
  ];
  draft.add('web-acl', {
    id: 'Firewall',
    stack: isEdge ? 'edge' : 'main',
    purpose: 'Keeps floods and known attacks from the API',
    prices: [
      always('waf/acl-month', 1),
      always('waf/rule-month', rules.length),
      assumed('waf/million-requests', options.millionRequests),
    ].map((price) => ({ ...price, plane: options.plane })),
    name: `${draft.deployment.name}-firewall`,
    scope: isEdge ? 'CLOUDFRONT' : 'REGIONAL',
    protects: isEdge ? [] : options.protects,
    rules,
  });
}

// Ids of AWS's own policies (Amazon CloudFront Developer Guide, "Use managed cache policies").
const CACHING_DISABLED = { managed: '4135ea2d-6df8-44a3-9df3-4b5a84be39ad', name: 'CachingDisabled' };
const ALL_VIEWER = { managed: '216adef6-5c7f-47e4-b989-5492eafa07d3', name: 'AllViewer' };

/**
 * The CDN. Segments and parts never change under their names and are kept for long; playlists are kept for a second and
 * told apart by LL-HLS's blocking parameters; everything else goes through.
 */
export function drawCdn(
  draft: Draft,
  options: { origin: Template; hasFirewall: boolean; logs: string | null; outGb: number },
): void {
  const { domain, name } = draft.deployment;
  draft.add('certificate', {
    ...{ id: 'ViewerCertificate', stack: 'edge', purpose: 'TLS of the CDN', domainName: `watch.${domain}` },
    ...{ alternativeNames: [], zone: 'Zone' },
  });
  draft.add('cache-policy', {
    id: 'SegmentCache',
    purpose: 'Segments and parts: a name always means the same bytes',
    name: `${name}-segments`,
    minTtlSeconds: 1,
    defaultTtlSeconds: 3600,
    maxTtlSeconds: 86_400,
    queryStrings: ['token'],
    headers: [],
  });
  draft.add('cache-policy', {
    id: 'PlaylistCache',
    purpose: 'Playlists: for a second, and one for each blocking request of LL-HLS',
    name: `${name}-playlists`,
    minTtlSeconds: 0,
    defaultTtlSeconds: 1,
    maxTtlSeconds: 2,
    queryStrings: ['_HLS_msn', '_HLS_part', '_HLS_skip', 'start', 'from', 'to', 'token'],
    headers: [],
  });
  const through = { cachePolicy: CACHING_DISABLED, originRequestPolicy: ALL_VIEWER };
  const segments = {
    cachePolicy: { id: 'SegmentCache' },
    originRequestPolicy: null,
    methods: 'read',
    compress: false,
  } as const;
  draft.add('distribution', {
    id: 'Cdn',
    purpose: 'Brings media close to viewers',
    prices: [assumed('cloudfront/out-gb', options.outGb)],
    aliases: [`watch.${domain}`],
    certificate: 'ViewerCertificate',
    minimumTls: 'TLSv1.2_2021',
    priceClass: 'PriceClass_100',
    webAcl: options.hasFirewall ? 'Firewall' : null,
    logBucket: options.logs,
    origin: {
      id: 'balancer',
      domainName: options.origin,
      protocol: 'https-only',
      httpPort: 80,
      httpsPort: 443,
      // A blocking playlist request waits for up to three target durations.
      readTimeoutSeconds: 30,
      keepaliveSeconds: 60,
    },
    behaviours: [
      { path: '/live/*.m4s', ...segments },
      { path: '/live/*.mp4', ...segments },
      { path: '/live/*.jpg', ...segments, cachePolicy: { id: 'PlaylistCache' } },
      { path: '/live/*.m3u8', ...segments, cachePolicy: { id: 'PlaylistCache' }, compress: true },
      { path: '*', ...through, methods: 'all', compress: true },
    ],
  });
  draft.add('record', {
    ...{
      id: 'WatchRecord',
      purpose: 'watch leads to the CDN',
      zone: 'Zone',
      name: `watch.${domain}`,
      type: 'A',
    },
    ...{ ttlSeconds: 60, target: { kind: 'alias', id: 'Cdn' } },
  });
}

/** Recordings, by the review's lifecycle; releases lie in it, too. */
export function drawStorage(draft: Draft): void {
  draft.add('bucket', {
    id: 'Storage',
    purpose: 'Recordings, and the releases that hosts install',
    prices: [assumed('s3/standard/gb-month', 0)],
    name: `${draft.deployment.name}-storage-${ref('AWS', 'account')}-${ref('AWS', 'region')}`,
    holds: 'recordings',
    versioned: true,
    lifecyclePrefix: 'recordings/',
    transitions: [
      { days: 30, storageClass: 'STANDARD_IA' },
      { days: 90, storageClass: 'GLACIER' },
      { days: 365, storageClass: 'DEEP_ARCHIVE' },
    ],
    expireDays: null,
    logsTo: draft.resources.some(({ id }) => id === 'AccessLogs') ? 'AccessLogs' : null,
  });
}

export type Statement = Role['statements'][number];

/** What a host of ours may do: its own secrets, its own log, releases and recordings. */
export function hostStatements(secrets: readonly Template[], extra: readonly Statement[] = []): Statement[] {
  return [
    {
      ...{ sid: 'Secrets', actions: ['secretsmanager:GetSecretValue'], resources: secrets, conditions: {} },
    },
    {
      sid: 'Log',
      actions: ['logs:CreateLogStream', 'logs:DescribeLogStreams', 'logs:PutLogEvents'],
      resources: [`${ref('LogGroup', 'arn')}:*`],
      conditions: {},
    },
    {
      ...{ sid: 'Releases', actions: ['s3:GetObject'], resources: [`${ref('Storage', 'arn')}/releases/*`] },
      conditions: {},
    },
    {
      sid: 'Recordings',
      actions: ['s3:GetObject', 's3:PutObject', 's3:AbortMultipartUpload'],
      resources: [`${ref('Storage', 'arn')}/recordings/*`],
      conditions: {},
    },
    ...extra,
  ].filter(({ resources }) => resources.length > 0);
}

/** The log of the services. */
export function drawLog(draft: Draft, retentionDays: number): void {
  draft.add('log-group', {
    ...{ id: 'LogGroup', purpose: 'What the services say', name: `/starling/${draft.deployment.name}/app` },
    retentionDays,
  });
}

/** Alarms on what our own log and AWS's metrics say. */
export function drawAlarms(
  draft: Draft,
  database: { dimension: string; id: string; maxConnections: number },
): void {
  const { name, alarmEmail } = draft.deployment;
  const namespace = `Starling/${name}`;
  draft.add('topic', {
    id: 'Alarms',
    purpose: 'Tells the operator',
    name: `${name}-alarms`,
    email: alarmEmail,
    publishers: ['cloudwatch.amazonaws.com', 'budgets.amazonaws.com', 'events.amazonaws.com'],
  });
  const fromLog = (id: string, pattern: string) =>
    draft.add('metric-filter', {
      ...{ id: `${id}Filter`, purpose: `Counts ${id}`, logGroup: 'LogGroup', pattern, namespace, metric: id },
    });
  const alarm = (
    id: string,
    description: string,
    metric: {
      namespace: string;
      metric: string;
      dimensions?: Record<string, Template>;
      statistic?: 'Sum' | 'Maximum';
    },
    threshold: number,
  ) =>
    draft.add('alarm', {
      ...{
        id: `${id}Alarm`,
        purpose: description,
        prices: [always('alarm/month', 1)],
        name: `${name}-${id}`,
      },
      description,
      namespace: metric.namespace,
      metric: metric.metric,
      dimensions: metric.dimensions ?? {},
      statistic: metric.statistic ?? 'Sum',
      periodSeconds: 300,
      evaluationPeriods: 1,
      threshold,
      comparison: 'GreaterThanOrEqualToThreshold',
      missingData: 'notBreaching',
      topic: 'Alarms',
    });
  fromLog('FailedLogins', '{ $.msg = "a login failed" }');
  alarm('FailedLogins', 'Ten logins failed within five minutes', { namespace, metric: 'FailedLogins' }, 10);
  fromLog('UnauthorisedAccess', '{ ($.msg = "RTMP publish refused") || ($.msg = "RTMP play refused") }');
  alarm(
    'UnauthorisedAccess',
    'Fifty publishers or players without a right were refused within five minutes',
    { namespace, metric: 'UnauthorisedAccess' },
    50,
  );
  fromLog(
    'ApiChanges',
    '{ ($.msg = "API token made") || ($.msg = "account added") || ($.msg = "account changed") || ($.msg = "stream key rotated") }',
  );
  alarm(
    'UnusualApiActivity',
    'Twenty accounts, tokens or keys were made or changed within five minutes',
    { namespace, metric: 'ApiChanges' },
    20,
  );
  alarm(
    'DatabaseConnections',
    'The database has nearly as many connections as it takes',
    {
      ...{ namespace: 'AWS/RDS', metric: 'DatabaseConnections', statistic: 'Maximum' },
      dimensions: { [database.dimension]: ref(database.id, 'name') },
    },
    database.maxConnections,
  );
}

/** Nobody behind the load balancer is ready: viewers see nothing. */
export function drawHealthAlarm(draft: Draft): void {
  const { name } = draft.deployment;
  draft.add('alarm', {
    ...{ id: 'UnhealthyHostsAlarm', purpose: 'A frontend is not ready', prices: [always('alarm/month', 1)] },
    name: `${name}-UnhealthyHosts`,
    description: 'A frontend is not ready',
    namespace: 'AWS/ApplicationELB',
    metric: 'UnHealthyHostCount',
    dimensions: {
      LoadBalancer: ref('HttpBalancer', 'fullName'),
      TargetGroup: ref('FrontendTargets', 'fullName'),
    },
    statistic: 'Maximum',
    periodSeconds: 60,
    evaluationPeriods: 3,
    threshold: 1,
    comparison: 'GreaterThanOrEqualToThreshold',
    missingData: 'notBreaching',
    topic: 'Alarms',
  });
}

export function drawThreatDetector(draft: Draft): void {
  if (!draft.deployment.guardDuty) return;
  draft.add('threat-detector', {
    ...{ id: 'ThreatDetector', purpose: 'GuardDuty', publishing: 'FIFTEEN_MINUTES' },
    prices: [assumed('guardduty/million-events', 0.25), assumed('guardduty/log-gb', 2)],
  });
}

export function drawBudget(draft: Draft): void {
  const { budgetUsd, alarmEmail, name } = draft.deployment;
  if (budgetUsd === null || alarmEmail === null) return;
  draft.add('budget', {
    ...{ id: 'Budget', purpose: 'Warns before it gets dear', name: `${name}-monthly`, limitUsd: budgetUsd },
    ...{ email: alarmEmail, thresholdsPercent: [80, 100] },
  });
}

/** A push to the branch may upload a release and prepare a change set; a person executes it. No pull request may. */
export function drawCi(draft: Draft, actions: readonly Statement[]): void {
  const { ci, name, region } = draft.deployment;
  if (ci === null) return;
  draft.add('oidc-provider', {
    id: 'GithubProvider',
    purpose: 'Lets GitHub say which repository and branch a job runs for',
    url: 'https://token.actions.githubusercontent.com',
    audiences: ['sts.amazonaws.com'],
  });
  draft.add('role', {
    id: 'CiRole',
    purpose: 'Rolls releases out from the branch',
    name: `${name}-${region}-ci`,
    trusts: {
      oidcProvider: 'GithubProvider',
      conditions: {
        'token.actions.githubusercontent.com:aud': 'sts.amazonaws.com',
        // A pull request's subject ends in `:pull_request`, whatever branch it comes from.
        'token.actions.githubusercontent.com:sub': `repo:${ci.repository}:ref:refs/heads/${ci.branch}`,
      },
    },
    managedPolicies: [],
    statements: actions,
    instanceProfile: null,
  });
}

export function logUsage(gb: number): Price {
  return assumed('logs/ingest-gb', gb);
}

/**
 * Days and hours of the deployment's schedule as EventBridge Scheduler's own calls, resource by resource. The role is there
 * without a schedule, too: `starling schedule` and `starling pause` need it.
 */
export function drawSchedules(draft: Draft): void {
  const { schedule, name, region } = draft.deployment;
  const calls: {
    subject: string;
    service: string;
    pause: [string, string];
    resume: [string, string];
    action: string[];
    arn: Template;
  }[] = [];
  for (const one of draft.resources) {
    if (one.kind === 'instance') {
      const input = `{"InstanceIds":["${ref(one.id, 'id')}"]}`;
      calls.push({
        ...{
          subject: one.id,
          service: 'ec2',
          pause: ['stopInstances', input],
          resume: ['startInstances', input],
        },
        action: ['ec2:StopInstances', 'ec2:StartInstances'],
        arn: `arn:${ref('AWS', 'partition')}:ec2:${ref('AWS', 'region')}:${ref('AWS', 'account')}:instance/${ref(one.id, 'id')}`,
      });
    } else if (one.kind === 'scaling-group') {
      const sizes = (minimum: number, desired: number) =>
        `{"AutoScalingGroupName":"${ref(one.id, 'name')}","MinSize":${minimum},"DesiredCapacity":${desired}}`;
      calls.push({
        ...{ subject: one.id, service: 'autoscaling' },
        pause: ['updateAutoScalingGroup', sizes(0, 0)],
        resume: ['updateAutoScalingGroup', sizes(one.minimum, one.desired)],
        action: ['autoscaling:UpdateAutoScalingGroup'],
        arn: `arn:${ref('AWS', 'partition')}:autoscaling:${ref('AWS', 'region')}:${ref('AWS', 'account')}:autoScalingGroup:*:autoScalingGroupName/${name}-*`,
      });
    } else if (one.kind === 'container-service') {
      const count = (desired: number) =>
        `{"Cluster":"${ref(one.cluster, 'name')}","Service":"${ref(one.id, 'name')}","DesiredCount":${desired}}`;
      calls.push({
        ...{ subject: one.id, service: 'ecs', pause: ['updateService', count(0)] },
        ...{
          resume: ['updateService', count(one.desired)],
          action: ['ecs:UpdateService'],
          arn: ref(one.id, 'arn'),
        },
      });
    } else if (one.kind === 'database') {
      const input = `{"DbInstanceIdentifier":"${ref(one.id, 'name')}"}`;
      calls.push({
        ...{
          subject: one.id,
          service: 'rds',
          pause: ['stopDBInstance', input],
          resume: ['startDBInstance', input],
        },
        ...{ action: ['rds:StopDBInstance', 'rds:StartDBInstance'], arn: ref(one.id, 'arn') },
      });
    } else if (one.kind === 'aurora-cluster') {
      const input = `{"DbClusterIdentifier":"${ref(one.id, 'name')}"}`;
      calls.push({
        ...{
          subject: one.id,
          service: 'rds',
          pause: ['stopDBCluster', input],
          resume: ['startDBCluster', input],
        },
        ...{ action: ['rds:StopDBCluster', 'rds:StartDBCluster'], arn: ref(one.id, 'arn') },
      });
    }
  }
  draft.add('role', {
    id: 'ScheduleRole',
    purpose: 'Pauses and resumes at the opening hours, and stops again what RDS starts after seven days',
    name: `${name}-${region}-schedule`,
    trusts: { service: 'scheduler.amazonaws.com', sourceAccountOnly: true },
    managedPolicies: [],
    statements: calls.map(({ subject, action, arn }) => ({
      ...{ sid: `Of${subject}`, actions: action, resources: [arn], conditions: {} },
    })),
    instanceProfile: null,
  });
  if (schedule === null) return;
  const week = ['SUN', 'MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT'];
  // A stop before the start of the day is the next morning's.
  const isNextDay = schedule.stop <= schedule.start;
  const stopDays = schedule.days.map((day) => (isNextDay ? (week[(week.indexOf(day) + 1) % 7] ?? day) : day));
  const cron = (time: string, days: readonly string[]) => {
    const [hour, minute] = time.split(':').map(Number);
    return `cron(${minute} ${hour} ? * ${days.length === 7 ? '*' : days.join(',')} *)`;
  };
  for (const { subject, service, pause, resume } of calls) {
    const one = (
      does: 'pause' | 'resume',
      time: string,
      days: readonly string[],
      [call, input]: [string, string],
    ) =>
      draft.add('schedule', {
        id: `${subject}${does === 'pause' ? 'Pause' : 'Resume'}`,
        purpose: `${does === 'pause' ? 'Pauses' : 'Resumes'} ${subject}`,
        name: `${name}-${does}-${subject}`,
        expression: cron(time, days),
        timeZone: schedule.timeZone,
        role: 'ScheduleRole',
        does,
        subject,
        call: `arn:aws:scheduler:::aws-sdk:${service}:${call}`,
        input,
      });
    one('pause', schedule.stop, stopDays, pause);
    one('resume', schedule.start, schedule.days, resume);
  }
}
