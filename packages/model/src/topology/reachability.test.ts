import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { drawPlan } from './draw-plan.ts';
import type { Plan, Resource, Rule } from './plan.ts';
import { ANYBODY, canReach, reachabilityTable, viewOfPlan } from './reachability.ts';
import { securityMatrix, securityMatrixMarkdown } from './security-matrix.ts';

/** "Security Group Matrix" of the IPTV seed's architecture, cell by cell as it stands there. */
const seedTable = `
Bastion Public  | SSH         | 0.0.0.0/0   | 22
Bastion Priv 1  | All Traffic | 10.0.128/18 | All
Bastion Priv 2  | All Traffic | 10.0.192/18 | All
Load Balancer   | HTTP/HTTPS  | 0.0.0.0/0   | 80, 443
                | SSH         | Bastion IP  | 22
Frontend        | HTTP        | LB IP       | 80
                | RTMP        | Priv Sub 2  | 1935
                | SSH         | Bastion IP  | 22
Backend         | SSH         | Bastion IP  | 22
All Components  | All Traffic | 0.0.0.0/0   | All (Egress)
`;

/** What the seed's words mean, by its own chapters on subnets and on the bastion's interfaces. */
const components: Record<string, string> = {
  'Bastion Public': 'Bastion, public interface',
  'Bastion Priv 1': 'Bastion, interface of the frontends',
  'Bastion Priv 2': 'Bastion, interface of the backends',
  'Load Balancer': 'Load balancer',
  Frontend: 'Frontends',
  Backend: 'Backends',
};
/** The bastion's interface in the subnet of whoever it speaks to. */
const bastionIp: Record<string, string> = {
  'Load Balancer': '10.0.0.10/32',
  Frontend: '10.0.128.10/32',
  Backend: '10.0.192.10/32',
};
const sources: Record<string, string> = {
  '10.0.128/18': '10.0.128.0/18',
  '10.0.192/18': '10.0.192.0/18',
  'Priv Sub 2': '10.0.192.0/18',
  'LB IP': '10.0.0.20/32',
};

let component = '';
const seedRows = seedTable
  .trim()
  .split('\n')
  .map((line) => {
    const [name = '', traffic = '', source = '', ports = ''] = line.split('|').map((cell) => cell.trim());
    if (name !== '') component = name;
    return { component, traffic, source, ports };
  });

const asTheSeed = {
  profile: 'classic-iptv',
  region: 'us-east-1',
  operatorAddress: '0.0.0.0/0',
  allowSshFromAnywhere: true,
};

describe('the security matrix', () => {
  it('equals the table of the IPTV seed, cell by cell', () => {
    const inbound = seedRows
      .filter((row) => row.component !== 'All Components')
      .map((row) => ({
        component: components[row.component],
        traffic: row.traffic,
        peer: row.source === 'Bastion IP' ? bastionIp[row.component] : (sources[row.source] ?? row.source),
        ports: row.ports,
      }));
    const matrix = securityMatrix(drawPlan(asTheSeed));
    const pick = ({ component, traffic, peer, ports }: (typeof matrix)[number]) => ({
      component,
      traffic,
      peer,
      ports,
    });
    expect(matrix.filter(({ direction }) => direction === 'in').map(pick)).toEqual(inbound);
    const outbound = Object.values(components).map((name) => ({
      ...{ component: name, traffic: 'All Traffic', peer: '0.0.0.0/0', ports: 'All' },
    }));
    expect(matrix.filter(({ direction }) => direction === 'out').map(pick)).toEqual(outbound);
  });

  it('is a Markdown table', () => {
    expect(securityMatrixMarkdown(drawPlan(asTheSeed)).split('\n').slice(0, 5)).toEqual([
      '| Component | Direction | Traffic | Peer | Ports |',
      '| --- | --- | --- | --- | --- |',
      '| Bastion, public interface | inbound | SSH | 0.0.0.0/0 (anywhere) | 22 |',
      '| Bastion, public interface | outbound | All Traffic | 0.0.0.0/0 (anywhere) | All |',
      '| Bastion, interface of the frontends | inbound | All Traffic | 10.0.128.0/18 (frontends) | All |',
    ]);
  });
});

