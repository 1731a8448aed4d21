/**
 * The templates of every profile, judged by AWS's own validator (which runs in every synthesis, and whose errors end
 * it), by cdk-nag, and by a second reading of who can reach whom.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { profiles } from '@starling/model/topology/deployment';
import { drawPlan } from '@starling/model/topology/draw-plan';
import { reachabilityTable, viewOfPlan } from '@starling/model/topology/reachability';
import { CfnResource, Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks } from 'cdk-nag';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  buildApp,
  type CloudFormationTemplate,
  type StackTemplate,
  synthesize,
} from '../../src/cloudformation/synthesize.ts';
import { accepted } from './nag-accepted.ts';
import { networkOfTemplate } from './network-of-template.ts';

const SYNTHESIS_TIMEOUT_MS = 120_000;
const templates = new Map<string, readonly StackTemplate[]>();
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'starling-cdk-test-'));
  for (const profile of profiles)
    templates.set(profile, synthesize(drawPlan({ profile, region: 'us-east-1' })));
}, SYNTHESIS_TIMEOUT_MS);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const mainOf = (profile: string): CloudFormationTemplate => {
  const found = templates.get(profile)?.find(({ name }) => name.endsWith('-main'));
  if (found === undefined) throw new Error(`${profile} has no main stack`);
  return found.template;
};

describe.each(profiles)('%s', (profile) => {
  it(
    'is valid in eu-west-1, too, and differs from us-east-1 by nothing but the region',
    () => {
      const text = (stacks: readonly StackTemplate[] | undefined, region: string) =>
        JSON.stringify(stacks)
          .replaceAll(region, 'REGION')
          .replace(/"pl-[0-9a-f]+"/g, '"pl"');
      const inEurope = synthesize(drawPlan({ profile, region: 'eu-west-1' }));
      // us-east-1 also stands for what AWS takes only there.
      const withoutEdge = (stacks: readonly StackTemplate[] | undefined) =>
        stacks?.filter(({ name }) => name.endsWith('-main'));
      expect(text(withoutEdge(inEurope), 'eu-west-1')).toBe(
        text(withoutEdge(templates.get(profile)), 'us-east-1'),
      );
    },
    SYNTHESIS_TIMEOUT_MS,
  );

  it('lets through what the plan says, and nothing else, port by port', () => {
    const plan = drawPlan({ profile, region: 'us-east-1' });
    const ours = reachabilityTable(viewOfPlan(plan));
    expect(ours.filter(({ reaches }) => reaches).length).toBeGreaterThan(5);
    expect(reachabilityTable(networkOfTemplate(mainOf(profile)))).toEqual(ours);
  });

  it('gives each parameter of a stack the output of another that has its name', () => {
    for (const stack of templates.get(profile) ?? []) {
      const others = (templates.get(profile) ?? []).filter((other) => other !== stack);
      const outputs = others.flatMap(({ template }) => Object.keys(template.Outputs ?? {}));
      // The others are given by who deploys: public keys, and the digest of the image.
      const asked = Object.entries(stack.template.Parameters ?? {}).flatMap(([parameter, { Description }]) =>
        /, an output of the \w+ stack$/.test(Description) ? [parameter] : [],
      );
      expect(outputs).toEqual(expect.arrayContaining(asked));
    }
  });

  it('holds no secret, and no more than CloudFormation takes', () => {
    for (const { template } of templates.get(profile) ?? []) {
      const text = JSON.stringify(template);
      expect(text).not.toMatch(/PRIVATE KEY|AKIA[0-9A-Z]{16}|"MasterUserPassword"/);
      // 1 MB is the limit of a template that comes out of a bucket.
      expect(text.length).toBeLessThan(1_000_000);
      expect(Object.keys(template.Resources).length).toBeLessThanOrEqual(500);
    }
  });

  it(
    'has no finding of cdk-nag but those that are accepted with a reason',
    () => {
      const out = join(folder, profile);
      const { app } = buildApp(drawPlan({ profile, region: 'us-east-1' }), out);
      Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
      // It throws where there are findings; they are in the report.
      try {
        app.synth();
      } catch (error) {
        expect((error as Error).name).toBe('ValidationFailed');
      }
      expect(unaccepted(join(out, 'validation-report.json'))).toEqual([]);
    },
    SYNTHESIS_TIMEOUT_MS,
  );
});

it(
  'the same plan gives the same bytes',
  () => {
    const again = synthesize(drawPlan({ profile: 'production-containers', region: 'us-east-1' }));
    expect(JSON.stringify(again)).toBe(JSON.stringify(templates.get('production-containers')));
  },
  SYNTHESIS_TIMEOUT_MS,
);

it(
  'a property that AWS does not know ends the synthesis',
  () => {
    const { app, contexts } = buildApp(
      drawPlan({ profile: 'classic-iptv', region: 'us-east-1' }),
      join(folder, 'bad'),
    );
    new CfnResource(contexts.at(-1)?.stack ?? app, 'Bad', {
      type: 'AWS::SecretsManager::RotationSchedule',
      properties: { SecretId: 'x', RotationInterval: 30 },
    });
    expect(() => app.synth()).toThrow();
    expect(readFileSync(join(folder, 'bad', 'validation-report.json'), 'utf8')).toContain('RotationInterval');
  },
  SYNTHESIS_TIMEOUT_MS,
);

it('one rule less in a security group changes the table', () => {
  const template = mainOf('classic-iptv');
  const before = JSON.stringify(reachabilityTable(networkOfTemplate(template)));
  const rules = Object.entries(template.Resources).flatMap(([id, { Type, Properties }]) =>
    Type === 'AWS::EC2::SecurityGroup'
      ? ((Properties?.SecurityGroupIngress as unknown[] | undefined) ?? []).map(
          (_, index) => [id, index] as const,
        )
      : [],
  );
  fc.assert(
    fc.property(fc.constantFrom(...rules), ([id, index]) => {
      const changed = structuredClone(template);
      const ingress = changed.Resources[id]?.Properties?.SecurityGroupIngress;
      if (Array.isArray(ingress)) ingress.splice(index, 1);
      return JSON.stringify(reachabilityTable(networkOfTemplate(changed))) !== before;
    }),
    { numRuns: 40 },
  );
});

interface Report {
  readonly pluginReports: readonly {
    readonly violations?: readonly {
      readonly ruleName: string;
      readonly violatingConstructs?: readonly { readonly constructPath?: string }[];
    }[];
  }[];
}

/** `AwsSolutions-EC23 on AlbGroup`, for what nobody has accepted. */
function unaccepted(reportPath: string): string[] {
  const { pluginReports } = JSON.parse(readFileSync(reportPath, 'utf8')) as Report;
  return pluginReports
    .flatMap(({ violations }) => violations ?? [])
    .flatMap(({ ruleName, violatingConstructs }) =>
      (violatingConstructs ?? []).map(
        ({ constructPath = '' }) => [ruleName, constructPath.split('/')[1] ?? ''] as const,
      ),
    )
    .filter(([rule]) => rule.startsWith('AwsSolutions'))
    .filter(
      ([rule, id]) =>
        !accepted.some(
          (one) =>
            (rule === one.rule || rule.startsWith(`${one.rule}[`)) &&
            one.resources.some((name) =>
              name.endsWith('*') ? id.startsWith(name.slice(0, -1)) : id === name,
            ),
        ),
    )
    .map(([rule, id]) => `${rule} on ${id}`);
}
