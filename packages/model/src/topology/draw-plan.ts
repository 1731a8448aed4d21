/** Deployment file in, plan out: the one way from what the operator chooses to what there will be. */
import { type Deployment, type ProfileName, readDeployment } from './deployment.ts';
import type { Plan } from './plan.ts';
import { drawApp } from './profiles/app.ts';
import { drawClassicIptv } from './profiles/classic-iptv.ts';
import { drawContainers } from './profiles/containers.ts';
import { drawServerless } from './profiles/serverless.ts';

const drawers: Record<ProfileName, (deployment: Deployment) => Plan> = {
  'classic-iptv': drawClassicIptv,
  beta: drawApp,
  gamma: drawApp,
  production: drawApp,
  'production-containers': drawContainers,
  'production-serverless': drawServerless,
};

/**
 * The plan of a deployment. Pure: the same file gives the same plan.
 * @param file as read from `deploy.yaml`, or `{ profile, region }`
 * @throws TopologyError DEPLOY_... for a file that is not valid
 */
export function drawPlan(file: unknown): Plan {
  const deployment = readDeployment(file);
  return drawers[deployment.profile](deployment);
}
