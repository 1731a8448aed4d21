/**
 * A provider of Terraform's that knows a schema and keeps no resources: the real `terraform` plans and applies against
 * it. Terraform is told by TF_REATTACH_PROVIDERS to talk to a provider that runs already, over a socket, without
 * downloading one. What the provider's own code would check (enumerations, conflicts) it does not.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import {
  loadPackageDefinition,
  Server,
  ServerCredentials,
  type ServiceClientConstructor,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { Decoder, Encoder, ExtensionCodec } from '@msgpack/msgpack';
import type { BlockSchema, CtyType, ProviderSchema } from './provider-schema.ts';

type Value = null | string | number | bigint | boolean | Unknown | Value[] | { [key: string]: Value };

/** What is known after apply: extension type 0 in cty's MessagePack, or 12 with refinements. */
class Unknown {}

const extensionCodec = new ExtensionCodec();
for (const type of [0, 12]) {
  extensionCodec.register({
    type,
    encode: (value) => (type === 0 && value instanceof Unknown ? new Uint8Array([0]) : null),
    decode: () => new Unknown(),
  });
}
const encode = (value: Value) => ({ msgpack: Buffer.from(new Encoder({ extensionCodec }).encode(value)) });
const decode = (value: { msgpack: Uint8Array; json: Uint8Array }): Value =>
  value.json.length > 0
    ? (JSON.parse(Buffer.from(value.json).toString()) as Value)
    : (new Decoder({ extensionCodec }).decode(value.msgpack) as Value);

const nestings = { single: 1, list: 2, set: 3 } as const;

function wireBlock(block: BlockSchema): object {
  return {
    attributes: Object.entries(block.attributes).map(([name, { type, required, optional, computed }]) => ({
      name,
      type: Buffer.from(JSON.stringify(type)),
      required: required ?? false,
      optional: optional ?? false,
      computed: computed ?? false,
    })),
    blockTypes: Object.entries(block.blocks).map(([typeName, nested]) => ({
      typeName,
      block: wireBlock(nested.block),
      nesting: nestings[nested.nesting],
      minItems: nested.minItems ?? 0,
      maxItems: nested.maxItems ?? 0,
    })),
  };
}

/** Goes through a value by its schema; `settle` says what becomes of each attribute. */
function settled(
  block: BlockSchema,
  value: Value,
  settle: (name: string, type: CtyType, computed: boolean, value: Value) => Value,
): Value {
  if (value === null || typeof value !== 'object' || Array.isArray(value) || value instanceof Unknown)
    return value;
  const result: { [key: string]: Value } = { ...value };
  for (const [name, { type, computed }] of Object.entries(block.attributes)) {
    result[name] = settle(name, type, computed ?? false, value[name] ?? null);
  }
  for (const [name, { block: inner }] of Object.entries(block.blocks)) {
    const nested = value[name] ?? null;
    result[name] = Array.isArray(nested)
      ? nested.map((one) => settled(inner, one, settle))
      : settled(inner, nested, settle);
  }
  return result;
}

/** What AWS would have answered. */
function invented(type: CtyType, name: string, serial: number): Value {
  if (type === 'string') {
    if (/(^|_)public_ip$/.test(name)) return `203.0.113.${serial % 256}`;
    return name === 'arn' ? `arn:aws:stub:::${serial}` : `${name.replaceAll('_', '-')}-${serial}`;
  }
  if (type === 'number') return 0;
  if (type === 'bool') return false;
  return type[0] === 'map' ? {} : name === 'name_servers' ? ['ns-1.example.net', 'ns-2.example.net'] : [];
}

export interface StubProvider {
  /** For TF_REATTACH_PROVIDERS. */
  readonly reattach: object;
  close(): void;
}

/**
 * @param name of the provider, `aws`
 * @param folder for its socket; `local_file` writes relative to it
 */
