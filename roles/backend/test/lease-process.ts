/** Wants a lease in a folder, in a process of its own, for a test that kills it. Prints each change. */
import { pino } from 'pino';
import { FileLeases } from '../src/file-leases.ts';
import { RenewedLeases } from '../src/leases.ts';

const [dir = '', nodeId = '', maxHolders = '1'] = process.argv.slice(2);
const leases: RenewedLeases = new RenewedLeases({
  authority: new FileLeases(dir, nodeId),
  logger: pino({ level: 'silent' }),
  onChange: () => process.stdout.write(`${JSON.stringify(leases.held.get('channel/films') ?? null)}\n`),
});
leases.want(new Map([['channel/films', Number(maxHolders)]]));
process.on('SIGTERM', () => void leases.close().then(() => process.exit(0)));
