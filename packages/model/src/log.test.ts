import { describe, expect, it } from 'vitest';
import { MAX_LOG_LINE_CHARS, shippedLogLine } from './log.ts';

const line = (fields: Record<string, unknown>, msg = 'hello') =>
  shippedLogLine(JSON.stringify({ level: 40, time: '2026-11-22T12:00:00.000Z', msg, ...fields }));

describe('a line of the log', () => {
  it('has what pino writes', () => {
    expect(line({ role: 'backend', channel: 'news', count: 3, err: { code: 'ECONNREFUSED' } })).toEqual({
      at: '2026-11-22T12:00:00.000Z',
      level: 'warn',
      message: 'hello',
      channel: 'news',
      fields: { role: 'backend', channel: 'news', count: 3, err: { code: 'ECONNREFUSED' } },
    });
  });

  it.each(['', 'no JSON', '[]', '3', '{"level":30,"msg":"no time"}'])('is not %j', (text) => {
    expect(shippedLogLine(text)).toBeUndefined();
  });

  it('has a bound', () => {
    expect(line({}, 'x'.repeat(20_000))?.message).toHaveLength(MAX_LOG_LINE_CHARS);
    expect(line({ text: 'x'.repeat(20_000) })?.fields).toEqual({ isTooLong: true });
  });

  const SECRET = 'Zm9vYmFyYmF6cXV4';
  it.each<[string, Record<string, unknown>, string?]>([
    ['a token in an address', { path: `/live/a.flv?token=${SECRET}&x=1` }],
    ['a key in an address', {}, `publish to rtmp://h/live/cam?key=${SECRET}`],
    ['a password in an address', { url: `postgres://starling:${SECRET}@db/starling` }],
    ['a passphrase', {}, `srt://h:9000?passphrase=${SECRET}&streamid=${SECRET}`],
    ['a header', { headers: { Authorization: `Bearer ${SECRET}`, Cookie: `starling=${SECRET}` } }],
    ['a header in a text', {}, `authorization: Bearer ${SECRET}`],
    [
      'a field that is called so',
      { streamKey: SECRET, password: SECRET, nodeToken: SECRET, clientSecret: SECRET },
    ],
    ['one deep down', { err: { config: { auth: { pass: SECRET } } } }],
    ['a list', { urls: [`https://a/?token=${SECRET}`] }],
    ['the code of a second factor', { code: '123456', x: SECRET.slice(0, 0) }],
    ['a stream key', {}, `got sk_${SECRET}${SECRET}`],
    ['an API token', {}, `got sat_${SECRET}${SECRET}`],
    ['a JSON Web Token', {}, `got eyJhbGciOi.${SECRET}.${SECRET}`],
  ])('does not have %s', (_what, fields, message) => {
    const text = JSON.stringify(line(fields, message));
    expect(text).not.toContain(SECRET);
    expect(text).not.toContain('123456');
    expect(text).toContain('(secret)');
  });

  it('keeps what only looks like one', () => {
    const fields = {
      keyFrames: 'many',
      revision: 3,
      channel: 'tokens',
      code: 'FLV_BAD_TAG',
      path: '/live/a.flv',
    };
    expect(line(fields)?.fields).toEqual(fields);
  });
});
