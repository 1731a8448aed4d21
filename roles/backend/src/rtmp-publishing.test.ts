import { describe, expect, it } from 'vitest';
import { movedTarget, type RtmpTarget } from './rtmp-publishing.ts';

const plain: RtmpTarget = {
  host: 'a.example',
  port: 1935,
  tls: undefined,
  app: 'live',
  streamName: 'cam?key=k',
  tcUrl: 'rtmp://a.example/live',
};
const secured: RtmpTarget = {
  ...plain,
  port: 443,
  tls: { acceptsAnyCertificate: true },
  tcUrl: 'rtmps://a.example/live',
};

// Enhanced RTMP v2, "Reconnect Request": the reference is resolved as RFC 3986 has it.
describe('where a server asks a publisher to go', () => {
  it.each([
    ['nowhere else', undefined, {}],
    ['another host', 'rtmp://b.example:1936/app/x', { host: 'b.example', port: 1936, app: 'app/x' }],
    ['another host, its usual port', 'rtmp://b.example/live', { host: 'b.example', port: 1935 }],
    ['an IPv6 address', 'rtmp://[2001:db8::1]:9/live', { host: '2001:db8::1', port: 9 }],
    ['over TLS', 'rtmps://b.example/live', { port: 443, tls: { acceptsAnyCertificate: false } }],
    ['the same host', '/other', { host: 'a.example', app: 'other', tcUrl: 'rtmp://a.example/other' }],
  ])('%s', (_, tcUrl, expected) => {
    const moved = movedTarget(plain, tcUrl);
    expect(moved).toMatchObject(expected);
    expect(moved.streamName).toBe(plain.streamName);
  });

  it.each([
    'http://b.example/live',
    'file:///etc/passwd',
    'rtmp:///live',
    'rtmp://b.example/',
    'rtmp://b:x/live',
  ])('is ignored where it is no such address: %s', (tcUrl) => expect(movedTarget(plain, tcUrl)).toBe(plain));

  it('is ignored where the stream would go without TLS from then on', () => {
    expect(movedTarget(secured, 'rtmp://a.example/live')).toBe(secured);
    expect(movedTarget(secured, 'rtmps://b.example:444/live')).toMatchObject({
      host: 'b.example',
      port: 444,
      tls: secured.tls,
    });
  });
});
