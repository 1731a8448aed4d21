import type { NetworkInterfaceInfo } from 'node:os';
import { describe, expect, it } from 'vitest';
import { onlyAddress } from './joining.ts';

const v4 = (address: string, internal = false) =>
  ({ address, family: 'IPv4', internal }) as NetworkInterfaceInfo;
const v6 = (address: string) => ({ address, family: 'IPv6', internal: false }) as NetworkInterfaceInfo;
const lo = [v4('127.0.0.1', true)];

describe('the address that a node tells the others by itself', () => {
  it.each([
    ['a host of EC2', { lo, ens5: [v4('10.0.3.17'), v6('fe80::8ff:fe00:1')] }, '10.0.3.17'],
    // Amazon ECS Developer Guide, "Fargate task networking": the metadata's interface is link-local.
    ['a task of Fargate', { lo, eth0: [v4('169.254.172.2')], eth1: [v4('10.0.18.4')] }, '10.0.18.4'],
  ])('is that of its only interface: %s', (_what, interfaces, address) => {
    expect(onlyAddress(interfaces)).toBe(address);
  });

  it.each([
    ['none', { lo, eth0: [v4('169.254.172.2')] }],
    ['10.0.0.1, 192.0.2.1', { lo, eth0: [v4('10.0.0.1')], eth1: [v4('192.0.2.1')] }],
  ])('is asked for where it has %s', (has, interfaces) => {
    expect(() => onlyAddress(interfaces)).toThrow(
      `and this one has ${has}. Say which with advertise: ADDRESS.`,
    );
  });
});
