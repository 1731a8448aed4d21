import { describe, expect, it } from 'vitest';
import {
  DestinationUrlError,
  parseDestinationUrl,
  shownDestinationUrl,
  withoutDestinationSecrets,
} from './destination.ts';

describe('the address of a destination', () => {
  it.each([
    [
      'rtmp://a.rtmp.youtube.com/live2/abcd-efgh',
      { port: 1935, app: 'live2', streamName: 'abcd-efgh', tcUrl: 'rtmp://a.rtmp.youtube.com/live2' },
      'rtmp://a.rtmp.youtube.com/live2/***',
    ],
    [
      'rtmps://live-api-s.facebook.com:443/rtmp/FB-1-0-Ab?s_bl=1&a=Ac',
      { protocol: 'rtmps', port: 443, app: 'rtmp', streamName: 'FB-1-0-Ab?s_bl=1&a=Ac' },
      'rtmps://live-api-s.facebook.com/rtmp/***',
    ],
    [
      'rtmp://[2001:db8::1]:1936/live/room/cam?key=sk_secret',
      { host: '2001:db8::1', port: 1936, app: 'live/room', streamName: 'cam?key=sk_secret' },
      'rtmp://[2001:db8::1]:1936/live/***',
    ],
    [
      'srt://studio.example:9000?passphrase=0123456789&streamid=#!::r=a%26b,m=publish',
      {
        protocol: 'srt',
        port: 9000,
        options: new Map([
          ['passphrase', '0123456789'],
          ['streamid', '#!::r=a&b,m=publish'],
        ]),
      },
      'srt://studio.example:9000',
    ],
  ])('%s', (url, parts, shown) => {
    expect(parseDestinationUrl(url)).toMatchObject(parts);
    expect(shownDestinationUrl(url)).toBe(shown);
  });

  it.each([
    'http://example.org/live/key',
    'file:///etc/passwd',
    'rtmp://example.org/live',
    'rtmp://example.org',
    'rtmp:///live/key',
    'rtmp://user:secret@example.org/live/key',
    'rtmp://example.org:70000/live/key',
    'rtmp://example.org/live/a key',
    'srt://example.org',
    'srt://example.org:9000?passphrase=short',
    'srt://example.org:9000?mode=listener',
    'srt://example.org:9000?protocol_whitelist=file',
    'srt://example.org:9000?streamid=a%0ab',
    'srt://example.org:9000?streamid=%zz',
  ])('is refused: %s', (url) => {
    expect(() => parseDestinationUrl(url)).toThrow(DestinationUrlError);
  });

  it('leaves nothing secret in what a server says', () => {
    const rtmp = parseDestinationUrl('rtmp://example.org/live/cam-1234?key=sk_1234567');
    expect(withoutDestinationSecrets('Publishing cam-1234?key=sk_1234567 failed: cam-1234', rtmp)).toBe(
      'Publishing *** failed: ***',
    );
    const srt = parseDestinationUrl('srt://example.org:1?passphrase=0123456789');
    expect(withoutDestinationSecrets('bad passphrase 0123456789', srt)).toBe('bad passphrase ***');
  });
});
