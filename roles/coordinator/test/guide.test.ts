import { execFile, execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { crc32, gunzipSync } from 'node:zlib';
import { parseM3U } from '@iptv/playlist';
import { parseXmltv } from '@iptv/xmltv';
import { parse as parsePlaylist } from 'iptv-playlist-parser';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { guideOf, playlistOf } from '../src/guide.ts';
import { TUNER_COUNT, withChecksum } from '../src/hdhomerun.ts';
import { DISCOVERY_PORT, startDiscovery } from '../src/hdhomerun-discovery.ts';
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
  await lab.operator.channels.create({ name: 'evening', title: 'Evening', loop: ['Short clip'] });
  await lab.operator.schedules.set('evening', {
    timeZone: 'Europe/Berlin',
    filler: { items: ['Short clip'] },
    programmes: [
      {
        start: '2026-11-22T20:15',
        repeat: 'daily',
        items: ['News', 'Tom & "Jerry" <1>'],
        title: 'An evening <with> "T" & J',
        description: 'Two in one.\nNews & cartoons.',
        category: 'Variety',
      },
    ],
  });
  await lab.operator.streams.create({ name: 'cam', title: 'Camera' });
  await lab.operator.channels.update('cam', {
    number: 100,
    logo: 'https://tv.example/cam.png?a=1&b=2',
    group: 'Outside; "Live"',
  });
  lab.nowMs += 25 * 60_000;
}, 60_000);
afterAll(() => lab.close());

describe('the playlist', () => {
  const read = async () => {
    const response = await fetch(`${lab.url}/playlist.m3u`, {
      headers: { 'x-forwarded-host': 'tv.example', 'x-forwarded-proto': 'https' },
    });
    expect(response.headers.get('content-type')).toMatch(/^audio\/x-mpegurl/);
    return response.text();
  };

  it('lists the channels by number, with addresses on the host that was asked', async () => {
    expect((await read()).split('\n')).toEqual([
      '#EXTM3U url-tvg="https://tv.example/guide.xml" x-tvg-url="https://tv.example/guide.xml"',
      `#EXTINF:-1 tvg-id="films" tvg-name="The 'Film', channel" tvg-chno="1" tvg-logo="https://tv.example/live/films/thumbnail.jpg" group-title="Channels",The "Film", channel`,
      'https://tv.example/live/films/index.m3u8',
      '#EXTINF:-1 tvg-id="clips" tvg-name="Clips" tvg-chno="2" tvg-logo="https://tv.example/live/clips/thumbnail.jpg" group-title="Channels",Clips',
      'https://tv.example/live/clips/index.m3u8',
      '#EXTINF:-1 tvg-id="evening" tvg-name="Evening" tvg-chno="3" tvg-logo="https://tv.example/live/evening/thumbnail.jpg" group-title="Channels",Evening',
      'https://tv.example/live/evening/index.m3u8',
      `#EXTINF:-1 tvg-id="cam" tvg-name="Camera" tvg-chno="100" tvg-logo="https://tv.example/cam.png?a=1&b=2" group-title="Outside; 'Live'",Camera`,
      'https://tv.example/live/cam/index.m3u8',
      '',
    ]);
    expect(await (await fetch(`${lab.url}/playlist.m3u`)).text()).toContain(`${lab.url}/live/cam/index.m3u8`);
  });

  it('is read by two other implementations', async () => {
    const channels = await lab.operator.publicChannels.list();
    const text = playlistOf(channels, { origin: 'https://tv.example', catchUpHours: 30 });
    const first = parsePlaylist(text);
    expect(first.header.attrs).toMatchObject({ 'x-tvg-url': 'https://tv.example/guide.xml' });
    expect(
      first.items.map(({ name, url, tvg, group, catchup }) => ({ name, url, tvg, group, catchup })),
    ).toEqual(
      [
        ['films', 'The "Film", channel', 'https://tv.example/live/films/thumbnail.jpg', 'Channels'],
        ['clips', 'Clips', 'https://tv.example/live/clips/thumbnail.jpg', 'Channels'],
        ['evening', 'Evening', 'https://tv.example/live/evening/thumbnail.jpg', 'Channels'],
        ['cam', 'Camera', 'https://tv.example/cam.png?a=1&b=2', "Outside; 'Live'"],
      ].map(([name, title, logo, group]) => ({
        name: title,
        url: `https://tv.example/live/${name}/index.m3u8`,
        tvg: expect.objectContaining({ id: name, name: title?.replaceAll('"', "'"), logo }),
        group: { title: group },
        catchup: {
          type: 'default',
          days: '2',
          source: `https://tv.example/live/${name}/vod.m3u8?from={utc}&to={utcend}`,
        },
      })),
    );
    const second = parseM3U(text);
    expect(second.headers).toMatchObject({ urlTvg: 'https://tv.example/guide.xml' });
    expect(second.channels).toMatchObject([
      { tvgId: 'films', tvgName: "The 'Film', channel", name: 'The "Film", channel' },
      { tvgId: 'clips', tvgName: 'Clips', name: 'Clips', url: 'https://tv.example/live/clips/index.m3u8' },
      { tvgId: 'evening', extras: { 'tvg-chno': '3' } },
      { tvgId: 'cam', groupTitle: "Outside; 'Live'", tvgLogo: 'https://tv.example/cam.png?a=1&b=2' },
    ]);
  });

  it('says nothing of catch-up where nothing is recorded', async () => {
    expect(await read()).not.toContain('catchup');
  });
});

