/** How a node becomes one: it makes a key pair, joins with the token of an invitation, and keeps the key in its data folder. */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { hostname, type NetworkInterfaceInfo, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { readNodeId } from '@starling/backend/node-id';
import { ApiError, CoordinatorClient } from '@starling/model/client';
import type { NodeRole } from '@starling/model/node';
import { NodeIdentity, NodeProver, newNodeIdentity } from '@starling/model/node-identity';
import type { Logger } from 'pino';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import { StartError } from './process.ts';

const FILE = 'node.json';
/** For a coordinator that starts at the same time. */
const JOIN_PATIENCE_MS = 30_000;
const FIRST_RETRY_MS = 250;
const MAX_RETRY_MS = 2000;
const LOOK_FOR_HOST_MS = 2000;
/** Instead of an address that is advertised. */
const AUTO = 'auto';

/** Docs: docs/formats/node-proof.md. */
const NodeFile = Type.Object({
  ...NodeIdentity.properties,
  coordinatorUrl: Type.String(),
  /** False between the making of the key and the answer of the coordinator. */
  hasJoined: Type.Boolean(),
  /** The address of this machine that the coordinator was last reached from; null before. */
  host: Type.Union([Type.String(), Type.Null()]),
});
type NodeFile = Static<typeof NodeFile>;

/** A node that has joined. */
export interface Membership {
  readonly identity: NodeIdentity;
  readonly coordinatorUrl: string;
  readonly dataDir: string;
  /** Where the others reach this machine, as far as can be told from here. */
  readonly host: string;
}

export interface JoinOptions {
  readonly dataDir: string;
  readonly coordinatorUrl: string;
  readonly role: NodeRole;
  /** Where the invitation names none; after the machine when undefined. */
  readonly name: string | undefined;
  /** Where the others reach this machine; found out when undefined, and `auto` is {@link onlyAddress}. */
  readonly advertisedHost: string | undefined;
  /** Asked for where the node has not joined yet; empty where there is none. */
  readonly readJoinToken: () => Promise<string>;
  readonly logger: Logger;
}

/**
 * The node that this data folder is; the first time it joins.
 * @throws StartError when it cannot join, or its key cannot be read
 */
export async function joinNetwork(options: JoinOptions): Promise<Membership> {
  const { dataDir, coordinatorUrl, role, logger, advertisedHost } = options;
  if (!URL.canParse(coordinatorUrl) || !/^https?:$/.test(new URL(coordinatorUrl).protocol))
    throw new StartError(`${coordinatorUrl} is no address of a coordinator, such as http://10.0.0.5:8080.`);
  // The workers of a balancer's nginx are another account, which has to be able to enter.
  await mkdir(dataDir, { recursive: true, mode: role === 'balancer' ? 0o755 : 0o700 }).catch(() => undefined);
  let file = await readNodeFile(dataDir);
  if (file?.hasJoined !== true) {
    const token = (await options.readJoinToken()).trim();
    if (token === '') {
      throw new StartError(
        `This node has not joined yet. On the coordinator run: starling node invite --role ${role}. Then start this again with STARLING_JOIN_TOKEN, or STARLING_JOIN_TOKEN_FILE, set.`,
      );
    }
    const identity =
      file ?? (await newNodeIdentity(role === 'backend' ? await readNodeId(dataDir) : undefined));
    file = { ...pick(identity), coordinatorUrl, hasJoined: false, host: null };
    // First, so that a key that was let in is never lost: whoever asks again with it gets the same answer.
    await writeNodeFile(dataDir, file);
    const name = await askToJoin(file, token, options);
    file = { ...file, hasJoined: true };
    await writeNodeFile(dataDir, file);
    logger.info({ node: name, nodeId: file.nodeId }, 'joined the network');
  }
  const host =
    (advertisedHost === AUTO ? onlyAddress(networkInterfaces()) : advertisedHost) ??
    (await ownAddressTowards(coordinatorUrl)) ??
    file.host;
  if (host === null) {
    throw new StartError(
      `The coordinator at ${coordinatorUrl} cannot be reached, and so it is not known where others reach this machine. Say it with --advertise HOST.`,
    );
  }
  if (host !== file.host || coordinatorUrl !== file.coordinatorUrl)
    await writeNodeFile(dataDir, { ...file, host, coordinatorUrl });
  return { identity: pick(file), coordinatorUrl, dataDir, host };
}

/**
 * What the node of this data folder is known by; undefined for one that has not joined yet.
 * @throws StartError when it cannot be read
 */
export async function readIdentity(dataDir: string): Promise<NodeIdentity | undefined> {
  const file = await readNodeFile(dataDir);
  return file?.hasJoined === true ? pick(file) : undefined;
}

/** Forgets the key of a node that was removed: it has to be invited again. */
export async function leaveNetwork({ dataDir }: Membership): Promise<void> {
  await rm(join(dataDir, FILE), { force: true });
}

const pick = ({ nodeId, publicKey, privateKey }: NodeIdentity): NodeIdentity => ({
  nodeId,
  publicKey,
  privateKey,
});

/** @returns the node's name */
async function askToJoin(identity: NodeIdentity, token: string, options: JoinOptions): Promise<string> {
  const { coordinatorUrl, role, name = nameOfMachine(role), logger } = options;
  const client = new CoordinatorClient({ baseUrl: coordinatorUrl });
  const { nodeId, publicKey } = identity;
  const deadlineMs = performance.now() + JOIN_PATIENCE_MS;
  for (let attempt = 0; ; attempt++) {
    try {
      const proof = await new NodeProver(identity).proofFor('join');
      return (await client.nodes.join({ token, role, nodeId, name, publicKey, proof })).name;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const mayPass = error.status === 0 || error.status === 429 || error.status >= 500;
      if (!mayPass || performance.now() > deadlineMs) throw new StartError(error.message, { cause: error });
      if (attempt === 0) logger.warn({ reason: error.message }, 'cannot join yet; trying again');
    }
    const delayMs = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt) * (0.5 + Math.random() / 2);
    await new Promise((wake) => setTimeout(wake, delayMs));
  }
}

