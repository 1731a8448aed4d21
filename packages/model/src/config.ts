/**
 * The configuration file of a single role (`starling frontend --config starling.yaml`). Secrets are
 * never in it: it names the files that hold them.
 */
import { type Static, Type } from 'typebox';

/** Of one machine. */
export const MAX_WORKERS = 256;

const Port = Type.Integer({ minimum: 0, maximum: 65_535, description: '0 takes a free port' });
const Host = Type.Optional(Type.String({ description: 'Address to listen on; all of them when left out' }));
const SecretFile = Type.String({ description: 'File that holds the secret, and nothing else' });

const Coordinator = Type.Object(
  { url: Type.String(), tokenFile: SecretFile },
  { additionalProperties: false },
);

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
    publishTokenFile: SecretFile,
    coordinator: Type.Optional(Coordinator),
    dataDir: Type.Optional(
      Type.String({ description: 'Keeps what the coordinator said last, for a start while it is gone' }),
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
    coordinator: Coordinator,
    frontends: Type.Array(
      Type.Object(
        { host: Type.String(), port: Port, publishTokenFile: SecretFile },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false, description: 'Makes channels and pushes them to the frontends' },
);
export type BackendSection = Static<typeof BackendSection>;

export const CoordinatorSection = Type.Object(
  {
    dataDir: Type.String(),
    http: Type.Object(
      { host: Type.String({ default: '127.0.0.1' }), port: Port },
      { additionalProperties: false },
    ),
    operatorTokenFile: SecretFile,
    nodeTokenFile: SecretFile,
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
  },
  { additionalProperties: false, description: 'REST API, database and site' },
);
export type CoordinatorSection = Static<typeof CoordinatorSection>;

/** One file may serve several roles: each reads its own section. */
export const StarlingConfig = Type.Object(
  {
    frontend: Type.Optional(FrontendSection),
    backend: Type.Optional(BackendSection),
    coordinator: Type.Optional(CoordinatorSection),
  },
  { additionalProperties: false, $id: 'https://starling.example/schema/starling.json' },
);
export type StarlingConfig = Static<typeof StarlingConfig>;
