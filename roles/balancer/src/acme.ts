/** Certificates by ACME (RFC 8555), proven over HTTP (HTTP-01, section 8.3) or in the DNS (DNS-01, section 8.4). */
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
  /** Names are proven with records at Route 53: wildcards too, and without port 80. Over HTTP when undefined. */
  readonly route53?:
    | { readonly hostedZoneId?: string | undefined; readonly pollSeconds?: number }
    | undefined;
}

/** With an authority, made at the first order. */
interface Account {
  readonly url: string;
  /** PEM. */
  readonly privateKey: string;
}

/** How names are proven. */
interface Proof {
  readonly challenges: Pick<
    ClientAutoOptions,
    'challengePriority' | 'challengeCreateFn' | 'challengeRemoveFn'
  >;
  close(): void;
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
    const { route53 } = this.#settings;
    const proof = await (route53 === undefined ? this.#overHttp() : this.#inDns(route53));
    const order = {
      csr,
      ...(this.#settings.email === undefined ? {} : { email: this.#settings.email }),
      termsOfServiceAgreed: true,
      // It would ask by the public name from in here, which need not work; the authority will see.
      skipChallengeVerification: true,
      ...proof.challenges,
    } satisfies ClientAutoOptions;
    const certificate = await client
      .auto(order)
      .catch(async (error: unknown) => {
        // The authority has forgotten the account (RFC 8555, 6.7): the next order makes one anew.
        if (String(error).includes('accountDoesNotExist')) await rm(this.#accountPath, { force: true });
        throw error;
      })
      .finally(() => proof.close());
    if (account === undefined)
      await this.#keepAccount({ url: client.getAccountUrl(), privateKey: accountKey });
    return { certificate, privateKey: privateKey.toString() };
  }

  /** Files that nginx serves. */
  async #overHttp(): Promise<Proof> {
    await mkdir(this.#challengesDir, { recursive: true });
    const pathOf = (token: string) => {
      if (!/^[\w-]+$/.test(token))
        throw new Error('The authority sent a challenge token that is none (RFC 8555, 8.3).');
      return join(this.#challengesDir, token);
    };
    return {
      challenges: {
        challengePriority: ['http-01'],
        challengeCreateFn: (_authorization, { token }, answer) =>
          writeFile(pathOf(token), answer, { mode: 0o644 }),
        challengeRemoveFn: (_authorization, { token }) => rm(pathOf(token), { force: true }),
      },
      close() {},
    };
  }

  /** Records of the zone. */
  async #inDns({ hostedZoneId, pollSeconds }: NonNullable<AcmeSettings['route53']>): Promise<Proof> {
    // AWS's SDK takes a while to load, and most do without.
    const { Route53Records } = await import('./route53.ts');
    const records = new Route53Records(hostedZoneId, pollSeconds);
    const nameOf = (name: string) => `_acme-challenge.${name}`;
    return {
      challenges: {
        challengePriority: ['dns-01'],
        challengeCreateFn: ({ identifier }, _challenge, answer) =>
          records.add(nameOf(identifier.value), answer),
        challengeRemoveFn: ({ identifier }, _challenge, answer) =>
          records.remove(nameOf(identifier.value), answer),
      },
      close: () => records.close(),
    };
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
