import type { LogBatch } from '@starling/model/log';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { LogShipper } from './log-shipper.ts';

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((wake) => setTimeout(wake, 10));
}

function open(ship: (batch: LogBatch) => Promise<void>) {
  const shipper = new LogShipper();
  const logger = pino({ base: null }, pino.multistream([{ level: 'trace', stream: shipper }]));
  const registry = new Registry();
  const start = () => shipper.shipTo({ node: 'test@here:1', ship }, registry);
  return { shipper, logger, registry, start };
}

it('ships what was logged before and after it knew where to, in order, in batches', async () => {
  const batches: LogBatch[] = [];
  const { shipper, logger, start } = open(async (batch) => void batches.push(batch));
  for (let n = 0; n < 250; n++) logger.info({ n }, 'early');
  start();
  logger.warn({ channel: 'news', url: 'http://a/?token=hidden' }, 'late');
  await until(() => batches.flatMap(({ lines }) => lines).length === 251);
  await shipper.close();
  expect(batches.map(({ lines }) => lines.length)).toEqual([200, 51]);
  const lines = batches.flatMap((batch) => batch.lines);
  expect(lines.slice(0, 250).map(({ fields }) => fields.n)).toEqual(Array.from({ length: 250 }, (_, n) => n));
  expect(lines[250]).toMatchObject({
    level: 'warn',
    channel: 'news',
    fields: { url: 'http://a/?token=(secret)' },
  });
});

it('drops the oldest while nobody takes them, counts them, and never waits', async () => {
  const batches: LogBatch[] = [];
  let isUp = false;
  const { shipper, logger, registry, start } = open(async (batch) => {
    if (!isUp) throw new Error('away');
    batches.push(batch);
  });
  start();
  for (let n = 0; n < 5000; n++) logger.info({ n }, 'x');
  isUp = true;
  await shipper.close();
  const lines = batches.flatMap((batch) => batch.lines);
  expect(lines).toHaveLength(2000);
  expect(lines[0]?.fields.n).toBe(3000);
  expect(batches.map(({ droppedCount }) => droppedCount)).toEqual([3000, ...batches.slice(1).map(() => 0)]);
  expect(await registry.metrics()).toMatch(/^starling_log_dropped_lines_total 3000$/m);
});

it('ends in time where the coordinator does not answer', async () => {
  const { shipper, logger, start } = open(() => new Promise(() => {}));
  start();
  logger.info('x');
  await shipper.close();
});
