import type { Kind, ResourceOf } from '@starling/model/topology/plan';
import type { Context } from './context.ts';

/** How each of some kinds of resource is made. */
export type Translations<K extends Kind> = {
  readonly [Each in K]: (context: Context, resource: ResourceOf<Each>) => void;
};