describe('the guide', () => {
  const linesOf = (text: string, channel: string) =>
    text.split('\n').filter((line) => line.includes('<programme') && line.includes(`channel="${channel}"`));
  const readGuide = async () => (await fetch(`${lab.url}/guide.xml`)).text();

  it('gives the programme of the next three days as XMLTV', async () => {
    const response = await fetch(`${lab.url}/guide.xml`);
    expect(response.headers.get('content-type')).toMatch(/^application\/xml/);
    const text = await response.text();
    expect(text.split('\n').slice(0, 4)).toEqual([
      '<?xml version="1.0" encoding="UTF-8"?>',
      '<!DOCTYPE tv SYSTEM "xmltv.dtd">',
      '<tv generator-info-name="Starling">',
      '  <channel id="cam"><display-name>Camera</display-name><display-name>100</display-name><icon src="https://tv.example/cam.png?a=1&amp;b=2"/></channel>',
    ]);
    expect(text).toContain(
      '  <channel id="films"><display-name>The &quot;Film&quot;, channel</display-name><display-name>1</display-name></channel>',
    );
    // Twenty-five minutes and a half into the 30 minutes of the loop: the news are on.
    const films = linesOf(text, 'films');
    expect(films.slice(0, 2)).toEqual([
      '  <programme start="20261122181930 +0000" stop="20261122182930 +0000" channel="films"><title>News</title></programme>',
      '  <programme start="20261122182930 +0000" stop="20261122184930 +0000" channel="films"><title>Tom &amp; &quot;Jerry&quot; &lt;1&gt;</title></programme>',
    ]);
    // Until the loop's item that is on 72 hours later: 18:19:30 to 18:29:30.
    expect(films.at(-1)).toContain('start="20261125181930 +0000" stop="20261125182930 +0000"');
    expect(films).toHaveLength(3 * 2 * 48 + 1);
  });

  it('shows a live channel, and a loop of clips, hour by hour', async () => {
    const text = await readGuide();
    for (const [name = '', title] of [
      ['cam', 'Camera'],
      ['clips', 'Clips'],
    ]) {
      const entries = linesOf(text, name);
      expect(entries).toHaveLength(73);
      const hour = (line: string | undefined) =>
        line?.replace(`channel="${name}"><title>${title}</title>`, '');
      expect(hour(entries[1])).toBe(
        '  <programme start="20261122190000 +0000" stop="20261122200000 +0000" </programme>',
      );
    }
  });

  it('shows a programme of several items as one, with what is said of it, and clips before it as the channel', async () => {
    const evening = linesOf(await readGuide(), 'evening');
    // 20:15 in Berlin is 19:15 UTC; it lasts half an hour.
    expect(evening.slice(0, 4)).toEqual([
      '  <programme start="20261122180000 +0000" stop="20261122190000 +0000" channel="evening"><title>Evening</title></programme>',
      '  <programme start="20261122190000 +0000" stop="20261122191500 +0000" channel="evening"><title>Evening</title></programme>',
      '  <programme start="20261122191500 +0000" stop="20261122194500 +0000" channel="evening"><title>An evening &lt;with&gt; &quot;T&quot; &amp; J</title><desc>Two in one. News &amp; cartoons.</desc><category>Variety</category></programme>',
      '  <programme start="20261122194500 +0000" stop="20261122200000 +0000" channel="evening"><title>Evening</title></programme>',
    ]);
  });

  it('is valid, and is read by another implementation', async () => {
    const text = await readGuide();
    const folder = mkdtempSync(join(tmpdir(), 'starling-guide-'));
    const path = join(folder, 'guide.xml');
    writeFileSync(path, text);
    const dtd = join(import.meta.dirname, 'xmltv.dtd');
    const check = () =>
      execFileSync('xmllint', ['--nonet', '--noout', '--dtdvalid', dtd, path], { stdio: 'pipe' });
    check();
    const read = (element: string) => {
      const xpath = `string(//programme[@channel="evening"][3]/${element})`;
      return execFileSync('xmllint', ['--nonet', '--xpath', xpath, path], { encoding: 'utf8' }).trimEnd();
    };
    expect(read('title')).toBe('An evening <with> "T" & J');
    expect(read('desc')).toBe('Two in one. News & cartoons.');
    writeFileSync(path, text.replace('<title>', '<titel>').replace('</title>', '</titel>'));
    expect(check).toThrow(/titel/);
    rmSync(folder, { recursive: true });

    const { channels, programmes } = parseXmltv(text);
    expect(channels?.map(({ id }) => id)).toEqual(['cam', 'clips', 'evening', 'films']);
    const evening = programmes?.filter(({ channel }) => channel === 'evening') ?? [];
    expect(evening[2]).toMatchObject({
      start: new Date('2026-11-22T19:15:00Z'),
      stop: new Date('2026-11-22T19:45:00Z'),
      category: [{ _value: 'Variety' }],
    });
    // One after another, without a gap.
    expect(evening.slice(1).map(({ start }) => start)).toEqual(evening.slice(0, -1).map(({ stop }) => stop));
  });

  it('is compressed for those who take that, and as a file', async () => {
    const text = await readGuide();
    const plain = await fetch(`${lab.url}/guide.xml`, {
      headers: { 'accept-encoding': 'gzip;q=0, identity' },
    });
    expect(plain.headers.get('content-encoding')).toBeNull();
    const compressed = await fetch(`${lab.url}/guide.xml`, { headers: { 'accept-encoding': 'br, gzip' } });
    expect(compressed.headers.get('content-encoding')).toBe('gzip');
    expect(compressed.headers.get('vary')).toMatch(/accept-encoding/i);
    expect(Number(compressed.headers.get('content-length'))).toBeLessThan(text.length / 5);
    expect(await compressed.text()).toBe(text);
    const file = await fetch(`${lab.url}/guide.xml.gz`, { headers: { 'accept-encoding': 'identity' } });
    expect(file.headers.get('content-type')).toBe('application/gzip');
    expect(gunzipSync(await file.arrayBuffer()).toString()).toBe(text);
  });

  it('is there for the site, for any day', async () => {
    const response = await fetch(`${lab.url}/api/v1/public/guide?from=2026-12-24T19:00:00Z&hours=1`);
    const { items } = (await response.json()) as { items: { name: string; programmes: unknown[] }[] };
    expect(items.find(({ name }) => name === 'evening')?.programmes).toEqual([
      { title: 'Evening', startsAt: '2026-12-24T19:00:00.000Z', endsAt: '2026-12-24T20:00:00.000Z' },
    ]);
    for (const query of ['hours=49', 'hours=0', 'from=yesterday', 'from=2026-12-31T23:59:60Z']) {
      expect((await fetch(`${lab.url}/api/v1/public/guide?${query}`)).status).toBe(400);
    }
  });

  it('keeps out what XML may not hold', () => {
    const channel = { name: 'x', title: 'a\u0000b\uFFFFc\uD800', number: 1, logo: null, group: null };
    const access = { isPrivate: false, maxViewers: null };
    const text = guideOf(
      new Map([
        [
          {
            ...channel,
            ...access,
            kind: 'playout',
            epochUnixMs: 0,
            runs: [],
            sources: null,
            sourceChoice: 'auto' as const,
            record: null,
            redundancy: 1,
            createdAt: '',
          },
          [],
        ],
      ]),
    );
    expect(text).toContain('<display-name>a b c </display-name>');
  });
});