describe('reachability in the IPTV seed', () => {
  const plan = drawPlan(asTheSeed);
  // Its addresses, and who may connect where by the table above; read by hand.
  const hosts = ['BastionA', 'Balancer', 'Frontend0', 'Frontend1', 'Backend0'];
  const allowed = new Set(
    [
      ['internet', 'BastionA', [22]],
      ['internet', 'Balancer', [80, 443]],
      ['BastionA', 'Balancer', [22, 80, 443]],
      ['BastionA', 'Frontend0', [22]],
      ['BastionA', 'Frontend1', [22]],
      ['BastionA', 'Backend0', [22]],
      ['Balancer', 'Frontend0', [80]],
      ['Balancer', 'Frontend1', [80]],
      // The balancer's ports are open to everybody, hosts of the VPC among them.
      ...['Frontend0', 'Frontend1', 'Backend0'].map((host) => [host, 'Balancer', [80, 443]]),
      // Everybody in a private subnet reaches the bastion's interface there, for it is their way out; and the
      // bastion's SSH is open to everybody.
      ...['Frontend0', 'Frontend1', 'Backend0'].map((host) => [host, 'BastionA', [22, 80, 443, 1935, 8080]]),
      ['Balancer', 'BastionA', [22]],
      ['Backend0', 'Frontend0', [1935]],
      ['Backend0', 'Frontend1', [1935]],
    ].flatMap(([from, to, ports]) => (ports as number[]).map((port) => `${from} ${to} ${port}`)),
  );

  const cells = ['internet', ...hosts].flatMap((from) =>
    hosts
      .filter((to) => to !== from)
      .flatMap((to) => [22, 80, 443, 1935, 8080].map((port) => ({ from, to, port }))),
  );
  it.each(cells)('$from to $to at $port', ({ from, to, port }) => {
    const reaches = canReach(plan, from === 'internet' ? ANYBODY : from, to, port);
    expect(reaches).toBe(allowed.has(`${from} ${to} ${port}`));
  });

  it('every host gets out: by its own address, or through the bastion', () => {
    for (const host of hosts) expect(canReach(plan, host, ANYBODY, 443), host).toBe(true);
  });

  it('with the check of source and destination on, nobody gets out through the bastion', () => {
    const mended = changed(plan, (one) =>
      one.kind === 'interface' ? { ...one, sourceDestCheck: true } : one,
    );
    expect(canReach(mended, 'Frontend0', ANYBODY, 443)).toBe(false);
    expect(canReach(mended, 'Balancer', ANYBODY, 443)).toBe(true);
  });

  it('lets only the operator in by SSH, who is nobody by default', () => {
    const settings = { profile: 'classic-iptv', region: 'us-east-1' };
    expect(canReach(drawPlan(settings), ANYBODY, 'BastionA', 22)).toBe(false);
    const withOperator = drawPlan({ ...settings, operatorAddress: '203.0.113.7/32' });
    expect(canReach(withOperator, { address: '203.0.113.7' }, 'BastionA', 22)).toBe(true);
    expect(canReach(withOperator, ANYBODY, 'BastionA', 22)).toBe(false);
  });

  it('takes encoders in by the balancer where ingestFrom says so', () => {
    const open = drawPlan({ profile: 'classic-iptv', region: 'us-east-1', ingestFrom: ['0.0.0.0/0'] });
    expect(canReach(open, ANYBODY, 'Balancer', 1935)).toBe(true);
    expect(canReach(open, 'Balancer', 'Backend0', 1935)).toBe(true);
    expect(canReach(open, ANYBODY, 'Backend0', 1935)).toBe(false);
  });
});

