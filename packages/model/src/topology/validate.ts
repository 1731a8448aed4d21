/**
 * What AWS would refuse, or what would not work, said before anything is synthesised. A plan of ours is valid by the
 * way it is drawn for most of this; sizes, counts and types that the operator chooses are not, and a fault in a profile
 * is caught by the same rules.
 */
import { type TopologyErrorCode, topologyErrorCatalogue } from './error.ts';
import { instanceTypes } from './instance-types.ts';
import { contains, hostRange, overlaps, parseAddress, parseRange } from './ipv4.ts';
import {
  type Kind,
  type Plan,
  type Resource,
  type ResourceOf,
  type Rule,
  resourcesOf,
  templateParts,
} from './plan.ts';

export interface Finding {
  readonly code: TopologyErrorCode;
  /** Id of the resource; the whole plan's when empty. */
  readonly resource: string;
  /** What is wrong, what is allowed, and what to do. */
  readonly sentence: string;
  /** A warning can be deployed. */
  readonly isWarning: boolean;
}

/** Default quotas of an account in a region (Service Quotas), by what they are called there. */
const quotas = {
  addresses: 5,
  groupsPerInterface: 5,
  rulesPerGroup: 60,
  /** An entry of CloudFront's prefix list counts as so many rules. */
  rulesOfCdnPrefixList: 55,
  aclEntriesPerDirection: 20,
  routesPerTable: 50,
  subnetsPerVpc: 200,
  vcpusOnDemand: 32,
} as const;
/** Of raw text, before Base64 (Amazon EC2 User Guide, "Run commands on your Linux instance at launch"). */
const MAX_USER_DATA_BYTES = 16_384;
const MAX_INLINE_FUNCTION_CHARS = 4096;
/** An ARN, where a template has a reference of some 20 characters. */
const RESOLVED_CHARS = 100;
/** Network, router, DNS, future use, broadcast. */
const KEPT_FIRST = 4;

/** Everything that is wrong with a plan, in the order of its resources; empty when nothing is. */
export function validatePlan(plan: Plan): Finding[] {
  return [
    ...findIdentity(plan),
    ...findReferences(plan),
    ...findNetwork(plan),
    ...findMachines(plan),
    ...findRules(plan),
    ...findZones(plan),
    ...findSizes(plan),
    ...findQuotas(plan),
    ...findNames(plan),
    ...findWaysIn(plan),
  ];
}

function finding(code: TopologyErrorCode, resource: string, detail: string, isWarning = false): Finding {
  return {
    code,
    resource,
    sentence: `${resource === '' ? '' : `${resource}: `}${topologyErrorCatalogue[code]} ${detail}`,
    isWarning,
  };
}

/** Ids of resources, and of the parts of them that become resources of their own. */
export function idsOf(one: Resource): string[] {
  switch (one.kind) {
    case 'route-table':
      return [one.id, ...one.routes.map(({ id }) => id)];
    case 'security-group':
      return [one.id, ...[...one.ingress, ...one.egress].map(({ id }) => id)];
    case 'network-acl':
      return [one.id, ...one.entries.map(({ id }) => id)];
    case 'listener':
      return [one.id, ...one.rules.map(({ id }) => id)];
    case 'role':
      return one.instanceProfile === null ? [one.id] : [one.id, one.instanceProfile];
    case 'file-system':
      return one.accessPoint === null ? [one.id] : [one.id, one.accessPoint.id];
    case 'aurora-cluster':
      return [one.id, one.writer.id];
    case 'http-api':
      return [one.id, ...one.routes.map(({ id }) => id)];
    case 'media-live-channel':
      return [one.id, one.inputSecurityGroup.id, one.input.id];
    default:
      return [one.id];
  }
}

function findIdentity(plan: Plan): Finding[] {
  const seen = new Set<string>();
  return plan.resources.flatMap(idsOf).flatMap((id) => {
    if (!/^[A-Z][A-Za-z0-9]{0,254}$/.test(id))
      return [finding('PLAN_NAME', id, 'An id is letters and digits, and begins with a capital.')];
    if (seen.has(id)) return [finding('PLAN_DUPLICATE', id, 'Each has an id of its own.')];
    seen.add(id);
    return [];
  });
}

