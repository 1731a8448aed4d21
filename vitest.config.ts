import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

const WORKERS = Math.max(2, availableParallelism() - 1);

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          // Two at a time on two cores as well, where Vitest would take one; the end-to-end tests have the machine alone.
          maxWorkers: WORKERS,
          sequence: { groupOrder: 1 },
          // Property tests take seconds on a busy machine.
          testTimeout: 30_000,
          include: [
            'packages/**/*.test.ts',
            'roles/**/*.test.ts',
            'apps/**/*.test.ts',
            'ops/**/*.test.ts',
            'tools/**/*.test.ts',
            'e2e/*-checker.test.ts',
          ],
          exclude: ['**/node_modules/**', 'roles/coordinator/test/postgres/**'],
        },
      },
      {
        test: {
          // The coordinator's tests once more, with a PostgreSQL server in place of the embedded database, and those
          // of what only a server can do.
          name: 'postgres',
          maxWorkers: WORKERS,
          sequence: { groupOrder: 2 },
          testTimeout: 30_000,
          include: ['roles/coordinator/test/**/*.test.ts'],
          globalSetup: ['roles/coordinator/test/postgres/setup.ts'],
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['e2e/**/*.test.ts'],
          exclude: ['e2e/*-checker.test.ts'],
          globalSetup: ['e2e/setup.ts'],
          // One machine plays server, encoders and players at once.
          fileParallelism: false,
          sequence: { groupOrder: 3 },
          // Players and encoders in real time on two cores: what failed is looked at once more, and told as a retry.
          retry: 1,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
