/**
 * The coordinator's API, for the command line, the other roles and the site. Answers are checked
 * against the schemas of `entities.ts` before anyone sees them.
 */
import { type Static, type TSchema, Type } from 'typebox';
import { Check } from 'typebox/value';
import {
  Account,
  type AccountUpdate,
  AccountWithPassword,
  ApiToken,
  ApiTokenWithSecret,
  AuditPage,
  Me,
  type NewAccount,
  type NewApiToken,
} from './account.ts';
import { Alarm, AlarmSettings, type AlarmSettingsChange, AlarmTest } from './alarm.ts';
import { Destination, type DestinationUpdate, type NewDestination } from './destination.ts';
import {
  Asset,
  type BackendReport,
  BackendState,
  Channel,
  type ChannelUpdate,
  ChannelWithStatus,
  CoordinatorStatus,
  type FrontendReport,
  FrontendReportAnswer,
  FrontendState,
  type ImportReport,
  type NewAsset,
  type NewChannel,
  type NewChannelSources,
  type NewStream,
  type NewViewingToken,
  Problem,
  PublicChannel,
  type Rotation,
  ScheduleChange,
  ScheduledItem,
  type SourceChoice,
  Stream,
  type StreamUpdate,
  StreamWithKey,
  ViewerList,
  ViewerSession,
  ViewingToken,
  ViewingTokenWithSecret,
} from './entities.ts';
import { HeldLease, LeaseGrants, type LeaseWish } from './lease.ts';
import {
  type FolderReport,
  LibrarySettings,
  type LibrarySettingsChange,
  type NewWatchedFolder,
  WatchedFolder,
} from './library.ts';
import { type LogBatch, LogLine, type LogQuery } from './log.ts';
import {
  Fleet,
  type JoinRequest,
  type NewNodeInvitation,
  Node,
  NodeInvitation,
  NodeInvitationWithToken,
  type NodeReport,
} from './node.ts';
import type { NodeHealth } from './node-health.ts';
import { type NewRecording, Recording, type RecordingReport } from './recording.ts';
import { type Effective, Schedule } from './schedule-definition.ts';
import { type NewWebhook, Webhook, WebhookDelivery, WebhookWithSecret } from './webhook.ts';

const REQUEST_TIMEOUT_MS = 30_000;
/** Below the life of a lease: a request that got stuck must not cost it. */
const LEASE_TIMEOUT_MS = 1500;
const BACKUP_TIMEOUT_MS = 600_000;
/** The coordinator pings every 15 s; a watch that is silent for longer than two pings is dead. */
const WATCH_SILENCE_MS = 40_000;
const MAX_EVENT_CHARS = 64 * 1024 * 1024;
const FIRST_RETRY_MS = 250;
const MAX_RETRY_MS = 5000;

/** The coordinator refused the request, or cannot be reached (code `UNREACHABLE`, status 0). */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly code: string;
  readonly status: number;
  /** What happened and what to do next, in plain words. */
  readonly detail: string;

  constructor(problem: Pick<Problem, 'code' | 'status' | 'detail'>, options?: ErrorOptions) {
    super(problem.detail, options);
    this.code = problem.code;
    this.status = problem.status;
    this.detail = problem.detail;
  }
}

export interface CoordinatorClientOptions {
  /** For instance `http://127.0.0.1:8080`. */
  readonly baseUrl: string;
  /** The operator's or the node's token, or what makes one for each request; none for the public routes. */
  readonly token?: string | (() => Promise<string>) | undefined;
  readonly fetch?: typeof globalThis.fetch;
}

type WatchParameters<State> = [
  onState: (state: State) => void,
  signal: AbortSignal,
  /** Hears of each lost connection. */
  onRetry?: ((error: unknown, delayMs: number) => void) | undefined,
  /** Of each attempt. */
  headers?: () => Readonly<Record<string, string>>,
];

const Page = <T extends TSchema>(item: T) =>
  Type.Object({ items: Type.Array(item), nextCursor: Type.Union([Type.String(), Type.Null()]) });
const Items = <T extends TSchema>(item: T) => Type.Object({ items: Type.Array(item) });

