/**
 * What is put onto a host: configuration, systemd units, the packet filter, and the user data that brings them where
 * Ansible does not. Pure text from the plan's own data, so that what is checked is what runs.
 */
import { stringify } from 'yaml';
import type { StarlingConfig } from '../config.ts';
import type { Host, HostFile, HostRole, Rule, SecretFile, Template } from './plan.ts';

/** The account of the services. */
const SERVICE_USER = 'starling';
const CONFIG_PATH = '/etc/starling/starling.yaml';
export const SECRETS_DIR = '/etc/starling/secrets';
export const DATA_DIR = '/var/lib/starling';
/** Library and recordings, where hosts share them. */
export const SHARED_DIR = `${DATA_DIR}/shared`;
export const NODE_TOKEN_PATH = `${SECRETS_DIR}/node.token`;
/**
 * A host of an auto-scaling group is powered off when it ends for good, and not when it boots again or its services are
 * restarted. SIGUSR2 has a node leave the network at the stop that follows. As root: systemd answers then until its very end.
 */
const TELL_POWER_OFF =
  "+-/bin/sh -c 'systemctl list-jobs --no-legend | grep -q poweroff.target && kill -s USR2 $MAINPID'";
const RDS_CA_PATH = '/etc/starling/rds-ca.pem';
const LOG_AGENT_CONFIG = '/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json';

export interface HostInput {
  readonly hostname: string;
  readonly roles: readonly HostRole[];
  readonly config: StarlingConfig | null;
  readonly secretFiles?: readonly SecretFile[];
  /** Its security groups' rules, for the packet filter on the host itself; peers are ranges, or a group's range. */
  readonly ingress: readonly Rule[];
  /** The ranges that stand for a security group that is a peer. */
  readonly rangesOfGroup?: (securityGroup: string) => readonly string[];
  readonly natFor?: readonly string[];
  /** Addresses of names inside the VPC, in /etc/hosts. */
  readonly names?: Readonly<Record<string, string>>;
  /** `s3://bucket/key`; where Ansible brings the release, undefined. */
  readonly releaseUri?: Template;
  /** Allocation id of a public address that it takes when nobody has it. */
  readonly takesAddress?: Template;
  /** NFS file system, by its id, for library and recordings. */
  readonly fileSystem?: Template;
  /** One of a group of hosts that come and go: its nodes join by themselves, and leave when it is powered off. */
  readonly isOfGroup?: boolean;
  readonly logGroup?: Template;
  readonly region: string;
}

const packagesOfRole: Record<HostRole, readonly string[]> = {
  bastion: [],
  balancer: ['nginx-light', 'libnginx-mod-stream'],
  coordinator: [],
  backend: ['ffmpeg', 'fonts-dejavu-core'],
  frontend: ['ffmpeg'],
};

