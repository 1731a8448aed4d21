/** A plan while it is drawn up: adds to each resource what all of them have. */
import type { Deployment } from './deployment.ts';
import { TopologyError } from './error.ts';
import type { Kind, Resource, ResourceOf } from './plan.ts';

type Filled = 'stack' | 'tags' | 'prices' | 'pause';
type Input<K extends Kind> = Omit<ResourceOf<K>, Filled> &
  Partial<Pick<ResourceOf<K>, 'stack' | 'prices' | 'pause'>> & {
    /** For the tag `starling:role`. */
    readonly tagRole?: string;
  };

export class Draft {
  readonly resources: Resource[] = [];
  readonly deployment: Deployment;

  constructor(deployment: Deployment) {
    this.deployment = deployment;
  }

  /** @returns the id */
  add<K extends Kind>(kind: K, input: Omit<Input<K>, 'kind'>): string {
    const { tagRole, ...fields } = input as Input<K>;
    const tags = {
      Name: `${this.deployment.name}-${kebab(fields.id)}`,
      'starling:deployment': this.deployment.name,
      'starling:profile': this.deployment.profile,
      ...(tagRole === undefined ? {} : { 'starling:role': tagRole }),
    };
    this.resources.push({
      stack: 'main',
      prices: [],
      pause: null,
      tags,
      ...fields,
      kind,
    } as unknown as Resource);
    return fields.id;
  }

  /** What was added under that id. */
  get<K extends Kind>(kind: K, id: string): ResourceOf<K> {
    const found = this.resources.find((one): one is ResourceOf<K> => one.kind === kind && one.id === id);
    if (found === undefined)
      throw new TopologyError('PLAN_DANGLING', `The plan has no ${kind} with the id ${id}.`);
    return found;
  }
}

function kebab(id: string): string {
  return id
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .replace(/([A-Za-z])(\d)/g, '$1-$2')
    .toLowerCase();
}
