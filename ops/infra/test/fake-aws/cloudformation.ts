/** CloudFormation: stacks, change sets, and of the resources those that can be paused. */
import {
  type Cloud,
  type FakeChangeSet,
  type FakeStack,
  type FakeTemplate,
  found,
  fromTagList,
  type Tags,
  toTagList,
} from './cloud.ts';
import type { Buckets } from './s3.ts';
import type { Handlers } from './services.ts';
import { AwsError } from './wire.ts';

const STEP_MS = 20_000;
const MAX_BYTES_IN_CALL = 51_200;

type TagList = { Key: string; Value: string }[];

export function cloudFormation(cloud: Cloud, buckets: Buckets): Handlers {
  const find = (nameOrId: string) =>
    [...cloud.stacks.values()].find(
      ({ id, name, status }) => id === nameOrId || (name === nameOrId && status !== 'DELETE_COMPLETE'),
    );
  const named = (nameOrId: string) =>
    found(find(nameOrId), 'ValidationError', `Stack with id ${nameOrId} does not exist`);
  const changeSetOf = (stack: FakeStack, name: string) =>
    found(stack.changeSets.get(name), 'ChangeSetNotFound', `ChangeSet [${name}] does not exist`, 404);
  const record = (stack: FakeStack, logicalId: string, type: string, status: string, reason?: string) =>
    void stack.events.push({ atMs: cloud.nowMs, logicalId, type, status, reason });
  const setStatus = (stack: FakeStack, status: string, reason?: string) => {
    stack.status = status;
    record(stack, stack.name, 'AWS::CloudFormation::Stack', status, reason);
  };
  const refuseWhenBusy = (stack: FakeStack) => {
    if (/_IN_PROGRESS$/.test(stack.status) && stack.status !== 'REVIEW_IN_PROGRESS')
      throw new AwsError(
        'ValidationError',
        `Stack:${stack.id} is in ${stack.status} state and can not be updated.`,
      );
  };

  const describe = (stack: FakeStack) => ({
    StackId: stack.id,
    StackName: stack.name,
    CreationTime: new Date(stack.createdMs),
    StackStatus: stack.status,
    EnableTerminationProtection: stack.isProtected,
    Tags: toTagList(stack.tags),
    Parameters: Object.entries(stack.parameters).map(([ParameterKey, ParameterValue]) => ({
      ParameterKey,
      ParameterValue,
    })),
    Outputs: Object.entries(stack.status.endsWith('COMPLETE') ? (stack.template.Outputs ?? {}) : {}).map(
      ([OutputKey, { Value }]) => ({ OutputKey, OutputValue: String(resolve(cloud, stack, Value)) }),
    ),
  });

  return {
    DescribeStacks({ StackName, NextToken }: { StackName?: string; NextToken?: string }) {
      const all =
        StackName === undefined
          ? [...cloud.stacks.values()].filter(({ status }) => status !== 'DELETE_COMPLETE')
          : [named(StackName)];
      const { items, next } = cloud.page(all, NextToken);
      return { Stacks: items.map(describe), NextToken: next };
    },
    CreateChangeSet(input: {
      StackName: string;
      ChangeSetName: string;
      ChangeSetType?: string;
      TemplateBody?: string;
      TemplateURL?: string;
      Capabilities?: string[];
      Tags?: TagList;
      Parameters?: { ParameterKey: string; ParameterValue?: string; UsePreviousValue?: boolean }[];
    }) {
      const isNew = input.ChangeSetType === 'CREATE';
      let stack = find(input.StackName);
      if (!isNew && stack === undefined)
        throw new AwsError('ValidationError', `Stack [${input.StackName}] does not exist`);
      if (isNew && stack !== undefined && stack.status !== 'REVIEW_IN_PROGRESS')
        throw new AwsError(
          'ValidationError',
          `Stack [${input.StackName}] already exists and cannot be created again.`,
        );
      if (stack !== undefined) {
        refuseWhenBusy(stack);
        if (/^(ROLLBACK_COMPLETE|.*_FAILED)$/.test(stack.status))
          throw new AwsError(
            'ValidationError',
            `Stack:${stack.id} is in ${stack.status} state and can not be updated.`,
          );
      }
      const template = JSON.parse(readTemplate(input, buckets)) as FakeTemplate;
      const usesIam = Object.values(template.Resources).some(({ Type }) => Type.startsWith('AWS::IAM::'));
      if (usesIam && !input.Capabilities?.includes('CAPABILITY_NAMED_IAM'))
        throw new AwsError(
          'InsufficientCapabilitiesException',
          'Requires capabilities : [CAPABILITY_NAMED_IAM]',
        );
      const parameters: Record<string, string> = {};
      for (const [key, { Default }] of Object.entries(template.Parameters ?? {})) {
        const given = input.Parameters?.find(({ ParameterKey }) => ParameterKey === key);
        const value = given?.UsePreviousValue ? stack?.parameters[key] : (given?.ParameterValue ?? Default);
        if (value === undefined)
          throw new AwsError('ValidationError', `Parameters: [${key}] must have values`);
        parameters[key] = value;
      }
      if (stack?.changeSets.has(input.ChangeSetName))
        throw new AwsError('AlreadyExistsException', `ChangeSet ${input.ChangeSetName} already exists`);
      stack ??= makeStack(cloud, input.StackName);
      const changes = difference(isNew ? { Resources: {} } : stack.template, template);
      const isSame =
        !isNew &&
        changes.length === 0 &&
        JSON.stringify(parameters) === JSON.stringify(stack.parameters) &&
        JSON.stringify(stack.template) === JSON.stringify(template);
      const changeSet: FakeChangeSet = {
        name: input.ChangeSetName,
        isNew,
        status: 'CREATE_PENDING',
        reason: undefined,
        template,
        tags: fromTagList(input.Tags),
        parameters,
        changes,
      };
      stack.changeSets.set(changeSet.name, changeSet);
      cloud.after(5000, () => {
        changeSet.status = isSame ? 'FAILED' : 'CREATE_COMPLETE';
        if (isSame)
          changeSet.reason =
            "The submitted information didn't contain changes. Submit different information to create a change set.";
      });
      return { Id: cloud.arn('cloudformation', `changeSet/${changeSet.name}/1`), StackId: stack.id };
    },
    DescribeChangeSet(input: { StackName: string; ChangeSetName: string; NextToken?: string }) {
      const stack = named(input.StackName);
      const changeSet = changeSetOf(stack, input.ChangeSetName);
      const { items, next } = cloud.page(changeSet.changes, input.NextToken);
      return {
        StackName: stack.name,
        StackId: stack.id,
        ChangeSetName: changeSet.name,
        Tags: toTagList(changeSet.tags),
        Status: changeSet.status,
        StatusReason: changeSet.reason,
        ExecutionStatus: changeSet.status === 'CREATE_COMPLETE' ? 'AVAILABLE' : 'UNAVAILABLE',
        NextToken: next,
        Changes: items.map(({ action, logicalId, type, replacement }) => ({
          Type: 'Resource',
          ResourceChange: {
            Action: action,
            LogicalResourceId: logicalId,
            ResourceType: type,
            Replacement: replacement,
          },
        })),
      };
    },
    DeleteChangeSet(input: { StackName: string; ChangeSetName: string }) {
      named(input.StackName).changeSets.delete(input.ChangeSetName);
      return {};
    },
    ExecuteChangeSet(input: { StackName: string; ChangeSetName: string }) {
      const stack = named(input.StackName);
      const changeSet = changeSetOf(stack, input.ChangeSetName);
      if (changeSet.status !== 'CREATE_COMPLETE')
        throw new AwsError('InvalidChangeSetStatus', `ChangeSet is in [${changeSet.status}]`);
      refuseWhenBusy(stack);
      const before = stack.template;
      const verb = changeSet.isNew ? 'CREATE' : 'UPDATE';
      stack.tags = changeSet.tags;
      stack.changeSets.clear();
      setStatus(stack, `${verb}_IN_PROGRESS`);
      cloud.after(STEP_MS * 3, () => {
        const bad = Object.entries(changeSet.template.Resources).find(
          ([, { Properties }]) => Properties?.Fails !== undefined,
        );
        if (bad !== undefined) {
          const [logicalId, { Type, Properties }] = bad;
          record(stack, logicalId, Type, `${verb}_FAILED`, String(Properties?.Fails));
          setStatus(
            stack,
            changeSet.isNew ? 'ROLLBACK_IN_PROGRESS' : 'UPDATE_ROLLBACK_IN_PROGRESS',
            'a resource failed',
          );
          cloud.after(STEP_MS, () =>
            setStatus(stack, changeSet.isNew ? 'ROLLBACK_COMPLETE' : 'UPDATE_ROLLBACK_COMPLETE'),
          );
          return;
        }
        stack.template = changeSet.template;
        stack.parameters = changeSet.parameters;
        apply(cloud, stack, before);
        setStatus(stack, `${verb}_COMPLETE`);
      });
      return {};
    },
    DeleteStack({ StackName }: { StackName: string }) {
      const stack = find(StackName);
      if (stack === undefined || stack.status === 'DELETE_COMPLETE') return {};
      if (stack.isProtected)
        throw new AwsError(
          'ValidationError',
          `Stack [${stack.name}] cannot be deleted while TerminationProtection is enabled`,
        );
      setStatus(stack, 'DELETE_IN_PROGRESS');
      cloud.after(STEP_MS, () => {
        const stuck = Object.entries(stack.template.Resources).find(
          ([, { Properties }]) =>
            Properties?.CannotGo !== undefined ||
            Properties?.DeletionProtection === true ||
            Properties?.DisableApiTermination === true ||
            /"deletion_protection.enabled","Value":"true"/.test(JSON.stringify(Properties ?? {})),
        );
        if (stuck !== undefined) {
          const [logicalId, { Type, Properties }] = stuck;
          record(
            stack,
            logicalId,
            Type,
            'DELETE_FAILED',
            String(Properties?.CannotGo ?? 'deletion protection is enabled'),
          );
          return setStatus(
            stack,
            'DELETE_FAILED',
            `The following resource(s) failed to delete: [${logicalId}].`,
          );
        }
        const before = stack.template;
        stack.template = { Resources: {} };
        apply(cloud, stack, before);
        setStatus(stack, 'DELETE_COMPLETE');
      });
      return {};
    },
    UpdateTerminationProtection(input: { StackName: string; EnableTerminationProtection: boolean }) {
      const stack = named(input.StackName);
      stack.isProtected = input.EnableTerminationProtection;
      return { StackId: stack.id };
    },
    GetTemplate: ({ StackName }: { StackName: string }) => ({
      TemplateBody: JSON.stringify(named(StackName).template),
    }),
    ListStackResources({ StackName, NextToken }: { StackName: string; NextToken?: string }) {
      const { items, next } = cloud.page([...named(StackName).resources], NextToken);
      return {
        NextToken: next,
        StackResourceSummaries: items.map(([LogicalResourceId, { type, physicalId, status }]) => ({
          LogicalResourceId,
          PhysicalResourceId: physicalId,
          ResourceType: type,
          ResourceStatus: status,
          LastUpdatedTimestamp: new Date(cloud.nowMs),
        })),
      };
    },
    DescribeStackEvents({ StackName }: { StackName: string }) {
      const stack = named(StackName);
      return {
        StackEvents: stack.events
          .map(({ atMs, logicalId, type, status, reason }, index) => ({
            StackId: stack.id,
            StackName: stack.name,
            EventId: String(index),
            LogicalResourceId: logicalId,
            ResourceType: type,
            ResourceStatus: status,
            ResourceStatusReason: reason,
            Timestamp: new Date(atMs),
          }))
          .reverse(),
      };
    },
  };
}

