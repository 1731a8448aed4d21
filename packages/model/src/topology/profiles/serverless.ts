/**
 * The review's serverless-heavy stage: Aurora Serverless for the database, API Gateway, Lambda and DynamoDB for what is
 * asked while the media host is paused, the CDN for viewers. Media itself has no serverless form that is not MediaLive,
 * at $2,270 a month and channel: one host carries it, and is priced apart.
 *
 *   viewers --443--> CDN --443--> host          programs --443--> HTTP API --> Lambda --> DynamoDB
 *   encoders --1935,1936--> host, or --> MediaLive --1935--> host
 */
import type { Deployment } from '../deployment.ts';
import { Draft } from '../draft.ts';
import { DATA_DIR, drawHost, SECRETS_DIR, userDataWhole } from '../host.ts';
import { formatAddress, parseRange } from '../ipv4.ts';
import { type Plan, type Rule, ref, type SecretFile } from '../plan.ts';
import { always, assumed, HOURS_PER_MONTH, type Price, perHour } from '../price.ts';
import { appConfig } from './app.ts';
import { debian12, machinePrices } from './machine.ts';
import {
  ANYWHERE,
  COORDINATOR_PORT,
  cdn,
  DATABASE_NAME,
  DATABASE_USER,
  drawAlarms,
  drawBudget,
  drawCdn,
  drawCi,
  drawFirewall,
  drawLog,
  drawNetwork,
  drawSchedules,
  drawStorage,
  drawThreatDetector,
  drawZone,
  everythingOut,
  FRONTEND_PORT,
  hostStatements,
  logUsage,
  type Network,
  nothingOut,
  POSTGRES_PORT,
  RTMP_PORT,
  RTMPS_PORT,
  tcp,
} from './parts.ts';
import { streamEventsCode } from './stream-events.ts';

const HOST_OFFSET = 10;
const DISK_GB = 20;
const MAX_ACU = 16;
/** Of Aurora at half a unit, as AWS lists it for 1 GiB. */
const MAX_CONNECTIONS = 150;

export function drawServerless(deployment: Deployment): Plan {
  const draft = new Draft(deployment);
  const { domain, name, region, cloudFront, operatorAddress, ingestFrom } = deployment;
  const network = drawNetwork(draft, { offersHttp: true });
  const watchHost = cloudFront ? `origin.${domain}` : `watch.${domain}`;
  const group = (id: string, description: string, ingress: readonly Rule[], egress: readonly Rule[]) =>
    draft.add('security-group', {
      ...{ id, purpose: description, vpc: 'Vpc', name: `${name}-${id.replace('Group', '').toLowerCase()}` },
      ...{ description, ingress, egress },
    });
  group(
    'AppGroup',
    'Media host',
    [
      tcp('AppHttp', 80, ANYWHERE, 'HTTP: ACME, redirects'),
      tcp(
        'AppHttps',
        443,
        cloudFront ? cdn(region) : ANYWHERE,
        cloudFront ? 'HTTPS from the CDN' : 'HTTPS from viewers',
      ),
      ...ingestFrom.flatMap((cidr, index) => [
        tcp(`AppRtmp${index}`, RTMP_PORT, cidr, 'RTMP from encoders'),
        tcp(`AppRtmps${index}`, RTMPS_PORT, cidr, 'RTMPS from encoders'),
      ]),
      ...(operatorAddress === null ? [] : [tcp('AppSsh', 22, operatorAddress, 'SSH from the operator')]),
    ],
    [everythingOut('App')],
  );
  group(
    'DatabaseGroup',
    'Database',
    [tcp('DatabaseIn', POSTGRES_PORT, { securityGroup: 'AppGroup' }, 'PostgreSQL from the host')],
    [nothingOut('Database')],
  );
  drawZone(draft);
  drawStorage(draft);
  drawLog(draft, 90);
  drawAurora(draft, network);
  drawMediaHost(draft, network, watchHost);
  drawFunction(draft);
  if (deployment.mediaLive) drawMediaLive(draft);
  if (cloudFront) {
    drawFirewall(draft, { protects: [], millionRequests: 0, plane: 'media' });
    drawCdn(draft, { origin: watchHost, hasFirewall: true, logs: null, outGb: 1024 * 1.14 });
  }
  draft.add('record', {
    ...{
      id: 'HostRecord',
      purpose: `${watchHost} leads to the host`,
      zone: 'Zone',
      name: watchHost,
      type: 'A',
    },
    ...{ ttlSeconds: 60, target: { kind: 'values', values: [ref('IngestAddress', 'publicIp')] } },
  });
  drawThreatDetector(draft);
  drawAlarms(draft, { dimension: 'DBClusterIdentifier', id: 'Aurora', maxConnections: MAX_CONNECTIONS });
  drawBudget(draft);
  drawCi(draft, [
    {
      ...{ sid: 'Release', actions: ['s3:PutObject'], resources: [`${ref('Storage', 'arn')}/releases/*`] },
      conditions: {},
    },
  ]);
  drawSchedules(draft);
  return {
    format: 1,
    deployment,
    zones: network.zones,
    resources: draft.resources,
    placement: {
      ingest: deployment.mediaLive ? ['MediaLive', 'Media'] : ['Media'],
      playout: ['Media'],
      frontends: ['Media'],
      coordinators: ['Media'],
      watchUrl: `https://watch.${domain}/`,
      ingestUrl: deployment.mediaLive
        ? ref('MediaLive', 'endpoint')
        : `rtmps://ingest.${domain}:${RTMPS_PORT}/live`,
      reasons: [
        'A channel is a process that never ends, and Lambda ends after 15 minutes: ingest, playout, frontends and coordinator are on one host, the media plane, which is priced apart from the control plane of the review.',
        'Lambda and DynamoDB serve what has to answer while the host is paused: what is on, told by signed webhooks.',
        'The host has a balancer of its own for TLS, since the sums have no load balancer; the CDN asks it by HTTPS.',
      ],
    },
    usage: [logUsage(5)],
    outputs: {
      schedulerRoleArn: {
        value: ref('ScheduleRole', 'arn'),
        description: 'What `starling schedule` lets EventBridge Scheduler act as',
      },
      watchUrl: { value: `https://watch.${domain}/`, description: 'For viewers' },
      ingestAddress: { value: ref('IngestAddress', 'publicIp'), description: 'Where encoders come in' },
      api: {
        value: ref('Api', 'endpoint'),
        description: 'GET /streams: what is on. POST /events: for the webhook',
      },
      webhookSecret: { value: ref('WebhookSecret', 'arn'), description: "The webhook's secret is put here" },
      databaseSecret: { value: ref('Aurora', 'secretArn'), description: "The database's password is in it" },
      storage: { value: ref('Storage', 'name'), description: 'Releases and recordings' },
      nameServers: { value: ref('Zone', 'nameServers'), description: "For the domain's registrar" },
    },
  };
}

