/**
 * What decides about packets, read out of a CloudFormation template alone: no word of the plan is taken. Of each
 * endpoint the logical id is its name.
 */
import type {
  EndpointView,
  GroupView,
  InterfaceView,
  NetworkView,
  RouteTarget,
  RuleView,
  SubnetView,
} from '@starling/model/topology/reachability';
import type { CloudFormationTemplate } from '../../src/cloudformation/synthesize.ts';

type Json = Readonly<Record<string, unknown>>;
type Made = readonly [id: string, properties: Json];

export function networkOfTemplate(template: CloudFormationTemplate): NetworkView {
  const all = (type: string): Made[] =>
    Object.entries(template.Resources)
      .filter(([, one]) => one.Type === type)
      .map(([id, one]) => [id, (one.Properties ?? {}) as Json]);
  const publicInterfaces = new Set(
    all('AWS::EC2::EIPAssociation').map(([, one]) => refOf(one.NetworkInterfaceId)),
  );
  const interfaces = new Map(
    all('AWS::EC2::NetworkInterface').map(([id, one]): [string, InterfaceView] => [
      id,
      {
        subnets: [refOf(one.SubnetId)],
        privateIp: String(one.PrivateIpAddress),
        groups: refsOf(one.GroupSet),
        isPublic: publicInterfaces.has(id),
        sourceDestCheck: one.SourceDestCheck !== false,
      },
    ]),
  );
  /** By instance, in the order of their device indices. */
  const attached = new Map<string, [index: number, id: string][]>();
  const attach = (instance: string, index: unknown, id: string) =>
    attached.set(instance, [...(attached.get(instance) ?? []), [Number(index), id]]);
  for (const [id, one] of all('AWS::EC2::Instance')) {
    for (const each of listOf(one.NetworkInterfaces))
      attach(id, each.DeviceIndex, refOf(each.NetworkInterfaceId));
  }
  for (const [, one] of all('AWS::EC2::NetworkInterfaceAttachment')) {
    attach(refOf(one.InstanceId), one.DeviceIndex, refOf(one.NetworkInterfaceId));
  }
  for (const list of attached.values()) list.sort(([a], [b]) => a - b);

  const endpoints: EndpointView[] = [...attached].map(([id, list]) => ({
    id,
    interfaces: list.flatMap(([, name]) => interfaces.get(name) ?? []),
  }));
  const somewhere = (id: string, subnets: unknown, groups: unknown, isPublic: boolean) =>
    endpoints.push({
      id,
      interfaces: [
        {
          subnets: refsOf(subnets),
          privateIp: null,
          groups: refsOf(groups),
          isPublic,
          sourceDestCheck: true,
        },
      ],
    });
  for (const [id, one] of all('AWS::AutoScaling::AutoScalingGroup')) {
    const name = refOf((one.LaunchTemplate as Json).LaunchTemplateId);
    const data = template.Resources[name]?.Properties?.LaunchTemplateData as Json;
    const [first] = listOf(data.NetworkInterfaces);
    somewhere(id, one.VPCZoneIdentifier, first?.Groups, first?.AssociatePublicIpAddress === true);
  }
  for (const [id, one] of all('AWS::ECS::Service')) {
    const network = (one.NetworkConfiguration as { AwsvpcConfiguration: Json }).AwsvpcConfiguration;
    somewhere(id, network.Subnets, network.SecurityGroups, network.AssignPublicIp === 'ENABLED');
  }
  for (const [id, one] of all('AWS::ElasticLoadBalancingV2::LoadBalancer')) {
    somewhere(id, one.Subnets, one.SecurityGroups, one.Scheme === 'internet-facing');
  }
  const subnetsOf = (group: unknown) => template.Resources[refOf(group)]?.Properties?.SubnetIds;
  for (const [id, one] of all('AWS::RDS::DBInstance')) {
    if (one.DBClusterIdentifier !== undefined) continue;
    somewhere(id, subnetsOf(one.DBSubnetGroupName), one.VPCSecurityGroups, one.PubliclyAccessible === true);
  }
  for (const [id, one] of all('AWS::RDS::DBCluster')) {
    somewhere(id, subnetsOf(one.DBSubnetGroupName), one.VpcSecurityGroupIds, false);
  }
  for (const [id, one] of all('AWS::ElastiCache::ReplicationGroup')) {
    somewhere(id, subnetsOf(one.CacheSubnetGroupName), one.SecurityGroupIds, false);
  }
  for (const [id] of all('AWS::EFS::FileSystem')) {
    const targets = all('AWS::EFS::MountTarget').filter(([, one]) => refOf(one.FileSystemId) === id);
    somewhere(
      id,
      targets.map(([, one]) => one.SubnetId),
      targets[0]?.[1].SecurityGroups,
      false,
    );
  }

  return {
    vpcCidr: String(all('AWS::EC2::VPC')[0]?.[1].CidrBlock),
    subnets: all('AWS::EC2::Subnet').map(([id, one]): SubnetView => {
      const acl = all('AWS::EC2::SubnetNetworkAclAssociation').find(
        ([, each]) => refOf(each.SubnetId) === id,
      );
      const table = all('AWS::EC2::SubnetRouteTableAssociation').find(
        ([, each]) => refOf(each.SubnetId) === id,
      );
      return {
        id,
        cidr: String(one.CidrBlock),
        acl:
          acl === undefined
            ? null
            : all('AWS::EC2::NetworkAclEntry')
                .filter(([, entry]) => refOf(entry.NetworkAclId) === refOf(acl[1].NetworkAclId))
                .map(([, entry]) => {
                  const range = entry.PortRange as { From: number; To: number } | undefined;
                  return {
                    ruleNumber: Number(entry.RuleNumber),
                    direction: entry.Egress === true ? ('egress' as const) : ('ingress' as const),
                    action: entry.RuleAction as 'allow' | 'deny',
                    protocol: ({ '-1': 'all', '6': 'tcp', '17': 'udp' } as const)[
                      String(entry.Protocol) as '6'
                    ],
                    fromPort: range?.From ?? 0,
                    toPort: range?.To ?? 0,
                    cidr: String(entry.CidrBlock),
                  };
                }),
        routes: all('AWS::EC2::Route')
          .filter(
            ([, route]) => table !== undefined && refOf(route.RouteTableId) === refOf(table[1].RouteTableId),
          )
          .map(([, route]) => ({
            destination: String(route.DestinationCidrBlock),
            target: targetOf(route, template, attached),
          })),
      };
    }),
    groups: all('AWS::EC2::SecurityGroup').map(([id, one]): GroupView => {
      const apart = (type: string, peer: string) =>
        all(type)
          .filter(([, rule]) => refOf(rule.GroupId) === id)
          .map(([, rule]) => ruleOf(rule, peer));
      return {
        id,
        ingress: [
          ...listOf(one.SecurityGroupIngress).map((rule) => ruleOf(rule, 'SourceSecurityGroupId')),
          ...apart('AWS::EC2::SecurityGroupIngress', 'SourceSecurityGroupId'),
        ],
        egress: [
          ...listOf(one.SecurityGroupEgress).map((rule) => ruleOf(rule, 'DestinationSecurityGroupId')),
          ...apart('AWS::EC2::SecurityGroupEgress', 'DestinationSecurityGroupId'),
        ],
      };
    }),
    endpoints,
  };
}