describe('as an HDHomeRun tuner', { timeout: 60_000 }, () => {
  const json = async (path: string) =>
    (await fetch(`${lab.url}${path}`)).json() as Promise<Record<string, unknown>>;

  it('says what it is, with an id that stays and that checks', async () => {
    const { DeviceID: deviceId, ...rest } = await json('/discover.json');
    expect(rest).toMatchObject({
      FriendlyName: 'Starling',
      BaseURL: lab.url,
      LineupURL: `${lab.url}/lineup.json`,
      TunerCount: expect.any(Number),
    });
    expect(deviceId).toBe(withChecksum(Number.parseInt(String(deviceId).slice(0, 7), 16)));
    // Ids that hdhomerun_discover_validate_device_id of libhdhomerun 20220303 takes.
    expect([0x1234567, 0x105ab3c, 0].map(withChecksum)).toEqual(['12345674', '105AB3C9', '00000000']);
    const xml = await (await fetch(`${lab.url}/device.xml`)).text();
    expect(xml).toContain(`<UDN>uuid:${deviceId}</UDN>`);
    expect(xml).toContain(`<URLBase>${lab.url}</URLBase>`);
    lab = await lab.restart();
    expect(await json('/discover.json')).toMatchObject({ DeviceID: deviceId });
  });

  it('lists the channels by number, as MPEG-TS without a query', async () => {
    expect(await json('/lineup.json')).toMatchObject([
      { GuideNumber: '1', GuideName: 'The "Film", channel', URL: `${lab.url}/live/films.ts` },
      { GuideNumber: '2', GuideName: 'Clips', URL: `${lab.url}/live/clips.ts` },
      { GuideNumber: '3', GuideName: 'Evening', URL: `${lab.url}/live/evening.ts` },
      { GuideNumber: '100', GuideName: 'Camera', URL: `${lab.url}/live/cam.ts` },
    ]);
  });

  it('is found by the program of the makers', async () => {
    const { DeviceID: deviceId } = await json('/discover.json');
    const { port } = new URL(lab.url);
    const discovery = await startDiscovery({
      port: DISCOVERY_PORT,
      deviceId: String(deviceId),
      tunerCount: TUNER_COUNT,
      httpPort: Number(port),
      logger: pino({ level: 'silent' }),
    });
    try {
      const { stdout } = await promisify(execFile)('hdhomerun_config', ['discover', '127.0.0.1']);
      expect(stdout).toContain(`hdhomerun device ${deviceId} found at 127.0.0.1`);
    } finally {
      await discovery.close();
    }
  });

  it('answers nothing that does not look for a tuner', async () => {
    const discovery = await startDiscovery({
      port: 0,
      deviceId: '1234ABCD',
      tunerCount: TUNER_COUNT,
      httpPort: 8080,
      logger: pino({ level: 'silent' }),
    });
    const socket = createSocket('udp4');
    const answers: Buffer[] = [];
    socket.on('message', (packet) => answers.push(packet));
    const ask = (type: number, body: readonly number[], flaw = 0) => {
      const packet = Buffer.from([type >> 8, type, body.length >> 8, body.length, ...body]);
      const crc = Buffer.alloc(4);
      crc.writeUInt32LE((crc32(packet) ^ flaw) >>> 0);
      socket.send(Buffer.concat([packet, crc]), discovery.port, '127.0.0.1');
    };
    const anyTuner = [1, 4, 0, 0, 0, 1, 2, 4, 0xff, 0xff, 0xff, 0xff];
    ask(2, anyTuner, 1); // wrong CRC
    ask(4, anyTuner); // another request
    ask(2, [1, 4, 0, 0, 0, 5]); // a storage device
    ask(2, [2, 4, 0x11, 0x11, 0x11, 0x11]); // another device
    ask(2, [1, 0x7f, 0]); // a value that ends after the packet
    ask(2, []); // all devices, last: the one answer
    await vi.waitFor(() => expect(answers.length).toBeGreaterThan(0));
    socket.close();
    await discovery.close();
    expect(answers).toHaveLength(1);
    expect(answers[0]?.subarray(4, 16).toString('hex')).toBe('010400000001' + '0204' + '1234abcd');
    expect(answers[0]?.toString('latin1')).toContain('http://127.0.0.1:8080/lineup.json');
  });

  it('has nothing to scan for', async () => {
    expect(await json('/lineup_status.json')).toMatchObject({ ScanInProgress: 0, ScanPossible: 1 });
    const scan = { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' } };
    expect((await fetch(`${lab.url}/lineup.post?scan=start`, scan)).status).toBe(200);
    expect((await fetch(`${lab.url}/lineup.post?scan=start`, { method: 'POST' })).status).toBe(200);
  });
});