function drawAurora(draft: Draft, network: Network): void {
  const { name, auroraMinAcu, backupDays } = draft.deployment;
  // At 0 it pauses when nobody asks: eight hours a day at half a unit, as the review's schedule has it.
  const acuHours = auroraMinAcu > 0 ? auroraMinAcu * HOURS_PER_MONTH : 0.5 * (HOURS_PER_MONTH / 3);
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
    ...{ id: 'DatabaseParameters', purpose: 'TLS only', for: 'cluster', family: 'aurora-postgresql16' },
    parameters: { 'rds.force_ssl': '1' },
  });
  draft.add('aurora-cluster', {
    id: 'Aurora',
    tagRole: 'database',
    purpose: 'Accounts, channels, schedules, the ledger',
    pause: 'stop-cluster',
    prices: [
      auroraMinAcu > 0
        ? { key: 'aurora/acu-hour', quantity: acuHours, while: 'running', plane: 'all' }
        : assumed('aurora/acu-hour', acuHours),
      always('aurora/gb-month', 1),
      always('secret/month', 1),
    ],
    name: `${name}-aurora`,
    engineVersion: '16.6',
    minAcu: auroraMinAcu,
    maxAcu: MAX_ACU,
    pauseAfterSeconds: auroraMinAcu === 0 ? 300 : null,
    subnetGroup: 'DatabaseSubnets',
    parameterGroup: 'DatabaseParameters',
    securityGroups: ['DatabaseGroup'],
    databaseName: DATABASE_NAME,
    userName: DATABASE_USER,
    port: POSTGRES_PORT,
    encrypted: true,
    isPublic: false,
    backupDays,
    deletionProtection: true,
    logExports: ['postgresql'],
    managesPassword: true,
    writer: { id: 'AuroraWriter', zone: network.zones[0] ?? '' },
  });
  draft.add('rotation', {
    ...{ id: 'DatabaseRotation', purpose: 'A new password every 30 days', days: 30 },
    secret: ref('Aurora', 'secretArn'),
  });
}