/** Every method raises an {@link ApiError}. */
export class CoordinatorClient {
  readonly #baseUrl: string;
  readonly #token: string | (() => Promise<string>) | undefined;
  readonly #fetch: typeof globalThis.fetch;

  constructor({
    baseUrl,
    token,
    fetch = (input, init) => globalThis.fetch(input, init),
  }: CoordinatorClientOptions) {
    this.#baseUrl = baseUrl.replace(/\/$/, '');
    this.#token = token;
    this.#fetch = fetch;
  }

  readonly assets = {
    list: (): Promise<Asset[]> => this.#list('/assets', Asset, true),
    /** Queues an import; follow it with `get`. */
    create: (asset: NewAsset): Promise<Asset> => this.#request('POST', '/assets', Asset, asset),
    get: (id: string): Promise<Asset> => this.#request('GET', path`/assets/${id}`, Asset),
    remove: (id: string): Promise<void> => this.#send('DELETE', path`/assets/${id}`),
    /** Ends an import that waits or runs. */
    cancel: (id: string): Promise<Asset> => this.#request('POST', path`/assets/${id}/cancel`, Asset),
    /** Queues an import again that failed or was cancelled. */
    retry: (id: string): Promise<Asset> => this.#request('POST', path`/assets/${id}/retry`, Asset),
  };

  readonly library = {
    settings: (): Promise<LibrarySettings> => this.#request('GET', '/library/settings', LibrarySettings),
    /** Changes those that are given. */
    changeSettings: (settings: LibrarySettingsChange): Promise<LibrarySettings> =>
      this.#request('PATCH', '/library/settings', LibrarySettings, settings),
    folders: (): Promise<WatchedFolder[]> => this.#list('/library/folders', WatchedFolder, true),
    watch: (folder: NewWatchedFolder): Promise<WatchedFolder> =>
      this.#request('POST', '/library/folders', WatchedFolder, folder),
    unwatch: (id: string): Promise<void> => this.#send('DELETE', path`/library/folders/${id}`),
  };

  readonly channels = {
    list: (): Promise<Channel[]> => this.#list('/channels', Channel, true),
    create: (channel: NewChannel): Promise<Channel> => this.#request('POST', '/channels', Channel, channel),
    get: (name: string): Promise<ChannelWithStatus> =>
      this.#request('GET', path`/channels/${name}`, ChannelWithStatus),
    update: (name: string, update: ChannelUpdate): Promise<Channel> =>
      this.#request('PATCH', path`/channels/${name}`, Channel, update),
    setSources: (name: string, sources: NewChannelSources): Promise<ChannelWithStatus> =>
      this.#request('PUT', path`/channels/${name}/sources`, ChannelWithStatus, sources),
    chooseSource: (name: string, source: SourceChoice): Promise<void> =>
      this.#send('POST', path`/channels/${name}/source`, { source }),
    remove: (name: string): Promise<void> => this.#send('DELETE', path`/channels/${name}`),
  };

