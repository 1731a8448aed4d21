/**
 * What the StreamrP2P review asks for, item by item, and what of ours keeps it: rules of the audit, kinds of resource in
 * the plan, and the test that proves it. `docs/security-review.md` is made of it.
 */
import type { Kind } from '@starling/model/topology/plan';
import { planRules } from './plan-rules.ts';
import { runningRules } from './running-rules.ts';
import { templateRules } from './template-rules.ts';

export interface ReviewItem {
  readonly item: string;
  readonly part:
    | 'Recommendations'
    | 'Security hardening checklist'
    | 'Cost optimization checklist'
    | 'Strengths to keep';
  readonly rules: readonly string[];
  readonly resources: readonly Kind[];
  /** Path of a test from the root of the repository. */
  readonly test: string;
  /** What the program itself does for it, or a limit. */
  readonly note: string;
}

const CLOUDFORMATION = 'ops/infra/test/cloudformation/cloudformation.test.ts';
const AUDIT = 'ops/infra/test/audit/audit.test.ts';
const COST = 'ops/infra/test/cost/cost.test.ts';
const REACHABILITY = 'packages/model/src/topology/reachability.test.ts';

export const reviewItems: readonly ReviewItem[] = [
  {
    part: 'Strengths to keep',
    item: 'VPC isolation, security groups of least privilege, database in private subnets',
    rules: ['PORT_OPEN', 'DATA_PORT_BROAD', 'DATA_SUBNET_PUBLIC', 'DATABASE_PUBLIC'],
    resources: ['vpc', 'subnet', 'security-group', 'database'],
    test: REACHABILITY,
    note: "The deployment that the review praises had them in public subnets, reachable from the whole VPC; ours' have no way out.",
  },
  {
    part: 'Strengths to keep',
    item: 'Instance roles with scoped permissions, credentials in Secrets Manager, encryption at rest, backups of 7 and 30 days',
    rules: [
      'POLICY_WILDCARD',
      'DATABASE_UNENCRYPTED',
      'DISK_UNENCRYPTED',
      'BACKUPS_SHORT',
      'TEMPLATE_SECRET',
    ],
    resources: ['role', 'secret', 'database'],
    test: CLOUDFORMATION,
    note: '',
  },
  {
    part: 'Recommendations',
    item: '1. SSL/TLS: certificate, HTTPS listeners, redirect',
    rules: [
      'NO_HTTPS',
      'NO_REDIRECT',
      'LISTENER_PLAINTEXT',
      'TLS_OLD',
      'CDN_LAX',
      'LIVE_NO_REDIRECT',
      'LIVE_OLD_TLS',
      'LIVE_NO_HSTS',
    ],
    resources: ['certificate', 'listener'],
    test: 'roles/balancer/test/balancer.test.ts',
    note: 'Without AWS the balancer does it, with certificates by ACME.',
  },
  {
    part: 'Recommendations',
    item: '2. Domain name, Route 53, DNSSEC, stable endpoints',
    rules: ['NO_STABLE_NAMES', 'NO_DNSSEC', 'ADDRESS_CHANGES'],
    resources: ['zone', 'zone-signing', 'record', 'address'],
    test: CLOUDFORMATION,
    note: 'The DS record has to be given to the registrar by hand.',
  },
  {
    part: 'Recommendations',
    item: '3. API security: authentication on every endpoint',
    rules: ['LIVE_API_OPEN'],
    resources: [],
    test: 'roles/coordinator/test/access.test.ts',
    note: 'Bearer tokens with scopes, sessions, lockout: every route times every role is tested.',
  },
  {
    part: 'Recommendations',
    item: '4. Rate limiting: WAF with 2,000 requests in 5 minutes; 10 streams a minute',
    rules: ['NO_WAF', 'LIVE_NO_LIMITS'],
    resources: ['web-acl'],
    test: 'roles/coordinator/test/logins.test.ts',
    note: 'The coordinator keeps the same limits by itself, in every profile.',
  },
  {
    part: 'Recommendations',
    item: '5. Monitoring: alarms for failed logins, unusual API activity, connection spikes, unauthorised access; flow logs',
    rules: ['NO_SECURITY_ALARMS', 'ALARMS_UNHEARD', 'NO_FLOW_LOGS', 'NO_LOG'],
    resources: ['alarm', 'metric-filter', 'topic', 'flow-log', 'log-group'],
    test: AUDIT,
    note: '',
  },
  {
    part: 'Recommendations',
    item: '6. Secrets rotation every 30 days',
    rules: ['NO_ROTATION'],
    resources: ['rotation'],
    test: CLOUDFORMATION,
    note: "The review's template is refused by AWS (RotationLambdaArn, RotationInterval); RDS rotates its own secret here.",
  },
  {
    part: 'Recommendations',
    item: '7. Network ACLs',
    rules: ['NO_ACLS', 'ACL_NO_REPLIES', 'ACL_ADMIN_OPEN'],
    resources: ['network-acl'],
    test: REACHABILITY,
    note: "The review's snippet lets requests in and no reply out.",
  },
  {
    part: 'Recommendations',
    item: '8. Container security: non-root, updates, read-only file system',
    rules: ['CONTAINER_SOFT', 'CONTAINER_SECRET_PLAIN', 'TEMPLATE_TASK'],
    resources: ['task-definition', 'repository'],
    test: AUDIT,
    note: '',
  },
  {
    part: 'Recommendations',
    item: '9. GuardDuty, findings every 15 minutes',
    rules: ['NO_GUARDDUTY'],
    resources: ['threat-detector'],
    test: CLOUDFORMATION,
    note: '',
  },
  {
    part: 'Security hardening checklist',
    item: 'SSL/TLS encryption everywhere',
    rules: ['NO_HTTPS', 'DATABASE_TLS_OPTIONAL', 'CACHE_UNENCRYPTED', 'TEMPLATE_BUCKET', 'CDN_LAX'],
    resources: ['certificate', 'parameter-group', 'cache', 'bucket'],
    test: CLOUDFORMATION,
    note: 'Inside the VPC media and API go in plain HTTP and RTMP between our own hosts.',
  },
  {
    part: 'Security hardening checklist',
    item: 'API authentication and rate limiting',
    rules: ['LIVE_API_OPEN', 'LIVE_NO_LIMITS'],
    resources: [],
    test: 'roles/coordinator/test/access.test.ts',
    note: '',
  },
  {
    part: 'Security hardening checklist',
    item: 'WAF protection against common attacks',
    rules: ['NO_WAF'],
    resources: ['web-acl'],
    test: CLOUDFORMATION,
    note: 'Managed rules; those that would break uploads only count.',
  },
  {
    part: 'Security hardening checklist',
    item: 'Secrets rotation automation',
    rules: ['NO_ROTATION'],
    resources: ['rotation', 'secret'],
    test: CLOUDFORMATION,
    note: '',
  },
  {
    part: 'Security hardening checklist',
    item: 'Comprehensive monitoring and alerting',
    rules: ['NO_SECURITY_ALARMS', 'NO_FLOW_LOGS', 'NO_LOG', 'LOG_FOREVER'],
    resources: ['alarm', 'topic', 'log-group'],
    test: AUDIT,
    note: 'The product has alarms and metrics of its own beside those of AWS.',
  },
  {
    part: 'Security hardening checklist',
    item: 'Incident response procedures',
    rules: ['ALARMS_UNHEARD'],
    resources: ['topic'],
    test: AUDIT,
    note: 'docs/operations.md says what each alarm means and what to do; the audit log says who did what.',
  },
  {
    part: 'Security hardening checklist',
    item: 'Regular security assessments',
    rules: ['TEMPLATE_INCOMPLETE', 'LIVE_UNREACHABLE'],
    resources: [],
    test: AUDIT,
    note: '`starling audit` is the assessment: over the plan, the template and the running system, with SARIF and JUnit for a pipeline.',
  },
  {
    part: 'Cost optimization checklist',
    item: 'Reserved instances, scheduling, spot',
    rules: [],
    resources: ['schedule'],
    test: COST,
    note: '`starling cost` prices them; `starling schedule` and `schedule` in deploy.yaml set the hours.',
  },
  {
    part: 'Cost optimization checklist',
    item: 'Auto Scaling groups of 1 to 5 at 70 % CPU',
    rules: ['NO_SCALING', 'SCALING_TARGET', 'GROUP_ONE_ZONE'],
    resources: ['scaling-group', 'container-service'],
    test: CLOUDFORMATION,
    note: '',
  },
  {
    part: 'Cost optimization checklist',
    item: 'CloudFront CDN',
    rules: ['NO_CDN', 'CDN_PLAYLISTS_STALE'],
    resources: ['distribution', 'cache-policy'],
    test: COST,
    note: 'The cache policy that the review calls CachingOptimized is CachingDisabled.',
  },
  {
    part: 'Cost optimization checklist',
    item: 'S3 lifecycle: 30, 90 and 365 days',
    rules: ['NO_STORAGE', 'BUCKET_LIFECYCLE'],
    resources: ['bucket'],
    test: CLOUDFORMATION,
    note: '',
  },
  {
    part: 'Cost optimization checklist',
    item: 'Regular cost reviews, usage-based alerts and budgets',
    rules: ['NO_BUDGET'],
    resources: ['budget'],
    test: COST,
    note: '`starling cost --budget` sets the exit code.',
  },
];

