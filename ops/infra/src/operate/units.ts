/**
 * What a deployment consists of, as far as it can be paused: found by its tag, with its state in AWS's words, and how
 * it is paused and resumed. Nothing that lacks the tag is ever returned, so nothing else can be acted upon.
 */
import type { AutoScalingGroup } from '@aws-sdk/client-auto-scaling';
import type { Instance } from '@aws-sdk/client-ec2';
import type { Service } from '@aws-sdk/client-ecs';
import { HOURS_PER_MONTH } from '@starling/model/topology/price';
import { priceOf, priceRow } from '../cost/price-table.ts';
import { type Aws, awsErrorName } from './aws.ts';
import { OperateError } from './error.ts';

/** Whose a resource is. CloudFormation copies it from the stack to what the stack makes. */
export const DEPLOYMENT_TAG = 'starling:deployment';
/** What a machine, a group or a service does: `backend`, `frontend`, `balancer`, `bastion`, ... */
export const ROLE_TAG = 'starling:role';
/** Sizes of a group and of a service while they run, remembered for when they are resumed. */
const RUNNING_MIN_TAG = 'starling:running-min';
const RUNNING_DESIRED_TAG = 'starling:running-desired';

export type UnitKind = 'instance' | 'group' | 'service' | 'database' | 'database-cluster' | 'cache';

/**
 * `changing` becomes one of the others by itself; `broken` does not. `fixed`: it cannot be paused, or there is nothing
 * of it to resume.
 */
export type Condition = 'running' | 'paused' | 'changing' | 'broken' | 'fixed';

/** A call that EventBridge Scheduler can make in our place. */
export interface ScheduledCall {
  readonly arn: string;
  readonly input: Readonly<Record<string, unknown>>;
}

export interface Unit {
  readonly kind: UnitKind;
  /** Unique together with the kind. */
  readonly id: string;
  readonly role: string;
  readonly condition: Condition;
  /** Where a change leads that can be turned round at once. Others have to be waited for. */
  readonly headedFor?: 'running' | 'paused';
  /** In AWS's words. */
  readonly state: string;
  /** How long a pause or a resume may take, at most. */
  readonly deadlineMs: number;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Undefined for what is never paused. */
  readonly scheduled?: { readonly pause: ScheduledCall; readonly resume: ScheduledCall };
  /** Notes how many there are while it runs, for a schedule that pauses it without us; undefined for what is one. */
  remember?(): Promise<void>;
  /** Sets how many there are; undefined for what is one. Returns what came of it, in words. */
  scale?(count: number): Promise<string>;
}

export interface Deployment {
  readonly name: string;
  readonly region: string;
  readonly units: readonly Unit[];
  /** What the operator should know, a sentence each. */
  readonly notes: readonly string[];
  /** What the index of tags lists, for the next look. */
  readonly arns: readonly string[];
}

interface Found {
  readonly units: Unit[];
  readonly notes: string[];
}

const MINUTE_MS = 60_000;

/** @throws OperateError DEPLOYMENT_BAD_NAME */
export function checkDeploymentName(name: string): void {
  if (!/^[A-Za-z][A-Za-z0-9-]{0,39}$/.test(name)) {
    throw new OperateError(
      'DEPLOYMENT_BAD_NAME',
      `"${name}" cannot name a deployment: use letters, digits and hyphens, at most 40, a letter first.`,
    );
  }
}

/** @throws OperateError DEPLOYMENT_NOT_FOUND */
export async function readDeployment(aws: Aws, name: string): Promise<Deployment> {
  checkDeploymentName(name);
  const deployment = await look(aws, name, await taggedArns(aws, name), () => true);
  if (deployment.units.length === 0) {
    throw new OperateError(
      'DEPLOYMENT_NOT_FOUND',
      `Nothing in ${aws.region} is tagged ${DEPLOYMENT_TAG}=${name}: check the name and the region.`,
    );
  }
  return deployment;
}

