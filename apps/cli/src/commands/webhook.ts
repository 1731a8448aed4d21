/** `starling webhook`: tells other programs what happens to streams and channels. */
import { type WebhookEvent, type WebhookEventType, webhookEventTypes } from '@starling/model/webhook';
import { type Command, Option } from 'commander';
import { parseDuration } from '../durations.ts';
import type { CommandContext } from '../io.ts';
import { examples, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';

export function addWebhookCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const webhook = program
    .command('webhook')
    .description('Addresses that are told when something happens to a stream, a channel or a destination.');
  webhook
    .command('add')
    .description('Send events to an address. Prints the secret that they are signed with, once.')
    .argument('<url>', 'where a JSON document is posted to, or mailto:NAME@HOST for e-mails')
    .addOption(
      new Option('--events <event...>', 'which events (default: all; by e-mail alarms)').choices(
        webhookEventTypes,
      ),
    )
    .addHelpText(
      'after',
      examples(
        'starling webhook add https://example.org/starling',
        'starling webhook add http://192.168.1.5:9000/ --events failover',
        'starling webhook add mailto:ops@example.org',
      ),
    )
    .action(async (url: string, { events }: { events?: WebhookEventType[] }) => {
      const added = await requireRunning(dataDir()).client.webhooks.create({
        url,
        ...(events === undefined ? {} : { events }),
      });
      if (wantsJson()) return printJson(io.stdout, added);
      if (added.secret === null) {
        io.stdout.write(`Id      ${added.webhook.id}\n\nTry it with: starling alarm test\n`);
        return;
      }
      io.stdout.write(
        [
          `Id      ${added.webhook.id}`,
          `Secret  ${added.secret}`,
          '',
          'The secret is shown this once. docs/operations.md says how to check the signature.',
          '',
        ].join('\n'),
      );
    });
  webhook
    .command('ls')
    .description('List the webhooks.')
    .addHelpText('after', examples('starling webhook ls'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.webhooks.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['ID', 'ADDRESS', 'EVENTS'],
        items.map(({ id, url, events }) => [id, url, events.join(', ')]),
        'There are no webhooks. Add one with: starling webhook add URL',
      );
    });
  webhook
    .command('rotate-secret')
    .description(
      'Sign with a new secret, and during the overlap with the old one too. Prints the new one, once.',
    )
    .argument('<id>')
    .option('--overlap <time>', 'how long both sign, for instance 10m or 24h', parseDuration)
    .addHelpText('after', examples('starling webhook rotate-secret 5f0c63b1a94d2e78 --overlap 24h'))
    .action(async (id: string, { overlap }: { overlap?: number }) => {
      const { client } = requireRunning(dataDir());
      const rotation = overlap === undefined ? {} : { overlapSeconds: overlap };
      const rotated = await client.webhooks.rotateSecret(id, rotation);
      if (wantsJson()) return printJson(io.stdout, rotated);
      io.stdout.write(`Secret  ${rotated.secret}\n`);
    });
  webhook
    .command('rm')
    .description('Remove a webhook. What waits for it is dropped.')
    .argument('<id>')
    .addHelpText('after', examples('starling webhook rm 5f0c63b1a94d2e78'))
    .action(async (id: string) => {
      await requireRunning(dataDir()).client.webhooks.remove(id);
      if (wantsJson()) printJson(io.stdout, { removed: [id] });
    });
  webhook
    .command('log')
    .description('Show what was sent to a webhook, and what came of it; newest first.')
    .argument('<id>')
    .addHelpText('after', examples('starling webhook log 5f0c63b1a94d2e78'))
    .action(async (id: string) => {
      const items = await requireRunning(dataDir()).client.webhooks.deliveries(id);
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['AT', 'EVENT', 'OF', 'STATE', 'ATTEMPTS', 'OUTCOME'],
        items.map(({ event, state, attempts, outcome }) => [
          event.at,
          event.type,
          subjectOf(event),
          state,
          String(attempts),
          outcome ?? '',
        ]),
        'Nothing was sent yet.',
      );
    });
}

/** What an event is about. */
function subjectOf(event: WebhookEvent): string {
  if ('alarm' in event) return `${event.alarm.kind} ${event.alarm.target}`;
  if ('stream' in event) return event.stream;
  return 'destination' in event ? event.destination : event.channel;
}
