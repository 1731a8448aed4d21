/** `starling pause`, `resume`, `status`, `scale` and `schedule`: what a deployment on AWS does, and when. */
import type { Aws, Progress } from '@starling/infra/operate/aws';
import type { Period } from '@starling/infra/operate/hours';
import type { DeploymentState } from '@starling/infra/operate/pause';
import type { Schedules } from '@starling/infra/operate/schedules';
import { type Command, InvalidArgumentError } from 'commander';
import type { CommandContext } from '../io.ts';
import { examples, ProgressBar, printJson, printTable } from '../output.ts';

export interface AwsFlags {
  readonly deployment?: string;
  readonly region?: string;
  readonly dryRun?: true;
}

/** Options of every command that speaks to AWS. */
export function addAwsOptions(command: Command, how: { dryRun: boolean }): Command {
  command
    .option('--deployment <name>', 'which deployment (default: $STARLING_DEPLOYMENT, or starling)')
    .option('--region <region>', "where it is (default: the AWS SDK's: $AWS_REGION, or the profile's)");
  if (how.dryRun) command.option('--dry-run', 'print each call that would change something, and make none');
  return command;
}

/**
 * Connects to AWS, and tells what goes on: in lines and with a bar to standard error. A dry run prints its calls.
 * @param show prints what came of it; not after a dry run
 */
export async function withAws<T>(
  { io, wantsJson }: CommandContext,
  flags: AwsFlags,
  work: (aws: Aws, name: string) => Promise<T>,
  show: (result: T) => void,
): Promise<void> {
  const bar = new ProgressBar(io.stderr);
  const calls: Omit<Extract<Progress, { kind: 'call' }>, 'kind'>[] = [];
  const interrupt = new AbortController();
  const ignoreInterrupt = io.onInterrupt(() => interrupt.abort());
  try {
    const { openAws } = await import('@starling/infra/operate/aws');
    const aws = await openAws({
      region: flags.region,
      dryRun: flags.dryRun,
      signal: interrupt.signal,
      report(progress) {
        if (progress.kind === 'wait')
          return bar.draw(progress.label, progress.elapsedMs / progress.deadlineMs);
        bar.clear();
        if (progress.kind === 'call') calls.push({ ...progress });
        else io.stderr.write(`${progress.text}\n`);
      },
    });
    const result = await work(aws, flags.deployment ?? io.env.STARLING_DEPLOYMENT ?? 'starling');
    bar.clear();
    if (flags.dryRun !== true) return show(result);
  } finally {
    bar.clear();
    ignoreInterrupt();
  }
  const shown = calls.map(({ service, call, input }) => ({ service, call, input: withoutLongText(input) }));
  if (wantsJson()) return printJson(io.stdout, { calls: shown });
  for (const { service, call, input } of shown)
    io.stdout.write(`${service} ${call} ${JSON.stringify(input)}\n`);
  io.stdout.write(shown.length === 0 ? 'There is nothing to do.\n' : 'None of these calls was made.\n');
}

/** A template fills pages. */
function withoutLongText(input: unknown): unknown {
  return Object.fromEntries(
    Object.entries(input as object).map(([key, value]) => [
      key,
      ['TemplateBody', 'Body'].includes(key) ? `(${String(value).length} characters)` : value,
    ]),
  );
}