function drawMediaHost(draft: Draft, network: Network, watchHost: string): void {
  const { deployment } = draft;
  const { name, region, ssm, domain, instanceTypes } = deployment;
  const ofMedia = (prices: readonly Price[]) => prices.map((price): Price => ({ ...price, plane: 'media' }));
  if (!ssm) {
    draft.add('key-pair', {
      ...{ id: 'InstancesKey', purpose: 'SSH to the host', name: `${name}-instances`, of: 'instances' },
      publicKey: deployment.keys.instances,
    });
  }
  draft.add('address', {
    ...{ id: 'IngestAddress', purpose: 'Where the CDN and encoders come in', interface: 'MediaInterface' },
    prices: ofMedia([always('ipv4/hour', HOURS_PER_MONTH)]),
  });
  draft.add('record', {
    ...{
      id: 'IngestRecord',
      purpose: 'ingest leads to the host',
      zone: 'Zone',
      name: `ingest.${domain}`,
      type: 'A',
    },
    ...{ ttlSeconds: 60, target: { kind: 'values', values: [ref('IngestAddress', 'publicIp')] } },
  });
  draft.add('role', {
    id: 'HostRole',
    purpose: 'What the host may do',
    name: `${name}-${region}-host`,
    trusts: { service: 'ec2.amazonaws.com', sourceAccountOnly: false },
    managedPolicies: ssm ? ['AmazonSSMManagedInstanceCore'] : [],
    statements: hostStatements([ref('Aurora', 'secretArn')]),
    instanceProfile: 'HostProfile',
  });
  const token = (file: string): SecretFile => ({
    path: `${SECRETS_DIR}/${file}`,
    from: { kind: 'made-here' },
  });
  const { coordinator, backend, frontend } = appConfig({
    network,
    isOfGroup: false,
    hasRedis: false,
    isBehindProxy: true,
  });
  const host = drawHost({
    hostname: 'media',
    roles: ['balancer', 'coordinator', 'backend', 'frontend'],
    config: {
      coordinator,
      backend,
      frontend,
      balancer: {
        dataDir: `${DATA_DIR}/balancer`,
        names: [watchHost, `watch.${domain}`],
        frontends: [{ host: '127.0.0.1', port: FRONTEND_PORT }],
        site: { host: '127.0.0.1', port: COORDINATOR_PORT },
        acme: deployment.alarmEmail === null ? {} : { email: deployment.alarmEmail },
      },
    },
    secretFiles: [
      token('operator.token'),
      token('node.token'),
      token('publish.token'),
      {
        path: `${SECRETS_DIR}/database.url`,
        from: {
          ...{ kind: 'database', secret: ref('Aurora', 'secretArn'), host: ref('Aurora', 'endpoint') },
          database: DATABASE_NAME,
        },
      },
    ],
    ingress: draft.get('security-group', 'AppGroup').ingress,
    region,
    logGroup: `/starling/${name}/app`,
  });
  draft.add('instance', {
    ...debian12,
    id: 'Media',
    tagRole: 'app',
    purpose: 'Ingest, playout, frontend and coordinator',
    pause: 'stop-instance',
    prices: ofMedia(machinePrices(instanceTypes.app, DISK_GB)),
    zone: network.zones[0] ?? '',
    instanceType: instanceTypes.app,
    rootVolume: { sizeGb: DISK_GB, type: 'gp3', encrypted: true },
    instanceRole: 'HostRole',
    keyPair: ssm ? null : 'InstancesKey',
    detailedMonitoring: false,
    terminationProtection: true,
    cpuCredits: 'standard',
    host,
    userData: userDataWhole(host, {
      ...{ region, hasSsm: ssm },
      releaseUri: `s3://${ref('Storage', 'name')}/releases/starling.tar.gz`,
    }),
  });
  draft.add('interface', {
    id: 'MediaInterface',
    purpose: 'media',
    subnet: network.publicSubnets[0] ?? '',
    privateIp: formatAddress((parseRange(deployment.vpcCidr)?.first ?? 0) + HOST_OFFSET),
    securityGroups: ['AppGroup'],
    sourceDestCheck: true,
    instance: 'Media',
    deviceIndex: 0,
  });
}

