/** The network as a picture: an SVG to look at, and Mermaid for documents that draw it themselves. */
import { type Plan, type Resource, resourcesOf, type Subnet } from './plan.ts';
import { canReach, viewOfPlan } from './reachability.ts';

interface Box {
  readonly id: string;
  readonly label: string;
  readonly detail: string;
  /** Of the subnets' tier, or `outside`, `edge`. */
  readonly row: string;
}
interface Arrow {
  readonly from: string;
  readonly to: string;
  readonly label: string;
}
interface Drawing {
  readonly boxes: readonly Box[];
  readonly arrows: readonly Arrow[];
  readonly rows: readonly { readonly id: string; readonly title: string }[];
}

const tierTitles: Record<Subnet['tier'], string> = {
  public: 'Public subnets',
  frontends: 'Private subnets: frontends',
  backends: 'Private subnets: backends',
  app: 'Private subnets: hosts',
  data: 'Private subnets: data',
};

/** What is drawn, taken from the plan: hosts and services by tier, and an arrow for each rule that lets one in. */
function drawingOf(plan: Plan): Drawing {
  const subnets = resourcesOf(plan, 'subnet');
  const tierOf = (subnet: string | undefined) => subnets.find(({ id }) => id === subnet)?.tier ?? 'public';
  const interfaces = resourcesOf(plan, 'interface');
  const boxes: Box[] = [
    { id: 'Internet', label: 'Internet', detail: 'viewers, encoders, operator', row: 'outside' },
  ];
  const groupsOf = new Map<string, readonly string[]>();
  const add = (one: Resource, detail: string, row: string, groups: readonly string[]) => {
    boxes.push({ id: one.id, label: one.id, detail, row });
    groupsOf.set(one.id, groups);
  };
  for (const one of plan.resources) {
    switch (one.kind) {
      case 'distribution':
        add(one, one.aliases.join(' '), 'edge', []);
        break;
      case 'instance': {
        const own = interfaces.filter(({ instance }) => instance === one.id);
        const addresses = own.map(({ privateIp }) => privateIp).join(' ');
        add(
          one,
          `${one.instanceType} ${addresses}`,
          tierOf(own[0]?.subnet),
          own.flatMap((its) => its.securityGroups),
        );
        break;
      }
      case 'scaling-group': {
        const template = resourcesOf(plan, 'launch-template').find(({ id }) => id === one.launchTemplate);
        const detail = `${template?.instanceType} x ${one.minimum} to ${one.maximum}`;
        add(one, detail, tierOf(one.subnets[0]), template?.securityGroups ?? []);
        break;
      }
      case 'container-service':
        add(one, `Fargate x ${one.minimum} to ${one.maximum}`, tierOf(one.subnets[0]), one.securityGroups);
        break;
      case 'load-balancer':
        add(one, `${one.type} load balancer`, 'public', one.securityGroups);
        break;
      case 'database':
        add(
          one,
          `PostgreSQL ${one.instanceClass}${one.multiAz ? ', two zones' : ''}`,
          'data',
          one.securityGroups,
        );
        break;
      case 'aurora-cluster':
        add(one, `Aurora ${one.minAcu} to ${one.maxAcu} ACU`, 'data', one.securityGroups);
        break;
      case 'cache':
        add(one, `Redis ${one.nodeType} x ${one.nodes}`, 'data', one.securityGroups);
        break;
      case 'file-system':
        add(one, 'EFS', tierOf(one.subnets[0]), one.securityGroups);
        break;
    }
  }
  const rows = [
    { id: 'outside', title: '' },
    { id: 'edge', title: 'CloudFront' },
    ...Object.entries(tierTitles).map(([id, title]) => ({
      id,
      title: `${title} ${subnets.flatMap(({ tier, cidr }) => (tier === id ? [cidr] : [])).join(', ')}`,
    })),
  ].filter(({ id }) => boxes.some(({ row }) => row === id));
  return { boxes, arrows: arrowsOf(plan, boxes, groupsOf), rows };
}

function arrowsOf(
  plan: Plan,
  boxes: readonly Box[],
  groupsOf: ReadonlyMap<string, readonly string[]>,
): Arrow[] {
  const interfaces = resourcesOf(plan, 'interface');
  const subnets = resourcesOf(plan, 'subnet');
  const labels = new Map<string, string[]>();
  const view = viewOfPlan(plan);
  const add = (from: string, to: string, label: string) => {
    if (from === to) return;
    // A host with several interfaces has addresses in ranges that it does not speak from.
    const port = Number(label);
    const isAsked =
      from !== 'Internet' && label !== 'all' && boxes.some(({ id, row }) => id === from && row !== 'edge');
    if (isAsked && !canReach(view, from, to, port)) return;
    const key = `${from} ${to}`;
    const known = labels.get(key) ?? [];
    if (!known.includes(label)) labels.set(key, [...known, label]);
  };
  for (const group of resourcesOf(plan, 'security-group')) {
    const members = boxes.filter(({ id }) => groupsOf.get(id)?.includes(group.id));
    for (const rule of group.ingress) {
      const port = rule.protocol === 'all' ? 'all' : `${rule.fromPort}`;
      const { peer } = rule;
      for (const { id: to } of members) {
        if ('securityGroup' in peer) {
          for (const { id: from } of boxes.filter(({ id }) => groupsOf.get(id)?.includes(peer.securityGroup)))
            add(from, to, port);
        } else if ('prefixList' in peer) {
          for (const { id: from } of boxes.filter(({ row }) => row === 'edge')) add(from, to, port);
        } else {
          const host = interfaces.find(({ privateIp }) => `${privateIp}/32` === peer.cidr);
          const subnet = subnets.find(({ cidr }) => cidr === peer.cidr);
          if (host !== undefined) add(host.instance, to, port);
          else if (subnet === undefined) add('Internet', to, port);
          else for (const one of interfaces) if (one.subnet === subnet.id) add(one.instance, to, port);
        }
      }
    }
  }
  if (boxes.some(({ row }) => row === 'edge'))
    for (const { id } of boxes.filter(({ row }) => row === 'edge')) add('Internet', id, '443');
  return [...labels].map(([key, ports]) => {
    const [from = '', to = ''] = key.split(' ');
    return { from, to, label: ports.join(', ') };
  });
}