/** Settles everything that is put onto a host. */
export function drawHost(input: HostInput): Host {
  const processes = input.roles.filter((role) => role !== 'bastion');
  const natFor = input.natFor ?? [];
  const secretFiles = input.secretFiles ?? [];
  const fetched = secretFiles.filter(({ from }) => from.kind !== 'ansible');
  const needsAws = fetched.some(({ from }) => from.kind !== 'made-here') || input.takesAddress !== undefined;
  const files: HostFile[] = [
    file('/etc/nftables.conf', packetFilter(input), '0755'),
    file('/etc/sysctl.d/60-starling.conf', kernelSettings(natFor.length > 0, processes.length > 0)),
    ...(natFor.length > 0 ? [file('/etc/systemd/network/10-starling-nat.network', NAT_INTERFACES)] : []),
    ...(input.names === undefined ? [] : [file('/etc/starling/hosts', hostsFile(input.names))]),
  ];
  const units = ['nftables.service'];
  if (input.config !== null) {
    files.push(file(CONFIG_PATH, yaml(input.config), '0640', 'root', SERVICE_USER));
  }
  if (fetched.length > 0) {
    files.push(
      file('/usr/local/sbin/starling-secrets', secretsScript(fetched, input.region), '0755'),
      file(
        '/etc/systemd/system/starling-secrets.service',
        oneShot('Fetches the secrets of the services', '/usr/local/sbin/starling-secrets'),
      ),
      file('/etc/systemd/system/starling-secrets.timer', timer('5min')),
    );
    units.push('starling-secrets.service', 'starling-secrets.timer');
  }
  if (input.takesAddress !== undefined) {
    files.push(
      file('/usr/local/sbin/starling-address', addressScript(input.takesAddress, input.region), '0755'),
      file(
        '/etc/systemd/system/starling-address.service',
        oneShot('Takes the address of ingest when nobody has it', '/usr/local/sbin/starling-address'),
      ),
      file('/etc/systemd/system/starling-address.timer', timer('1min')),
    );
    units.push('starling-address.timer');
  }
  if (input.fileSystem !== undefined) {
    files.push(
      file('/etc/systemd/system/var-lib-starling-shared.mount', mountUnit(input.fileSystem, input.region)),
    );
    units.push('var-lib-starling-shared.mount');
  }
  if (processes.length > 0) {
    files.push(file('/etc/systemd/system/starling@.service', serviceUnit(input)));
    units.push(...processes.map((role) => `starling@${role}.service`));
    if (input.isOfGroup === true)
      files.push(file('/etc/systemd/system/starling@coordinator.service.d/order.conf', COORDINATOR_FIRST));
  }
  if (input.logGroup !== undefined) {
    files.push(file(LOG_AGENT_CONFIG, logAgentConfig(input.logGroup, processes)));
    files.push(file('/etc/logrotate.d/starling', LOG_ROTATION));
    units.push('amazon-cloudwatch-agent.service');
  }
  return {
    hostname: input.hostname,
    roles: input.roles,
    packages: [
      ...new Set([
        'nftables',
        'unattended-upgrades',
        ...(needsAws ? ['awscli', 'jq'] : []),
        ...(input.fileSystem === undefined ? [] : ['nfs-common']),
        ...input.roles.flatMap((role) => packagesOfRole[role]),
      ]),
    ],
    config: input.config,
    files,
    units,
    natFor,
    secretFiles,
  };
}

/** YAML as people write it: no folded lines, no anchors. */
export function yaml(value: object): string {
  return stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });
}

function file(path: string, content: Template, mode = '0644', owner = 'root', group = 'root'): HostFile {
  return { path, mode, owner, group, content };
}

/**
 * nftables on the host says once more what the security groups say, so that a mistake in either is not enough. Replies
 * come back by connection tracking; what the host itself opens is not held up.
 */
function packetFilter(input: HostInput): string {
  const rules = input.ingress.flatMap((rule) => {
    const sources =
      'cidr' in rule.peer
        ? [rule.peer.cidr]
        : 'securityGroup' in rule.peer
          ? (input.rangesOfGroup?.(rule.peer.securityGroup) ?? [])
          : // A prefix list is AWS's to keep; the security group has it.
            ['0.0.0.0/0'];
    return sources.map((source) => {
      const from = source === '0.0.0.0/0' ? '' : `ip saddr ${source} `;
      if (rule.protocol === 'all') return `${from}accept`;
      if (rule.protocol === 'icmp') return `${from}ip protocol icmp accept`;
      const ports = rule.fromPort === rule.toPort ? `${rule.fromPort}` : `${rule.fromPort}-${rule.toPort}`;
      return `${from}${rule.protocol} dport ${ports} accept`;
    });
  });
  const input4 = [
    'type filter hook input priority filter; policy drop;',
    'iifname "lo" accept',
    'ct state established,related accept',
    'ct state invalid drop',
    // Path MTU discovery needs these, whatever the security groups say.
    'ip protocol icmp icmp type { destination-unreachable, time-exceeded, parameter-problem } accept',
    'ip6 nexthdr icmpv6 accept',
    // DHCP's answers.
    'udp sport 67 udp dport 68 accept',
    ...new Set(rules),
  ];
  const natFor = (input.natFor ?? []).join(', ');
  const forward = [
    'type filter hook forward priority filter; policy drop;',
    ...(natFor === ''
      ? []
      : [
          'ct state established,related accept',
          // Out to the internet, and nowhere else: the two private subnets do not meet here.
          `ip saddr { ${natFor} } oifname "ens5" accept`,
        ]),
  ];
  const postrouting = [
    'type nat hook postrouting priority srcnat; policy accept;',
    `ip saddr { ${natFor} } oifname "ens5" masquerade`,
  ];
  return [
    '#!/usr/sbin/nft -f',
    `# The packet filter of ${input.hostname}, as the plan has it.`,
    'flush ruleset',
    'table inet starling {',
    ...chain('input', input4),
    ...chain('forward', forward),
    ...(natFor === '' ? [] : chain('postrouting', postrouting)),
    '}',
    '',
  ].join('\n');
}

