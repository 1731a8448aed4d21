/**
 * The StreamrP2P review's stages on hosts: `beta` and `gamma` on one, `production` on a group of one to five. Each host
 * has every role: encoders and files in at the backend, the timeline to the frontends, the API of the coordinator.
 *
 *   viewers --443--> (CDN -->) ALB --8080,8090--> host --5432,6379--> database, cache
 *   encoders --1935,1936--> host (by its own address), or --> NLB --1935--> host
 */
import type { StarlingConfig } from '../../config.ts';
import type { Deployment } from '../deployment.ts';
import { Draft } from '../draft.ts';
import { DATA_DIR, drawHost, NODE_TOKEN_PATH, SECRETS_DIR, SHARED_DIR, userDataWhole } from '../host.ts';
import { formatAddress, parseRange } from '../ipv4.ts';
import { type HostRole, type Plan, ref, type SecretFile } from '../plan.ts';
import { always, assumed, HOURS_PER_MONTH } from '../price.ts';
import { debian12, machinePrices } from './machine.ts';
import {
  COORDINATOR_PORT,
  DATABASE_NAME,
  drawAlarms,
  drawBudget,
  drawCache,
  drawCdn,
  drawCi,
  drawDatabase,
  drawFirewall,
  drawGroups,
  drawHealthAlarm,
  drawHttpBalancer,
  drawIngestBalancer,
  drawLog,
  drawNetwork,
  drawSchedules,
  drawStorage,
  drawThreatDetector,
  drawZone,
  FRONTEND_PORT,
  hostStatements,
  logUsage,
  type Network,
  PUSH_PORT,
  RTMP_PORT,
  RTMPS_PORT,
  type Statement,
} from './parts.ts';

const HOST_ROLES: readonly HostRole[] = ['coordinator', 'backend', 'frontend'];
/** Of the single host, in its subnet. */
const HOST_OFFSET = 10;
/** Nine of ten connections that a db.t3.micro takes: 1 GiB / 9,531,392 bytes, less those that RDS keeps. */
const MAX_CONNECTIONS = 90;

/** What the review asks for, stage by stage. */
const stages = {
  // On the air with as little as it takes; HTTPS and the private database are not up for choice.
  beta: { hasZone: false, hasAlarms: false, detailed: false, lcuHours: 0.2, diskGb: 8, logGb: 1, flowGb: 0 },
  // Friends are testing: names that stay, alarms, flow logs.
  gamma: { hasZone: true, hasAlarms: true, detailed: true, lcuHours: 0.2, diskGb: 8, logGb: 1, flowGb: 2 },
  production: {
    hasZone: true,
    hasAlarms: true,
    detailed: true,
    lcuHours: 1,
    diskGb: 20,
    logGb: 5,
    flowGb: 3,
  },
} as const;

