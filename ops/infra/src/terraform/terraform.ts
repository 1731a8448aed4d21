/**
 * A plan as Terraform's JSON syntax, for the AWS and local providers. A pure function of the plan: what it says is
 * translated, nothing is decided. Of Terraform's variables those that can change one value without changing the plan
 * (types, the operator's address, keys) do so; the others, which the seed has and scripts may set, are refused with
 * what to do when they differ from the plan.
 *
 * Source: Terraform language, "JSON Configuration Syntax"; AWS provider 6.
 */
import { type Plan, type Resource, type Template, templateParts } from '@starling/model/topology/plan';

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };
type Block = { readonly [key: string]: Json };
export interface TerraformConfiguration {
  readonly terraform: Block;
  readonly provider: Block;
  readonly variable: Record<string, Block>;
  readonly data: Record<string, Record<string, Block>>;
  readonly resource: Record<string, Record<string, Block>>;
  readonly output: Record<string, Block>;
}

export class TerraformError extends Error {
  override readonly name = 'TerraformError';
}

/** Of the provider whose schema is in fixtures/terraform. */
const AWS_PROVIDER = '~> 6.0';
const LOCAL_PROVIDER = '~> 2.5';

/** The type of a resource, and its attribute for each that a template may ask for. */
const types: {
  readonly [K in Resource['kind']]?: {
    readonly type: string;
    readonly attributes: Readonly<Record<string, string>>;
  };
} = {
  vpc: { type: 'aws_vpc', attributes: { id: 'id', arn: 'arn' } },
  'internet-gateway': { type: 'aws_internet_gateway', attributes: { id: 'id' } },
  subnet: { type: 'aws_subnet', attributes: { id: 'id' } },
  'route-table': { type: 'aws_route_table', attributes: { id: 'id' } },
  'security-group': { type: 'aws_security_group', attributes: { id: 'id' } },
  'key-pair': { type: 'aws_key_pair', attributes: { name: 'key_name' } },
  role: { type: 'aws_iam_role', attributes: { arn: 'arn', name: 'name' } },
  instance: { type: 'aws_instance', attributes: { id: 'id', arn: 'arn', privateIp: 'private_ip' } },
  interface: { type: 'aws_network_interface', attributes: { id: 'id', privateIp: 'private_ip' } },
  address: { type: 'aws_eip', attributes: { id: 'id', publicIp: 'public_ip' } },
  zone: { type: 'aws_route53_zone', attributes: { id: 'zone_id', nameServers: 'name_servers' } },
  record: { type: 'aws_route53_record', attributes: { name: 'fqdn' } },
  schedule: { type: 'aws_scheduler_schedule', attributes: { arn: 'arn' } },
};

/** The name of a resource in Terraform: `BastionPrivate1InterfaceA` is `bastion_private1_interface_a`. */
export function terraformName(id: string): string {
  return id
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/([A-Z])([A-Z][a-z])/g, '$1_$2')
    .toLowerCase();
}

/** Text that Terraform takes as it is. */
function literal(text: string): string {
  return text.replaceAll('${', '$${').replaceAll('%{', '%%{');
}

/**
 * The configuration, to be written as `main.tf.json`.
 * @param files further files that Terraform writes, by name, such as the inventory with the addresses in it
 * @throws TerraformError for a plan with resources that only CloudFormation is emitted for
 */
export function terraformConfiguration(
  plan: Plan,
  files: Readonly<Record<string, Template>>,
): TerraformConfiguration {
  const foreign = plan.resources.find(({ kind }) => types[kind] === undefined);
  if (foreign !== undefined) {
    throw new TerraformError(
      `Terraform is emitted for the profile classic-iptv; ${plan.deployment.profile} has a ${foreign.kind} (${foreign.id}). Use --emit cloudformation.`,
    );
  }
  const emitter = new Emitter(plan);
  for (const one of plan.resources) emitter.add(one);
  for (const [name, content] of Object.entries(files)) emitter.addFile(name, content);
  return emitter.configuration();
}

class Emitter {
  readonly #plan: Plan;
  readonly #byId: ReadonlyMap<string, Resource>;
  readonly #resource: Record<string, Record<string, Block>> = {};

  constructor(plan: Plan) {
    this.#plan = plan;
    this.#byId = new Map(plan.resources.map((one) => [one.id, one]));
  }

