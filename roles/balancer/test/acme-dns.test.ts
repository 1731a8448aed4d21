/**
 * Certificates proven in the DNS: Pebble asks its name server, which gets its records over the API of Route 53. What is sent
 * there is compared with what AWS's own command line sends.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { freePort } from '../../../tools/free-port.ts';
import { AcmeClient } from '../src/acme.ts';
import { coversNames, readCertificate } from '../src/certificates.ts';
import { Route53Records } from '../src/route53.ts';

const ZONE = 'Z0123456789EXAMPLE';
const run = promisify(execFile);

interface Seen {
  readonly request: string;
  readonly body: string;
}

let folder: string;
let route53: Server;
let dnsManagement: number;
let directoryUrl: string;
const children: ChildProcess[] = [];
const seen: Seen[] = [];
/** What the zone has. */
const records = new Map<string, string[]>();
/** How often a change is asked after before it is everywhere. */
let pendingLooks = 1;

/** The part of the API that is used: Amazon Route 53 API Reference, 2013-04-01. Its records are those of Pebble's name server. */
async function answer(request: string, body: string): Promise<string> {
  const [, path = ''] = request.split(' ');
  const xml = (content: string) => `<?xml version="1.0"?>\n${content}`;
  const namespace = 'xmlns="https://route53.amazonaws.com/doc/2013-04-01/"';
  const changeInfo = (status: string) =>
    `<ChangeInfo><Id>/change/C1</Id><Status>${status}</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo>`;
  if (path.startsWith('/2013-04-01/hostedzonesbyname')) {
    const asked = new URL(path, 'http://x').searchParams.get('dnsname') ?? '';
    // Those that come after in the order of names are listed too.
    return xml(
      `<ListHostedZonesByNameResponse ${namespace}><HostedZones><HostedZone><Id>/hostedzone/ZPRIVATE</Id><Name>starling.test.</Name><CallerReference>0</CallerReference><Config><PrivateZone>true</PrivateZone></Config></HostedZone><HostedZone><Id>/hostedzone/${ZONE}</Id><Name>starling.test.</Name><CallerReference>1</CallerReference><Config><PrivateZone>false</PrivateZone></Config></HostedZone></HostedZones><DNSName>${asked}</DNSName><IsTruncated>false</IsTruncated><MaxItems>10</MaxItems></ListHostedZonesByNameResponse>`,
    );
  }
  if (path.startsWith('/2013-04-01/change/')) {
    return xml(
      `<GetChangeResponse ${namespace}>${changeInfo(pendingLooks-- > 0 ? 'PENDING' : 'INSYNC')}</GetChangeResponse>`,
    );
  }
  const action = /<Action>(\w+)</.exec(body)?.[1];
  const name = /<Name>([^<]+)</.exec(body)?.[1]?.replace(/\.?$/, '.') ?? '';
  const values = [...body.matchAll(/<Value>(?:"|&quot;)([^<]*?)(?:"|&quot;)</g)].map(
    ([, value = '']) => value,
  );
  await setRecords(name, action === 'DELETE' ? [] : values);
  return xml(
    `<ChangeResourceRecordSetsResponse ${namespace}>${changeInfo('PENDING')}</ChangeResourceRecordSetsResponse>`,
  );
}

