/** The schema of Terraform providers, as fixtures/terraform has it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** In cty's JSON: `"string"`, `["list", "string"]`, `["object", {...}]`. */
export type CtyType = string | readonly [string, unknown];
export interface AttributeSchema {
  readonly type: CtyType;
  readonly required?: boolean;
  readonly optional?: boolean;
  readonly computed?: boolean;
}
export interface NestedBlockSchema {
  readonly nesting: 'single' | 'list' | 'set';
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly block: BlockSchema;
}
export interface BlockSchema {
  readonly attributes: Readonly<Record<string, AttributeSchema>>;
  readonly blocks: Readonly<Record<string, NestedBlockSchema>>;
}
export interface ProviderSchema {
  readonly provider: BlockSchema;
  readonly resources: Readonly<Record<string, BlockSchema>>;
  readonly dataSources: Readonly<Record<string, BlockSchema>>;
}

const optionalText = { type: 'string', optional: true } as const;

const lifted = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../../../fixtures/terraform/aws-provider.json'), 'utf8'),
) as Omit<ProviderSchema, 'provider'>;

/** Of its own configuration only what we set. */
export const awsProvider: ProviderSchema = {
  ...lifted,
  provider: { attributes: { region: optionalText, profile: optionalText }, blocks: {} },
};

/** The local provider's only resource that we use, from its documentation. */
export const localProvider: ProviderSchema = {
  provider: { attributes: {}, blocks: {} },
  dataSources: {},
  resources: {
    local_file: {
      attributes: {
        filename: { type: 'string', required: true },
        content: optionalText,
        content_base64: optionalText,
        source: optionalText,
        file_permission: optionalText,
        directory_permission: optionalText,
        id: { type: 'string', computed: true },
      },
      blocks: {},
    },
  },
};
