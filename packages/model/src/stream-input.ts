/**
 * Where a stream's pictures come from: an encoder that publishes to us over RTMP or SRT, or an address that
 * the backend pulls from. Such addresses hold passwords, so there is a form of them for people to see.
 */
import { type Static, Type } from 'typebox';

/** What may be pulled. Nothing here reads the backend's files. */
export const PULL_SCHEMES = ['http', 'https', 'rtmp', 'rtmps', 'rtsp', 'rtsps', 'srt', 'udp'] as const;
export type PullScheme = (typeof PULL_SCHEMES)[number];

const Port = Type.Integer({ minimum: 1, maximum: 65_535 });

/** Asks for an input. */
export const NewStreamInput = Type.Union([
  Type.Object({ type: Type.Literal('rtmp') }, { additionalProperties: false }),
  Type.Object({ type: Type.Literal('srt-listener'), port: Port }, { additionalProperties: false }),
  Type.Object(
    {
      type: Type.Literal('pull'),
      url: Type.String({ minLength: 1, maxLength: 2048, examples: ['srt://studio.example:9000'] }),
    },
    { additionalProperties: false },
  ),
]);
export type NewStreamInput = Static<typeof NewStreamInput>;

/** An input as the backend needs it, secrets included. */
export const StreamInput = Type.Union([
  Type.Object({ type: Type.Literal('rtmp') }),
  Type.Object({
    type: Type.Literal('srt-listener'),
    port: Port,
    /** Senders must have the same (SRT: 10 to 79 characters). */
    passphrase: Type.String({ minLength: 10, maxLength: 79 }),
  }),
  Type.Object({ type: Type.Literal('pull'), url: Type.String() }),
]);
export type StreamInput = Static<typeof StreamInput>;

/** An input as the API shows it, without secrets. */
export const ShownStreamInput = Type.Union([
  Type.Object({ type: Type.Literal('rtmp') }),
  Type.Object({ type: Type.Literal('srt-listener'), port: Port }),
  /** The address up to its host: what follows may hold keys. */
  Type.Object({ type: Type.Literal('pull'), address: Type.String() }),
]);
export type ShownStreamInput = Static<typeof ShownStreamInput>;

/** Presets of x264 that a machine can keep up with. */
export const LivePreset = Type.Union([
  Type.Literal('ultrafast'),
  Type.Literal('superfast'),
  Type.Literal('veryfast'),
  Type.Literal('faster'),
  Type.Literal('fast'),
  Type.Literal('medium'),
]);
export type LivePreset = Static<typeof LivePreset>;

/** x264, or the hardware that FFmpeg has an encoder for. */
export const LiveEncoderName = Type.Union([
  Type.Literal('x264'),
  Type.Literal('nvenc'),
  Type.Literal('qsv'),
  Type.Literal('vaapi'),
  Type.Literal('videotoolbox'),
]);
export type LiveEncoderName = Static<typeof LiveEncoderName>;

/**
 * The stream is transcoded to the house format: its channel then changes between it and the schedule without
 * a discontinuity. With hardware the parameter sets are others, and there is one.
 */
export const Transcode = Type.Object(
  { preset: LivePreset, encoder: LiveEncoderName },
  { additionalProperties: false },
);
export type Transcode = Static<typeof Transcode>;

/** Leaves out all that may be secret. */
export function withoutSecrets(input: StreamInput): ShownStreamInput {
  switch (input.type) {
    case 'rtmp':
      return { type: 'rtmp' };
    case 'srt-listener':
      return { type: 'srt-listener', port: input.port };
    case 'pull':
      return { type: 'pull', address: parsePullUrl(input.url)?.shown ?? 'invalid' };
  }
}

/**
 * Reads an address to pull from.
 * @returns its scheme, and what may be shown of it: scheme, host and port; undefined where it is not an
 *   address, or of a scheme that is not pulled
 */
export function parsePullUrl(url: string): { scheme: PullScheme; shown: string } | undefined {
  if (/[\s\p{Cc}]/u.test(url)) return undefined;
  const [, name, authority = ''] = /^([a-z]+):\/\/([^/?#]*)/i.exec(url) ?? [];
  const scheme = PULL_SCHEMES.find((known) => known === name?.toLowerCase());
  const host = authority.slice(authority.lastIndexOf('@') + 1);
  if (scheme === undefined || host === '') return undefined;
  return { scheme, shown: `${scheme}://${host}` };
}
