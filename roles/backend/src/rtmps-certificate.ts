/** The certificate of the RTMPS port: the operator's, or one that is made at the first start and kept. */
import { X509Certificate } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { generate } from 'selfsigned';
import { systemErrorCode } from './error.ts';

export interface RtmpsConfig {
  /** 0 takes a free port. */
  readonly port: number;
  /** Files in PEM, both or none. */
  readonly certificatePath?: string | undefined;
  readonly privateKeyPath?: string | undefined;
}

export interface Certificate {
  readonly certificate: string;
  readonly privateKey: string;
}

const DAY_MS = 86_400_000;
const VALID_DAYS = 3650;
/** A certificate of ours that ends sooner is made anew. */
const RENEW_BEFORE_DAYS = 30;

/** The message is one sentence for the operator. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError';
}

/**
 * Reads the operator's certificate, or our own self-signed one, which is made where there is none.
 * @throws CertificateError when the operator's files cannot be read; the system's error when ours cannot be written
 */
export async function readCertificate(
  config: RtmpsConfig,
  dataDir: string,
  logger: Logger,
): Promise<Certificate> {
  const { certificatePath, privateKeyPath } = config;
  if (certificatePath !== undefined && privateKeyPath !== undefined) {
    return { certificate: await readPem(certificatePath), privateKey: await readPem(privateKeyPath) };
  }
  if (certificatePath !== undefined || privateKeyPath !== undefined) {
    throw new CertificateError('A certificate for RTMPS needs its private key: name both files, or none.');
  }
  const folder = join(dataDir, 'tls');
  const paths = { certificate: join(folder, 'rtmps.crt'), privateKey: join(folder, 'rtmps.key') };
  const kept = await readKept(paths.certificate, paths.privateKey);
  if (kept !== undefined) return kept;

  const now = new Date();
  const made = await generate([{ name: 'commonName', value: 'Starling' }], {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
    notBeforeDate: now,
    notAfterDate: new Date(now.getTime() + VALID_DAYS * DAY_MS),
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] }],
  });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await writeFile(paths.privateKey, made.private, { mode: 0o600 });
  await writeFile(paths.certificate, made.cert);
  logger.info({ certificate: paths.certificate }, 'made a self-signed certificate for RTMPS');
  return { certificate: made.cert, privateKey: made.private };
}

/** @returns undefined where there is none, or it is about to end */
async function readKept(certificatePath: string, privateKeyPath: string): Promise<Certificate | undefined> {
  try {
    const certificate = await readFile(certificatePath, 'utf8');
    const endsMs = Date.parse(new X509Certificate(certificate).validTo);
    if (endsMs - Date.now() < RENEW_BEFORE_DAYS * DAY_MS) return undefined;
    return { certificate, privateKey: await readFile(privateKeyPath, 'utf8') };
  } catch {
    return undefined;
  }
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const reason = systemErrorCode(error) ?? (error instanceof Error ? error.message : String(error));
    throw new CertificateError(`${path} cannot be read (${reason}).`, { cause: error });
  }
}