/** The fields that hold ids of other resources, and of which kind those are. */
const references: {
  readonly [K in Kind]?: (
    one: ResourceOf<K>,
  ) => readonly (readonly [string | null, Kind | readonly Kind[]])[];
} = {
  'internet-gateway': ({ vpc }) => [[vpc, 'vpc']],
  subnet: ({ vpc }) => [[vpc, 'vpc']],
  'route-table': ({ vpc, subnets, routes }) => [
    [vpc, 'vpc'],
    ...subnets.map((id) => [id, 'subnet'] as const),
    ...routes.map(({ target }) => [target.id, target.kind] as const),
  ],
  'nat-gateway': ({ subnet, address }) => [
    [subnet, 'subnet'],
    [address, 'address'],
  ],
  address: (one) => [[one.interface, 'interface']],
  interface: ({ subnet, securityGroups, instance }) => [
    [subnet, 'subnet'],
    [instance, 'instance'],
    ...securityGroups.map((id) => [id, 'security-group'] as const),
  ],
  'security-group': ({ vpc, ingress, egress }) => [
    [vpc, 'vpc'],
    ...[...ingress, ...egress].flatMap(({ peer }) =>
      'securityGroup' in peer ? [[peer.securityGroup, 'security-group'] as const] : [],
    ),
  ],
  'network-acl': ({ vpc, subnets }) => [[vpc, 'vpc'], ...subnets.map((id) => [id, 'subnet'] as const)],
  'gateway-endpoint': ({ vpc, routeTables }) => [
    [vpc, 'vpc'],
    ...routeTables.map((id) => [id, 'route-table'] as const),
  ],
  'flow-log': ({ vpc, logGroup, role }) => [
    [vpc, 'vpc'],
    [logGroup, 'log-group'],
    [role, 'role'],
  ],
  instance: ({ instanceRole, keyPair }) => [
    [instanceRole, 'role'],
    [keyPair, 'key-pair'],
  ],
  'launch-template': ({ instanceRole, keyPair, securityGroups }) => [
    [instanceRole, 'role'],
    [keyPair, 'key-pair'],
    ...securityGroups.map((id) => [id, 'security-group'] as const),
  ],
  'scaling-group': ({ launchTemplate, subnets, targetGroups, notifies }) => [
    [launchTemplate, 'launch-template'],
    [notifies, 'topic'],
    ...subnets.map((id) => [id, 'subnet'] as const),
    ...targetGroups.map((id) => [id, 'target-group'] as const),
  ],
  'task-definition': ({ executionRole, taskRole, volumes, containers }) => [
    [executionRole, 'role'],
    [taskRole, 'role'],
    ...volumes.map(({ fileSystem }) => [fileSystem, 'file-system'] as const),
    ...containers.flatMap(({ repository, logGroup }) => [
      [repository, 'repository'] as const,
      [logGroup, 'log-group'] as const,
    ]),
  ],
  'container-service': ({ cluster, taskDefinition, subnets, securityGroups, targets }) => [
    [cluster, 'container-cluster'],
    [taskDefinition, 'task-definition'],
    ...subnets.map((id) => [id, 'subnet'] as const),
    ...securityGroups.map((id) => [id, 'security-group'] as const),
    ...targets.map(({ targetGroup }) => [targetGroup, 'target-group'] as const),
  ],
  'file-system': ({ subnets, securityGroups }) => [
    ...subnets.map((id) => [id, 'subnet'] as const),
    ...securityGroups.map((id) => [id, 'security-group'] as const),
  ],
  'load-balancer': ({ subnets, securityGroups, accessLogs }) => [
    [accessLogs, 'bucket'],
    ...subnets.map((id) => [id, 'subnet'] as const),
    ...securityGroups.map((id) => [id, 'security-group'] as const),
  ],
  'target-group': ({ vpc, targets }) => [[vpc, 'vpc'], ...targets.map((id) => [id, 'instance'] as const)],
  listener: ({ loadBalancer, certificate, action, rules }) => [
    [loadBalancer, 'load-balancer'],
    [certificate, 'certificate'],
    [action.kind === 'forward' ? action.targetGroup : null, 'target-group'],
    ...rules.map(({ targetGroup }) => [targetGroup, 'target-group'] as const),
  ],
  certificate: ({ zone }) => [[zone, 'zone']],
  'zone-signing': ({ zone }) => [[zone, 'zone']],
  record: ({ zone, target }) => [
    [zone, 'zone'],
    [target.kind === 'alias' ? target.id : null, ['load-balancer', 'distribution']],
  ],
  distribution: ({ certificate, webAcl, logBucket, behaviours }) => [
    [certificate, 'certificate'],
    [webAcl, 'web-acl'],
    [logBucket, 'bucket'],
    ...behaviours.map(
      ({ cachePolicy }) => ['id' in cachePolicy ? cachePolicy.id : null, 'cache-policy'] as const,
    ),
  ],
  'web-acl': ({ protects }) => protects.map((id) => [id, 'load-balancer'] as const),
  'subnet-group': ({ subnets }) => subnets.map((id) => [id, 'subnet'] as const),
  database: ({ subnetGroup, parameterGroup, securityGroups }) => [
    [subnetGroup, 'subnet-group'],
    [parameterGroup, 'parameter-group'],
    ...securityGroups.map((id) => [id, 'security-group'] as const),
  ],
  'aurora-cluster': ({ subnetGroup, parameterGroup, securityGroups }) => [
    [subnetGroup, 'subnet-group'],
    [parameterGroup, 'parameter-group'],
    ...securityGroups.map((id) => [id, 'security-group'] as const),
  ],
  cache: ({ subnetGroup, securityGroups, password }) => [
    [subnetGroup, 'subnet-group'],
    [password, 'secret'],
    ...securityGroups.map((id) => [id, 'security-group'] as const),
  ],
  bucket: ({ logsTo }) => [[logsTo, 'bucket']],
  role: ({ trusts }) => [
    'oidcProvider' in trusts ? [trusts.oidcProvider, 'oidc-provider'] : [null, 'oidc-provider'],
  ],
  'metric-filter': ({ logGroup }) => [[logGroup, 'log-group']],
  alarm: ({ topic }) => [[topic, 'topic']],
  schedule: ({ role, subject }) => [
    [role, 'role'],
    [subject, ['instance', 'scaling-group', 'container-service', 'database', 'aurora-cluster']],
  ],
  function: ({ role, logGroup }) => [
    [role, 'role'],
    [logGroup, 'log-group'],
  ],
  'http-api': (one) => [
    [one.function, 'function'],
    [one.logGroup, 'log-group'],
  ],
  'media-live-channel': ({ role }) => [[role, 'role']],
};