function readTemplate(
  { TemplateBody, TemplateURL }: { TemplateBody?: string; TemplateURL?: string },
  buckets: Buckets,
): string {
  if (TemplateURL === undefined) {
    if (TemplateBody === undefined || Buffer.byteLength(TemplateBody) > MAX_BYTES_IN_CALL)
      throw new AwsError(
        'ValidationError',
        `1 validation error detected: Value at 'templateBody' failed to satisfy constraint: Member must have length less than or equal to ${MAX_BYTES_IN_CALL}`,
      );
    return TemplateBody;
  }
  const [, bucket = '', key = ''] =
    /^https:\/\/s3\.[a-z0-9-]+\.amazonaws\.com\/([^/]+)\/(.+)$/.exec(TemplateURL) ?? [];
  return found(
    buckets.get(bucket)?.objects.get(key),
    'ValidationError',
    'S3 error: The specified key does not exist.',
  );
}

/** Of the functions those whose value a parameter of another stack can be. */
function resolve(cloud: Cloud, stack: FakeStack, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const [[name = '', of = undefined] = []] = Object.entries(value as Record<string, unknown>);
  if (name === 'Ref' && typeof of === 'string') {
    if (of === 'AWS::Region') return cloud.region;
    const id = stack.resources.get(of)?.physicalId ?? stack.parameters[of];
    return found(id, 'ValidationError', `Unresolved resource dependencies [${of}]`);
  }
  if (name === 'Fn::GetAtt') {
    const [id = '', attribute = ''] = of as string[];
    const resource = stack.resources.get(id);
    const physicalId = found(
      resource,
      'ValidationError',
      `Unresolved resource dependencies [${id}]`,
    ).physicalId;
    if (attribute === 'Arn' && physicalId.startsWith('arn:')) return physicalId;
    return attribute === 'Arn' ? cloud.arn('fake', physicalId) : `${attribute} of ${physicalId}`;
  }
  if (name === 'Fn::Join') {
    const [separator, parts] = of as [string, unknown];
    const list = Array.isArray(parts)
      ? parts.map((part) => resolve(cloud, stack, part))
      : [resolve(cloud, stack, parts)];
    return list.join(separator);
  }
  throw new AwsError('ValidationError', `${name} is not modelled`);
}