  configuration(): TerraformConfiguration {
    const { deployment, outputs } = this.#plan;
    return {
      terraform: {
        required_version: '>= 1.9',
        required_providers: {
          aws: { source: 'hashicorp/aws', version: AWS_PROVIDER },
          local: { source: 'hashicorp/local', version: LOCAL_PROVIDER },
        },
      },
      // biome-ignore lint/suspicious/noTemplateCurlyInString: Terraform's own
      provider: { aws: { region: '${var.region}', profile: '${var.aws_profile}' }, local: {} },
      variable: this.#variables(),
      data: {
        aws_ssm_parameter: {
          debian: { name: this.#image() },
        },
        aws_caller_identity: { current: {} },
        aws_partition: { current: {} },
      },
      resource: this.#resource,
      output: {
        ...Object.fromEntries(
          Object.entries(outputs).map(([name, { value, description }]) => [
            terraformName(name),
            { value: this.#text(value), description },
          ]),
        ),
        region: { value: deployment.region, description: 'Where it is' },
      },
    };
  }

  #image(): string {
    const machine = this.#plan.resources.find((one) => one.kind === 'instance');
    return machine?.kind === 'instance' ? machine.image.ssmParameter : '';
  }

  #variables(): Record<string, Block> {
    const { deployment } = this.#plan;
    const fixed = (
      name: string,
      type: 'string' | 'number',
      value: string | number,
      setting: string,
      description: string,
    ) => ({
      [name]: {
        ...{ type, default: value, description },
        validation: {
          condition: `\${var.${name} == ${JSON.stringify(value)}}`,
          error_message: `The plan was made for ${value}. Set ${setting} in deploy.yaml and run starling infra synth again.`,
        },
      },
    });
    const key = (of: 'bastion' | 'instances', description: string) => {
      const publicKey = deployment.keys[of];
      return {
        [`${of}_public_key`]: {
          type: 'string',
          description,
          ...(publicKey === null ? {} : { default: publicKey }),
        },
      };
    };
    const type = (role: 'bastion' | 'balancer' | 'frontend' | 'backend') => ({
      [`instance_type_${role}`]: {
        ...{ type: 'string', default: deployment.instanceTypes[role], description: `Of the ${role}` },
      },
    });
    return {
      ...fixed('region', 'string', deployment.region, 'region', 'AWS region'),
      aws_profile: {
        type: 'string',
        default: null,
        description: 'Profile of the AWS configuration; the default one when null',
      },
      vpc_name: { type: 'string', default: deployment.vpcName, description: 'Name of the VPC' },
      ...fixed('domain', 'string', deployment.domain, 'domain', 'Domain of the service'),
      ...fixed('nombre_instance_front', 'number', deployment.frontends, 'frontends', 'How many frontends'),
      ...fixed('nombre_instance_back', 'number', deployment.backends, 'backends', 'How many backends'),
      ...type('bastion'),
      ...type('balancer'),
      ...type('frontend'),
      ...type('backend'),
      ...(deployment.operatorAddress === null
        ? {}
        : {
            operator_address: {
              ...{
                type: 'string',
                default: deployment.operatorAddress,
                description: 'From where SSH is taken',
              },
              validation: {
                // biome-ignore lint/suspicious/noTemplateCurlyInString: Terraform's own
                condition: '${can(cidrhost(var.operator_address, 0))}',
                error_message: 'An address range such as 203.0.113.7/32.',
              },
            },
          }),
      ...key('bastion', 'Public half of the key of the bastion; starling infra keys makes it'),
      ...key('instances', 'Public half of the key of the other hosts'),
    };
  }

