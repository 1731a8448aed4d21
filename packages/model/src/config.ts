/**
 * The configuration file of a single role (`starling frontend --config starling.yaml`). Secrets are
 * never in it: it names the files that hold them.
 */
import { type Static, Type } from 'typebox';

const Port = Type.Integer({ minimum: 0, maximum: 65_535, description: '0 takes a free port' });
const Host = Type.Optional(Type.String({ description: 'Address to listen on; all of them when left out' }));
const SecretFile = Type.String({ description: 'File that holds the secret, and nothing else' });

export const FrontendSection = Type.Object(
  {
    http: Type.Object({ host: Host, port: Port }, { additionalProperties: false }),
    rtmp: Type.Object({ host: Host, port: Port }, { additionalProperties: false }),
    publishTokenFile: SecretFile,
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
    coordinator: Type.Object({ url: Type.String(), tokenFile: SecretFile }, { additionalProperties: false }),
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
