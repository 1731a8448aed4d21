/**
 * What a CloudFormation template has to keep, looked at as AWS would, without the plan that it came from. The
 * last rule holds it against what the plan gives. So a template that was changed by hand, or an emitter that forgot
 * something, is found.
 */
import type { CloudFormationTemplate } from '../cloudformation/synthesize.ts';
import type { Finding, Rule } from './finding.ts';

type Properties = Readonly<Record<string, unknown>>;
interface TypeRule extends Rule {
  readonly type: string;
  /** What is wrong with a resource of the type. */
  readonly problem: (
    properties: Properties,
    template: CloudFormationTemplate,
    id: string,
  ) => string | undefined;
}

const at = (value: unknown, ...path: readonly (string | number)[]): unknown =>
  path.reduce<unknown>((inner, key) => (inner as Record<string | number, unknown> | undefined)?.[key], value);
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

const typeRules: readonly TypeRule[] = [
  {
    id: 'TEMPLATE_DATABASE',
    severity: 'critical',
    title: 'A database of the template is public, unencrypted, or its password is in the template',
    controls: ['FSBP RDS.2', 'FSBP RDS.3'],
    remedy: 'PubliclyAccessible false, StorageEncrypted true, ManageMasterUserPassword true.',
    type: 'AWS::RDS::DBInstance',
    problem: (properties) => {
      if (properties.PubliclyAccessible !== false) return 'PubliclyAccessible is not false';
      if (properties.DBClusterIdentifier !== undefined) return undefined;
      if (properties.StorageEncrypted !== true) return 'StorageEncrypted is not true';
      return properties.MasterUserPassword === undefined ? undefined : 'has MasterUserPassword';
    },
  },
  {
    id: 'TEMPLATE_METADATA',
    severity: 'high',
    title: 'A machine of the template answers the old metadata protocol',
    controls: ['FSBP EC2.8'],
    remedy: 'MetadataOptions.HttpTokens required.',
    type: 'AWS::EC2::Instance',
    problem: (properties) =>
      at(properties, 'MetadataOptions', 'HttpTokens') === 'required'
        ? undefined
        : 'HttpTokens is not required',
  },
  {
    id: 'TEMPLATE_METADATA_GROUP',
    severity: 'high',
    title: 'A launch template answers the old metadata protocol, or its disk is not encrypted',
    controls: ['FSBP AutoScaling.3', 'FSBP EC2.7'],
    remedy: 'MetadataOptions.HttpTokens required; Ebs.Encrypted true.',
    type: 'AWS::EC2::LaunchTemplate',
    problem: (properties) => {
      const data = at(properties, 'LaunchTemplateData');
      if (at(data, 'MetadataOptions', 'HttpTokens') !== 'required') return 'HttpTokens is not required';
      return list(at(data, 'BlockDeviceMappings')).every((one) => at(one, 'Ebs', 'Encrypted') === true)
        ? undefined
        : 'has an unencrypted volume';
    },
  },
  {
    id: 'TEMPLATE_BUCKET',
    severity: 'high',
    title: 'A bucket of the template may be public, is not encrypted, or takes requests without TLS',
    controls: ['FSBP S3.5', 'FSBP S3.8', 'CIS 2.1.1', 'CIS 2.1.4'],
    remedy: 'Block all public access, encrypt, and a policy that denies aws:SecureTransport false.',
    type: 'AWS::S3::Bucket',
    problem: (properties, template, id) => {
      const block = at(properties, 'PublicAccessBlockConfiguration');
      const isClosed = [
        'BlockPublicAcls',
        'BlockPublicPolicy',
        'IgnorePublicAcls',
        'RestrictPublicBuckets',
      ].every((name) => at(block, name) === true);
      if (!isClosed) return 'does not block public access';
      if (at(properties, 'BucketEncryption') === undefined) return 'is not encrypted';
      const policies = Object.values(template.Resources).filter(
        ({ Type, Properties }) => Type === 'AWS::S3::BucketPolicy' && at(Properties, 'Bucket', 'Ref') === id,
      );
      const deniesPlain = policies.some(({ Properties }) =>
        list(at(Properties, 'PolicyDocument', 'Statement')).some(
          (one) =>
            at(one, 'Effect') === 'Deny' && at(one, 'Condition', 'Bool', 'aws:SecureTransport') === 'false',
        ),
      );
      return deniesPlain ? undefined : 'takes requests without TLS';
    },
  },
  {
    id: 'TEMPLATE_GROUP',
    severity: 'critical',
    title: 'A security group of the template is open to everybody beyond the ports of the service',
    controls: ['FSBP EC2.18', 'FSBP EC2.13'],
    remedy: 'Only 80, 443, 1935 and 1936 may be open to 0.0.0.0/0.',
    type: 'AWS::EC2::SecurityGroup',
    problem: (properties) => {
      const open = list(properties.SecurityGroupIngress).find(
        (rule) =>
          ['0.0.0.0/0', '::/0'].includes(String(at(rule, 'CidrIp') ?? at(rule, 'CidrIpv6'))) &&
          !(
            at(rule, 'FromPort') === at(rule, 'ToPort') &&
            [80, 443, 1935, 1936].includes(Number(at(rule, 'FromPort')))
          ),
      );
      return open === undefined ? undefined : `is open from port ${at(open, 'FromPort') ?? 'any'}`;
    },
  },
  {
    id: 'TEMPLATE_LISTENER',
    severity: 'high',
    title: 'A listener of the template serves plain HTTP or old TLS',
    controls: ['FSBP ELB.1', 'FSBP ELB.17'],
    remedy: 'Redirect HTTP; SslPolicy of TLS 1.2 and 1.3.',
    type: 'AWS::ElasticLoadBalancingV2::Listener',
    problem: (properties) => {
      const action = at(properties, 'DefaultActions', 0, 'Type');
      if (properties.Protocol === 'HTTP') return action === 'redirect' ? undefined : 'forwards plain HTTP';
      const needsPolicy = properties.Protocol === 'HTTPS' || properties.Protocol === 'TLS';
      return needsPolicy && !/TLS13-1-[23]/.test(String(properties.SslPolicy))
        ? `has the policy ${properties.SslPolicy}`
        : undefined;
    },
  },
  {
    id: 'TEMPLATE_SECRET',
    severity: 'critical',
    title: 'A secret stands in the template',
    controls: ['FSBP SecretsManager.1'],
    remedy: 'Let Secrets Manager make it (GenerateSecretString).',
    type: 'AWS::SecretsManager::Secret',
    problem: (properties) => (properties.SecretString === undefined ? undefined : 'has SecretString'),
  },
  {
    id: 'TEMPLATE_TASK',
    severity: 'high',
    title: 'A container of the template is not hardened, or its image may change',
    controls: ['FSBP ECS.4', 'FSBP ECS.5'],
    remedy: 'ReadonlyRootFilesystem, a user, dropped capabilities, an image by digest.',
    type: 'AWS::ECS::TaskDefinition',
    problem: (properties) => {
      for (const one of list(properties.ContainerDefinitions)) {
        if (at(one, 'ReadonlyRootFilesystem') !== true) return `${at(one, 'Name')} may write to its root`;
        if (at(one, 'User') === undefined) return `${at(one, 'Name')} is root`;
        if (!list(at(one, 'LinuxParameters', 'Capabilities', 'Drop')).includes('ALL')) {
          return `${at(one, 'Name')} keeps capabilities`;
        }
        if (!JSON.stringify(at(one, 'Image')).includes('@'))
          return `${at(one, 'Name')} is not pinned by digest`;
      }
      return undefined;
    },
  },
];

const MISSING: Rule = {
  id: 'TEMPLATE_INCOMPLETE',
  severity: 'high',
  title: 'The template lacks what the plan says is deployed',
  controls: [],
  remedy: 'Synthesise it again: starling infra synth --emit cloudformation.',
};

export const templateRules: readonly Rule[] = [...typeRules, MISSING];

/**
 * What of a template breaks which rule.
 * @param wanted the template as it is synthesised from the plan
 */
export function auditTemplate(
  template: CloudFormationTemplate,
  wanted: CloudFormationTemplate,
): Omit<Finding, 'accepted'>[] {
  const findings: Omit<Finding, 'accepted'>[] = [];
  for (const [id, { Type, Properties }] of Object.entries(template.Resources)) {
    for (const rule of typeRules) {
      if (rule.type !== Type) continue;
      const message = rule.problem(Properties ?? {}, template, id);
      if (message !== undefined) findings.push({ rule, resource: id, message });
    }
  }
  for (const [id, { Type }] of Object.entries(wanted.Resources)) {
    if (template.Resources[id]?.Type !== Type) {
      findings.push({ rule: MISSING, resource: id, message: `there is no ${Type} of that name` });
    }
  }
  return findings;
}
