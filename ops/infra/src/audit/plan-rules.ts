/**
 * What a plan has to keep. Each rule looks at resources and returns those that break it; the rules of the second list
 * ask for a resource that has to be there in the profiles for which the StreamrP2P review wants it.
 *
 * Controls: AWS Security Hub, "AWS Foundational Security Best Practices" (FSBP); CIS AWS Foundations Benchmark 3.0.
 */
import type { ProfileName } from '@starling/model/topology/deployment';
import {
  type Rule as GroupRule,
  type Kind,
  type Plan,
  type ResourceOf,
  resourcesOf,
} from '@starling/model/topology/plan';
import type { Finding, Rule } from './finding.ts';

type Broken = readonly [resource: string, message: string];
interface PlanRule extends Rule {
  /** The resources that break it. */
  readonly check: (plan: Plan) => readonly Broken[];
}

const ANYWHERE = ['0.0.0.0/0', '::/0'];
const RTMP_PORTS = [1935, 1936];
const WEB_PORTS = [80, 443];
const DATA_PORTS = [5432, 6379, 2049];
/** What Linux gives to connections that a host opens. */
const EPHEMERAL_PORTS = [32_768, 60_999] as const;
const WANTED_RATE_PER_5_MINUTES = 2000;
const WANTED_ROTATION_DAYS = 30;

const isProduction = (plan: Plan) => plan.deployment.profile.startsWith('production');
const isOpen = (rule: GroupRule) => 'cidr' in rule.peer && ANYWHERE.includes(rule.peer.cidr);
const covers = (rule: Pick<GroupRule, 'protocol' | 'fromPort' | 'toPort'>, port: number) =>
  rule.protocol === 'all' || (rule.protocol !== 'icmp' && rule.fromPort <= port && port <= rule.toPort);

/** A rule about each resource of one kind. */
function each<K extends Kind>(
  kind: K,
  problem: (one: ResourceOf<K>, plan: Plan) => string | undefined,
): PlanRule['check'] {
  return (plan) =>
    resourcesOf(plan, kind).flatMap((one): Broken[] => {
      const message = problem(one, plan);
      return message === undefined ? [] : [[one.id, message]];
    });
}

/** A rule about each ingress rule of each security group. */
function eachIngress(problem: (rule: GroupRule) => string | undefined): PlanRule['check'] {
  return (plan) =>
    resourcesOf(plan, 'security-group').flatMap((group) =>
      group.ingress.flatMap((rule): Broken[] => {
        const message = problem(rule);
        return message === undefined ? [] : [[`${group.id}/${rule.id}`, message]];
      }),
    );
}

