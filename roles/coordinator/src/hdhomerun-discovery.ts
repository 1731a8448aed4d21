/**
 * Answers programs that look for an HDHomeRun tuner with a broadcast on the local network.
 *
 * Source: libhdhomerun (Silicondust, LGPL), hdhomerun_pkt.h: a packet is type, length, tagged values, and a CRC.
 */
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { crc32 } from 'node:zlib';
import type { Logger } from 'pino';

export const DISCOVERY_PORT = 65_001;
const MAX_PACKET_BYTES = 1460;
const HEADER_BYTES = 4;
const CRC_BYTES = 4;

const REQUEST = 0x0002;
const REPLY = 0x0003;
const tags = {
  deviceType: 0x01,
  deviceId: 0x02,
  tunerCount: 0x10,
  lineupUrl: 0x27,
  baseUrl: 0x2a,
} as const;
const TUNER = 0x0000_0001;
const ANY = 0xffff_ffff;

export interface DiscoveryOptions {
  /** 0 takes a free port. */
  readonly port: number;
  /** Eight hexadecimal digits. */
  readonly deviceId: string;
  readonly tunerCount: number;
  /** Where `/lineup.json` is. */
  readonly httpPort: number;
  readonly logger: Logger;
}

export interface Discovery {
  readonly port: number;
  close(): Promise<void>;
}

/** @throws the system's error when the port cannot be opened */
export async function startDiscovery(options: DiscoveryOptions): Promise<Discovery> {
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  socket.on('message', (packet, sender) => {
    if (!asksFor(packet, Number.parseInt(options.deviceId, 16))) return;
    socket.send(replyOf(options, localAddressFor(sender)), sender.port, sender.address);
  });
  socket.bind(options.port);
  await once(socket, 'listening');
  socket.on('error', (error) => options.logger.warn({ err: error }, 'HDHomeRun discovery failed'));
  return {
    port: socket.address().port,
    close: () => new Promise((resolve) => socket.close(resolve)),
  };
}

/** Whether a packet looks for a tuner, any one or this one. Anything else is not answered. */
function asksFor(packet: Buffer, deviceId: number): boolean {
  if (packet.length < HEADER_BYTES + CRC_BYTES || packet.length > MAX_PACKET_BYTES) return false;
  const bodyEnd = packet.length - CRC_BYTES;
  if (packet.readUInt16BE(0) !== REQUEST || packet.readUInt16BE(2) !== bodyEnd - HEADER_BYTES) return false;
  if (packet.readUInt32LE(bodyEnd) !== crc32(packet.subarray(0, bodyEnd))) return false;
  for (let at = HEADER_BYTES; at + 2 <= bodyEnd; ) {
    const tag = packet.readUInt8(at);
    const sizeBytes = packet.readUInt8(at + 1);
    // Longer values have a longer length; none of those that are asked with is.
    if (sizeBytes >= 0x80 || at + 2 + sizeBytes > bodyEnd) return false;
    const value = sizeBytes === 4 ? packet.readUInt32BE(at + 2) : undefined;
    if (tag === tags.deviceType && value !== TUNER && value !== ANY) return false;
    if (tag === tags.deviceId && value !== deviceId && value !== ANY) return false;
    at += 2 + sizeBytes;
  }
  return true;
}

function replyOf({ deviceId, tunerCount, httpPort }: DiscoveryOptions, address: string): Buffer {
  const baseUrl = `http://${address}:${httpPort}`;
  const body = Buffer.concat([
    value(tags.deviceType, uint32(TUNER)),
    value(tags.deviceId, uint32(Number.parseInt(deviceId, 16))),
    value(tags.tunerCount, Buffer.of(tunerCount)),
    value(tags.baseUrl, Buffer.from(baseUrl)),
    value(tags.lineupUrl, Buffer.from(`${baseUrl}/lineup.json`)),
  ]);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(REPLY, 0);
  header.writeUInt16BE(body.length, 2);
  const packet = Buffer.concat([header, body]);
  const crc = Buffer.alloc(CRC_BYTES);
  crc.writeUInt32LE(crc32(packet));
  return Buffer.concat([packet, crc]);
}

/** Of less than 128 bytes, which an address always is. */
function value(tag: number, bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.of(tag, bytes.length), bytes]);
}

function uint32(number: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes;
}

/** Our address on the network that a sender is on; the sender's own when it is this machine. */
function localAddressFor({ address }: RemoteInfo): string {
  const ours = Object.values(networkInterfaces()).flatMap((one) => one ?? []);
  const sameNet = ours.find(
    (one) => one.family === 'IPv4' && network(one.address, one.netmask) === network(address, one.netmask),
  );
  return (sameNet ?? ours.find((one) => one.family === 'IPv4' && !one.internal))?.address ?? address;
}

function network(address: string, netmask: string): number {
  const number = (text: string) => text.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0);
  return (number(address) & number(netmask)) >>> 0;
}
