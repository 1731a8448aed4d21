/**
 * What CloudFormation calls the attributes of a plan: `Ref`, or an attribute for `Fn::GetAtt`.
 * Source: the return values of each resource type in the CloudFormation template reference.
 */
import type { Attribute, Kind, Resource } from '@starling/model/topology/plan';
import { Aws, Fn, Token } from 'aws-cdk-lib';

type Way =
  | 'Ref'
  | { readonly attribute: string }
  | { readonly join: readonly (string | { readonly attribute: string })[] };
const at = (attribute: string): Way => ({ attribute });
/** An ARN that the resource type does not return. */
const arn = (service: string, rest: string): Way => ({
  join: [
    'arn:',
    Aws.PARTITION,
    `:${service}:`,
    Aws.REGION,
    ':',
    Aws.ACCOUNT_ID,
    `:${rest}`,
    { attribute: '' },
  ],
});

const ways: Partial<Record<Kind, Partial<Record<Attribute, Way>>>> = {
  vpc: { id: 'Ref' },
  'internet-gateway': { id: 'Ref' },
  subnet: { id: 'Ref' },
  'route-table': { id: 'Ref' },
  'nat-gateway': { id: 'Ref' },
  address: { id: at('AllocationId'), publicIp: 'Ref' },
  interface: { id: 'Ref', privateIp: at('PrimaryPrivateIpAddress') },
  'security-group': { id: at('GroupId') },
  'network-acl': { id: 'Ref' },
  'key-pair': { name: 'Ref' },
  instance: {
    id: 'Ref',
    publicIp: at('PublicIp'),
    privateIp: at('PrivateIp'),
    dnsName: at('PublicDnsName'),
    arn: arn('ec2', 'instance/'),
  },
  'launch-template': { id: 'Ref' },
  'scaling-group': {
    name: 'Ref',
    arn: {
      join: [
        'arn:',
        Aws.PARTITION,
        ':autoscaling:',
        Aws.REGION,
        ':',
        Aws.ACCOUNT_ID,
        ':autoScalingGroup:*:autoScalingGroupName/',
        { attribute: '' },
      ],
    },
  },
  repository: { name: 'Ref', arn: at('Arn'), uri: at('RepositoryUri') },
  'container-cluster': { name: 'Ref', arn: at('Arn') },
  'task-definition': { arn: 'Ref' },
  'container-service': { arn: 'Ref', name: at('Name') },
  'file-system': { id: 'Ref', arn: at('Arn') },
  'load-balancer': {
    arn: 'Ref',
    dnsName: at('DNSName'),
    hostedZoneId: at('CanonicalHostedZoneID'),
    fullName: at('LoadBalancerFullName'),
  },
  'target-group': { arn: 'Ref', fullName: at('TargetGroupFullName') },
  listener: { arn: 'Ref' },
  certificate: { arn: 'Ref' },
  zone: { id: 'Ref', nameServers: { join: [] } },
  'cache-policy': { id: 'Ref' },
  distribution: {
    id: 'Ref',
    domainName: at('DomainName'),
    arn: {
      join: ['arn:', Aws.PARTITION, ':cloudfront::', Aws.ACCOUNT_ID, ':distribution/', { attribute: '' }],
    },
  },
  'web-acl': { arn: at('Arn'), id: at('Id') },
  'subnet-group': { name: 'Ref' },
  'parameter-group': { name: 'Ref' },
  database: {
    id: 'Ref',
    name: 'Ref',
    endpoint: at('Endpoint.Address'),
    port: at('Endpoint.Port'),
    secretArn: at('MasterUserSecret.SecretArn'),
    arn: at('DBInstanceArn'),
  },
  'aurora-cluster': {
    id: 'Ref',
    name: 'Ref',
    endpoint: at('Endpoint.Address'),
    readerEndpoint: at('ReadEndpoint.Address'),
    port: at('Endpoint.Port'),
    secretArn: at('MasterUserSecret.SecretArn'),
    arn: at('DBClusterArn'),
  },
  cache: {
    id: 'Ref',
    name: 'Ref',
    endpoint: at('PrimaryEndPoint.Address'),
    port: at('PrimaryEndPoint.Port'),
    readerEndpoint: at('ReaderEndPoint.Address'),
  },
  table: { name: 'Ref', arn: at('Arn') },
  bucket: { name: 'Ref', arn: at('Arn'), domainName: at('RegionalDomainName') },
  secret: { arn: 'Ref' },
  role: { arn: at('Arn'), name: 'Ref' },
  'oidc-provider': { arn: at('Arn') },
  'log-group': { name: 'Ref', arn: at('Arn') },
  topic: { arn: 'Ref', name: at('TopicName') },
  alarm: { arn: at('Arn'), name: 'Ref' },
  function: { arn: at('Arn'), name: 'Ref' },
  'http-api': { id: 'Ref', endpoint: at('ApiEndpoint') },
  'media-live-channel': { arn: at('Arn'), id: 'Ref' },
};

/** A token for an attribute of a resource in the same stack. */
export function referenceOf({ id, kind }: Resource, attribute: Attribute): string {
  const way = ways[kind]?.[attribute];
  if (way === undefined) throw new Error(`CloudFormation returns no ${attribute} of a ${kind} (${id})`);
  if (kind === 'zone' && attribute === 'nameServers')
    return Fn.join(',', Token.asList(Fn.getAtt(id, 'NameServers')));
  if (way === 'Ref') return Fn.ref(id);
  if ('attribute' in way) return Token.asString(Fn.getAtt(id, way.attribute));
  return Fn.join(
    '',
    way.join.map((part) => (typeof part === 'string' ? part : Fn.ref(id))),
  );
}
