/**
 * The configuration file of a single role (`starling frontend --config starling.yaml`). Secrets are
 * never in it: it names the files that hold them.
 */
import { type Static, Type } from 'typebox';
import { DEFAULT_ORIGIN_COUNT } from './distribution.ts';

/** Of one machine. */
export const MAX_WORKERS = 256;

const Port = Type.Integer({ minimum: 0, maximum: 65_535, description: '0 takes a free port' });
const Host = Type.Optional(Type.String({ description: 'Address to listen on; all of them when left out' }));
const SecretFile = Type.String({ description: 'File that holds the secret, and nothing else' });

const Coordinator = Type.Object(
  {
    url: Type.String(),
    tokenFile: Type.Optional(
      Type.String({
        description:
          'File that holds the token that nodes share. Left out, this is a node with a key of its own, in dataDir, which joins by invitation',
      }),
    ),
    name: Type.Optional(
      Type.String({
        description: 'Of the node, where its invitation names none; after the machine when left out',
      }),
    ),
    advertise: Type.Optional(
      Type.String({
        description:
          'Name or address at which the other nodes reach this machine; left out, the one that it reaches the coordinator from; `auto`, its only one beside loopback and link-local',
      }),
    ),
  },
  { additionalProperties: false },
);

export type NodeCoordinator = Static<typeof Coordinator>;

export const FrontendSection = Type.Object(
  {
    http: Type.Object(
      {
        host: Host,
        port: Port,
        trustedProxies: Type.Optional(
          Type.Array(Type.String(), {
            description:
              'CIDR blocks of balancers: they say whose requests they bring, and have no limits. Loopback always is one',
          }),
        ),
        maxConnectionsPerAddress: Type.Optional(Type.Integer({ minimum: 1 })),
        maxRequestsPerSecondPerAddress: Type.Optional(Type.Integer({ minimum: 1 })),
      },
      { additionalProperties: false },
    ),
    rtmp: Type.Object({ host: Host, port: Port }, { additionalProperties: false }),
    publishTokenFile: Type.Optional(
      Type.String({
        description:
          'File that holds what backends with no key of their own have to show; left out, only nodes of the network may push',
      }),
    ),
    coordinator: Type.Optional(Coordinator),
    dataDir: Type.Optional(
      Type.String({
        description:
          'Keeps what the coordinator said last, for a start while it is gone, and the key of the node',
      }),
    ),
    workers: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: MAX_WORKERS,
        default: 1,
        description:
          'Processes that share the HTTP port. Each takes pushes on an RTMP port of its own: the one above, and those after it',
      }),
    ),
    dvr: Type.Optional(
      Type.Object(
        {
          dir: Type.String({ description: 'Folder; frontends of one machine may share it' }),
          hours: Type.Optional(
            Type.Number({
              exclusiveMinimum: 0,
              maximum: 24,
              description: 'How far back viewers can go; 2 when left out',
            }),
          ),
          maxBytes: Type.Optional(
            Type.Integer({ minimum: 0, description: 'Of all channels together; 20 GiB when left out' }),
          ),
        },
        { additionalProperties: false, description: 'Records what was on; nothing when left out' },
      ),
    ),
  },
  { additionalProperties: false, description: 'Serves channels to viewers' },
);
export type FrontendSection = Static<typeof FrontendSection>;

export const BackendSection = Type.Object(
  {
    dataDir: Type.String(),
    mediaDir: Type.Optional(
      Type.String({
        description: 'The library, which all backends of a network share; `media` in dataDir when left out',
      }),
    ),
    recordingsDir: Type.Optional(
      Type.String({
        description:
          'Folder of recordings that backends share, each with a folder of its own in it; `recordings` in dataDir when left out',
      }),
    ),
    rtmp: Type.Object({ host: Host, port: Port }, { additionalProperties: false }),
    rtmps: Type.Optional(
      Type.Object(
        {
          port: Port,
          certificateFile: Type.Optional(Type.String({ description: 'PEM; self-signed when left out' })),
          privateKeyFile: Type.Optional(Type.String({ description: 'PEM' })),
        },
        { additionalProperties: false, description: 'RTMP over TLS, for encoders' },
      ),
    ),
    leaseDir: Type.Optional(
      Type.String({
        description:
          'Folder in which backends of one machine agree on who runs which channel; left out, the coordinator says',
      }),
    ),
    coordinator: Coordinator,
    frontends: Type.Optional(
      Type.Array(
        Type.Object(
          { host: Type.String(), port: Port, publishTokenFile: SecretFile },
          { additionalProperties: false },
        ),
        { description: 'Those that are no nodes of the network: nodes are found by themselves' },
      ),
    ),
  },
  { additionalProperties: false, description: 'Makes channels and pushes them to the frontends' },
);
export type BackendSection = Static<typeof BackendSection>;