/** Looks again at some of its units: the state is new, which ones there are is not. */
export async function lookAgain(
  aws: Aws,
  deployment: Deployment,
  units: readonly Unit[],
): Promise<readonly Unit[]> {
  const keyOf = ({ kind, id }: Unit) => `${kind} ${id}`;
  const keys = new Set(units.map(keyOf));
  const kinds = new Set(units.map(({ kind }) => kind));
  const now = await look(aws, deployment.name, deployment.arns, (kind) => kinds.has(kind));
  return now.units.filter((unit) => keys.has(keyOf(unit)));
}

async function look(
  aws: Aws,
  name: string,
  arns: readonly string[],
  isWanted: (kind: UnitKind) => boolean,
): Promise<Deployment> {
  const found: Found[] = [];
  if (isWanted('instance')) found.push(await findInstances(aws, name));
  if (isWanted('group')) found.push(await findGroups(aws, name));
  if (isWanted('service')) found.push(await findServices(aws, name, arns));
  if (isWanted('database')) found.push(await findDatabases(aws, name, arns));
  if (isWanted('database-cluster')) found.push(await findDatabaseClusters(aws, name, arns));
  if (isWanted('cache')) found.push(await findCaches(aws, arns));
  return {
    name,
    region: aws.region,
    units: found.flatMap((one) => one.units),
    notes: found.flatMap((one) => one.notes),
    arns,
  };
}

const stageByRole: Readonly<Record<string, number>> = {
  ingest: 0,
  playout: 0,
  backend: 0,
  frontend: 1,
  // 2: everything else
  balancer: 3,
  database: 4,
  bastion: 5,
};

/** What may be paused, in the order of pausing; what is in one stage goes together. */
export function stagesOf(units: readonly Unit[]): Unit[][] {
  const stages: Unit[][] = [];
  for (const unit of units) {
    if (unit.condition === 'fixed') continue;
    const stage = stageByRole[unit.role] ?? 2;
    stages[stage] = [...(stages[stage] ?? []), unit];
  }
  return stages.filter((stage) => stage !== undefined);
}

/** Of what has no filter by tag in its own service. */
async function taggedArns(aws: Aws, name: string): Promise<string[]> {
  const arns: string[] = [];
  let token: string | undefined;
  do {
    const page = await aws.tagging.getResources({
      TagFilters: [{ Key: DEPLOYMENT_TAG, Values: [name] }],
      ResourceTypeFilters: [
        'ecs:service',
        'rds:db',
        'rds:cluster',
        'elasticache:cluster',
        'elasticache:replicationgroup',
      ],
      ...(token ? { PaginationToken: token } : {}),
    });
    for (const { ResourceARN } of page.ResourceTagMappingList ?? []) if (ResourceARN) arns.push(ResourceARN);
    token = page.PaginationToken;
  } while (token);
  return arns.sort();
}

type Tag = { Key?: string | undefined; Value?: string | undefined };

const tagOf = (tags: readonly Tag[] | undefined, key: string) => tags?.find((tag) => tag.Key === key)?.Value;

/** The index of tags lags behind. What a service itself says decides. */
function lostTag(what: string, name: string): string {
  return `${what} no longer carries the tag ${DEPLOYMENT_TAG}=${name}: it is left alone.`;
}

// Machines ------------------------------------------------------------------------------------------------------------

async function findInstances(aws: Aws, name: string): Promise<Found> {
  const found: Found = { units: [], notes: [] };
  let token: string | undefined;
  do {
    const page = await aws.ec2.describeInstances({
      Filters: [{ Name: `tag:${DEPLOYMENT_TAG}`, Values: [name] }],
      ...(token ? { NextToken: token } : {}),
    });
    for (const { Instances } of page.Reservations ?? []) {
      for (const instance of Instances ?? []) addInstance(aws, instance, found);
    }
    token = page.NextToken;
  } while (token);
  return found;
}

