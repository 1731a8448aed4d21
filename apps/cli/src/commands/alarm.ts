/** `starling alarm`: what is wrong with the network, and who is at it. */
import { type AlarmSettingsChange, alarmKinds, defaultAlarmSettings } from '@starling/model/alarm';
import type { CoordinatorClient } from '@starling/model/client';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type CommandContext, CommandError } from '../io.ts';
import { examples, printJson, printTable, splitList } from '../output.ts';
import { requireRunning } from '../running.ts';

const LOOK_EVERY_MS = 100;
/** The first attempt at each address has an end by then. */
const TEST_WAIT_MS = 15_000;
const numbers = Object.entries(defaultAlarmSettings).flatMap(([name, value]) =>
  typeof value === 'number' ? [name] : [],
);

export function addAlarmCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const client = () => requireRunning(dataDir()).client;
  const alarm = program
    .command('alarm')
    .description('What is wrong with the network. `starling webhook add` says who is told of it.');
  alarm
    .command('ls')
    .description('List the alarms that are not resolved, newest first.')
    .option('--all', 'also those that are over')
    .addOption(new Option('--kind <kind>', 'only of one kind').choices(alarmKinds))
    .option('--target <name>', 'only about one thing, such as a channel or a node')
    .addHelpText('after', examples('starling alarm ls', 'starling alarm ls --all --kind channel-dark'))
    .action(async ({ all, kind, target }: { all?: true; kind?: string; target?: string }) => {
      const items = await client().alarms.list({
        limit: '1000',
        ...(all ? {} : { state: 'open' }),
        ...(kind === undefined ? {} : { kind }),
        ...(target === undefined ? {} : { target }),
      });
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['ID', 'SINCE', 'SEVERITY', 'STATE', 'KIND', 'WHAT'],
        items.map(({ id, raisedAt, severity, state, acknowledgedBy, kind: of, message }) => [
          ...[id, raisedAt, severity],
          state === 'acknowledged' ? `${acknowledgedBy} is at it` : state,
          ...[of, message],
        ]),
        all ? 'There was never an alarm.' : 'All is well.',
      );
    });
  alarm
    .command('ack')
    .description('Say that you are at it.')
    .argument('<id...>')
    .addHelpText('after', examples('starling alarm ack 0f3c2a5e-7d1b-4c8e-9a6f-2b4d8e1c3a5f'))
    .action(async (ids: string[]) => {
      const items = [];
      for (const id of ids) items.push(await client().alarms.acknowledge(id));
      if (wantsJson()) printJson(io.stdout, { items });
    });
  alarm
    .command('resolve')
    .description('Say that it is over. While it goes on, it is not raised again for ten minutes.')
    .argument('<id...>')
    .addHelpText('after', examples('starling alarm resolve 0f3c2a5e-7d1b-4c8e-9a6f-2b4d8e1c3a5f'))
    .action(async (ids: string[]) => {
      const items = [];
      for (const id of ids) items.push(await client().alarms.resolve(id));
      if (wantsJson()) printJson(io.stdout, { items });
    });
  alarm
    .command('settings')
    .description('Show when there is an alarm, or change it.')
    .option('--set <name=value...>', `one of ${numbers.join(', ')}`, collectSettings)
    .option('--mute <kinds>', 'of which there are to be no alarms, with commas; none for no kind', parseKinds)
    .addHelpText(
      'after',
      examples(
        'starling alarm settings',
        'starling alarm settings --set channelDarkSeconds=30 diskFreePercent=5',
        'starling alarm settings --mute failover,destination-failing',
      ),
    )
    .action(
      async ({
        set,
        mute,
      }: {
        set?: Record<string, number>;
        mute?: NonNullable<AlarmSettingsChange['mutedKinds']>;
      }) => {
        const change: AlarmSettingsChange = { ...set, ...(mute === undefined ? {} : { mutedKinds: mute }) };
        const { alarms } = client();
        const isChange = Object.keys(change).length > 0;
        const settings = isChange ? await alarms.changeSettings(change) : await alarms.settings();
        if (wantsJson()) return printJson(io.stdout, settings);
        printTable(
          io.stdout,
          ['SETTING', 'VALUE'],
          Object.entries(settings).map(([name, value]) => [
            name,
            Array.isArray(value) ? value.join(', ') || 'none' : String(value),
          ]),
          '',
        );
      },
    );
  alarm
    .command('test')
    .description('Send an alarm that is none to everybody who hears of alarms, and say what came of it.')
    .addHelpText('after', examples('starling alarm test'))
    .action(async () => {
      const results = await tryWaysOut(client());
      if (wantsJson()) printJson(io.stdout, { items: results });
      else {
        printTable(
          io.stdout,
          ['ADDRESS', 'RESULT', 'ANSWER'],
          results.map(({ url, state, outcome }) => [url, state, outcome]),
          'Nobody hears of alarms. Add somebody with: starling webhook add mailto:NAME@HOST',
        );
      }
      const failed = results.filter(({ state }) => state !== 'delivered');
      if (failed.length > 0)
        throw new CommandError(`${failed.length} of ${results.length} did not take it; it is tried again.`);
    });
}

/** Waits until each address has been tried once. */
async function tryWaysOut(client: CoordinatorClient) {
  const { eventId, webhookIds } = await client.alarms.test();
  const webhooks = (await client.webhooks.list()).filter(({ id }) => webhookIds.includes(id));
  const untilMs = Date.now() + TEST_WAIT_MS;
  return Promise.all(
    webhooks.map(async ({ id, url }) => {
      for (;;) {
        const deliveries = await client.webhooks.deliveries(id);
        const delivery = deliveries.find(({ event }) => event.id === eventId);
        if (delivery !== undefined && delivery.attempts > 0)
          return { url, state: delivery.state, outcome: delivery.outcome ?? '' };
        if (Date.now() > untilMs)
          return { url, state: 'waiting', outcome: `nothing within ${TEST_WAIT_MS / 1000} s` };
        await new Promise((wake) => setTimeout(wake, LOOK_EVERY_MS));
      }
    }),
  );
}

function collectSettings(text: string, before: Record<string, number> = {}): Record<string, number> {
  const [, name = '', value = ''] = /^(\w+)=(\d{1,9})$/.exec(text) ?? [];
  if (!numbers.includes(name))
    throw new InvalidArgumentError(`Give NAME=NUMBER with a name of: ${numbers.join(', ')}.`);
  return { ...before, [name]: Number(value) };
}

function parseKinds(text: string) {
  if (text === 'none') return [];
  return splitList(text).map((name) => {
    const kind = alarmKinds.find((known) => known === name);
    if (kind === undefined) throw new InvalidArgumentError(`Kinds are ${alarmKinds.join(', ')}, or none.`);
    return kind;
  });
}
