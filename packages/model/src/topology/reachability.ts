/**
 * Who can reach whom: from security groups, NACLs, routes and addresses. The question is answered on a
 * {@link NetworkView}, which is drawn from the plan here, and by the emitters' tests from what they emitted, so that
 * all of them are judged by the same rules and none by another's word.
 */
import { contains, hostRange, parseAddress, parseRange, type Range } from './ipv4.ts';
import type { AclEntry, Plan, Rule } from './plan.ts';

/** What decides about packets, and nothing else. */
export interface NetworkView {
  readonly vpcCidr: string;
  readonly subnets: readonly SubnetView[];
  readonly groups: readonly GroupView[];
  readonly endpoints: readonly EndpointView[];
}
export interface SubnetView {
  readonly id: string;
  readonly cidr: string;
  /** None lets everything through, as the VPC's own one does. */
  readonly acl: readonly Omit<AclEntry, 'id'>[] | null;
  /** Beside the VPC's own range. */
  readonly routes: readonly { readonly destination: string; readonly target: RouteTarget }[];
}
export type RouteTarget =
  | { readonly kind: 'internet-gateway' }
  | { readonly kind: 'interface'; readonly endpoint: string; readonly deviceIndex: number }
  | { readonly kind: 'nat-gateway'; readonly subnet: string };
export interface GroupView {
  readonly id: string;
  readonly ingress: readonly RuleView[];
  readonly egress: readonly RuleView[];
}
export type RuleView = Omit<Rule, 'id' | 'description'>;
export interface EndpointView {
  /** The id of the instance, group, load balancer, database ... */
  readonly id: string;
  readonly interfaces: readonly InterfaceView[];
}
export interface InterfaceView {
  /** It is in one of them. */
  readonly subnets: readonly string[];
  /** Null where AWS gives it one from its subnet. */
  readonly privateIp: string | null;
  readonly groups: readonly string[];
  readonly isPublic: boolean;
  readonly sourceDestCheck: boolean;
}

/** Somebody outside: any address (one of RFC 5737's stands for it), or the one given. */
export interface Outside {
  readonly address: string;
}
export const ANYBODY: Outside = { address: '198.51.100.1' };

export type Protocol = 'tcp' | 'udp';

/** The ports that Linux gives to what it opens itself; replies come back to them. */
const REPLY_PORTS = { fromPort: 32_768, toPort: 60_999 };

/**
 * Whether a connection from `a` to `b` comes about, and its replies come back.
 * @param a id of an endpoint, or somebody outside
 * @param b id of an endpoint, or somebody outside
 */
export function canReach(
  network: Plan | NetworkView,
  a: string | Outside,
  b: string | Outside,
  port: number,
  protocol: Protocol = 'tcp',
): boolean {
  const view = 'resources' in network ? viewOfPlan(network) : network;
  if (typeof a !== 'string') return typeof b === 'string' && fromOutside(view, a, b, port, protocol);
  const source = endpoint(view, a);
  if (typeof b !== 'string')
    return source.interfaces.slice(0, 1).some((one) => goesOut(view, one, b, port, protocol));
  return endpoint(view, b).interfaces.some((to) =>
    addressesOf(view, to).every(({ range, subnet }) => {
      const from = sourceInterface(view, source, range);
      return addressesOf(view, from).every((own) =>
        passes(view, { ...own, of: from }, { range, subnet, of: to }, port, protocol),
      );
    }),
  );
}

interface Place {
  /** One address, or the whole subnet where AWS chooses. */
  readonly range: Range;
  readonly subnet: SubnetView;
}
interface End extends Place {
  readonly of: InterfaceView;
}

/** Inside the VPC: out of the one's groups and NACL, into the other's, and back through the NACLs. */
function passes(view: NetworkView, from: End, to: End, port: number, protocol: Protocol): boolean {
  if (!allows(view, from.of, 'egress', { range: to.range, groups: to.of.groups }, port, protocol))
    return false;
  if (!allows(view, to.of, 'ingress', { range: from.range, groups: from.of.groups }, port, protocol))
    return false;
  // NACLs stand at the edges of subnets.
  if (from.subnet.id === to.subnet.id) return true;
  const there = { fromPort: port, toPort: port };
  return (
    aclAllows(from.subnet, 'egress', to.range, there, protocol) &&
    aclAllows(to.subnet, 'ingress', from.range, there, protocol) &&
    aclAllows(to.subnet, 'egress', from.range, REPLY_PORTS, protocol) &&
    aclAllows(from.subnet, 'ingress', to.range, REPLY_PORTS, protocol)
  );
}

function fromOutside(view: NetworkView, who: Outside, to: string, port: number, protocol: Protocol): boolean {
  const range = addressRange(who.address);
  const there = { fromPort: port, toPort: port };
  return endpoint(view, to).interfaces.some(
    (one) =>
      one.isPublic &&
      allows(view, one, 'ingress', { range, groups: [] }, port, protocol) &&
      addressesOf(view, one).every(
        ({ subnet }) =>
          routeTo(subnet, range)?.kind === 'internet-gateway' &&
          aclAllows(subnet, 'ingress', range, there, protocol) &&
          aclAllows(subnet, 'egress', range, REPLY_PORTS, protocol),
      ),
  );
}

