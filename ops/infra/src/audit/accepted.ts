/** What we have looked at in the profiles as they come, and let be. An operator adds to it with a file of their own. */
import type { ProfileName } from '@starling/model/topology/deployment';
import type { Acceptance } from './finding.ts';

const UNTIL = '2027-11-30';

export const acceptedByDefault: Readonly<Record<ProfileName, readonly Acceptance[]>> = {
  'classic-iptv': [],
  beta: [],
  gamma: [],
  production: [],
  'production-containers': [],
  'production-serverless': [],
};
export { UNTIL };
