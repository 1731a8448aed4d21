/**
 * A small AWS account: one region, one clock that stands still unless it is moved, and what the services know. Only
 * what matters to pausing and resuming is modelled, but that as AWS behaves: states that take their time, a group that
 * replaces a member which stopped, addresses that change, a database that AWS starts again after seven days.
 */
import { AwsError } from './wire.ts';

/** Seven days, after which RDS starts what is stopped. */
export const RESTART_MS = 7 * 24 * 3600 * 1000;
export const ACCOUNT = '123456789012';

export type Tags = Record<string, string>;

export interface FakeInstance {
  readonly id: string;
  readonly tags: Tags;
  state: 'pending' | 'running' | 'stopping' | 'stopped' | 'shutting-down' | 'terminated';
  publicIp: string | undefined;
  /** Its address is an Elastic IP, which stays. */
  readonly hasElasticIp: boolean;
  readonly hasPublicIp: boolean;
}

export interface FakeGroup {
  readonly name: string;
  readonly tags: Tags;
  min: number;
  desired: number;
  max: number;
  /** By id of the instance: `Pending`, `InService`, `Terminating`. */
  readonly members: Map<string, string>;
  /** What it launches is unhealthy, and is replaced for ever. */
  isUnhealthy: boolean;
}

export interface FakeService {
  readonly cluster: string;
  readonly name: string;
  readonly tags: Tags;
  desired: number;
  running: number;
  status: 'ACTIVE' | 'INACTIVE';
}

export interface FakeDatabase {
  readonly id: string;
  readonly kind: 'db' | 'cluster';
  readonly tags: Tags;
  /** Of a member of a cluster. */
  readonly clusterId?: string | undefined;
  state: string;
  restartsAtMs: number | undefined;
}

export interface FakeCache {
  readonly id: string;
  readonly tags: Tags;
  readonly nodeType: string;
  readonly replicationGroup?: string | undefined;
}

export interface FakeSchedule {
  readonly name: string;
  readonly group: string;
  input: Record<string, unknown>;
  /** When it acted last, so that it acts once in a minute. */
  lastMs: number;
}

export interface FakeScheduleGroup {
  readonly name: string;
  readonly tags: Tags;
  readonly schedules: Map<string, FakeSchedule>;
}

export interface FakeStack {
  readonly id: string;
  readonly name: string;
  readonly createdMs: number;
  tags: Tags;
  status: string;
  template: FakeTemplate;
  parameters: Record<string, string>;
  isProtected: boolean;
  readonly resources: Map<string, { type: string; physicalId: string; status: string }>;
  readonly changeSets: Map<string, FakeChangeSet>;
  readonly events: FakeEvent[];
}

export interface FakeTemplate {
  readonly Parameters?: Record<string, { Default?: string }>;
  readonly Resources: Record<
    string,
    { Type: string; Properties?: Record<string, unknown>; DeletionPolicy?: string }
  >;
  readonly Outputs?: Record<string, { Value: unknown }>;
}

export interface FakeChangeSet {
  readonly name: string;
  readonly isNew: boolean;
  status: string;
  reason: string | undefined;
  readonly template: FakeTemplate;
  readonly tags: Tags;
  readonly parameters: Record<string, string>;
  readonly changes: { action: string; logicalId: string; type: string; replacement: string | undefined }[];
}

export interface FakeEvent {
  readonly atMs: number;
  readonly logicalId: string;
  readonly type: string;
  readonly status: string;
  readonly reason: string | undefined;
}

interface Due {
  readonly atMs: number;
  readonly act: () => void;
}

export class Cloud {
  readonly region: string;
  nowMs = Date.parse('2026-11-02T12:00:00Z');
  readonly instances = new Map<string, FakeInstance>();
  readonly groups = new Map<string, FakeGroup>();
  readonly services = new Map<string, FakeService>();
  readonly databases = new Map<string, FakeDatabase>();
  readonly caches = new Map<string, FakeCache>();
  /** Every account has `default`. */
  readonly scheduleGroups = new Map<string, FakeScheduleGroup>([
    ['default', { name: 'default', tags: {}, schedules: new Map() }],
  ]);
  readonly stacks = new Map<string, FakeStack>();
  /** ARNs that the index of tags still lists under a deployment, though they are gone. */
  readonly staleArns: { arn: string; tags: Tags }[] = [];
  /** Of lists. Small, whoever reads only the first page is found out. */
  pageSize = 100;
  /** Called at every full minute that passes; the Scheduler's. */
  onMinute: (nowMs: number) => void = () => {};
  #events: Due[] = [];
  #nextMinuteMs = this.nowMs + 60_000;
  #count = 0;