function addInstance(aws: Aws, instance: Instance, { units, notes }: Found): void {
  const id = instance.InstanceId ?? '';
  const state = instance.State?.Name ?? 'unknown';
  const role = tagOf(instance.Tags, ROLE_TAG) ?? '';
  // Its group would replace a member that stops. The group is what is paused.
  if (tagOf(instance.Tags, 'aws:autoscaling:groupName') !== undefined) return;
  if (state === 'terminated' || state === 'shutting-down') {
    notes.push(`The ${role || 'machine'} ${id} was terminated: \`starling infra deploy\` makes another.`);
    return;
  }
  const address = instance.PublicIpAddress;
  const isLent = instance.NetworkInterfaces?.some((one) => one.Association?.IpOwnerId === 'amazon') ?? false;
  if (state === 'running' && address !== undefined && isLent) {
    notes.push(
      `${id} (${role}) has a public address, ${address}, that it loses when it is paused; it gets another when it is resumed.`,
    );
  }
  const input = { InstanceIds: [id] };
  units.push({
    kind: 'instance',
    id,
    role,
    state: address === undefined ? state : `${state} at ${address}`,
    condition: state === 'running' ? 'running' : state === 'stopped' ? 'paused' : 'changing',
    deadlineMs: 10 * MINUTE_MS,
    pause: async () => void (await aws.ec2.stopInstances(input)),
    resume: async () => void (await aws.ec2.startInstances(input)),
    scheduled: {
      pause: { arn: 'arn:aws:scheduler:::aws-sdk:ec2:stopInstances', input },
      resume: { arn: 'arn:aws:scheduler:::aws-sdk:ec2:startInstances', input },
    },
  });
}

// Auto-scaling groups -------------------------------------------------------------------------------------------------

async function findGroups(aws: Aws, name: string): Promise<Found> {
  const found: Found = { units: [], notes: [] };
  let token: string | undefined;
  do {
    const page = await aws.autoScaling.describeAutoScalingGroups({
      Filters: [{ Name: `tag:${DEPLOYMENT_TAG}`, Values: [name] }],
      ...(token ? { NextToken: token } : {}),
    });
    for (const group of page.AutoScalingGroups ?? []) addGroup(aws, group, found);
    token = page.NextToken;
  } while (token);
  return found;
}

function addGroup(aws: Aws, group: AutoScalingGroup, { units, notes }: Found): void {
  const id = group.AutoScalingGroupName ?? '';
  const [min = 0, desired = 0, max = 0] = [group.MinSize, group.DesiredCapacity, group.MaxSize];
  const members = group.Instances ?? [];
  const inService = members.filter((member) => member.LifecycleState === 'InService').length;
  const remembered = {
    min: Number(tagOf(group.Tags, RUNNING_MIN_TAG) ?? 0),
    desired: Number(tagOf(group.Tags, RUNNING_DESIRED_TAG) ?? 0),
  };
  const isZero = min === 0 && desired === 0;
  const running = isZero ? remembered : { min, desired };
  const remember = async (sizes = running) => {
    if (sizes.min === remembered.min && sizes.desired === remembered.desired) return;
    const tag = (Key: string, value: number) => ({
      Key,
      Value: String(value),
      ResourceId: id,
      ResourceType: 'auto-scaling-group',
      PropagateAtLaunch: false,
    });
    await aws.autoScaling.createOrUpdateTags({
      Tags: [tag(RUNNING_MIN_TAG, sizes.min), tag(RUNNING_DESIRED_TAG, sizes.desired)],
    });
  };
  const resize = async (sizes: { min: number; desired: number }) => {
    await aws.autoScaling.updateAutoScalingGroup({
      AutoScalingGroupName: id,
      MinSize: sizes.min,
      DesiredCapacity: sizes.desired,
    });
  };
  if (group.Status !== undefined) notes.push(`The group ${id} is being deleted (${group.Status}).`);
  if (isZero && members.length === 0 && running.desired === 0) {
    notes.push(
      `The group ${id} has no machines, and no size is remembered: set one with \`starling scale\`, or deploy again.`,
    );
  }
  units.push({
    kind: 'group',
    id,
    role: tagOf(group.Tags, ROLE_TAG) ?? '',
    state: `${inService} of ${desired} in service (${min} to ${max})`,
    condition:
      isZero && members.length === 0
        ? running.desired === 0
          ? 'fixed'
          : 'paused'
        : !isZero && inService >= desired
          ? 'running'
          : 'changing',
    headedFor: isZero ? 'paused' : 'running',
    deadlineMs: 15 * MINUTE_MS,
    async pause() {
      if (isZero) return;
      await remember();
      await resize({ min: 0, desired: 0 });
    },
    async resume() {
      if (isZero) await resize(running);
    },
    scheduled: {
      pause: {
        arn: 'arn:aws:scheduler:::aws-sdk:autoscaling:updateAutoScalingGroup',
        input: { AutoScalingGroupName: id, MinSize: 0, DesiredCapacity: 0 },
      },
      resume: {
        arn: 'arn:aws:scheduler:::aws-sdk:autoscaling:updateAutoScalingGroup',
        input: { AutoScalingGroupName: id, MinSize: running.min, DesiredCapacity: running.desired },
      },
    },
    remember: () => remember(),
    async scale(count) {
      if (count > max) {
        throw new OperateError(
          'SCALE_LIMIT',
          `${id} may have at most ${max} machines: raise that in the deployment file and deploy again.`,
        );
      }
      // The least as well: otherwise auto-scaling would take the new ones away when they idle.
      await remember({ min: count, desired: count });
      if (isZero) return `${id} is paused; it will be ${count} when it is resumed.`;
      await resize({ min: count, desired: count });
      return `${id}: at least ${count} from now on, and up to ${max} under load.`;
    },
  });
}

