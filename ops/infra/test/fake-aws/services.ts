/** What the services of the fake AWS answer, operation by operation. Names of members are those of botocore. */
import { ACCOUNT, type Cloud, type FakeDatabase, found, type Tags, toTagList } from './cloud.ts';
import { AwsError } from './wire.ts';

export type Handlers = Record<string, (input: never) => object>;

interface Filter {
  readonly Name: string;
  readonly Values?: string[];
}

function matchesTags(tags: Tags, filters: readonly Filter[] | undefined): boolean {
  return (filters ?? []).every(({ Name, Values = [] }) => {
    if (Name.startsWith('tag:')) return Values.includes(tags[Name.slice(4)] ?? '');
    if (Name === 'tag-key') return Values.some((key) => tags[key] !== undefined);
    return true;
  });
}

export function ec2(cloud: Cloud): Handlers {
  const named = (ids: string[] | undefined) =>
    (ids ?? []).map((id) =>
      found(cloud.instances.get(id), 'InvalidInstanceID.NotFound', `The instance ID '${id}' does not exist`),
    );
  const codes = { pending: 0, running: 16, 'shutting-down': 32, terminated: 48, stopping: 64, stopped: 80 };
  const stateOf = (Name: keyof typeof codes) => ({ Name, Code: codes[Name] });
  return {
    DescribeInstances(input: { InstanceIds?: string[]; Filters?: Filter[]; NextToken?: string }) {
      const all = (
        input.InstanceIds === undefined ? [...cloud.instances.values()] : named(input.InstanceIds)
      ).filter(
        ({ tags, state }) =>
          matchesTags(tags, input.Filters) &&
          (input.Filters ?? []).every(
            ({ Name, Values }) => Name !== 'instance-state-name' || Values?.includes(state),
          ),
      );
      const { items, next } = cloud.page(all, input.NextToken);
      return {
        NextToken: next,
        Reservations: items.map((instance) => ({
          ReservationId: `r-${instance.id}`,
          OwnerId: ACCOUNT,
          Instances: [
            {
              InstanceId: instance.id,
              State: stateOf(instance.state),
              Tags: toTagList(instance.tags),
              PublicIpAddress: instance.publicIp,
              NetworkInterfaces: [
                {
                  NetworkInterfaceId: `eni-${instance.id}`,
                  Association: instance.publicIp && {
                    PublicIp: instance.publicIp,
                    IpOwnerId: instance.hasElasticIp ? ACCOUNT : 'amazon',
                  },
                },
              ],
            },
          ],
        })),
      };
    },
    StopInstances({ InstanceIds }: { InstanceIds: string[] }) {
      const instances = named(InstanceIds);
      for (const { id, state } of instances) {
        if (!['running', 'stopping', 'stopped'].includes(state)) {
          throw new AwsError(
            'IncorrectInstanceState',
            `This instance '${id}' is not in a state from which it can be stopped.`,
          );
        }
      }
      const changes = instances.map((instance) => {
        const before = instance.state;
        if (before === 'running') {
          instance.state = 'stopping';
          cloud.after(40_000, () => {
            instance.state = 'stopped';
            if (!instance.hasElasticIp) instance.publicIp = undefined;
            cloud.memberStopped(instance);
          });
        }
        return {
          InstanceId: instance.id,
          PreviousState: stateOf(before),
          CurrentState: stateOf(instance.state),
        };
      });
      return { StoppingInstances: changes };
    },
    StartInstances({ InstanceIds }: { InstanceIds: string[] }) {
      const instances = named(InstanceIds);
      for (const { id, state } of instances) {
        if (!['running', 'pending', 'stopped'].includes(state)) {
          throw new AwsError(
            'IncorrectInstanceState',
            `The instance '${id}' is not in a state from which it can be started.`,
          );
        }
      }
      const changes = instances.map((instance) => {
        const before = instance.state;
        if (before === 'stopped') {
          instance.state = 'pending';
          if (instance.hasPublicIp && !instance.hasElasticIp) instance.publicIp = cloud.address();
          cloud.after(20_000, () => {
            instance.state = 'running';
          });
        }
        return {
          InstanceId: instance.id,
          PreviousState: stateOf(before),
          CurrentState: stateOf(instance.state),
        };
      });
      return { StartingInstances: changes };
    },
  };
}

