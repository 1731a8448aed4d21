/** Certificates by ACME (RFC 8555), proven over HTTP (HTTP-01, section 8.3). */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent } from 'node:https';
import { join } from 'node:path';
import acme from 'acme-client';
import type { Pem } from './certificates.ts';

export interface AcmeSettings {
  /** Of the certificate authority; Let's Encrypt when undefined. */
  readonly directoryUrl?: string | undefined;
  /** For notices of the authority. */
  readonly email?: string | undefined;
  /** PEM of the roots that the directory's own certificate comes from; the system's when undefined. */
  readonly directoryCa?: string | undefined;
}

const REQUEST_TIMEOUT_MS = 20_000;

export class AcmeClient {
  readonly #settings: AcmeSettings;
  readonly #accountKeyPath: string;
  readonly #challengesDir: string;

  /** @param options.challengesDir what nginx serves under `/.well-known/acme-challenge/` */
  constructor(settings: AcmeSettings, options: { dataDir: string; challengesDir: string }) {
    this.#settings = settings;
    this.#accountKeyPath = join(options.dataDir, 'acme-account.pem');
    this.#challengesDir = options.challengesDir;
    acme.axios.defaults.timeout = REQUEST_TIMEOUT_MS;
    if (settings.directoryCa !== undefined) {
      acme.axios.defaults.httpsAgent = new Agent({ ca: settings.directoryCa });
    }
  }

  /**
   * Orders a certificate for the names, with a new key.
   * @throws an error with what the authority says
   */
  async order(names: readonly string[]): Promise<Pem> {
    const client = new acme.Client({
      directoryUrl: this.#settings.directoryUrl ?? acme.directory.letsencrypt.production,
      accountKey: await this.#accountKey(),
    });
    const [privateKey, csr] = await acme.crypto.createCsr(
      { altNames: [...names] },
      await acme.crypto.createPrivateEcdsaKey('P-256'),
    );
    await mkdir(this.#challengesDir, { recursive: true });
    const pathOf = (token: string) => {
      if (!/^[\w-]+$/.test(token))
        throw new Error('The authority sent a challenge token that is none (RFC 8555, 8.3).');
      return join(this.#challengesDir, token);
    };
    const certificate = await client.auto({
      csr,
      ...(this.#settings.email === undefined ? {} : { email: this.#settings.email }),
      termsOfServiceAgreed: true,
      challengePriority: ['http-01'],
      // It would ask by the public name from in here, which need not work; the authority will see.
      skipChallengeVerification: true,
      challengeCreateFn: (_authorization, { token }, answer) =>
        writeFile(pathOf(token), answer, { mode: 0o644 }),
      challengeRemoveFn: (_authorization, { token }) => rm(pathOf(token), { force: true }),
    });
    return { certificate, privateKey: privateKey.toString() };
  }

  /** Made at the first order, and kept. */
  async #accountKey(): Promise<Buffer> {
    const kept = await readFile(this.#accountKeyPath).catch(() => undefined);
    if (kept !== undefined) return kept;
    const made = await acme.crypto.createPrivateEcdsaKey('P-256');
    await writeFile(this.#accountKeyPath, made, { mode: 0o600 });
    return made;
  }
}
