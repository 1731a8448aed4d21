import { describe, expect, it } from 'vitest';
import { conversionAfter, inputArguments, inputScript } from './ffmpeg-input.ts';

const COPY = { video: 'copy', audio: 'copy' } as const;
const pull = (url: string) => ({ type: 'pull', url }) as const;

describe('what FFmpeg is told', () => {
  it.each([
    'http://h/a',
    'https://h/a',
    'rtmp://h/a',
    'rtmps://h/a',
    'rtsp://h/a',
    'rtsps://h/a',
    'srt://h:1',
    'udp://h:1',
  ])('holds nothing of the address in the arguments, and no way to a file: %s', (url) => {
    const args = inputArguments(pull(`${url}?key=hunter2`), COPY);
    expect(args.join(' ')).not.toContain('hunter2');
    const whitelist = args[args.indexOf('-protocol_whitelist') + 1]?.split(',');
    for (const protocol of ['file', 'concat', 'subfile', 'unix', 'tee'])
      expect(whitelist).not.toContain(protocol);
  });

  it('names one address, whatever is in it', () => {
    // FFmpeg's quoting: within quotes all is literal but the quote itself.
    expect(inputScript(pull("http://h/it's\\?a=b'c"))).toBe(
      "ffconcat version 1.0\nfile 'http://h/it'\\''s\\?a=b'\\''c'\n",
    );
  });

  it('waits for SRT callers on the address that the backend listens on', () => {
    const input = { type: 'srt-listener', port: 9000, passphrase: 'sk_0123456789' } as const;
    expect(inputScript(input)).toContain("file 'srt://0.0.0.0:9000?mode=listener&passphrase=sk_0123456789");
    expect(inputScript(input, '127.0.0.1')).toContain("file 'srt://127.0.0.1:9000?");
    expect(inputScript(input, '::1')).toContain("file 'srt://[::1]:9000?");
  });
});

describe('a codec that FLV has no place for', () => {
  // FFmpeg 5.1: libavformat/flvenc.c, unsupported_codec and get_audio_flags
  it.each([
    ['[flv @ 0x55e] Video codec hevc not compatible with flv', { video: 'encode', audio: 'copy' }],
    ['[flv @ 0x55e] Audio codec ac3 not compatible with flv', { video: 'copy', audio: 'encode' }],
    [
      'FLV does not support sample rate 22000, choose from (44100, 22050, 11025)',
      { video: 'copy', audio: 'encode' },
    ],
    ['srt://h:1: Connection refused', undefined],
  ])('is converted the next time: %s', (stderr, expected) => {
    expect(conversionAfter(stderr, COPY)).toEqual(expected);
  });

  it('is not asked for twice', () => {
    const stderr = 'Video codec hevc not compatible with flv';
    expect(conversionAfter(stderr, { video: 'encode', audio: 'copy' })).toBeUndefined();
  });
});