export function autoScaling(cloud: Cloud): Handlers {
  const named = (name: string) =>
    found(cloud.groups.get(name), 'ValidationError', `AutoScalingGroup name not found - ${name}`);
  return {
    DescribeAutoScalingGroups(input: {
      AutoScalingGroupNames?: string[];
      Filters?: Filter[];
      NextToken?: string;
    }) {
      const all = [...cloud.groups.values()].filter(
        ({ name, tags }) =>
          (input.AutoScalingGroupNames?.includes(name) ?? true) && matchesTags(tags, input.Filters),
      );
      const { items, next } = cloud.page(all, input.NextToken);
      return {
        NextToken: next,
        AutoScalingGroups: items.map((group) => ({
          AutoScalingGroupName: group.name,
          AutoScalingGroupARN: cloud.arn(
            'autoscaling',
            `autoScalingGroup:x:autoScalingGroupName/${group.name}`,
          ),
          MinSize: group.min,
          DesiredCapacity: group.desired,
          MaxSize: group.max,
          DefaultCooldown: 300,
          AvailabilityZones: [`${cloud.region}a`],
          HealthCheckType: 'EC2',
          CreatedTime: new Date(0),
          Instances: [...group.members].map(([InstanceId, LifecycleState]) => ({
            InstanceId,
            AvailabilityZone: `${cloud.region}a`,
            LifecycleState,
            HealthStatus: 'Healthy',
            ProtectedFromScaleIn: false,
          })),
          Tags: toTagList(group.tags).map((tag) => ({
            ...tag,
            ResourceId: group.name,
            ResourceType: 'auto-scaling-group',
            PropagateAtLaunch: false,
          })),
        })),
      };
    },
    UpdateAutoScalingGroup(input: {
      AutoScalingGroupName: string;
      MinSize?: number;
      DesiredCapacity?: number;
      MaxSize?: number;
    }) {
      const group = named(input.AutoScalingGroupName);
      const { MinSize: min = group.min, MaxSize: max = group.max } = input;
      // Without a wish of its own the desired number follows the bounds.
      const desired = input.DesiredCapacity ?? Math.min(Math.max(group.desired, min), max);
      if (min > max)
        throw new AwsError(
          'ValidationError',
          `Max bound, ${max}, must be greater than or equal to min bound, ${min}`,
        );
      if (desired < min || desired > max) {
        throw new AwsError(
          'ValidationError',
          `Desired capacity:${desired} must be between the specified min size:${min} and max size:${max}`,
        );
      }
      Object.assign(group, { min, desired, max });
      cloud.balance(group);
      return {};
    },
    CreateOrUpdateTags({ Tags }: { Tags: { ResourceId: string; Key: string; Value: string }[] }) {
      for (const { ResourceId, Key, Value } of Tags) named(ResourceId).tags[Key] = Value;
      return {};
    },
  };
}