const qualityRules: readonly PlanRule[] = [
  {
    id: 'SSH_OPEN',
    severity: 'critical',
    title: 'SSH is open to everybody',
    controls: ['FSBP EC2.13', 'CIS 5.2'],
    remedy: 'Set operatorAddress to your own address, or ssm: true for no open port at all.',
    check: eachIngress((rule) =>
      isOpen(rule) && covers(rule, 22) ? 'lets 0.0.0.0/0 in on port 22' : undefined,
    ),
  },
  {
    id: 'PORT_OPEN',
    severity: 'high',
    title: 'A port that is no service for the public is open to everybody',
    controls: ['FSBP EC2.18', 'FSBP EC2.19'],
    remedy: 'Let only 80, 443, and 1935 and 1936 for encoders in from everywhere.',
    check: eachIngress((rule) => {
      const allowed = [...WEB_PORTS, ...RTMP_PORTS];
      if (!isOpen(rule) || (rule.fromPort === 22 && rule.toPort === 22)) return undefined;
      const isService =
        rule.protocol === 'tcp' && rule.fromPort === rule.toPort && allowed.includes(rule.fromPort);
      return isService
        ? undefined
        : `lets 0.0.0.0/0 in on ${rule.protocol} ${rule.fromPort} to ${rule.toPort}`;
    }),
  },
  {
    id: 'INGEST_PLAINTEXT_OPEN',
    severity: 'medium',
    title: 'Encoders anywhere may publish without TLS',
    controls: [],
    remedy: 'Give encoders the RTMPS address, and limit ingestFrom to where they are.',
    check: eachIngress((rule) =>
      isOpen(rule) && rule.protocol === 'tcp' && covers(rule, 1935)
        ? 'takes RTMP from 0.0.0.0/0 on port 1935'
        : undefined,
    ),
  },
  {
    id: 'DATA_PORT_BROAD',
    severity: 'high',
    title: 'A database, cache or file system takes connections from a range of addresses',
    controls: ['FSBP EC2.19'],
    remedy: "Name the hosts' security group as the source.",
    check: eachIngress((rule) =>
      'cidr' in rule.peer && rule.protocol !== 'all' && DATA_PORTS.some((port) => covers(rule, port))
        ? `lets ${rule.peer.cidr} in on port ${rule.fromPort}`
        : undefined,
    ),
  },
  {
    id: 'DATA_SUBNET_PUBLIC',
    severity: 'critical',
    title: 'A database or cache may be in a subnet with a way to the internet',
    controls: ['FSBP RDS.46'],
    remedy: 'Put its subnet group into subnets whose route table has no way out.',
    check: (plan) => {
      const withWayOut = new Set(
        resourcesOf(plan, 'route-table')
          .filter(({ routes }) => routes.length > 0)
          .flatMap(({ subnets }) => subnets),
      );
      return resourcesOf(plan, 'subnet-group').flatMap((group): Broken[] =>
        group.subnets
          .filter((subnet) => withWayOut.has(subnet))
          .map((subnet) => [group.id, `has ${subnet}, which has a route out`]),
      );
    },
  },
  {
    id: 'DATABASE_PUBLIC',
    severity: 'critical',
    title: 'A database has a public address',
    controls: ['FSBP RDS.2', 'CIS 2.3.3'],
    remedy: 'Set isPublic to false.',
    check: (plan) =>
      databasesOf(plan).flatMap((one): Broken[] => (one.isPublic ? [[one.id, 'has a public address']] : [])),
  },
  {
    id: 'DATABASE_UNENCRYPTED',
    severity: 'high',
    title: 'A database is not encrypted at rest',
    controls: ['FSBP RDS.3', 'CIS 2.3.1'],
    remedy: 'Set encrypted to true.',
    check: (plan) =>
      databasesOf(plan).flatMap((one): Broken[] => (one.encrypted ? [] : [[one.id, 'is not encrypted']])),
  },
  {
    id: 'DATABASE_TLS_OPTIONAL',
    severity: 'high',
    title: 'A database takes connections without TLS',
    controls: ['FSBP RDS.38'],
    remedy: 'Set rds.force_ssl to 1 in its parameter group.',
    check: each('parameter-group', ({ parameters }) =>
      parameters['rds.force_ssl'] === '1' ? undefined : 'does not set rds.force_ssl to 1',
    ),
  },
  {
    id: 'BACKUPS_SHORT',
    severity: 'medium',
    title: 'Backups are not kept for long enough',
    controls: ['FSBP RDS.11'],
    remedy: 'Set backupDays: 7 before production, 30 in it.',
    check: (plan) => {
      const wanted = isProduction(plan) ? 30 : 7;
      return databasesOf(plan).flatMap((one): Broken[] =>
        one.backupDays >= wanted
          ? []
          : [[one.id, `keeps backups for ${one.backupDays} days; ${wanted} are wanted`]],
      );
    },
  },
  {
    id: 'DATABASE_UNPROTECTED',
    severity: 'medium',
    title: 'A database of production can be deleted by one call',
    controls: ['FSBP RDS.7', 'FSBP RDS.8'],
    remedy: 'Set deletionProtection to true.',
    check: (plan) =>
      databasesOf(plan).flatMap((one): Broken[] =>
        one.deletionProtection || !isProduction(plan) ? [] : [[one.id, 'has no deletion protection']],
      ),
  },
  {
    id: 'DATABASE_ONE_ZONE',
    severity: 'medium',
    title: 'A database of production is in one availability zone',
    controls: ['FSBP RDS.5'],
    remedy: 'Set multiAz: true.',
    check: each('database', (one, plan) =>
      isProduction(plan) && !one.multiAz ? 'is not Multi-AZ' : undefined,
    ),
  },
  {
    id: 'CACHE_UNENCRYPTED',
    severity: 'high',
    title: 'A cache is not encrypted, in transit or at rest',
    controls: ['FSBP ElastiCache.4', 'FSBP ElastiCache.5'],
    remedy: 'Set encryptedInTransit and encryptedAtRest to true.',
    check: each('cache', (one) =>
      one.encryptedAtRest && one.encryptedInTransit
        ? undefined
        : 'is not encrypted both in transit and at rest',
    ),
  },
  {
    id: 'CACHE_NO_PASSWORD',
    severity: 'medium',
    title: 'A cache of production has no password',
    controls: ['FSBP ElastiCache.6'],
    remedy: 'Give it a secret.',
    check: each('cache', (one, plan) =>
      isProduction(plan) && one.password === null ? 'has no password' : undefined,
    ),
  },
  {
    id: 'CACHE_ONE_NODE',
    severity: 'low',
    title: 'A cache of production has one node',
    controls: ['FSBP ElastiCache.3'],
    remedy: 'Give it two, in two zones.',
    check: each('cache', (one, plan) =>
      isProduction(plan) && (one.nodes < 2 || !one.multiAz)
        ? `has ${one.nodes} node, Multi-AZ ${one.multiAz}`
        : undefined,
    ),
  },
  {
    id: 'IMDS_V1',
    severity: 'high',
    title: 'A machine answers the old metadata protocol',
    controls: ['FSBP EC2.8', 'FSBP AutoScaling.3', 'CIS 5.6'],
    remedy: 'Require tokens (IMDSv2), with a hop limit of 1.',
    check: (plan) =>
      machinesOf(plan).flatMap((one): Broken[] =>
        one.metadata.httpTokens === 'required' && one.metadata.hopLimit === 1
          ? []
          : [[one.id, `metadata tokens ${one.metadata.httpTokens}, hop limit ${one.metadata.hopLimit}`]],
      ),
  },
  {
    id: 'DISK_UNENCRYPTED',
    severity: 'high',
    title: 'A disk is not encrypted',
    controls: ['FSBP EC2.3', 'FSBP EC2.7', 'CIS 2.2.1'],
    remedy: 'Set encrypted to true.',
    check: (plan) => [
      ...machinesOf(plan).flatMap((one): Broken[] =>
        one.rootVolume.encrypted ? [] : [[one.id, 'has an unencrypted root volume']],
      ),
      ...resourcesOf(plan, 'file-system').flatMap((one): Broken[] =>
        one.encrypted ? [] : [[one.id, 'is not encrypted']],
      ),
    ],
  },
  {
    id: 'KEY_SHARED',
    severity: 'medium',
    title: 'The bastion and the machines behind it have the same key',
    controls: [],
    remedy: 'Make two pairs with starling infra keys.',
    check: (plan) => {
      const keys = resourcesOf(plan, 'key-pair').filter(({ publicKey }) => publicKey !== null);
      return keys
        .filter((key) => keys.some((other) => other !== key && other.publicKey === key.publicKey))
        .map((key) => [key.id, 'is used twice']);
    },
  },
  {
    id: 'LISTENER_PLAINTEXT',
    severity: 'high',
    title: 'A load balancer serves HTTP without redirecting to HTTPS',
    controls: ['FSBP ELB.1'],
    remedy: 'Redirect port 80 to 443.',
    check: each('listener', ({ protocol, action, rules }) =>
      protocol === 'HTTP' && (action.kind !== 'redirect' || rules.length > 0)
        ? 'forwards plain HTTP'
        : undefined,
    ),
  },
  {
    id: 'TLS_OLD',
    severity: 'high',
    title: 'TLS below 1.2 is taken',
    controls: ['FSBP ELB.17', 'FSBP CloudFront.15'],
    remedy: 'Take a policy of TLS 1.2 and 1.3 only.',
    check: each('listener', ({ protocol, tlsPolicy, certificate }) => {
      if (protocol !== 'HTTPS' && protocol !== 'TLS') return undefined;
      if (certificate === null) return 'has no certificate';
      return tlsPolicy !== null && /TLS13-1-[23]/.test(tlsPolicy)
        ? undefined
        : `has the TLS policy ${tlsPolicy}`;
    }),
  },
  {
    id: 'BALANCER_LAX',
    severity: 'medium',
    title: 'A load balancer passes on malformed headers, or can be deleted by one call in production',
    controls: ['FSBP ELB.4', 'FSBP ELB.6', 'FSBP ELB.12'],
    remedy: 'Drop invalid headers; protect it from deletion in production.',
    check: each('load-balancer', (one, plan) => {
      if (one.type === 'application' && !one.dropInvalidHeaders) return 'passes on invalid headers';
      return isProduction(plan) && !one.deletionProtection ? 'has no deletion protection' : undefined;
    }),
  },
  {
    id: 'BALANCER_NO_LOG',
    severity: 'low',
    title: 'A load balancer of production writes no access log',
    controls: ['FSBP ELB.5'],
    remedy: 'Give it a bucket for logs.',
    check: each('load-balancer', (one, plan) =>
      // A network load balancer logs nothing but TLS, and our own log has every encoder.
      isProduction(plan) && one.type === 'application' && one.accessLogs === null
        ? 'writes no access log'
        : undefined,
    ),
  },
  {
    id: 'CDN_LAX',
    severity: 'high',
    title: 'The CDN takes old TLS, or speaks plain HTTP with its origin',
    controls: ['FSBP CloudFront.3', 'FSBP CloudFront.10', 'FSBP CloudFront.15'],
    remedy: 'minimumTls TLSv1.2_2021, origin https-only.',
    check: each('distribution', (one) =>
      one.minimumTls === 'TLSv1.2_2021' && one.origin.protocol === 'https-only'
        ? undefined
        : `minimum ${one.minimumTls}, origin ${one.origin.protocol}`,
    ),
  },
  {
    id: 'CDN_PLAYLISTS_STALE',
    severity: 'medium',
    title:
      'The CDN keeps playlists so long that low-latency players stall, or mixes their blocking requests up',
    controls: [],
    remedy: 'A maximum of 2 s, with _HLS_msn, _HLS_part and _HLS_skip in the cache key.',
    check: (plan) => {
      const behaviours = resourcesOf(plan, 'distribution').flatMap(({ behaviours }) => behaviours);
      return behaviours
        .filter(({ path }) => path.endsWith('.m3u8'))
        .flatMap(({ path, cachePolicy }): Broken[] => {
          const policy =
            'id' in cachePolicy
              ? resourcesOf(plan, 'cache-policy').find(({ id }) => id === cachePolicy.id)
              : undefined;
          if (policy === undefined) return [];
          const isRight =
            policy.maxTtlSeconds <= 2 &&
            ['_HLS_msn', '_HLS_part', '_HLS_skip'].every((name) => policy.queryStrings.includes(name));
          return isRight ? [] : [[policy.id, `is not right for ${path}`]];
        });
    },
  },
  {
    id: 'ACL_NO_REPLIES',
    severity: 'high',
    title: 'A network ACL lets requests in and their replies not out',
    controls: ['FSBP EC2.21'],
    remedy: 'Allow ports 1024 to 65535 (or those that Linux gives out) back to who asks.',
    check: each('network-acl', ({ entries }) => {
      const allowed = (direction: 'ingress' | 'egress') =>
        entries.filter((entry) => entry.direction === direction && entry.action === 'allow');
      const answers = allowed('egress').filter(
        (entry) =>
          entry.protocol === 'all' ||
          (entry.fromPort <= EPHEMERAL_PORTS[0] && entry.toPort >= EPHEMERAL_PORTS[1]),
      );
      const isAnswered = (cidr: string) =>
        answers.some((entry) => entry.cidr === cidr || ANYWHERE.includes(entry.cidr));
      const silent = allowed('ingress').find((entry) => !isAnswered(entry.cidr));
      return silent === undefined ? undefined : `takes requests from ${silent.cidr} and lets no reply back`;
    }),
  },
  {
    id: 'ACL_ADMIN_OPEN',
    severity: 'medium',
    title: 'A network ACL lets everybody in on a port for administration',
    controls: ['FSBP EC2.21', 'CIS 5.1'],
    remedy: "Name the operator's address.",
    check: each('network-acl', ({ entries }) =>
      entries.some(
        (entry) =>
          entry.direction === 'ingress' &&
          entry.action === 'allow' &&
          ANYWHERE.includes(entry.cidr) &&
          [22, 3389].some((port) => covers(entry, port)),
      )
        ? 'lets 0.0.0.0/0 in on port 22'
        : undefined,
    ),
  },
  {
    id: 'LOG_FOREVER',
    severity: 'low',
    title: 'A log is kept for less than two weeks, or without end',
    controls: ['FSBP CloudWatch.16'],
    remedy: 'Set retentionDays.',
    check: each('log-group', ({ retentionDays }) =>
      retentionDays >= 14 && retentionDays <= 3653 ? undefined : `is kept for ${retentionDays} days`,
    ),
  },
  {
    id: 'BUCKET_LIFECYCLE',
    severity: 'low',
    title: 'Recordings stay in the dearest storage class for ever',
    controls: ['FSBP S3.13'],
    remedy: 'Move them on after 30, 90 and 365 days.',
    check: each('bucket', ({ transitions, expireDays }) =>
      transitions.length > 0 || expireDays !== null ? undefined : 'has no lifecycle',
    ),
  },
  {
    id: 'POLICY_WILDCARD',
    severity: 'high',
    title: 'A role may do anything, or something to everything',
    controls: ['FSBP IAM.1', 'FSBP IAM.21', 'CIS 1.16'],
    remedy: 'Name the actions and the resources.',
    check: (plan) =>
      resourcesOf(plan, 'role').flatMap((role) =>
        role.statements.flatMap((statement): Broken[] => {
          const broad = statement.actions.find((action) => action === '*' || action.endsWith(':*'));
          if (broad !== undefined) return [[role.id, `${statement.sid} allows ${broad}`]];
          // Some calls that only look take no resource.
          const changes = statement.actions.find((action) => !/:(Describe|List|Get)/.test(action));
          const isFree = statement.resources.includes('*') && Object.keys(statement.conditions).length === 0;
          return isFree && changes !== undefined && changes !== 'ecr:GetAuthorizationToken'
            ? [[role.id, `${statement.sid} allows ${changes} on every resource`]]
            : [];
        }),
      ),
  },
  {
    id: 'CI_TRUSTS_PULL_REQUESTS',
    severity: 'critical',
    title: 'A pull request may take the role of the pipeline',
    controls: ['FSBP IAM.1'],
    remedy: 'Trust the subject repo:OWNER/NAME:ref:refs/heads/BRANCH, exactly.',
    check: each('role', ({ trusts }) => {
      if (!('oidcProvider' in trusts)) return undefined;
      const subject = Object.entries(trusts.conditions).find(([key]) => key.endsWith(':sub'))?.[1];
      return subject !== undefined && /^repo:[^*:]+:ref:refs\/heads\/[^*]+$/.test(subject)
        ? undefined
        : `trusts the subject ${subject ?? '(any)'}`;
    }),
  },
  {
    id: 'CONTAINER_SOFT',
    severity: 'high',
    title: 'A container is not hardened',
    controls: ['FSBP ECS.4', 'FSBP ECS.5', 'FSBP ECS.20'],
    remedy: 'A user that is not root, a read-only root, all capabilities dropped.',
    check: each('task-definition', ({ containers }) => {
      const soft = containers.find(
        (one) =>
          !one.readonlyRootFilesystem ||
          !one.dropCapabilities.includes('ALL') ||
          /^(0|root)?(:|$)/.test(one.user),
      );
      return soft === undefined ? undefined : `${soft.name} is root, may write, or keeps capabilities`;
    }),
  },
  {
    id: 'CONTAINER_SECRET_PLAIN',
    severity: 'high',
    title: 'A container gets a secret as a plain variable',
    controls: ['FSBP ECS.8'],
    remedy: 'Name it under secrets.',
    check: each('task-definition', ({ containers }) => {
      const names = containers.flatMap((one) => Object.keys(one.environment));
      const secret = names.find((name) => /PASSWORD|TOKEN|SECRET|DATABASE_URL$|REDIS_URL$/.test(name));
      return secret === undefined ? undefined : `${secret} is among its plain variables`;
    }),
  },
  {
    id: 'GROUP_ONE_ZONE',
    severity: 'medium',
    title:
      'A group of machines or tasks of production is in one zone, or is not watched by its load balancer',
    controls: ['FSBP AutoScaling.1', 'FSBP AutoScaling.2'],
    remedy: 'Two subnets in two zones; health check ELB.',
    check: (plan) => [
      ...resourcesOf(plan, 'scaling-group').flatMap((one): Broken[] =>
        one.subnets.length >= 2 && (one.targetGroups.length === 0 || one.healthCheck === 'ELB')
          ? []
          : [[one.id, `${one.subnets.length} subnet, health check ${one.healthCheck}`]],
      ),
      ...resourcesOf(plan, 'container-service').flatMap((one): Broken[] =>
        one.subnets.length >= 2 ? [] : [[one.id, 'is in one subnet']],
      ),
    ],
  },
  {
    id: 'SCALING_TARGET',
    severity: 'low',
    title: 'A group does not grow between 1 and 5 at 70 % CPU',
    controls: [],
    remedy: 'minimum 1, maximum 5, target 70 %.',
    check: each('scaling-group', (one) =>
      one.minimum >= 1 && one.maximum >= 5 && one.targetCpuPercent <= 70
        ? undefined
        : `from ${one.minimum} to ${one.maximum} at ${one.targetCpuPercent} %`,
    ),
  },
  {
    id: 'ADDRESS_CHANGES',
    severity: 'medium',
    title: 'A name leads to a machine whose address changes when it is stopped',
    controls: [],
    remedy: 'Give it an Elastic IP address.',
    check: each('record', ({ target }, plan) => {
      if (target.kind !== 'values') return undefined;
      const named = target.values.flatMap((value) =>
        [...value.matchAll(/\$\{([A-Za-z0-9]+)\.publicIp\}/g)].map((match) => match[1]),
      );
      const fleeting = named.find((id) => resourcesOf(plan, 'instance').some((one) => one.id === id));
      return fleeting === undefined ? undefined : `leads to ${fleeting} itself`;
    }),
  },
];

