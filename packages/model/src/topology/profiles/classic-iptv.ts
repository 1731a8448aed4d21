/**
 * The IPTV seed's architecture: a public subnet with bastion and balancer, one for the frontends, one for the backends,
 * the bastion as jump host and NAT, and a security-group matrix that says who may speak to whom.
 *
 *   internet --22--> bastion --22--> all        internet --80,443--> balancer --80--> frontends <--1935-- backends
 */
import type { StarlingConfig } from '../../config.ts';
import type { Deployment } from '../deployment.ts';
import { Draft } from '../draft.ts';
import { DATA_DIR, drawHost, SECRETS_DIR, userDataForAnsible } from '../host.ts';
import { formatAddress, formatRange, parseRange } from '../ipv4.ts';
import { type Host, type HostRole, type Plan, type Rule, ref, type SecretFile } from '../plan.ts';
import { always } from '../price.ts';
import { debian12, machinePrices } from './machine.ts';
import { ANYWHERE, drawBudget, drawSchedules, everythingOut, RTMP_PORT, RTMPS_PORT, tcp } from './parts.ts';

/** Offsets within the VPC's /16. Zone a has the seed's ranges; zone b's lie in the quarter that the seed leaves free. */
const layout = {
  a: { public: [0x0000, 18], frontends: [0x8000, 18], backends: [0xc000, 18] },
  b: { public: [0x4000, 20], frontends: [0x5000, 20], backends: [0x6000, 20] },
} as const;
type ZoneLetter = keyof typeof layout;
type Tier = keyof (typeof layout)['a'];

const BASTION_OFFSET = 10;
const BALANCER_OFFSET = 20;
/** The first frontend's and the first backend's, in their subnets. */
const FIRST_HOST_OFFSET = 32;
const COORDINATOR_PORT = 8090;
const ROOT_VOLUME_GB = 8;

