/** What a start on a data folder needs, and what the first one makes: the folder, the operator's token, the demo channel. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CoordinatorClient } from '@starling/model/client';
import { TEST_CARD_SOURCE } from '@starling/model/entities';
import { currentSecret } from '@starling/model/secret';
import type { Logger } from 'pino';
import { StartError } from './process.ts';

const DEMO_CHANNEL = 'demo';

/** @throws StartError when nothing can be written there */
export function prepareDataDir(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    accessSync(dataDir, constants.W_OK | constants.X_OK);
    const probe = join(dataDir, '.probe');
    writeFileSync(probe, '');
    rmSync(probe);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    const why = code === 'ENOSPC' ? 'the disk is full' : code;
    throw new StartError(
      `The data folder ${dataDir} cannot be written (${why}). Choose another one with --data DIR.`,
    );
  }
}

/** @throws StartError without FFmpeg */
export function requireFfmpeg(): void {
  for (const program of ['ffmpeg', 'ffprobe']) {
    const { error, status } = spawnSync(program, ['-version'], { stdio: 'ignore', timeout: 10_000 });
    if (error !== undefined || status !== 0) {
      throw new StartError(`${program} is missing. Install it, on Debian with: apt-get install ffmpeg`);
    }
  }
}

/** The operator's token, made on the first start; readable by this account alone. */
export function keepOperatorToken(dataDir: string): string {
  const path = join(dataDir, 'operator.token');
  if (existsSync(path)) {
    const token = currentSecret(readFileSync(path, 'utf8'));
    if (token !== '') return token;
  }
  const token = randomBytes(32).toString('base64url');
  writeFileSync(path, `${token}\n`, { mode: 0o600 });
  return token;
}

/** The first start draws the test card and puts it on the air. */
export async function makeDemo(client: CoordinatorClient, dataDir: string, logger: Logger): Promise<void> {
  const donePath = join(dataDir, 'demo.created');
  if (existsSync(donePath)) return;
  const known = await client.channels.list();
  if (!known.some((channel) => channel.name === DEMO_CHANNEL)) {
    logger.info('first start: drawing the test card for the demo channel (about ten seconds)');
    let asset = await client.assets.create({ source: TEST_CARD_SOURCE, name: 'Test card' });
    while (asset.state === 'queued' || asset.state === 'importing') {
      await new Promise((wake) => setTimeout(wake, 100));
      asset = await client.assets.get(asset.id);
    }
    if (asset.state === 'failed') throw new Error(asset.error ?? 'the test card could not be drawn');
    await client.channels.create({ name: DEMO_CHANNEL, title: 'Demo', loop: [asset.id] });
  }
  writeFileSync(donePath, '');
}