function findReferences(plan: Plan): Finding[] {
  const kinds = new Map<string, Kind>(
    plan.resources.flatMap((one) => idsOf(one).map((id) => [id, one.kind] as const)),
  );
  const dangling = plan.resources.flatMap((one) => {
    const of = references[one.kind] as
      | ((resource: Resource) => readonly (readonly [string | null, Kind | readonly Kind[]])[])
      | undefined;
    return (of?.(one) ?? []).flatMap(([id, wanted]) => {
      if (id === null) return [];
      const kind = kinds.get(id);
      if (kind !== undefined && [wanted].flat().includes(kind)) return [];
      return [
        finding(
          'PLAN_DANGLING',
          one.id,
          `It names ${id}, which is ${kind === undefined ? 'not there' : `a ${kind}`}; it has to be a ${[wanted].flat().join(' or ')}.`,
        ),
      ];
    });
  });
  const inTexts = plan.resources.flatMap((one) =>
    textsOf(one).flatMap((text) => {
      try {
        return templateParts(text).flatMap((part) =>
          typeof part === 'string' || part.id === 'AWS' || kinds.has(part.id)
            ? []
            : [finding('PLAN_DANGLING', one.id, `A text names ${part.id}, which is not there.`)],
        );
      } catch (error) {
        return [finding('PLAN_TEMPLATE', one.id, error instanceof Error ? error.message : '')];
      }
    }),
  );
  return [...dangling, ...inTexts];
}

