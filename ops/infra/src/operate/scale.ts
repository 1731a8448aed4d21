/** How many of a role there are. */
import type { Aws } from './aws.ts';
import { OperateError } from './error.ts';
import { syncSchedules } from './schedules.ts';
import { readDeployment } from './units.ts';

/**
 * Sets the number of each role, and lets opening hours know.
 * @param counts by role, or by the name of a group or a service where several have the role; 1 or more
 * @returns what came of it, a sentence each
 * @throws OperateError SCALE_FIXED, SCALE_LIMIT
 */
export async function scaleDeployment(
  aws: Aws,
  name: string,
  counts: ReadonlyMap<string, number>,
): Promise<string[]> {
  const { units } = await readDeployment(aws, name);
  // All are looked at before the first is changed.
  const changes = [...counts].map(([role, count]) => {
    const ofRole = units.filter(
      ({ role: own, id }) => own === role || id === role || id.endsWith(`/${role}`),
    );
    const scalable = ofRole.filter((unit) => unit.scale !== undefined);
    const [unit] = scalable;
    if (unit?.scale === undefined || scalable.length > 1) {
      const why =
        scalable.length > 1
          ? `is that of several: ${scalable.map((one) => one.id).join(', ')}; name one of them`
          : ofRole.length > 0
            ? 'runs on machines with addresses of their own: change its number in deploy.yaml, then run `starling infra synth` and `starling infra deploy`'
            : 'is no group and no service of this deployment';
      const known = units.filter((one) => one.scale !== undefined).map((one) => `${one.role} (${one.id})`);
      const hint = known.length > 0 ? ` Here these can be scaled: ${known.join(', ')}.` : '';
      throw new OperateError('SCALE_FIXED', `The role ${role} ${why}.${hint}`);
    }
    return () => unit.scale?.(count) ?? '';
  });
  const done: string[] = [];
  for (const change of changes) done.push(await change());
  await syncSchedules(aws, name);
  return done;
}