describe('reachability in the other profiles', () => {
  it.each([
    ['beta', {}, 'App', 'HttpBalancer', 'App'],
    ['beta', { natGateway: true }, 'IngestBalancer', 'HttpBalancer', 'App'],
    ['gamma', {}, 'App', 'HttpBalancer', 'App'],
    ['production', { cloudFront: false }, 'AppGroupOfHosts', 'HttpBalancer', 'AppGroupOfHosts'],
    [
      'production',
      { cloudFront: false, natGateway: true },
      'IngestBalancer',
      'HttpBalancer',
      'AppGroupOfHosts',
    ],
    ['production-containers', { cloudFront: false }, 'IngestBalancer', 'HttpBalancer', 'Service'],
  ] as const)(
    '%s %o: RTMP gets in, video gets out, data stays inside',
    (profile, settings, ingest, balancer, host) => {
      const plan = drawPlan({ profile, region: 'eu-west-1', ...settings });
      expect(canReach(plan, ANYBODY, ingest, 1935)).toBe(true);
      if (ingest !== host) expect(canReach(plan, ingest, host, 1935)).toBe(true);
      expect(canReach(plan, ANYBODY, balancer, 443)).toBe(true);
      for (const port of [8080, 8090]) {
        expect(canReach(plan, balancer, host, port)).toBe(true);
        expect(canReach(plan, ANYBODY, host, port)).toBe(false);
      }
      for (const [data, port] of [
        ['Database', 5432],
        ['Cache', 6379],
      ] as const) {
        expect(canReach(plan, host, data, port)).toBe(true);
        expect(canReach(plan, ANYBODY, data, port)).toBe(false);
        expect(canReach(plan, balancer, data, port)).toBe(false);
        expect(canReach(plan, data, ANYBODY, 443)).toBe(false);
      }
      expect(canReach(plan, host, ANYBODY, 443)).toBe(true);
      expect(canReach(plan, ANYBODY, host, 22)).toBe(false);
    },
  );

  it.each([
    ['production', 'AppGroupOfHosts', true],
    ['production', 'AppGroupOfHosts', false],
    ['production-containers', 'Service', true],
    ['production-containers', 'Service', false],
  ])(
    '%s: hosts of the group push to each other and pass encoders on, and no more',
    (profile, host, natGateway) => {
      const plan = drawPlan({ profile, region: 'us-east-1', natGateway, ingestFrom: ['203.0.113.7/32'] });
      const open = [22, 1935, 1936, 1937, 5432, 6379, 8080, 8090].filter((port) =>
        canReach(plan, host, host, port),
      );
      expect(open).toEqual([1935, 1937]);
      for (const port of [1937, 8080, 8090]) expect(canReach(plan, ANYBODY, host, port)).toBe(false);
    },
  );

  it('a host that is alone is reached by no other', () => {
    const plan = drawPlan({ profile: 'gamma', region: 'us-east-1', ingestFrom: ['203.0.113.7/32'] });
    for (const port of [1935, 1937, 8080, 8090]) expect(canReach(plan, 'App', 'App', port)).toBe(false);
  });

  it('production-serverless: all by the media host; the database by it alone', () => {
    const plan = drawPlan({ profile: 'production-serverless', region: 'us-east-1' });
    expect([80, 443, 1935, 8080].map((port) => canReach(plan, ANYBODY, 'Media', port))).toEqual([
      true,
      false,
      true,
      false,
    ]);
    expect(canReach(plan, 'Media', 'Aurora', 5432)).toBe(true);
    expect(canReach(plan, ANYBODY, 'Aurora', 5432)).toBe(false);
  });

  it("a NACL without the replies' ports holds the database's answers up, as the review's own would", () => {
    const plan = drawPlan({ profile: 'beta', region: 'us-east-1' });
    const asReviewed = changed(plan, (one) =>
      one.id === 'DataAcl' && one.kind === 'network-acl'
        ? { ...one, entries: one.entries.filter(({ direction }) => direction === 'ingress') }
        : one,
    );
    expect(canReach(plan, 'App', 'Database', 5432)).toBe(true);
    expect(canReach(asReviewed, 'App', 'Database', 5432)).toBe(false);
  });
});

describe('the reachability table', () => {
  it('changes with every rule that is taken away or moved to a port of nobody', () => {
    const plan = drawPlan(asTheSeed);
    const before = JSON.stringify(reachabilityTable(viewOfPlan(plan)));
    const ruleIds = plan.resources.flatMap((one) =>
      one.kind === 'security-group' ? one.ingress.map(({ id }) => id) : [],
    );
    fc.assert(
      fc.property(fc.constantFrom(...ruleIds), fc.constantFrom('remove', 'move'), (id, how) => {
        const after = changed(plan, (one) => {
          if (one.kind !== 'security-group') return one;
          const ingress = one.ingress.flatMap((rule): Rule[] => {
            if (rule.id !== id) return [rule];
            return how === 'remove' ? [] : [{ ...rule, protocol: 'tcp', fromPort: 4321, toPort: 4321 }];
          });
          return { ...one, ingress };
        });
        expect(JSON.stringify(reachabilityTable(viewOfPlan(after)))).not.toBe(before);
      }),
      { numRuns: 40 },
    );
  });
});

function changed(plan: Plan, change: (one: Resource) => Resource): Plan {
  return { ...plan, resources: plan.resources.map(change) };
}
