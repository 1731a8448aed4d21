/** Logs, alarms, budgets and schedules, as CloudFormation has them. */
import {
  Aws,
  aws_budgets as budgets,
  aws_cloudwatch as cloudWatch,
  aws_guardduty as guardDuty,
  aws_logs as logs,
  aws_scheduler as scheduler,
  aws_sns as sns,
} from 'aws-cdk-lib';
import { tagsOf } from './context.ts';
import type { Translations } from './translations.ts';

export const watching: Translations<
  'log-group' | 'metric-filter' | 'topic' | 'alarm' | 'threat-detector' | 'budget' | 'schedule'
> = {
  'log-group': (context, one) => {
    new logs.CfnLogGroup(context.stack, one.id, {
      logGroupName: one.name,
      retentionInDays: one.retentionDays,
      tags: tagsOf(one),
    });
  },
  'metric-filter': (context, one) => {
    new logs.CfnMetricFilter(context.stack, one.id, {
      logGroupName: context.attribute(one.logGroup, 'name'),
      filterPattern: one.pattern,
      metricTransformations: [
        { metricName: one.metric, metricNamespace: one.namespace, metricValue: '1', defaultValue: 0 },
      ],
    });
  },
  topic: (context, one) => {
    new sns.CfnTopic(context.stack, one.id, { topicName: one.name, tags: tagsOf(one) });
    if (one.email !== null) {
      new sns.CfnSubscription(context.stack, `${one.id}Email`, {
        topicArn: context.arn(one.id),
        protocol: 'email',
        endpoint: one.email,
      });
    }
    new sns.CfnTopicPolicy(context.stack, `${one.id}Policy`, {
      topics: [context.arn(one.id)],
      policyDocument: {
        Version: '2012-10-17',
        Statement: [
          {
            Sid: 'Services',
            Effect: 'Allow',
            Principal: { Service: [...one.publishers] },
            Action: 'sns:Publish',
            Resource: context.arn(one.id),
            Condition: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
          },
          {
            Sid: 'TlsOnly',
            Effect: 'Deny',
            Principal: '*',
            Action: 'sns:Publish',
            Resource: context.arn(one.id),
            Condition: { Bool: { 'aws:SecureTransport': 'false' } },
          },
        ],
      },
    });
  },
  alarm: (context, one) => {
    new cloudWatch.CfnAlarm(context.stack, one.id, {
      alarmName: one.name,
      alarmDescription: one.description,
      namespace: one.namespace,
      metricName: one.metric,
      dimensions: Object.entries(one.dimensions).map(([name, value]) => ({
        name,
        value: context.text(value),
      })),
      statistic: one.statistic,
      period: one.periodSeconds,
      evaluationPeriods: one.evaluationPeriods,
      threshold: one.threshold,
      comparisonOperator: one.comparison,
      treatMissingData: one.missingData,
      alarmActions: [context.arn(one.topic)],
      okActions: [context.arn(one.topic)],
      tags: tagsOf(one),
    });
  },
  'threat-detector': (context, one) => {
    new guardDuty.CfnDetector(context.stack, one.id, {
      enable: true,
      findingPublishingFrequency: one.publishing,
      tags: tagsOf(one),
    });
  },
  budget: (context, one) => {
    new budgets.CfnBudget(context.stack, one.id, {
      budget: {
        budgetName: one.name,
        budgetType: 'COST',
        timeUnit: 'MONTHLY',
        budgetLimit: { amount: one.limitUsd, unit: 'USD' },
        costFilters: { TagKeyValue: [`user:starling:deployment$${context.plan.deployment.name}`] },
      },
      notificationsWithSubscribers: one.thresholdsPercent.map((threshold) => ({
        notification: {
          comparisonOperator: 'GREATER_THAN',
          notificationType: 'ACTUAL',
          threshold,
          thresholdType: 'PERCENTAGE',
        },
        subscribers: [{ subscriptionType: 'EMAIL', address: one.email }],
      })),
    });
  },
  schedule: (context, one) => {
    new scheduler.CfnSchedule(context.stack, one.id, {
      name: one.name,
      description: one.purpose,
      scheduleExpression: one.expression,
      scheduleExpressionTimezone: one.timeZone,
      flexibleTimeWindow: { mode: 'OFF' },
      state: 'ENABLED',
      target: {
        arn: one.call,
        roleArn: context.arn(one.role),
        input: context.text(one.input),
        retryPolicy: { maximumEventAgeInSeconds: 3600, maximumRetryAttempts: 10 },
      },
    });
  },
};
