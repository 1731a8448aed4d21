/** Checks Terraform JSON against a provider's schema without Terraform: arguments, types, references. */
import type { BlockSchema, CtyType, ProviderSchema } from './provider-schema.ts';

const META_ARGUMENTS = new Set(['depends_on', 'lifecycle', 'count', 'for_each', 'provider']);

interface Configuration {
  readonly variable?: Readonly<Record<string, unknown>>;
  readonly resource: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly data: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly output?: Readonly<Record<string, unknown>>;
}

/** @returns a sentence for each fault */
export function checkConfiguration(
  configuration: Configuration,
  providers: readonly ProviderSchema[],
): string[] {
  const faults: string[] = [];
  for (const [section, schemas] of [
    ['resource', 'resources'],
    ['data', 'dataSources'],
  ] as const) {
    for (const [type, byName] of Object.entries(configuration[section])) {
      const block = providers.map((provider) => provider[schemas][type]).find((one) => one !== undefined);
      for (const [name, value] of Object.entries(byName)) {
        if (block === undefined) faults.push(`${type}.${name}: no such ${section}`);
        else checkBlock(block, value as Record<string, unknown>, `${type}.${name}`, faults, true);
      }
    }
  }
  checkReferences(configuration, providers, faults);
  return faults;
}

function checkBlock(
  block: BlockSchema,
  value: Record<string, unknown>,
  where: string,
  faults: string[],
  isTop: boolean,
): void {
  for (const [name, given] of Object.entries(value)) {
    if (isTop && META_ARGUMENTS.has(name)) continue;
    const attribute = block.attributes[name];
    const nested = block.blocks[name];
    if (attribute !== undefined) {
      if (!attribute.optional && !attribute.required)
        faults.push(`${where}.${name}: is the provider's to set`);
      else if (given !== null && !fits(attribute.type, given))
        faults.push(`${where}.${name}: ${JSON.stringify(given)} is no ${JSON.stringify(attribute.type)}`);
    } else if (nested !== undefined) {
      const items = Array.isArray(given) ? given : [given];
      if (nested.maxItems !== undefined && items.length > nested.maxItems)
        faults.push(`${where}.${name}: at most ${nested.maxItems}`);
      for (const item of items)
        checkBlock(nested.block, item as Record<string, unknown>, `${where}.${name}`, faults, false);
    } else faults.push(`${where}.${name}: no such argument`);
  }
  for (const [name, { required }] of Object.entries(block.attributes)) {
    if (required && (value[name] ?? null) === null) faults.push(`${where}.${name}: is missing`);
  }
  for (const [name, { minItems }] of Object.entries(block.blocks)) {
    if ((minItems ?? 0) > 0 && value[name] === undefined) faults.push(`${where}.${name}: is missing`);
  }
}

function fits(type: CtyType, value: unknown): boolean {
  // An expression's type is Terraform's to say.
  if (typeof value === 'string' && /(?<!\$)\$\{/.test(value)) return true;
  if (type === 'string') return typeof value === 'string';
  if (type === 'number') return typeof value === 'number';
  if (type === 'bool') return typeof value === 'boolean';
  const [kind, inner] = type as readonly [string, CtyType];
  if (kind === 'list' || kind === 'set')
    return Array.isArray(value) && value.every((one) => fits(inner, one));
  if (kind === 'map')
    return (
      typeof value === 'object' && value !== null && Object.values(value).every((one) => fits(inner, one))
    );
  return typeof value === 'object';
}

function checkReferences(
  configuration: Configuration,
  providers: readonly ProviderSchema[],
  faults: string[],
): void {
  const visit = (value: unknown, where: string): void => {
    if (Array.isArray(value)) for (const one of value) visit(one, where);
    else if (typeof value === 'object' && value !== null) {
      for (const [name, one] of Object.entries(value)) visit(one, `${where}.${name}`);
    } else if (typeof value === 'string') {
      for (const [, expression = ''] of value.matchAll(/(?<!\$)\$\{([^}]*)\}/g)) {
        const [, isData, type = '', name = '', attribute = ''] =
          /^(data\.)?(\w+)\.(\w+)(?:\.(\w+))?$/.exec(expression.trim()) ?? [];
        if (type === '' || type === 'path') continue;
        if (type === 'var') {
          if (configuration.variable?.[name] === undefined) faults.push(`${where}: no variable ${name}`);
          continue;
        }
        const section = isData === undefined ? 'resource' : 'data';
        const block = providers
          .map((one) => one[isData === undefined ? 'resources' : 'dataSources'][type])
          .find((one) => one !== undefined);
        if (configuration[section][type]?.[name] === undefined) faults.push(`${where}: no ${type}.${name}`);
        else if (block?.attributes[attribute] === undefined)
          faults.push(`${where}: ${type} has no ${attribute}`);
      }
    }
  };
  visit(configuration.resource, 'resource');
  visit(configuration.data, 'data');
  visit(configuration.output, 'output');
}