/** Every text of a resource that may hold references; a function's source is JavaScript, and no template. */
function textsOf(value: unknown, key = ''): string[] {
  if (key === 'code') return [];
  if (typeof value === 'string') return value.includes('${') ? [value] : [];
  if (Array.isArray(value)) return value.flatMap((one) => textsOf(one));
  if (typeof value === 'object' && value !== null)
    return Object.entries(value).flatMap(([name, one]) => textsOf(one, name));
  return [];
}

function findNetwork(plan: Plan): Finding[] {
  const findings: Finding[] = [];
  const vpc = parseRange(resourcesOf(plan, 'vpc')[0]?.cidr ?? '');
  const subnets = resourcesOf(plan, 'subnet');
  for (const [index, subnet] of subnets.entries()) {
    const range = parseRange(subnet.cidr);
    if (range === undefined || vpc === undefined || !contains(vpc, range)) {
      findings.push(
        finding(
          'PLAN_SUBNET_RANGE',
          subnet.id,
          `${subnet.cidr} is not within the VPC's ${resourcesOf(plan, 'vpc')[0]?.cidr}.`,
        ),
      );
      continue;
    }
    if (range.prefixBits < 16 || range.prefixBits > 28) {
      findings.push(finding('PLAN_SUBNET_RANGE', subnet.id, `${subnet.cidr}: a subnet is a /16 to a /28.`));
    }
    for (const other of subnets.slice(0, index)) {
      const otherRange = parseRange(other.cidr);
      if (otherRange !== undefined && overlaps(range, otherRange)) {
        findings.push(
          finding('PLAN_SUBNET_RANGE', subnet.id, `${subnet.cidr} overlaps ${other.id}'s ${other.cidr}.`),
        );
      }
    }
  }
  const taken = new Map<string, string>();
  for (const one of resourcesOf(plan, 'interface')) {
    const range = parseRange(subnets.find(({ id }) => id === one.subnet)?.cidr ?? '');
    const address = parseAddress(one.privateIp);
    if (range === undefined || address === undefined || !contains(range, hostRange(address))) {
      findings.push(finding('PLAN_ADDRESS', one.id, `${one.privateIp} is not an address of ${one.subnet}.`));
    } else if (address < range.first + KEPT_FIRST || address === range.last) {
      findings.push(
        finding(
          'PLAN_ADDRESS',
          one.id,
          `${one.privateIp}: AWS keeps the first four addresses and the last one.`,
        ),
      );
    }
    const other = taken.get(one.privateIp);
    if (other !== undefined)
      findings.push(finding('PLAN_ADDRESS', one.id, `${one.privateIp} is ${other}'s, too.`));
    taken.set(one.privateIp, one.id);
  }
  const interfaces = resourcesOf(plan, 'interface');
  for (const table of resourcesOf(plan, 'route-table')) {
    const destinations = new Set<string>();
    for (const { destination, target } of table.routes) {
      if (destinations.has(destination))
        findings.push(finding('PLAN_ROUTE', table.id, `It has two routes to ${destination}.`));
      destinations.add(destination);
      const through = interfaces.find(({ id }) => target.kind === 'interface' && id === target.id);
      if (through?.sourceDestCheck) {
        findings.push(
          finding(
            'PLAN_ROUTE',
            table.id,
            `${destination} goes through ${through.id}, whose check of source and destination is on. Turn it off.`,
          ),
        );
      }
    }
    if (table.routes.length > quotas.routesPerTable)
      findings.push(
        finding('PLAN_QUOTA', table.id, `A route table has at most ${quotas.routesPerTable} routes.`),
      );
  }
  const tables = resourcesOf(plan, 'route-table');
  for (const subnet of subnets) {
    const of = tables.filter((table) => table.subnets.includes(subnet.id));
    if (of.length > 1)
      findings.push(
        finding('PLAN_ROUTE', subnet.id, `It is in ${of.length} route tables; a subnet is in one.`),
      );
    const hasHosts = subnet.tier !== 'data';
    if (hasHosts && !of.some(({ routes }) => routes.some(({ destination }) => destination === '0.0.0.0/0'))) {
      findings.push(finding('PLAN_NO_ROUTE_OUT', subnet.id, 'Its route table has no route to 0.0.0.0/0.'));
    }
  }
  return findings;
}

