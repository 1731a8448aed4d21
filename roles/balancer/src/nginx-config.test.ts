import { describe, expect, it } from 'vitest';
import { exampleInput } from '../test/example-input.ts';
import { type Directive, findDirectives, parseDirectives } from './directives.ts';
import { type NginxConfigInput, renderNginxConfig } from './nginx-config.ts';

const configOf = (change: Partial<NginxConfigInput> = {}): Directive[] =>
  parseDirectives(renderNginxConfig({ ...exampleInput, ...change }).text);

const upstreamOf = (config: readonly Directive[], name: string): readonly Directive[] =>
  findDirectives(config, 'upstream').find(({ args }) => args[0] === name)?.body ?? [];

const argsOf = (config: readonly Directive[], name: string): (readonly string[])[] =>
  findDirectives(config, name).map(({ args }) => args);

describe('the configuration of nginx', () => {
  it('is the same for the same input, and another one has another revision', () => {
    const one = renderNginxConfig(exampleInput);
    expect(renderNginxConfig(structuredClone(exampleInput))).toEqual(one);
    expect(one.text).toContain(one.revision);
    expect(renderNginxConfig({ ...exampleInput, hstsSeconds: 1 }).revision).not.toBe(one.revision);
  });

  it('gives each frontend its share, and none to who is out', () => {
    const frontends = [
      { address: '10.0.0.1', port: 8080, weight: 10 },
      { address: '10.0.0.2', port: 8080, weight: 3 },
      { address: 'fd00::1', port: 8080, weight: 0 },
    ];
    const upstream = upstreamOf(configOf({ frontends }), 'frontends');
    expect(argsOf(upstream, 'server')).toEqual([
      ['10.0.0.1:8080', 'max_fails=0', 'weight=10'],
      ['10.0.0.2:8080', 'max_fails=0', 'weight=3'],
      ['[fd00::1]:8080', 'max_fails=0', 'down'],
    ]);
    expect(argsOf(upstream, 'least_conn')).toHaveLength(1);
    expect(argsOf(upstreamOf(configOf({ balance: 'round-robin' }), 'frontends'), 'least_conn')).toEqual([]);
  });

  it('passes RTMP on only where it has a port', () => {
    expect(findDirectives(configOf({ rtmp: undefined, rtmps: undefined }), 'stream')).toEqual([]);
    const config = configOf({ rtmp: { port: 1935 }, rtmps: undefined });
    expect(argsOf(upstreamOf(config, 'rtmp'), 'server')).toEqual([
      ['10.0.1.1:1935', 'max_fails=0', 'weight=10'],
    ]);
    expect(upstreamOf(config, 'rtmps')).toEqual([]);
  });

  it('sends HSTS with a certificate that browsers trust, and with no other', () => {
    const header = (change: Partial<NginxConfigInput>) => argsOf(configOf(change), 'add_header');
    const { certificate } = exampleInput;
    expect(header({})).toEqual([['Strict-Transport-Security', 'max-age=63072000', 'always']]);
    expect(header({ certificate: { ...certificate, isTrusted: false } })).toEqual([]);
    expect(header({ hstsSeconds: 0 })).toEqual([]);
  });

  it("tells those behind it the port of the site, where it is not HTTPS's own", () => {
    const hosts = (https: { port: number }) =>
      argsOf(configOf({ https }), 'proxy_set_header').flatMap(([name = '', value]) =>
        /^(?:Host|X-Forwarded-Host)$/.test(name) ? [value] : [],
      );
    expect(hosts({ port: 443 })).toEqual(['$host', '$host']);
    expect(hosts({ port: 8443 })).toEqual(['$host:8443', '$host:8443']);
  });

  it('staples OCSP where the certificate names a responder', () => {
    const { certificate } = exampleInput;
    expect(argsOf(configOf(), 'ssl_stapling')).toEqual([]);
    expect(argsOf(configOf({ certificate: { ...certificate, offersOcsp: true } }), 'ssl_stapling')).toEqual([
      ['on'],
    ]);
  });

  it('keeps media and nothing else in the cache', () => {
    const cached = findDirectives(configOf(), 'location')
      .filter(({ body = [] }) => findDirectives(body, 'proxy_cache').length > 0)
      .map(({ args }) => args[1] ?? '');
    const keeps = (path: string) => cached.some((pattern) => new RegExp(pattern).test(path));
    expect(keeps('/live/films/main/1203.m4s')).toBe(true);
    expect(keeps('/live/films/main/x9_-/1203.4.m4s')).toBe(true);
    expect(keeps('/live/films/main/init-0123456789abcdef.mp4')).toBe(true);
    for (const path of ['index.m3u8', 'main/index.m3u8', 'dvr.m3u8', 'dvr.json', 'thumbnail.jpg']) {
      expect(keeps(`/live/films/${path}`)).toBe(false);
    }
    expect(keeps('/live/films.flv')).toBe(false);
    expect(keeps('/api/v1/x.m4s')).toBe(false);
  });

  it('does not let a path or a name end a directive', () => {
    const { machine } = exampleInput;
    const config = configOf({ machine: { ...machine, cacheDir: '/srv/my "cache"; include /etc/passwd; {' } });
    expect(findDirectives(config, 'include')).toEqual([]);
    expect(argsOf(config, 'proxy_cache_path')[0]?.[0]).toBe('/srv/my "cache"; include /etc/passwd; {');
    expect(() => configOf({ machine: { ...machine, cacheDir: '/srv/a\nb' } })).toThrow(RangeError);
  });
});
