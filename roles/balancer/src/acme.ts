/** Certificates by ACME (RFC 8555), proven over HTTP (HTTP-01, section 8.3). */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent } from 'node:https';
import { join } from 'node:path';
import acme, { type ClientAutoOptions } from 'acme-client';
import type { Pem } from './certificates.ts';

export interface AcmeSettings {
  /** Of the certificate authority; Let's Encrypt when undefined. */
  readonly directoryUrl?: string | undefined;
  /** For notices of the authority. */
  readonly email?: string | undefined;
  /** PEM of the roots that the directory's own certificate comes from; the system's when undefined. */
  readonly directoryCa?: string | undefined;
}

/** With an authority, made at the first order. */
interface Account {
  readonly url: string;
  /** PEM. */
  readonly privateKey: string;
}

const REQUEST_TIMEOUT_MS = 20_000;

export class AcmeClient {
  readonly #settings: AcmeSettings;
  readonly #directoryUrl: string;
  readonly #accountPath: string;
  readonly #challengesDir: string;

  /** @param options.challengesDir what nginx serves under `/.well-known/acme-challenge/` */
  constructor(settings: AcmeSettings, options: { dataDir: string; challengesDir: string }) {
    this.#settings = settings;
    this.#directoryUrl = settings.directoryUrl ?? acme.directory.letsencrypt.production;
    this.#accountPath = join(options.dataDir, 'acme-account.json');
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
    const account = await this.#readAccount();
    const accountKey = account?.privateKey ?? (await acme.crypto.createPrivateEcdsaKey('P-256')).toString();
    const client = new acme.Client({
      directoryUrl: this.#directoryUrl,
      accountKey,
      ...(account === undefined ? {} : { accountUrl: account.url }),
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
    const order = {
      csr,
      ...(this.#settings.email === undefined ? {} : { email: this.#settings.email }),
      termsOfServiceAgreed: true,
      challengePriority: ['http-01'],
      // It would ask by the public name from in here, which need not work; the authority will see.
      skipChallengeVerification: true,
      challengeCreateFn: (_authorization, { token }, answer) =>
        writeFile(pathOf(token), answer, { mode: 0o644 }),
      challengeRemoveFn: (_authorization, { token }) => rm(pathOf(token), { force: true }),
    } satisfies ClientAutoOptions;
    const certificate = await client.auto(order).catch(async (error: unknown) => {
      // The authority has forgotten the account (RFC 8555, 6.7): the next order makes one anew.
      if (String(error).includes('accountDoesNotExist')) await rm(this.#accountPath, { force: true });
      throw error;
    });
    if (account === undefined)
      await this.#keepAccount({ url: client.getAccountUrl(), privateKey: accountKey });
    return { certificate, privateKey: privateKey.toString() };
  }

  /** @returns undefined where there is none with this authority */
  async #readAccount(): Promise<Account | undefined> {
    try {
      const kept: unknown = JSON.parse(await readFile(this.#accountPath, 'utf8'));
      return isAccount(kept) && kept.directoryUrl === this.#directoryUrl ? kept : undefined;
    } catch {
      return undefined;
    }
  }

  async #keepAccount(account: Account): Promise<void> {
    const text = JSON.stringify({ directoryUrl: this.#directoryUrl, ...account }, null, 2);
    await writeFile(this.#accountPath, `${text}\n`, { mode: 0o600 });
  }
}

function isAccount(value: unknown): value is Account & { readonly directoryUrl: string } {
  if (typeof value !== 'object' || value === null) return false;
  return ['directoryUrl', 'url', 'privateKey'].every((key) => typeof Reflect.get(value, key) === 'string');
}
