/** Functions, HTTP APIs and MediaLive, as CloudFormation has them. */
import {
  Aws,
  aws_apigatewayv2 as apiGateway,
  Fn,
  aws_lambda as lambda,
  aws_medialive as mediaLive,
} from 'aws-cdk-lib';
import { tagsOf } from './context.ts';
import type { Translations } from './translations.ts';

export const serverless: Translations<'function' | 'http-api' | 'media-live-channel'> = {
  function: (context, one) => {
    const made = new lambda.CfnFunction(context.stack, one.id, {
      functionName: one.name,
      description: one.purpose,
      runtime: one.runtime,
      architectures: [one.architecture],
      handler: one.handler,
      code: { zipFile: one.code },
      memorySize: one.memoryMb,
      timeout: one.timeoutSeconds,
      reservedConcurrentExecutions: one.reservedConcurrency,
      role: context.arn(one.role),
      loggingConfig: { logGroup: context.attribute(one.logGroup, 'name'), logFormat: 'JSON' },
      environment: {
        variables: Object.fromEntries(
          Object.entries(one.environment).map(([name, value]) => [name, context.text(value)]),
        ),
      },
      tracingConfig: { mode: 'PassThrough' },
      tags: tagsOf(one),
    });
    context.dependsOn(made, one.role);
  },
  'http-api': (context, one) => {
    new apiGateway.CfnApi(context.stack, one.id, {
      name: one.name,
      protocolType: 'HTTP',
      description: one.purpose,
      tags: { ...one.tags },
    });
    const apiId = context.id(one.id);
    const integration = new apiGateway.CfnIntegration(context.stack, `${one.id}Integration`, {
      apiId,
      integrationType: 'AWS_PROXY',
      integrationUri: context.arn(one.function),
      integrationMethod: 'POST',
      payloadFormatVersion: '2.0',
    });
    for (const route of one.routes) {
      new apiGateway.CfnRoute(context.stack, route.id, {
        apiId,
        routeKey: `${route.method} ${route.path}`,
        authorizationType: 'NONE',
        target: Fn.join('/', ['integrations', Fn.ref(integration.logicalId)]),
      });
    }
    new apiGateway.CfnStage(context.stack, `${one.id}Stage`, {
      apiId,
      stageName: '$default',
      autoDeploy: true,
      accessLogSettings: {
        destinationArn: context.arn(one.logGroup),
        format: JSON.stringify({
          requestId: '$context.requestId',
          ip: '$context.identity.sourceIp',
          routeKey: '$context.routeKey',
          status: '$context.status',
          latencyMs: '$context.responseLatency',
        }),
      },
      defaultRouteSettings: {
        throttlingRateLimit: one.throttle.ratePerSecond,
        throttlingBurstLimit: one.throttle.burst,
      },
      tags: { ...one.tags },
    });
    new lambda.CfnPermission(context.stack, `${one.id}Permission`, {
      action: 'lambda:InvokeFunction',
      functionName: context.arn(one.function),
      principal: 'apigateway.amazonaws.com',
      sourceArn: Fn.join('', [
        'arn:',
        Aws.PARTITION,
        ':execute-api:',
        Aws.REGION,
        ':',
        Aws.ACCOUNT_ID,
        ':',
        apiId,
        '/*',
      ]),
    });
  },
  'media-live-channel': (context, one) => {
    const group = new mediaLive.CfnInputSecurityGroup(context.stack, one.inputSecurityGroup.id, {
      whitelistRules: one.inputSecurityGroup.cidrs.map((cidr) => ({ cidr })),
      tags: { ...one.tags },
    });
    const input = new mediaLive.CfnInput(context.stack, one.input.id, {
      name: `${one.name}-input`,
      type: 'RTMP_PUSH',
      inputSecurityGroups: [Fn.ref(group.logicalId)],
      destinations: [{ streamName: one.input.streamName }],
      tags: { ...one.tags },
    });
    const audio = 'audio';
    new mediaLive.CfnChannel(context.stack, one.id, {
      name: one.name,
      channelClass: 'SINGLE_PIPELINE',
      roleArn: context.arn(one.role),
      inputSpecification: { codec: 'AVC', maximumBitrate: 'MAX_10_MBPS', resolution: 'HD' },
      inputAttachments: [
        { inputId: Fn.ref(input.logicalId), inputAttachmentName: 'encoder', inputSettings: {} },
      ],
      destinations: one.rungs.map(({ name }) => ({
        id: name,
        settings: [
          { url: context.text(one.destination.url), streamName: `${one.destination.streamName}-${name}` },
        ],
      })),
      encoderSettings: {
        timecodeConfig: { source: 'SYSTEMCLOCK' },
        audioDescriptions: [
          {
            name: audio,
            audioSelectorName: 'default',
            codecSettings: {
              aacSettings: { bitrate: 128_000, sampleRate: 48_000, codingMode: 'CODING_MODE_2_0' },
            },
          },
        ],
        videoDescriptions: one.rungs.map((rung) => ({
          name: rung.name,
          width: rung.widthPx,
          height: rung.heightPx,
          codecSettings: {
            h264Settings: {
              bitrate: rung.bitrateBps,
              rateControlMode: 'CBR',
              gopSize: 2,
              gopSizeUnits: 'SECONDS',
              sceneChangeDetect: 'DISABLED',
              framerateControl: 'SPECIFIED',
              framerateNumerator: 25,
              framerateDenominator: 1,
            },
          },
        })),
        outputGroups: one.rungs.map((rung) => ({
          name: rung.name,
          outputGroupSettings: { rtmpGroupSettings: { authenticationScheme: 'COMMON' } },
          outputs: [
            {
              outputName: rung.name,
              videoDescriptionName: rung.name,
              audioDescriptionNames: [audio],
              outputSettings: { rtmpOutputSettings: { destination: { destinationRefId: rung.name } } },
            },
          ],
        })),
      },
      tags: { ...one.tags },
    });
  },
};
