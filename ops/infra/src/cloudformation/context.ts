/** What the translations of single resources share: the stack that each belongs to, and references between them. */
import {
  type Attribute,
  type Kind,
  type Plan,
  type Resource,
  type Template,
  templateParts,
} from '@starling/model/topology/plan';
import { Aws, CfnParameter, CfnResource, Fn, type Stack, Token } from 'aws-cdk-lib';
import { referenceOf } from './references.ts';

export type StackName = Resource['stack'];

export class Context {
  readonly plan: Plan;
  readonly stackName: StackName;
  readonly stack: Stack;
  readonly #byId: ReadonlyMap<string, Resource>;
  readonly #orders: [CfnResource, string][] = [];
  readonly #parameters = new Map<string, CfnParameter>();
  /** What other stacks ask of this one, by the parameter that brings it there. */
  readonly asked = new Map<string, { readonly id: string; readonly attribute: Attribute }>();

  constructor(plan: Plan, stackName: StackName, stack: Stack) {
    this.plan = plan;
    this.stackName = stackName;
    this.stack = stack;
    this.#byId = new Map(plan.resources.map((one) => [one.id, one]));
  }

  /** Text of the plan with its references, as CloudFormation writes them. */
  text(template: Template): string {
    return Fn.join(
      '',
      templateParts(template).map((part) =>
        typeof part === 'string' ? part : this.attribute(part.id, part.attribute),
      ),
    );
  }

  /** The value itself: an id, a name or an ARN. A resource of another stack comes as a parameter. */
  attribute(id: string, attribute: Attribute): string {
    if (id === 'AWS')
      return { region: Aws.REGION, account: Aws.ACCOUNT_ID, partition: Aws.PARTITION }[attribute as 'region'];
    const resource = this.#byId.get(id);
    const isAccessPoint = this.plan.resources.some(
      (one) => one.kind === 'file-system' && one.accessPoint?.id === id,
    );
    if (isAccessPoint && attribute === 'arn') return Token.asString(Fn.getAtt(id, 'Arn'));
    if (resource === undefined) throw new Error(`the plan has no ${id}`);
    if (resource.stack === this.stackName) return referenceOf(resource, attribute);
    const name = `${id}${attribute.slice(0, 1).toUpperCase()}${attribute.slice(1)}`;
    this.asked.set(name, { id, attribute });
    return this.parameter(name, `${attribute} of ${id}, an output of the ${resource.stack} stack`);
  }

  id(id: string): string {
    return this.attribute(id, 'id');
  }

  arn(id: string): string {
    return this.attribute(id, 'arn');
  }

  ids(ids: readonly string[]): string[] {
    return ids.map((id) => this.id(id));
  }

  /** Given when the stack is deployed. */
  parameter(name: string, description: string, allowedPattern?: string): string {
    let parameter = this.#parameters.get(name);
    if (parameter === undefined) {
      parameter = new CfnParameter(this.stack, name, {
        type: 'String',
        description,
        ...(allowedPattern === undefined ? {} : { allowedPattern }),
      });
      this.#parameters.set(name, parameter);
    }
    return parameter.valueAsString;
  }

  /** For an order that no reference shows. The other one may be made later. */
  dependsOn(resource: CfnResource, logicalId: string): void {
    this.#orders.push([resource, logicalId]);
  }

  /** Once all is made. */
  finish(): void {
    for (const [resource, logicalId] of this.#orders) {
      const other = this.stack.node.tryFindChild(logicalId);
      if (!(other instanceof CfnResource))
        throw new Error(`${resource.logicalId} waits for ${logicalId}, which there is not`);
      resource.addResourceDependency(other);
    }
  }

  idsOf(kind: Kind): string[] {
    return this.plan.resources.filter((one) => one.kind === kind).map((one) => one.id);
  }
}

/** Tags as most resources take them. */
export function tagsOf(resource: Resource): { key: string; value: string }[] {
  return Object.entries(resource.tags).map(([key, value]) => ({ key, value }));
}