// Services of ECS -----------------------------------------------------------------------------------------------------

async function findServices(aws: Aws, name: string, arns: readonly string[]): Promise<Found> {
  const found: Found = { units: [], notes: [] };
  const byCluster = new Map<string, string[]>();
  for (const arn of arns) {
    const [, cluster] = /^arn:[^:]+:ecs:[^:]+:[^:]+:service\/([^/]+)\/[^/]+$/.exec(arn) ?? [];
    if (cluster !== undefined) byCluster.set(cluster, [...(byCluster.get(cluster) ?? []), arn]);
  }
  for (const [cluster, services] of byCluster) {
    // The call takes ten at a time.
    for (let first = 0; first < services.length; first += 10) {
      const batch = services.slice(first, first + 10);
      const answer = await aws.ecs
        .describeServices({ cluster, services: batch, include: ['TAGS'] })
        .catch((error) => {
          if (awsErrorName(error) !== 'ClusterNotFoundException') throw error;
          return { services: [], failures: batch.map((arn) => ({ arn })) };
        });
      for (const service of answer.services ?? []) addService(aws, name, cluster, service, found);
      for (const { arn } of answer.failures ?? []) found.notes.push(gone(arn ?? 'A service'));
    }
  }
  return found;
}

function gone(arn: string): string {
  return `${arn.split(':').slice(5).join(':') || arn} is still listed under the tag, but does not exist any more: it is left out.`;
}

function addService(
  aws: Aws,
  name: string,
  cluster: string,
  service: Service,
  { units, notes }: Found,
): void {
  const id = `${cluster}/${service.serviceName}`;
  const arn = service.serviceArn ?? '';
  const tags = service.tags?.map(({ key, value }) => ({ Key: key, Value: value }));
  if (tagOf(tags, DEPLOYMENT_TAG) !== name) return void notes.push(lostTag(id, name));
  if (service.status !== 'ACTIVE') return void notes.push(gone(arn));
  const [desired = 0, runningTasks = 0, pendingTasks = 0] = [
    service.desiredCount,
    service.runningCount,
    service.pendingCount,
  ];
  const remembered = Number(tagOf(tags, RUNNING_DESIRED_TAG) ?? 0);
  const runningCount = desired === 0 ? remembered : desired;
  const remember = async (count = runningCount) => {
    if (count === remembered) return;
    await aws.ecs.tagResource({
      resourceArn: arn,
      tags: [{ key: RUNNING_DESIRED_TAG, value: String(count) }],
    });
  };
  // A policy of Application Auto Scaling does not bring it back: it follows the load, and without tasks there is none.
  const resize = async (desiredCount: number) => {
    await aws.ecs.updateService({ cluster, service: service.serviceName, desiredCount });
  };
  const isSettled = runningTasks === desired && pendingTasks === 0 && (service.deployments ?? []).length <= 1;
  if (desired === 0 && runningCount === 0) {
    notes.push(
      `The service ${id} has no tasks, and no number is remembered: set one with \`starling scale\`, or deploy again.`,
    );
  }
  const scheduledResize = (DesiredCount: number) => ({
    arn: 'arn:aws:scheduler:::aws-sdk:ecs:updateService',
    input: { Cluster: cluster, Service: service.serviceName, DesiredCount },
  });
  units.push({
    kind: 'service',
    id,
    role: tagOf(tags, ROLE_TAG) ?? '',
    state: `${runningTasks} of ${desired} tasks`,
    condition: !isSettled ? 'changing' : desired > 0 ? 'running' : runningCount === 0 ? 'fixed' : 'paused',
    headedFor: desired === 0 ? 'paused' : 'running',
    deadlineMs: 15 * MINUTE_MS,
    async pause() {
      if (desired === 0) return;
      await remember();
      await resize(0);
    },
    async resume() {
      if (desired === 0) await resize(runningCount);
    },
    scheduled: { pause: scheduledResize(0), resume: scheduledResize(runningCount) },
    remember: () => remember(),
    async scale(count) {
      await remember(count);
      if (desired === 0) return `${id} is paused; it will have ${count} tasks when it is resumed.`;
      await resize(count);
      return `${id}: ${count} tasks from now on, unless auto-scaling finds that load asks for another number.`;
    },
  });
}