export function drawApp(deployment: Deployment): Plan {
  const draft = new Draft(deployment);
  const { domain, natGateway, cloudFront, name } = deployment;
  const profile = deployment.profile as keyof typeof stages;
  const stage = stages[profile];
  const isGroup = profile === 'production';
  const network = drawNetwork(draft, { offersHttp: !cloudFront });
  drawGroups(draft, network, { throughNlb: natGateway, isGroup, hasCache: true });
  if (stage.hasZone) drawZone(draft);
  drawHttpBalancer(draft, network, {
    targets: isGroup ? [] : ['App'],
    targetType: 'instance',
    lcuHours: stage.lcuHours * HOURS_PER_MONTH,
    hasZone: stage.hasZone,
  });
  if (natGateway) drawIngestBalancer(draft, network, 'instance', isGroup ? [] : ['App']);
  drawStorage(draft);
  drawLog(draft, isGroup ? 90 : 30);
  drawDatabase(draft, network);
  if (isGroup) {
    draft.add('secret', {
      id: 'AppSecret',
      purpose: "The cache's password; tokens among the hosts are derived from it",
      prices: [always('secret/month', 1)],
      name: `${name}-app`,
      description: 'Starling: password of the cache, root of the tokens among hosts',
      lengthChars: 64,
    });
  }
  drawCache(draft, network, isGroup ? 'AppSecret' : null);
  drawHosts(draft, network, {
    isGroup,
    detailed: stage.detailed,
    diskGb: stage.diskGb,
    hasZone: stage.hasZone,
  });
  if (isGroup) drawFirewall(draft, { protects: ['HttpBalancer'], millionRequests: 4 / 3, plane: 'all' });
  if (cloudFront) {
    const logs = isGroup ? 'AccessLogs' : null;
    drawCdn(draft, { origin: `origin.${domain}`, hasFirewall: isGroup, logs, outGb: 0 });
  }
  drawThreatDetector(draft);
  if (stage.hasAlarms) {
    drawAlarms(draft, { dimension: 'DBInstanceIdentifier', id: 'Database', maxConnections: MAX_CONNECTIONS });
    drawHealthAlarm(draft);
  }
  drawBudget(draft);
  drawCi(draft, releaseStatements(name, isGroup));
  drawSchedules(draft);

  const carriers = [isGroup ? 'AppGroupOfHosts' : 'App'];
  return {
    format: 1,
    deployment,
    zones: network.zones,
    resources: draft.resources,
    placement: {
      ingest: carriers,
      playout: carriers,
      frontends: carriers,
      coordinators: carriers,
      watchUrl: `https://watch.${domain}/`,
      ingestUrl:
        stage.hasZone || natGateway
          ? `rtmps://ingest.${domain}:${RTMPS_PORT}/live`
          : `rtmps://${ref('IngestAddress', 'publicIp')}:${RTMPS_PORT}/live`,
      reasons: [
        'Every role is on every host: the sums of the review have one host, and a frontend beside its backend costs no traffic.',
        natGateway
          ? 'Hosts have no public address: encoders come in through a network load balancer, which ends their TLS with the certificate of ingest.'
          : 'An application load balancer passes no RTMP on, so encoders reach the host by a public address of its own.',
        ...(isGroup && !natGateway
          ? [
              'The address of ingest belongs to no host: one takes it when nobody has it, within a minute of its holder’s end.',
            ]
          : []),
        ...(isGroup
          ? [
              'The library is on a file system that all hosts see, so that a replaced host has it at once.',
              'Hosts of the group join the network by themselves: each backend pushes to every frontend, and passes encoders on to the host that has their channel.',
            ]
          : []),
        ...(stage.hasZone
          ? []
          : [
              'The zone of the domain is elsewhere: the operator sets watch as a CNAME of the load balancer there, and the CNAME by which the certificate proves itself.',
            ]),
      ],
    },
    usage: [logUsage(stage.logGb + stage.flowGb)],
    outputs: {
      schedulerRoleArn: {
        value: ref('ScheduleRole', 'arn'),
        description: 'What `starling schedule` lets EventBridge Scheduler act as',
      },
      watchUrl: { value: `https://watch.${domain}/`, description: 'For viewers' },
      balancerName: { value: ref('HttpBalancer', 'dnsName'), description: 'Of the load balancer' },
      ...(natGateway
        ? { ingestName: { value: ref('IngestBalancer', 'dnsName'), description: 'Where encoders come in' } }
        : {
            ingestAddress: { value: ref('IngestAddress', 'publicIp'), description: 'Where encoders come in' },
          }),
      databaseSecret: {
        value: ref('Database', 'secretArn'),
        description: "The database's password is in it",
      },
      storage: { value: ref('Storage', 'name'), description: 'Releases and recordings' },
      ...(stage.hasZone
        ? { nameServers: { value: ref('Zone', 'nameServers'), description: "For the domain's registrar" } }
        : {}),
    },
  };
}