function chain(name: string, lines: readonly string[]): string[] {
  return [`  chain ${name} {`, ...lines.map((line) => `    ${line}`), '  }'];
}

function kernelSettings(forwards: boolean, serves: boolean): string {
  return [
    ...(forwards
      ? [
          'net.ipv4.ip_forward = 1',
          // A packet of a private subnet comes in by one interface and its answer by another.
          'net.ipv4.conf.all.rp_filter = 2',
          // Not there before the module is loaded: the minus lets that pass.
          '-net.netfilter.nf_conntrack_max = 262144',
        ]
      : []),
    ...(serves
      ? [
          'net.core.somaxconn = 4096',
          // Long distances at several Mb/s.
          'net.core.rmem_max = 16777216',
          'net.core.wmem_max = 16777216',
          '-net.ipv4.tcp_congestion_control = bbr',
          'net.core.default_qdisc = fq',
        ]
      : []),
    'kernel.kptr_restrict = 2',
    'net.ipv4.conf.all.accept_redirects = 0',
    'net.ipv4.conf.all.send_redirects = 0',
    '',
  ].join('\n');
}

/**
 * The bastion's second and third interface: an address, and no default route. Their subnets' route tables lead back to
 * the bastion, so packets that left by them would go round in circles.
 */
const NAT_INTERFACES = `[Match]
Name=ens6 ens7

[Network]
DHCP=ipv4

[DHCPv4]
UseGateway=no
UseRoutes=no
UseDNS=no
`;

function hostsFile(names: Readonly<Record<string, string>>): string {
  return Object.entries(names)
    .map(([name, address]) => `${address} ${name}\n`)
    .join('');
}

/** One unit for all roles, `starling@frontend`; docs/operations.md says why KillMode is mixed. */
function serviceUnit(input: HostInput): string {
  const secretFiles = input.secretFiles ?? [];
  const after = [
    'network-online.target',
    ...(secretFiles.some(({ from }) => from.kind !== 'ansible') ? ['starling-secrets.service'] : []),
  ];
  const log = 'append:/var/log/starling/%i.log';
  const options = [
    ...(input.logGroup === undefined
      ? []
      : ['LogsDirectory=starling', `StandardOutput=${log}`, `StandardError=${log}`]),
    // RDS's authority is Amazon's own, and not among those that Node brings.
    ...(secretFiles.some(({ from }) => from.kind === 'database')
      ? [`Environment=NODE_EXTRA_CA_CERTS=${RDS_CA_PATH}`]
      : []),
    ...(input.isOfGroup === true
      ? [`Environment=STARLING_JOIN_TOKEN_FILE=${NODE_TOKEN_PATH}`, `ExecStop=${TELL_POWER_OFF}`]
      : []),
    ...(input.fileSystem === undefined
      ? []
      : [`ReadWritePaths=${SHARED_DIR}`, `ExecStartPre=+/bin/chown ${SERVICE_USER}: ${SHARED_DIR}`]),
  ];
  return `[Unit]
Description=Starling %i
Documentation=file:///opt/starling/docs/operations.md
After=${after.join(' ')}
Wants=network-online.target
${input.fileSystem === undefined ? '' : `RequiresMountsFor=${SHARED_DIR}\n`}StartLimitIntervalSec=0

[Service]
User=${SERVICE_USER}
Group=${SERVICE_USER}
ExecStart=/opt/starling/bin/starling %i --config ${CONFIG_PATH}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1
KillMode=mixed
TimeoutStopSec=30
LimitNOFILE=65536
WorkingDirectory=${DATA_DIR}/%i
StateDirectory=starling/%i
StateDirectoryMode=0700
${options.map((line) => `${line}\n`).join('')}# Ports 80 and 443 without being root.
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=multi-user.target
`;
}

/** What stops in the opposite order can still leave the network through it. */
const COORDINATOR_FIRST = `[Unit]
Before=starling@backend.service starling@frontend.service
`;

function oneShot(description: string, program: string): string {
  return `[Unit]
Description=${description}
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart=${program}
TimeoutStartSec=120
PrivateTmp=yes
ProtectHome=yes

[Install]
WantedBy=multi-user.target
`;
}

/** Runs the service of its name again and again. */
function timer(every: string): string {
  return `[Unit]
Description=Again after ${every}

[Timer]
OnBootSec=10s
OnUnitInactiveSec=${every}
RandomizedDelaySec=10s

[Install]
WantedBy=timers.target
`;
}