// Databases -----------------------------------------------------------------------------------------------------------

/** RDS: "Viewing DB instance status" and "Viewing DB cluster status"; these need the operator. */
const BROKEN_DATABASE =
  /^(failed|inaccessible|incompatible|insufficient|restore-error|storage-full|stopped-failed)/;

function databaseCondition(state: string): Condition {
  if (state === 'available') return 'running';
  if (state === 'stopped') return 'paused';
  return BROKEN_DATABASE.test(state) ? 'broken' : 'changing';
}

const idsOf = (arns: readonly string[], pattern: RegExp) =>
  arns.flatMap((arn) => pattern.exec(arn)?.[1] ?? []);

async function findDatabases(aws: Aws, name: string, arns: readonly string[]): Promise<Found> {
  const found: Found = { units: [], notes: [] };
  const wanted = idsOf(arns, /:rds:[^:]+:[^:]+:db:(.+)$/);
  const missing = new Set(wanted);
  let marker: string | undefined;
  if (wanted.length > 0) {
    do {
      // As a filter, since a name that does not exist would fail the call.
      const page = await aws.rds.describeDBInstances({
        Filters: [{ Name: 'db-instance-id', Values: wanted }],
        ...(marker ? { Marker: marker } : {}),
      });
      for (const database of page.DBInstances ?? []) {
        const id = database.DBInstanceIdentifier ?? '';
        missing.delete(id);
        // A member of an Aurora cluster is stopped with its cluster, and only with it.
        if (database.DBClusterIdentifier) continue;
        addDatabase(found, name, {
          kind: 'database',
          id,
          tags: database.TagList,
          state: database.DBInstanceStatus,
          restartsAt: database.AutomaticRestartTime,
          stop: () => aws.rds.stopDBInstance({ DBInstanceIdentifier: id }),
          start: () => aws.rds.startDBInstance({ DBInstanceIdentifier: id }),
          scheduledAs: ['DBInstance', { DbInstanceIdentifier: id }],
        });
      }
      marker = page.Marker;
    } while (marker);
  }
  for (const id of missing) found.notes.push(gone(`arn:aws:rds:::db:${id}`));
  return found;
}

async function findDatabaseClusters(aws: Aws, name: string, arns: readonly string[]): Promise<Found> {
  const found: Found = { units: [], notes: [] };
  const wanted = idsOf(arns, /:rds:[^:]+:[^:]+:cluster:(.+)$/);
  const missing = new Set(wanted);
  let marker: string | undefined;
  if (wanted.length > 0) {
    do {
      const page = await aws.rds.describeDBClusters({
        Filters: [{ Name: 'db-cluster-id', Values: wanted }],
        ...(marker ? { Marker: marker } : {}),
      });
      for (const cluster of page.DBClusters ?? []) {
        const id = cluster.DBClusterIdentifier ?? '';
        missing.delete(id);
        addDatabase(found, name, {
          kind: 'database-cluster',
          id,
          tags: cluster.TagList,
          state: cluster.Status,
          restartsAt: cluster.AutomaticRestartTime,
          stop: () => aws.rds.stopDBCluster({ DBClusterIdentifier: id }),
          start: () => aws.rds.startDBCluster({ DBClusterIdentifier: id }),
          scheduledAs: ['DBCluster', { DbClusterIdentifier: id }],
        });
      }
      marker = page.Marker;
    } while (marker);
  }
  for (const id of missing) found.notes.push(gone(`arn:aws:rds:::cluster:${id}`));
  return found;
}

