/** Network resources, as CloudFormation has them. */
import type { Rule } from '@starling/model/topology/plan';
import { aws_ec2 as ec2 } from 'aws-cdk-lib';
import { tagsOf } from './context.ts';
import type { Translations } from './translations.ts';

/** IP protocol numbers (IANA), as network ACLs want them. */
const PROTOCOL_NUMBERS = { all: -1, tcp: 6, udp: 17 } as const;

export const network: Translations<
  | 'vpc'
  | 'internet-gateway'
  | 'subnet'
  | 'route-table'
  | 'nat-gateway'
  | 'address'
  | 'interface'
  | 'security-group'
  | 'network-acl'
  | 'gateway-endpoint'
  | 'flow-log'
> = {
  vpc: (context, one) => {
    new ec2.CfnVPC(context.stack, one.id, {
      cidrBlock: one.cidr,
      enableDnsHostnames: true,
      enableDnsSupport: true,
      tags: tagsOf(one),
    });
  },
  'internet-gateway': (context, one) => {
    new ec2.CfnInternetGateway(context.stack, one.id, { tags: tagsOf(one) });
    new ec2.CfnVPCGatewayAttachment(context.stack, `${one.id}Attachment`, {
      vpcId: context.id(one.vpc),
      internetGatewayId: context.id(one.id),
    });
  },
  subnet: (context, one) => {
    new ec2.CfnSubnet(context.stack, one.id, {
      vpcId: context.id(one.vpc),
      cidrBlock: one.cidr,
      availabilityZone: one.zone,
      mapPublicIpOnLaunch: one.givesPublicAddresses,
      tags: tagsOf(one),
    });
  },
  'route-table': (context, one) => {
    new ec2.CfnRouteTable(context.stack, one.id, { vpcId: context.id(one.vpc), tags: tagsOf(one) });
    for (const subnet of one.subnets) {
      new ec2.CfnSubnetRouteTableAssociation(context.stack, `${subnet}Routing`, {
        subnetId: context.id(subnet),
        routeTableId: context.id(one.id),
      });
    }
    for (const route of one.routes) {
      const { kind, id } = route.target;
      const made = new ec2.CfnRoute(context.stack, route.id, {
        routeTableId: context.id(one.id),
        destinationCidrBlock: route.destination,
        ...(kind === 'internet-gateway' ? { gatewayId: context.id(id) } : {}),
        ...(kind === 'interface' ? { networkInterfaceId: context.id(id) } : {}),
        ...(kind === 'nat-gateway' ? { natGatewayId: context.id(id) } : {}),
      });
      // A gateway leads nowhere until it is attached; nothing in the route itself says so.
      if (kind === 'internet-gateway') context.dependsOn(made, `${id}Attachment`);
    }
  },
  'nat-gateway': (context, one) => {
    new ec2.CfnNatGateway(context.stack, one.id, {
      subnetId: context.id(one.subnet),
      allocationId: context.id(one.address),
      tags: tagsOf(one),
    });
  },
  address: (context, one) => {
    new ec2.CfnEIP(context.stack, one.id, { domain: 'vpc', tags: tagsOf(one) });
    if (one.interface !== null) {
      const association = new ec2.CfnEIPAssociation(context.stack, `${one.id}Association`, {
        allocationId: context.id(one.id),
        networkInterfaceId: context.id(one.interface),
      });
      for (const gateway of context.idsOf('internet-gateway')) {
        context.dependsOn(association, `${gateway}Attachment`);
      }
    }
  },
  interface: (context, one) => {
    new ec2.CfnNetworkInterface(context.stack, one.id, {
      subnetId: context.id(one.subnet),
      privateIpAddress: one.privateIp,
      groupSet: context.ids(one.securityGroups),
      sourceDestCheck: one.sourceDestCheck,
      description: one.purpose,
      tags: tagsOf(one),
    });
    // The first one is part of the instance: it has to be there before it starts.
    if (one.deviceIndex > 0) {
      new ec2.CfnNetworkInterfaceAttachment(context.stack, `${one.id}Attachment`, {
        instanceId: context.id(one.instance),
        networkInterfaceId: context.id(one.id),
        deviceIndex: String(one.deviceIndex),
        deleteOnTermination: false,
      });
    }
  },
  'security-group': (context, one) => {
    const isByAddress = (rule: Rule) => !('securityGroup' in rule.peer);
    const rule = ({ protocol, fromPort, toPort, peer, description }: Rule) => ({
      ipProtocol: protocol === 'all' ? '-1' : protocol,
      ...(protocol === 'all' ? {} : { fromPort, toPort }),
      ...('cidr' in peer ? { cidrIp: peer.cidr } : {}),
      description,
    });
    new ec2.CfnSecurityGroup(context.stack, one.id, {
      groupName: one.name,
      groupDescription: one.description,
      vpcId: context.id(one.vpc),
      securityGroupIngress: one.ingress.filter(isByAddress).map((each) => ({
        ...rule(each),
        ...('prefixList' in each.peer ? { sourcePrefixListId: each.peer.prefixList } : {}),
      })),
      securityGroupEgress: one.egress.filter(isByAddress).map((each) => ({
        ...rule(each),
        ...('prefixList' in each.peer ? { destinationPrefixListId: each.peer.prefixList } : {}),
      })),
      tags: tagsOf(one),
    });
    // On their own, since two groups may name each other.
    for (const each of one.ingress) {
      if (!('securityGroup' in each.peer)) continue;
      new ec2.CfnSecurityGroupIngress(context.stack, each.id, {
        ...rule(each),
        groupId: context.id(one.id),
        sourceSecurityGroupId: context.id(each.peer.securityGroup),
      });
    }
    for (const each of one.egress) {
      if (!('securityGroup' in each.peer)) continue;
      new ec2.CfnSecurityGroupEgress(context.stack, each.id, {
        ...rule(each),
        groupId: context.id(one.id),
        destinationSecurityGroupId: context.id(each.peer.securityGroup),
      });
    }
  },
  'network-acl': (context, one) => {
    new ec2.CfnNetworkAcl(context.stack, one.id, { vpcId: context.id(one.vpc), tags: tagsOf(one) });
    for (const subnet of one.subnets) {
      new ec2.CfnSubnetNetworkAclAssociation(context.stack, `${subnet}Acl`, {
        subnetId: context.id(subnet),
        networkAclId: context.id(one.id),
      });
    }
    for (const entry of one.entries) {
      new ec2.CfnNetworkAclEntry(context.stack, entry.id, {
        networkAclId: context.id(one.id),
        ruleNumber: entry.ruleNumber,
        egress: entry.direction === 'egress',
        ruleAction: entry.action,
        protocol: PROTOCOL_NUMBERS[entry.protocol],
        cidrBlock: entry.cidr,
        ...(entry.protocol === 'all' ? {} : { portRange: { from: entry.fromPort, to: entry.toPort } }),
      });
    }
  },
  'gateway-endpoint': (context, one) => {
    new ec2.CfnVPCEndpoint(context.stack, one.id, {
      vpcEndpointType: 'Gateway',
      vpcId: context.id(one.vpc),
      serviceName: `com.amazonaws.${context.plan.deployment.region}.${one.service}`,
      routeTableIds: context.ids(one.routeTables),
    });
  },
  'flow-log': (context, one) => {
    new ec2.CfnFlowLog(context.stack, one.id, {
      resourceType: 'VPC',
      resourceId: context.id(one.vpc),
      trafficType: 'ALL',
      logDestinationType: 'cloud-watch-logs',
      logGroupName: context.attribute(one.logGroup, 'name'),
      deliverLogsPermissionArn: context.arn(one.role),
      tags: tagsOf(one),
    });
  },
};
