/** Machines and containers, as CloudFormation has them. */
import { type Instance, type LaunchTemplate, resourcesOf } from '@starling/model/topology/plan';
import {
  aws_applicationautoscaling as applicationScaling,
  aws_autoscaling as autoscaling,
  aws_ec2 as ec2,
  aws_ecr as ecr,
  aws_ecs as ecs,
  aws_efs as efs,
  Fn,
} from 'aws-cdk-lib';
import { type Context, tagsOf } from './context.ts';
import type { Translations } from './translations.ts';

export const machines: Translations<
  | 'key-pair'
  | 'instance'
  | 'launch-template'
  | 'scaling-group'
  | 'repository'
  | 'container-cluster'
  | 'task-definition'
  | 'container-service'
  | 'file-system'
> = {
  'key-pair': (context, one) => {
    new ec2.CfnKeyPair(context.stack, one.id, {
      keyName: one.name,
      publicKeyMaterial:
        one.publicKey ??
        context.parameter(
          `${one.id}PublicKey`,
          `Public half of the key for ${one.of === 'bastion' ? 'the bastion' : 'the instances'}; starling infra keys makes it`,
          '^ssh-ed25519 [A-Za-z0-9+/]{68}=*( .*)?$',
        ),
      tags: tagsOf(one),
    });
  },
  instance: (context, one) => {
    const first = resourcesOf(context.plan, 'interface').find(
      (each) => each.instance === one.id && each.deviceIndex === 0,
    );
    if (first === undefined) throw new Error(`${one.id} has no interface`);
    new ec2.CfnInstance(context.stack, one.id, {
      ...machine(context, one),
      networkInterfaces: [{ deviceIndex: '0', networkInterfaceId: context.id(first.id) }],
      monitoring: one.detailedMonitoring,
      disableApiTermination: one.terminationProtection,
      creditSpecification: { cpuCredits: one.cpuCredits },
      ...(one.instanceRole === null ? {} : { iamInstanceProfile: profileOf(context, one.instanceRole) }),
      propagateTagsToVolumeOnCreation: true,
      tags: tagsOf(one),
    });
  },
  'launch-template': (context, one) => {
    const tagSpecifications = ['instance', 'volume'].map((resourceType) => ({
      resourceType,
      tags: tagsOf(one),
    }));
    new ec2.CfnLaunchTemplate(context.stack, one.id, {
      launchTemplateData: {
        ...machine(context, one),
        networkInterfaces: [
          {
            deviceIndex: 0,
            associatePublicIpAddress: one.hasPublicAddress,
            groups: context.ids(one.securityGroups),
          },
        ],
        monitoring: { enabled: one.detailedMonitoring },
        creditSpecification: { cpuCredits: one.cpuCredits },
        ...(one.instanceRole === null
          ? {}
          : { iamInstanceProfile: { name: profileOf(context, one.instanceRole) } }),
        tagSpecifications,
      },
      tagSpecifications: [{ resourceType: 'launch-template', tags: tagsOf(one) }],
    });
  },
  'scaling-group': (context, one) => {
    new autoscaling.CfnAutoScalingGroup(context.stack, one.id, {
      launchTemplate: {
        launchTemplateId: context.id(one.launchTemplate),
        version: Fn.getAtt(one.launchTemplate, 'LatestVersionNumber').toString(),
      },
      vpcZoneIdentifier: context.ids(one.subnets),
      minSize: String(one.minimum),
      maxSize: String(one.maximum),
      desiredCapacity: String(one.desired),
      targetGroupArns: one.targetGroups.map((id) => context.arn(id)),
      healthCheckType: one.healthCheck,
      healthCheckGracePeriod: one.healthCheckGraceSeconds,
      ...(one.notifies === null
        ? {}
        : {
            notificationConfigurations: [
              {
                topicArn: context.arn(one.notifies),
                notificationTypes: [
                  'autoscaling:EC2_INSTANCE_LAUNCH',
                  'autoscaling:EC2_INSTANCE_LAUNCH_ERROR',
                  'autoscaling:EC2_INSTANCE_TERMINATE',
                  'autoscaling:EC2_INSTANCE_TERMINATE_ERROR',
                ],
              },
            ],
          }),
      tags: tagsOf(one).map((tag) => ({ ...tag, propagateAtLaunch: true })),
    });
    new autoscaling.CfnScalingPolicy(context.stack, `${one.id}Policy`, {
      autoScalingGroupName: context.attribute(one.id, 'name'),
      policyType: 'TargetTrackingScaling',
      targetTrackingConfiguration: {
        predefinedMetricSpecification: { predefinedMetricType: 'ASGAverageCPUUtilization' },
        targetValue: one.targetCpuPercent,
      },
    });
  },
  repository: (context, one) => {
    new ecr.CfnRepository(context.stack, one.id, {
      repositoryName: one.name,
      // A digest never changes; a tag that could be moved would not be one to trust.
      imageTagMutability: 'IMMUTABLE',
      imageScanningConfiguration: { scanOnPush: true },
      encryptionConfiguration: { encryptionType: 'AES256' },
      lifecyclePolicy: {
        lifecyclePolicyText: JSON.stringify({
          rules: [
            {
              rulePriority: 1,
              selection: { tagStatus: 'any', countType: 'imageCountMoreThan', countNumber: one.keepImages },
              action: { type: 'expire' },
            },
          ],
        }),
      },
      tags: tagsOf(one),
    });
  },
  'container-cluster': (context, one) => {
    new ecs.CfnCluster(context.stack, one.id, {
      clusterName: one.name,
      clusterSettings: [{ name: 'containerInsights', value: one.insights ? 'enabled' : 'disabled' }],
      tags: tagsOf(one),
    });
  },
  'task-definition': (context, one) => {
    const digest = () =>
      context.parameter('ImageDigest', 'Digest of the image that runs: sha256:...', '^sha256:[0-9a-f]{64}$');
    const scratch = [...new Set(one.containers.flatMap((each) => each.scratch))];
    const scratchName = (path: string) => `scratch${path.replaceAll('/', '-')}`;
    new ecs.CfnTaskDefinition(context.stack, one.id, {
      family: one.family,
      requiresCompatibilities: ['FARGATE'],
      networkMode: 'awsvpc',
      cpu: String(one.cpuUnits),
      memory: String(one.memoryMb),
      executionRoleArn: context.arn(one.executionRole),
      taskRoleArn: context.arn(one.taskRole),
      volumes: [
        ...one.volumes.map(({ name, fileSystem, accessPoint }) => ({
          name,
          efsVolumeConfiguration: {
            filesystemId: context.id(fileSystem),
            transitEncryption: 'ENABLED',
            authorizationConfig: { accessPointId: Fn.ref(accessPoint), iam: 'ENABLED' },
          },
        })),
        ...scratch.map((path) => ({ name: scratchName(path) })),
      ],
      containerDefinitions: one.containers.map((each) => ({
        name: each.name,
        image: Fn.join('', [context.attribute(each.repository, 'uri'), '@', digest()]),
        command: [...each.command],
        user: each.user,
        essential: each.essential,
        readonlyRootFilesystem: each.readonlyRootFilesystem,
        privileged: false,
        linuxParameters: { capabilities: { drop: [...each.dropCapabilities] }, initProcessEnabled: true },
        portMappings: each.ports.map((containerPort) => ({ containerPort, protocol: 'tcp' })),
        environment: Object.entries(each.environment).map(([name, value]) => ({
          name,
          value: context.text(value),
        })),
        secrets: Object.entries(each.secrets).map(([name, value]) => ({
          name,
          valueFrom: context.text(value),
        })),
        mountPoints: [
          ...each.mounts.map(({ volume, path, readonly }) => ({
            sourceVolume: volume,
            containerPath: path,
            readOnly: readonly,
          })),
          ...each.scratch.map((path) => ({
            sourceVolume: scratchName(path),
            containerPath: path,
            readOnly: false,
          })),
        ],
        ...(each.healthCommand === null
          ? {}
          : {
              healthCheck: {
                command: [...each.healthCommand],
                interval: 10,
                timeout: 5,
                retries: 3,
                startPeriod: 60,
              },
            }),
        ...(each.after.length === 0
          ? {}
          : {
              dependsOn: each.after.map((containerName) => ({ containerName, condition: 'HEALTHY' })),
            }),
        stopTimeout: 30,
        logConfiguration: {
          logDriver: 'awslogs',
          options: {
            'awslogs-group': context.attribute(each.logGroup, 'name'),
            'awslogs-region': context.plan.deployment.region,
            'awslogs-stream-prefix': each.name,
          },
        },
      })),
      tags: tagsOf(one),
    });
  },
  'container-service': (context, one) => {
    const service = new ecs.CfnService(context.stack, one.id, {
      serviceName: one.name,
      cluster: context.arn(one.cluster),
      taskDefinition: context.arn(one.taskDefinition),
      launchType: 'FARGATE',
      platformVersion: 'LATEST',
      desiredCount: one.desired,
      deploymentConfiguration: {
        minimumHealthyPercent: 100,
        maximumPercent: 200,
        deploymentCircuitBreaker: { enable: true, rollback: true },
      },
      networkConfiguration: {
        awsvpcConfiguration: {
          subnets: context.ids(one.subnets),
          securityGroups: context.ids(one.securityGroups),
          assignPublicIp: one.hasPublicAddress ? 'ENABLED' : 'DISABLED',
        },
      },
      loadBalancers: one.targets.map((target) => ({
        containerName: target.container,
        containerPort: target.port,
        targetGroupArn: context.arn(target.targetGroup),
      })),
      ...(one.targets.length === 0 ? {} : { healthCheckGracePeriodSeconds: one.healthCheckGraceSeconds }),
      enableEcsManagedTags: true,
      propagateTags: 'SERVICE',
      tags: tagsOf(one),
    });
    // A target group takes members only when a listener uses it.
    for (const listener of resourcesOf(context.plan, 'listener')) {
      const uses = (id: string) =>
        (listener.action.kind === 'forward' && listener.action.targetGroup === id) ||
        listener.rules.some((rule) => rule.targetGroup === id);
      if (one.targets.some(({ targetGroup }) => uses(targetGroup))) context.dependsOn(service, listener.id);
    }
    const target = new applicationScaling.CfnScalableTarget(context.stack, `${one.id}Target`, {
      serviceNamespace: 'ecs',
      scalableDimension: 'ecs:service:DesiredCount',
      resourceId: Fn.join('/', [
        'service',
        context.attribute(one.cluster, 'name'),
        context.attribute(one.id, 'name'),
      ]),
      minCapacity: one.minimum,
      maxCapacity: one.maximum,
    });
    new applicationScaling.CfnScalingPolicy(context.stack, `${one.id}Policy`, {
      policyName: `${one.name}-cpu`,
      policyType: 'TargetTrackingScaling',
      scalingTargetId: Fn.ref(target.logicalId),
      targetTrackingScalingPolicyConfiguration: {
        predefinedMetricSpecification: { predefinedMetricType: 'ECSServiceAverageCPUUtilization' },
        targetValue: one.targetCpuPercent,
      },
    });
  },
  'file-system': (context, one) => {
    new efs.CfnFileSystem(context.stack, one.id, {
      encrypted: one.encrypted,
      backupPolicy: { status: 'ENABLED' },
      fileSystemTags: tagsOf(one),
    });
    const targets = one.subnets.map(
      (subnet) =>
        new efs.CfnMountTarget(context.stack, `${one.id}In${subnet}`, {
          fileSystemId: context.id(one.id),
          subnetId: context.id(subnet),
          securityGroups: context.ids(one.securityGroups),
        }),
    );
    if (one.accessPoint === null) return;
    const { id, path, uid, gid } = one.accessPoint;
    const accessPoint = new efs.CfnAccessPoint(context.stack, id, {
      fileSystemId: context.id(one.id),
      posixUser: { uid: String(uid), gid: String(gid) },
      rootDirectory: {
        path,
        creationInfo: { ownerUid: String(uid), ownerGid: String(gid), permissions: '0750' },
      },
      accessPointTags: tagsOf(one),
    });
    for (const target of targets) accessPoint.addResourceDependency(target);
  },
};

/** What an instance and a launch template say in the same words. */
function machine(context: Context, one: Instance | LaunchTemplate) {
  return {
    imageId: `{{resolve:ssm:${one.image.ssmParameter}}}`,
    instanceType: one.instanceType,
    ...(one.keyPair === null ? {} : { keyName: context.attribute(one.keyPair, 'name') }),
    metadataOptions: {
      httpEndpoint: 'enabled',
      httpTokens: one.metadata.httpTokens,
      httpPutResponseHopLimit: one.metadata.hopLimit,
    },
    blockDeviceMappings: [
      {
        deviceName: '/dev/xvda',
        ebs: {
          volumeSize: one.rootVolume.sizeGb,
          volumeType: one.rootVolume.type,
          encrypted: one.rootVolume.encrypted,
          deleteOnTermination: true,
        },
      },
    ],
    userData: Fn.base64(context.text(one.userData)),
  };
}

function profileOf(context: Context, role: string): string {
  const found = resourcesOf(context.plan, 'role').find((one) => one.id === role);
  if (found?.instanceProfile == null) throw new Error(`${role} has no instance profile`);
  return Fn.ref(found.instanceProfile);
}