export function drawClassicIptv(deployment: Deployment): Plan {
  const draft = new Draft(deployment);
  const { frontends, backends, instanceTypes, ingestFrom, domain, name } = deployment;
  const base = parseRange(deployment.vpcCidr)?.first ?? 0;
  const letters: readonly ZoneLetter[] = deployment.multiAz ? ['a', 'b'] : ['a'];
  const range = (letter: ZoneLetter, tier: Tier) => {
    const [offset, prefixBits] = layout[letter][tier];
    return formatRange({ first: base + offset, last: 0, prefixBits });
  };
  const address = (letter: ZoneLetter, tier: Tier, offset: number) =>
    formatAddress(base + layout[letter][tier][0] + offset);
  const zoneOf = (letter: ZoneLetter) => `${deployment.region}${letter}`;
  const subnetId = (letter: ZoneLetter, tier: Tier) => `${capital(tier)}Subnet${letter.toUpperCase()}`;
  /** Hosts of a kind take turns in the zones. */
  const letterOf = (index: number): ZoneLetter => letters[index % letters.length] ?? 'a';
  const hostAddress = (tier: 'frontends' | 'backends', index: number) =>
    address(letterOf(index), tier, FIRST_HOST_OFFSET + Math.floor(index / letters.length));
  const watchName = `watch.${domain}`;
  const balancerIp = address('a', 'public', BALANCER_OFFSET);
  const hasIngest = ingestFrom.length > 0;

  draft.add('vpc', {
    id: 'Vpc',
    purpose: 'The network of the channel',
    cidr: deployment.vpcCidr,
  });
  draft.add('internet-gateway', { id: 'InternetGateway', purpose: 'Way to the internet', vpc: 'Vpc' });
  for (const letter of letters) {
    for (const tier of ['public', 'frontends', 'backends'] as const) {
      draft.add('subnet', {
        id: subnetId(letter, tier),
        purpose: { public: 'Bastion and balancer', frontends: 'Frontends', backends: 'Backends' }[tier],
        vpc: 'Vpc',
        cidr: range(letter, tier),
        zone: zoneOf(letter),
        tier,
        givesPublicAddresses: false,
      });
    }
  }
  draft.add('route-table', {
    id: 'PublicRoutes',
    purpose: 'The public subnet goes straight out',
    vpc: 'Vpc',
    subnets: letters.map((letter) => subnetId(letter, 'public')),
    routes: [
      {
        id: 'PublicDefaultRoute',
        destination: ANYWHERE,
        target: { kind: 'internet-gateway', id: 'InternetGateway' },
      },
    ],
  });
  for (const letter of letters) {
    for (const [index, tier] of (['frontends', 'backends'] as const).entries()) {
      const suffix = letter.toUpperCase();
      draft.add('route-table', {
        id: `${capital(tier)}Routes${suffix}`,
        purpose: `The ${tier} go out through the bastion`,
        vpc: 'Vpc',
        subnets: [subnetId(letter, tier)],
        routes: [
          {
            id: `${capital(tier)}DefaultRoute${suffix}`,
            destination: ANYWHERE,
            target: { kind: 'interface', id: `BastionPrivate${index + 1}Interface${suffix}` },
          },
        ],
      });
    }
  }

  // The matrix.
  const group = (id: string, description: string, ingress: readonly Rule[]) =>
    draft.add('security-group', {
      ...{
        id: `${id}Group`,
        purpose: description,
        vpc: 'Vpc',
        name: `${name}-${kebab(id)}`,
        description,
        ingress,
      },
      egress: [everythingOut(id)],
    });
  const ssh = (id: string, tier: Tier) =>
    letters.map((letter) =>
      tcp(
        `${id}Ssh${suffixOf(letter)}`,
        22,
        `${address(letter, tier, BASTION_OFFSET)}/32`,
        'SSH from the bastion',
      ),
    );
  const suffixOf = (letter: ZoneLetter) => (letter === 'a' ? '' : letter.toUpperCase());
  group('BastionPublic', 'Bastion, public interface', [
    ...(deployment.operatorAddress === null
      ? []
      : [tcp('BastionSsh', 22, deployment.operatorAddress, 'SSH from the operator')]),
  ]);
  for (const letter of letters) {
    for (const [index, tier] of (['frontends', 'backends'] as const).entries()) {
      const id = `BastionPrivate${index + 1}${suffixOf(letter)}`;
      group(id, `Bastion, interface of the ${tier}`, [
        {
          ...{ id: `${id}All`, protocol: 'all', fromPort: 0, toPort: 0, peer: { cidr: range(letter, tier) } },
          description: `Everything from the ${tier}, on its way out`,
        },
      ]);
    }
  }
  group('Balancer', 'Load balancer', [
    tcp('BalancerHttp', 80, ANYWHERE, 'HTTP: redirects, ACME'),
    tcp('BalancerHttps', 443, ANYWHERE, 'HTTPS from viewers'),
    ...ssh('Balancer', 'public'),
    ...ingestFrom.flatMap((cidr, index) => [
      tcp(`BalancerRtmp${index}`, RTMP_PORT, cidr, 'RTMP from encoders'),
      tcp(`BalancerRtmps${index}`, RTMPS_PORT, cidr, 'RTMPS from encoders'),
    ]),
  ]);
  group('Frontend', 'Frontends', [
    tcp('FrontendHttp', 80, `${balancerIp}/32`, 'HTTP from the balancer'),
    ...letters.map((letter) =>
      tcp(`FrontendRtmp${suffixOf(letter)}`, RTMP_PORT, range(letter, 'backends'), 'RTMP from the backends'),
    ),
    ...ssh('Frontend', 'frontends'),
  ]);
  group('Backend', 'Backends', [
    ...ssh('Backend', 'backends'),
    ...(hasIngest
      ? [
          tcp('BackendRtmp', RTMP_PORT, `${balancerIp}/32`, 'RTMP of encoders, from the balancer'),
          tcp('BackendRtmps', RTMPS_PORT, `${balancerIp}/32`, 'RTMPS of encoders, from the balancer'),
        ]
      : []),
  ]);

  for (const of of ['bastion', 'instances'] as const) {
    draft.add('key-pair', {
      id: `${capital(of)}Key`,
      purpose: of === 'bastion' ? 'SSH to the bastion' : 'SSH from the bastion on',
      name: `${name}-${of}`,
      of,
      publicKey: deployment.keys[of],
    });
  }
  if (deployment.ssm) {
    draft.add('role', {
      id: 'HostRole',
      purpose: 'Session Manager',
      name: `${name}-${deployment.region}-host`,
      trusts: { service: 'ec2.amazonaws.com', sourceAccountOnly: false },
      managedPolicies: ['AmazonSSMManagedInstanceCore'],
      statements: [],
      instanceProfile: 'HostProfile',
    });
  }

  const secret = (file: string): SecretFile => ({
    path: `${SECRETS_DIR}/${file}`,
    from: { kind: 'ansible', name: file },
  });
  const coordinatorLink = { url: `https://${watchName}`, tokenFile: `${SECRETS_DIR}/node.token` };
  const names = { [watchName]: balancerIp };
  const ingressOf = (ids: readonly string[]) => ids.flatMap((id) => draft.get('security-group', id).ingress);
  interface InstanceInput {
    readonly id: string;
    readonly purpose: string;
    readonly hostname: string;
    readonly roles: readonly HostRole[];
    readonly letter: ZoneLetter;
    readonly type: string;
    readonly key: 'BastionKey' | 'InstancesKey';
    readonly config: StarlingConfig | null;
    readonly secrets: readonly string[];
    readonly natFor?: readonly string[];
    readonly hasNames: boolean;
    readonly interfaces: readonly { id: string; tier: Tier; ip: string; group: string; checks: boolean }[];
  }
  const instance = (input: InstanceInput) => {
    const host: Host = drawHost({
      hostname: input.hostname,
      roles: input.roles,
      config: input.config,
      secretFiles: input.secrets.map(secret),
      ingress: ingressOf(input.interfaces.map((one) => one.group)),
      natFor: input.natFor ?? [],
      ...(input.hasNames ? { names } : {}),
      region: deployment.region,
    });
    draft.add('instance', {
      ...debian12,
      id: input.id,
      tagRole: input.roles[0] ?? '',
      purpose: input.purpose,
      pause: 'stop-instance',
      prices: machinePrices(input.type, ROOT_VOLUME_GB),
      zone: zoneOf(input.letter),
      instanceType: input.type,
      rootVolume: { sizeGb: ROOT_VOLUME_GB, type: 'gp3', encrypted: true },
      instanceRole: deployment.ssm ? 'HostRole' : null,
      keyPair: input.key,
      detailedMonitoring: false,
      terminationProtection: true,
      cpuCredits: 'standard',
      host,
      userData: userDataForAnsible(host),
    });
    for (const [deviceIndex, one] of input.interfaces.entries()) {
      draft.add('interface', {
        id: one.id,
        purpose: `${input.hostname}, interface ${deviceIndex}`,
        subnet: subnetId(input.letter, one.tier),
        privateIp: one.ip,
        securityGroups: [one.group],
        sourceDestCheck: one.checks,
        instance: input.id,
        deviceIndex,
      });
    }
  };
  const publicAddress = (id: string, of: string, purpose: string) =>
    draft.add('address', { id, purpose, interface: of, prices: [always('ipv4/hour', 730)] });

  for (const letter of letters) {
    const suffix = letter.toUpperCase();
    instance({
      id: `Bastion${suffix}`,
      purpose: 'Jump host, and NAT of the private subnets',
      hostname: letters.length === 1 ? 'bastion' : `bastion-${letter}`,
      roles: ['bastion'],
      letter,
      type: instanceTypes.bastion,
      key: 'BastionKey',
      config: null,
      secrets: [],
      hasNames: false,
      natFor: [range(letter, 'frontends'), range(letter, 'backends')],
      interfaces: [
        {
          ...{
            id: `BastionPublicInterface${suffix}`,
            tier: 'public',
            group: 'BastionPublicGroup',
            checks: true,
          },
          ip: address(letter, 'public', BASTION_OFFSET),
        },
        {
          ...{ id: `BastionPrivate1Interface${suffix}`, tier: 'frontends', checks: false },
          ...{
            ip: address(letter, 'frontends', BASTION_OFFSET),
            group: `BastionPrivate1${suffixOf(letter)}Group`,
          },
        },
        {
          ...{ id: `BastionPrivate2Interface${suffix}`, tier: 'backends', checks: false },
          ...{
            ip: address(letter, 'backends', BASTION_OFFSET),
            group: `BastionPrivate2${suffixOf(letter)}Group`,
          },
        },
      ],
    });
    publicAddress(
      `BastionAddress${suffix}`,
      `BastionPublicInterface${suffix}`,
      'The bastion, where SSH comes in',
    );
  }

  const backendIps = hosts(backends, (index) => hostAddress('backends', index));
  const frontendIps = hosts(frontends, (index) => hostAddress('frontends', index));
  instance({
    id: 'Balancer',
    purpose: 'TLS and load balancing; the coordinator behind it on loopback',
    hostname: 'balancer',
    roles: ['balancer', 'coordinator'],
    letter: 'a',
    type: instanceTypes.balancer,
    key: 'InstancesKey',
    secrets: ['operator.token', 'node.token'],
    hasNames: true,
    config: {
      balancer: {
        dataDir: `${DATA_DIR}/balancer`,
        names: [watchName, ...(hasIngest ? [`ingest.${domain}`] : [])],
        ...(hasIngest ? { rtmp: { port: RTMP_PORT }, rtmps: { port: RTMPS_PORT } } : {}),
        frontends: frontendIps.map((host) => ({ host, port: 80 })),
        ...(hasIngest
          ? { backends: backendIps.map((host) => ({ host, rtmpPort: RTMP_PORT, rtmpsPort: RTMPS_PORT })) }
          : {}),
        site: { host: '127.0.0.1', port: COORDINATOR_PORT },
        balance: 'round-robin',
        acme: deployment.alarmEmail === null ? {} : { email: deployment.alarmEmail },
        health: { host: '127.0.0.1', port: 8091 },
      },
      coordinator: {
        dataDir: `${DATA_DIR}/coordinator`,
        http: { host: '127.0.0.1', port: COORDINATOR_PORT },
        operatorTokenFile: `${SECRETS_DIR}/operator.token`,
        nodeTokenFile: `${SECRETS_DIR}/node.token`,
      },
    },
    interfaces: [
      { id: 'BalancerInterface', tier: 'public', ip: balancerIp, group: 'BalancerGroup', checks: true },
    ],
  });
  publicAddress(
    'BalancerAddress',
    'BalancerInterface',
    'The balancer, where viewers come in; stays after a stop',
  );

  for (const [index, ip] of frontendIps.entries()) {
    instance({
      id: `Frontend${index}`,
      purpose: 'Serves channels to the balancer',
      hostname: `frontend-${index}`,
      roles: ['frontend'],
      letter: letterOf(index),
      type: instanceTypes.frontend,
      key: 'InstancesKey',
      secrets: ['publish.token', 'node.token'],
      hasNames: true,
      config: {
        frontend: {
          http: { port: 80, trustedProxies: [`${balancerIp}/32`] },
          rtmp: { port: RTMP_PORT },
          publishTokenFile: `${SECRETS_DIR}/publish.token`,
          coordinator: coordinatorLink,
          dataDir: `${DATA_DIR}/frontend`,
        },
      },
      interfaces: [
        { id: `Frontend${index}Interface`, tier: 'frontends', ip, group: 'FrontendGroup', checks: true },
      ],
    });
  }
  for (const [index, ip] of backendIps.entries()) {
    instance({
      id: `Backend${index}`,
      purpose: 'Makes the channels and pushes them to every frontend',
      hostname: `backend-${index}`,
      roles: ['backend'],
      letter: letterOf(index),
      type: instanceTypes.backend,
      key: 'InstancesKey',
      secrets: ['publish.token', 'node.token'],
      hasNames: true,
      config: {
        backend: {
          dataDir: `${DATA_DIR}/backend`,
          rtmp: { port: RTMP_PORT },
          rtmps: { port: RTMPS_PORT },
          coordinator: coordinatorLink,
          frontends: frontendIps.map((host) => ({
            ...{ host, port: RTMP_PORT, publishTokenFile: `${SECRETS_DIR}/publish.token` },
          })),
        },
      },
      interfaces: [
        { id: `Backend${index}Interface`, tier: 'backends', ip, group: 'BackendGroup', checks: true },
      ],
    });
  }

  draft.add('zone', {
    id: 'Zone',
    stack: 'edge',
    purpose: 'Names that stay',
    name: domain,
    prices: [always('route53/zone-month', 1)],
  });
  const record = (id: string, host: string, address: string) =>
    draft.add('record', {
      ...{ id, purpose: `${host} leads to ${address}`, zone: 'Zone', name: host, type: 'A', ttlSeconds: 300 },
      target: { kind: 'values', values: [ref(address, 'publicIp')] },
    });
  for (const letter of letters) {
    const suffix = letter.toUpperCase();
    const { hostname } = draft.get('instance', `Bastion${suffix}`).host;
    record(`Bastion${suffix}Record`, `${hostname}.${domain}`, `BastionAddress${suffix}`);
  }
  record('WatchRecord', watchName, 'BalancerAddress');
  if (hasIngest) record('IngestRecord', `ingest.${domain}`, 'BalancerAddress');
  draft.add('record', {
    id: 'AuthorityRecord',
    stack: 'edge',
    purpose: "Only Let's Encrypt may issue certificates for the domain (RFC 8659)",
    zone: 'Zone',
    name: domain,
    type: 'CAA',
    ttlSeconds: 3600,
    target: { kind: 'values', values: ['0 issue "letsencrypt.org"'] },
  });

  drawSchedules(draft);
  drawBudget(draft);

  return {
    format: 1,
    deployment,
    zones: letters.map(zoneOf),
    resources: draft.resources,
    placement: {
      ingest: backendIps.map((_, index) => `Backend${index}`),
      playout: backendIps.map((_, index) => `Backend${index}`),
      frontends: frontendIps.map((_, index) => `Frontend${index}`),
      coordinators: ['Balancer'],
      watchUrl: `https://${watchName}/`,
      ingestUrl: hasIngest ? `rtmps://ingest.${domain}:${RTMPS_PORT}/live` : null,
      reasons: [
        'The coordinator runs on the balancer, on loopback: the matrix lets every host reach the balancer on port 443, and lets nobody reach anything else on the backends or frontends, so no cell changes.',
        hasIngest
          ? 'Encoders publish to the balancer, which passes RTMP and RTMPS on to the backends: four rules more than the matrix of the seed.'
          : "The matrix lets no encoder in from the internet. An encoder's stream goes through SSH: ssh -J bastion -L 1935:127.0.0.1:1935 backend-0. ingestFrom opens the balancer for encoders.",
        ...(letters.length > 1
          ? [
              'Each zone has a bastion, frontends and backends. The balancer and the coordinator, whose database is on its disk, stay in the first zone: they are one host, as in the seed.',
            ]
          : []),
      ],
    },
    usage: [],
    outputs: {
      schedulerRoleArn: {
        value: ref('ScheduleRole', 'arn'),
        description: 'What `starling schedule` lets EventBridge Scheduler act as',
      },
      bastionPublicIp: { value: ref('BastionAddressA', 'publicIp'), description: 'Where SSH comes in' },
      balancerPublicIp: { value: ref('BalancerAddress', 'publicIp'), description: 'Where viewers come in' },
      frontendPrivateIps: { value: frontendIps.join(','), description: 'Frontends, inside the VPC' },
      backendPrivateIps: { value: backendIps.join(','), description: 'Backends, inside the VPC' },
      watchUrl: { value: `https://${watchName}/`, description: 'For viewers' },
      nameServers: { value: ref('Zone', 'nameServers'), description: "For the domain's registrar" },
    },
  };
}

function hosts<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => make(index));
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function kebab(id: string): string {
  return id.replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase();
}
