/**
 * The deployment's stacks of CloudFormation: made, changed and removed. Always through a change set, so that what is
 * going to happen is known before it does.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Change, Parameter, Stack } from '@aws-sdk/client-cloudformation';
import { type Aws, awsErrorName, isMissing } from './aws.ts';
import { OperateError } from './error.ts';
import { removeSchedules, syncSchedules } from './schedules.ts';
import { checkDeploymentName, DEPLOYMENT_TAG } from './units.ts';

/** Of a template in a call, and in a bucket (CloudFormation User Guide, "Understand CloudFormation quotas"). */
const MAX_BYTES_IN_CALL = 51_200;
const MAX_BYTES_IN_BUCKET = 1_000_000;
const CHANGE_SET = 'starling';
const MINUTE_MS = 60_000;
/** CloudFront and databases in two zones take the longest. */
const STACK_DEADLINE_MS = 90 * MINUTE_MS;

interface Template {
  readonly stack: string;
  /** Undefined: wherever the command works. */
  readonly region: string | undefined;
  readonly body: string;
  /** Names of its parameters. */
  readonly parameters: readonly string[];
  readonly isProtected: boolean;
}

export interface StackChange {
  readonly action: string;
  readonly resource: string;
  readonly type: string;
  /** Whether the resource is removed and made anew, with what it holds: `True`, `Conditional`. */
  readonly replacement: string | undefined;
}

export interface StackChanges {
  readonly stack: string;
  readonly region: string;
  readonly isNew: boolean;
  /** Nothing changes at all. Where it is false and there are no changes, outputs, parameters or tags do. */
  readonly isEmpty: boolean;
  readonly changes: readonly StackChange[];
}

export interface DeployOptions {
  /** A template, or a folder that `starling infra synth` wrote. */
  readonly path: string;
  readonly parameters: ReadonlyMap<string, string>;
  /** Takes templates that are too long for a call. In the region of their stack; it has to exist. */
  readonly bucket?: string | undefined;
}

export interface DeployedStack extends StackChanges {
  readonly outputs: Readonly<Record<string, string>>;
}

/**
 * Makes the stacks what the templates say, one after the other.
 * @param confirm is asked before each change set is executed
 * @throws OperateError NOT_CONFIRMED, STACK_FAILED, ...
 */
export async function deployStacks(
  aws: Aws,
  name: string,
  options: DeployOptions,
  confirm: (changes: StackChanges) => Promise<boolean>,
): Promise<DeployedStack[]> {
  const deployed: DeployedStack[] = [];
  // What a stack asks of those before it: their outputs of the same names.
  const parameters = new Map(options.parameters);
  for (const template of readTemplates(name, options)) {
    const there = await regionOf(aws, template);
    const changes = await prepare(there, name, template, { ...options, parameters });
    if (!changes.isEmpty) {
      aws.report({
        kind: 'step',
        text: `${changes.isNew ? 'Creating' : 'Changing'} the stack ${template.stack}`,
      });
      if (!aws.dryRun && !(await confirm(changes))) {
        await discard(there, changes);
        throw new OperateError('NOT_CONFIRMED', `The stack ${template.stack} is as it was.`);
      }
      await there.cloudFormation.executeChangeSet({ StackName: template.stack, ChangeSetName: CHANGE_SET });
      await settle(there, template.stack);
    } else await discard(there, changes);
    const stack = await readStack(there, template.stack);
    if (template.isProtected && stack?.EnableTerminationProtection !== true) {
      await there.cloudFormation.updateTerminationProtection({
        StackName: template.stack,
        EnableTerminationProtection: true,
      });
    }
    const outputs = outputsOf(stack);
    for (const [key, value] of outputs) if (!options.parameters.has(key)) parameters.set(key, value);
    deployed.push({ ...changes, outputs: Object.fromEntries(outputs) });
  }
  // Machines may have been replaced, and schedules name machines.
  await syncSchedules(aws, name);
  return deployed;
}

/** What {@link deployStacks} would change. Nothing is changed. */
export async function diffStacks(aws: Aws, name: string, options: DeployOptions): Promise<StackChanges[]> {
  const found: StackChanges[] = [];
  const parameters = new Map(options.parameters);
  for (const template of readTemplates(name, options)) {
    const there = await regionOf(aws, template);
    const changes = await prepare(there, name, template, { ...options, parameters });
    await discard(there, changes);
    found.push(changes);
    for (const [key, value] of outputsOf(await readStack(there, template.stack))) {
      if (!options.parameters.has(key)) parameters.set(key, value);
    }
  }
  return found;
}