function drawHosts(
  draft: Draft,
  network: Network,
  options: { isGroup: boolean; detailed: boolean; diskGb: number; hasZone: boolean },
): void {
  const { deployment } = draft;
  const { name, region, natGateway, ssm, domain, instanceTypes } = deployment;
  const { isGroup } = options;
  const type = instanceTypes.app;
  if (!ssm) {
    draft.add('key-pair', {
      ...{ id: 'InstancesKey', purpose: 'SSH to the hosts', name: `${name}-instances`, of: 'instances' },
      publicKey: deployment.keys.instances,
    });
  }
  if (!natGateway) {
    draft.add('address', {
      id: 'IngestAddress',
      purpose: 'Where encoders come in; stays after a stop',
      interface: isGroup ? null : 'AppInterface',
      prices: [always('ipv4/hour', HOURS_PER_MONTH)],
    });
    if (options.hasZone) {
      draft.add('record', {
        ...{
          id: 'IngestRecord',
          purpose: 'ingest leads to the host',
          zone: 'Zone',
          name: `ingest.${domain}`,
        },
        ...{
          type: 'A',
          ttlSeconds: 60,
          target: { kind: 'values', values: [ref('IngestAddress', 'publicIp')] },
        },
      });
    }
  }
  if (isGroup) {
    draft.add('file-system', {
      id: 'Files',
      purpose: 'Library and recordings, which every host sees',
      prices: [assumed('efs/gb-month', 1)],
      encrypted: true,
      subnets: network.appSubnets,
      securityGroups: ['FilesGroup'],
      accessPoint: null,
    });
  }
  const takesAddress = isGroup && !natGateway;
  const extra: Statement[] = takesAddress
    ? [
        {
          sid: 'IngestAddress',
          actions: ['ec2:AssociateAddress'],
          resources: [
            arn('ec2', `elastic-ip/${ref('IngestAddress', 'id')}`),
            arn('ec2', 'instance/*'),
            arn('ec2', 'network-interface/*'),
          ],
          conditions: { StringEquals: { 'aws:ResourceTag/starling:deployment': name } },
        },
        // DescribeAddresses takes no resource (Service Authorization Reference, Amazon EC2).
        { sid: 'LookAtAddresses', actions: ['ec2:DescribeAddresses'], resources: ['*'], conditions: {} },
      ]
    : [];
  draft.add('role', {
    id: 'HostRole',
    purpose: 'What a host may do',
    name: `${name}-${region}-host`,
    trusts: { service: 'ec2.amazonaws.com', sourceAccountOnly: false },
    managedPolicies: ssm ? ['AmazonSSMManagedInstanceCore'] : [],
    statements: hostStatements(
      [ref('Database', 'secretArn'), ...(isGroup ? [ref('AppSecret', 'arn')] : [])],
      extra,
    ),
    instanceProfile: 'HostProfile',
  });

  const releaseUri = `s3://${ref('Storage', 'name')}/releases/starling.tar.gz`;
  const token = (file: string): SecretFile => ({
    path: `${SECRETS_DIR}/${file}`,
    from: isGroup
      ? { kind: 'token', secret: ref('AppSecret', 'arn'), label: file.replace('.token', '') }
      : { kind: 'made-here' },
  });
  const host = drawHost({
    hostname: isGroup ? 'app' : 'app-0',
    roles: HOST_ROLES,
    config: appConfig({
      ...{ network, hasRedis: true, isBehindProxy: false },
      isOfGroup: isGroup,
    }),
    secretFiles: [
      token('operator.token'),
      token('node.token'),
      ...(isGroup ? [] : [token('publish.token')]),
      {
        path: `${SECRETS_DIR}/database.url`,
        from: {
          ...{ kind: 'database', secret: ref('Database', 'secretArn'), host: ref('Database', 'endpoint') },
          database: DATABASE_NAME,
        },
      },
      {
        path: `${SECRETS_DIR}/redis.url`,
        from: {
          kind: 'cache',
          secret: isGroup ? ref('AppSecret', 'arn') : null,
          host: ref('Cache', 'endpoint'),
        },
      },
    ],
    ingress: draft.get('security-group', 'AppGroup').ingress,
    // Load balancers have addresses in the public subnets, and the hosts' groups are one range each.
    rangesOfGroup: (group) => (group === 'AppGroup' ? network.appRanges : network.publicRanges),
    region,
    logGroup: `/starling/${name}/app`,
    ...(takesAddress ? { takesAddress: ref('IngestAddress', 'id') } : {}),
    ...(isGroup ? { fileSystem: ref('Files', 'id'), isOfGroup: true } : {}),
  });
  const machine = {
    ...debian12,
    instanceType: type,
    rootVolume: { sizeGb: options.diskGb, type: 'gp3', encrypted: true },
    instanceRole: 'HostRole',
    keyPair: ssm ? null : 'InstancesKey',
    detailedMonitoring: options.detailed,
    cpuCredits: 'standard',
    host,
    userData: userDataWhole(host, { region, releaseUri, hasSsm: ssm }),
  } as const;
  const prices = [
    ...machinePrices(type, options.diskGb),
    ...(options.detailed ? [always('detailed-monitoring/instance-month', 1)] : []),
  ];
  if (!isGroup) {
    const base = parseRange(deployment.vpcCidr)?.first ?? 0;
    draft.add('instance', {
      ...machine,
      id: 'App',
      tagRole: 'app',
      purpose: 'Coordinator, backend and frontend',
      pause: 'stop-instance',
      prices,
      zone: network.zones[0] ?? '',
      terminationProtection: true,
    });
    draft.add('interface', {
      id: 'AppInterface',
      purpose: 'app-0',
      subnet: network.appSubnets[0] ?? '',
      privateIp: formatAddress(base + (natGateway ? 0x4000 : 0) + HOST_OFFSET),
      securityGroups: ['AppGroup'],
      sourceDestCheck: true,
      instance: 'App',
      deviceIndex: 0,
    });
    return;
  }
  draft.add('launch-template', {
    ...machine,
    id: 'AppTemplate',
    tagRole: 'app',
    purpose: 'Coordinator, backend and frontend',
    securityGroups: ['AppGroup'],
    // Without one a host reaches nothing before it has the address of ingest, and most never have that.
    hasPublicAddress: !natGateway,
  });
  draft.add('scaling-group', {
    id: 'AppGroupOfHosts',
    tagRole: 'app',
    purpose: 'Hosts, as many as the load asks for',
    pause: 'group-to-zero',
    prices,
    launchTemplate: 'AppTemplate',
    subnets: network.appSubnets,
    minimum: 1,
    maximum: 5,
    desired: 1,
    targetGroups: ['FrontendTargets', 'CoordinatorTargets', ...(natGateway ? ['IngestTargets'] : [])],
    healthCheck: 'ELB',
    healthCheckGraceSeconds: 300,
    targetCpuPercent: 70,
    notifies: 'Alarms',
  });
}

