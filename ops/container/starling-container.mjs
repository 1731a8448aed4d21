/**
 * First process of a container: writes the configuration and the secrets, which a task gets as environment variables, into
 * files that are read by this user alone, forgets the variables, and becomes the role. The files' folder is in memory
 * or on the task's disk, and goes with it.
 *
 *   STARLING_CONFIG           the configuration, as YAML
 *   STARLING_SECRET           password of the cache; the tokens are derived from it, as on hosts
 *   STARLING_CACHE_HOST       of Redis, behind TLS
 *   STARLING_DATABASE_HOST, _NAME, _USER, _PASSWORD    of PostgreSQL, behind TLS; of the coordinator alone
 */
import { createHmac } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parse } from 'yaml';

const names = [
  'CONFIG',
  'SECRET',
  'CACHE_HOST',
  'DATABASE_HOST',
  'DATABASE_NAME',
  'DATABASE_USER',
  'DATABASE_PASSWORD',
];
const given = Object.fromEntries(names.map((name) => [name, process.env[`STARLING_${name}`]]));
for (const name of names) delete process.env[`STARLING_${name}`];

for (const name of ['CONFIG', 'SECRET', 'CACHE_HOST'])
  if (!given[name]) {
    process.stderr.write(
      `STARLING_${name} is not set: the task definition has to give it to the container.\n`,
    );
    process.exit(2);
  }
const { coordinator } = parse(given.CONFIG);
const token = (label) => createHmac('sha256', given.SECRET).update(label).digest('hex');
const enc = encodeURIComponent;
const files = {
  [coordinator.operatorTokenFile]: token('operator'),
  [coordinator.nodeTokenFile]: token('node'),
  [coordinator.redisUrlFile]: `rediss://:${enc(given.SECRET)}@${given.CACHE_HOST}:6379`,
  ...(given.DATABASE_PASSWORD
    ? {
        [coordinator.databaseUrlFile]: `postgres://${enc(given.DATABASE_USER)}:${enc(given.DATABASE_PASSWORD)}@${given.DATABASE_HOST}:5432/${given.DATABASE_NAME}?sslmode=verify-full`,
      }
    : {}),
};
const configPath = join(dirname(coordinator.nodeTokenFile), 'starling.yaml');
for (const [path, content] of Object.entries({ ...files, [configPath]: given.CONFIG })) {
  // Of a container that was started again on the same disk.
  rmSync(path, { force: true });
  writeFileSync(path, content, { mode: 0o400 });
}

// Backends and frontends join with the token of the group. A task that stops is never started again, so they leave then.
process.env.STARLING_JOIN_TOKEN_FILE = coordinator.nodeTokenFile;
process.env.STARLING_LEAVE_AT_STOP = '1';

process.setSourceMapsEnabled(true);
process.argv = [...process.argv, '--config', configPath];
await import('../dist/starling.js');
