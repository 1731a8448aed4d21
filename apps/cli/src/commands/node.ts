/** `starling node`: the machines of the network. */
import { type Node, type NodeRole, nodeRoles } from '@starling/model/node';
import { type Command, Option } from 'commander';
import { parseDuration } from '../durations.ts';
import { type CommandContext, CommandError } from '../io.ts';
import { examples, printJson, printTable } from '../output.ts';
import { requireRunning } from '../running.ts';

interface InviteOptions {
  readonly role: NodeRole;
  readonly name?: string;
  /** Seconds. */
  readonly expires: number;
  readonly url?: string;
}

interface RestartOptions {
  readonly all?: true;
  /** Seconds. */
  readonly within: number;
}

const LOOK_EVERY_MS = 250;
/** For a frontend to be pushed what it had before; some of it may be off the air by now. */
const FILL_WITHIN_MS = 10_000;
/** Balancers come last: while they restart nobody gets in, so everything else is to be well by then. */
const RESTART_ORDER: readonly NodeRole[] = ['backend', 'frontend', 'balancer'];

export function addNodeCommands(program: Command, { io, dataDir, wantsJson }: CommandContext): void {
  const node = program.command('node').description('The machines of the network.');
  const client = () => requireRunning(dataDir()).client.nodes;

  node
    .command('invite')
    .description('Print a token with which one machine may join, once, and the command to run there.')
    .addOption(new Option('--role <role>', 'what it is to be').choices(nodeRoles).makeOptionMandatory())
    .option('--name <name>', 'of the node (default: it chooses one, after the machine)')
    .option('--expires <time>', 'how long the token is good, for instance 30m, 1h or 2d', parseDuration, 3600)
    .option('--url <url>', 'address at which the machine reaches the coordinator, to print')
    .addHelpText(
      'after',
      examples(
        'starling node invite --role frontend',
        'starling node invite --role backend --name studio --expires 1d',
      ),
    )
    .action(async ({ role, name, expires, url }: InviteOptions) => {
      const { client, apiUrl } = requireRunning(dataDir());
      const invited = await client.nodes.invite({
        role,
        expiresInSeconds: expires,
        ...(name === undefined ? {} : { name }),
      });
      const command = `npx starling ${role} --join ${url ?? apiUrl}`;
      if (wantsJson()) return printJson(io.stdout, { ...invited, command });
      const isLocal = /^https?:\/\/(127\.|localhost|\[::1\])/.test(url ?? apiUrl);
      io.stdout.write(
        [
          `Token    ${invited.token}`,
          `Good     once, until ${invited.invitation.expiresAt}`,
          `Run      ${command}`,
          '',
          'The token is shown this once. The command asks for it; a service gets it as $STARLING_JOIN_TOKEN, or in a file that',
          '$STARLING_JOIN_TOKEN_FILE names. After that the machine is known by its key.',
          ...(isLocal
            ? [`On another machine, put the address of this one in the place of ${url ?? apiUrl}.`]
            : []),
          '',
        ].join('\n'),
      );
    });
  node
    .command('ls')
    .description('List the nodes: what they are to do, and how they are.')
    .addHelpText('after', examples('starling node ls', 'starling node ls --json'))
    .action(async () => {
      const items = await client().list();
      if (wantsJson()) return printJson(io.stdout, { items });
      printTable(
        io.stdout,
        [
          'NAME',
          'ROLE',
          'STATE',
          'HEALTH',
          'CHANNELS',
          'VIEWERS',
          'CPU',
          'MEMORY',
          'VERSION',
          'ADDRESS',
          'LAST SEEN',
        ],
        items.map((one) => [
          ...[one.name, one.role, stateWords(one), one.health],
          ...(one.load === null
            ? ['', '', '', '']
            : [
                String(one.load.channelCount),
                String(one.load.viewerCount),
                one.load.cpuCores.toFixed(2),
                `${Math.round(one.load.memoryBytes / 1e6)} MB`,
              ]),
          ...[one.version ?? '', one.addresses?.host ?? '', one.lastSeenAt ?? 'never'],
        ]),
        'No machine has joined. Invite one with: starling node invite --role frontend',
      );
    });
  const orders = {
    cordon: 'Give nodes nothing new; they go on with what they have.',
    drain: 'Give nodes nothing new, and what they have to the others.',
    uncordon: 'Have nodes work again.',
  } as const;
  for (const [verb, description] of Object.entries(orders) as [keyof typeof orders, string][]) {
    node
      .command(verb)
      .description(description)
      .argument('<name...>', 'as shown by starling node ls')
      .addHelpText('after', examples(`starling node ${verb} frontend-a`))
      .action(async (names: string[]) => {
        const items: Node[] = [];
        for (const name of names) items.push(await client()[verb](name));
        if (wantsJson()) printJson(io.stdout, { items });
      });
  }
  node
    .command('rm')
    .description('Remove nodes: their keys are refused everywhere, and they end.')
    .argument('<name...>', 'as shown by starling node ls')
    .addHelpText('after', examples('starling node drain frontend-a', 'starling node rm frontend-a'))
    .action(async (names: string[]) => {
      for (const name of names) await client().remove(name);
      if (wantsJson()) printJson(io.stdout, { removed: names });
    });
  node
    .command('restart')
    .description(
      'Restart nodes, one after another: each is drained and ends with exit code 75, for its supervisor to start it; the next one follows when it is ready.',
    )
    .argument('[name...]', 'as shown by starling node ls')
    .option('--all', 'backends first, then frontends, then balancers')
    .option('--one-at-a-time', 'as it is always done')
    .option('--within <time>', 'what one may take, for instance 2m', parseDuration, 120)
    .addHelpText(
      'after',
      examples('starling node restart frontend-a', 'starling node restart --all --one-at-a-time'),
    )
    .action(async (names: string[], { all, within }: RestartOptions) => {
      if ((names.length === 0) !== (all === true)) throw new CommandError('Name the nodes, or say --all.');
      const nodes = client();
      const order = all === true ? namesInOrder(await nodes.list()) : names;
      const restarted: string[] = [];
      for (const name of order) {
        const seconds = await restart(nodes, name, within);
        restarted.push(name);
        if (!wantsJson()) io.stdout.write(`${name} is back after ${seconds} s.\n`);
      }
      if (wantsJson()) printJson(io.stdout, { restarted });
    });
  const invitation = node.command('invitation').description('The invitations that are out.');
  invitation
    .command('ls')
    .description('List the invitations, newest first.')
    .addHelpText('after', examples('starling node invitation ls'))
    .action(async () => {
      const items = await client().invitations();
      if (wantsJson()) return printJson(io.stdout, { items });
      const nowMs = Date.now();
      printTable(
        io.stdout,
        ['ID', 'ROLE', 'NAME', 'STATE', 'EXPIRES'],
        items.map(({ id, role, name, usedAt, expiresAt }) => {
          const state = usedAt !== null ? 'used' : Date.parse(expiresAt) <= nowMs ? 'expired' : 'open';
          return [id, role, name ?? '', state, expiresAt];
        }),
        'There are no invitations. Make one with: starling node invite --role frontend',
      );
    });
  invitation
    .command('rm')
    .description('Withdraw an invitation.')
    .argument('<id>', 'as shown by starling node invitation ls')
    .addHelpText('after', examples('starling node invitation rm 1f3a9c0b7d2e4f60'))
    .action(async (id: string) => {
      await client().withdraw(id);
      if (wantsJson()) printJson(io.stdout, { withdrawn: [id] });
    });
}