  /** What the channels play, by the name of the channel. */
  readonly schedules = {
    get: (channel: string): Promise<Schedule> =>
      this.#request('GET', path`/channels/${channel}/schedule`, Schedule),
    /** As a file. */
    export: async (channel: string, format: ScheduleFormat): Promise<string> => {
      const response = await this.#fetchApi(
        'GET',
        path`/channels/${channel}/schedule`,
        undefined,
        AbortSignal.timeout(REQUEST_TIMEOUT_MS),
        { accept: scheduleMediaTypes[format] },
      );
      return response.text();
    },
    set: (channel: string, schedule: Schedule, effective?: Effective): Promise<ScheduleChange> =>
      this.#request(
        'PUT',
        path`/channels/${channel}/schedule` + effectiveQuery(effective),
        ScheduleChange,
        schedule,
      ),
    /** From a file. */
    import: async (
      channel: string,
      text: string,
      format: ScheduleFormat,
      effective?: Effective,
    ): Promise<ScheduleChange> => {
      const response = await this.#fetchApi(
        'PUT',
        path`/channels/${channel}/schedule` + effectiveQuery(effective),
        text,
        AbortSignal.timeout(REQUEST_TIMEOUT_MS),
        { 'content-type': scheduleMediaTypes[format] },
      );
      return checked(ScheduleChange, await response.json());
    },
    /** @param fromMs milliseconds since 1970; the present where nothing is said */
    preview: async (channel: string, hours: number, fromMs?: number): Promise<ScheduledItem[]> => {
      const query = new URLSearchParams({ hours: String(hours) });
      if (fromMs !== undefined) query.set('from', new Date(fromMs).toISOString());
      return this.#list(`${path`/channels/${channel}/schedule/preview`}?${query}`, ScheduledItem);
    },
  };

  readonly streams = {
    list: (): Promise<Stream[]> => this.#list('/streams', Stream, true),
    /** The answer is the only one that holds the key. */
    create: (stream: NewStream): Promise<StreamWithKey> =>
      this.#request('POST', '/streams', StreamWithKey, stream),
    /** Gives it to an account. */
    update: (name: string, update: StreamUpdate): Promise<Stream> =>
      this.#request('PATCH', path`/streams/${name}`, Stream, update),
    remove: (name: string): Promise<void> => this.#send('DELETE', path`/streams/${name}`),
    /** An encoder with the old key is cut off at once, or when the overlap is over. */
    rotateKey: (name: string, rotation: Rotation = {}): Promise<StreamWithKey> =>
      this.#request('POST', path`/streams/${name}/rotate-key`, StreamWithKey, rotation),
  };

  readonly accounts = {
    list: (): Promise<Account[]> => this.#list('/accounts', Account, true),
    get: (name: string): Promise<Account> => this.#request('GET', path`/accounts/${name}`, Account),
    /** The answer is the only one that holds the password, where none was given. */
    create: (account: NewAccount): Promise<AccountWithPassword> =>
      this.#request('POST', '/accounts', AccountWithPassword, account),
    update: (name: string, update: AccountUpdate): Promise<Account> =>
      this.#request('PATCH', path`/accounts/${name}`, Account, update),
    /** @param password one that can be used once is made when undefined */
    resetPassword: (name: string, password?: string): Promise<AccountWithPassword> =>
      this.#request(
        'POST',
        path`/accounts/${name}/password`,
        AccountWithPassword,
        password === undefined ? {} : { password },
      ),
    /** Ends all its sessions. */
    logOut: (name: string): Promise<void> => this.#send('DELETE', path`/accounts/${name}/sessions`),
    remove: (name: string): Promise<void> => this.#send('DELETE', path`/accounts/${name}`),
  };

  readonly apiTokens = {
    list: (): Promise<ApiToken[]> => this.#list('/api-tokens', ApiToken),
    /** The answer is the only one that holds the token. */
    create: (token: NewApiToken): Promise<ApiTokenWithSecret> =>
      this.#request('POST', '/api-tokens', ApiTokenWithSecret, token),
    revoke: (id: string): Promise<void> => this.#send('DELETE', path`/api-tokens/${id}`),
  };

  /** What was changed, newest first. @param query as the API takes it */
  audit(query: Readonly<Record<string, string>> = {}): Promise<AuditPage> {
    return this.#request('GET', `/audit?${new URLSearchParams(query)}`, AuditPage);
  }

  /** Who the token belongs to, and what it may do. */
  me(): Promise<Me> {
    return this.#request('GET', '/me', Me);
  }

  readonly destinations = {
    list: (): Promise<Destination[]> => this.#list('/destinations', Destination),
    create: (destination: NewDestination): Promise<Destination> =>
      this.#request('POST', '/destinations', Destination, destination),
    get: (name: string): Promise<Destination> =>
      this.#request('GET', path`/destinations/${name}`, Destination),
    update: (name: string, update: DestinationUpdate): Promise<Destination> =>
      this.#request('PATCH', path`/destinations/${name}`, Destination, update),
    remove: (name: string): Promise<void> => this.#send('DELETE', path`/destinations/${name}`),
  };

  readonly recordings = {
    /** Newest first. */
    list: (): Promise<Recording[]> => this.#list('/recordings', Recording),
    get: (id: string): Promise<Recording> => this.#request('GET', path`/recordings/${id}`, Recording),
    start: (recording: NewRecording): Promise<Recording> =>
      this.#request('POST', '/recordings', Recording, recording),
    stop: (id: string): Promise<Recording> => this.#request('POST', path`/recordings/${id}/stop`, Recording),
    remove: (id: string): Promise<void> => this.#send('DELETE', path`/recordings/${id}`),
    /** Queues the import of each of its files; follow them with `assets.get`. */
    import: (id: string, name?: string): Promise<Asset[]> =>
      this.#request(
        'POST',
        path`/recordings/${id}/import`,
        Items(Asset),
        name === undefined ? {} : { name },
      ).then(({ items }) => items),
  };

  readonly webhooks = {
    list: (): Promise<Webhook[]> => this.#list('/webhooks', Webhook),
    /** The answer is the only one that holds the secret. */
    create: (webhook: NewWebhook): Promise<WebhookWithSecret> =>
      this.#request('POST', '/webhooks', WebhookWithSecret, webhook),
    /** Deliveries are signed with the old secret too while they overlap. */
    rotateSecret: (id: string, rotation: Rotation = {}): Promise<WebhookWithSecret> =>
      this.#request('POST', path`/webhooks/${id}/rotate-secret`, WebhookWithSecret, rotation),
    remove: (id: string): Promise<void> => this.#send('DELETE', path`/webhooks/${id}`),
    /** Newest first. */
    deliveries: (id: string): Promise<WebhookDelivery[]> =>
      this.#list(path`/webhooks/${id}/deliveries`, WebhookDelivery),
  };

  readonly alarms = {
    /** Newest first. @param query as the API takes it */
    list: (query: Readonly<Record<string, string>> = {}): Promise<Alarm[]> =>
      this.#request('GET', `/alarms?${new URLSearchParams(query)}`, Page(Alarm)).then(({ items }) => items),
    get: (id: string): Promise<Alarm> => this.#request('GET', path`/alarms/${id}`, Alarm),
    acknowledge: (id: string): Promise<Alarm> =>
      this.#request('POST', path`/alarms/${id}/acknowledge`, Alarm),
    resolve: (id: string): Promise<Alarm> => this.#request('POST', path`/alarms/${id}/resolve`, Alarm),
    settings: (): Promise<AlarmSettings> => this.#request('GET', '/alarms/settings', AlarmSettings),
    /** Changes those that are given. */
    changeSettings: (settings: AlarmSettingsChange): Promise<AlarmSettings> =>
      this.#request('PATCH', '/alarms/settings', AlarmSettings, settings),
    /** Sends one that is none; its deliveries are those of the webhooks. */
    test: (): Promise<AlarmTest> => this.#request('POST', '/alarms/test', AlarmTest),
  };

  readonly logs = {
    /** The newest that match, oldest first. */
    list: (query: LogQuery = {}): Promise<LogLine[]> => this.#list(`/logs?${logQuery(query)}`, LogLine),
    /**
     * Calls `onLine` with what matches and with what comes, each once, until `signal` aborts; tries again for ever where the coordinator
     * goes away.
     */
    follow: async (query: LogQuery, onLine: (line: LogLine) => void, signal: AbortSignal): Promise<void> => {
      let lastId: number | undefined;
      await this.#watch(
        `/logs?${logQuery(query)}`,
        LogLine,
        (line) => {
          lastId = line.id;
          onLine(line);
        },
        signal,
        undefined,
        () => (lastId === undefined ? {} : { 'last-event-id': String(lastId) }),
      );
    },
  };

  readonly viewingTokens = {
    list: (): Promise<ViewingToken[]> => this.#list('/viewing-tokens', ViewingToken, true),
    /** The answer is the only one that holds the token. */
    create: (token: NewViewingToken): Promise<ViewingTokenWithSecret> =>
      this.#request('POST', '/viewing-tokens', ViewingTokenWithSecret, token),
    revoke: (id: string): Promise<void> => this.#send('DELETE', path`/viewing-tokens/${id}`),
    /** New tokens are signed with a new key; those that are out stay valid until they expire. */
    rotateKey: (): Promise<void> => this.#send('POST', '/viewing-tokens/rotate-key'),
  };

  readonly viewers = {
    /** @param channel all channels when undefined */
    list: (channel?: string): Promise<ViewerList> =>
      this.#request(
        'GET',
        channel === undefined ? '/viewers' : path`/viewers?channel=${channel}`,
        ViewerList,
      ),
    /** The last so many sessions, those that began last first. @param channel all channels when undefined */
    sessions: async (limit: number, channel?: string): Promise<ViewerSession[]> => {
      const of = channel === undefined ? '' : path`&channel=${channel}`;
      const page = await this.#request('GET', `/viewer-sessions?limit=${limit}${of}`, Items(ViewerSession));
      return page.items;
    },
    /** Shows a viewer out. */
    kick: (id: string): Promise<void> => this.#send('DELETE', path`/viewers/${id}`),
  };

  /** What viewers may see; needs no token, but a viewing token for private channels. */
  readonly publicChannels = {
    list: (): Promise<PublicChannel[]> => this.#list('/public/channels', PublicChannel),
    get: (name: string): Promise<PublicChannel> =>
      this.#request('GET', path`/public/channels/${name}`, PublicChannel),
  };

  readonly nodes = {
    list: (): Promise<Node[]> => this.#list('/nodes', Node, true),
    get: (name: string): Promise<Node> => this.#request('GET', path`/nodes/${name}`, Node),
    /** It gets nothing new. */
    cordon: (name: string): Promise<Node> => this.#request('POST', path`/nodes/${name}/cordon`, Node),
    /** It works again, whatever kept it from that. */
    uncordon: (name: string): Promise<Node> => this.#request('POST', path`/nodes/${name}/uncordon`, Node),
    /** It hands over what it has. */
    drain: (name: string): Promise<Node> => this.#request('POST', path`/nodes/${name}/drain`, Node),
    /** It hands over what it has and ends, for its supervisor to start it again. */
    restart: (name: string): Promise<Node> => this.#request('POST', path`/nodes/${name}/restart`, Node),
    remove: (name: string): Promise<void> => this.#send('DELETE', path`/nodes/${name}`),
    invitations: (): Promise<NodeInvitation[]> => this.#list('/node-invitations', NodeInvitation, true),
    /** The answer is the only one that holds the token. */
    invite: (invitation: NewNodeInvitation): Promise<NodeInvitationWithToken> =>
      this.#request('POST', '/node-invitations', NodeInvitationWithToken, invitation),
    withdraw: (id: string): Promise<void> => this.#send('DELETE', path`/node-invitations/${id}`),
    /** Needs no token but the one of the invitation. */
    join: (request: JoinRequest): Promise<Node> => this.#request('POST', '/node/join', Node, request),
  };

  /** Which backends run what. */
  leases(): Promise<HeldLease[]> {
    return this.#list('/leases', HeldLease);
  }

  status(): Promise<CoordinatorStatus> {
    return this.#request('GET', '/status', CoordinatorStatus);
  }

  /** All that the coordinator keeps, compressed; `starling restore` takes it. */
  async backup(): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#fetchApi(
      'GET',
      '/backup',
      undefined,
      AbortSignal.timeout(BACKUP_TIMEOUT_MS),
    );
    return response.body ?? new Blob([]).stream();
  }

  /** Needs the node token, like all that follows. */
  reportImport(assetId: string, report: ImportReport): Promise<void> {
    return this.#send('POST', path`/backend/imports/${assetId}`, report);
  }

  reportFolder(folderId: string, report: FolderReport): Promise<void> {
    return this.#send('POST', path`/backend/folders/${folderId}`, report);
  }

  reportHealth(health: NodeHealth): Promise<void> {
    return this.#send('POST', '/node/health', health);
  }

  shipLogs(batch: LogBatch): Promise<void> {
    return this.#send('POST', '/node/logs', batch);
  }

  reportBackend(report: BackendReport): Promise<void> {
    return this.#send('POST', '/backend/report', report);
  }

  /** Renews the leases of a node, takes what is free, and releases what is not named. */
  renewLeases(nodeId: string, leases: readonly LeaseWish[]): Promise<LeaseGrants> {
    return this.#request('PUT', path`/leases/${nodeId}`, LeaseGrants, { leases }, LEASE_TIMEOUT_MS);
  }

  releaseLeases(nodeId: string): Promise<void> {
    return this.#send('DELETE', path`/leases/${nodeId}`, undefined, LEASE_TIMEOUT_MS);
  }

  reportRecordings(report: RecordingReport): Promise<void> {
    return this.#send('POST', '/backend/recordings', report);
  }

  reportFrontend(report: FrontendReport): Promise<FrontendReportAnswer> {
    return this.#request('POST', '/frontend/report', FrontendReportAnswer, report);
  }

  reportNode(report: NodeReport): Promise<void> {
    return this.#send('POST', '/node/report', report);
  }

  /** Follows the nodes of the network; see `#watch`. @param revision of the fleet that is known already */
  watchFleet(revision: number | undefined, ...how: WatchParameters<Fleet>): Promise<void> {
    const [onState, signal, onRetry] = how;
    let known = revision;
    const keep = (fleet: Fleet) => {
      known = fleet.revision;
      onState(fleet);
    };
    // Of the fleet that is known already, which then need not come again.
    const headers = () => (known === undefined ? {} : { 'last-event-id': String(known) });
    return this.#watch('/node/watch', Fleet, keep, signal, onRetry, headers);
  }

  /** Follows what a backend needs to know; see `#watch`. */
  watchBackendState(...how: WatchParameters<BackendState>): Promise<void> {
    return this.#watch('/backend/watch', BackendState, ...how);
  }

  /** Follows what a frontend needs to know; see `#watch`. */
  watchFrontendState(...how: WatchParameters<FrontendState>): Promise<void> {
    return this.#watch('/frontend/watch', FrontendState, ...how);
  }

  /**
   * Follows a state: calls `onState` with the present one at once and after each change. When the
   * coordinator cannot be reached it tries again, for ever, with jitter and a cap.
   * @returns when `signal` aborts
   */
  async #watch<T extends TSchema>(
    apiPath: string,
    schema: T,
    ...[onState, signal, onRetry = () => undefined, headers = () => ({})]: WatchParameters<Static<T>>
  ): Promise<void> {
    let attempt = 0;
    while (!signal.aborted) {
      let reason: unknown = new ApiError({
        code: 'UNREACHABLE',
        status: 0,
        detail: 'The coordinator ended the watch.',
      });
      try {
        await this.#followOnce(
          apiPath,
          (data) => {
            const state = data === '' ? undefined : checked(schema, JSON.parse(data));
            attempt = 0;
            if (state !== undefined) onState(state);
          },
          signal,
          headers(),
        );
      } catch (error) {
        reason = error;
      }
      if (signal.aborted) return;
      const delayMs = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt++) * (0.5 + Math.random() / 2);
      onRetry(reason, delayMs);
      await sleep(delayMs, signal);
    }
  }

  /**
   * One connection of a watch. Event format: WHATWG HTML, 9.2.
   * @param onData gets the data of each event; empty for one that only says that the connection lives
   */
  async #followOnce(
    apiPath: string,
    onData: (data: string) => void,
    signal: AbortSignal,
    headers: Readonly<Record<string, string>>,
  ): Promise<void> {
    const silence = new AbortController();
    const abort = () => silence.abort(signal.reason);
    signal.addEventListener('abort', abort);
    let silenceTimer: ReturnType<typeof setTimeout> | undefined;
    const expectMore = () => {
      clearTimeout(silenceTimer);
      silenceTimer = setTimeout(
        () => silence.abort(new Error('The coordinator went silent.')),
        WATCH_SILENCE_MS,
      );
    };
    try {
      expectMore();
      const response = await this.#fetchApi('GET', apiPath, undefined, silence.signal, {
        accept: 'text/event-stream',
        ...headers,
      });
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      let unparsed = '';
      for (;;) {
        const { done, value } = (await reader?.read()) ?? { done: true };
        if (done || value === undefined) return;
        expectMore();
        unparsed += value;
        if (unparsed.length > MAX_EVENT_CHARS) throw new Error('The coordinator sent an event without end.');
        const events = unparsed.split('\n\n');
        unparsed = events.pop() ?? '';
        for (const event of events) {
          const data = event
            .split('\n')
            .filter((line) => line.startsWith('data:'))
            .map((line) => line.slice('data:'.length))
            .join('\n');
          onData(data);
        }
      }
    } finally {
      clearTimeout(silenceTimer);
      signal.removeEventListener('abort', abort);
      silence.abort();
    }
  }

  /** Of a list that comes in pages, all of them. */
  async #list<T extends TSchema>(apiPath: string, item: T, isPaged = false): Promise<Static<T>[]> {
    if (!isPaged) return (await this.#request('GET', apiPath, Items(item))).items;
    const all: Static<T>[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const query = new URLSearchParams({ limit: '1000', ...(cursor === '' ? {} : { cursor }) });
      const page: { items: Static<T>[]; nextCursor: string | null } = await this.#request(
        'GET',
        `${apiPath}?${query}`,
        Page(item),
      );
      for (const one of page.items) all.push(one);
      cursor = page.nextCursor;
    }
    return all;
  }

  async #request<T extends TSchema>(
    method: string,
    apiPath: string,
    schema: T,
    body?: unknown,
    timeoutMs = REQUEST_TIMEOUT_MS,
  ): Promise<Static<T>> {
    const response = await this.#fetchApi(method, apiPath, body, AbortSignal.timeout(timeoutMs));
    return checked(schema, await response.json());
  }

  async #send(
    method: string,
    apiPath: string,
    body?: unknown,
    timeoutMs = REQUEST_TIMEOUT_MS,
  ): Promise<void> {
    const response = await this.#fetchApi(method, apiPath, body, AbortSignal.timeout(timeoutMs));
    await response.body?.cancel();
  }

  /**
   * @param body sent as JSON, a text as it is
   * @returns an answer of success
   */
  async #fetchApi(
    method: string,
    apiPath: string,
    body: unknown,
    signal: AbortSignal,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Response> {
    let response: Response;
    const token = typeof this.#token === 'function' ? await this.#token() : this.#token;
    try {
      response = await this.#fetch(`${this.#baseUrl}/api/v1${apiPath}`, {
        method,
        signal,
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      });
    } catch (error) {
      throw new ApiError(
        { code: 'UNREACHABLE', status: 0, detail: `The coordinator at ${this.#baseUrl} does not answer.` },
        { cause: error },
      );
    }
    if (response.ok) return response;
    const problem: unknown = await response.json().catch(() => undefined);
    if (Check(Problem, problem)) throw new ApiError(problem);
    throw new ApiError({
      code: 'UNEXPECTED_ANSWER',
      status: response.status,
      detail: `The coordinator at ${this.#baseUrl} answered ${response.status} without saying why.`,
    });
  }
}

/** A schedule as a file that people write. */
export type ScheduleFormat = 'yaml' | 'csv';
const scheduleMediaTypes: Record<ScheduleFormat, string> = { yaml: 'application/yaml', csv: 'text/csv' };

function logQuery(query: LogQuery): URLSearchParams {
  return new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
}

function effectiveQuery(effective: Effective | undefined): string {
  return effective === undefined ? '' : `?effective=${effective}`;
}

/** Builds a path; values are escaped. */
function path(parts: TemplateStringsArray, ...values: string[]): string {
  return parts.map((part, index) => part + encodeURIComponent(values[index] ?? '')).join('');
}

function checked<T extends TSchema>(schema: T, value: unknown): Static<T> {
  if (Check(schema, value)) return value;
  throw new ApiError({
    code: 'UNEXPECTED_ANSWER',
    status: 200,
    detail: 'The coordinator answered in a form that this version does not know. Are both of one version?',
  });
}

/** Resolves after `ms`, or as soon as `signal` aborts. */
function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    signal.addEventListener('abort', wake);
  });
}
