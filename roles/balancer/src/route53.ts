/**
 * TXT records at Amazon Route 53, with which names are proven to an authority (RFC 8555, 8.4). Who may change them is found as
 * AWS's own programs find it: the environment, `~/.aws`, or the role of the machine. It needs `route53:ListHostedZonesByName`,
 * `route53:ChangeResourceRecordSets` on the zone, and `route53:GetChange`.
 */
import {
  ChangeResourceRecordSetsCommand,
  ListHostedZonesByNameCommand,
  Route53Client,
  waitUntilResourceRecordSetsChanged,
} from '@aws-sdk/client-route-53';

/** Route 53 is one for all regions; its requests are signed for this one. */
const REGION = 'us-east-1';
const TTL_SECONDS = 60;
/** All name servers of a zone have a change within a minute, says AWS. */
const MAX_SYNC_SECONDS = 180;
const REQUEST_TIMEOUT_MS = 20_000;

export class Route53Records {
  readonly #client = new Route53Client({
    region: process.env.AWS_REGION ?? REGION,
    maxAttempts: 5,
    requestHandler: { requestTimeout: REQUEST_TIMEOUT_MS, connectionTimeout: REQUEST_TIMEOUT_MS },
  });
  readonly #hostedZoneId: string | undefined;
  readonly #pollSeconds: number;
  /** By name: a name and its wildcard are proven with two values of one record. */
  readonly #values = new Map<string, Set<string>>();
  /** Changes of one zone come one after another. */
  #changes: Promise<void> = Promise.resolve();

  /**
   * @param hostedZoneId found by the name when undefined
   * @param pollSeconds between two looks at whether a change is everywhere
   */
  constructor(hostedZoneId: string | undefined, pollSeconds = 3) {
    this.#hostedZoneId = hostedZoneId;
    this.#pollSeconds = pollSeconds;
  }

  /** Resolves when all name servers of the zone have it. */
  async add(name: string, value: string): Promise<void> {
    const values = this.#values.get(name) ?? new Set();
    this.#values.set(name, values.add(value));
    await this.#inTurn(() => this.#change(name, 'UPSERT', [...values]));
  }

  async remove(name: string, value: string): Promise<void> {
    const values = this.#values.get(name);
    if (values?.has(value) !== true) return;
    await this.#inTurn(async () => {
      const before = [...values];
      values.delete(value);
      // A record set is removed as it is.
      if (values.size === 0) await this.#change(name, 'DELETE', before);
      else await this.#change(name, 'UPSERT', [...values]);
      if (values.size === 0) this.#values.delete(name);
    });
  }

  close(): void {
    this.#client.destroy();
  }

  #inTurn(change: () => Promise<void>): Promise<void> {
    const done = this.#changes.then(change);
    this.#changes = done.catch(() => {});
    return done;
  }

  async #change(name: string, action: 'UPSERT' | 'DELETE', values: readonly string[]): Promise<void> {
    const { ChangeInfo } = await this.#client.send(
      new ChangeResourceRecordSetsCommand({
        HostedZoneId: this.#hostedZoneId ?? (await this.#zoneOf(name)),
        ChangeBatch: {
          Changes: [
            {
              Action: action,
              ResourceRecordSet: {
                Name: name,
                Type: 'TXT',
                TTL: TTL_SECONDS,
                ResourceRecords: values.map((value) => ({ Value: `"${value}"` })),
              },
            },
          ],
        },
      }),
    );
    if (action === 'DELETE') return;
    await waitUntilResourceRecordSetsChanged(
      {
        client: this.#client,
        maxWaitTime: MAX_SYNC_SECONDS,
        minDelay: this.#pollSeconds,
        maxDelay: this.#pollSeconds,
      },
      { Id: ChangeInfo?.Id },
    );
  }

  /** The public zone that the name is in: of several the one with the longest name. */
  async #zoneOf(name: string): Promise<string> {
    const labels = name.split('.');
    for (let first = 1; first < labels.length; first++) {
      const zone = `${labels.slice(first).join('.')}.`;
      const { HostedZones = [] } = await this.#client.send(
        new ListHostedZonesByNameCommand({ DNSName: zone, MaxItems: 10 }),
      );
      const found = HostedZones.find((one) => one.Name === zone && one.Config?.PrivateZone !== true);
      if (found?.Id !== undefined) return found.Id.replace('/hostedzone/', '');
    }
    throw new Error(
      `This AWS account has no public hosted zone that ${name} is in. Name it as hostedZoneId.`,
    );
  }
}
