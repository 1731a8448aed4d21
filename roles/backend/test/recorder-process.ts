/** Records a channel in a process of its own, for a test that kills it. Prints how many groups of pictures came. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Channel } from '@starling/net/channel';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Recordings } from '../src/recordings.ts';
import { streamOf } from './recorded-stream.ts';

const [dir = '', id = '', moviePath = ''] = process.argv.slice(2);
const stream = streamOf(readFileSync(moviePath));
const channel = new Channel('films');
const recordings = new Recordings({
  dir,
  nodeId: 'a'.repeat(16),
  coordinator: { reportRecordings: async () => {} },
  logger: pino({ level: 'silent' }),
  registry: new Registry(),
  nowUnixMs: Date.now,
  tracksOf: () => [],
});
const order = { id, name: 'n', channel: 'films', stream: null, createdAt: new Date().toISOString() };
recordings.update(
  { wanted: [order], removedIds: [] },
  new Map([['films', { record: null, source: channel }]]),
);
channel.push(stream.tracks.map((track) => ({ type: 'track', track })));
await new Promise((wake) => setTimeout(wake, 200));

const partPath = join(dir, id, 'part-1.mp4');
const sizeBytes = () => (existsSync(partPath) ? statSync(partPath).size : 0);
for (let number = 0; ; number++) {
  const before = sizeBytes();
  channel.push(stream.gop(number));
  // Its first picture completes the fragment of the group before it.
  while (number > 0 && sizeBytes() <= before) await new Promise((wake) => setTimeout(wake, 1));
  process.stdout.write(`${number + 1}\n`);
}