const Values = Type.Optional(Type.Array(Type.String(), { minItems: 1 }));

export const OidcSection = Type.Object(
  {
    issuer: Type.String({ pattern: '^https?://[^\\s]+$', description: 'https, or http on this machine' }),
    clientId: Type.String({ minLength: 1 }),
    clientSecretFile: SecretFile,
    siteUrl: Type.String({ pattern: '^https?://[^\\s]+$', description: 'Where people reach the site' }),
    label: Type.Optional(Type.String({ description: "On the button; the issuer's host when left out" })),
    roleClaim: Type.Optional(
      Type.String({ default: 'groups', description: 'Dots lead inwards, as in realm_access.roles' }),
    ),
    roles: Type.Object(
      { operator: Values, editor: Values, streamer: Values, viewer: Values },
      { additionalProperties: false, description: 'Which values of the claim make somebody what' },
    ),
    defaultRole: Type.Optional(
      Type.Union([Type.Literal('editor'), Type.Literal('streamer'), Type.Literal('viewer')], {
        description: 'Of everybody else over there; nobody else is let in when left out',
      }),
    ),
    scopes: Type.Optional(
      Type.Array(Type.String(), {
        default: ['openid', 'profile', 'email'],
        contains: Type.Literal('openid'),
      }),
    ),
  },
  { additionalProperties: false, description: 'Logging in with OpenID Connect, beside passwords' },
);
export type OidcSection = Static<typeof OidcSection>;

export const CoordinatorSection = Type.Object(
  {
    dataDir: Type.String(),
    mediaDir: Type.Optional(
      Type.String({
        description:
          "The backends' library, where posters and subtitles are read from; `media` in dataDir when left out",
      }),
    ),
    recordingsDir: Type.Optional(
      Type.String({ description: "The backends' recordings; `recordings` in dataDir when left out" }),
    ),
    http: Type.Object(
      { host: Type.String({ default: '127.0.0.1' }), port: Port },
      { additionalProperties: false },
    ),
    operatorTokenFile: SecretFile,
    nodeTokenFile: SecretFile,
    group: Type.Optional(
      Type.Boolean({
        default: false,
        description:
          'Hosts that are made alike come and go, each with a coordinator on one database server: nodes join with the token of nodeTokenFile instead of an invitation, and are removed when they end for good, or have been lost for an hour',
      }),
    ),
    rtmpUrl: Type.Optional(
      Type.String({
        description:
          "Server address that encoders are told, such as rtmp://tv.example.org/live: the balancer's or a backend's",
      }),
    ),
    distribution: Type.Optional(
      Type.Union([Type.Literal('all'), Type.Literal('on-demand')], {
        default: 'all',
        description:
          'Every channel to every frontend that has joined; or to a few of them, and the others pull it while somebody watches there',
      }),
    ),
    originsPerChannel: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 16,
        default: DEFAULT_ORIGIN_COUNT,
        description: 'With distribution on-demand: frontends that each channel is pushed to',
      }),
    ),
    databaseUrlFile: Type.Optional(
      Type.String({
        description:
          'File with the address of a PostgreSQL server, postgres://USER:PASSWORD@HOST:PORT/DATABASE; when left out, $DATABASE_URL, or a database in dataDir',
      }),
    ),
    redisUrlFile: Type.Optional(
      Type.String({
        description:
          'File with the address of a Redis server, redis://USER:PASSWORD@HOST:PORT; when left out, $REDIS_URL, or none',
      }),
    ),
    smtpUrlFile: Type.Optional(
      Type.String({
        description:
          'File with the address of a server for e-mails, smtps://USER:PASSWORD@HOST:PORT?from=ADDRESS; when left out, $SMTP_URL, or none are sent',
      }),
    ),
    oidc: Type.Optional(OidcSection),
  },
  { additionalProperties: false, description: 'REST API, database and site' },
);
export type CoordinatorSection = Static<typeof CoordinatorSection>;

/** What goes into nginx's configuration as it is: nothing that could end a directive there. */
const ServedName = Type.String({ pattern: '^(\\*\\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,249}[A-Za-z0-9])?$' });
const NodeHost = Type.String({
  pattern: '^[A-Za-z0-9:]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$',
  description: 'Name or IP address',
});
const Cidr = Type.String({ pattern: '^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$' });
const OpenPort = Type.Integer({ minimum: 1, maximum: 65_535 });
const Listen = (description: string) =>
  Type.Object(
    {
      host: Type.Optional(
        Type.String({ pattern: '^[0-9A-Fa-f.:]+$', description: 'IP address; all of them when left out' }),
      ),
      port: OpenPort,
    },
    { additionalProperties: false, description },
  );