/** `docs/security-review.md`. A test holds the file against this. */
export function reviewDocument(): string {
  const parts = [...new Set(reviewItems.map(({ part }) => part))];
  const allRules = [...planRules, ...templateRules, ...runningRules];
  return `${[
    "# The review's security items, and what keeps them",
    '',
    'Each item of the StreamrP2P review, the rules of `npx starling audit` that fire when it is not kept, the kinds of resource in',
    'the plan that keep it, and the test that proves it. This file is made from `ops/infra/src/audit/review-items.ts`.',
    '',
    ...parts.flatMap((part) => [
      `## ${part}`,
      '',
      '| item | rules | resources | test | note |',
      '| --- | --- | --- | --- | --- |',
      ...reviewItems
        .filter((one) => one.part === part)
        .map(
          ({ item, rules, resources, test, note }) =>
            `| ${item} | ${rules.join(', ')} | ${resources.join(', ')} | \`${test}\` | ${note} |`,
        ),
      '',
    ]),
    '## All rules',
    '',
    '| rule | severity | what is wrong | controls | what to do |',
    '| --- | --- | --- | --- | --- |',
    ...allRules.map(
      ({ id, severity, title, controls, remedy }) =>
        `| ${id} | ${severity} | ${title} | ${controls.join(', ')} | ${remedy} |`,
    ),
  ].join('\n')}\n`;
}
