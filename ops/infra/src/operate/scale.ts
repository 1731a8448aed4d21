/** How many of a role there are. */
import type { Aws } from './aws.ts';
import { OperateError } from './error.ts';
import { syncSchedules } from './schedules.ts';
import { readDeployment } from './units.ts';

/**
 * Sets the number of each role, and lets opening hours know.
 * @param counts by role, 1 or more
 * @returns what came of it, a sentence each
 * @throws OperateError SCALE_FIXED, SCALE_LIMIT
 */
export async function scaleDeployment(aws: Aws, name: string, counts: ReadonlyMap<string, number>): Promise<string[]> {
  const { units } = await readDeployment(aws, name);
  // All are looked at before the first is changed.
  const changes = [...counts].map(([role, count]) => {
    const ofRole = units.filter((unit) => unit.role === role);
    const scalable = ofRole.filter((unit) => unit.scale !== undefined);
    const [unit] = scalable;
    if (unit?.scale === undefined || scalable.length > 1) {
      const why =
        scalable.length > 1
          ? `runs in several groups (${scalable.map((one) => one.id).join(', ')})`
          : ofRole.length > 0
            ? 'runs on machines with addresses of their own, one by one'
            : 'is not a group or a service of this deployment';
      const known = [...new Set(units.filter((one) => one.scale !== undefined).map((one) => one.role))];
      const hint = known.length > 0 ? ` Here these scale: ${known.join(', ')}.` : '';
      throw new OperateError(
        'SCALE_FIXED',
        `The role ${role} ${why}: change its number in deploy.yaml, then run \`starling infra synth\` and \`starling infra deploy\`.${hint}`,
      );
    }
    return () => unit.scale?.(count) ?? '';
  });
  const done: string[] = [];
  for (const change of changes) done.push(await change());
  await syncSchedules(aws, name);
  return done;
}
