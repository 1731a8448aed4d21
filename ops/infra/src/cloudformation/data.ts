/** Databases, caches, tables and buckets, as CloudFormation has them. */
import {
  Aws,
  CfnDeletionPolicy,
  type CfnResource,
  aws_dynamodb as dynamodb,
  aws_elasticache as elasticache,
  Fn,
  aws_rds as rds,
  aws_s3 as s3,
} from 'aws-cdk-lib';
import { tagsOf } from './context.ts';
import type { Translations } from './translations.ts';

export const data: Translations<
  'subnet-group' | 'parameter-group' | 'database' | 'aurora-cluster' | 'cache' | 'table' | 'bucket'
> = {
  'subnet-group': (context, one) => {
    if (one.for === 'database') {
      new rds.CfnDBSubnetGroup(context.stack, one.id, {
        dbSubnetGroupName: one.name,
        dbSubnetGroupDescription: one.purpose,
        subnetIds: context.ids(one.subnets),
        tags: tagsOf(one),
      });
    } else {
      new elasticache.CfnSubnetGroup(context.stack, one.id, {
        cacheSubnetGroupName: one.name,
        description: one.purpose,
        subnetIds: context.ids(one.subnets),
        tags: tagsOf(one),
      });
    }
  },
  'parameter-group': (context, one) => {
    if (one.for === 'database') {
      new rds.CfnDBParameterGroup(context.stack, one.id, {
        family: one.family,
        description: one.purpose,
        parameters: { ...one.parameters },
        tags: tagsOf(one),
      });
    } else {
      new rds.CfnDBClusterParameterGroup(context.stack, one.id, {
        family: one.family,
        description: one.purpose,
        parameters: { ...one.parameters },
        tags: tagsOf(one),
      });
    }
  },
  database: (context, one) => {
    keep(
      new rds.CfnDBInstance(context.stack, one.id, {
        dbInstanceIdentifier: one.name,
        engine: one.engine,
        engineVersion: one.engineVersion,
        dbInstanceClass: one.instanceClass,
        allocatedStorage: String(one.storageGb),
        storageType: 'gp3',
        storageEncrypted: one.encrypted,
        multiAz: one.multiAz,
        ...(one.multiAz || one.zone === null ? {} : { availabilityZone: one.zone }),
        dbSubnetGroupName: context.attribute(one.subnetGroup, 'name'),
        dbParameterGroupName: context.attribute(one.parameterGroup, 'name'),
        vpcSecurityGroups: context.ids(one.securityGroups),
        publiclyAccessible: one.isPublic,
        dbName: one.databaseName,
        masterUsername: one.userName,
        manageMasterUserPassword: one.managesPassword,
        port: String(one.port),
        backupRetentionPeriod: one.backupDays,
        copyTagsToSnapshot: true,
        deleteAutomatedBackups: false,
        deletionProtection: one.deletionProtection,
        autoMinorVersionUpgrade: true,
        enableCloudwatchLogsExports: [...one.logExports],
        caCertificateIdentifier: one.caCertificate,
        tags: tagsOf(one),
      }),
    );
  },
  'aurora-cluster': (context, one) => {
    keep(
      new rds.CfnDBCluster(context.stack, one.id, {
        dbClusterIdentifier: one.name,
        engine: 'aurora-postgresql',
        engineMode: 'provisioned',
        engineVersion: one.engineVersion,
        serverlessV2ScalingConfiguration: {
          minCapacity: one.minAcu,
          maxCapacity: one.maxAcu,
          ...(one.pauseAfterSeconds === null ? {} : { secondsUntilAutoPause: one.pauseAfterSeconds }),
        },
        dbSubnetGroupName: context.attribute(one.subnetGroup, 'name'),
        dbClusterParameterGroupName: context.attribute(one.parameterGroup, 'name'),
        vpcSecurityGroupIds: context.ids(one.securityGroups),
        databaseName: one.databaseName,
        masterUsername: one.userName,
        manageMasterUserPassword: one.managesPassword,
        port: one.port,
        storageEncrypted: one.encrypted,
        backupRetentionPeriod: one.backupDays,
        copyTagsToSnapshot: true,
        deletionProtection: one.deletionProtection,
        enableCloudwatchLogsExports: [...one.logExports],
        tags: tagsOf(one),
      }),
    );
    new rds.CfnDBInstance(context.stack, one.writer.id, {
      dbClusterIdentifier: context.id(one.id),
      engine: 'aurora-postgresql',
      dbInstanceClass: 'db.serverless',
      availabilityZone: one.writer.zone,
      publiclyAccessible: one.isPublic,
      autoMinorVersionUpgrade: true,
      tags: tagsOf(one),
    });
  },
  cache: (context, one) => {
    new elasticache.CfnReplicationGroup(context.stack, one.id, {
      replicationGroupId: one.name,
      replicationGroupDescription: one.purpose,
      engine: one.engine,
      engineVersion: one.engineVersion,
      cacheNodeType: one.nodeType,
      numCacheClusters: one.nodes,
      automaticFailoverEnabled: one.nodes > 1,
      multiAzEnabled: one.multiAz,
      cacheSubnetGroupName: context.attribute(one.subnetGroup, 'name'),
      securityGroupIds: context.ids(one.securityGroups),
      port: one.port,
      transitEncryptionEnabled: one.encryptedInTransit,
      atRestEncryptionEnabled: one.encryptedAtRest,
      ...(one.password === null
        ? {}
        : {
            authToken: Fn.join('', [
              '{{resolve:secretsmanager:',
              context.arn(one.password),
              ':SecretString:value}}',
            ]),
          }),
      autoMinorVersionUpgrade: true,
      snapshotRetentionLimit: one.snapshotDays,
      tags: tagsOf(one),
    });
  },
  table: (context, one) => {
    const keys = [one.partitionKey, ...(one.sortKey === null ? [] : [one.sortKey])];
    keep(
      new dynamodb.CfnTable(context.stack, one.id, {
        tableName: one.name,
        billingMode: 'PAY_PER_REQUEST',
        attributeDefinitions: keys.map((attributeName) => ({ attributeName, attributeType: 'S' })),
        keySchema: keys.map((attributeName, index) => ({
          attributeName,
          keyType: index === 0 ? 'HASH' : 'RANGE',
        })),
        pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: one.pointInTimeRecovery },
        sseSpecification: { sseEnabled: true },
        ...(one.expiryAttribute === null
          ? {}
          : { timeToLiveSpecification: { attributeName: one.expiryAttribute, enabled: true } }),
        tags: tagsOf(one),
      }),
    );
  },
  bucket: (context, one) => {
    const isForLogs = one.holds === 'logs';
    keep(
      new s3.CfnBucket(context.stack, one.id, {
        bucketName: context.text(one.name),
        bucketEncryption: {
          serverSideEncryptionConfiguration: [{ serverSideEncryptionByDefault: { sseAlgorithm: 'AES256' } }],
        },
        publicAccessBlockConfiguration: {
          blockPublicAcls: true,
          blockPublicPolicy: true,
          ignorePublicAcls: true,
          restrictPublicBuckets: true,
        },
        // The CDN's access logs come with an access list; all else goes by policy.
        ownershipControls: {
          rules: [{ objectOwnership: isForLogs ? 'BucketOwnerPreferred' : 'BucketOwnerEnforced' }],
        },
        ...(one.versioned ? { versioningConfiguration: { status: 'Enabled' } } : {}),
        lifecycleConfiguration: {
          rules: [
            {
              id: 'Age',
              status: 'Enabled',
              ...(one.lifecyclePrefix === '' ? {} : { prefix: one.lifecyclePrefix }),
              transitions: one.transitions.map(({ days, storageClass }) => ({
                transitionInDays: days,
                storageClass,
              })),
              ...(one.expireDays === null ? {} : { expirationInDays: one.expireDays }),
              ...(one.versioned ? { noncurrentVersionExpiration: { noncurrentDays: 30 } } : {}),
            },
            {
              id: 'Unfinished',
              status: 'Enabled',
              abortIncompleteMultipartUpload: { daysAfterInitiation: 7 },
            },
          ],
        },
        ...(one.logsTo === null
          ? {}
          : {
              loggingConfiguration: {
                destinationBucketName: context.attribute(one.logsTo, 'name'),
                logFilePrefix: `s3/${one.holds}/`,
              },
            }),
        tags: tagsOf(one),
      }),
    );
    const inside = Fn.join('', [context.arn(one.id), '/*']);
    const bySource = { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } };
    new s3.CfnBucketPolicy(context.stack, `${one.id}Policy`, {
      bucket: context.attribute(one.id, 'name'),
      policyDocument: {
        Version: '2012-10-17',
        Statement: [
          {
            Sid: 'TlsOnly',
            Effect: 'Deny',
            Principal: '*',
            Action: 's3:*',
            Resource: [context.arn(one.id), inside],
            Condition: { Bool: { 'aws:SecureTransport': 'false' } },
          },
          ...(isForLogs
            ? [
                {
                  Sid: 'S3Logs',
                  Effect: 'Allow',
                  Principal: { Service: 'logging.s3.amazonaws.com' },
                  Action: 's3:PutObject',
                  Resource: inside,
                  Condition: bySource,
                },
                {
                  Sid: 'LoadBalancerLogs',
                  Effect: 'Allow',
                  Principal: { Service: 'logdelivery.elasticloadbalancing.amazonaws.com' },
                  Action: 's3:PutObject',
                  Resource: inside,
                  Condition: bySource,
                },
                {
                  Sid: 'NetworkLoadBalancerLogs',
                  Effect: 'Allow',
                  Principal: { Service: 'delivery.logs.amazonaws.com' },
                  Action: 's3:PutObject',
                  Resource: inside,
                  Condition: bySource,
                },
                {
                  Sid: 'NetworkLoadBalancerLogsCheck',
                  Effect: 'Allow',
                  Principal: { Service: 'delivery.logs.amazonaws.com' },
                  Action: 's3:GetBucketAcl',
                  Resource: context.arn(one.id),
                  Condition: bySource,
                },
              ]
            : []),
        ],
      },
    });
  },
};

/** Removing the stack does not remove what people would miss: databases leave a snapshot, files stay. */
function keep(resource: CfnResource): void {
  const isDatabase = /^AWS::RDS::/.test(resource.cfnResourceType);
  const policy = isDatabase ? CfnDeletionPolicy.SNAPSHOT : CfnDeletionPolicy.RETAIN;
  resource.cfnOptions.deletionPolicy = policy;
  resource.cfnOptions.updateReplacePolicy = policy;
}
