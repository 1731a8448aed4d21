/**
 * The review's container-based stage: two Fargate tasks in two zones, each with coordinator, backend and frontend, which
 * make one network; no host to keep. Viewers come in by the CDN and the HTTP load balancer, encoders by a network
 * load balancer that ends their TLS, for Fargate tasks have no address that stays.
 */
import type { Deployment } from '../deployment.ts';
import { Draft } from '../draft.ts';
import { DATA_DIR, SECRETS_DIR, SHARED_DIR, yaml } from '../host.ts';
import { type Container, type Plan, ref, type Template } from '../plan.ts';
import { always, assumed, HOURS_PER_MONTH, perHour } from '../price.ts';
import { appConfig } from './app.ts';
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
  logUsage,
  PUSH_PORT,
  RTMP_PORT,
  RTMPS_PORT,
} from './parts.ts';

const TASKS = 2;
const CPU_UNITS = 512;
const MEMORY_MB = 1024;
/** Of `starling` in the image. */
const USER_ID = 10_001;

export function drawContainers(deployment: Deployment): Plan {
  const draft = new Draft(deployment);
  const { domain, name, region, natGateway, cloudFront } = deployment;
  const network = drawNetwork(draft, { offersHttp: !cloudFront });
  drawGroups(draft, network, { throughNlb: true, isGroup: true, hasCache: true });
  drawZone(draft);
  drawHttpBalancer(draft, network, {
    targets: [],
    targetType: 'ip',
    lcuHours: HOURS_PER_MONTH,
    hasZone: true,
  });
  drawIngestBalancer(draft, network, 'ip', []);
  drawStorage(draft);
  drawLog(draft, 90);
  drawDatabase(draft, network);
  draft.add('secret', {
    id: 'AppSecret',
    purpose: "The cache's password; tokens among the tasks are derived from it",
    prices: [always('secret/month', 1)],
    name: `${name}-app`,
    description: 'Starling: password of the cache, root of the tokens among tasks',
    lengthChars: 64,
  });
  drawCache(draft, network, 'AppSecret');
  draft.add('file-system', {
    id: 'Files',
    purpose: 'Library and recordings, which every task sees',
    prices: [assumed('efs/gb-month', 1)],
    encrypted: true,
    subnets: network.appSubnets,
    securityGroups: ['FilesGroup'],
    accessPoint: { id: 'LibraryAccess', path: '/library', uid: USER_ID, gid: USER_ID },
  });
  draft.add('repository', {
    ...{
      id: 'Repository',
      purpose: 'Images; a tag is never given twice',
      name: `${name}/starling`,
      keepImages: 10,
    },
  });
  draft.add('container-cluster', {
    ...{ id: 'Cluster', purpose: 'Runs the tasks', name, insights: true },
    prices: [assumed('container-insights/metric-month', 10)],
  });
  draft.add('role', {
    id: 'ExecutionRole',
    purpose: 'Starts tasks: image, secrets, log',
    name: `${name}-${region}-execution`,
    trusts: { service: 'ecs-tasks.amazonaws.com', sourceAccountOnly: true },
    managedPolicies: [],
    statements: [
      // GetAuthorizationToken takes no resource (Service Authorization Reference, Amazon ECR).
      { sid: 'Login', actions: ['ecr:GetAuthorizationToken'], resources: ['*'], conditions: {} },
      {
        sid: 'Image',
        actions: ['ecr:BatchGetImage', 'ecr:GetDownloadUrlForLayer', 'ecr:BatchCheckLayerAvailability'],
        resources: [ref('Repository', 'arn')],
        conditions: {},
      },
      {
        sid: 'Secrets',
        actions: ['secretsmanager:GetSecretValue'],
        resources: [ref('Database', 'secretArn'), ref('AppSecret', 'arn')],
        conditions: {},
      },
      {
        sid: 'Log',
        actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
        resources: [`${ref('LogGroup', 'arn')}:*`],
        conditions: {},
      },
    ],
    instanceProfile: null,
  });
  draft.add('role', {
    id: 'TaskRole',
    purpose: 'What a task may do: recordings and its library',
    name: `${name}-${region}-task`,
    trusts: { service: 'ecs-tasks.amazonaws.com', sourceAccountOnly: true },
    managedPolicies: [],
    statements: [
      {
        sid: 'Recordings',
        actions: ['s3:GetObject', 's3:PutObject', 's3:AbortMultipartUpload'],
        resources: [`${ref('Storage', 'arn')}/recordings/*`],
        conditions: {},
      },
      {
        sid: 'Library',
        actions: ['elasticfilesystem:ClientMount', 'elasticfilesystem:ClientWrite'],
        resources: [ref('Files', 'arn')],
        conditions: { StringEquals: { 'elasticfilesystem:AccessPointArn': ref('LibraryAccess', 'arn') } },
      },
    ],
    instanceProfile: null,
  });
  const config = appConfig({ network, isOfGroup: true, hasRedis: true, isBehindProxy: false });
  const container = (role: 'coordinator' | 'backend' | 'frontend', ports: readonly number[]): Container => ({
    name: role,
    repository: 'Repository',
    command: [role],
    user: `${USER_ID}:${USER_ID}`,
    readonlyRootFilesystem: true,
    dropCapabilities: ['ALL'],
    ports,
    environment: {
      STARLING_CONFIG: yaml(config),
      STARLING_DATABASE_HOST: ref('Database', 'endpoint'),
      STARLING_DATABASE_NAME: DATABASE_NAME,
      STARLING_CACHE_HOST: ref('Cache', 'endpoint'),
    },
    secrets: {
      STARLING_SECRET: `${ref('AppSecret', 'arn')}:value::`,
      ...(role === 'coordinator'
        ? {
            STARLING_DATABASE_USER: `${ref('Database', 'secretArn')}:username::`,
            STARLING_DATABASE_PASSWORD: `${ref('Database', 'secretArn')}:password::`,
          }
        : {}),
    } as Record<string, Template>,
    // Nodes join through the coordinator beside them, and leave through it: it is the first up and the last down.
    after: role === 'coordinator' ? [] : ['coordinator'],
    mounts: role === 'frontend' ? [] : [{ volume: 'library', path: SHARED_DIR, readonly: false }],
    scratch: [SECRETS_DIR, '/tmp', `${DATA_DIR}/${role}`],
    healthCommand:
      role === 'backend'
        ? null
        : ['CMD', '/opt/starling/bin/starling-health', `http://127.0.0.1:${ports[0]}/healthz`],
    logGroup: 'LogGroup',
    essential: true,
  });
  draft.add('task-definition', {
    id: 'Task',
    tagRole: 'app',
    purpose: 'Coordinator, backend and frontend',
    family: `${name}-app`,
    cpuUnits: CPU_UNITS,
    memoryMb: MEMORY_MB,
    executionRole: 'ExecutionRole',
    taskRole: 'TaskRole',
    volumes: [{ name: 'library', fileSystem: 'Files', accessPoint: 'LibraryAccess' }],
    containers: [
      container('coordinator', [COORDINATOR_PORT]),
      container('backend', [RTMP_PORT]),
      container('frontend', [FRONTEND_PORT, PUSH_PORT]),
    ],
  });
  draft.add('container-service', {
    id: 'Service',
    tagRole: 'app',
    purpose: 'Keeps two tasks running, up to five under load',
    pause: 'service-to-zero',
    prices: [
      perHour('fargate/vcpu-hour', (TASKS * CPU_UNITS) / 1024),
      perHour('fargate/gb-hour', (TASKS * MEMORY_MB) / 1024),
      ...(natGateway ? [] : [perHour('ipv4/hour', TASKS)]),
    ],
    name: `${name}-app`,
    cluster: 'Cluster',
    taskDefinition: 'Task',
    desired: TASKS,
    minimum: TASKS,
    maximum: 5,
    targetCpuPercent: 70,
    subnets: network.appSubnets,
    securityGroups: ['AppGroup'],
    hasPublicAddress: !natGateway,
    targets: [
      { targetGroup: 'FrontendTargets', container: 'frontend', port: FRONTEND_PORT },
      { targetGroup: 'CoordinatorTargets', container: 'coordinator', port: COORDINATOR_PORT },
      { targetGroup: 'IngestTargets', container: 'backend', port: RTMP_PORT },
    ],
    healthCheckGraceSeconds: 120,
  });
  drawFirewall(draft, { protects: ['HttpBalancer'], millionRequests: 4 / 3, plane: 'all' });
  if (cloudFront) {
    drawCdn(draft, { origin: `origin.${domain}`, hasFirewall: true, logs: 'AccessLogs', outGb: 1024 });
  }
  drawThreatDetector(draft);
  drawAlarms(draft, { dimension: 'DBInstanceIdentifier', id: 'Database', maxConnections: 90 });
  drawHealthAlarm(draft);
  drawBudget(draft);
  drawCi(draft, [
    { sid: 'Login', actions: ['ecr:GetAuthorizationToken'], resources: ['*'], conditions: {} },
    {
      sid: 'Image',
      actions: [
        'ecr:BatchCheckLayerAvailability',
        'ecr:InitiateLayerUpload',
        'ecr:UploadLayerPart',
        'ecr:CompleteLayerUpload',
        'ecr:PutImage',
      ],
      resources: [ref('Repository', 'arn')],
      conditions: {},
    },
    {
      sid: 'PrepareChangeSet',
      actions: [
        'cloudformation:CreateChangeSet',
        'cloudformation:DescribeChangeSet',
        'cloudformation:DescribeStacks',
      ],
      resources: [
        `arn:${ref('AWS', 'partition')}:cloudformation:${ref('AWS', 'region')}:${ref('AWS', 'account')}:stack/${name}-*/*`,
      ],
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
      ingest: ['Service'],
      playout: ['Service'],
      frontends: ['Service'],
      coordinators: ['Service'],
      watchUrl: `https://watch.${domain}/`,
      ingestUrl: `rtmps://ingest.${domain}:${RTMPS_PORT}/live`,
      reasons: [
        'Every task has every role, so that one zone alone is a whole network. Tasks join by themselves: each backend pushes to every frontend, and passes encoders on to the task that has their channel.',
        'Neither the CDN nor an application load balancer passes RTMP on: a network load balancer takes encoders, and ends their TLS with the certificate of ingest.',
        'A task’s disk goes with it, so the library is on a file system that all tasks see.',
      ],
    },
    usage: [logUsage(8)],
    outputs: {
      schedulerRoleArn: {
        value: ref('ScheduleRole', 'arn'),
        description: 'What `starling schedule` lets EventBridge Scheduler act as',
      },
      watchUrl: { value: `https://watch.${domain}/`, description: 'For viewers' },
      ingestName: { value: ref('IngestBalancer', 'dnsName'), description: 'Where encoders come in' },
      repository: { value: ref('Repository', 'uri'), description: 'Where images are pushed' },
      databaseSecret: {
        value: ref('Database', 'secretArn'),
        description: "The database's password is in it",
      },
      storage: { value: ref('Storage', 'name'), description: 'Recordings' },
      nameServers: { value: ref('Zone', 'nameServers'), description: "For the domain's registrar" },
    },
  };
}