function findMachines(plan: Plan): Finding[] {
  const findings: Finding[] = [];
  const interfaces = resourcesOf(plan, 'interface');
  const zones = new Map(resourcesOf(plan, 'subnet').map(({ id, zone }) => [id, zone]));
  for (const machine of [...resourcesOf(plan, 'instance'), ...resourcesOf(plan, 'launch-template')]) {
    const limits = instanceTypes[machine.instanceType];
    if (limits === undefined) {
      findings.push(
        finding(
          'PLAN_INSTANCE_TYPE',
          machine.id,
          `${machine.instanceType} is not one of ${Object.keys(instanceTypes).join(', ')}.`,
        ),
      );
      continue;
    }
    if (limits.architecture !== machine.architecture) {
      findings.push(
        finding(
          'PLAN_ARCHITECTURE',
          machine.id,
          `${machine.instanceType} is ${limits.architecture}, and the image ${machine.architecture}. Choose a type of the t3, c6i, c7i or m6i family.`,
        ),
      );
    }
    const bytes = templateParts(machine.userData).reduce(
      (sum, part) =>
        sum + (typeof part === 'string' ? new TextEncoder().encode(part).length : RESOLVED_CHARS),
      0,
    );
    if (bytes > MAX_USER_DATA_BYTES) {
      findings.push(
        finding(
          'PLAN_QUOTA',
          machine.id,
          `Its user data has ${bytes} bytes; EC2 takes ${MAX_USER_DATA_BYTES}.`,
        ),
      );
    }
    if (machine.kind !== 'instance') continue;
    const own = interfaces.filter(({ instance }) => instance === machine.id);
    if (own.length > limits.interfaces) {
      const fitting = Object.entries(instanceTypes).flatMap(
        ([type, { interfaces: count, architecture, isNitro }]) =>
          isNitro && count >= own.length && architecture === machine.architecture ? [type] : [],
      );
      findings.push(
        finding(
          'PLAN_INTERFACE_LIMIT',
          machine.id,
          `It has ${own.length} interfaces; a ${machine.instanceType} takes ${limits.interfaces}. These take ${own.length}: ${fitting.join(', ')}.`,
        ),
      );
    }
    const devices = own.map(({ deviceIndex }) => deviceIndex).sort((one, other) => one - other);
    if (devices.some((device, index) => device !== index)) {
      findings.push(
        finding(
          'PLAN_INTERFACE_LIMIT',
          machine.id,
          `Its interfaces are numbered ${devices.join(', ')}; they are numbered from 0, without gaps.`,
        ),
      );
    }
    // The host's own files name ens5 to ens7.
    if (machine.host.natFor.length > 0 && !limits.isNitro) {
      findings.push(
        finding(
          'PLAN_INSTANCE_TYPE',
          machine.id,
          `${machine.instanceType} is a Xen type, whose interfaces are not called ens5: no packet would be forwarded. Choose t3 or newer.`,
        ),
      );
    }
    for (const { id, subnet } of own) {
      if (zones.get(subnet) !== machine.zone)
        findings.push(
          finding('PLAN_ZONE', id, `It is in ${zones.get(subnet)}, and ${machine.id} in ${machine.zone}.`),
        );
    }
  }
  return findings;
}

