/**
 * Looks like an HDHomeRun network tuner, so that Plex, Jellyfin and Emby find the channels. They ask over HTTP what
 * the tuner is and which channels it has, then read a channel's MPEG-TS.
 *
 * Source: Silicondust, "HDHomeRun Development Guide" (HTTP discover and lineup), and what Plex and Jellyfin ask for.
 */
import { randomInt } from 'node:crypto';
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import type { Kysely } from 'kysely';
import { Type } from 'typebox';
import type { Tables } from './database.ts';
import { originOf } from './guide.ts';
import type { PublicChannels } from './public-channels.ts';
import { PUBLIC_RIGHT } from './viewing-tokens.ts';

/** As many streams at a time as these programs ask for; a frontend has no tuners that could run out. */
export const TUNER_COUNT = 16;
const MODEL = 'HDHR4-2US';
const SETTING = 'hdhomerunDeviceId';

/** The id of this network as a tuner: random, and the same after a restart. */
export async function readDeviceId(db: Kysely<Tables>): Promise<string> {
  const known = await db
    .selectFrom('settings')
    .select('value')
    .where('name', '=', SETTING)
    .executeTakeFirst();
  if (typeof known?.value === 'string') return known.value;
  const deviceId = withChecksum(randomInt(1, 0x0fff_ffff));
  await db
    .insertInto('settings')
    .values({ name: SETTING, value: JSON.stringify(deviceId) })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .execute();
  return readDeviceId(db);
}

/**
 * Seven digits and one that checks them, in hexadecimal.
 *
 * Source: libhdhomerun, hdhomerun_discover_validate_device_id.
 */
export function withChecksum(number: number): string {
  const lookup = [0xa, 0x5, 0xf, 0x6, 0x7, 0xc, 0x1, 0xb, 0x9, 0x2, 0x8, 0xd, 0x4, 0x3, 0xe, 0x0];
  const digits = number.toString(16).padStart(7, '0').slice(-7);
  let check = 0;
  for (const [i, digit] of [...digits].entries()) {
    const value = Number.parseInt(digit, 16);
    check ^= i % 2 === 0 ? (lookup[value] ?? 0) : value;
  }
  return `${digits}${check.toString(16)}`.toUpperCase();
}

export function hdhomerunRoutes(nouns: {
  readonly publicChannels: PublicChannels;
  /** From {@link readDeviceId}. */
  readonly deviceId: string;
}): FastifyPluginAsyncTypebox {
  const { publicChannels, deviceId } = nouns;
  const tuner = { tags: ['public'], response: { 200: Type.Any() } };
  const config = { access: 'public' } as const;
  return async (app) => {
    // A scan is asked for with any body, or none.
    app.addContentTypeParser('*', { parseAs: 'string' }, async () => undefined);
    app.get(
      '/discover.json',
      { config, schema: { ...tuner, summary: 'What the tuner is (HDHomeRun)' } },
      async (request) => {
        const origin = originOf(request);
        return {
          FriendlyName: 'Starling',
          Manufacturer: 'Silicondust',
          ModelNumber: MODEL,
          FirmwareName: 'starling',
          FirmwareVersion: '20260101',
          DeviceID: deviceId,
          DeviceAuth: 'starling',
          TunerCount: TUNER_COUNT,
          BaseURL: origin,
          LineupURL: `${origin}/lineup.json`,
        };
      },
    );
    app.get(
      '/lineup.json',
      { config, schema: { ...tuner, summary: 'Which channels it has (HDHomeRun)' } },
      async (request) => {
        const origin = originOf(request);
        // A tuner has no place for a token.
        const channels = await publicChannels.list(PUBLIC_RIGHT);
        return channels
          .toSorted((a, b) => a.number - b.number)
          .map(({ name, title, number }) => ({
            GuideNumber: String(number),
            GuideName: title,
            VideoCodec: 'H264',
            AudioCodec: 'AAC',
            HD: 1,
            // Plex refuses addresses with a query.
            URL: `${origin}/live/${name}.ts`,
          }));
      },
    );
    app.get(
      '/lineup_status.json',
      { config, schema: { ...tuner, summary: 'Whether it scans for channels: never (HDHomeRun)' } },
      async () => ({ ScanInProgress: 0, ScanPossible: 1, Source: 'Cable', SourceList: ['Cable'] }),
    );
    // Asks for a scan. There is nothing to scan for.
    app.post(
      '/lineup.post',
      {
        config,
        schema: {
          tags: ['public'],
          summary: 'Scan for channels (HDHomeRun)',
          response: { 200: Type.String() },
        },
      },
      async (_request, reply) => reply.send(''),
    );
    app.get(
      '/device.xml',
      {
        config,
        schema: {
          tags: ['public'],
          summary: 'What the tuner is, as UPnP says it (HDHomeRun)',
          response: { 200: { content: { 'application/xml': { schema: Type.String() } } } },
        },
      },
      async (request, reply) =>
        reply.type('application/xml; charset=utf-8').send(deviceXml(originOf(request), deviceId)),
    );
  };
}

/** UPnP Device Architecture 1.0, 2.1. The origin was checked, and needs no escaping. */
function deviceXml(origin: string, deviceId: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?>
<root xmlns="urn:schemas-upnp-org:device-1-0">
  <specVersion><major>1</major><minor>0</minor></specVersion>
  <URLBase>${origin}</URLBase>
  <device>
    <deviceType>urn:schemas-upnp-org:device:MediaServer:1</deviceType>
    <friendlyName>Starling</friendlyName>
    <manufacturer>Silicondust</manufacturer>
    <modelName>${MODEL}</modelName>
    <modelNumber>${MODEL}</modelNumber>
    <serialNumber>${deviceId}</serialNumber>
    <UDN>uuid:${deviceId}</UDN>
  </device>
</root>
`;
}
