/** `starling account`: who may log in, and as what. */
import type { Account, AccountWithPassword, Role } from '@starling/model/account';
import { type Command, Option } from 'commander';
import { type CommandContext, CommandError } from '../io.ts';
import { examples, printJson, printTable, splitList } from '../output.ts';
import { requireRunning } from '../running.ts';

const ROLES = ['operator', 'editor', 'streamer', 'viewer'] as const satisfies readonly Role[];
const ASK =
  'read the password from the terminal or standard input (default: one that can be used once is made)';

interface SetOptions {
  readonly role?: Role;
  readonly channels?: string[];
  readonly disable?: true;
  readonly enable?: true;
  /** False with --no-second-factor. */
  readonly secondFactor: boolean;
}

export function addAccountCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const account = program.command('account').description('Accounts: who may log in, and as what.');
  const roleOption = () =>
    new Option(
      '--role <role>',
      'operator: everything; editor: what is on the channels; streamer: streams of its own; viewer: watch',
    ).choices(ROLES);

  const askPassword = async (isWanted: true | undefined) => {
    if (isWanted === undefined) return undefined;
    const password = await io.readSecret('Password: ');
    if (password.length < 12) throw new CommandError('A password has at least 12 characters.');
    return password;
  };
  const printMade = (made: AccountWithPassword) => {
    if (wantsJson()) return printJson(io.stdout, made);
    if (made.password === null) return;
    io.stdout.write(
      `Name      ${made.account.name}\nPassword  ${made.password}\n\n` +
        'The password is shown this once, and has to be replaced at the first login.\n',
    );
  };

  account
    .command('add')
    .description('Add an account, and print its password, once.')
    .argument('<name>', 'lower-case letters, digits and hyphens')
    .addOption(roleOption().makeOptionMandatory())
    .option('--channels <name,...>', 'private channels that it may see', splitList)
    .option('--ask', ASK)
    .addHelpText(
      'after',
      examples(
        'starling account add alice --role streamer',
        'starling account add ada --role viewer --channels family',
        'starling account add bob --role editor --ask < file-with-the-password',
      ),
    )
    .action(async (name: string, options: { role: Role; channels?: string[]; ask?: true }) => {
      const { client } = requireRunning(dataDir());
      const password = await askPassword(options.ask);
      printMade(
        await client.accounts.create({
          name,
          role: options.role,
          ...(options.channels === undefined ? {} : { channels: options.channels }),
          ...(password === undefined ? {} : { password }),
        }),
      );
    });
  account
    .command('ls')
    .description('List the accounts.')
    .addHelpText('after', examples('starling account ls', 'starling account ls --json'))
    .action(async () => {
      const items = await requireRunning(dataDir()).client.accounts.list();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        ['NAME', 'ROLE', 'STATE', 'SECOND FACTOR', 'CHANNELS', 'CREATED'],
        items.map((one) => [
          one.name,
          one.role,
          stateWords(one),
          one.hasSecondFactor ? 'yes' : 'no',
          one.channels.join(','),
          one.createdAt,
        ]),
        'There are no accounts. Add one with: starling account add NAME --role operator',
      );
    });
  account
    .command('set')
    .description('Change an account. Its sessions and tokens can do what it can do from now on.')
    .argument('<name>')
    .addOption(roleOption())
    .option('--channels <name,...>', 'private channels that it may see', splitList)
    .addOption(
      new Option('--disable', 'it may not log in, and its tokens are worth nothing').conflicts('enable'),
    )
    .option('--enable', 'it may log in again')
    .option('--no-second-factor', 'take the second factor away, for who has lost it')
    .addHelpText(
      'after',
      examples('starling account set alice --role editor', 'starling account set alice --disable'),
    )
    .action(async (name: string, { role, channels, disable, enable, secondFactor }: SetOptions) => {
      const isDisabled = disable ?? (enable === true ? false : undefined);
      const changed = await requireRunning(dataDir()).client.accounts.update(name, {
        ...(role === undefined ? {} : { role }),
        ...(channels === undefined ? {} : { channels }),
        ...(isDisabled === undefined ? {} : { isDisabled }),
        ...(secondFactor ? {} : { hasSecondFactor: false }),
      });
      if (wantsJson()) printJson(io.stdout, changed);
    });
  account
    .command('password')
    .description('Set the password of an account. Its sessions end, and it is not locked any more.')
    .argument('<name>')
    .option('--ask', ASK)
    .addHelpText(
      'after',
      examples('starling account password alice', 'starling account password alice --ask'),
    )
    .action(async (name: string, { ask }: { ask?: true }) => {
      const { client } = requireRunning(dataDir());
      printMade(await client.accounts.resetPassword(name, await askPassword(ask)));
    });
  account
    .command('logout')
    .description('Log an account out everywhere. Its API tokens stay.')
    .argument('<name>')
    .addHelpText('after', examples('starling account logout alice'))
    .action(async (name: string) => {
      await requireRunning(dataDir()).client.accounts.logOut(name);
      if (wantsJson()) printJson(io.stdout, { loggedOut: [name] });
    });
  account
    .command('rm')
    .description('Remove an account with its sessions and tokens. Its streams stay.')
    .argument('<name>')
    .addHelpText('after', examples('starling account rm alice'))
    .action(async (name: string) => {
      await requireRunning(dataDir()).client.accounts.remove(name);
      if (wantsJson()) printJson(io.stdout, { removed: [name] });
    });
}

function stateWords({ isDisabled, hasOneTimePassword }: Account): string {
  if (isDisabled) return 'disabled';
  return hasOneTimePassword ? 'new password' : 'ok';
}
