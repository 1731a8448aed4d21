/** `starling api-token`: bearer tokens for programs that use the API. */
import { type ApiToken, type Scope, scopes } from '@starling/model/account';
import { type Command, InvalidArgumentError } from 'commander';
import { parseDuration } from '../durations.ts';
import type { CommandContext } from '../io.ts';
import { examples, printJson, printTable, splitList } from '../output.ts';
import { requireRunning } from '../running.ts';

interface CreateOptions {
  readonly name: string;
  readonly scope: Scope[];
  /** Seconds. */
  readonly expires: number;
  readonly account?: string;
}

export function addApiTokenCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const token = program.command('api-token').description('Bearer tokens for programs that use the API.');
  token
    .command('create')
    .description('Make a token, and print it, once.')
    .requiredOption('--name <name>', 'what it is for; shows in the list and in the audit log')
    .requiredOption('--scope <scope,...>', `what it may do: ${scopes.join(', ')}`, parseScopes)
    .requiredOption('--expires <time>', 'how long it is valid, for instance 90m, 24h or 30d', parseDuration)
    .option('--account <name>', 'whose it is: it can do no more than the account (default: nobody)')
    .addHelpText(
      'after',
      examples(
        'starling api-token create --name "nightly schedule" --scope channels:read,schedules:write --expires 90d',
        'starling api-token create --name "my bot" --scope streams:write --account alice --expires 30d',
      ),
    )
    .action(async ({ name, scope, expires, account }: CreateOptions) => {
      const { client, apiUrl } = requireRunning(dataDir());
      const created = await client.apiTokens.create({
        name,
        scopes: scope,
        expiresInSeconds: expires,
        ...(account === undefined ? {} : { account }),
      });
      if (wantsJson()) return printJson(io.stdout, created);
      const { apiToken } = created;
      io.stdout.write(
        [
          `Id      ${apiToken.id}`,
          `May     ${apiToken.scopes.join(', ')}, until ${apiToken.expiresAt}`,
          `Token   ${created.token}`,
          `Use     curl -H "Authorization: Bearer $TOKEN" ${apiUrl}/api/v1/me`,
          '',
          'The token is shown this once. Take it back with:',
          `starling api-token revoke ${apiToken.id}`,
          '',
        ].join('\n'),
      );
    });
  token
    .command('ls')
    .description('List the tokens.')
    .addHelpText('after', examples('starling api-token ls', 'starling api-token ls --json'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.apiTokens.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      const nowMs = Date.now();
      printTable(
        io.stdout,
        ['ID', 'NAME', 'ACCOUNT', 'SCOPES', 'STATE', 'EXPIRES'],
        items.map((one) => [
          one.id,
          one.name,
          one.account ?? '',
          one.scopes.join(','),
          stateWords(one, nowMs),
          one.expiresAt,
        ]),
        'There are no API tokens. Make one with: starling api-token create --name NAME --scope SCOPE --expires 30d',
      );
    });
  token
    .command('revoke')
    .description('Make a token worthless, at once.')
    .argument('<id>', 'as shown by starling api-token ls')
    .addHelpText('after', examples('starling api-token revoke 1f3a9c0b7d2e4f60'))
    .action(async (id: string) => {
      await requireRunning(dataDir()).client.apiTokens.revoke(id);
      if (wantsJson()) printJson(io.stdout, { revoked: [id] });
    });
}

function stateWords({ revokedAt, expiresAt }: ApiToken, nowMs: number): string {
  if (revokedAt !== null) return 'revoked';
  return Date.parse(expiresAt) <= nowMs ? 'expired' : 'valid';
}

function parseScopes(text: string): Scope[] {
  return splitList(text).map((wanted) => {
    const scope = scopes.find((known) => known === wanted);
    if (scope === undefined) throw new InvalidArgumentError(`There is no scope ${wanted}.`);
    return scope;
  });
}