function outputsOf(stack: Stack | undefined): [string, string][] {
  return (stack?.Outputs ?? []).map(({ OutputKey = '', OutputValue = '' }) => [OutputKey, OutputValue]);
}

export interface Removal {
  readonly stacks: readonly string[];
  /** What stays, and goes on costing money: type and physical id. */
  readonly kept: readonly { readonly id: string; readonly type: string; readonly policy: string }[];
}

/**
 * Deletes the stacks, the newest first, and the schedules.
 * @param options `removeProtection`: also of a stack that is protected from deletion, or has resources that are; they are
 *   changed first, for which a long template needs a bucket
 * @param confirm is asked once
 * @returns what was removed, and what stays
 * @throws OperateError DEPLOYMENT_NOT_FOUND, STACK_PROTECTED, NOT_CONFIRMED, STACK_FAILED
 */
export async function destroyStacks(
  aws: Aws,
  name: string,
  options: { readonly removeProtection: boolean; readonly bucket?: string | undefined },
  confirm: (removal: Removal) => Promise<boolean>,
): Promise<Removal> {
  checkDeploymentName(name);
  const found = await findStacks(aws, name);
  if (found.length === 0) {
    throw new OperateError(
      'DEPLOYMENT_NOT_FOUND',
      `No stack in ${aws.region} is tagged ${DEPLOYMENT_TAG}=${name}: check the name and the region, unless it is gone already.`,
    );
  }
  const unprotected = await Promise.all(
    found.map(async ({ there, stack }) => ({
      there,
      stack,
      template: await withoutProtection(there, stack),
    })),
  );
  const isProtected = unprotected.filter(
    ({ stack, template }) => stack.EnableTerminationProtection === true || template !== undefined,
  );
  if (isProtected.length > 0 && !options.removeProtection) {
    const list = isProtected.map(({ stack }) => stack.StackName).join(', ');
    throw new OperateError(
      'STACK_PROTECTED',
      `${list} is protected from deletion, or has resources that are: add --remove-protection if you mean it.`,
    );
  }
  for (const { template } of unprotected) if (template !== undefined) checkSize(template, options.bucket);
  const removal: Removal = {
    stacks: found.map(({ stack }) => stack.StackName ?? ''),
    kept: (await Promise.all(found.map(({ there, stack }) => keptResources(there, stack)))).flat(),
  };
  if (!aws.dryRun && !(await confirm(removal)))
    throw new OperateError('NOT_CONFIRMED', 'Nothing was removed.');
  await removeSchedules(aws, name);
  for (const { there, stack, template } of unprotected) {
    const StackName = stack.StackName ?? '';
    if (template !== undefined) {
      aws.report({ kind: 'step', text: `Taking the protection from resources of ${StackName}` });
      const how = { path: '', parameters: new Map(), bucket: options.bucket };
      const changes = await prepare(there, name, template, how);
      if (changes.isEmpty) await discard(there, changes);
      else {
        await there.cloudFormation.executeChangeSet({ StackName, ChangeSetName: CHANGE_SET });
        await settle(there, StackName);
      }
    }
    aws.report({ kind: 'step', text: `Removing the stack ${StackName}` });
    if (stack.EnableTerminationProtection === true)
      await there.cloudFormation.updateTerminationProtection({
        StackName,
        EnableTerminationProtection: false,
      });
    // By its id: a stack that is gone is not found by its name.
    const id = stack.StackId ?? StackName;
    if (stack.StackStatus !== 'DELETE_IN_PROGRESS') await there.cloudFormation.deleteStack({ StackName: id });
    await settle(there, id);
  }
  return removal;
}

// ---------------------------------------------------------------------------------------------------------------------

/** In the order in which they are made: one after those that it depends on. */
function readTemplates(name: string, { path, parameters, bucket }: DeployOptions): Template[] {
  checkDeploymentName(name);
  const templates = readAssembly(name, path);
  for (const template of templates) checkSize(template, bucket);
  const unknown = [...parameters.keys()].find(
    (key) => !templates.some((one) => one.parameters.includes(key)),
  );
  if (unknown !== undefined)
    throw new OperateError('STACK_BAD_TEMPLATE', `No template in ${path} has a parameter "${unknown}".`);
  return templates;
}