export async function startStubProvider(
  name: string,
  schema: ProviderSchema,
  folder: string,
): Promise<StubProvider> {
  const definition = loadSync(join(import.meta.dirname, 'tfplugin5.proto'), {
    longs: Number,
    defaults: true,
  });
  const { tfplugin5 } = loadPackageDefinition(definition) as unknown as {
    tfplugin5: { Provider: ServiceClientConstructor };
  };
  let serial = 0;
  const resourceBlock = (type: string): BlockSchema => {
    const block = schema.resources[type] ?? schema.dataSources[type];
    if (block === undefined) throw new Error(`no schema of ${type}`);
    return block;
  };
  type Wire = { typeName: string; [key: string]: unknown };
  type Dynamic = { msgpack: Uint8Array; json: Uint8Array };
  const methods: Record<string, (request: Wire) => object> = {
    GetSchema: () => {
      const wire = (block: BlockSchema) => ({ version: 0, block: wireBlock(block) });
      const all = (blocks: Readonly<Record<string, BlockSchema>>) =>
        Object.fromEntries(Object.entries(blocks).map(([type, block]) => [type, wire(block)]));
      return {
        provider: wire(schema.provider),
        resourceSchemas: all(schema.resources),
        dataSourceSchemas: all(schema.dataSources),
      };
    },
    PrepareProviderConfig: ({ config }) => ({ preparedConfig: config }),
    ValidateResourceTypeConfig: () => ({}),
    ValidateDataSourceConfig: () => ({}),
    Configure: () => ({}),
    UpgradeResourceState: ({ rawState }) => ({
      upgradedState: encode(
        JSON.parse(Buffer.from((rawState as { json: Uint8Array }).json).toString()) as Value,
      ),
    }),
    ReadResource: ({ currentState }) => ({ newState: currentState }),
    PlanResourceChange: ({ typeName, proposedNewState }) => ({
      plannedState: encode(
        settled(
          resourceBlock(typeName),
          decode(proposedNewState as Dynamic),
          (_name, _type, computed, value) => (value === null && computed ? new Unknown() : value),
        ),
      ),
      legacyTypeSystem: true,
    }),
    ApplyResourceChange: ({ typeName, plannedState }) => {
      const planned = decode(plannedState as Dynamic);
      serial++;
      const applied = settled(resourceBlock(typeName), planned, (attribute, type, _computed, value) =>
        value instanceof Unknown ? invented(type, attribute, serial) : value,
      );
      if (typeName === 'local_file' && applied !== null) {
        const { filename, content } = applied as { filename: string; content: string };
        const path = resolve(folder, filename);
        mkdirSync(dirname(path), { recursive: true });
        writeFileSync(path, content, { mode: 0o600 });
      }
      return { newState: encode(applied), legacyTypeSystem: true };
    },
    ReadDataSource: ({ typeName, config }) => ({
      state: encode(
        settled(resourceBlock(typeName), decode(config as Dynamic), (attribute, type, computed, value) =>
          value === null && computed ? invented(type, attribute, 1) : value,
        ),
      ),
    }),
    Stop: () => ({}),
  };
  const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
  const handlers = Object.fromEntries(
    Object.entries(methods).map(([method, answer]) => [
      method,
      ((call: { request: Wire }, done: (error: Error | null, response?: object) => void) => {
        try {
          done(null, answer(call.request));
        } catch (error) {
          done(error as Error);
        }
      }) as unknown as UntypedHandleCall,
    ]),
  );
  server.addService(tfplugin5.Provider.service, handlers);
  const socket = join(folder, `${name}.sock`);
  await new Promise<void>((done, failed) => {
    server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? done() : failed(error),
    );
  });
  return {
    reattach: {
      [`registry.terraform.io/hashicorp/${name}`]: {
        ...{ Protocol: 'grpc', ProtocolVersion: 5, Pid: process.pid, Test: true },
        Addr: { Network: 'unix', String: socket },
      },
    },
    close: () => server.forceShutdown(),
  };
}
