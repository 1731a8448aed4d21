/** The security matrix: who may speak to each component, on which ports; as data and as a table for people. */
import { contains, parseRange } from './ipv4.ts';
import { type Plan, type Rule, resourcesOf, type SecurityGroup } from './plan.ts';

export interface MatrixRow {
  /** Name of the security group's component. */
  readonly component: string;
  readonly direction: 'in' | 'out';
  /** `SSH`, `HTTP/HTTPS`, `RTMP`, `All Traffic`. */
  readonly traffic: string;
  /** Range, security group or prefix list, as the rule has it. */
  readonly peer: string;
  /** For people: `10.0.0.10/32 (Bastion)`. */
  readonly peerName: string;
  /** `80, 443`, or `All`. */
  readonly ports: string;
}

const traffic: Record<number, string> = {
  22: 'SSH',
  80: 'HTTP',
  443: 'HTTPS',
  1935: 'RTMP',
  1936: 'RTMPS',
  1937: 'RTMP push',
  2049: 'NFS',
  5432: 'PostgreSQL',
  6379: 'Redis',
  8080: 'Frontend HTTP',
  8090: 'Coordinator HTTP',
};

/** The rules of all security groups; ports that one peer has in one group are one row. */
export function securityMatrix(plan: Plan): MatrixRow[] {
  return resourcesOf(plan, 'security-group').flatMap((group) => [
    ...rows(plan, group, 'in', group.ingress),
    ...rows(plan, group, 'out', group.egress),
  ]);
}

function rows(
  plan: Plan,
  group: SecurityGroup,
  direction: MatrixRow['direction'],
  rules: readonly Rule[],
): MatrixRow[] {
  const webPorts = [80, 443];
  const byPeer = new Map<string, Rule[]>();
  for (const rule of rules) {
    if (rule.protocol === 'icmp') continue; // "nothing out": no packet fits it
    const isWeb = rule.fromPort === rule.toPort && webPorts.includes(rule.fromPort);
    const key = `${peerOf(rule)} ${isWeb ? 'web' : rule.id}`;
    byPeer.set(key, [...(byPeer.get(key) ?? []), rule]);
  }
  return [...byPeer.values()].map((same) => {
    const [first] = same as [Rule];
    const isAll = first.protocol === 'all';
    return {
      component: group.description,
      direction,
      traffic: isAll
        ? 'All Traffic'
        : same.map(({ fromPort }) => traffic[fromPort] ?? `${fromPort}`).join('/'),
      peer: peerOf(first),
      peerName: peerNameOf(plan, first),
      ports: isAll
        ? 'All'
        : same
            .map(({ fromPort, toPort }) => (fromPort === toPort ? fromPort : `${fromPort}-${toPort}`))
            .join(', '),
    };
  });
}

function peerOf({ peer }: Rule): string {
  if ('cidr' in peer) return peer.cidr;
  return 'securityGroup' in peer ? peer.securityGroup : peer.prefixList;
}

function peerNameOf(plan: Plan, rule: Rule): string {
  const { peer } = rule;
  if ('prefixList' in peer) return `${peer.prefixList} (CloudFront)`;
  if ('securityGroup' in peer) {
    const group = resourcesOf(plan, 'security-group').find(({ id }) => id === peer.securityGroup);
    return group?.description ?? peer.securityGroup;
  }
  if (peer.cidr === '0.0.0.0/0') return `${peer.cidr} (anywhere)`;
  const host = resourcesOf(plan, 'interface').find(({ privateIp }) => `${privateIp}/32` === peer.cidr);
  if (host !== undefined) return `${peer.cidr} (${host.purpose.split(',')[0]})`;
  const range = parseRange(peer.cidr);
  const subnet = resourcesOf(plan, 'subnet').find(({ cidr }) => {
    const own = parseRange(cidr);
    return range !== undefined && own !== undefined && contains(own, range) && contains(range, own);
  });
  return subnet === undefined ? peer.cidr : `${peer.cidr} (${subnet.purpose.toLowerCase()})`;
}

/** The matrix as a Markdown table. */
export function securityMatrixMarkdown(plan: Plan): string {
  const cell = (text: string) => text.replaceAll('|', '\\|');
  const lines = securityMatrix(plan).map(
    ({ component, direction, traffic, peerName, ports }) =>
      `| ${[component, direction === 'in' ? 'inbound' : 'outbound', traffic, cell(peerName), ports].join(' | ')} |`,
  );
  return [
    '| Component | Direction | Traffic | Peer | Ports |',
    '| --- | --- | --- | --- | --- |',
    ...lines,
    '',
  ].join('\n');
}