/** Out to the internet: straight, through a NAT gateway, or through a host that forwards. */
function goesOut(
  view: NetworkView,
  from: InterfaceView,
  who: Outside,
  port: number,
  protocol: Protocol,
): boolean {
  const range = addressRange(who.address);
  const there = { fromPort: port, toPort: port };
  if (!allows(view, from, 'egress', { range, groups: [] }, port, protocol)) return false;
  return addressesOf(view, from).every(({ range: own, subnet }) => {
    const leaves =
      aclAllows(subnet, 'egress', range, there, protocol) &&
      aclAllows(subnet, 'ingress', range, REPLY_PORTS, protocol);
    if (!leaves) return false;
    const target = routeTo(subnet, range);
    if (target === undefined) return false;
    if (target.kind === 'internet-gateway') return from.isPublic;
    if (target.kind === 'nat-gateway') {
      const beyond = view.subnets.find(({ id }) => id === target.subnet);
      return (
        beyond !== undefined &&
        routeTo(beyond, range)?.kind === 'internet-gateway' &&
        aclAllows(beyond, 'egress', range, there, protocol) &&
        // A NAT gateway gives out ports from 1024 on.
        aclAllows(beyond, 'ingress', range, { fromPort: 1024, toPort: 65_535 }, protocol)
      );
    }
    const router = endpoint(view, target.endpoint);
    const inward = router.interfaces[target.deviceIndex];
    const outward = router.interfaces[0];
    return (
      inward !== undefined &&
      outward !== undefined &&
      inward !== outward &&
      // AWS drops packets that are not the host's own unless the check is off.
      !inward.sourceDestCheck &&
      allows(view, inward, 'ingress', { range: own, groups: from.groups }, port, protocol) &&
      goesOut(view, outward, who, port, protocol)
    );
  });
}

/** The interface that Linux takes: the one in the same subnet, otherwise the first. */
function sourceInterface(view: NetworkView, source: EndpointView, to: Range): InterfaceView {
  const [first] = source.interfaces;
  if (first === undefined) throw new Error(`${source.id} has no interface`);
  return (
    source.interfaces.find((one) =>
      addressesOf(view, one).some(({ subnet }) => contains(rangeOf(subnet.cidr), to)),
    ) ?? first
  );
}

function addressesOf(view: NetworkView, one: InterfaceView): Place[] {
  return one.subnets.map((id) => {
    const subnet = view.subnets.find((other) => other.id === id);
    if (subnet === undefined) throw new Error(`the network has no subnet ${id}`);
    return { subnet, range: one.privateIp === null ? rangeOf(subnet.cidr) : addressRange(one.privateIp) };
  });
}

function allows(
  view: NetworkView,
  one: InterfaceView,
  direction: 'ingress' | 'egress',
  peer: { readonly range: Range; readonly groups: readonly string[] },
  port: number,
  protocol: Protocol,
): boolean {
  return one.groups.some((id) => {
    const group = view.groups.find((other) => other.id === id);
    return group?.[direction].some(
      (rule) =>
        (rule.protocol === 'all' ||
          (rule.protocol === protocol && rule.fromPort <= port && port <= rule.toPort)) &&
        ('cidr' in rule.peer
          ? contains(rangeOf(rule.peer.cidr), peer.range)
          : // A prefix list is of others' addresses: nobody in question is on it.
            'securityGroup' in rule.peer && peer.groups.includes(rule.peer.securityGroup)),
    );
  });
}

/** The first entry that fits decides; no entry: denied. */
function aclAllows(
  subnet: SubnetView,
  direction: AclEntry['direction'],
  peer: Range,
  ports: { readonly fromPort: number; readonly toPort: number },
  protocol: Protocol,
): boolean {
  if (subnet.acl === null) return true;
  const entries = subnet.acl
    .filter((entry) => entry.direction === direction)
    .filter((entry) => entry.protocol === 'all' || entry.protocol === protocol)
    .sort((one, other) => one.ruleNumber - other.ruleNumber);
  const decides = entries.find(
    (entry) =>
      contains(rangeOf(entry.cidr), peer) &&
      (entry.protocol === 'all' || (entry.fromPort <= ports.fromPort && ports.toPort <= entry.toPort)),
  );
  return decides?.action === 'allow';
}

/** The route with the longest prefix. */
function routeTo(subnet: SubnetView, to: Range): RouteTarget | undefined {
  return subnet.routes
    .filter(({ destination }) => contains(rangeOf(destination), to))
    .sort((one, other) => rangeOf(other.destination).prefixBits - rangeOf(one.destination).prefixBits)[0]
    ?.target;
}

function endpoint(view: NetworkView, id: string): EndpointView {
  const found = view.endpoints.find((one) => one.id === id);
  if (found === undefined) throw new Error(`the network has no endpoint ${id}`);
  return found;
}

function rangeOf(cidr: string): Range {
  const range = parseRange(cidr);
  if (range === undefined) throw new Error(`${cidr} is no address range`);
  return range;
}

