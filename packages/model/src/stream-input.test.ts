import { describe, expect, it } from 'vitest';
import { parsePullUrl, withoutSecrets } from './stream-input.ts';

describe('an address to pull from', () => {
  it.each([
    ['rtsp://user:pa@ss@camera.local:554/door?token=t', 'rtsp://camera.local:554'],
    ['HTTPS://host/live.m3u8?sig=s', 'https://host'],
    ['srt://studio.example:9000?passphrase=p', 'srt://studio.example:9000'],
    ['udp://@239.1.1.1:5000?pkt_size=1316', 'udp://239.1.1.1:5000'],
    ['rtmp://[::1]:1935/live/key', 'rtmp://[::1]:1935'],
  ])('%s is shown as %s', (url, shown) => {
    expect(parsePullUrl(url)?.shown).toBe(shown);
    expect(withoutSecrets({ type: 'pull', url })).toEqual({ type: 'pull', address: shown });
  });

  it.each([
    'file:///etc/passwd',
    'concat:http://a|file:///etc/passwd',
    '/etc/passwd',
    'http://',
    'http:///path',
    'http://a b/',
    'http://a/\nfile /etc/passwd',
    'pipe:0',
    '',
  ])('is none: %j', (url) => expect(parsePullUrl(url)).toBeUndefined());
});
