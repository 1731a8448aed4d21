/** For the tests that run on a PostgreSQL server: starts one, with a database that each test copies. */
import { pino } from 'pino';
import type { TestProject } from 'vitest/node';
import { openPostgresServer } from '../../src/postgres-server.ts';
import { startPostgres } from './server.ts';

export const TEMPLATE = 'starling_template';

declare module 'vitest' {
  interface ProvidedContext {
    /** Of the server, with a place for the name of the database; undefined where the database is embedded. */
    postgresUrl: string | undefined;
  }
}

export default async function setup(project: TestProject): Promise<() => void> {
  // What the tests look for is not whether the disk keeps it.
  const server = await startPostgres(['fsync = off', 'max_connections = 300', 'shared_buffers = 32MB']);
  try {
    await server.execute(`create database ${TEMPLATE}`);
    const database = await openPostgresServer(server.url(TEMPLATE), pino({ level: 'silent' }));
    await database.close();
  } catch (error) {
    server.remove();
    throw error;
  }
  project.provide('postgresUrl', server.url('DATABASE'));
  return () => server.remove();
}