/** @throws OperateError when the template is too long for a call, or for CloudFormation */
function checkSize({ stack, body }: Template, bucket: string | undefined): void {
  const bytes = Buffer.byteLength(body);
  if (bytes > MAX_BYTES_IN_BUCKET)
    throw new OperateError(
      'STACK_BAD_TEMPLATE',
      `The template of ${stack} is ${bytes} bytes, and CloudFormation takes ${MAX_BYTES_IN_BUCKET} at most: divide it.`,
    );
  if (bytes > MAX_BYTES_IN_CALL && bucket === undefined)
    throw new OperateError(
      'STACK_NEEDS_BUCKET',
      `The template of ${stack} is ${bytes} bytes, and CloudFormation takes ${MAX_BYTES_IN_CALL} in a call: add --bucket with the name of a bucket of yours in the region of the stack.`,
    );
}

function readAssembly(name: string, path: string): Template[] {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  if (!isFolder) return [readTemplate(path, `starling-${name}`, undefined, false)];
  const manifestPath = join(path, 'manifest.json');
  if (!existsSync(manifestPath)) {
    throw new OperateError(
      'STACK_BAD_TEMPLATE',
      `${path} has no manifest.json: give a template, or the folder that \`starling infra synth\` wrote.`,
    );
  }
  const { artifacts = {} } = readJson(manifestPath) as { artifacts?: Record<string, Artifact> };
  const ordered: Template[] = [];
  const visited = new Set<string>();
  const visit = (id: string) => {
    const artifact = artifacts[id];
    if (artifact === undefined || visited.has(id)) return;
    visited.add(id);
    for (const dependency of artifact.dependencies ?? []) visit(dependency);
    const { templateFile, stackName = id, terminationProtection } = artifact.properties ?? {};
    if (artifact.type !== 'aws:cloudformation:stack' || templateFile === undefined) return;
    const region = artifact.environment?.split('/').at(-1);
    ordered.push(
      readTemplate(
        join(path, templateFile),
        stackName,
        region === 'unknown-region' ? undefined : region,
        terminationProtection === true,
      ),
    );
  };
  for (const id of Object.keys(artifacts)) visit(id);
  if (ordered.length === 0) throw new OperateError('STACK_BAD_TEMPLATE', `${manifestPath} lists no stack.`);
  return ordered;
}

/** Of a cloud assembly, as `aws-cdk-lib` writes it. */
interface Artifact {
  readonly type?: string;
  readonly environment?: string;
  readonly dependencies?: readonly string[];
  readonly properties?: {
    readonly templateFile?: string;
    readonly stackName?: string;
    readonly terminationProtection?: boolean;
  };
}

function readTemplate(
  path: string,
  stack: string,
  region: string | undefined,
  isProtected: boolean,
): Template {
  const parsed = readJson(path) as { Resources?: unknown; Parameters?: Record<string, unknown> };
  if (typeof parsed.Resources !== 'object')
    throw new OperateError(
      'STACK_BAD_TEMPLATE',
      `${path} is no template of CloudFormation: it has no Resources.`,
    );
  const body = JSON.stringify(parsed);
  return { stack, region, body, parameters: Object.keys(parsed.Parameters ?? {}), isProtected };
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const reason = error instanceof SyntaxError ? 'is not JSON' : 'cannot be read';
    throw new OperateError(
      'STACK_BAD_TEMPLATE',
      `${path} ${reason}: give a template, or the folder that \`starling infra synth\` wrote.`,
      { cause: error },
    );
  }
}

async function regionOf(aws: Aws, { region }: Template): Promise<Aws> {
  return region === undefined || region === aws.region ? aws : aws.inRegion(region);
}

/** Undefined when there is none, or none any more. */
async function readStack(aws: Aws, nameOrId: string): Promise<Stack | undefined> {
  try {
    const { Stacks } = await aws.cloudFormation.describeStacks({ StackName: nameOrId });
    return Stacks?.find((stack) => stack.StackStatus !== 'DELETE_COMPLETE');
  } catch (error) {
    // The code is the same for all that is wrong with a request.
    if (awsErrorName(error) === 'ValidationError' && /does not exist/.test(String(error))) return undefined;
    throw error;
  }
}

