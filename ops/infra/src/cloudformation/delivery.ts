/** Load balancers, names, certificates, the CDN and the firewall, as CloudFormation has them. */
import { resourcesOf } from '@starling/model/topology/plan';
import {
  Aws,
  aws_certificatemanager as acm,
  aws_cloudfront as cloudfront,
  aws_elasticloadbalancingv2 as elb,
  Fn,
  aws_kms as kms,
  aws_route53 as route53,
  aws_wafv2 as waf,
} from 'aws-cdk-lib';
import { type Context, tagsOf } from './context.ts';
import type { Translations } from './translations.ts';

/** Where all of CloudFront lives in Route 53. Source: AWS::Route53::RecordSet AliasTarget. */
const CLOUDFRONT_ZONE_ID = 'Z2FDTNDATAQYW2';

export const delivery: Translations<
  | 'load-balancer'
  | 'target-group'
  | 'listener'
  | 'certificate'
  | 'zone'
  | 'zone-signing'
  | 'record'
  | 'cache-policy'
  | 'distribution'
  | 'web-acl'
> = {
  'load-balancer': (context, one) => {
    const attributes: Record<string, string> = {
      'deletion_protection.enabled': String(one.deletionProtection),
      ...(one.type === 'application'
        ? {
            'routing.http.drop_invalid_header_fields.enabled': String(one.dropInvalidHeaders),
            'routing.http.desync_mitigation_mode': 'defensive',
          }
        : { 'load_balancing.cross_zone.enabled': 'true' }),
      ...(one.idleTimeoutSeconds === null
        ? {}
        : { 'idle_timeout.timeout_seconds': String(one.idleTimeoutSeconds) }),
      'access_logs.s3.enabled': String(one.accessLogs !== null),
    };
    const balancer = new elb.CfnLoadBalancer(context.stack, one.id, {
      name: one.name,
      type: one.type,
      scheme: 'internet-facing',
      subnets: context.ids(one.subnets),
      securityGroups: context.ids(one.securityGroups),
      loadBalancerAttributes: [
        ...Object.entries(attributes).map(([key, value]) => ({ key, value })),
        ...(one.accessLogs === null
          ? []
          : [
              { key: 'access_logs.s3.bucket', value: context.attribute(one.accessLogs, 'name') },
              { key: 'access_logs.s3.prefix', value: one.name },
            ]),
      ],
      tags: tagsOf(one),
    });
    // It tries to write when it is made.
    if (one.accessLogs !== null) context.dependsOn(balancer, `${one.accessLogs}Policy`);
    for (const gateway of context.idsOf('internet-gateway'))
      context.dependsOn(balancer, `${gateway}Attachment`);
  },
  'target-group': (context, one) => {
    const { healthCheck } = one;
    new elb.CfnTargetGroup(context.stack, one.id, {
      name: one.name,
      vpcId: context.id(one.vpc),
      protocol: one.protocol,
      port: one.port,
      targetType: one.targetType,
      targets: one.targets.map((id) => ({ id: context.id(id), port: one.port })),
      healthCheckProtocol: healthCheck.protocol,
      healthCheckPort: String(healthCheck.port),
      ...(healthCheck.path === null
        ? {}
        : { healthCheckPath: healthCheck.path, matcher: { httpCode: '200' } }),
      healthCheckIntervalSeconds: healthCheck.intervalSeconds,
      healthyThresholdCount: healthCheck.healthyCount,
      unhealthyThresholdCount: healthCheck.unhealthyCount,
      targetGroupAttributes: [
        { key: 'deregistration_delay.timeout_seconds', value: String(one.drainSeconds) },
      ],
      tags: tagsOf(one),
    });
  },
  listener: (context, one) => {
    const { action } = one;
    const forward = (id: string) => ({ type: 'forward', targetGroupArn: context.arn(id) });
    new elb.CfnListener(context.stack, one.id, {
      loadBalancerArn: context.arn(one.loadBalancer),
      protocol: one.protocol,
      port: one.port,
      ...(one.certificate === null
        ? {}
        : { certificates: [{ certificateArn: context.arn(one.certificate) }] }),
      ...(one.tlsPolicy === null ? {} : { sslPolicy: one.tlsPolicy }),
      defaultActions: [
        action.kind === 'forward'
          ? forward(action.targetGroup)
          : {
              type: 'redirect',
              redirectConfig: {
                protocol: action.protocol,
                port: String(action.port),
                statusCode: 'HTTP_301',
              },
            },
      ],
    });
    for (const rule of one.rules) {
      new elb.CfnListenerRule(context.stack, rule.id, {
        listenerArn: context.arn(one.id),
        priority: rule.priority,
        conditions: [{ field: 'path-pattern', pathPatternConfig: { values: [...rule.paths] } }],
        actions: [forward(rule.targetGroup)],
      });
    }
  },
  certificate: (context, one) => {
    const names = [one.domainName, ...one.alternativeNames];
    const { zone } = one;
    new acm.CfnCertificate(context.stack, one.id, {
      domainName: one.domainName,
      subjectAlternativeNames: [...one.alternativeNames],
      validationMethod: 'DNS',
      ...(zone === null
        ? {}
        : {
            domainValidationOptions: names.map((domainName) => ({
              domainName,
              hostedZoneId: context.id(zone),
            })),
          }),
      tags: tagsOf(one),
    });
  },
  zone: (context, one) => {
    new route53.CfnHostedZone(context.stack, one.id, { name: one.name, hostedZoneTags: tagsOf(one) });
  },
  'zone-signing': (context, one) => {
    const key = new kms.CfnKey(context.stack, `${one.id}Key`, {
      description: one.purpose,
      keySpec: 'ECC_NIST_P256',
      keyUsage: 'SIGN_VERIFY',
      keyPolicy: {
        Version: '2012-10-17',
        Statement: [
          {
            Sid: 'Account',
            Effect: 'Allow',
            Principal: { AWS: Fn.join('', ['arn:', Aws.PARTITION, ':iam::', Aws.ACCOUNT_ID, ':root']) },
            Action: 'kms:*',
            Resource: '*',
          },
          {
            Sid: 'Route53Signs',
            Effect: 'Allow',
            Principal: { Service: 'dnssec-route53.amazonaws.com' },
            Action: ['kms:DescribeKey', 'kms:GetPublicKey', 'kms:Sign'],
            Resource: '*',
            Condition: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
          },
          {
            Sid: 'Route53Grants',
            Effect: 'Allow',
            Principal: { Service: 'dnssec-route53.amazonaws.com' },
            Action: 'kms:CreateGrant',
            Resource: '*',
            Condition: { Bool: { 'kms:GrantIsForAWSResource': 'true' } },
          },
        ],
      },
      tags: tagsOf(one),
    });
    const signingKey = new route53.CfnKeySigningKey(context.stack, `${one.id}SigningKey`, {
      hostedZoneId: context.id(one.zone),
      keyManagementServiceArn: Fn.getAtt(key.logicalId, 'Arn').toString(),
      name: one.keySigningKeyName,
      status: 'ACTIVE',
    });
    const signing = new route53.CfnDNSSEC(context.stack, one.id, { hostedZoneId: context.id(one.zone) });
    signing.addResourceDependency(signingKey);
  },
  record: (context, one) => {
    const { target } = one;
    new route53.CfnRecordSet(context.stack, one.id, {
      hostedZoneId: context.id(one.zone),
      name: one.name,
      type: one.type,
      ...(target.kind === 'values'
        ? { ttl: String(one.ttlSeconds), resourceRecords: target.values.map((value) => context.text(value)) }
        : { aliasTarget: alias(context, target.id) }),
    });
  },
  'cache-policy': (context, one) => {
    const listed = (items: readonly string[], name: 'queryStrings' | 'headers', behaviour: string) => ({
      [behaviour]: items.length === 0 ? 'none' : 'whitelist',
      ...(items.length === 0 ? {} : { [name]: [...items] }),
    });
    new cloudfront.CfnCachePolicy(context.stack, one.id, {
      cachePolicyConfig: {
        name: one.name,
        comment: one.purpose,
        minTtl: one.minTtlSeconds,
        defaultTtl: one.defaultTtlSeconds,
        maxTtl: one.maxTtlSeconds,
        parametersInCacheKeyAndForwardedToOrigin: {
          cookiesConfig: { cookieBehavior: 'none' },
          headersConfig: listed(one.headers, 'headers', 'headerBehavior') as { headerBehavior: string },
          queryStringsConfig: listed(one.queryStrings, 'queryStrings', 'queryStringBehavior') as {
            queryStringBehavior: string;
          },
          enableAcceptEncodingGzip: true,
          enableAcceptEncodingBrotli: true,
        },
      },
    });
  },
  distribution: (context, one) => {
    const { origin } = one;
    const behaviour = ({
      cachePolicy,
      originRequestPolicy,
      methods,
      compress,
    }: (typeof one.behaviours)[number]) => ({
      targetOriginId: origin.id,
      viewerProtocolPolicy: 'redirect-to-https',
      cachePolicyId: 'id' in cachePolicy ? context.id(cachePolicy.id) : cachePolicy.managed,
      ...(originRequestPolicy === null ? {} : { originRequestPolicyId: originRequestPolicy.managed }),
      allowedMethods:
        methods === 'read'
          ? ['GET', 'HEAD', 'OPTIONS']
          : ['GET', 'HEAD', 'OPTIONS', 'PUT', 'PATCH', 'POST', 'DELETE'],
      cachedMethods: ['GET', 'HEAD'],
      compress,
    });
    const last = one.behaviours.find(({ path }) => path === '*');
    if (last === undefined) throw new Error(`${one.id} has no default behaviour`);
    const distribution = new cloudfront.CfnDistribution(context.stack, one.id, {
      distributionConfig: {
        enabled: true,
        comment: one.purpose,
        aliases: [...one.aliases],
        httpVersion: 'http2and3',
        ipv6Enabled: true,
        priceClass: one.priceClass,
        ...(one.webAcl === null ? {} : { webAclId: context.arn(one.webAcl) }),
        viewerCertificate: {
          acmCertificateArn: context.arn(one.certificate),
          minimumProtocolVersion: one.minimumTls,
          sslSupportMethod: 'sni-only',
        },
        ...(one.logBucket === null
          ? {}
          : {
              logging: {
                bucket: context.attribute(one.logBucket, 'domainName'),
                prefix: 'cdn/',
                includeCookies: false,
              },
            }),
        origins: [
          {
            id: origin.id,
            domainName: context.text(origin.domainName),
            customOriginConfig: {
              originProtocolPolicy: origin.protocol,
              originSslProtocols: ['TLSv1.2'],
              httpPort: origin.httpPort,
              httpsPort: origin.httpsPort,
              originReadTimeout: origin.readTimeoutSeconds,
              originKeepaliveTimeout: origin.keepaliveSeconds,
            },
          },
        ],
        defaultCacheBehavior: behaviour(last),
        cacheBehaviors: one.behaviours
          .filter((each) => each !== last)
          .map((each) => ({ pathPattern: each.path, ...behaviour(each) })),
      },
      tags: tagsOf(one),
    });
    if (one.logBucket !== null) context.dependsOn(distribution, `${one.logBucket}Policy`);
  },
  'web-acl': (context, one) => {
    const visibilityConfig = (metricName: string) => ({
      cloudWatchMetricsEnabled: true,
      sampledRequestsEnabled: true,
      metricName,
    });
    new waf.CfnWebACL(context.stack, one.id, {
      name: one.name,
      scope: one.scope,
      defaultAction: { allow: {} },
      visibilityConfig: visibilityConfig(one.name),
      rules: one.rules.map((rule) => ({
        name: rule.name,
        priority: rule.priority,
        visibilityConfig: visibilityConfig(rule.name),
        ...(rule.kind === 'rate'
          ? {
              action: { block: {} },
              statement: {
                rateBasedStatement: {
                  limit: rule.per5Minutes,
                  aggregateKeyType: 'IP',
                  evaluationWindowSec: 300,
                },
              },
            }
          : {
              overrideAction: { none: {} },
              statement: {
                managedRuleGroupStatement: {
                  vendorName: 'AWS',
                  name: rule.group,
                  ruleActionOverrides: rule.countOnly.map((name) => ({ name, actionToUse: { count: {} } })),
                },
              },
            }),
      })),
      tags: tagsOf(one),
    });
    for (const id of one.protects) {
      new waf.CfnWebACLAssociation(context.stack, `${one.id}On${id}`, {
        resourceArn: context.arn(id),
        webAclArn: context.arn(one.id),
      });
    }
  },
};

function alias(context: Context, id: string) {
  const isCdn = resourcesOf(context.plan, 'distribution').some((one) => one.id === id);
  return isCdn
    ? {
        dnsName: context.attribute(id, 'domainName'),
        hostedZoneId: CLOUDFRONT_ZONE_ID,
        evaluateTargetHealth: false,
      }
    : {
        dnsName: context.attribute(id, 'dnsName'),
        hostedZoneId: context.attribute(id, 'hostedZoneId'),
        evaluateTargetHealth: true,
      };
}
