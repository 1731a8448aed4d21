/** A coordinator in a process of its own, for tests that kill it. Prints its port. */
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { startCoordinator } from '../src/main.ts';

const [dataDir = '', operatorToken = '', nodeToken = ''] = process.argv.slice(2);
const coordinator = await startCoordinator({
  registry: new Registry(),
  dataDir,
  databaseUrl: process.env.DATABASE_URL,
  operatorToken,
  nodeToken,
  webDir: undefined,
  logger: pino({ level: 'silent' }),
});
const { port } = await coordinator.listen('127.0.0.1', 0);
process.stdout.write(`${port}\n`);