const isOurs = (stack: Stack, name: string) =>
  stack.Tags?.some(({ Key, Value }) => Key === DEPLOYMENT_TAG && Value === name) === true;

/** Before a first change set is executed the stack is empty, and may have no tags; the change set has them. */
async function isInReviewByUs(aws: Aws, { StackName, StackStatus }: Stack, name: string): Promise<boolean> {
  if (StackStatus !== 'REVIEW_IN_PROGRESS') return false;
  try {
    const { Tags } = await aws.cloudFormation.describeChangeSet({ StackName, ChangeSetName: CHANGE_SET });
    return isOurs({ Tags } as Stack, name);
  } catch (error) {
    if (!isMissing(error)) throw error;
    return false;
  }
}

/** The newest first: it may depend on the older ones. What CloudFront uses is always in us-east-1. */
async function findStacks(aws: Aws, name: string): Promise<{ there: Aws; stack: Stack }[]> {
  const found: { there: Aws; stack: Stack }[] = [];
  for (const region of new Set([aws.region, 'us-east-1'])) {
    const there = region === aws.region ? aws : await aws.inRegion(region);
    let token: string | undefined;
    do {
      const page = await there.cloudFormation.describeStacks(token ? { NextToken: token } : {});
      for (const stack of page.Stacks ?? []) {
        if (isOurs(stack, name) && stack.StackStatus !== 'DELETE_COMPLETE') found.push({ there, stack });
      }
      token = page.NextToken;
    } while (token);
  }
  const madeMs = ({ stack }: { stack: Stack }) => stack.CreationTime?.getTime() ?? 0;
  return found.sort((a, b) => madeMs(b) - madeMs(a));
}

/** The template as a call takes it: as it is, or put into the bucket, under a name that changes with it. */
async function contentOf(
  aws: Aws,
  name: string,
  { stack, body }: Template,
  bucket: string | undefined,
): Promise<{ TemplateBody: string } | { TemplateURL: string }> {
  if (bucket === undefined || Buffer.byteLength(body) <= MAX_BYTES_IN_CALL) return { TemplateBody: body };
  const digest = createHash('sha256').update(body).digest('hex');
  const key = `starling/${name}/${stack}-${digest}.template.json`;
  const s3 = await aws.s3();
  await s3.putObject({ Bucket: bucket, Key: key, Body: body, ContentType: 'application/json' });
  // Before the bucket's name, a dot in it would not be in Amazon's certificate.
  const domain = aws.region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com';
  return { TemplateURL: `https://s3.${aws.region}.${domain}/${bucket}/${key}` };
}