function stateWords({ state, isIdle, restartBootId }: Node): string {
  if (state !== 'draining') return state;
  if (restartBootId !== null) return 'restarting';
  return isIdle ? 'drained' : 'draining';
}

function namesInOrder(nodes: readonly Node[]): string[] {
  const lost = nodes.filter(({ health }) => health === 'lost');
  if (lost.length > 0) {
    throw new CommandError(
      `${lost.map(({ name }) => name).join(', ')} cannot be restarted: nothing is heard of it. Start it, or remove it with: starling node rm ${lost[0]?.name}`,
    );
  }
  return RESTART_ORDER.flatMap((wanted) => nodes.filter(({ role }) => role === wanted)).map(
    ({ name }) => name,
  );
}

/**
 * @returns how many seconds it took
 * @throws CommandError when the node is not back in time: whoever restarts several stops there
 */
async function restart(
  nodes: ReturnType<typeof requireRunning>['client']['nodes'],
  name: string,
  withinSeconds: number,
): Promise<number> {
  const startedAtMs = performance.now();
  const { bootId, role, load } = await nodes.restart(name);
  const channelCount = role === 'frontend' ? (load?.channelCount ?? 0) : 0;
  let readyAtMs: number | undefined;
  for (;;) {
    const seconds = (performance.now() - startedAtMs) / 1000;
    const now = await nodes.get(name);
    if (now.bootId !== bootId && now.health === 'ready') {
      readyAtMs ??= performance.now();
      const isFull = (now.load?.channelCount ?? 0) >= channelCount;
      if (isFull || performance.now() - readyAtMs > FILL_WITHIN_MS) return Math.round(seconds * 10) / 10;
    }
    if (seconds > withinSeconds) {
      throw new CommandError(
        now.bootId === bootId
          ? `${name} has not come back within ${withinSeconds} s. Does a supervisor start it again when it ends with code 75?`
          : `${name} is back, but was not ready within ${withinSeconds} s. Its log says why.`,
      );
    }
    await new Promise((wake) => setTimeout(wake, LOOK_EVERY_MS));
  }
}
