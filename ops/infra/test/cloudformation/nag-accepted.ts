/** Findings of cdk-nag's AwsSolutions pack that are as we want them, each with its reason. None is accepted unseen. */
export interface NagAcceptance {
  /** Begins the finding's id: `AwsSolutions-IAM5`. */
  readonly rule: string;
  /** Logical ids; a `*` at the end stands for the rest. */
  readonly resources: readonly string[];
  readonly reason: string;
}

export const accepted: readonly NagAcceptance[] = [
  {
    rule: 'AwsSolutions-VPC3',
    resources: ['PublicAcl*', 'AppAcl*', 'DataAcl*'],
    reason:
      'The rule warns of network ACLs as such. The review asks for them; replies are let back, which our audit checks.',
  },
  {
    rule: 'AwsSolutions-VPC7',
    resources: ['Vpc'],
    reason:
      'Flow logs come with the gamma stage, as the review has it; classic-iptv follows its seed. flowLogs: true adds them.',
  },
  {
    rule: 'AwsSolutions-EC23',
    resources: ['BalancerGroup', 'AlbGroup', 'AppGroup', 'NlbGroup'],
    reason:
      'Viewers come to 80 and 443 from everywhere, and encoders to 1935 and 1936 unless ingestFrom says from where.',
  },
  {
    rule: 'AwsSolutions-EC28',
    resources: ['BastionA', 'Balancer', 'Frontend*', 'Backend*', 'App', 'Media'],
    reason:
      'Detailed monitoring is $2.10 a machine; the review has it from gamma on, and nothing scales by it before.',
  },
  {
    rule: 'AwsSolutions-IAM5',
    resources: ['FlowLogRole', 'HostRole', 'ExecutionRole', 'TaskRole', 'FunctionRole', 'ScheduleRole'],
    reason:
      'Wildcards within one log group, one prefix of one bucket, or instances that carry the tag of the deployment; calls that take no resource (DescribeAddresses, ecr:GetAuthorizationToken) need *.',
  },
  {
    rule: 'AwsSolutions-RDS3',
    resources: ['Database'],
    reason: 'Multi-AZ doubles the price of the database; the review has it in production.',
  },
  {
    rule: 'AwsSolutions-RDS6',
    resources: ['Aurora'],
    reason:
      'The coordinator logs in with a password that changes every 30 days; IAM tokens last 15 minutes, less than its pool.',
  },
  {
    rule: 'AwsSolutions-RDS10',
    resources: ['Database'],
    reason: 'Before production a stack is removed as a whole; a last snapshot stays.',
  },
  {
    rule: 'AwsSolutions-RDS11',
    resources: ['Database'],
    reason: 'Another port hides nothing from who is in the VPC, and only the hosts are let in.',
  },
  {
    rule: 'AwsSolutions-AEC4',
    resources: ['Cache'],
    reason: 'One node before production; what it holds is true for seconds.',
  },
  {
    rule: 'AwsSolutions-AEC5',
    resources: ['Cache'],
    reason: 'Another port hides nothing from who is in the VPC, and only the hosts are let in.',
  },
  {
    rule: 'AwsSolutions-AEC6',
    resources: ['Cache'],
    reason: 'Before production only one host may reach it, by security group, over TLS.',
  },
  {
    rule: 'AwsSolutions-ELB2',
    resources: ['HttpBalancer', 'IngestBalancer'],
    reason:
      'Access logs come with production; a network load balancer logs TLS connections only, and encoders are in our own log.',
  },
  {
    rule: 'AwsSolutions-S1',
    resources: ['Storage'],
    reason:
      'Who read a recording is logged where there is a bucket for logs: in production and production-containers.',
  },
  {
    rule: 'AwsSolutions-SMG4',
    resources: ['AppSecret', 'WebhookSecret'],
    reason:
      'It is the root of tokens that all hosts derive: a new value needs a rolling restart, which an operator starts. The password of the database does rotate.',
  },
  {
    rule: 'AwsSolutions-ECS2',
    resources: ['Task'],
    reason:
      'Plain variables hold addresses and switches; secrets come from Secrets Manager, which our audit checks.',
  },
  {
    rule: 'AwsSolutions-L1',
    resources: ['StreamEvents'],
    reason: 'The runtime is the newest one that is in long-term support at the date of the plan.',
  },
  {
    rule: 'AwsSolutions-APIG4',
    resources: ['EventsRoute', 'StreamsRoute'],
    reason: 'The function checks the signature of our webhooks itself; an authorizer could not see the body.',
  },
  {
    rule: 'AwsSolutions-CFR1',
    resources: ['Cdn'],
    reason: 'A television network is watched from everywhere unless its operator says otherwise.',
  },
  {
    rule: 'AwsSolutions-CFR3',
    resources: ['Cdn'],
    reason: 'The serverless stage has no bucket for logs; the CDN still reports to CloudWatch.',
  },
];
