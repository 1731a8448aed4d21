/**
 * What Ansible needs to know of a plan: the inventory, an SSH configuration that jumps over the bastion with the key of
 * each, and for every host the files, packages and units that the plan puts onto it.
 */
import {
  type Host,
  type Instance,
  type Plan,
  ref,
  resourcesOf,
  type Template,
  templateParts,
} from '@starling/model/topology/plan';
import { stringify } from 'yaml';

/** Debian's images have this account. */
const REMOTE_USER = 'admin';
/** Groups, by the role that a host has first; Ansible wants no hyphens in them, and no host of the same name. */
const groups = {
  bastion: 'bastions',
  balancer: 'balancers',
  frontend: 'frontends',
  backend: 'backends',
  coordinator: 'coordinators',
} as const;

/** Files by name, relative to the folder of the inventory. */
export type Files = Readonly<Record<string, Template>>;

function yaml(value: object): string {
  return stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });
}

interface Placed {
  readonly instance: Instance;
  readonly host: Host;
  /** Where SSH finds it: a public address for bastions, and for hosts without one. */
  readonly address: Template;
  /** Name of the bastion in front; null for none. */
  readonly jump: string | null;
}

function placed(plan: Plan): Placed[] {
  const interfaces = resourcesOf(plan, 'interface').filter(({ deviceIndex }) => deviceIndex === 0);
  const addresses = resourcesOf(plan, 'address');
  const instances = resourcesOf(plan, 'instance');
  const bastions = instances.filter(({ host }) => host.roles.includes('bastion'));
  return instances.map((instance) => {
    const own = interfaces.find((one) => one.instance === instance.id);
    const address = addresses.find((one) => one.interface === own?.id);
    const bastion = bastions.find(({ zone }) => zone === instance.zone) ?? bastions[0];
    const isInside = bastion !== undefined && !instance.host.roles.includes('bastion');
    return {
      instance,
      host: instance.host,
      address: isInside || address === undefined ? (own?.privateIp ?? '') : ref(address.id, 'publicIp'),
      jump: isInside ? bastion.host.hostname : null,
    };
  });
}

/** The inventory: hosts by group, and the SSH configuration that leads to them. */
export function ansibleInventory(plan: Plan): string {
  const children: Record<string, { hosts: Record<string, null> }> = {};
  for (const { host } of placed(plan)) {
    const group = groups[host.roles[0] ?? 'coordinator'];
    const known = children[group] ?? { hosts: {} };
    children[group] = { hosts: { ...known.hosts, [host.hostname]: null } };
  }
  return yaml({
    all: {
      vars: {
        ansible_user: REMOTE_USER,
        ansible_python_interpreter: '/usr/bin/python3',
        ansible_ssh_common_args: "-F '{{ inventory_dir }}/ssh_config'",
        starling_deployment: plan.deployment.name,
      },
      children,
    },
  });
}

/**
 * For `ssh -F`: names of hosts, the jump over the bastion, the key of each. The keys are in `keys`, where
 * `starling infra keys` puts them; `ssh` is started in the folder of the inventory.
 */
export function sshConfig(plan: Plan): Template {
  const sections = placed(plan).map(({ instance, host, address, jump }) => {
    const key = instance.keyPair === 'BastionKey' ? 'bastion' : 'instances';
    return [
      `Host ${host.hostname}`,
      `  HostName ${address}`,
      ...(jump === null ? [] : [`  ProxyJump ${jump}`]),
      `  IdentityFile keys/${key}`,
      // After a rotation hosts know this one until the playbook has run.
      `  IdentityFile keys/${key}.old`,
      '',
    ].join('\n');
  });
  return `Host *
  User ${REMOTE_USER}
  IdentitiesOnly yes
  StrictHostKeyChecking accept-new
  UserKnownHostsFile known_hosts
  ForwardAgent no
  ServerAliveInterval 30

${sections.join('\n')}`;
}

export class AnsibleError extends Error {
  override readonly name = 'AnsibleError';
}

/**
 * Everything that Ansible reads, by the name of its file. Public addresses are not known before AWS has given them out:
 * hosts that have one go by their name in the zone. Terraform writes inventory and SSH configuration with the addresses.
 * @throws AnsibleError for a profile whose hosts set themselves up
 */
export function ansibleFiles(plan: Plan): Files {
  if (plan.deployment.profile !== 'classic-iptv') {
    throw new AnsibleError(
      `Ansible sets up the hosts of classic-iptv; those of ${plan.deployment.profile} set themselves up at their first start.`,
    );
  }
  const hostVars = placed(plan).map(({ host }) => [
    `host_vars/${host.hostname}.yaml`,
    yaml({
      starling_hostname: host.hostname,
      starling_roles: host.roles,
      starling_packages: host.packages,
      starling_files: host.files,
      starling_units: host.units,
      starling_secrets: host.secretFiles.flatMap(({ path, from }) =>
        from.kind === 'ansible' ? [{ path, name: from.name }] : [],
      ),
      starling_nat: host.natFor.length > 0,
    }),
  ]);
  return {
    'inventory.yaml': ansibleInventory(plan),
    ssh_config: templateParts(sshConfig(plan))
      .map((part) => (typeof part === 'string' ? part : nameOfAddress(plan, part.id)))
      .join(''),
    ...Object.fromEntries(hostVars),
  };
}

/** The name in the zone that leads to an address. */
function nameOfAddress(plan: Plan, address: string): string {
  const wanted = ref(address, 'publicIp');
  const record = resourcesOf(plan, 'record').find(
    ({ target }) => target.kind === 'values' && target.values.includes(wanted),
  );
  if (record === undefined) throw new AnsibleError(`The zone has no name for ${address}.`);
  return record.name;
}
