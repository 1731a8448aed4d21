/** Secrets, roles and who may take them, as CloudFormation has them. */
import { Aws, Fn, aws_iam as iam, aws_secretsmanager as secretsManager } from 'aws-cdk-lib';
import { tagsOf } from './context.ts';
import type { Translations } from './translations.ts';

export const identities: Translations<'secret' | 'rotation' | 'role' | 'oidc-provider'> = {
  secret: (context, one) => {
    new secretsManager.CfnSecret(context.stack, one.id, {
      name: one.name,
      description: one.description,
      generateSecretString: {
        secretStringTemplate: '{}',
        generateStringKey: 'value',
        passwordLength: one.lengthChars,
        excludePunctuation: true,
      },
      tags: tagsOf(one),
    });
  },
  rotation: (context, one) => {
    // Managed by the service whose secret it is: there is no function to name.
    new secretsManager.CfnRotationSchedule(context.stack, one.id, {
      secretId: context.text(one.secret),
      rotationRules: { automaticallyAfterDays: one.days },
      rotateImmediatelyOnUpdate: false,
    });
  },
  role: (context, one) => {
    const { trusts } = one;
    const conditions =
      'service' in trusts
        ? trusts.sourceAccountOnly
          ? { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } }
          : undefined
        : { StringEquals: { ...trusts.conditions } };
    new iam.CfnRole(context.stack, one.id, {
      roleName: one.name,
      description: one.purpose,
      assumeRolePolicyDocument: {
        Version: '2012-10-17',
        Statement: [
          {
            Effect: 'Allow',
            Principal:
              'service' in trusts
                ? { Service: trusts.service }
                : { Federated: context.arn(trusts.oidcProvider) },
            Action: 'service' in trusts ? 'sts:AssumeRole' : 'sts:AssumeRoleWithWebIdentity',
            ...(conditions === undefined ? {} : { Condition: conditions }),
          },
        ],
      },
      managedPolicyArns: one.managedPolicies.map((name) =>
        Fn.join('', ['arn:', Aws.PARTITION, ':iam::aws:policy/', name]),
      ),
      policies:
        one.statements.length === 0
          ? []
          : [
              {
                policyName: 'Starling',
                policyDocument: {
                  Version: '2012-10-17',
                  Statement: one.statements.map((statement) => ({
                    Sid: statement.sid,
                    Effect: 'Allow',
                    Action: [...statement.actions],
                    Resource: statement.resources.map((resource) => context.text(resource)),
                    ...(Object.keys(statement.conditions).length === 0
                      ? {}
                      : {
                          Condition: Object.fromEntries(
                            Object.entries(statement.conditions).map(([operator, values]) => [
                              operator,
                              Object.fromEntries(
                                Object.entries(values).map(([key, value]) => [key, context.text(value)]),
                              ),
                            ]),
                          ),
                        }),
                  })),
                },
              },
            ],
      tags: tagsOf(one),
    });
    if (one.instanceProfile !== null) {
      new iam.CfnInstanceProfile(context.stack, one.instanceProfile, {
        instanceProfileName: one.name,
        roles: [context.attribute(one.id, 'name')],
      });
    }
  },
  'oidc-provider': (context, one) => {
    new iam.CfnOIDCProvider(context.stack, one.id, {
      url: one.url,
      clientIdList: [...one.audiences],
      tags: tagsOf(one),
    });
  },
};