function findRules(plan: Plan): Finding[] {
  const findings: Finding[] = [];
  for (const group of resourcesOf(plan, 'security-group')) {
    for (const rules of [group.ingress, group.egress]) {
      const count = rules.reduce(
        (sum, { peer }) => sum + ('prefixList' in peer ? quotas.rulesOfCdnPrefixList : 1),
        0,
      );
      if (count > quotas.rulesPerGroup) {
        findings.push(
          finding(
            'PLAN_QUOTA',
            group.id,
            `It has ${count} rules in one direction; an account has ${quotas.rulesPerGroup}. Give fewer ranges in ingestFrom.`,
          ),
        );
      }
      const seen = new Set<string>();
      for (const rule of rules) {
        const problem = problemOfRule(rule);
        if (problem !== undefined) findings.push(finding('PLAN_RULE', rule.id, problem));
        const { id: _, description: __, ...same } = rule;
        const key = JSON.stringify(same);
        if (seen.has(key))
          findings.push(
            finding(
              'PLAN_RULE',
              rule.id,
              `${group.id} has the same rule already; AWS refuses the second one.`,
            ),
          );
        seen.add(key);
      }
    }
  }
  for (const acl of resourcesOf(plan, 'network-acl')) {
    for (const direction of ['ingress', 'egress'] as const) {
      const entries = acl.entries.filter((entry) => entry.direction === direction);
      if (entries.length > quotas.aclEntriesPerDirection) {
        findings.push(
          finding(
            'PLAN_QUOTA',
            acl.id,
            `It has ${entries.length} ${direction} entries; an account has ${quotas.aclEntriesPerDirection}. Give fewer ranges in ingestFrom.`,
          ),
        );
      }
      const numbers = new Set<number>();
      for (const entry of entries) {
        if (numbers.has(entry.ruleNumber) || entry.ruleNumber < 1 || entry.ruleNumber > 32_766) {
          findings.push(
            finding('PLAN_RULE', entry.id, `Its number ${entry.ruleNumber} is taken, or not in 1 to 32766.`),
          );
        }
        numbers.add(entry.ruleNumber);
        if (parseRange(entry.cidr) === undefined)
          findings.push(finding('PLAN_RULE', entry.id, `${entry.cidr} is no address range.`));
        if (!isPortRange(entry))
          findings.push(
            finding('PLAN_RULE', entry.id, `Ports ${entry.fromPort} to ${entry.toPort} are no range.`),
          );
      }
    }
  }
  return findings;
}