/** Brings the stack to where it can be changed, and makes a change set. */
async function prepare(
  aws: Aws,
  name: string,
  template: Template,
  { parameters, bucket }: DeployOptions,
): Promise<StackChanges> {
  const StackName = template.stack;
  let stack = await readStack(aws, StackName);
  // Of a run that was interrupted, or of somebody else's. Waiting is harmless.
  if (stack !== undefined && isUnderWay(stack)) stack = await settle(aws, StackName, { isResult: false });
  if (stack !== undefined && !(isOurs(stack, name) || (await isInReviewByUs(aws, stack, name)))) {
    throw new OperateError(
      'DEPLOYMENT_NOT_OURS',
      `The stack ${StackName} is not tagged ${DEPLOYMENT_TAG}=${name}: it is left alone. Choose another name for the deployment.`,
    );
  }
  if (/^(REVIEW_IN_PROGRESS|ROLLBACK_COMPLETE|ROLLBACK_FAILED)$/.test(stack?.StackStatus ?? '')) {
    aws.report({
      kind: 'step',
      text: `Clearing away what a first deployment that did not end left of ${StackName}`,
    });
    await aws.cloudFormation.deleteStack({ StackName });
    await settle(aws, stack?.StackId ?? StackName);
    stack = undefined;
  }
  if (stack?.StackStatus?.endsWith('_FAILED')) {
    throw new OperateError(
      'STACK_STUCK',
      `The stack ${StackName} is in ${stack.StackStatus} (${stack.StackStatusReason ?? 'no reason given'}): continue its rollback, or delete it, in the CloudFormation console, then deploy again.`,
    );
  }
  const isNew = stack === undefined;
  const content = await contentOf(aws, name, template, bucket);
  const known = new Set(stack?.Parameters?.map(({ ParameterKey }) => ParameterKey));
  if (stack !== undefined) await aws.cloudFormation.deleteChangeSet({ StackName, ChangeSetName: CHANGE_SET });
  await aws.cloudFormation.createChangeSet({
    StackName,
    ChangeSetName: CHANGE_SET,
    ChangeSetType: isNew ? 'CREATE' : 'UPDATE',
    ...content,
    Capabilities: ['CAPABILITY_IAM', 'CAPABILITY_NAMED_IAM'],
    Tags: [{ Key: DEPLOYMENT_TAG, Value: name }],
    Parameters: template.parameters.flatMap((ParameterKey): Parameter[] => {
      const ParameterValue = parameters.get(ParameterKey);
      if (ParameterValue !== undefined) return [{ ParameterKey, ParameterValue }];
      return known.has(ParameterKey) ? [{ ParameterKey, UsePreviousValue: true }] : [];
    }),
  });
  const region = aws.region;
  if (aws.dryRun) {
    // What the change set would say is not known without one.
    return {
      stack: StackName,
      region,
      isNew,
      isEmpty: false,
      changes: [{ action: 'Unknown', resource: '', type: '', replacement: undefined }],
    };
  }
  const changeSet = await aws.waitFor(
    () => readChangeSet(aws, StackName),
    ({ status }) => /_COMPLETE$|FAILED$/.test(status),
    { describe: ({ status }) => `change set of ${StackName}: ${status}`, deadlineMs: 10 * MINUTE_MS },
  );
  if (
    changeSet.status === 'FAILED' &&
    !/didn't contain changes|No updates are to be performed/.test(changeSet.reason)
  ) {
    await discard(aws, { stack: StackName, isNew });
    throw new OperateError(
      'STACK_BAD_TEMPLATE',
      `CloudFormation does not take the template: ${changeSet.reason}`,
    );
  }
  return {
    stack: StackName,
    region,
    isNew,
    isEmpty: changeSet.status === 'FAILED',
    changes: changeSet.changes,
  };
}

async function readChangeSet(aws: Aws, StackName: string) {
  const changes: StackChange[] = [];
  let token: string | undefined;
  let status = '';
  let reason = '';
  do {
    const page = await aws.cloudFormation.describeChangeSet({
      StackName,
      ChangeSetName: CHANGE_SET,
      ...(token ? { NextToken: token } : {}),
    });
    status = page.Status ?? '';
    reason = page.StatusReason ?? '';
    changes.push(...(page.Changes ?? []).flatMap(toChange));
    token = page.NextToken;
  } while (token);
  return { status, reason, changes };
}

function toChange({ ResourceChange }: Change): StackChange[] {
  if (ResourceChange === undefined) return [];
  const { Action = '', LogicalResourceId = '', ResourceType = '', Replacement } = ResourceChange;
  return [
    {
      action: Action,
      resource: LogicalResourceId,
      type: ResourceType,
      replacement: Replacement === 'False' ? undefined : Replacement,
    },
  ];
}

/** Drops the change set; and the empty stack that one for a new stack brings with it. */
async function discard(aws: Aws, { stack, isNew }: Pick<StackChanges, 'stack' | 'isNew'>): Promise<void> {
  await aws.cloudFormation.deleteChangeSet({ StackName: stack, ChangeSetName: CHANGE_SET });
  if (isNew) await aws.cloudFormation.deleteStack({ StackName: stack });
}

const isUnderWay = (stack: Stack) =>
  stack.StackStatus !== 'REVIEW_IN_PROGRESS' && /_IN_PROGRESS$/.test(stack.StackStatus ?? '');

/**
 * Waits until CloudFormation is done with the stack.
 * @param how `isResult`: whether a rollback is ours to report
 * @throws OperateError STACK_FAILED, with the first reason
 */
async function settle(aws: Aws, nameOrId: string, how = { isResult: true }): Promise<Stack | undefined> {
  if (aws.dryRun) return undefined;
  const startedAt = new Date(aws.clock.nowMs());
  const stack = await aws.waitFor(
    () => readStack(aws, nameOrId),
    // Just after a first change set was executed, the stack may still be in review.
    (now) =>
      now === undefined || !(isUnderWay(now) || (how.isResult && now.StackStatus === 'REVIEW_IN_PROGRESS')),
    {
      describe: (now) => `${now?.StackName}: ${now?.StackStatus?.toLowerCase().replaceAll('_', ' ')}`,
      deadlineMs: STACK_DEADLINE_MS,
    },
  );
  if (!how.isResult || stack === undefined || /^(CREATE|UPDATE)_COMPLETE$/.test(stack.StackStatus ?? ''))
    return stack;
  const reasons = await failuresSince(aws, nameOrId, startedAt);
  const what = stack.StackStatus === 'DELETE_FAILED' ? 'could not be removed' : 'was rolled back';
  throw new OperateError(
    'STACK_FAILED',
    `The stack ${stack.StackName} ${what}: ${reasons.join('; ') || stack.StackStatusReason || stack.StackStatus}`,
  );
}

