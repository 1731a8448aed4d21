import { afterAll, beforeAll, expect, it } from 'vitest';
import { addReadyAsset, type Lab, startLab } from './support.ts';

let lab: Lab;
beforeAll(async () => {
  lab = await startLab({ nowMs: Date.UTC(2026, 10, 22, 18, 0, 0) });
  await addReadyAsset(lab, 'Tom & "Jerry" <1>', 1200);
  await addReadyAsset(lab, 'News', 600);
  await addReadyAsset(lab, 'Short clip', 10);
  await lab.operator.channels.create({
    name: 'films',
    title: 'The "Film", channel',
    loop: ['Tom & "Jerry" <1>', 'News'],
  });
  await lab.operator.channels.create({ name: 'clips', title: 'Clips', loop: ['Short clip'] });
  await lab.operator.streams.create({ name: 'cam', title: 'Camera' });
  lab.nowMs += 25 * 60_000;
}, 60_000);
afterAll(() => lab.close());

it('lists the channels as M3U, with addresses on the host that was asked', async () => {
  const response = await fetch(`${lab.url}/playlist.m3u`, {
    headers: { 'x-forwarded-host': 'tv.example', 'x-forwarded-proto': 'https' },
  });
  expect(response.headers.get('content-type')).toMatch(/^audio\/x-mpegurl/);
  const text = await response.text();
  expect(text.split('\n')).toEqual([
    '#EXTM3U url-tvg="https://tv.example/guide.xml" x-tvg-url="https://tv.example/guide.xml"',
    '#EXTINF:-1 tvg-id="cam" tvg-name="Camera" group-title="Live",Camera',
    'https://tv.example/live/cam/index.m3u8',
    '#EXTINF:-1 tvg-id="clips" tvg-name="Clips" group-title="Channels",Clips',
    'https://tv.example/live/clips/index.m3u8',
    '#EXTINF:-1 tvg-id="films" tvg-name="The \'Film\', channel" group-title="Channels",The "Film", channel',
    'https://tv.example/live/films/index.m3u8',
    '',
  ]);
  expect(await (await fetch(`${lab.url}/playlist.m3u`)).text()).toContain(`${lab.url}/live/cam/index.m3u8`);
});

it('gives the programme of the next 24 hours as XMLTV', async () => {
  const response = await fetch(`${lab.url}/guide.xml`);
  expect(response.headers.get('content-type')).toMatch(/^application\/xml/);
  const lines = (await response.text()).split('\n');
  expect(lines.slice(0, 3)).toEqual([
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<!DOCTYPE tv SYSTEM "xmltv.dtd">',
    '<tv generator-info-name="Starling">',
  ]);
  expect(lines).toContain(
    '  <channel id="films"><display-name>The &#34;Film&#34;, channel</display-name></channel>',
  );
  // Twenty-five minutes and a half into the 30 minutes of the loop: the news are on.
  const films = lines.filter((line) => line.includes('<programme') && line.includes('channel="films"'));
  expect(films.slice(0, 2)).toEqual([
    '  <programme start="20261122181930 +0000" stop="20261122182930 +0000" channel="films"><title>News</title></programme>',
    '  <programme start="20261122182930 +0000" stop="20261122184930 +0000" channel="films"><title>Tom &#38; &#34;Jerry&#34; &#60;1&#62;</title></programme>',
  ]);
  // Until the loop's item that is on 24 hours later: 18:19:30 to 18:29:30 of the next day.
  expect(films.at(-1)).toContain('start="20261123181930 +0000" stop="20261123182930 +0000"');
  expect(films).toHaveLength(2 * 48 + 1);
});

it('shows a live channel, and a loop of clips, hour by hour', async () => {
  const lines = (await (await fetch(`${lab.url}/guide.xml`)).text()).split('\n');
  for (const [name, title] of [
    ['cam', 'Camera'],
    ['clips', 'Clips'],
  ]) {
    const entries = lines.filter((line) => line.includes('<programme') && line.includes(`channel="${name}"`));
    expect(entries).toHaveLength(24);
    expect(entries[0]).toBe(
      `  <programme start="20261122180000 +0000" stop="20261122190000 +0000" channel="${name}"><title>${title}</title></programme>`,
    );
  }
});