function mountUnit(fileSystem: Template, region: string): string {
  return `[Unit]
Description=Library and recordings of all hosts
After=network-online.target
Wants=network-online.target

[Mount]
What=${fileSystem}.efs.${region}.amazonaws.com:/
Where=${SHARED_DIR}
Type=nfs4
Options=nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,_netdev

[Install]
WantedBy=remote-fs.target
`;
}

/** The line of the script that writes one secret. */
function secretStep({ path, from }: SecretFile): Template {
  switch (from.kind) {
    case 'made-here':
      return `[ -s ${path} ] || openssl rand -hex 32 | put ${path}`;
    case 'token':
      return `value ${from.secret} .value | derive ${from.label} | put ${path}`;
    case 'database':
      return `secret ${from.secret} | jq -jr '"postgres://\\(.username|@uri):\\(.password|@uri)@${from.host}:5432/${from.database}?sslmode=verify-full"' | put ${path}`;
    case 'cache':
      if (from.secret === null) return `printf %s 'rediss://${from.host}:6379' | put ${path}`;
      return `value ${from.secret} .value | jq -Rjr '"rediss://:\\(.|@uri)@${from.host}:6379"' | put ${path}`;
    case 'ansible':
      return '';
  }
}

/**
 * Writes each secret to its file, and restarts the services when one has changed, as after a rotation. A secret is never
 * an argument of a program, where others could see it.
 */
function secretsScript(secretFiles: readonly SecretFile[], region: string): Template {
  return `#!/bin/bash
# Fetches the secrets of the services; restarts them when one has changed.
set -euo pipefail
umask 077
export AWS_DEFAULT_REGION=${region}
changed=0
secret() { aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text; }
value() { secret "$1" | jq -jr "$2"; }
# HMAC-SHA256 of the label; the key comes by standard input and stays out of the arguments.
derive() { node -e 'const{createHmac}=require("crypto");process.stdout.write(createHmac("sha256",require("fs").readFileSync(0)).update(process.argv[1]).digest("hex"))' "$1"; }
put() {
  local new
  new=$(mktemp "${SECRETS_DIR}/.new.XXXXXX")
  cat >"$new"
  [ -s "$new" ]
  chown ${SERVICE_USER}:${SERVICE_USER} "$new"
  chmod 0400 "$new"
  if cmp -s "$new" "$1"; then rm "$new"; else mv "$new" "$1"; changed=1; fi
}
PATH=/opt/starling/bin:$PATH
install -d -m 0700 -o ${SERVICE_USER} -g ${SERVICE_USER} ${SECRETS_DIR}
${secretFiles.map(secretStep).join('\n')}
if [ "$changed" = 1 ]; then systemctl try-restart 'starling@*.service' --no-block || true; fi
`;
}

/**
 * A public address without a load balancer: whoever finds it free takes it. AWS refuses when somebody has it, so two
 * hosts never fight over it; when its holder ends, AWS takes it back, and within a minute another host has it.
 */
function addressScript(allocation: Template, region: string): Template {
  return `#!/bin/bash
set -euo pipefail
export AWS_DEFAULT_REGION=${region}
token=$(curl -fsS -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
instance=$(curl -fsS -m 5 -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/instance-id)
holder=$(aws ec2 describe-addresses --allocation-ids ${allocation} --query 'Addresses[0].InstanceId' --output text)
[ "$holder" = None ] || [ -z "$holder" ] || exit 0
aws ec2 associate-address --allocation-id ${allocation} --instance-id "$instance" --no-allow-reassociation
`;
}

function logAgentConfig(logGroup: Template, processes: readonly HostRole[]): Template {
  return `${JSON.stringify(
    {
      agent: { run_as_user: 'cwagent' },
      logs: {
        logs_collected: {
          files: {
            collect_list: processes.map((role) => ({
              file_path: `/var/log/starling/${role}.log`,
              log_group_name: logGroup,
              log_stream_name: `{instance_id}/${role}`,
            })),
          },
        },
      },
    },
    null,
    2,
  )}\n`;
}

const LOG_ROTATION = `/var/log/starling/*.log {
  daily
  rotate 3
  maxsize 100M
  missingok
  compress
  copytruncate
}
`;

/**
 * cloud-init for a host that Ansible configures: its name, no passwords. A bastion also forwards from its first boot
 * on, since the others reach Debian's packages through it.
 */