function arn(service: string, resource: string): string {
  return `arn:${ref('AWS', 'partition')}:${service}:${ref('AWS', 'region')}:${ref('AWS', 'account')}:${resource}`;
}

export interface AppConfigInput {
  readonly network: Pick<Network, 'publicRanges'>;
  /** One of several hosts that are made alike and come and go: backends push to the frontends of all. */
  readonly isOfGroup: boolean;
  readonly hasRedis: boolean;
  /** A balancer on the host itself is the only one that asks. */
  readonly isBehindProxy: boolean;
}

/** The configuration of a host with every role, each of which speaks to the coordinator beside it. */
export function appConfig({ network, isOfGroup, hasRedis, isBehindProxy }: AppConfigInput) {
  const url = `http://127.0.0.1:${COORDINATOR_PORT}`;
  const coordinator = isOfGroup ? { url, advertise: 'auto' } : { url, tokenFile: NODE_TOKEN_PATH };
  const publishTokenFile = `${SECRETS_DIR}/publish.token`;
  const loopback = { host: '127.0.0.1' };
  const shared = isOfGroup
    ? { mediaDir: `${SHARED_DIR}/media`, recordingsDir: `${SHARED_DIR}/recordings` }
    : {};
  return {
    coordinator: {
      dataDir: `${DATA_DIR}/coordinator`,
      ...shared,
      http: { host: isBehindProxy ? '127.0.0.1' : '0.0.0.0', port: COORDINATOR_PORT },
      operatorTokenFile: `${SECRETS_DIR}/operator.token`,
      nodeTokenFile: NODE_TOKEN_PATH,
      databaseUrlFile: `${SECRETS_DIR}/database.url`,
      ...(hasRedis ? { redisUrlFile: `${SECRETS_DIR}/redis.url` } : {}),
      ...(isOfGroup ? { group: true } : {}),
    },
    backend: {
      dataDir: `${DATA_DIR}/backend`,
      ...shared,
      rtmp: { port: RTMP_PORT },
      rtmps: { port: RTMPS_PORT },
      coordinator,
      ...(isOfGroup ? {} : { frontends: [{ ...loopback, port: PUSH_PORT, publishTokenFile }] }),
    },
    frontend: {
      http: {
        ...(isBehindProxy ? loopback : { trustedProxies: [...network.publicRanges] }),
        port: FRONTEND_PORT,
      },
      rtmp: { ...(isOfGroup ? {} : loopback), port: PUSH_PORT },
      ...(isOfGroup ? {} : { publishTokenFile }),
      coordinator,
      dataDir: `${DATA_DIR}/frontend`,
    },
  } satisfies StarlingConfig;
}

/** A job of the branch may upload a release, have hosts take it, and prepare a change set. */
function releaseStatements(name: string, isGroup: boolean): Statement[] {
  const stacks = arn('cloudformation', `stack/${name}-*/*`);
  return [
    {
      ...{ sid: 'Release', actions: ['s3:PutObject'], resources: [`${ref('Storage', 'arn')}/releases/*`] },
      conditions: {},
    },
    {
      sid: 'PrepareChangeSet',
      actions: [
        'cloudformation:CreateChangeSet',
        'cloudformation:DescribeChangeSet',
        'cloudformation:DescribeStacks',
      ],
      resources: [stacks],
      conditions: {},
    },
    ...(isGroup
      ? [
          {
            sid: 'RollOut',
            actions: ['autoscaling:StartInstanceRefresh'],
            resources: [arn('autoscaling', `autoScalingGroup:*:autoScalingGroupName/${name}-*`)],
            conditions: {},
          },
        ]
      : []),
  ];
}