function ruleOf(rule: Json, groupKey: string): RuleView {
  const protocol = String(rule.IpProtocol);
  const list = rule.SourcePrefixListId ?? rule.DestinationPrefixListId;
  return {
    protocol: protocol === '-1' ? 'all' : (protocol as 'tcp'),
    fromPort: Number(rule.FromPort ?? 0),
    toPort: Number(rule.ToPort ?? 0),
    peer:
      rule.CidrIp !== undefined
        ? { cidr: String(rule.CidrIp) }
        : list !== undefined
          ? { prefixList: String(list), name: '' }
          : { securityGroup: refOf(rule[groupKey]) },
  };
}

function targetOf(
  route: Json,
  template: CloudFormationTemplate,
  attached: ReadonlyMap<string, readonly (readonly [number, string])[]>,
): RouteTarget {
  if (route.GatewayId !== undefined) return { kind: 'internet-gateway' };
  if (route.NatGatewayId !== undefined) {
    return {
      kind: 'nat-gateway',
      subnet: refOf(template.Resources[refOf(route.NatGatewayId)]?.Properties?.SubnetId),
    };
  }
  const name = refOf(route.NetworkInterfaceId);
  for (const [endpoint, list] of attached) {
    const found = list.find(([, id]) => id === name);
    if (found !== undefined) return { kind: 'interface', endpoint, deviceIndex: found[0] };
  }
  throw new Error(`a route leads to ${name}, which no instance has`);
}

/** `{ Ref }` or `{ Fn::GetAtt: [id, ...] }`. */
function refOf(value: unknown): string {
  const json = value as { Ref?: string; 'Fn::GetAtt'?: readonly string[] } | undefined;
  const id = json?.Ref ?? json?.['Fn::GetAtt']?.[0];
  if (id === undefined) throw new Error(`${JSON.stringify(value)} is no reference`);
  return id;
}

function refsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.map(refOf) : [];
}

function listOf(value: unknown): readonly Json[] {
  return Array.isArray(value) ? value : [];
}
