import { describe, expect, it } from 'vitest';
import { readMessage } from './nginx-log.ts';

describe("nginx's messages", () => {
  it('lose their queries and the folders of private segments', () => {
    const { isSerious, text } = readMessage(
      '<187>Nov 22 08:02:22 nginx: 2026/11/22 08:02:22 [error] 77#77: *46 upstream timed out, client: 10.9.8.7, ' +
        'request: "GET /live/films/main/index.m3u8?session=a&token=s3cret HTTP/2.0", ' +
        'upstream: "http://10.0.0.1:8080/live/films/main/9fUkE0q-Zx/12.3.m4s?token=s3cret", referrer: "https://x/watch/films?token=s3cret"',
    );
    expect(isSerious).toBe(false);
    expect(text).not.toMatch(/s3cret|9fUkE0q/);
    expect(text).toBe(
      '*46 upstream timed out, client: 10.9.8.7, request: "GET /live/films/main/index.m3u8?... HTTP/2.0", ' +
        'upstream: "http://10.0.0.1:8080/live/films/main/*/12.3.m4s?...", referrer: "https://x/watch/films?..."',
    );
  });

  it('are serious from crit on', () => {
    expect(readMessage('<186>Nov 22 08:02:22 nginx: 2026/11/22 08:02:22 [crit] 7#7: no disk')).toEqual({
      isSerious: true,
      text: 'no disk',
    });
  });
});