/** What failed first is why; what was cancelled because of it is not said. */
async function failuresSince(aws: Aws, nameOrId: string, since: Date): Promise<string[]> {
  const { StackEvents = [] } = await aws.cloudFormation.describeStackEvents({ StackName: nameOrId });
  return StackEvents.filter(
    ({ ResourceStatus = '', ResourceStatusReason = '', ResourceType, Timestamp }) =>
      ResourceStatus.endsWith('_FAILED') &&
      ResourceType !== 'AWS::CloudFormation::Stack' &&
      !/cancelled/i.test(ResourceStatusReason) &&
      (Timestamp ?? since) >= new Date(since.getTime() - MINUTE_MS),
  )
    .reverse()
    .map(
      ({ LogicalResourceId, ResourceType, ResourceStatusReason }) =>
        `${LogicalResourceId} (${ResourceType}): ${ResourceStatusReason}`,
    )
    .slice(0, 5);
}

/**
 * The stack's template with resources that can be deleted: CloudFormation deletes none that protects itself.
 * @returns undefined when none does, or when the stack is being deleted already
 */
async function withoutProtection(
  aws: Aws,
  { StackName = '', StackStatus }: Stack,
): Promise<Template | undefined> {
  if (/^(DELETE|REVIEW|ROLLBACK)_/.test(StackStatus ?? '')) return undefined;
  const { TemplateBody = '{}' } = await aws.cloudFormation.getTemplate({ StackName });
  const parsed = JSON.parse(TemplateBody) as {
    Parameters?: object;
    Resources?: Record<string, { Properties?: Record<string, unknown> }>;
  };
  let isProtected = false;
  for (const { Properties = {} } of Object.values(parsed.Resources ?? {})) {
    // Of databases, tables and pools; of instances.
    for (const name of ['DeletionProtection', 'DeletionProtectionEnabled', 'DisableApiTermination']) {
      if (Properties[name] !== true) continue;
      Properties[name] = false;
      isProtected = true;
    }
    const { LoadBalancerAttributes } = Properties as {
      LoadBalancerAttributes?: { Key: string; Value: string }[];
    };
    for (const attribute of LoadBalancerAttributes ?? []) {
      if (attribute.Key !== 'deletion_protection.enabled' || attribute.Value !== 'true') continue;
      attribute.Value = 'false';
      isProtected = true;
    }
  }
  if (!isProtected) return undefined;
  const parameters = Object.keys(parsed.Parameters ?? {});
  return {
    stack: StackName,
    region: undefined,
    body: JSON.stringify(parsed),
    parameters,
    isProtected: false,
  };
}

async function keptResources(aws: Aws, stack: Stack): Promise<Removal['kept'][number][]> {
  const StackName = stack.StackId ?? '';
  const { TemplateBody = '{}' } = await aws.cloudFormation.getTemplate({ StackName });
  const { Resources = {} } = JSON.parse(TemplateBody) as {
    Resources?: Record<string, { Type: string; DeletionPolicy?: string }>;
  };
  const physicalIds = new Map<string | undefined, string | undefined>();
  let token: string | undefined;
  do {
    const page = await aws.cloudFormation.listStackResources({
      StackName,
      ...(token ? { NextToken: token } : {}),
    });
    for (const one of page.StackResourceSummaries ?? [])
      physicalIds.set(one.LogicalResourceId, one.PhysicalResourceId);
    token = page.NextToken;
  } while (token);
  return Object.entries(Resources).flatMap(([logicalId, { Type, DeletionPolicy = 'Delete' }]) => {
    const id = physicalIds.get(logicalId);
    return DeletionPolicy === 'Delete' || id === undefined
      ? []
      : [{ id, type: Type, policy: DeletionPolicy }];
  });
}