export const BalancerSection = Type.Object(
  {
    dataDir: Type.String({ description: "Certificates, nginx's files, the cache, the access log" }),
    names: Type.Array(ServedName, {
      minItems: 1,
      description:
        'Hosts that are served; others are refused. *.example.org needs route53 or your own certificate',
    }),
    http: Type.Optional(Listen('Redirects; port 80 when left out')),
    https: Type.Optional(Listen('Port 443 when left out')),
    rtmp: Type.Optional(Listen("Passed on to the backends' RTMP ports")),
    rtmps: Type.Optional(Listen("Passed on to the backends' RTMPS ports")),
    coordinator: Type.Optional(Coordinator),
    frontends: Type.Optional(
      Type.Array(
        Type.Object({ host: NodeHost, port: OpenPort }, { additionalProperties: false, description: 'HTTP' }),
        {
          description:
            'Those that are no nodes of the network: a balancer with a coordinator finds nodes by itself',
        },
      ),
    ),
    backends: Type.Optional(
      Type.Array(
        Type.Object(
          { host: NodeHost, rtmpPort: Type.Optional(OpenPort), rtmpsPort: Type.Optional(OpenPort) },
          { additionalProperties: false },
        ),
      ),
    ),
    site: Type.Optional(
      Type.Object(
        { host: NodeHost, port: OpenPort },
        {
          additionalProperties: false,
          description: 'The coordinator, for the site and the API; 404 when left out',
        },
      ),
    ),
    balance: Type.Optional(
      Type.Union([Type.Literal('least-connections'), Type.Literal('round-robin')], {
        default: 'least-connections',
      }),
    ),
    acme: Type.Optional(
      Type.Object(
        {
          directoryUrl: Type.Optional(Type.String({ description: "Let's Encrypt when left out" })),
          email: Type.Optional(Type.String()),
          directoryCaFile: Type.Optional(
            Type.String({ description: "PEM of a private authority's root; the system's when left out" }),
          ),
          route53: Type.Optional(
            Type.Object(
              {
                hostedZoneId: Type.Optional(
                  Type.String({
                    pattern: '^[A-Z0-9]{1,32}$',
                    description: 'Found by the name when left out',
                  }),
                ),
              },
              {
                additionalProperties: false,
                description: 'Names are proven with DNS records at Amazon Route 53; over HTTP when left out',
              },
            ),
          ),
        },
        {
          additionalProperties: false,
          description:
            'Certificates from an authority, whose terms this agrees to; self-signed when left out',
        },
      ),
    ),
    certificate: Type.Optional(
      Type.Object(
        { certificateFile: Type.String(), privateKeyFile: Type.String() },
        { additionalProperties: false, description: 'PEM, of your own, instead of ACME' },
      ),
    ),
    hstsSeconds: Type.Optional(
      Type.Integer({
        minimum: 0,
        default: 63_072_000,
        description: '0 for none; never sent with a self-signed certificate',
      }),
    ),
    trustedProxies: Type.Optional(
      Type.Array(Cidr, { description: 'CIDR blocks of proxies in front, whose X-Forwarded-For is believed' }),
    ),
    maxConnectionsPerAddress: Type.Optional(Type.Integer({ minimum: 1, default: 1000 })),
    maxRequestsPerSecondPerAddress: Type.Optional(Type.Integer({ minimum: 1, default: 1000 })),
    cacheMaxBytes: Type.Optional(Type.Integer({ minimum: 1024 * 1024, default: 1_073_741_824 })),
    /** Of the agent itself: /healthz, /readyz and /metrics. */
    health: Type.Optional(Type.Object({ host: Host, port: Port }, { additionalProperties: false })),
    nginx: Type.Optional(
      Type.Object(
        {
          program: Type.Optional(Type.String({ description: 'nginx, found in PATH, when left out' })),
          user: Type.Optional(
            Type.String({
              pattern: '^[a-z_][a-z0-9_-]*$',
              description: 'Of the workers, when started as root; www-data when left out',
            }),
          ),
        },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false, description: 'Keeps nginx in front of the fleet' },
);
export type BalancerSection = Static<typeof BalancerSection>;

/** One file may serve several roles: each reads its own section. */
export const StarlingConfig = Type.Object(
  {
    frontend: Type.Optional(FrontendSection),
    backend: Type.Optional(BackendSection),
    coordinator: Type.Optional(CoordinatorSection),
    balancer: Type.Optional(BalancerSection),
  },
  { additionalProperties: false, $id: 'https://starling.example/schema/starling.json' },
);
export type StarlingConfig = Static<typeof StarlingConfig>;