  constructor(region: string) {
    this.region = region;
  }

  /** Lets time pass; what falls due happens, in order. */
  advance(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const event = this.#events.reduce<Due | undefined>(
        (first, one) => (first === undefined || one.atMs < first.atMs ? one : first),
        undefined,
      );
      const isEvent = event !== undefined && event.atMs <= this.#nextMinuteMs;
      const nextMs = isEvent ? event.atMs : this.#nextMinuteMs;
      if (nextMs > untilMs) break;
      this.nowMs = Math.max(this.nowMs, nextMs);
      if (isEvent) {
        this.#events.splice(this.#events.indexOf(event), 1);
        event.act();
      } else {
        this.#nextMinuteMs += 60_000;
        this.onMinute(this.nowMs);
      }
    }
    this.nowMs = untilMs;
  }

  /** Sets the clock; nothing happens meanwhile. */
  startAt(time: string): void {
    this.nowMs = Date.parse(time);
    this.#nextMinuteMs = this.nowMs + 60_000;
  }

  after(ms: number, act: () => void): void {
    this.#events.push({ atMs: this.nowMs + ms, act });
  }

  /** 1, 2, 3, ... */
  next(): number {
    return ++this.#count;
  }

  arn(service: string, resource: string): string {
    return `arn:aws:${service}:${this.region}:${ACCOUNT}:${resource}`;
  }

  address(): string {
    return `203.0.113.${this.next() % 250}`;
  }

  addInstance(
    tags: Tags,
    options: { ip?: 'none' | 'lent' | 'elastic'; state?: FakeInstance['state'] } = {},
  ): FakeInstance {
    const { ip = 'none', state = 'running' } = options;
    const id = `i-${this.next().toString(16).padStart(17, '0')}`;
    const instance: FakeInstance = {
      id,
      tags: { ...tags },
      state,
      hasElasticIp: ip === 'elastic',
      hasPublicIp: ip !== 'none',
      publicIp: ip === 'none' ? undefined : this.address(),
    };
    this.instances.set(id, instance);
    return instance;
  }

  addGroup(name: string, tags: Tags, sizes: { min: number; desired: number; max: number }): FakeGroup {
    const group: FakeGroup = { name, tags: { ...tags }, ...sizes, members: new Map(), isUnhealthy: false };
    this.groups.set(name, group);
    for (let index = 0; index < sizes.desired; index++)
      group.members.set(this.addInstance({ ...tags, 'aws:autoscaling:groupName': name }).id, 'InService');
    return group;
  }

  addService(cluster: string, name: string, tags: Tags, desired: number): FakeService {
    const service: FakeService = {
      cluster,
      name,
      tags: { ...tags },
      desired,
      running: desired,
      status: 'ACTIVE',
    };
    this.services.set(`${cluster}/${name}`, service);
    return service;
  }

  addDatabase(
    id: string,
    tags: Tags,
    of: { kind?: 'db' | 'cluster'; clusterId?: string } = {},
  ): FakeDatabase {
    const { kind = 'db', clusterId } = of;
    const database: FakeDatabase = {
      id,
      kind,
      clusterId,
      tags: { ...tags },
      state: 'available',
      restartsAtMs: undefined,
    };
    this.databases.set(`${kind} ${id}`, database);
    return database;
  }

  addCache(id: string, tags: Tags, nodeType: string, replicationGroup?: string): void {
    this.caches.set(id, { id, tags: { ...tags }, nodeType, replicationGroup });
  }

  /** Launches and ends members until the group has as many as it wants. */
  balance(group: FakeGroup): void {
    const alive = [...group.members].filter(([, state]) => state !== 'Terminating').map(([id]) => id);
    for (let count = alive.length; count < group.desired; count++) {
      const tags: Tags = { ...group.tags, 'aws:autoscaling:groupName': group.name };
      const { id } = this.addInstance(tags, { state: 'pending' });
      group.members.set(id, 'Pending');
      this.after(45_000, () => {
        const instance = this.instances.get(id);
        if (instance?.state !== 'pending') return;
        instance.state = 'running';
        if (!group.isUnhealthy) group.members.set(id, 'InService');
        else this.#endMember(group, id);
      });
    }
    for (const id of alive.slice(group.desired)) this.#endMember(group, id);
  }

  #endMember(group: FakeGroup, id: string): void {
    group.members.set(id, 'Terminating');
    const instance = this.instances.get(id);
    if (instance !== undefined) instance.state = 'shutting-down';
    this.after(30_000, () => {
      if (instance !== undefined) instance.state = 'terminated';
      group.members.delete(id);
      this.balance(group);
    });
  }

  /** An unhealthy member is replaced: one that somebody stopped, too. */
  memberStopped(instance: FakeInstance): void {
    const group = this.groups.get(instance.tags['aws:autoscaling:groupName'] ?? '');
    if (group?.members.has(instance.id)) this.after(60_000, () => this.#endMember(group, instance.id));
  }

  stopDatabase(database: FakeDatabase): void {
    database.state = 'stopping';
    this.after(180_000, () => {
      database.state = 'stopped';
      const restartsAtMs = this.nowMs + RESTART_MS;
      database.restartsAtMs = restartsAtMs;
      this.after(RESTART_MS, () => {
        if (database.state === 'stopped' && database.restartsAtMs === restartsAtMs)
          this.startDatabase(database);
      });
    });
  }

  startDatabase(database: FakeDatabase): void {
    database.state = 'starting';
    database.restartsAtMs = undefined;
    this.after(240_000, () => {
      if (database.state === 'starting') database.state = 'available';
    });
  }

  page<T>(all: readonly T[], token: string | undefined): { items: T[]; next: string | undefined } {
    const from = Number(token ?? 0);
    const to = from + this.pageSize;
    return { items: all.slice(from, to), next: to < all.length ? String(to) : undefined };
  }

  /** Becomes as the other is, where nothing is under way. */
  copy(other: Cloud): void {
    this.nowMs = other.nowMs;
    this.#count = other.#count;
    this.#nextMinuteMs = other.#nextMinuteMs;
    for (const key of [
      'instances',
      'groups',
      'services',
      'databases',
      'caches',
      'scheduleGroups',
      'stacks',
    ] as const) {
      const own: Map<string, unknown> = this[key];
      own.clear();
      for (const [id, value] of structuredClone<Map<string, unknown>>(other[key])) own.set(id, value);
    }
  }

  /** What is, without what differs from one run to the next: addresses, times, names of what groups launch. */
  snapshot(): unknown {
    const byKey = (a: unknown, b: unknown) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
    return {
      instances: [...this.instances.values()]
        .filter((one) => one.tags['aws:autoscaling:groupName'] === undefined)
        .map(({ id, state, tags }) => ({ id, state, tags })),
      groups: [...this.groups.values()].map((group) => ({
        ...group,
        members: [...group.members.values()].sort(),
      })),
      services: [...this.services.values()],
      databases: [...this.databases.values()].map(({ restartsAtMs: _, ...rest }) => rest),
      scheduleGroups: [...this.scheduleGroups.values()].map(({ name, tags, schedules }) => ({
        name,
        tags,
        schedules: [...schedules.values()]
          .map(({ name: own, input }) => ({ own, input: withoutToken(input) }))
          .sort(byKey),
      })),
      stacks: [...this.stacks.values()]
        .filter(({ status }) => status !== 'DELETE_COMPLETE')
        .map(({ name, status, tags, template, isProtected, changeSets }) => {
          return { name, status, tags, template, isProtected, changeSets: [...changeSets.keys()] };
        }),
    };
  }
}

function withoutToken({ ClientToken: _, ...rest }: Record<string, unknown>): Record<string, unknown> {
  return rest;
}

export function toTagList(tags: Tags): { Key: string; Value: string }[] {
  return Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));
}

export function fromTagList(list: readonly { Key: string; Value?: string }[] | undefined): Tags {
  return Object.fromEntries((list ?? []).map(({ Key, Value = '' }) => [Key, Value]));
}

export function found<T>(value: T | undefined, code: string, message: string, status = 400): T {
  if (value === undefined) throw new AwsError(code, message, status);
  return value;
}
