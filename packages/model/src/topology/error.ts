/** The coded errors of deployments. One catalogue: `docs/errors.md` is checked against it. */
export const topologyErrorCatalogue = {
  DEPLOY_INVALID: 'The deployment file does not fit its schema.',
  DEPLOY_CIDR: 'An address range of the deployment file is not one, or has bits set below its prefix.',
  DEPLOY_SSH_OPEN: 'SSH would be open to every address, and allowSshFromAnywhere is not set.',
  DEPLOY_NOT_IN_PROFILE: 'A setting is given that the profile has no use for.',
  DEPLOY_KEY: 'A public key of the deployment file is not an Ed25519 key in OpenSSH form.',
  PLAN_DANGLING:
    'A resource refers to another one that the plan does not have, or that is of the wrong kind.',
  PLAN_DUPLICATE: 'Two resources have the same id.',
  PLAN_INSTANCE_TYPE: 'The instance type is not one that the model knows.',
  PLAN_INTERFACE_LIMIT:
    'An instance has more network interfaces, or an interface more addresses, than its type takes.',
  PLAN_ARCHITECTURE: 'The instance type has another processor architecture than the image.',
  PLAN_SUBNET_RANGE:
    "A subnet lies outside the VPC's range, overlaps another one, or has a size that AWS refuses.",
  PLAN_ADDRESS:
    'A private address lies outside its subnet, is one of the five that AWS keeps, or is used twice.',
  PLAN_ZONE: 'A resource and what it is attached to lie in different availability zones.',
  PLAN_ZONE_COUNT: 'A resource needs subnets in at least two availability zones.',
  PLAN_ROUTE:
    'A route table has two routes for one destination, or a route through an interface that drops foreign packets.',
  PLAN_NO_ROUTE_OUT: 'A host has no way out to the internet, which it needs for its packages.',
  PLAN_RULE: 'A security-group or NACL rule has a port range, a protocol or a peer that AWS refuses.',
  PLAN_QUOTA: "The plan has more of something than an account's default quota allows.",
  PLAN_NAME: 'A name is longer than AWS takes, or has characters that it refuses.',
  PLAN_FARGATE_SIZE: 'Fargate has no task of this combination of processor and memory.',
  PLAN_CAPACITY: 'The sizes of a group are not minimum <= desired <= maximum.',
  PLAN_NOBODY_GETS_IN: 'Nobody can administer the hosts: neither operatorAddress nor ssm is set.',
  PLAN_TEMPLATE: 'A text refers to an attribute in a form that does not exist.',
} as const;

export type TopologyErrorCode = keyof typeof topologyErrorCatalogue;

/** An error with a code from {@link topologyErrorCatalogue}. */
export class TopologyError extends Error {
  override readonly name = 'TopologyError';
  readonly code: TopologyErrorCode;

  /** @param sentence where it is, what was found, what is allowed and what to do */
  constructor(code: TopologyErrorCode, sentence: string) {
    super(sentence);
    this.code = code;
  }
}
