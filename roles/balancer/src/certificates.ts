/**
 * The certificate in use and its key, on disk:
 *
 *   certificates/<id>/certificate.pem   with its chain; each issue has a folder, so that nginx never sees half of one
 *   certificates/<id>/private-key.pem   mode 0600
 *   certificates/current                the id of the one in use
 *
 * The operator's own, if the configuration names one; else the one in use; else a self-signed one is made.
 */
import { createPrivateKey, randomBytes, X509Certificate } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generate } from 'selfsigned';

/** A certificate that cannot be used, in one sentence. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError';
}

export interface CertificateFiles {
  readonly certificatePath: string;
  readonly privateKeyPath: string;
}

export interface CertificateInUse extends CertificateFiles {
  readonly names: readonly string[];
  readonly notBeforeUnixMs: number;
  readonly notAfterUnixMs: number;
  readonly isSelfSigned: boolean;
  /** The URI of an OCSP responder is in it. */
  readonly offersOcsp: boolean;
}

export interface Pem {
  readonly certificate: string;
  readonly privateKey: string;
}

const SELF_SIGNED_DAYS = 365;
const DAY_MS = 86_400_000;
/** Folders of certificates that were replaced: workers of before a reload do not read them again. */
const KEPT_FOLDERS = 3;
/** Of its life, after which it is renewed. */
const RENEWAL_SHARE = 2 / 3;

export class Certificates {
  readonly #dir: string;

  constructor(dataDir: string) {
    this.#dir = join(dataDir, 'certificates');
  }

  /**
   * The certificate in use, or a self-signed one where there is none. One that has only some of the names stays: for
   * those it is better than none.
   * @throws CertificateError when the files cannot be used
   */
  async open(names: readonly string[]): Promise<CertificateInUse> {
    const kept = await this.current();
    const isOfUse =
      kept !== undefined &&
      kept.notAfterUnixMs > Date.now() &&
      names.some((name) => coversNames(kept, [name]));
    return isOfUse ? kept : this.install(await selfSigned(names));
  }

  /**
   * Takes the operator's own certificate: a copy, so that nginx reads what was checked.
   * @returns the one in use where it is the same
   * @throws CertificateError when the files cannot be used
   */
  async adopt(files: CertificateFiles): Promise<CertificateInUse> {
    await readCertificate(files);
    const [certificate, privateKey] = await Promise.all(
      [files.certificatePath, files.privateKeyPath].map((path) => readFile(path, 'utf8')),
    );
    const current = await this.current();
    if (current !== undefined && (await readFile(current.certificatePath, 'utf8')) === certificate)
      return current;
    return this.install({ certificate: certificate ?? '', privateKey: privateKey ?? '' });
  }

  /** @returns undefined where there is none that can be read */
  async current(): Promise<CertificateInUse | undefined> {
    const id = await readFile(join(this.#dir, 'current'), 'utf8').catch(() => undefined);
    if (id === undefined) return undefined;
    return readCertificate(this.#filesOf(id.trim())).catch(() => undefined);
  }

  /**
   * Keeps a certificate and makes it the one in use.
   * @throws CertificateError when it and its key are no pair
   */
  async install({ certificate, privateKey }: Pem): Promise<CertificateInUse> {
    const id = `${new Date().toISOString().replace(/\D/g, '')}-${randomBytes(4).toString('hex')}`;
    const files = this.#filesOf(id);
    await mkdir(join(this.#dir, id), { recursive: true, mode: 0o700 });
    await writeFile(files.privateKeyPath, privateKey, { mode: 0o600 });
    await writeFile(files.certificatePath, certificate);
    const installed = await readCertificate(files);
    const pointer = join(this.#dir, 'current');
    await writeFile(`${pointer}.next`, `${id}\n`);
    await rename(`${pointer}.next`, pointer);
    await this.#removeOld(id);
    return installed;
  }

  #filesOf(id: string): CertificateFiles {
    return {
      certificatePath: join(this.#dir, id, 'certificate.pem'),
      privateKeyPath: join(this.#dir, id, 'private-key.pem'),
    };
  }

  async #removeOld(currentId: string): Promise<void> {
    const ids = (await readdir(this.#dir)).filter((name) => /^\d{17}-[0-9a-f]{8}$/.test(name)).sort();
    for (const id of ids.slice(0, -KEPT_FOLDERS)) {
      if (id !== currentId) await rm(join(this.#dir, id), { recursive: true, force: true });
    }
  }
}

/**
 * Reads a certificate and its key.
 * @throws CertificateError when they cannot be read, or are no pair
 */
export async function readCertificate(files: CertificateFiles): Promise<CertificateInUse> {
  const read = (path: string) =>
    readFile(path, 'utf8').catch((error: unknown) => {
      throw new CertificateError(
        `${path} cannot be read (${error instanceof Error ? error.message : error}).`,
      );
    });
  const certificatePem = await read(files.certificatePath);
  const privateKeyPem = await read(files.privateKeyPath);
  try {
    const certificate = new X509Certificate(certificatePem); // the first of a chain
    if (!certificate.checkPrivateKey(createPrivateKey(privateKeyPem))) throw new Error('they are no pair');
    return {
      ...files,
      names: [...(certificate.subjectAltName ?? '').matchAll(/DNS:([^,\s]+)/g)].map(([, name = '']) => name),
      notBeforeUnixMs: Date.parse(certificate.validFrom),
      notAfterUnixMs: Date.parse(certificate.validTo),
      isSelfSigned: certificate.issuer === certificate.subject,
      offersOcsp: /OCSP - URI:/.test(certificate.infoAccess ?? ''),
    };
  } catch (error) {
    throw new CertificateError(
      `${files.certificatePath} and ${files.privateKeyPath} cannot be used: ${error instanceof Error ? error.message : error}.`,
      { cause: error },
    );
  }
}

/** True when it holds for all names; `*.example.org` holds for one label (RFC 6125, 6.4.3). */
export function coversNames(certificate: Pick<CertificateInUse, 'names'>, names: readonly string[]): boolean {
  return names.every((name) =>
    certificate.names.some((known) => known === name || known === `*.${name.split('.').slice(1).join('.')}`),
  );
}

/** When a certificate of ours is to be replaced: after two thirds of its life, a self-signed one at once. */
export function renewalUnixMs(certificate: CertificateInUse, names: readonly string[]): number {
  if (certificate.isSelfSigned || !coversNames(certificate, names)) return 0;
  const { notBeforeUnixMs, notAfterUnixMs } = certificate;
  return notBeforeUnixMs + RENEWAL_SHARE * (notAfterUnixMs - notBeforeUnixMs);
}

async function selfSigned(names: readonly string[]): Promise<Pem> {
  const now = new Date();
  const made = await generate([{ name: 'commonName', value: names[0] ?? 'localhost' }], {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
    notBeforeDate: now,
    notAfterDate: new Date(now.getTime() + SELF_SIGNED_DAYS * DAY_MS),
    extensions: [{ name: 'subjectAltName', altNames: names.map((value) => ({ type: 2, value })) }],
  });
  return { certificate: made.cert, privateKey: made.private };
}