interface WantedRule extends Rule {
  /** Where it has to be: what the review asks for at that stage. */
  readonly profiles: readonly ProfileName[];
  /** What is missing; undefined when all is there. */
  readonly missing: (plan: Plan) => string | undefined;
}

const stages: readonly ProfileName[] = [
  'beta',
  'gamma',
  'production',
  'production-containers',
  'production-serverless',
];
const fromGamma = stages.slice(1);
const production = stages.slice(2);
const wantsKind =
  (kind: Kind, least = 1) =>
  (plan: Plan) => {
    const count = resourcesOf(plan, kind).length;
    return count >= least ? undefined : `the plan has ${count} of ${kind}, and ${least} is wanted`;
  };

const wantedRules: readonly WantedRule[] = [
  {
    id: 'NO_HTTPS',
    severity: 'critical',
    title: 'Nothing offers HTTPS',
    controls: ['FSBP ELB.1'],
    remedy: 'A certificate and a listener on 443, with a redirect from 80; or a CDN.',
    profiles: stages,
    missing: (plan) => {
      const hasTls = resourcesOf(plan, 'listener').some(({ protocol }) => protocol === 'HTTPS');
      const hasCdn = resourcesOf(plan, 'distribution').length > 0;
      if (!hasTls && !hasCdn) return 'no HTTPS listener and no CDN';
      return wantsKind('certificate')(plan);
    },
  },
  {
    id: 'NO_REDIRECT',
    severity: 'medium',
    title: 'Who comes by HTTP is not led to HTTPS',
    controls: ['FSBP ELB.1'],
    remedy: 'A listener on 80 that redirects; CloudFront does it by itself.',
    profiles: stages,
    missing: (plan) =>
      resourcesOf(plan, 'distribution').length > 0 ||
      resourcesOf(plan, 'listener').some(({ action }) => action.kind === 'redirect')
        ? undefined
        : 'no listener redirects',
  },
  {
    id: 'NO_STABLE_NAMES',
    severity: 'medium',
    title: 'Viewers or encoders have no name that stays',
    controls: [],
    remedy: 'A hosted zone with records for watch and ingest.',
    profiles: fromGamma,
    missing: (plan) => {
      const names = resourcesOf(plan, 'record').map(({ name }) => name);
      const lacking = ['watch', 'ingest'].filter(
        (host) => !names.some((name) => name.startsWith(`${host}.`)),
      );
      return lacking.length === 0 ? wantsKind('zone')(plan) : `no record for ${lacking.join(', ')}`;
    },
  },
  {
    id: 'NO_DNSSEC',
    severity: 'low',
    title: 'The zone is not signed',
    controls: [],
    remedy: 'Set dnssec: true, and give the registrar the DS record.',
    profiles: production,
    missing: wantsKind('zone-signing'),
  },
  {
    id: 'NO_WAF',
    severity: 'high',
    title: 'No firewall with a rate limit and managed rules',
    controls: ['FSBP ELB.16', 'FSBP CloudFront.6', 'FSBP WAF.10'],
    remedy: 'A web ACL with 2,000 requests in 5 minutes for an address, and managed rules.',
    profiles: production,
    missing: (plan) => {
      const acls = resourcesOf(plan, 'web-acl');
      const rules = acls.flatMap((acl) => acl.rules);
      if (!rules.some((rule) => rule.kind === 'rate' && rule.per5Minutes <= WANTED_RATE_PER_5_MINUTES)) {
        return `no rate rule of ${WANTED_RATE_PER_5_MINUTES} in 5 minutes`;
      }
      if (!rules.some((rule) => rule.kind === 'managed')) return 'no managed rules';
      const isUsed = acls.some(
        (acl) =>
          acl.protects.length > 0 ||
          resourcesOf(plan, 'distribution').some(({ webAcl }) => webAcl === acl.id),
      );
      return isUsed ? undefined : 'the firewall protects nothing';
    },
  },
  {
    id: 'NO_FLOW_LOGS',
    severity: 'medium',
    title: 'Nobody can say who spoke to whom',
    controls: ['FSBP EC2.6', 'CIS 3.7'],
    remedy: 'Set flowLogs: true.',
    profiles: fromGamma,
    missing: wantsKind('flow-log'),
  },
  {
    id: 'NO_ACLS',
    severity: 'low',
    title: 'Subnets have no network ACL of their own',
    controls: ['FSBP EC2.21'],
    remedy: 'A network ACL for each tier.',
    profiles: stages,
    missing: (plan) => {
      const covered = new Set(resourcesOf(plan, 'network-acl').flatMap(({ subnets }) => subnets));
      const open = resourcesOf(plan, 'subnet').find(({ id }) => !covered.has(id));
      return open === undefined ? undefined : `${open.id} has none`;
    },
  },
  {
    id: 'NO_ROTATION',
    severity: 'medium',
    title: "The database's password is not changed every 30 days",
    controls: ['FSBP SecretsManager.1', 'FSBP SecretsManager.4'],
    remedy: 'A rotation schedule of 30 days.',
    profiles: stages,
    missing: (plan) => {
      const rotations = resourcesOf(plan, 'rotation');
      return databasesOf(plan).every(({ id }) =>
        rotations.some(({ secret, days }) => secret.includes(`\${${id}.`) && days <= WANTED_ROTATION_DAYS),
      )
        ? undefined
        : 'a database whose password does not rotate';
    },
  },
  {
    id: 'NO_DATABASE',
    severity: 'medium',
    title: 'Accounts, schedules and the ledger have no managed database',
    controls: [],
    remedy: 'RDS PostgreSQL or Aurora in private subnets.',
    profiles: stages,
    missing: (plan) => (databasesOf(plan).length > 0 ? undefined : 'no database'),
  },
  {
    id: 'NO_CACHE',
    severity: 'low',
    title: 'Coordinators share no limits and no presence',
    controls: [],
    remedy: 'A Redis of ElastiCache; the serverless profile keeps its counts in DynamoDB.',
    profiles: ['beta', 'gamma', 'production', 'production-containers'],
    missing: wantsKind('cache'),
  },
  {
    id: 'NO_SECURITY_ALARMS',
    severity: 'medium',
    title: 'Nobody hears of failed logins, unusual API use, connection spikes or unauthorised access',
    controls: ['CIS 4.1', 'CIS 4.6'],
    remedy: 'Four alarms on our own metrics, and a topic with an address.',
    profiles: fromGamma,
    missing: (plan) => {
      const alarms = resourcesOf(plan, 'alarm');
      const lacking = [
        'FailedLogins',
        'UnusualApiActivity',
        'DatabaseConnections',
        'UnauthorisedAccess',
      ].filter((name) => !alarms.some((one) => one.name.includes(name)));
      return lacking.length === 0 ? wantsKind('topic')(plan) : `no alarm for ${lacking.join(', ')}`;
    },
  },
  {
    id: 'ALARMS_UNHEARD',
    severity: 'low',
    title: 'Alarms reach nobody',
    controls: ['FSBP CloudWatch.15'],
    remedy: 'Set alarmEmail.',
    profiles: fromGamma,
    missing: (plan) =>
      resourcesOf(plan, 'topic').some(({ email }) => email !== null)
        ? undefined
        : 'no address subscribes to the alarms',
  },
  {
    id: 'NO_GUARDDUTY',
    severity: 'low',
    title: 'No threat detection',
    controls: ['FSBP GuardDuty.1'],
    remedy: 'Set guardDuty: true, unless the account has a detector in this region already.',
    profiles: ['production', 'production-containers'],
    missing: wantsKind('threat-detector'),
  },
  {
    id: 'NO_CDN',
    severity: 'low',
    title: 'Every viewer loads from the origin',
    controls: [],
    remedy: 'Set cloudFront: true.',
    profiles: production,
    missing: wantsKind('distribution'),
  },
  {
    id: 'NO_SCALING',
    severity: 'low',
    title: 'Nothing grows with the load',
    controls: ['FSBP AutoScaling.2'],
    remedy: 'A scaling group or service with a target of 70 % CPU.',
    profiles: ['production', 'production-containers'],
    missing: (plan) =>
      resourcesOf(plan, 'scaling-group').length + resourcesOf(plan, 'container-service').length > 0
        ? undefined
        : 'no group and no service',
  },
  {
    id: 'NO_STORAGE',
    severity: 'low',
    title: 'Recordings have no bucket',
    controls: [],
    remedy: 'A bucket with the lifecycle tiers.',
    profiles: stages,
    missing: (plan) =>
      resourcesOf(plan, 'bucket').some(({ holds }) => holds === 'recordings')
        ? undefined
        : 'no bucket for recordings',
  },
  {
    id: 'NO_LOG',
    severity: 'low',
    title: 'What services say is gone with their machine',
    controls: [],
    remedy: 'A log group with retention.',
    profiles: stages,
    missing: wantsKind('log-group'),
  },
  {
    id: 'NO_BUDGET',
    severity: 'low',
    title: 'Nobody is warned when it gets dear',
    controls: [],
    remedy: 'Set budgetUsd and alarmEmail.',
    profiles: [...stages, 'classic-iptv'],
    missing: wantsKind('budget'),
  },
];

/** Every rule over plans, for the documentation. */
export const planRules: readonly Rule[] = [...qualityRules, ...wantedRules];

/** What of the plan breaks which rule. */
export function auditPlan(plan: Plan): Omit<Finding, 'accepted'>[] {
  return [
    ...qualityRules.flatMap((rule) =>
      rule.check(plan).map(([resource, message]) => ({ rule, resource, message })),
    ),
    ...wantedRules.flatMap((rule) => {
      if (!rule.profiles.includes(plan.deployment.profile)) return [];
      const message = rule.missing(plan);
      return message === undefined ? [] : [{ rule, resource: plan.deployment.profile, message }];
    }),
  ];
}

function databasesOf(plan: Plan) {
  return [...resourcesOf(plan, 'database'), ...resourcesOf(plan, 'aurora-cluster')];
}

function machinesOf(plan: Plan) {
  return [...resourcesOf(plan, 'instance'), ...resourcesOf(plan, 'launch-template')];
}