function addressRange(text: string): Range {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`${text} is no address`);
  return hostRange(address);
}

/** The plan as far as packets are concerned. */
export function viewOfPlan(plan: Plan): NetworkView {
  const endpoints = new Map<string, InterfaceView[]>();
  const add = (id: string, one: InterfaceView) => endpoints.set(id, [...(endpoints.get(id) ?? []), one]);
  const byDevice = plan.resources
    .filter((one) => one.kind === 'interface')
    .sort((one, other) => one.deviceIndex - other.deviceIndex);
  const publicInterfaces = new Set(
    plan.resources.flatMap((one) =>
      one.kind === 'address' && one.interface !== null ? [one.interface] : [],
    ),
  );
  for (const one of byDevice) {
    add(one.instance, {
      subnets: [one.subnet],
      privateIp: one.privateIp,
      groups: one.securityGroups,
      isPublic: publicInterfaces.has(one.id),
      sourceDestCheck: one.sourceDestCheck,
    });
  }
  let vpcCidr = '';
  const anywhere = { privateIp: null, sourceDestCheck: true } as const;
  for (const one of plan.resources) {
    switch (one.kind) {
      case 'vpc':
        vpcCidr = one.cidr;
        break;
      case 'scaling-group': {
        const template = plan.resources.find(({ id }) => id === one.launchTemplate);
        if (template?.kind !== 'launch-template') break;
        add(one.id, {
          ...anywhere,
          subnets: one.subnets,
          groups: template.securityGroups,
          isPublic: template.hasPublicAddress,
        });
        break;
      }
      case 'container-service':
        add(one.id, {
          ...{
            ...anywhere,
            subnets: one.subnets,
            groups: one.securityGroups,
            isPublic: one.hasPublicAddress,
          },
        });
        break;
      case 'load-balancer':
        add(one.id, { ...anywhere, subnets: one.subnets, groups: one.securityGroups, isPublic: true });
        break;
      case 'database':
      case 'aurora-cluster':
      case 'cache': {
        const group = plan.resources.find(({ id }) => id === one.subnetGroup);
        if (group?.kind !== 'subnet-group') break;
        add(one.id, { ...anywhere, subnets: group.subnets, groups: one.securityGroups, isPublic: false });
        break;
      }
      case 'file-system':
        add(one.id, { ...anywhere, subnets: one.subnets, groups: one.securityGroups, isPublic: false });
        break;
    }
  }
  const subnets = plan.resources.flatMap((subnet): SubnetView[] => {
    if (subnet.kind !== 'subnet') return [];
    const acl = plan.resources.find((one) => one.kind === 'network-acl' && one.subnets.includes(subnet.id));
    const table = plan.resources.find((one) => one.kind === 'route-table' && one.subnets.includes(subnet.id));
    const routes = table?.kind === 'route-table' ? table.routes : [];
    return [
      {
        id: subnet.id,
        cidr: subnet.cidr,
        acl: acl?.kind === 'network-acl' ? acl.entries : null,
        routes: routes.flatMap(({ destination, target }) => {
          const seen = targetView(plan, target);
          return seen === undefined ? [] : [{ destination, target: seen }];
        }),
      },
    ];
  });
  return {
    vpcCidr,
    subnets,
    groups: plan.resources.filter((one) => one.kind === 'security-group'),
    endpoints: [...endpoints].map(([id, interfaces]) => ({ id, interfaces })),
  };
}

function targetView(
  plan: Plan,
  target: { readonly kind: RouteTarget['kind']; readonly id: string },
): RouteTarget | undefined {
  const found = plan.resources.find(({ id }) => id === target.id);
  if (target.kind === 'internet-gateway') return { kind: 'internet-gateway' };
  if (found?.kind === 'nat-gateway') return { kind: 'nat-gateway', subnet: found.subnet };
  if (found?.kind === 'interface') {
    return { kind: 'interface', endpoint: found.instance, deviceIndex: found.deviceIndex };
  }
  return undefined;
}

/** One cell of the reachability table. */
export interface Cell {
  readonly from: string;
  readonly to: string;
  readonly port: number;
  readonly reaches: boolean;
}

/** Every pair, inside and outside, at every port that any rule names and one that none does. */
export function reachabilityTable(view: NetworkView): Cell[] {
  const ports = new Set<number>([55_555]);
  for (const group of view.groups) {
    for (const { protocol, fromPort, toPort } of [...group.ingress, ...group.egress]) {
      if (protocol === 'tcp') ports.add(fromPort).add(toPort);
    }
  }
  const ends: (string | Outside)[] = [ANYBODY, ...view.endpoints.map(({ id }) => id).sort()];
  const nameOf = (end: string | Outside) => (typeof end === 'string' ? end : 'internet');
  return ends.flatMap((from) =>
    ends
      .filter((to) => to !== from)
      .flatMap((to) =>
        [...ports]
          .sort((one, other) => one - other)
          .map((port) => ({
            from: nameOf(from),
            to: nameOf(to),
            port,
            reaches: canReach(view, from, to, port),
          })),
      ),
  );
}