export function ecs(cloud: Cloud): Handlers {
  const serviceArn = (cluster: string, name: string) => cloud.arn('ecs', `service/${cluster}/${name}`);
  const find = (cluster: string, service: string) =>
    cloud.services.get(`${cluster}/${service.split('/').at(-1)}`);
  const describe = (service: ReturnType<typeof find> & object) => ({
    serviceArn: serviceArn(service.cluster, service.name),
    serviceName: service.name,
    clusterArn: cloud.arn('ecs', `cluster/${service.cluster}`),
    status: service.status,
    desiredCount: service.desired,
    runningCount: service.running,
    pendingCount: Math.max(service.desired - service.running, 0),
    deployments: [
      { id: 'ecs-svc/1', status: 'PRIMARY', desiredCount: service.desired, runningCount: service.running },
    ],
    tags: Object.entries(service.tags).map(([key, value]) => ({ key, value })),
  });
  return {
    DescribeServices({ cluster = 'default', services }: { cluster?: string; services: string[] }) {
      if (![...cloud.services.values()].some((one) => one.cluster === cluster))
        throw new AwsError('ClusterNotFoundException', 'Cluster not found.');
      if (services.length > 10) throw new AwsError('InvalidParameterException', 'At most 10 services.');
      const failures = services.filter((one) => find(cluster, one) === undefined);
      return {
        services: services.flatMap((one) => {
          const service = find(cluster, one);
          return service === undefined ? [] : [describe(service)];
        }),
        failures: failures.map((one) => ({
          arn: serviceArn(cluster, one.split('/').at(-1) ?? ''),
          reason: 'MISSING',
        })),
      };
    },
    UpdateService(input: { cluster?: string; service: string; desiredCount?: number }) {
      const service = found(
        find(input.cluster ?? 'default', input.service),
        'ServiceNotFoundException',
        'Service not found.',
      );
      if (service.status !== 'ACTIVE')
        throw new AwsError('ServiceNotActiveException', 'Service was not ACTIVE.');
      const desired = input.desiredCount ?? service.desired;
      service.desired = desired;
      cloud.after(35_000, () => {
        if (service.desired === desired) service.running = desired;
      });
      return { service: describe(service) };
    },
    TagResource({ resourceArn, tags }: { resourceArn: string; tags: { key: string; value: string }[] }) {
      const [, cluster = '', name = ''] = /service\/([^/]+)\/([^/]+)$/.exec(resourceArn) ?? [];
      const service = found(
        find(cluster, name),
        'InvalidParameterException',
        'The specified resource was not found.',
      );
      for (const { key, value } of tags) service.tags[key] = value;
      return {};
    },
  };
}

export function rds(cloud: Cloud): Handlers {
  const words = {
    db: { name: 'DBInstance', missing: 'DBInstanceNotFound', wrong: 'InvalidDBInstanceState' },
    cluster: { name: 'DBCluster', missing: 'DBClusterNotFoundFault', wrong: 'InvalidDBClusterStateFault' },
  } as const;
  const named = (kind: 'db' | 'cluster', id: string) =>
    found(
      cloud.databases.get(`${kind} ${id}`),
      words[kind].missing,
      `${words[kind].name} ${id} not found.`,
      404,
    );
  const list = (
    kind: 'db' | 'cluster',
    id: string | undefined,
    filter: Filter | undefined,
    token: string | undefined,
  ) => {
    if (id !== undefined) named(kind, id);
    const all = [...cloud.databases.values()].filter(
      (one) =>
        one.kind === kind &&
        (id ?? one.id) === one.id &&
        (filter === undefined || filter.Values?.includes(one.id)),
    );
    return cloud.page(all, token);
  };
  const restart = (one: FakeDatabase) =>
    one.restartsAtMs === undefined ? undefined : new Date(one.restartsAtMs);
  const instance = (one: FakeDatabase) => ({
    DBInstanceIdentifier: one.id,
    DBInstanceArn: cloud.arn('rds', `db:${one.id}`),
    DBInstanceStatus: one.state,
    DBClusterIdentifier: one.clusterId,
    Engine: one.clusterId === undefined ? 'postgres' : 'aurora-postgresql',
    DBInstanceClass: 'db.t4g.micro',
    AutomaticRestartTime: restart(one),
    TagList: toTagList(one.tags),
  });
  const cluster = (one: FakeDatabase) => ({
    DBClusterIdentifier: one.id,
    DBClusterArn: cloud.arn('rds', `cluster:${one.id}`),
    Status: one.state,
    Engine: 'aurora-postgresql',
    AutomaticRestartTime: restart(one),
    TagList: toTagList(one.tags),
  });
  const stop = (kind: 'db' | 'cluster', id: string) => {
    const database = named(kind, id);
    if (database.clusterId !== undefined)
      throw new AwsError(
        'InvalidParameterCombination',
        'aurora instances are not eligible for stopping or starting.',
      );
    if (database.state !== 'available')
      throw new AwsError(words[kind].wrong, `Instance ${id} is not in available state.`);
    cloud.stopDatabase(database);
    return database;
  };
  const start = (kind: 'db' | 'cluster', id: string) => {
    const database = named(kind, id);
    if (database.clusterId !== undefined)
      throw new AwsError(
        'InvalidParameterCombination',
        'aurora instances are not eligible for stopping or starting.',
      );
    if (database.state !== 'stopped')
      throw new AwsError(
        words[kind].wrong,
        `Instance ${id} is not stopped or inaccessible-encryption-credentials-recoverable.`,
      );
    cloud.startDatabase(database);
    return database;
  };
  return {
    DescribeDBInstances(input: { DBInstanceIdentifier?: string; Filters?: Filter[]; Marker?: string }) {
      const filter = input.Filters?.find(({ Name }) => Name === 'db-instance-id');
      const { items, next } = list('db', input.DBInstanceIdentifier, filter, input.Marker);
      return { Marker: next, DBInstances: items.map(instance) };
    },
    DescribeDBClusters(input: { DBClusterIdentifier?: string; Filters?: Filter[]; Marker?: string }) {
      const filter = input.Filters?.find(({ Name }) => Name === 'db-cluster-id');
      const { items, next } = list('cluster', input.DBClusterIdentifier, filter, input.Marker);
      return { Marker: next, DBClusters: items.map(cluster) };
    },
    StopDBInstance: (input: { DBInstanceIdentifier: string }) => ({
      DBInstance: instance(stop('db', input.DBInstanceIdentifier)),
    }),
    StartDBInstance: (input: { DBInstanceIdentifier: string }) => ({
      DBInstance: instance(start('db', input.DBInstanceIdentifier)),
    }),
    StopDBCluster: (input: { DBClusterIdentifier: string }) => ({
      DBCluster: cluster(stop('cluster', input.DBClusterIdentifier)),
    }),
    StartDBCluster: (input: { DBClusterIdentifier: string }) => ({
      DBCluster: cluster(start('cluster', input.DBClusterIdentifier)),
    }),
  };
}

