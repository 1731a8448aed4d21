/**
 * A plan as CloudFormation templates, through AWS's CDK: one for the region, and one for us-east-1 where the plan has
 * resources that AWS takes only there. Synthesis asks nobody: no account, no lookups, no assets.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kind, Plan, Resource } from '@starling/model/topology/plan';
import {
  App,
  BootstraplessSynthesizer,
  CfnOutput,
  type IStackSynthesizer,
  Stack,
  Validations,
} from 'aws-cdk-lib';
import { Context, type StackName } from './context.ts';
import { data } from './data.ts';
import { delivery } from './delivery.ts';
import { identities } from './identities.ts';
import { machines } from './machines.ts';
import { network } from './network.ts';
import { serverless } from './serverless.ts';
import { watching } from './watching.ts';

/** One stack, in the order in which they are deployed. */
export interface StackTemplate {
  /** `starling-main` */
  readonly name: string;
  readonly region: string;
  /** CloudFormation's JSON. A parameter is given by who deploys, or it is the output of the same name of another stack. */
  readonly template: CloudFormationTemplate;
}
export interface CloudFormationTemplate {
  readonly Resources: Readonly<
    Record<string, { readonly Type: string; readonly Properties?: Readonly<Record<string, unknown>> }>
  >;
  readonly Parameters?: Readonly<Record<string, { readonly Description: string }>>;
  readonly Outputs?: Readonly<Record<string, unknown>>;
}

const translations: { readonly [K in Kind]: (context: Context, resource: never) => void } = {
  ...network,
  ...machines,
  ...delivery,
  ...data,
  ...identities,
  ...watching,
  ...serverless,
};

/** Resources of the edge have to be in this region. */
const EDGE_REGION = 'us-east-1';

/**
 * Builds the app, so that others can look at it before it is synthesised.
 * @param outdir folder for the cloud assembly
 */
export function buildApp(plan: Plan, outdir: string): { app: App; contexts: readonly Context[] } {
  const app = new App({
    outdir,
    analyticsReporting: false,
    treeMetadata: false,
    // A property that AWS does not know is an error here, not a warning.
    context: { '@aws-cdk/core:validateAgainstDefaultRules': true },
  });
  Validations.of(app).acknowledge({
    id: 'CloudFormation-Validate::W3010',
    reason: 'Zones are part of the plan: addresses and routes are worked out for them.',
  });
  const { name } = plan.deployment;
  const stackNames: readonly StackName[] = plan.resources.some((one) => one.stack === 'edge')
    ? ['edge', 'main']
    : ['main'];
  const contexts = stackNames.map((stackName) => {
    const stack = new Stack(app, `${name}-${stackName}`, {
      stackName: `${name}-${stackName}`,
      description:
        stackName === 'edge'
          ? `Starling, ${plan.deployment.profile}: what has to be in ${EDGE_REGION}`
          : `Starling, ${plan.deployment.profile}`,
      env: { region: stackName === 'edge' ? EDGE_REGION : plan.deployment.region },
      synthesizer: new BootstraplessSynthesizer({}) as IStackSynthesizer,
      tags: { 'starling:deployment': name },
    });
    const context = new Context(plan, stackName, stack);
    for (const resource of plan.resources) {
      if (resource.stack === stackName) translate(context, resource);
    }
    context.finish();
    return context;
  });
  for (const context of contexts) addOutputs(context, contexts);
  const [first, second] = contexts;
  if (first !== undefined && second !== undefined) second.stack.addStackDependency(first.stack);
  return { app, contexts };
}

/** The templates of a plan; the same plan gives the same bytes. */
export function synthesize(plan: Plan): readonly StackTemplate[] {
  const outdir = mkdtempSync(join(tmpdir(), 'starling-cdk-'));
  try {
    return writeAssembly(plan, outdir);
  } finally {
    rmSync(outdir, { recursive: true, force: true });
  }
}

/**
 * Writes a cloud assembly, as the CDK has them: `manifest.json` and a template for each stack. `starling infra deploy`
 * and AWS's own `cdk deploy --app` read it.
 */
export function writeAssembly(plan: Plan, folder: string): readonly StackTemplate[] {
  const { app, contexts } = buildApp(plan, folder);
  const assembly = app.synth();
  if (assembly.manifest.missing !== undefined && assembly.manifest.missing.length > 0) {
    throw new Error(`the synthesis wants to ask AWS: ${JSON.stringify(assembly.manifest.missing)}`);
  }
  return contexts.map((context) => {
    const { stackName, templateFullPath } = assembly.getStackByName(context.stack.stackName);
    return {
      name: stackName,
      region: context.stackName === 'edge' ? EDGE_REGION : plan.deployment.region,
      template: JSON.parse(readFileSync(templateFullPath, 'utf8')) as CloudFormationTemplate,
    };
  });
}

function translate(context: Context, resource: Resource): void {
  translations[resource.kind](context, resource as never);
}

/** What the plan shows the operator, and what the other stack needs. */
function addOutputs(context: Context, all: readonly Context[]): void {
  const { plan, stack, stackName } = context;
  for (const [name, { value, description }] of Object.entries(plan.outputs)) {
    const ids = [...value.matchAll(/\$\{([A-Za-z0-9]+)\./g)].map((match) => match[1]);
    const stacks = new Set(plan.resources.filter((one) => ids.includes(one.id)).map((one) => one.stack));
    const home: StackName = stacks.size === 1 && stacks.has('edge') ? 'edge' : 'main';
    if (home !== stackName) continue;
    // A resource may have the name; `starling schedule` looks for SchedulerRoleArn.
    const isTaken = plan.resources.some(({ id }) => id === capital(name));
    new CfnOutput(stack, `${capital(name)}${isTaken ? 'Output' : ''}`, {
      value: context.text(value),
      description,
    });
  }
  for (const other of all) {
    if (other === context) continue;
    for (const [parameter, { id, attribute }] of other.asked) {
      new CfnOutput(stack, parameter, {
        value: context.attribute(id, attribute),
        description: `For the stack ${other.stack.stackName}`,
      });
    }
  }
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