function nameOfMachine(role: NodeRole): string {
  const host = hostname()
    .split('.')[0]
    ?.toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
  return `${role}-${host || 'node'}`.slice(0, 63).replace(/-$/, '');
}

async function readNodeFile(dataDir: string): Promise<NodeFile | undefined> {
  const path = join(dataDir, FILE);
  let file: unknown;
  try {
    file = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new StartError(`${path} cannot be read: ${error instanceof Error ? error.message : error}`);
  }
  if (Check(NodeFile, file)) return file;
  throw new StartError(`${path} is damaged. Remove it and join again: starling node invite.`);
}

/** Beside its place first, so that a kill half-way leaves what was there. */
async function writeNodeFile(dataDir: string, file: NodeFile): Promise<void> {
  const path = join(dataDir, FILE);
  try {
    await writeFile(`${path}.new`, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o600, flush: true });
    await rename(`${path}.new`, path);
  } catch (error) {
    throw new StartError(`${path} cannot be written: ${error instanceof Error ? error.message : error}`);
  }
}

/**
 * The IPv4 address of a machine that has one, beside loopback and link-local ones: a host of Amazon EC2 with one interface, or
 * a task of Fargate, whose other interface leads to its metadata alone. Where its coordinator runs beside it, no connection
 * would tell.
 * @throws StartError where it has none, or several
 */
export function onlyAddress(interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>): string {
  const addresses = Object.values(interfaces).flatMap((one = []) =>
    one.flatMap(({ address, family, internal }) =>
      family === 'IPv4' && !internal && !address.startsWith('169.254.') ? [address] : [],
    ),
  );
  const [only, ...others] = addresses;
  if (only === undefined || others.length > 0) {
    throw new StartError(
      `advertise: auto needs a machine with one IPv4 address, and this one has ${addresses.length === 0 ? 'none' : addresses.join(', ')}. Say which with advertise: ADDRESS.`,
    );
  }
  return only;
}

/** Which of this machine's addresses a connection to the coordinator comes from. */
function ownAddressTowards(coordinatorUrl: string): Promise<string | undefined> {
  const { hostname: host, port, protocol } = new URL(coordinatorUrl);
  return new Promise((resolve) => {
    const target = {
      host: host.replace(/^\[|\]$/g, ''),
      port: Number(port || (protocol === 'https:' ? 443 : 80)),
    };
    const settle = (address: string | undefined) => {
      clearTimeout(deadline);
      socket.destroy();
      resolve(address?.replace(/^::ffff:/, '').replace(/%.*$/, ''));
    };
    const deadline = setTimeout(() => settle(undefined), LOOK_FOR_HOST_MS);
    const socket = connect(target, () => settle(socket.localAddress));
    socket.on('error', () => settle(undefined));
  });
}