function drawFunction(draft: Draft): void {
  const { name, region } = draft.deployment;
  draft.add('table', {
    id: 'Streams',
    purpose: 'What every stream and channel is doing',
    // The review's own assumption: ten million writes and eight million reads.
    prices: [assumed('dynamodb/million-writes', 10), assumed('dynamodb/million-reads', 8)],
    name: `${name}-streams`,
    partitionKey: 'kind',
    sortKey: 'name',
    expiryAttribute: null,
    pointInTimeRecovery: true,
  });
  draft.add('secret', {
    id: 'WebhookSecret',
    purpose: "The webhook's secret, which the API shows once; until it is put here nothing is taken",
    prices: [always('secret/month', 1)],
    name: `${name}-webhook`,
    description: 'Starling: with it the network signs its webhooks',
    lengthChars: 64,
  });
  draft.add('log-group', {
    ...{ id: 'FunctionLog', purpose: 'What the function says', name: `/aws/lambda/${name}-streams` },
    retentionDays: 30,
  });
  draft.add('role', {
    id: 'FunctionRole',
    purpose: 'What the function may do',
    name: `${name}-${region}-streams`,
    trusts: { service: 'lambda.amazonaws.com', sourceAccountOnly: false },
    managedPolicies: [],
    statements: [
      {
        sid: 'Table',
        actions: ['dynamodb:PutItem', 'dynamodb:Query'],
        resources: [ref('Streams', 'arn')],
        conditions: {},
      },
      {
        ...{
          sid: 'Secret',
          actions: ['secretsmanager:GetSecretValue'],
          resources: [ref('WebhookSecret', 'arn')],
        },
        conditions: {},
      },
      {
        sid: 'Log',
        actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
        resources: [`${ref('FunctionLog', 'arn')}:*`],
        conditions: {},
      },
    ],
    instanceProfile: null,
  });
  draft.add('function', {
    id: 'StreamEvents',
    purpose: 'Takes webhooks, and says what is on',
    prices: [assumed('lambda/million-requests', 8), assumed('lambda/gb-second', 12_000)],
    name: `${name}-streams`,
    runtime: 'nodejs22.x',
    architecture: 'arm64',
    handler: 'index.handler',
    code: streamEventsCode,
    memoryMb: 128,
    timeoutSeconds: 10,
    reservedConcurrency: 20,
    role: 'FunctionRole',
    logGroup: 'FunctionLog',
    environment: { TABLE: ref('Streams', 'name'), SECRET: ref('WebhookSecret', 'arn') },
  });
  draft.add('log-group', {
    ...{ id: 'ApiLog', purpose: 'Who asked the HTTP API', name: `/starling/${name}/api`, retentionDays: 30 },
  });
  draft.add('http-api', {
    id: 'Api',
    purpose: 'The way to the function',
    prices: [assumed('http-api/million-requests', 8)],
    name: `${name}-api`,
    function: 'StreamEvents',
    routes: [
      { id: 'EventsRoute', method: 'POST', path: '/events' },
      { id: 'StreamsRoute', method: 'GET', path: '/streams' },
    ],
    logGroup: 'ApiLog',
    throttle: { ratePerSecond: 50, burst: 100 },
  });
}

function drawMediaLive(draft: Draft): void {
  const { name, region, ingestFrom } = draft.deployment;
  draft.add('role', {
    id: 'MediaLiveRole',
    purpose: 'What the channel may do: write its log',
    name: `${name}-${region}-medialive`,
    trusts: { service: 'medialive.amazonaws.com', sourceAccountOnly: true },
    managedPolicies: [],
    statements: [
      {
        sid: 'Log',
        actions: [
          'logs:CreateLogGroup',
          'logs:CreateLogStream',
          'logs:PutLogEvents',
          'logs:DescribeLogStreams',
        ],
        resources: [
          `arn:${ref('AWS', 'partition')}:logs:${ref('AWS', 'region')}:${ref('AWS', 'account')}:log-group:ElementalMediaLive*`,
        ],
        conditions: {},
      },
    ],
    instanceProfile: null,
  });
  draft.add('media-live-channel', {
    id: 'MediaLive',
    purpose: 'Takes the encoder, and pushes what it made of it to the backend',
    pause: 'stop-channel',
    prices: [{ ...perHour('medialive/channel-hour'), plane: 'media' }],
    name: `${name}-live`,
    role: 'MediaLiveRole',
    inputSecurityGroup: { id: 'MediaLiveInputGroup', cidrs: ingestFrom },
    input: { id: 'MediaLiveInput', streamName: 'live/main' },
    destination: { url: `rtmp://${ref('IngestAddress', 'publicIp')}:${RTMP_PORT}/live`, streamName: 'main' },
    rungs: [
      { name: '1080p', widthPx: 1920, heightPx: 1080, bitrateBps: 5_000_000 },
      { name: '720p', widthPx: 1280, heightPx: 720, bitrateBps: 3_000_000 },
      { name: '576p', widthPx: 1024, heightPx: 576, bitrateBps: 1_800_000 },
      { name: '480p', widthPx: 854, heightPx: 480, bitrateBps: 1_200_000 },
      { name: '360p', widthPx: 640, heightPx: 360, bitrateBps: 800_000 },
      { name: '240p', widthPx: 426, heightPx: 240, bitrateBps: 400_000 },
    ],
  });
}
