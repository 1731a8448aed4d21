/**
 * Lifts the schema of the AWS provider's resources that we emit out of the npm package @cdktn/provider-aws, whose
 * generated classes carry it in comments and getters. Run by hand when the provider's major version changes:
 *
 *   npm pack @cdktn/provider-aws@25.7.0 && tar -xzf cdktn-provider-aws-25.7.0.tgz
 *   node ops/infra/tools/extract-terraform-schema.mjs package > fixtures/terraform/aws-provider.json
 *
 * What the comments do not say, and the schema therefore lacks: values of enumerations, and who conflicts with whom.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const resources = [
  'aws_eip',
  'aws_iam_instance_profile',
  'aws_iam_role',
  'aws_iam_role_policy',
  'aws_iam_role_policy_attachment',
  'aws_instance',
  'aws_internet_gateway',
  'aws_key_pair',
  'aws_network_interface',
  'aws_network_interface_attachment',
  'aws_route',
  'aws_route53_record',
  'aws_route53_zone',
  'aws_route_table',
  'aws_route_table_association',
  'aws_scheduler_schedule',
  'aws_security_group',
  'aws_subnet',
  'aws_vpc',
  'aws_vpc_security_group_egress_rule',
  'aws_vpc_security_group_ingress_rule',
];
const dataSources = ['aws_caller_identity', 'aws_partition', 'aws_ssm_parameter'];

const folder = process.argv[2];
if (folder === undefined) {
  process.stderr.write('usage: extract-terraform-schema.mjs FOLDER-OF-THE-PACKAGE\n');
  process.exit(2);
}

/** Types by the getter that reads them. */
const typeOfGetter = {
  getStringAttribute: 'string',
  getNumberAttribute: 'number',
  getBooleanAttribute: 'bool',
  getStringMapAttribute: ['map', 'string'],
  getBooleanMapAttribute: ['map', 'bool'],
  getNumberMapAttribute: ['map', 'number'],
  getListAttribute: ['list', 'string'],
  getNumberListAttribute: ['list', 'number'],
};

function schemaOf(path) {
  const source = readFileSync(join(folder, 'lib', path, 'index.js'), 'utf8');
  const classes = new Map();
  for (const chunk of source.split(/^class /m).slice(1)) {
    const [, name, base] = /^(\w+) extends cdktn\.(\w+)/.exec(chunk) ?? [];
    if (name !== undefined) classes.set(name, { base, chunk });
  }
  const main = [...classes].find(
    ([, { base }]) => base === 'TerraformResource' || base === 'TerraformDataSource',
  );
  const [, { chunk }] = main;
  // Blocks are told from attributes with fields by how they are written out.
  const blockNames = new Set(
    [...source.matchAll(/^ {12}(\w+): \{\n {16}value: [^\n]*\n {16}isBlock: true,/gm)].map(
      (match) => match[1],
    ),
  );
  return blockOf(chunk, classes, blockNames);
}

function blockOf(chunk, classes, blockNames) {
  const block = { attributes: {}, blocks: {} };
  const fields = chunk.split(/^ {4}\/\/ (?=\w+ - computed: )/m).slice(1);
  for (const field of fields) {
    const [, name, computed, optional, required] =
      /^(\w+) - computed: (true|false), optional: (true|false), required: (true|false)/.exec(field) ?? [];
    const flags = {
      ...(computed === 'true' ? { computed: true } : {}),
      ...(optional === 'true' ? { optional: true } : {}),
      ...(required === 'true' ? { required: true } : {}),
    };
    const [, nested, , isSet] = /= new (\w+)\(this, "(\w+)"(?:, (true|false))?\)/.exec(field) ?? [];
    if (nested === undefined) {
      const [, getter] = /this\.(get\w+Attribute)\(/.exec(field) ?? [];
      const [, mapOf] = /= new cdktn\.(String|Number|Boolean)Map\(this/.exec(field) ?? [];
      let type =
        mapOf === undefined
          ? typeOfGetter[getter]
          : ['map', { String: 'string', Number: 'number', Boolean: 'bool' }[mapOf]];
      if (type === undefined) throw new Error(`${name}: no type for ${getter ?? field.slice(0, 200)}`);
      if (/Fn\.tolist\(/.test(field)) type = ['set', type[1]];
      block.attributes[name] = { type, ...flags };
      continue;
    }
    const isMap = nested.endsWith('Map');
    const isList = nested.endsWith('List');
    const element = classes.get(
      isList
        ? nested.replace(/List$/, 'OutputReference')
        : isMap
          ? nested.replace(/Map$/, 'OutputReference')
          : nested,
    );
    const inner = blockOf(element.chunk, classes, blockNames);
    if (computed === 'true' && !blockNames.has(name)) {
      block.attributes[name] = {
        type: [isSet === 'true' ? 'set' : 'list', ['object', objectType(inner)]],
        ...flags,
      };
    } else {
      block.blocks[name] = {
        nesting: name === 'timeouts' ? 'single' : isSet === 'true' ? 'set' : 'list',
        ...(isList || name === 'timeouts' ? {} : { maxItems: 1 }),
        ...(required === 'true' ? { minItems: 1 } : {}),
        block: inner,
      };
    }
  }
  return block;
}

function objectType(block) {
  return Object.fromEntries([
    ...Object.entries(block.attributes).map(([name, { type }]) => [name, type]),
    ...Object.entries(block.blocks).map(([name, { nesting, block: inner }]) => [
      name,
      [nesting, ['object', objectType(inner)]],
    ]),
  ]);
}

const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
const pathOf = (type, prefix) => `${prefix}${type.replace(/^aws_/, '').replaceAll('_', '-')}`;
const schema = {
  source: `@cdktn/provider-aws ${version}, MPL-2.0`,
  resources: Object.fromEntries(resources.map((type) => [type, schemaOf(pathOf(type, ''))])),
  dataSources: Object.fromEntries(dataSources.map((type) => [type, schemaOf(pathOf(type, 'data-aws-'))])),
};
process.stdout.write(`${JSON.stringify(schema, null, 1)}\n`);
