/** Which of a channel's sources is on the air. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CoordinatorClient } from '@starling/model/client';
import type { ActiveSource } from '@starling/model/entities';
import { inject } from 'vitest';
import { until } from './network.ts';

/** Null while nothing is. */
export async function activeSource(channel: string): Promise<ActiveSource | null> {
  const { site, dataDir } = inject('shared');
  const token = readFileSync(join(dataDir, 'operator.token'), 'utf8').trim();
  return (await new CoordinatorClient({ baseUrl: site, token }).channels.get(channel)).activeSource;
}

export const untilActive = (channel: string, source: string, timeoutMs: number) =>
  until(`${channel} on ${source}`, timeoutMs, async () =>
    (await activeSource(channel))?.source === source ? true : undefined,
  );