  #put(type: string, id: string, block: Block): void {
    const name = terraformName(id);
    this.#resource[type] = { ...this.#resource[type], [name]: block };
  }

  /** `${type.name.attribute}` of a resource of the plan. */
  #ref(id: string, attribute = 'id'): string {
    return `\${${this.#expression(id, attribute)}}`;
  }

  #expression(id: string, attribute: string): string {
    if (id === 'AWS') {
      return {
        account: 'data.aws_caller_identity.current.account_id',
        partition: 'data.aws_partition.current.partition',
        region: 'var.region',
      }[attribute] as string;
    }
    const one = this.#byId.get(id);
    const known = one === undefined ? undefined : types[one.kind];
    const name = known?.attributes[attribute];
    if (known === undefined || name === undefined) {
      throw new TerraformError(`The plan asks for ${id}.${attribute}, which Terraform does not have.`);
    }
    return `${known.type}.${terraformName(id)}.${name}`;
  }

  #text(template: Template): string {
    const parts = templateParts(template);
    return parts
      .map((part) => (typeof part === 'string' ? literal(part) : this.#ref(part.id, part.attribute)))
      .join('');
  }

  add(one: Resource): void {
    const tags = one.tags;
    switch (one.kind) {
      case 'vpc':
        return this.#put('aws_vpc', one.id, {
          cidr_block: one.cidr,
          enable_dns_support: true,
          enable_dns_hostnames: true,
          // biome-ignore lint/suspicious/noTemplateCurlyInString: Terraform's own
          tags: { ...tags, Name: '${var.vpc_name}' },
        });
      case 'internet-gateway':
        return this.#put('aws_internet_gateway', one.id, { vpc_id: this.#ref(one.vpc), tags });
      case 'subnet':
        return this.#put('aws_subnet', one.id, {
          vpc_id: this.#ref(one.vpc),
          cidr_block: one.cidr,
          availability_zone: one.zone,
          map_public_ip_on_launch: one.givesPublicAddresses,
          tags,
        });
      case 'route-table':
        this.#put('aws_route_table', one.id, { vpc_id: this.#ref(one.vpc), tags });
        for (const route of one.routes) {
          const target = this.#ref(route.target.id);
          this.#put('aws_route', route.id, {
            route_table_id: this.#ref(one.id),
            destination_cidr_block: route.destination,
            ...(route.target.kind === 'interface'
              ? { network_interface_id: target }
              : { gateway_id: target }),
          });
        }
        for (const subnet of one.subnets) {
          this.#put('aws_route_table_association', `${subnet}Routes`, {
            subnet_id: this.#ref(subnet),
            route_table_id: this.#ref(one.id),
          });
        }
        return;
      case 'security-group':
        this.#put('aws_security_group', one.id, {
          ...{ name: one.name, description: one.description, vpc_id: this.#ref(one.vpc), tags },
        });
        for (const [type, rules] of [
          ['aws_vpc_security_group_ingress_rule', one.ingress],
          ['aws_vpc_security_group_egress_rule', one.egress],
        ] as const) {
          for (const rule of rules) {
            if (!('cidr' in rule.peer)) throw new TerraformError(`${rule.id}: only ranges are peers here.`);
            const isOperator =
              rule.peer.cidr === this.#plan.deployment.operatorAddress && rule.fromPort === 22;
            this.#put(type, rule.id, {
              security_group_id: this.#ref(one.id),
              description: rule.description,
              ip_protocol: rule.protocol === 'all' ? '-1' : rule.protocol,
              ...(rule.protocol === 'all' ? {} : { from_port: rule.fromPort, to_port: rule.toPort }),
              // biome-ignore lint/suspicious/noTemplateCurlyInString: Terraform's own
              cidr_ipv4: isOperator ? '${var.operator_address}' : rule.peer.cidr,
              tags,
            });
          }
        }
        return;
      case 'key-pair':
        return this.#put('aws_key_pair', one.id, {
          ...{ key_name: one.name, public_key: `\${var.${one.of}_public_key}`, tags },
        });
      case 'role':
        return this.#role(one);
      case 'instance':
        return this.#instance(one);
      case 'interface': {
        this.#put('aws_network_interface', one.id, {
          subnet_id: this.#ref(one.subnet),
          private_ips: [one.privateIp],
          security_groups: one.securityGroups.map((id) => this.#ref(id)),
          source_dest_check: one.sourceDestCheck,
          description: one.purpose,
          tags,
        });
        if (one.deviceIndex === 0) return;
        return this.#put('aws_network_interface_attachment', one.id, {
          instance_id: this.#ref(one.instance),
          network_interface_id: this.#ref(one.id),
          device_index: one.deviceIndex,
        });
      }
      case 'address':
        return this.#put('aws_eip', one.id, {
          domain: 'vpc',
          ...(one.interface === null ? {} : { network_interface: this.#ref(one.interface) }),
          depends_on: this.#plan.resources
            .filter(({ kind }) => kind === 'internet-gateway')
            .map(({ id }) => `aws_internet_gateway.${terraformName(id)}`),
          tags,
        });
      case 'zone':
        return this.#put('aws_route53_zone', one.id, { name: one.name, comment: one.purpose, tags });
      case 'record':
        if (one.target.kind !== 'values') throw new TerraformError(`${one.id}: only records with values.`);
        return this.#put('aws_route53_record', one.id, {
          zone_id: this.#ref(one.zone),
          name: one.name,
          type: one.type,
          ttl: one.ttlSeconds,
          records: one.target.values.map((value) => this.#text(value)),
        });
      case 'schedule':
        return this.#put('aws_scheduler_schedule', one.id, {
          name: one.name,
          description: one.purpose,
          schedule_expression: one.expression,
          schedule_expression_timezone: one.timeZone,
          flexible_time_window: [{ mode: 'OFF' }],
          target: [{ arn: one.call, role_arn: this.#ref(one.role, 'arn'), input: this.#text(one.input) }],
        });
    }
  }

  #instance(one: Extract<Resource, { kind: 'instance' }>): void {
    const primary = this.#plan.resources.find(
      (other) => other.kind === 'interface' && other.instance === one.id && other.deviceIndex === 0,
    );
    const profile = this.#plan.resources.find(
      (other) => other.kind === 'role' && other.id === one.instanceRole,
    );
    this.#put('aws_instance', one.id, {
      // biome-ignore lint/suspicious/noTemplateCurlyInString: Terraform's own
      ami: '${data.aws_ssm_parameter.debian.insecure_value}',
      instance_type: `\${var.instance_type_${one.tags['starling:role']}}`,
      primary_network_interface: [{ network_interface_id: this.#ref(primary?.id ?? '') }],
      metadata_options: [
        {
          http_endpoint: 'enabled',
          http_tokens: one.metadata.httpTokens,
          http_put_response_hop_limit: one.metadata.hopLimit,
        },
      ],
      root_block_device: [
        {
          volume_size: one.rootVolume.sizeGb,
          volume_type: one.rootVolume.type,
          encrypted: one.rootVolume.encrypted,
          tags: one.tags,
        },
      ],
      credit_specification: [{ cpu_credits: one.cpuCredits }],
      monitoring: one.detailedMonitoring,
      disable_api_termination: one.terminationProtection,
      ...(one.keyPair === null ? {} : { key_name: this.#ref(one.keyPair, 'name') }),
      ...(profile?.kind === 'role' && profile.instanceProfile !== null
        ? {
            iam_instance_profile: `\${aws_iam_instance_profile.${terraformName(profile.instanceProfile)}.name}`,
          }
        : {}),
      user_data: this.#text(one.userData),
      tags: one.tags,
      // A newer image replaces no host that runs.
      lifecycle: { ignore_changes: ['ami'] },
    });
  }

  #role(one: Extract<Resource, { kind: 'role' }>): void {
    if (!('service' in one.trusts)) throw new TerraformError(`${one.id}: only services are trusted here.`);
    const { service, sourceAccountOnly } = one.trusts;
    this.#put('aws_iam_role', one.id, {
      name: one.name,
      description: one.purpose,
      assume_role_policy: JSON.stringify({
        Version: '2012-10-17',
        Statement: [
          {
            ...{ Effect: 'Allow', Action: 'sts:AssumeRole', Principal: { Service: service } },
            ...(sourceAccountOnly
              ? { Condition: { StringEquals: { 'aws:SourceAccount': this.#ref('AWS', 'account') } } }
              : {}),
          },
        ],
      }),
      tags: one.tags,
    });
    for (const [index, policy] of one.managedPolicies.entries()) {
      this.#put('aws_iam_role_policy_attachment', `${one.id}Managed${index}`, {
        role: this.#ref(one.id, 'name'),
        policy_arn: `arn:${this.#ref('AWS', 'partition')}:iam::aws:policy/${policy}`,
      });
    }
    if (one.statements.length > 0) {
      this.#put('aws_iam_role_policy', one.id, {
        name: one.name,
        role: this.#ref(one.id, 'name'),
        policy: JSON.stringify({
          Version: '2012-10-17',
          Statement: one.statements.map(({ sid, actions, resources, conditions }) => ({
            ...{ Sid: sid, Effect: 'Allow', Action: actions },
            Resource: resources.map((resource) => this.#text(resource)),
            ...(Object.keys(conditions).length > 0 ? { Condition: conditions } : {}),
          })),
        }),
      });
    }
    if (one.instanceProfile !== null) {
      this.#put('aws_iam_instance_profile', one.instanceProfile, {
        ...{ name: one.name, role: this.#ref(one.id, 'name'), tags: one.tags },
      });
    }
  }

  addFile(name: string, content: Template): void {
    this.#put('local_file', name.replace(/[^A-Za-z0-9]+/g, '_'), {
      content: this.#text(content),
      filename: `\${path.module}/${name}`,
      file_permission: '0600',
    });
  }
}