function makeStack(cloud: Cloud, name: string): FakeStack {
  const id = cloud.arn('cloudformation', `stack/${name}/${cloud.next()}`);
  const stack: FakeStack = {
    id,
    name,
    createdMs: cloud.nowMs,
    tags: {},
    status: 'REVIEW_IN_PROGRESS',
    template: { Resources: {} },
    parameters: {},
    isProtected: false,
    resources: new Map(),
    changeSets: new Map(),
    events: [],
  };
  cloud.stacks.set(id, stack);
  return stack;
}

function difference(before: FakeTemplate, after: FakeTemplate): FakeChangeSet['changes'] {
  const changes: FakeChangeSet['changes'] = [];
  for (const [logicalId, { Type: type, Properties }] of Object.entries(after.Resources)) {
    const old = before.Resources[logicalId];
    if (old === undefined) changes.push({ action: 'Add', logicalId, type, replacement: undefined });
    else if (JSON.stringify(old.Properties) !== JSON.stringify(Properties)) {
      // Of what is modelled, an instance's image cannot be changed in place.
      const replacement = old.Properties?.ImageId === Properties?.ImageId ? 'False' : 'True';
      changes.push({ action: 'Modify', logicalId, type, replacement });
    }
  }
  for (const [logicalId, { Type: type }] of Object.entries(before.Resources)) {
    if (after.Resources[logicalId] === undefined)
      changes.push({ action: 'Remove', logicalId, type, replacement: undefined });
  }
  return changes;
}