export function addOperateCommands(program: Command, context: CommandContext): void {
  const { io, wantsJson } = context;
  const showState = ({ name, region, condition, units, notes }: DeploymentState) => {
    const plain = units.map(({ kind, id, role, state, condition: own }) => ({
      kind,
      id,
      role,
      state,
      condition: own,
    }));
    if (wantsJson())
      return printJson(io.stdout, { deployment: name, region, condition, units: plain, notes });
    printTable(
      io.stdout,
      ['WHAT', 'ID', 'ROLE', 'STATE'],
      plain.map(({ kind, id, role, state }) => [kind, id, role, state]),
      '',
    );
    io.stdout.write(`\n${name} in ${region} is ${sayCondition(condition)}.\n`);
    for (const note of notes) io.stdout.write(`${note}\n`);
  };

  addAwsOptions(
    program
      .command('pause')
      .description('Stop what a deployment on AWS pays for by the hour, and keep its data.'),
    { dryRun: true },
  )
    .addHelpText(
      'after',
      `\nWhen it is interrupted, run it again: it goes on from where it was.${examples(
        'starling pause',
        'starling pause --deployment iptv --region eu-west-1 --dry-run',
      )}`,
    )
    .action(async (flags: AwsFlags) => {
      const { pauseDeployment } = await import('@starling/infra/operate/pause');
      await withAws(context, flags, pauseDeployment, showState);
    });
  addAwsOptions(program.command('resume').description('Start a deployment that was paused, as it was.'), {
    dryRun: true,
  })
    .addHelpText('after', examples('starling resume', 'starling resume --deployment iptv --dry-run'))
    .action(async (flags: AwsFlags) => {
      const { resumeDeployment } = await import('@starling/infra/operate/pause');
      await withAws(context, flags, resumeDeployment, showState);
    });
  addAwsOptions(
    program.command('status').description('Show what of a deployment runs, and what is paused.'),
    {
      dryRun: false,
    },
  )
    .addHelpText('after', examples('starling status', 'starling status --deployment iptv --json'))
    .action(async (flags: AwsFlags) => {
      const { readState } = await import('@starling/infra/operate/pause');
      await withAws(context, flags, readState, showState);
    });

  addAwsOptions(
    program
      .command('scale')
      .description('Set how many there are of a role that runs in an auto-scaling group or as a service.')
      .argument('[role=n...]', 'a role, or the name of a group or a service, and how many', parseCount)
      .option('--frontends <n>', 'the same as frontend=n', parsePositive)
      .option('--backends <n>', 'the same as backend=n', parsePositive),
    { dryRun: true },
  )
    .addHelpText('after', examples('starling scale --frontends 4', 'starling scale app=2 --deployment iptv'))
    .action(
      async (
        given: (readonly [string, number])[] | undefined,
        flags: AwsFlags & { frontends?: number; backends?: number },
        command: Command,
      ) => {
        const counts = new Map(given ?? []);
        if (flags.frontends !== undefined) counts.set('frontend', flags.frontends);
        if (flags.backends !== undefined) counts.set('backend', flags.backends);
        if (counts.size === 0) command.error('error: say how many, for instance with --frontends 4');
        const { scaleDeployment } = await import('@starling/infra/operate/scale');
        await withAws(
          context,
          flags,
          (aws, name) => scaleDeployment(aws, name, counts),
          (done) => {
            if (wantsJson()) return printJson(io.stdout, { done });
            for (const sentence of done) io.stdout.write(`${sentence}\n`);
          },
        );
      },
    );
  addScheduleCommands(program, context);
}

