/**
 * Pause and resume. Both look at what is, do what is missing, and look again: run after an interruption at any point
 * they end in the same state, and run twice they change nothing.
 *
 * In order: what makes channels stops first, then what serves them, and the bastion, the only way in, last. Resuming
 * goes backwards.
 */
import { type Aws, awsErrorName } from './aws.ts';
import { OperateError } from './error.ts';
import { describeSchedules, keepDatabasesStopped, letDatabasesRun } from './schedules.ts';
import { type Condition, type Deployment, lookAgain, readDeployment, stagesOf, type Unit } from './units.ts';

/** Of a deployment; `mixed`: part runs, part is paused. */
export type DeploymentCondition = Exclude<Condition, 'fixed'> | 'mixed';

export interface DeploymentState extends Deployment {
  readonly condition: DeploymentCondition;
}

const refusedTooSoon =
  /^(IncorrectInstanceState|InvalidDBInstanceState|InvalidDBClusterState|ResourceContention|ScalingActivityInProgress)/;
const MAX_REFUSALS = 5;

/** @throws OperateError */
export async function pauseDeployment(aws: Aws, name: string): Promise<DeploymentState> {
  const deployment = await readDeployment(aws, name);
  for (const stage of stagesOf(deployment.units)) await bring(aws, deployment, stage, 'paused');
  const paused = await readDeployment(aws, name);
  const notes = await keepDatabasesStopped(aws, paused);
  return finish(aws, name, notes);
}

/** @throws OperateError */
export async function resumeDeployment(aws: Aws, name: string): Promise<DeploymentState> {
  const deployment = await readDeployment(aws, name);
  // First: it would stop again what is started below.
  await letDatabasesRun(aws, deployment);
  for (const stage of stagesOf(deployment.units).reverse()) await bring(aws, deployment, stage, 'running');
  return finish(aws, name, []);
}

/** @throws OperateError */
export async function readState(aws: Aws, name: string): Promise<DeploymentState> {
  const deployment = await readDeployment(aws, name);
  const notes = await describeSchedules(aws, deployment);
  return { ...deployment, condition: conditionOf(deployment.units), notes: [...deployment.notes, ...notes] };
}

async function finish(aws: Aws, name: string, notes: readonly string[]): Promise<DeploymentState> {
  const state = await readState(aws, name);
  const broken = state.units.filter((unit) => unit.condition === 'broken');
  if (broken.length > 0 && !aws.dryRun) {
    const list = broken.map((unit) => `${unit.id} is ${unit.state}`).join('; ');
    throw new OperateError(
      'DEPLOYMENT_BROKEN',
      `All the rest is done, but this needs mending in the AWS console first: ${list}.`,
    );
  }
  return { ...state, notes: [...state.notes, ...notes] };
}

/** What a deployment is as a whole, from its parts. */
export function conditionOf(units: readonly Unit[]): DeploymentCondition {
  const found = new Set(units.map((unit) => unit.condition));
  found.delete('fixed');
  if (found.has('broken')) return 'broken';
  if (found.has('changing')) return 'changing';
  if (found.size > 1) return 'mixed';
  return found.has('paused') ? 'paused' : 'running';
}

/** Brings a stage to where it shall be, and waits until it is there. */
async function bring(
  aws: Aws,
  deployment: Deployment,
  stage: readonly Unit[],
  to: 'paused' | 'running',
): Promise<void> {
  const label = describeStage(stage);
  if (stage.every((unit) => unit.condition === to || unit.condition === 'broken')) return;
  aws.report({ kind: 'step', text: `${to === 'paused' ? 'Pausing' : 'Resuming'} ${label}` });
  const refusals = new Map<string, number>();
  let isFirst = true;
  const isThere = (unit: Unit) => unit.condition !== 'changing' && unit.condition !== opposite(to);
  await aws.waitFor(
    async () => {
      const units = isFirst ? stage : await lookAgain(aws, deployment, stage);
      isFirst = false;
      for (const unit of units) {
        if (!isAwayFrom(unit, to)) continue;
        try {
          await (to === 'paused' ? unit.pause() : unit.resume());
        } catch (error) {
          // It is on its way, or busy with something else, and AWS has not shown that yet. For a while.
          const count = (refusals.get(keyOf(unit)) ?? 0) + 1;
          refusals.set(keyOf(unit), count);
          if (count >= MAX_REFUSALS || !refusedTooSoon.test(awsErrorName(error) ?? '')) throw error;
        }
      }
      return units;
    },
    (units) => units.every(isThere),
    {
      deadlineMs: Math.max(...stage.map((unit) => unit.deadlineMs)),
      describe: (units) =>
        units
          .filter((unit) => !isThere(unit))
          .map((unit) => `${unit.id}: ${unit.state}`)
          .join(', '),
    },
  );
}

/** Whether something has to be done about it, and can be. */
const isAwayFrom = (unit: Unit, to: 'paused' | 'running') =>
  unit.condition === opposite(to) || (unit.condition === 'changing' && unit.headedFor === opposite(to));
const opposite = (condition: 'paused' | 'running') => (condition === 'paused' ? 'running' : 'paused');
const keyOf = (unit: Unit) => `${unit.kind} ${unit.id}`;

function describeStage(stage: readonly Unit[]): string {
  return stage.map((unit) => (unit.role === '' ? unit.id : `${unit.role} ${unit.id}`)).join(', ');
}