export function userDataForAnsible(host: Host): Template {
  const isBastion = host.natFor.length > 0;
  return cloudConfig({
    hostname: host.hostname,
    preserve_hostname: false,
    ssh_pwauth: false,
    disable_root: true,
    ...(isBastion
      ? {
          packages: host.packages,
          write_files: writeFiles(host.files),
          runcmd: [
            ['sysctl', '--system'],
            ['systemctl', 'enable', '--now', 'systemd-networkd.service'],
            ['networkctl', 'reload'],
            ['systemctl', 'enable', '--now', ...host.units],
          ],
        }
      : {}),
  });
}

/** Where the release and Amazon's agents come from, for a host that sets itself up. */
export interface SelfSetup {
  readonly region: string;
  readonly releaseUri: Template;
  readonly hasSsm: boolean;
}

/** cloud-init for a host that sets itself up: packages, files, the release, the services. */
export function userDataWhole(host: Host, { region, releaseUri, hasSsm }: SelfSetup): Template {
  const logs = host.units.includes('amazon-cloudwatch-agent.service');
  const needsRdsCa = host.secretFiles.some(({ from }) => from.kind === 'database');
  const setup = `#!/bin/bash
# Sets the host up at its first start. What fails is tried again: the release may not be uploaded yet.
set -euo pipefail
export AWS_DEFAULT_REGION=${region}
again() { for wait in 5 10 20 40 60 60 60 60 60 60 60 60 60 60 60; do "$@" && return 0; sleep $wait; done; "$@"; }
id ${SERVICE_USER} >/dev/null 2>&1 || useradd --system --home-dir ${DATA_DIR} --shell /usr/sbin/nologin ${SERVICE_USER}
install -d -m 0750 -o root -g ${SERVICE_USER} /etc/starling
install -d -m 0700 -o ${SERVICE_USER} -g ${SERVICE_USER} ${SECRETS_DIR} ${DATA_DIR}
chgrp ${SERVICE_USER} ${CONFIG_PATH}
fetch() { aws s3 cp --only-show-errors "$1" /var/tmp/starling.tar.gz && aws s3 cp --only-show-errors "$1.sha256" /var/tmp/starling.tar.gz.sha256; }
again fetch ${releaseUri}
(cd /var/tmp && sha256sum --check --quiet starling.tar.gz.sha256)
${needsRdsCa ? `again curl -fsS -m 60 -o ${RDS_CA_PATH} https://truststore.pki.rds.amazonaws.com/${region}/${region}-bundle.pem\n` : ''}install -d /opt/starling
tar -xzf /var/tmp/starling.tar.gz -C /opt/starling --no-same-owner
${logs ? agent('amazon-cloudwatch-agent', `https://amazoncloudwatch-agent-${region}.s3.${region}.amazonaws.com/debian/amd64/latest/amazon-cloudwatch-agent.deb`) : ''}${hasSsm ? agent('amazon-ssm-agent', `https://s3.${region}.amazonaws.com/amazon-ssm-${region}/latest/debian_amd64/amazon-ssm-agent.deb`) : ''}[ ! -e /lib/systemd/system/nginx.service ] || systemctl mask --now nginx.service
[ ! -f /etc/starling/hosts ] || cat /etc/starling/hosts >>/etc/hosts
sysctl --system >/dev/null
systemctl daemon-reload
systemctl enable --now ${host.units.join(' ')}
`;
  return cloudConfig({
    hostname: host.hostname,
    preserve_hostname: false,
    ssh_pwauth: false,
    disable_root: true,
    package_update: true,
    packages: [...new Set([...host.packages, 'curl', 'awscli', 'ca-certificates'])],
    write_files: writeFiles([...host.files, file('/usr/local/sbin/starling-setup', setup, '0755')]),
    runcmd: [['/usr/local/sbin/starling-setup']],
  });
}

function agent(name: string, url: string): string {
  return `again curl -fsS -m 120 -o /var/tmp/${name}.deb ${url}\ndpkg -i /var/tmp/${name}.deb\n`;
}

function cloudConfig(settings: object): Template {
  return `#cloud-config\n${yaml(settings)}`;
}

/** The group of the services may not exist yet: the files are root's, and the setup hands them over. */
function writeFiles(files: readonly HostFile[]) {
  return files.map(({ path, mode, content }) => ({ path, permissions: mode, content }));
}