/** The drawing as a Mermaid flow chart. */
export function mermaidDiagram(plan: Plan): string {
  const { boxes, arrows, rows } = drawingOf(plan);
  const box = ({ id, label, detail }: Box) => `    ${id}["${label}<br/>${detail}"]`;
  const lines = rows.flatMap(({ id, title }) => {
    const own = boxes.filter(({ row }) => row === id).map(box);
    return title === '' ? own : [`  subgraph ${id}["${title}"]`, ...own, '  end'];
  });
  return [
    'flowchart TB',
    ...lines,
    ...arrows.map(({ from, to, label }) => `  ${from} -- "${label}" --> ${to}`),
    '',
  ].join('\n');
}

const BOX_WIDTH = 250;
const BOX_HEIGHT = 54;
const GAP = 40;
const ROW_HEIGHT = 150;
const MARGIN = 24;

/** The drawing as an SVG image; colours follow the reader's light or dark theme. */
export function svgDiagram(plan: Plan): string {
  const { boxes, arrows, rows } = drawingOf(plan);
  const widest = Math.max(...rows.map(({ id }) => boxes.filter(({ row }) => row === id).length));
  const width = 2 * MARGIN + widest * (BOX_WIDTH + GAP) + GAP;
  const height = 2 * MARGIN + rows.length * ROW_HEIGHT;
  const places = new Map<string, { x: number; y: number; row: number }>();
  for (const [rowIndex, { id }] of rows.entries()) {
    const own = boxes.filter(({ row }) => row === id);
    const left = (width - own.length * (BOX_WIDTH + GAP) + GAP) / 2;
    for (const [index, one] of own.entries()) {
      places.set(one.id, {
        x: left + index * (BOX_WIDTH + GAP),
        y: MARGIN + rowIndex * ROW_HEIGHT + 44,
        row: rowIndex,
      });
    }
  }
  const frames = rows.flatMap(({ title }, index) => {
    if (title === '') return [];
    const y = MARGIN + index * ROW_HEIGHT;
    return [
      `<rect class="tier" x="${MARGIN}" y="${y + 12}" width="${width - 2 * MARGIN}" height="${ROW_HEIGHT - 34}" rx="8"/>`,
      `<text class="title" x="${MARGIN + 12}" y="${y + 32}">${escaped(title)}</text>`,
    ];
  });
  const lines = arrows.map(({ from, to, label }, index) => {
    const [a, b] = [places.get(from), places.get(to)];
    if (a === undefined || b === undefined) return '';
    const down = b.row > a.row;
    const x1 = a.x + BOX_WIDTH / 2 + ((index % 5) - 2) * 14;
    const x2 = b.x + BOX_WIDTH / 2 + ((index % 5) - 2) * 14;
    const y1 = a.row === b.row ? a.y : down ? a.y + BOX_HEIGHT : a.y;
    const y2 = a.row === b.row ? b.y : down ? b.y : b.y + BOX_HEIGHT;
    const middle = a.row === b.row ? a.y - 26 : (y1 + y2) / 2;
    return [
      `<path class="arrow" d="M${x1} ${y1} C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}"/>`,
      `<text class="port" x="${(x1 + x2) / 2}" y="${middle - 2 + (index % 3) * 11}">${escaped(label)}</text>`,
    ].join('');
  });
  const drawn = boxes.map(({ id, label, detail }) => {
    const { x = 0, y = 0 } = places.get(id) ?? {};
    return [
      `<rect class="box" x="${x}" y="${y}" width="${BOX_WIDTH}" height="${BOX_HEIGHT}" rx="6"/>`,
      `<text class="name" x="${x + BOX_WIDTH / 2}" y="${y + 22}">${escaped(label)}</text>`,
      `<text class="detail" x="${x + BOX_WIDTH / 2}" y="${y + 41}">${escaped(detail.length > 44 ? `${detail.slice(0, 43)}...` : detail)}</text>`,
    ].join('');
  });
  const { profile, region, vpcCidr } = plan.deployment;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="Network of ${escaped(profile)}">
<style>
svg { font: 13px system-ui, sans-serif; background: #fff; color: #1b2733; }
.tier { fill: #eef3f8; stroke: #b8c6d4; } .box { fill: #fff; stroke: #33536f; stroke-width: 1.5; }
.arrow { fill: none; stroke: #5c7f9e; stroke-width: 1.3; marker-end: url(#head); }
text { fill: #1b2733; } .name, .detail, .port { text-anchor: middle; } .name { font-weight: 600; }
.title, .detail { font-size: 11px; fill: #4a5b6b; } .port { font-size: 10px; fill: #2b5c86; paint-order: stroke; stroke: #fff; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
svg { background: #12181f; } .tier { fill: #1b2530; stroke: #344759; } .box { fill: #12181f; stroke: #7fa6c9; }
text, .title, .detail { fill: #d7e1ea; } .port { fill: #8fc1ee; stroke: #12181f; }
}
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="#5c7f9e"/></marker></defs>
<text class="title" x="${MARGIN}" y="${MARGIN - 6}">${escaped(`${profile}, ${region}, VPC ${vpcCidr}`)}</text>
${[...frames, ...lines, ...drawn].filter((line) => line !== '').join('\n')}
</svg>
`;
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