export function elastiCache(cloud: Cloud): Handlers {
  return {
    DescribeCacheClusters({ Marker }: { Marker?: string }) {
      const { items, next } = cloud.page([...cloud.caches.values()], Marker);
      return {
        Marker: next,
        CacheClusters: items.map(({ id, nodeType, replicationGroup }) => ({
          CacheClusterId: id,
          CacheClusterStatus: 'available',
          CacheNodeType: nodeType,
          NumCacheNodes: 1,
          Engine: 'redis',
          ReplicationGroupId: replicationGroup,
        })),
      };
    },
  };
}

export function tagging(cloud: Cloud): Handlers {
  return {
    GetResources(input: {
      TagFilters?: { Key: string; Values?: string[] }[];
      ResourceTypeFilters?: string[];
      PaginationToken?: string;
    }) {
      const all = [
        ...[...cloud.instances.values()].map(({ id, tags }) => ({
          arn: cloud.arn('ec2', `instance/${id}`),
          tags,
        })),
        ...[...cloud.services.values()].map(({ cluster, name, tags }) => ({
          arn: cloud.arn('ecs', `service/${cluster}/${name}`),
          tags,
        })),
        ...[...cloud.databases.values()].map(({ kind, id, tags }) => ({
          arn: cloud.arn('rds', `${kind}:${id}`),
          tags,
        })),
        ...[...cloud.caches.values()].map(({ id, tags }) => ({
          arn: cloud.arn('elasticache', `cluster:${id}`),
          tags,
        })),
        ...cloud.staleArns,
      ].filter(({ arn, tags }) => {
        const [, , service, , , resource = ''] = arn.split(':');
        const type = `${service}:${resource.split('/')[0]}`;
        return (
          (input.ResourceTypeFilters?.includes(type) ?? true) &&
          (input.TagFilters ?? []).every(
            ({ Key, Values }) => Values?.includes(tags[Key] ?? '') ?? tags[Key] !== undefined,
          )
        );
      });
      const { items, next } = cloud.page(all, input.PaginationToken || undefined);
      return {
        PaginationToken: next ?? '',
        ResourceTagMappingList: items.map(({ arn, tags }) => ({ ResourceARN: arn, Tags: toTagList(tags) })),
      };
    },
  };
}
