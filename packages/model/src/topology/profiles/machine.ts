/** What every EC2 host of ours has. */
import { always, type Price, perHour } from '../price.ts';

export const debian12 = {
  architecture: 'x86_64',
  image: {
    // Debian's own account publishes both (https://wiki.debian.org/Cloud/AmazonEC2Image/Bookworm).
    ssmParameter: '/aws/service/debian/release/12/latest/amd64',
    owner: '136693071363',
    namePattern: 'debian-12-amd64-*',
  },
  // Containers on the host would need two hops; there are none, so a request forged through a service gets no further.
  metadata: { httpTokens: 'required', hopLimit: 1 },
} as const;

export function machinePrices(instanceType: string, rootVolumeGb: number): Price[] {
  return [perHour(`ec2/${instanceType}/hour`), always('ebs/gp3/gb-month', rootVolumeGb)];
}