function addScheduleCommands(program: Command, context: CommandContext): void {
  const { io, wantsJson } = context;
  const schedule = program
    .command('schedule')
    .description('When a deployment on AWS runs by itself: opening hours, kept by EventBridge Scheduler.');
  const show = (describePeriod: (period: Period) => string, { periods, overrideUntil }: Schedules) => {
    const items = periods.map((period) => ({ name: period.name, hours: describePeriod(period) }));
    if (wantsJson()) return printJson(io.stdout, { items, overrideUntil: overrideUntil?.toString() ?? null });
    printTable(
      io.stdout,
      ['NAME', 'OPEN'],
      items.map(({ name, hours }) => [name, hours]),
      'There are no opening hours: it runs, or is paused, until you say otherwise.',
    );
    if (overrideUntil !== undefined)
      io.stdout.write(`Overridden: until ${overrideUntil.toString()} it stays as it is.\n`);
  };
  const change = async (flags: AwsFlags, work: (aws: Aws, name: string) => Promise<Schedules>) => {
    const { describePeriod } = await import('@starling/infra/operate/hours');
    await withAws(context, flags, work, (schedules) => show(describePeriod, schedules));
  };

  addAwsOptions(
    schedule
      .command('set')
      .description('Add opening hours, or change those of that name. Outside them the deployment is paused.')
      .option('--name <name>', 'of the opening hours', 'hours')
      .requiredOption('--days <days>', 'on which it opens: mon-fri, or mon,wed,sat, or daily')
      .requiredOption('--from <time>', 'when it opens, such as 09:00')
      .requiredOption('--to <time>', 'when it closes; on the next day, when that is not later')
      .requiredOption('--zone <zone>', 'time zone of both, such as Europe/Dublin'),
    { dryRun: true },
  )
    .addHelpText(
      'after',
      examples(
        'starling schedule set --days mon-fri --from 09:00 --to 17:00 --zone Europe/Dublin',
        'starling schedule set --name night --days sat --from 20:00 --to 02:00 --zone Europe/Dublin',
      ),
    )
    .action(
      async (flags: AwsFlags & { name: string; days: string; from: string; to: string; zone: string }) => {
        const { makePeriod } = await import('@starling/infra/operate/hours');
        const { setHours } = await import('@starling/infra/operate/schedules');
        const period = makePeriod(flags.name, flags.days, flags.from, flags.to, flags.zone);
        await change(flags, (aws, name) => setHours(aws, name, period));
      },
    );
  addAwsOptions(schedule.command('ls').description('List the opening hours.'), { dryRun: false })
    .addHelpText('after', examples('starling schedule ls', 'starling schedule ls --json'))
    .action(async (flags: AwsFlags) => {
      const { readSchedules } = await import('@starling/infra/operate/schedules');
      await change(flags, readSchedules);
    });
  addAwsOptions(
    schedule
      .command('override')
      .description('Leave everything as it is until a time; then the opening hours decide again.')
      .option('--until <time>', '22:00, or 2026-12-27T08:00, in the time zone of the opening hours')
      .option('--end', 'end the override now'),
    { dryRun: true },
  )
    .addHelpText(
      'after',
      `\nPause or resume first, to stay paused or running.${examples(
        'starling schedule override --until 22:00',
        'starling schedule override --end',
      )}`,
    )
    .action(async (flags: AwsFlags & { until?: string; end?: true }, command: Command) => {
      if ((flags.until === undefined) === (flags.end === undefined))
        command.error('error: give either --until or --end');
      const { overrideHours } = await import('@starling/infra/operate/schedules');
      await change(flags, (aws, name) => overrideHours(aws, name, flags.until));
    });
  addAwsOptions(
    schedule
      .command('rm')
      .description('Remove opening hours. What runs goes on, what is paused stays so.')
      .argument('[name]', 'of the opening hours', 'hours'),
    { dryRun: true },
  )
    .addHelpText('after', examples('starling schedule rm', 'starling schedule rm night'))
    .action(async (periodName: string, flags: AwsFlags) => {
      const { removeHours } = await import('@starling/infra/operate/schedules');
      await change(flags, (aws, name) => removeHours(aws, name, periodName));
    });
  addAwsOptions(
    schedule
      .command('sync')
      .description('Put the schedules right after machines were replaced otherwise than by `infra deploy`.'),
    { dryRun: true },
  )
    .addHelpText('after', examples('starling schedule sync'))
    .action(async (flags: AwsFlags) => {
      const { syncSchedules } = await import('@starling/infra/operate/schedules');
      await change(flags, syncSchedules);
    });
}

function sayCondition(condition: DeploymentState['condition']): string {
  if (condition === 'mixed') return 'partly paused: run `starling pause` or `starling resume`';
  return condition === 'changing' ? 'on its way from one state to another' : condition;
}

function parsePositive(text: string): number {
  const count = Number(text);
  if (!/^\d{1,4}$/.test(text) || count < 1)
    throw new InvalidArgumentError('It is a number from 1; `starling pause` is for none.');
  return count;
}

function parseCount(
  text: string,
  before: (readonly [string, number])[] | undefined,
): (readonly [string, number])[] {
  const [, role = '', count = ''] = /^([\w./-]+)=(.+)$/.exec(text) ?? [];
  if (role === '') throw new InvalidArgumentError('Write a role and a number, such as frontend=4.');
  return [...(before ?? []), [role, parsePositive(count)]];
}
