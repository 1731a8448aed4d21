/**
 * The network as Terraform's state has it after an apply, read from `terraform show -json` alone: ids are followed as
 * AWS would follow them, and nothing is taken from the plan.
 */
import type { AclEntry } from '@starling/model/topology/plan';
import type {
  EndpointView,
  GroupView,
  NetworkView,
  RouteTarget,
  RuleView,
  SubnetView,
} from '@starling/model/topology/reachability';

interface StateResource {
  readonly type: string;
  readonly name: string;
  readonly values: Readonly<Record<string, unknown>>;
}
export interface ShownState {
  readonly values: { readonly root_module: { readonly resources: readonly StateResource[] } };
}

interface RouteValues {
  readonly route_table_id: string;
  readonly destination_cidr_block: string;
  readonly gateway_id: string;
  readonly network_interface_id: string;
}

interface RuleValues {
  readonly security_group_id: string;
  readonly ip_protocol: string;
  readonly from_port: number;
  readonly to_port: number;
  readonly cidr_ipv4: string;
}

export function viewOfState(state: ShownState): NetworkView {
  const all = state.values.root_module.resources;
  const of = <T>(type: string) =>
    all.filter((one) => one.type === type).map(({ name, values }) => ({ name, values: values as T }));
  const attached = new Map<string, { instance: string; deviceIndex: number }>();
  const instances = of<{ id: string; primary_network_interface: { network_interface_id: string }[] }>(
    'aws_instance',
  );
  for (const { name, values } of instances) {
    for (const { network_interface_id } of values.primary_network_interface as {
      network_interface_id: string;
    }[]) {
      attached.set(network_interface_id, { instance: name, deviceIndex: 0 });
    }
  }
  type Attachment = {
    instance_id: string;
    network_interface_id: string;
    device_index: number;
  };
  for (const { values } of of<Attachment>('aws_network_interface_attachment')) {
    const { instance_id, network_interface_id, device_index } = values;
    const instance = instances.find((one) => one.values.id === instance_id);
    attached.set(network_interface_id, { instance: instance?.name ?? '', deviceIndex: device_index });
  }
  const publicInterfaces = new Set(
    of<{ network_interface: string }>('aws_eip').map(({ values }) => values.network_interface),
  );
  const endpoints = new Map<string, EndpointView['interfaces'][number][]>();
  type InterfaceValues = {
    id: string;
    subnet_id: string;
    private_ips: string[];
    security_groups: string[];
    source_dest_check: boolean;
  };
  for (const { values: one } of of<InterfaceValues>('aws_network_interface')) {
    const place = attached.get(one.id);
    if (place === undefined) continue;
    const interfaces = endpoints.get(place.instance) ?? [];
    interfaces[place.deviceIndex] = {
      subnets: [one.subnet_id],
      privateIp: one.private_ips[0] ?? null,
      groups: one.security_groups,
      isPublic: publicInterfaces.has(one.id),
      sourceDestCheck: one.source_dest_check,
    };
    endpoints.set(place.instance, interfaces);
  }
  const rulesOf = (type: string, group: string): RuleView[] =>
    of<RuleValues>(type).flatMap(({ values: rule }) => {
      if (rule.security_group_id !== group) return [];
      const isAll = rule.ip_protocol === '-1';
      return [
        {
          protocol: isAll ? 'all' : (rule.ip_protocol as RuleView['protocol']),
          fromPort: isAll ? 0 : rule.from_port,
          toPort: isAll ? 0 : rule.to_port,
          peer: { cidr: rule.cidr_ipv4 },
        },
      ];
    });
  const groups: GroupView[] = of<{ id: string }>('aws_security_group').map(({ values: { id } }) => {
    return {
      id,
      ingress: rulesOf('aws_vpc_security_group_ingress_rule', id),
      egress: rulesOf('aws_vpc_security_group_egress_rule', id),
    };
  });
  const gateways = new Set(of<{ id: string }>('aws_internet_gateway').map(({ values }) => values.id));
  const subnets: SubnetView[] = of<{ id: string; cidr_block: string }>('aws_subnet').map(
    ({ values: subnet }) => {
      const association = of<{ subnet_id: string; route_table_id: string }>(
        'aws_route_table_association',
      ).find((one) => one.values.subnet_id === subnet.id);
      const table = association?.values.route_table_id;
      const routes = of<RouteValues>('aws_route').flatMap(({ values: route }) => {
        if (route.route_table_id !== table) return [];
        const place = attached.get(route.network_interface_id);
        const target: RouteTarget | undefined = gateways.has(route.gateway_id)
          ? { kind: 'internet-gateway' }
          : place === undefined
            ? undefined
            : { kind: 'interface', endpoint: place.instance, deviceIndex: place.deviceIndex };
        return target === undefined ? [] : [{ destination: route.destination_cidr_block, target }];
      });
      return {
        id: subnet.id,
        cidr: subnet.cidr_block,
        acl: null as readonly Omit<AclEntry, 'id'>[] | null,
        routes,
      };
    },
  );
  return {
    vpcCidr: of<{ cidr_block: string }>('aws_vpc')[0]?.values.cidr_block ?? '',
    subnets,
    groups,
    endpoints: [...endpoints].map(([id, interfaces]) => ({ id, interfaces })),
  };
}