/** Makes and removes what can be paused; of everything else there is only a name. */
function apply(cloud: Cloud, stack: FakeStack, before: FakeTemplate): void {
  const { Resources } = stack.template;
  for (const [logicalId, { Type, Properties = {} }] of Object.entries(Resources)) {
    const old = before.Resources[logicalId];
    if (old !== undefined && old.Properties?.ImageId === Properties.ImageId && stack.resources.has(logicalId))
      continue;
    const own = fromTagList(Properties.Tags as TagList | undefined);
    const tags: Tags = { ...stack.tags, ...own, 'aws:cloudformation:stack-name': stack.name };
    const last = stack.resources.get(logicalId);
    if (last !== undefined) remove(cloud, last);
    const physicalId = make(cloud, `${stack.name}-${logicalId}`.toLowerCase(), Type, Properties, tags);
    stack.resources.set(logicalId, { type: Type, physicalId, status: 'CREATE_COMPLETE' });
  }
  for (const [logicalId, resource] of stack.resources) {
    if (Resources[logicalId] !== undefined) continue;
    const isKept = before.Resources[logicalId]?.DeletionPolicy === 'Retain';
    stack.resources.delete(logicalId);
    if (!isKept) remove(cloud, resource);
  }
}

function make(
  cloud: Cloud,
  name: string,
  type: string,
  properties: Record<string, unknown>,
  tags: Tags,
): string {
  if (type === 'AWS::EC2::Instance') return cloud.addInstance(tags, { ip: 'lent' }).id;
  if (type === 'AWS::AutoScaling::AutoScalingGroup') {
    const [min, desired, max] = [properties.MinSize, properties.DesiredCapacity, properties.MaxSize].map(
      Number,
    );
    return cloud.addGroup(name, tags, { min: min ?? 0, desired: desired ?? 0, max: max ?? 0 }).name;
  }
  if (type === 'AWS::RDS::DBInstance') return cloud.addDatabase(name, tags).id;
  if (type === 'AWS::IAM::Role') return `arn:aws:iam::123456789012:role/${name}`;
  return name;
}

function remove(cloud: Cloud, { type, physicalId }: { type: string; physicalId: string }): void {
  const instance = cloud.instances.get(physicalId);
  if (instance !== undefined) instance.state = 'terminated';
  if (type === 'AWS::AutoScaling::AutoScalingGroup') cloud.groups.delete(physicalId);
  cloud.databases.delete(`db ${physicalId}`);
}