async function setRecords(host: string, values: readonly string[]): Promise<void> {
  const post = (path: string, body: unknown) =>
    fetch(`http://127.0.0.1:${dnsManagement}${path}`, { method: 'POST', body: JSON.stringify(body) });
  await post('/clear-txt', { host });
  for (const value of values) await post('/set-txt', { host, value });
  if (values.length === 0) records.delete(host);
  else records.set(host, [...values]);
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'starling-acme-dns-'));
  route53 = createServer(async (request, response) => {
    const body = await text(request);
    const line = `${request.method} ${request.url}`;
    seen.push({ request: line, body });
    response.writeHead(200, { 'content-type': 'text/xml' }).end(await answer(line, body));
  });
  route53.listen(0, '127.0.0.1');
  await once(route53, 'listening');
  const address = route53.address();
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  vi.stubEnv('AWS_ENDPOINT_URL_ROUTE_53', `http://127.0.0.1:${address.port}`);
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDEXAMPLE');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'an-example-and-no-secret');
  vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');

  const [api, management, dns, http] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  dnsManagement = await freePort();
  await run(
    'openssl',
    // biome-ignore format: as it is typed
    ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=x',
      '-out', 'authority.pem', '-keyout', 'authority.key', '-addext', 'subjectAltName=DNS:localhost'],
    { cwd: folder },
  );
  const pebble = {
    listenAddress: `127.0.0.1:${api}`,
    managementListenAddress: `127.0.0.1:${management}`,
    ...{ certificate: 'authority.pem', privateKey: 'authority.key', httpPort: http, tlsPort: http },
  };
  writeFileSync(join(folder, 'pebble.json'), JSON.stringify({ pebble }));
  const start = (command: string, args: readonly string[]) => {
    const env = { ...process.env, PEBBLE_VA_NOSLEEP: '1', PEBBLE_AUTHZREUSE: '0' };
    children.push(spawn(command, args, { cwd: folder, stdio: 'ignore', env }));
  };
  // biome-ignore format: as it is typed
  start('pebble-challtestsrv', ['-http01', '', '-https01', '', '-tlsalpn01', '', '-defaultIPv6', '',
    '-dns01', `127.0.0.1:${dns}`, '-management', `127.0.0.1:${dnsManagement}`]);
  start('pebble', ['-config', 'pebble.json', '-dnsserver', `127.0.0.1:${dns}`, '-strict']);
  directoryUrl = `https://localhost:${api}/dir`;
  for (const port of [api, dnsManagement]) {
    await vi.waitFor(() => fetch(`http://127.0.0.1:${port}/`), { timeout: 30_000, interval: 100 });
  }
}, 60_000);
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  route53.closeAllConnections();
  route53.close();
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

it('are issued for a name and its wildcard, and nothing is left in the zone', async () => {
  const client = new AcmeClient(
    {
      directoryUrl,
      directoryCa: readFileSync(join(folder, 'authority.pem'), 'utf8'),
      route53: { pollSeconds: 0.05 },
    },
    { dataDir: folder, challengesDir: join(folder, 'challenges') },
  );
  const names = ['tv.starling.test', '*.tv.starling.test'];
  const pem = await client.order(names);
  const files = { certificatePath: join(folder, 'x.pem'), privateKeyPath: join(folder, 'x.key') };
  writeFileSync(files.certificatePath, pem.certificate);
  writeFileSync(files.privateKeyPath, pem.privateKey);
  const certificate = await readCertificate(files);
  expect(coversNames(certificate, names)).toBe(true);
  expect(records).toEqual(new Map());
  // Both values were in the record at once, for the zone that is public.
  const changes = seen.filter(({ request }) => request.startsWith('POST '));
  expect(changes.some(({ body }) => [...body.matchAll(/<Value>/g)].length === 2)).toBe(true);
  for (const { request } of changes)
    expect(request).toMatch(new RegExp(`^POST /2013-04-01/hostedzone/${ZONE}/rrset/?$`));
}, 120_000);

it("are asked for as AWS's own command line asks", async () => {
  const ours = new Route53Records(ZONE, 0.05);
  seen.length = 0;
  await ours.add('_acme-challenge.tv.starling.test', 'proof');
  const own = seen.find(({ request }) => request.startsWith('POST '));
  await ours.remove('_acme-challenge.tv.starling.test', 'proof');
  ours.close();
  const set = {
    Name: '_acme-challenge.tv.starling.test',
    Type: 'TXT',
    TTL: 60,
    ResourceRecords: [{ Value: '"proof"' }],
  };
  const batch = { Changes: [{ Action: 'UPSERT', ResourceRecordSet: set }] };
  seen.length = 0;
  const endpoint = process.env.AWS_ENDPOINT_URL_ROUTE_53 ?? '';
  // biome-ignore format: as it is typed
  const { stdout } = await run('aws', ['route53', 'change-resource-record-sets', '--endpoint-url', endpoint,
    '--region', 'us-east-1', '--hosted-zone-id', ZONE, '--change-batch', JSON.stringify(batch), '--output', 'json']);
  expect(JSON.parse(stdout)).toMatchObject({ ChangeInfo: { Id: '/change/C1', Status: 'PENDING' } });
  const theirs = seen.find(({ request }) => request.startsWith('POST '));
  const shape = (one: Seen | undefined) => ({
    request: one?.request.replace(/\/$/, ''),
    // Elements and texts in their order; how a quotation mark is written is free (XML 1.0, 2.4).
    body: one?.body.replace(/<\?xml.*?\?>\s*/, '').replaceAll('&quot;', '"'),
  });
  expect(shape(own)).toEqual(shape(theirs));
}, 60_000);