function problemOfRule(rule: Rule): string | undefined {
  if (!isPortRange(rule)) return `Ports ${rule.fromPort} to ${rule.toPort} are no range of ${rule.protocol}.`;
  if ('cidr' in rule.peer && parseRange(rule.peer.cidr) === undefined)
    return `${rule.peer.cidr} is no address range.`;
  if ('prefixList' in rule.peer && !/^pl-[0-9a-f]{8,17}$/.test(rule.peer.prefixList))
    return `${rule.peer.prefixList} is no prefix list.`;
  return /^[a-zA-Z0-9. _\-:/()#,@[\]+=&;{}!$*]{0,255}$/.test(rule.description)
    ? undefined
    : 'Its description has characters that AWS refuses.';
}

function isPortRange({
  protocol,
  fromPort,
  toPort,
}: {
  protocol: string;
  fromPort: number;
  toPort: number;
}): boolean {
  if (protocol === 'all') return fromPort === 0 && toPort === 0;
  if (protocol === 'icmp') return fromPort === -1 && toPort === -1;
  return fromPort >= 0 && fromPort <= toPort && toPort <= 65_535;
}

/** Load balancers, subnet groups and clusters want two zones. */
function findZones(plan: Plan): Finding[] {
  const zones = new Map(resourcesOf(plan, 'subnet').map(({ id, zone }) => [id, zone]));
  const count = (subnets: readonly string[]) => new Set(subnets.map((id) => zones.get(id))).size;
  const tooFew = (id: string, what: string, subnets: readonly string[]) =>
    count(subnets) >= 2 ? [] : [finding('PLAN_ZONE_COUNT', id, `${what} has subnets in ${count(subnets)}.`)];
  return [
    ...resourcesOf(plan, 'subnet-group').flatMap(({ id, subnets }) => tooFew(id, 'A subnet group', subnets)),
    ...resourcesOf(plan, 'load-balancer').flatMap(({ id, type, subnets }) =>
      type === 'application' ? tooFew(id, 'An application load balancer', subnets) : [],
    ),
  ];
}

/** AWS Fargate: memory in MB by CPU units (Amazon ECS Developer Guide, "Task size"). */
const fargateMemory: Record<number, readonly [number, number]> = {
  256: [512, 2048],
  512: [1024, 4096],
  1024: [2048, 8192],
  2048: [4096, 16_384],
  4096: [8192, 30_720],
};

function findSizes(plan: Plan): Finding[] {
  return plan.resources.flatMap((one): Finding[] => {
    if (one.kind === 'scaling-group' || one.kind === 'container-service') {
      const { minimum, desired, maximum } = one;
      return minimum <= desired && desired <= maximum
        ? []
        : [finding('PLAN_CAPACITY', one.id, `They are ${minimum}, ${desired} and ${maximum}.`)];
    }
    if (one.kind === 'task-definition') {
      const [least = 0, most = 0] = fargateMemory[one.cpuUnits] ?? [];
      return one.memoryMb >= least && one.memoryMb <= most
        ? []
        : [
            finding(
              'PLAN_FARGATE_SIZE',
              one.id,
              `${one.cpuUnits} units go with ${least} to ${most} MB, and not with ${one.memoryMb}.`,
            ),
          ];
    }
    if (one.kind === 'function' && one.code.length > MAX_INLINE_FUNCTION_CHARS) {
      return [
        finding(
          'PLAN_QUOTA',
          one.id,
          `Its source has ${one.code.length} characters; CloudFormation takes ${MAX_INLINE_FUNCTION_CHARS}.`,
        ),
      ];
    }
    return [];
  });
}

function findQuotas(plan: Plan): Finding[] {
  const findings: Finding[] = [];
  const addresses = resourcesOf(plan, 'address').length;
  if (addresses > quotas.addresses) {
    findings.push(
      finding('PLAN_QUOTA', '', `It has ${addresses} Elastic IPs; an account has ${quotas.addresses}.`),
    );
  }
  const subnets = resourcesOf(plan, 'subnet').length;
  if (subnets > quotas.subnetsPerVpc) findings.push(finding('PLAN_QUOTA', '', `It has ${subnets} subnets.`));
  const vcpusOf = (type: string) => instanceTypes[type]?.vcpus ?? 0;
  const templates = new Map(resourcesOf(plan, 'launch-template').map((one) => [one.id, one.instanceType]));
  const vcpus =
    resourcesOf(plan, 'instance').reduce((sum, one) => sum + vcpusOf(one.instanceType), 0) +
    resourcesOf(plan, 'scaling-group').reduce(
      (sum, one) => sum + one.maximum * vcpusOf(templates.get(one.launchTemplate) ?? ''),
      0,
    );
  if (vcpus > quotas.vcpusOnDemand) {
    findings.push(
      finding(
        'PLAN_QUOTA',
        '',
        `Its hosts have ${vcpus} vCPUs; a new account has ${quotas.vcpusOnDemand} ("Running On-Demand Standard instances"). Ask AWS for more, or choose fewer or smaller hosts.`,
        true,
      ),
    );
  }
  for (const one of resourcesOf(plan, 'interface')) {
    if (one.securityGroups.length > quotas.groupsPerInterface) {
      findings.push(
        finding(
          'PLAN_QUOTA',
          one.id,
          `It is in ${one.securityGroups.length} security groups; an account has ${quotas.groupsPerInterface}.`,
        ),
      );
    }
  }
  return findings;
}

/** Longest names, by kind, as the services' API references have them. */
const longestName: { readonly [K in Kind]?: number } = {
  'load-balancer': 32,
  'target-group': 32,
  role: 64,
  cache: 40,
  database: 63,
  'aurora-cluster': 63,
  function: 64,
  schedule: 64,
  'security-group': 255,
};

function findNames(plan: Plan): Finding[] {
  return plan.resources.flatMap((one) => {
    const longest = longestName[one.kind];
    const name = 'name' in one ? one.name : '';
    if (longest === undefined || name.length <= longest) return [];
    return [
      finding(
        'PLAN_NAME',
        one.id,
        `${name} has ${name.length} characters; a ${one.kind} has at most ${longest}. Choose a shorter name of the deployment.`,
      ),
    ];
  });
}

function findWaysIn(plan: Plan): Finding[] {
  const { operatorAddress, ssm } = plan.deployment;
  const hasHosts = resourcesOf(plan, 'instance').length + resourcesOf(plan, 'launch-template').length > 0;
  return hasHosts && operatorAddress === null && !ssm
    ? [
        finding(
          'PLAN_NOBODY_GETS_IN',
          '',
          'Set operatorAddress to your address, such as 203.0.113.7/32, or ssm: true.',
          true,
        ),
      ]
    : [];
}
