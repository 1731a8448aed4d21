/**
 * What EC2 says of the instance types that a deployment may choose.
 * Source: Amazon EC2 User Guide, "Maximum IP addresses per network interface"; EC2 instance types, general purpose and
 * compute optimised.
 */
export interface InstanceTypeLimits {
  readonly interfaces: number;
  readonly addressesPerInterface: number;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly architecture: 'x86_64' | 'arm64';
  /** Nitro names interfaces ens5, ens6, ens7; Xen does not. */
  readonly isNitro: boolean;
}

const x86 = (interfaces: number, addressesPerInterface: number, vcpus: number, memoryMib: number) =>
  ({ interfaces, addressesPerInterface, vcpus, memoryMib, architecture: 'x86_64', isNitro: true }) as const;
const arm = (interfaces: number, addressesPerInterface: number, vcpus: number, memoryMib: number) =>
  ({ interfaces, addressesPerInterface, vcpus, memoryMib, architecture: 'arm64', isNitro: true }) as const;

export const instanceTypes: Readonly<Record<string, InstanceTypeLimits>> = {
  't2.micro': { ...x86(2, 2, 1, 1024), isNitro: false },
  't2.small': { ...x86(3, 4, 1, 2048), isNitro: false },
  't3.nano': x86(2, 2, 2, 512),
  't3.micro': x86(2, 2, 2, 1024),
  't3.small': x86(3, 4, 2, 2048),
  't3.medium': x86(3, 6, 2, 4096),
  't3.large': x86(3, 12, 2, 8192),
  't3.xlarge': x86(4, 15, 4, 16_384),
  't3a.micro': x86(2, 2, 2, 1024),
  't3a.small': x86(2, 4, 2, 2048),
  't3a.medium': x86(3, 6, 2, 4096),
  't4g.micro': arm(2, 2, 2, 1024),
  't4g.small': arm(3, 4, 2, 2048),
  't4g.medium': arm(3, 6, 2, 4096),
  'c6i.large': x86(3, 10, 2, 4096),
  'c6i.xlarge': x86(4, 15, 4, 8192),
  'c7i.large': x86(3, 10, 2, 4096),
  'm6i.large': x86(3, 10, 2, 8192),
};