interface FoundDatabase {
  readonly kind: 'database' | 'database-cluster';
  readonly id: string;
  readonly tags: readonly Tag[] | undefined;
  readonly state: string | undefined;
  /** When AWS starts it by itself: seven days after it stopped. */
  readonly restartsAt: Date | undefined;
  stop(): Promise<unknown>;
  start(): Promise<unknown>;
  /** Ending of the names of its calls, and their input, whose spelling is the Scheduler's and not that of RDS. */
  readonly scheduledAs: readonly [string, Record<string, string>];
}

function addDatabase({ units, notes }: Found, name: string, database: FoundDatabase): void {
  const { kind, id, state = 'unknown', restartsAt, scheduledAs } = database;
  if (tagOf(database.tags, DEPLOYMENT_TAG) !== name) return void notes.push(lostTag(id, name));
  const [ending, input] = scheduledAs;
  units.push({
    kind,
    id,
    role: 'database',
    state: restartsAt === undefined ? state : `${state}; AWS would start it on ${minute(restartsAt)}`,
    condition: databaseCondition(state),
    deadlineMs: 45 * MINUTE_MS,
    pause: async () => void (await database.stop()),
    resume: async () => void (await database.start()),
    scheduled: {
      pause: { arn: `arn:aws:scheduler:::aws-sdk:rds:stop${ending}`, input },
      resume: { arn: `arn:aws:scheduler:::aws-sdk:rds:start${ending}`, input },
    },
  });
}

const minute = (date: Date) => `${date.toISOString().slice(0, 16).replace('T', ' ')} UTC`;

// Caches --------------------------------------------------------------------------------------------------------------

async function findCaches(aws: Aws, arns: readonly string[]): Promise<Found> {
  const { units, notes }: Found = { units: [], notes: [] };
  const clusters = new Set(idsOf(arns, /:elasticache:[^:]+:[^:]+:cluster:(.+)$/));
  const groups = new Set(idsOf(arns, /:elasticache:[^:]+:[^:]+:replicationgroup:(.+)$/));
  if (clusters.size + groups.size === 0) return { units, notes };
  let monthUsd = 0;
  let isPriced = true;
  let marker: string | undefined;
  do {
    const page = await aws.elastiCache.describeCacheClusters(marker ? { Marker: marker } : {});
    for (const cache of page.CacheClusters ?? []) {
      const id = cache.CacheClusterId ?? '';
      const isMember = cache.ReplicationGroupId !== undefined && groups.has(cache.ReplicationGroupId);
      if (!clusters.has(id) && !isMember) continue;
      const nodes = cache.NumCacheNodes ?? 1;
      const row = priceRow(`elasticache/redis/${cache.CacheNodeType}/hour`, aws.region);
      if (row === undefined) isPriced = false;
      else monthUsd += priceOf(row, nodes * HOURS_PER_MONTH);
      units.push({
        kind: 'cache',
        id,
        role: 'cache',
        state: `${cache.CacheClusterStatus}, ${nodes} x ${cache.CacheNodeType}`,
        condition: 'fixed',
        deadlineMs: 0,
        pause: async () => {},
        resume: async () => {},
      });
    }
    marker = page.Marker;
  } while (marker);
  if (units.length > 0) {
    const price = isPriced
      ? `about $${monthUsd.toFixed(2)} a month`
      : 'what its node type costs in this region (see the AWS price list)';
    notes.push(
      `ElastiCache cannot be stopped, only deleted with its data: ${units.map((unit) => unit.id).join(', ')} goes on running, for ${price}.`,
    );
  }
  return { units, notes };
}
