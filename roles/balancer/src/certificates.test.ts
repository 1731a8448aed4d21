import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CertificateError, Certificates, coversNames, renewalUnixMs } from './certificates.ts';

const folder = mkdtempSync(join(tmpdir(), 'starling-certificates-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('certificates', () => {
  it('are self-signed at first, for all names, with a key for its owner alone, and kept', async () => {
    const certificates = new Certificates(folder);
    const first = await certificates.open(['tv.example.org', 'www.example.org']);
    expect(first).toMatchObject({ isSelfSigned: true, names: ['tv.example.org', 'www.example.org'] });
    expect(statSync(first.privateKeyPath).mode & 0o777).toBe(0o600);
    expect(await new Certificates(folder).open(['www.example.org'])).toEqual(first);
    expect((await certificates.open(['other.example.org'])).names).toEqual(['other.example.org']);
  });

  it('are not taken without their key, and the one in use stays', async () => {
    const certificates = new Certificates(folder);
    const before = await certificates.current();
    const other = await new Certificates(mkdtempSync(join(folder, 'other-'))).open(['tv.example.org']);
    const pair = {
      certificate: readFileSync(other.certificatePath, 'utf8'),
      privateKey: readFileSync(before?.privateKeyPath ?? '', 'utf8'),
    };
    await expect(certificates.install(pair)).rejects.toThrow(CertificateError);
    expect(await certificates.current()).toEqual(before);
  });

  it('that are damaged on disk are made anew', async () => {
    const dir = mkdtempSync(join(folder, 'damaged-'));
    const made = await new Certificates(dir).open(['tv.example.org']);
    writeFileSync(made.certificatePath, 'nothing');
    const again = await new Certificates(dir).open(['tv.example.org']);
    expect(again.certificatePath).not.toBe(made.certificatePath);
  });

  it.each([
    [['tv.example.org'], ['tv.example.org'], true],
    [['*.example.org'], ['tv.example.org'], true],
    [['*.example.org'], ['example.org'], false],
    [['*.example.org'], ['a.tv.example.org'], false],
    [['tv.example.org'], ['tv.example.org', 'www.example.org'], false],
  ])('for %j hold for %j: %j', (names, asked, isCovered) => {
    expect(coversNames({ names }, asked)).toBe(isCovered);
  });

  it('are due after two thirds of their life, self-signed ones and those without a name at once', () => {
    const certificate = {
      ...{ certificatePath: '', privateKeyPath: '', names: ['tv.example.org'], offersOcsp: false },
      ...{ notBeforeUnixMs: 1000, notAfterUnixMs: 91_000, isSelfSigned: false },
    };
    expect(renewalUnixMs(certificate, ['tv.example.org'])).toBe(61_000);
    expect(renewalUnixMs(certificate, ['www.example.org'])).toBe(0);
    expect(renewalUnixMs({ ...certificate, isSelfSigned: true }, ['tv.example.org'])).toBe(0);
  });
});
