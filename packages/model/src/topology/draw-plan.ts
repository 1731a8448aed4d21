/** Deployment file in, plan out: the one way from what the operator chooses to what there will be. */
import { type Deployment, type ProfileName, readDeployment } from './deployment.ts';
import { TopologyError } from './error.ts';
import type { Plan } from './plan.ts';
import { drawClassicIptv } from './profiles/classic-iptv.ts';

const drawers: Partial<Record<ProfileName, (deployment: Deployment) => Plan>> = {
  'classic-iptv': drawClassicIptv,
};

/**
 * The plan of a deployment. Pure: the same file gives the same plan.
 * @param file as read from `deploy.yaml`, or `{ profile, region }`
 * @throws TopologyError DEPLOY_... for a file that is not valid
 */
export function drawPlan(file: unknown): Plan {
  const deployment = readDeployment(file);
  const draw = drawers[deployment.profile];
  if (draw === undefined)
    throw new TopologyError('DEPLOY_INVALID', `${deployment.profile} is not there yet.`);
  return draw(deployment);
}
