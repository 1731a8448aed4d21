import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { concatBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';
import type { FlvMessage } from '../flv/tag.ts';
import { Amf0EcmaArray, type Amf0Value, decodeAmf0, encodeAmf0 } from './amf0.ts';
import { ChunkReader, ChunkWriter } from './chunk.ts';
import {
  type ControlMessage,
  parseControlMessage,
  type RtmpMessage,
  serializeControlMessage,
} from './message.ts';
import {
  type ClientSessionEvent,
  RtmpClientSession,
  RtmpServerSession,
  type ServerSessionEvent,
} from './session.ts';

const RANDOM = new Uint8Array(1528).fill(0x5a);
const MAX_MESSAGE_BYTES = 1_000_000;
const newServer = (maxMessageBytes = MAX_MESSAGE_BYTES) =>
  new RtmpServerSession({ handshakeRandomBytes: RANDOM, maxMessageBytes });
const newClient = (mode: 'publish' | 'play', streamName = 'cam?key=K') =>
  new RtmpClientSession({
    mode,
    tcUrl: 'rtmp://localhost/live',
    app: 'live',
    streamName,
    handshakeRandomBytes: RANDOM,
    maxMessageBytes: MAX_MESSAGE_BYTES,
  });

const video = (timestampMs: number, ...payload: number[]): FlvMessage => ({
  kind: 'video',
  timestampMs,
  payload: Uint8Array.from(payload),
});

/** A hand-driven peer: it writes whatever it is told and reads the other side's messages. */
class RawPeer {
  writtenBytes = 0;
  readonly #output: Uint8Array[] = [];
  readonly #writer = new ChunkWriter(this.#output);
  readonly #reader = new ChunkReader({ maxMessageBytes: MAX_MESSAGE_BYTES });

  command(streamId: number, ...values: Amf0Value[]): this {
    return this.message({ typeId: 20, streamId, timestampMs: 0, payload: encodeAmf0(values) });
  }
  message(message: RtmpMessage): this {
    this.#writer.write(8, message);
    return this;
  }
  control(control: ControlMessage): this {
    this.#writer.write(2, serializeControlMessage(control));
    return this;
  }
  chunkSize(sizeBytes: number): this {
    this.#writer.setChunkSize(sizeBytes);
    return this;
  }
  /** What was written since the last call. */
  bytes(): Uint8Array {
    const bytes = concatBytes(this.#output.splice(0));
    this.writtenBytes += bytes.length;
    return bytes;
  }
  /** Commands as their values, after the stream id; control messages as they are. */
  read(bytes: Uint8Array | undefined): (ControlMessage | Amf0Value[])[] {
    return this.#reader
      .push(bytes ?? new Uint8Array(0))
      .map((message) => parseControlMessage(message) ?? [message.streamId, ...decodeAmf0(message.payload)]);
  }
}

const HANDSHAKE = concatBytes([Uint8Array.of(3), new Uint8Array(1536 * 2)]);
const CONNECT = { app: 'live', tcUrl: 'rtmp://localhost/live' };

/** A server session past its handshake, and its peer. */
function opened(maxMessageBytes?: number) {
  const server = newServer(maxMessageBytes);
  expect(server.receive(HANDSHAKE)).toEqual([]);
  expect(server.takeOutput()?.length).toBe(1 + 2 * 1536);
  return { server, peer: new RawPeer() };
}

function connected(properties: Record<string, Amf0Value> = CONNECT, maxMessageBytes?: number) {
  const { server, peer } = opened(maxMessageBytes);
  const events = server.receive(peer.command(0, 'connect', 1, properties).bytes());
  const answers = peer.read(server.takeOutput());
  return { server, peer, events, answers };
}

function publishing() {
  const { server, peer } = connected();
  server.receive(peer.command(1, 'publish', 5, null, 'cam', 'live').bytes());
  server.acceptPublish();
  peer.read(server.takeOutput());
  return { server, peer };
}

function codeOf(action: () => unknown): string | undefined {
  try {
    action();
  } catch (error) {
    if (error instanceof MediaError) return error.code;
    throw error;
  }
  return undefined;
}

/** As Enhanced RTMP v2 spells them. */
const FOUR_CCS = ['avc1', 'hvc1', 'av01', 'vp09', 'mp4a', 'Opus', 'fLaC', 'ac-3', 'ec-3', '.mp3'];

describe('server: connect', () => {
  test('the answer', () => {
    const { events, answers, server } = connected();
    expect(events).toEqual([
      { type: 'connect', app: 'live', tcUrl: 'rtmp://localhost/live', fourCcList: [] },
    ]);
    expect(answers).toEqual([
      { type: 'window-acknowledgement-size', sizeBytes: 2_500_000 },
      { type: 'set-peer-bandwidth', sizeBytes: 2_500_000, limit: 'dynamic' },
      [
        0,
        '_result',
        1,
        { fmsVer: 'FMS/3,0,1,123', capabilities: 31 },
        {
          level: 'status',
          code: 'NetConnection.Connect.Success',
          description: 'Connection succeeded.',
          objectEncoding: 0,
        },
      ],
    ]);
    expect(server.state).toEqual({ phase: 'connected' });
  });

  test('what a player can receive, by medium; a star means everything', () => {
    const old = connected().server;
    expect(old.canReceive('video', 'avc1')).toBe(false);
    const listed = connected({ ...CONNECT, fourCcList: ['hvc1'] }).server;
    expect([listed.canReceive('video', 'hvc1'), listed.canReceive('video', 'av01')]).toEqual([true, false]);
    const anything = connected({ ...CONNECT, fourCcList: ['*'] }).server;
    expect([anything.canReceive('video', 'av01'), anything.canReceive('audio', 'Opus')]).toEqual([
      true,
      true,
    ]);
    const mapped = connected({
      ...CONNECT,
      videoFourCcInfoMap: { av01: 1 /* can decode */, hvc1: 2 /* can only encode */ },
      audioFourCcInfoMap: { '*': 4 /* can forward */ },
    }).server;
    expect(['av01', 'hvc1', 'vp09'].map((fourCc) => mapped.canReceive('video', fourCc))).toEqual([
      true,
      false,
      false,
    ]);
    expect(mapped.canReceive('audio', 'fLaC')).toBe(true);
  });

  test('a reconnect request goes to a peer that understands it, and to no other', () => {
    const old = connected();
    expect(old.server.requestReconnect()).toBe(false);
    expect(old.server.takeOutput()).toBeUndefined();

    const { server, peer } = connected({ ...CONNECT, capsEx: 1 /* Reconnect */ });
    expect(server.requestReconnect('rtmp://other/live')).toBe(true);
    expect(server.requestReconnect()).toBe(true);
    const info = { level: 'status', code: 'NetConnection.Connect.ReconnectRequest' };
    expect(peer.read(server.takeOutput() ?? new Uint8Array())).toMatchObject([
      [0, 'onStatus', 0, null, { ...info, tcUrl: 'rtmp://other/live' }],
      [0, 'onStatus', 0, null, info],
    ]);
  });

  test('Enhanced RTMP capabilities are answered when the client has some', () => {
    const { events, answers } = connected({
      ...CONNECT,
      fourCcList: ['hvc1', 'avc1', 7],
      videoFourCcInfoMap: { av01: 1 /* can decode */, vp09: 2 /* can only encode */ },
      audioFourCcInfoMap: { '*': 4 /* can forward */ },
      objectEncoding: 3,
    });
    expect(events).toMatchObject([{ type: 'connect', fourCcList: ['hvc1', 'avc1', 'av01', '*'] }]);
    const enhancements = {
      fourCcList: FOUR_CCS,
      videoFourCcInfoMap: { avc1: 4, hvc1: 4, av01: 4, vp09: 4 },
      audioFourCcInfoMap: { mp4a: 4, Opus: 4, fLaC: 4, 'ac-3': 4, 'ec-3': 4, '.mp3': 4 },
      capsEx: 0x01 | 0x02 | 0x04 | 0x08, // Reconnect, Multitrack, ModEx, TimestampNanoOffset
    };
    expect(answers.at(-1)).toMatchObject([
      0,
      '_result',
      1,
      enhancements,
      { ...enhancements, objectEncoding: 3 },
    ]);
  });

  test.each([
    ['a command before connect', ['createStream', 2, null]],
    ['connect without a command object', ['connect', 1, null]],
    ['a command without a name', [1, 2]],
  ])('%s is refused, and the session is spent', (_, values) => {
    const { server, peer } = opened();
    const bytes = peer.command(0, ...values).bytes();
    expect(codeOf(() => server.receive(bytes))).toBe('RTMP_BAD_COMMAND');
    expect(server.state).toMatchObject({ phase: 'failed', error: { code: 'RTMP_BAD_COMMAND' } });
    expect(codeOf(() => server.receive(new Uint8Array(0)))).toBe('RTMP_BAD_COMMAND');
  });

  test('a second connect is refused', () => {
    const { server, peer } = connected();
    expect(codeOf(() => server.receive(peer.command(0, 'connect', 2, CONNECT).bytes()))).toBe(
      'RTMP_BAD_COMMAND',
    );
  });

  test('something other than RTMP is refused on its first byte', () => {
    expect(codeOf(() => newServer().receive(Uint8Array.of(0x47)))).toBe('RTMP_BAD_VERSION');
  });
});

describe('server: the target of publish', () => {
  const targetOf = (app: Amf0Value, tcUrl: string, name: string) => {
    const { server, peer } = connected({ app, tcUrl });
    const [event] = server.receive(peer.command(1, 'publish', 5, null, name, 'live').bytes());
    if (event?.type !== 'publish') throw new Error('no publish event');
    return [event.target.app, event.target.streamName, Object.fromEntries(event.target.query)];
  };

  test.each([
    [
      'query on the stream name',
      'live',
      'rtmp://h/live',
      'cam?key=K&x=1',
      ['live', 'cam', { key: 'K', x: '1' }],
    ],
    ['query on the app', 'live?key=K', 'rtmp://h/live?key=K', 'cam', ['live', 'cam', { key: 'K' }]],
    ['query on the tcUrl alone', 'live', 'rtmp://h/live?key=K', 'cam', ['live', 'cam', { key: 'K' }]],
    [
      'both; the stream name wins',
      'live?key=A&a=1',
      'rtmp://h/live',
      'cam?key=B',
      ['live', 'cam', { key: 'B', a: '1' }],
    ],
    [
      'the app in the tcUrl alone',
      undefined,
      'rtmp://h:1935/live/?key=K',
      'cam',
      ['live', 'cam', { key: 'K' }],
    ],
    ['slashes at the ends', '/live/', 'rtmp://h/live/', '/cam/', ['live', 'cam', {}]],
    ['an app of two parts', 'live/cam', 'rtmp://h/live/cam', 'KEY', ['live/cam', 'KEY', {}]],
    [
      'percent signs',
      'live',
      'rtmp://h/live',
      'cam?key=a%20b%2Bc+d&%C3%A9=%',
      ['live', 'cam', { key: 'a b+c+d', é: '%' }],
    ],
    [
      'malformed percent signs',
      'live',
      'rtmp://h/live',
      'cam?key=%C3%28',
      ['live', 'cam', { key: '%C3%28' }],
    ],
    [
      'values with equal signs, and none',
      'live',
      'rtmp://h/live',
      'cam?key=a==&flag&=v&',
      ['live', 'cam', { key: 'a==', flag: '' }],
    ],
    ['the first of two', 'live', 'rtmp://h/live', 'cam?key=1&key=2', ['live', 'cam', { key: '1' }]],
    ['nothing', undefined, '', '', ['', '', {}]],
  ])('%s', (_, app, tcUrl, name, expected) => {
    expect(targetOf(app, tcUrl, name)).toEqual(expected);
  });

  test('900,000 slashes within a name take no longer than other letters', () => {
    const name = `a${'/'.repeat(900_000)}b`;
    const startMs = performance.now();
    expect(targetOf('live', '', name)).toEqual(['live', name, {}]);
    expect(performance.now() - startMs).toBeLessThan(5000); // it was five minutes
  });
});

describe('server: publish', () => {
  test.each(['live', 'record', 'append', undefined])('of type %s', (type) => {
    const { server, peer } = connected();
    peer.command(0, 'releaseStream', 2, null, 'cam').command(0, 'FCPublish', 3, null, 'cam');
    peer.command(0, 'createStream', 4, null).command(1, 'publish', 5, null, 'cam', ...(type ? [type] : []));
    expect(server.receive(peer.bytes())).toMatchObject([{ type: 'publish', target: { streamName: 'cam' } }]);
    expect(server.state).toMatchObject({ phase: 'requested' });
    server.acceptPublish();
    expect(server.state).toMatchObject({ phase: 'publishing' });
    expect(peer.read(server.takeOutput())).toEqual([
      [0, '_result', 2, null, undefined],
      [0, '_result', 3, null, undefined],
      [0, '_result', 4, null, 1],
      { type: 'user-control', event: 0, values: [1] }, // StreamBegin
      [
        1,
        'onStatus',
        0,
        null,
        { level: 'status', code: 'NetStream.Publish.Start', description: 'Publishing cam.' },
      ],
    ]);
  });

  test('media in the same bytes as publish, in every wrapper; @setDataFrame is stripped', () => {
    const { server, peer } = connected();
    const metadata = encodeAmf0(['onMetaData', new Amf0EcmaArray({ width: 320 })]);
    const setDataFrame = concatBytes([encodeAmf0(['@setDataFrame']), metadata]);
    const flvTag = [9, 0, 0, 1, 0, 0, 5, 0, 0, 0, 0, 0x27, 0, 0, 0, 12]; // video at 5 ms
    const message = (typeId: number, timestampMs: number, payload: Uint8Array) =>
      peer.message({ typeId, streamId: 1, timestampMs, payload });
    peer.command(1, 'publish', 5, null, 'cam', 'live');
    message(18, 0, setDataFrame);
    message(15, 1, concatBytes([Uint8Array.of(0), setDataFrame]));
    message(18, 2, metadata);
    message(8, 3, Uint8Array.of(0xaf, 1));
    message(9, 0xffffffff, Uint8Array.of(0x17, 1));
    message(22, 100, Uint8Array.from([...flvTag, ...flvTag]));
    message(16, 3, Uint8Array.of(0)); // a shared object means nothing
    peer.message({ typeId: 8, streamId: 2, timestampMs: 9, payload: Uint8Array.of(1) }); // another stream's
    const [publish, ...events] = server.receive(peer.bytes());
    expect(publish?.type).toBe('publish');
    server.acceptPublish();
    expect(events).toEqual(
      [
        { kind: 'data', timestampMs: 0, payload: metadata },
        { kind: 'data', timestampMs: 1, payload: metadata },
        { kind: 'data', timestampMs: 2, payload: metadata },
        { kind: 'audio', timestampMs: 3, payload: Uint8Array.of(0xaf, 1) },
        video(0xffffffff, 0x17, 1),
        video(100, 0x27),
        video(100, 0x27),
      ].map((expected) => ({ type: 'message', message: expected })),
    );
  });

  test('AMF3 commands', () => {
    const { server, peer } = connected();
    const amf3 = (...values: Amf0Value[]) => concatBytes([Uint8Array.of(0), encodeAmf0(values)]);
    const string = Uint8Array.of(0x11, 0x06, 0x07, 0x63, 0x61, 0x6d); // AMF3 "cam"
    const payload = concatBytes([amf3('publish', 5, null), string]);
    peer.message({ typeId: 17, streamId: 1, timestampMs: 0, payload });
    expect(server.receive(peer.bytes())).toMatchObject([{ type: 'publish', target: { streamName: 'cam' } }]);
  });

  test('rejected: the peer is told, its media is dropped, and it may try again', () => {
    const { server, peer } = connected();
    server.receive(peer.command(1, 'publish', 5, null, 'cam?key=bad', 'live').bytes());
    server.rejectPublish('NetStream.Publish.BadName', 'The stream key is wrong.');
    expect(peer.read(server.takeOutput())).toEqual([
      [
        1,
        'onStatus',
        0,
        null,
        { level: 'error', code: 'NetStream.Publish.BadName', description: 'The stream key is wrong.' },
      ],
    ]);
    peer.message({ typeId: 8, streamId: 1, timestampMs: 0, payload: Uint8Array.of(1) });
    expect(server.receive(peer.bytes())).toEqual([]);
    expect(server.receive(peer.command(1, 'publish', 6, null, 'cam?key=good', 'live').bytes())).toHaveLength(
      1,
    );
    server.acceptPublish();
    expect(server.state.phase).toBe('publishing');
  });

  test.each([
    ['FCUnpublish', [0, 'FCUnpublish', 6, null, 'cam'] as const],
    ['deleteStream', [0, 'deleteStream', 7, null, 1] as const],
    ['closeStream', [1, 'closeStream', 0, null] as const],
  ])('%s ends it once, and another stream may follow', (_, [streamId, ...values]) => {
    const { server, peer } = publishing();
    expect(server.receive(peer.command(streamId, ...values).bytes())).toEqual([{ type: 'unpublish' }]);
    expect(peer.read(server.takeOutput()).at(-1)).toMatchObject([
      1,
      'onStatus',
      0,
      null,
      { code: 'NetStream.Unpublish.Success' },
    ]);
    expect(server.receive(peer.command(0, 'deleteStream', 8, null, 1).bytes())).toEqual([]);
    server.receive(peer.command(0, 'createStream', 9, null).bytes());
    const [event] = server.receive(peer.command(2, 'publish', 10, null, 'next', 'live').bytes());
    expect(event).toMatchObject({ type: 'publish', target: { streamName: 'next' } });
    server.acceptPublish();
    peer.message({ typeId: 8, streamId: 2, timestampMs: 0, payload: Uint8Array.of(1) });
    expect(server.receive(peer.bytes())).toHaveLength(1);
  });

  test('deleteStream of another stream changes nothing', () => {
    const { server, peer } = publishing();
    expect(server.receive(peer.command(0, 'deleteStream', 7, null, 2).bytes())).toEqual([]);
    expect(server.state.phase).toBe('publishing');
  });

  test('createStream gives a new id each time', () => {
    const { server, peer } = connected();
    server.receive(peer.command(0, 'createStream', 2, null).command(0, 'createStream', 3, null).bytes());
    expect(peer.read(server.takeOutput())).toEqual([
      [0, '_result', 2, null, 1],
      [0, '_result', 3, null, 2],
    ]);
  });

  test('a second publish beside the first is refused, and the first goes on', () => {
    const { server, peer } = publishing();
    expect(server.receive(peer.command(2, 'publish', 6, null, 'other', 'live').bytes())).toEqual([]);
    expect(peer.read(server.takeOutput())).toMatchObject([
      [2, 'onStatus', 0, null, { level: 'error', code: 'NetStream.Publish.BadName' }],
    ]);
    peer.message({ typeId: 8, streamId: 1, timestampMs: 0, payload: Uint8Array.of(1) });
    expect(server.receive(peer.bytes())).toHaveLength(1);
  });

  test.each([
    ['publish', 'play'],
    ['play', 'publish'],
  ])('%s and then %s is refused: the peer is told, the session is spent', (first, second) => {
    const { server, peer } = connected();
    server.receive(peer.command(1, first, 5, null, 'cam').bytes());
    expect(codeOf(() => server.receive(peer.command(2, second, 6, null, 'cam').bytes()))).toBe(
      'RTMP_BAD_COMMAND',
    );
    expect(peer.read(server.takeOutput())).toMatchObject([[2, 'onStatus', 0, null, { level: 'error' }]]);
  });

  test('without a name it is refused', () => {
    const { server, peer } = connected();
    expect(codeOf(() => server.receive(peer.command(1, 'publish', 5, null).bytes()))).toBe(
      'RTMP_BAD_COMMAND',
    );
  });

  test('withdrawn in the same bytes: the late answer does nothing, and the next request gets its own', () => {
    const { server, peer } = connected();
    peer
      .command(1, 'publish', 5, null, 'a')
      .command(1, 'closeStream', 0, null)
      .command(1, 'play', 6, null, 'b');
    const events = server.receive(peer.bytes());
    expect(events.map((event) => event.type)).toEqual(['publish', 'unpublish', 'play']);
    server.takeOutput();
    server.acceptPublish();
    expect(server.takeOutput()).toBeUndefined();
    expect(server.state.phase).toBe('requested');
    server.acceptPlay();
    expect(server.state).toMatchObject({ phase: 'playing', request: { target: { streamName: 'b' } } });
    expect(() => server.acceptPlay()).toThrow(/no play request/);
  });
});

describe('server: play', () => {
  function playing() {
    const { server, peer } = connected();
    const events = server.receive(peer.command(1, 'play', 5, null, 'cam?token=T', -2000).bytes());
    expect(events).toEqual([
      { type: 'play', target: { app: 'live', streamName: 'cam', query: new Map([['token', 'T']]) } },
    ]);
    return { server, peer };
  }
  const status = (level: string, code: string) => [
    1,
    'onStatus',
    0,
    null,
    { level, code, description: expect.any(String) },
  ];

  test('accepted, fed and ended', () => {
    const { server, peer } = playing();
    server.acceptPlay();
    expect(peer.read(server.takeOutput())).toEqual([
      { type: 'user-control', event: 0, values: [1] }, // StreamBegin
      status('status', 'NetStream.Play.Reset'),
      status('status', 'NetStream.Play.Start'),
    ]);
    server.sendMessage({ kind: 'data', timestampMs: 0x01000000, payload: encodeAmf0(['onCuePoint', 1]) });
    expect(peer.read(server.takeOutput())).toEqual([[1, 'onCuePoint', 1]]);
    server.endPlay();
    expect(peer.read(server.takeOutput())).toEqual([
      { type: 'user-control', event: 1, values: [1] }, // StreamEOF
      status('status', 'NetStream.Play.UnpublishNotify'),
    ]);
    server.sendMessage(video(0));
    expect(server.takeOutput()).toBeUndefined();
  });

  test('rejected', () => {
    const { server, peer } = playing();
    server.rejectPlay('NetStream.Play.StreamNotFound', 'There is no such channel.');
    expect(peer.read(server.takeOutput())).toEqual([status('error', 'NetStream.Play.StreamNotFound')]);
    expect(server.state.phase).toBe('connected');
  });

  test('left by the player; media that is still sent goes nowhere', () => {
    const { server, peer } = playing();
    server.acceptPlay();
    server.takeOutput();
    expect(server.receive(peer.command(0, 'deleteStream', 0, null, 1).bytes())).toEqual([
      { type: 'unpublish' },
    ]);
    server.sendMessage(video(0, 0x17));
    expect(server.takeOutput()).toBeUndefined();
  });
});

describe('server: calls around publish and play', () => {
  test.each([
    ['getStreamLength', 0],
    ['_checkbw', undefined],
    ['FCSubscribe', undefined],
    ['FCUnpublish', undefined],
  ])('%s', (name, result) => {
    const { server, peer } = connected();
    server.receive(peer.command(0, name, 9, null, 'cam').bytes());
    expect(peer.read(server.takeOutput())).toEqual([[0, '_result', 9, null, result]]);
  });

  test('an unknown method is an error to the caller only; without transaction it is ignored', () => {
    const { server, peer } = connected();
    server.receive(peer.command(0, 'fly', 9, null).command(0, 'fly', 0, null).bytes());
    expect(peer.read(server.takeOutput())).toMatchObject([
      [0, '_error', 9, null, { code: 'NetConnection.Call.Failed' }],
    ]);
  });
});

describe('both sides: control', () => {
  test('a ping is answered with its own timestamp', () => {
    const { server, peer } = connected();
    server.receive(peer.control({ type: 'user-control', event: 6, values: [0xfedcba98] }).bytes());
    expect(peer.read(server.takeOutput())).toEqual([
      { type: 'user-control', event: 7, values: [0xfedcba98] },
    ]);
  });

  test('a new bandwidth is answered with its window, the old one not again', () => {
    const { server, peer } = connected();
    const bandwidth = (sizeBytes: number) => {
      server.receive(peer.control({ type: 'set-peer-bandwidth', sizeBytes, limit: 'hard' }).bytes());
      return peer.read(server.takeOutput());
    };
    expect(bandwidth(5_000_000)).toEqual([{ type: 'window-acknowledgement-size', sizeBytes: 5_000_000 }]);
    expect(bandwidth(5_000_000)).toEqual([]);
  });

  /** Sends `totalBytes` in inputs of `inputBytes`, and returns what was acknowledged, each with the bytes sent by then. */
  function acknowledgements(windowBytes: number | undefined, inputBytes: number, totalBytes: number) {
    const { server, peer } = connected(CONNECT, 0xffffff);
    let sentBytes = peer.writtenBytes;
    const send = (bytes: Uint8Array) => {
      server.receive(bytes);
      sentBytes += bytes.length;
      return peer.read(server.takeOutput()).map((control) => [sentBytes, control]);
    };
    peer.chunkSize(0xffffff);
    if (windowBytes !== undefined)
      peer.control({ type: 'window-acknowledgement-size', sizeBytes: windowBytes });
    const found = send(peer.bytes());
    // Format 0 each time, so that the same bytes can be sent again and again.
    const header = Buffer.from('060000000000000901000000', 'hex');
    header.writeUIntBE(inputBytes - 12, 4, 3);
    const input = concatBytes([header, new Uint8Array(inputBytes - 12)]);
    while (sentBytes < totalBytes) found.push(...send(input));
    return found;
  }
  const acknowledged = (receivedBytes: number) => ({ type: 'acknowledgement', receivedBytes });

  test('every half window', () => {
    const found = acknowledgements(1_000_000, 100_000, 1_100_000);
    expect(found).toHaveLength(2);
    expect(found[0]?.[0]).toBeGreaterThanOrEqual(500_000);
    expect(found[0]?.[0]).toBeLessThan(600_100);
    for (const [sentBytes, control] of found) expect(control).toEqual(acknowledged(Number(sentBytes)));
  });

  test.each([['no window'], ['an enormous window']])('every 2.5 MB with %s', (window) => {
    const found = acknowledgements(window === 'no window' ? undefined : 0xffffffff, 100_000, 5_200_000);
    expect(found).toHaveLength(2);
    for (const [sentBytes, control] of found) expect(control).toEqual(acknowledged(Number(sentBytes)));
  });

  test('the count wraps at 2^32', () => {
    const found = acknowledgements(undefined, 16_000_000, 2 ** 32 + 40_000_000);
    expect(found.map(([, control]) => control)).toEqual(
      found.map(([sent]) => acknowledged(Number(sent) % 2 ** 32)),
    );
    expect(found.at(-1)?.[0]).toBeGreaterThan(2 ** 32);
  });

  test('tiny windows do not make two peers acknowledge each other for ever', () => {
    const { server, peer } = connected();
    server.receive(peer.control({ type: 'window-acknowledgement-size', sizeBytes: 1 }).bytes());
    server.receive(peer.control({ type: 'acknowledgement', receivedBytes: 5 }).bytes());
    expect(peer.read(server.takeOutput()).length).toBeLessThanOrEqual(1);
    server.receive(peer.control({ type: 'acknowledgement', receivedBytes: 6 }).bytes());
    expect(server.takeOutput()).toBeUndefined();
  });
});

/** Carries bytes both ways until neither side has any, in pieces of `pieceBytes`. */
function pump(
  client: RtmpClientSession,
  server: RtmpServerSession,
  onServerEvent: (event: ServerSessionEvent) => void,
  pieceBytes = Number.POSITIVE_INFINITY,
): ClientSessionEvent[] {
  const clientEvents: ClientSessionEvent[] = [];
  const pieces = (bytes: Uint8Array) => {
    const size = Math.min(pieceBytes, bytes.length);
    return Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
      bytes.slice(i * size, (i + 1) * size),
    );
  };
  for (;;) {
    const toServer = client.takeOutput();
    for (const piece of pieces(toServer ?? new Uint8Array(0))) server.receive(piece).forEach(onServerEvent);
    const toClient = server.takeOutput();
    for (const piece of pieces(toClient ?? new Uint8Array(0))) clientEvents.push(...client.receive(piece));
    if (toServer === undefined && toClient === undefined) return clientEvents;
  }
}

const media: FlvMessage[] = [
  { kind: 'data', timestampMs: 0, payload: encodeAmf0(['onMetaData', { width: 320 }]) },
  { kind: 'data', timestampMs: 0, payload: encodeAmf0(['onCuePoint', { name: 'x' }]) },
  video(0xfffffe, 0x17, 0),
  { kind: 'audio', timestampMs: 0xffffff, payload: Uint8Array.of(0xaf, 0) },
  {
    kind: 'video',
    timestampMs: 0x01000010,
    payload: Uint8Array.from({ length: 70_000 }, (_, i) => i & 0xff),
  },
  { kind: 'audio', timestampMs: 0xfffffff0, payload: new Uint8Array(0) },
  { kind: 'audio', timestampMs: 0x10, payload: Uint8Array.of(0xaf, 1) },
  { kind: 'video', timestampMs: 0x20, payload: new Uint8Array(6000).fill(7) },
];

describe('client and server back to back', () => {
  test.each([[1], [1000], [Number.POSITIVE_INFINITY]])('publish, in pieces of %d bytes', (pieceBytes) => {
    const server = newServer();
    const client = newClient('publish');
    const events: ServerSessionEvent[] = [];
    const onServerEvent = (event: ServerSessionEvent) => {
      events.push(event);
      if (event.type === 'publish') server.acceptPublish();
    };
    expect(pump(client, server, onServerEvent, pieceBytes)).toEqual([{ type: 'ready' }]);
    expect(events).toEqual([
      { type: 'connect', app: 'live', tcUrl: 'rtmp://localhost/live', fourCcList: FOUR_CCS },
      { type: 'publish', target: { app: 'live', streamName: 'cam', query: new Map([['key', 'K']]) } },
    ]);
    for (const message of media) client.sendMessage(message);
    client.close();
    expect(pump(client, server, onServerEvent, pieceBytes)).toEqual([]);
    expect(events.slice(2)).toEqual([
      ...media.map((message) => ({ type: 'message', message })),
      { type: 'unpublish' },
    ]);
    expect([client.state.phase, server.state.phase]).toEqual(['closed', 'connected']);
    client.close();
    expect(client.takeOutput()).toBeUndefined();
  });

  test.each([[1], [1000], [Number.POSITIVE_INFINITY]])('play, in pieces of %d bytes', (pieceBytes) => {
    const server = newServer();
    const client = newClient('play');
    const types: string[] = [];
    const onServerEvent = (event: ServerSessionEvent) => {
      types.push(event.type);
      if (event.type !== 'play') return;
      server.acceptPlay();
      for (const message of media) server.sendMessage(message);
    };
    expect(pump(client, server, onServerEvent, pieceBytes)).toEqual([
      { type: 'ready' },
      ...media.map((message) => ({ type: 'message', message })),
    ]);
    client.close();
    pump(client, server, onServerEvent, pieceBytes);
    expect(types).toEqual(['connect', 'play', 'unpublish']);
  });

  test('rejected', () => {
    const server = newServer();
    const client = newClient('publish');
    const reject = (event: ServerSessionEvent) => {
      if (event.type === 'publish') server.rejectPublish('NetStream.Publish.Denied', 'No.');
    };
    expect(pump(client, server, reject)).toEqual([
      { type: 'rejected', code: 'NetStream.Publish.Denied', description: 'No.' },
    ]);
    client.sendMessage(video(0));
    expect(client.takeOutput()).toBeUndefined();
  });
});

describe('client', () => {
  /** A client whose server has done its handshake. */
  function greeted(mode: 'publish' | 'play' = 'publish') {
    const client = newClient(mode);
    expect(client.takeOutput()?.length).toBe(1537);
    client.receive(HANDSHAKE);
    const peer = new RawPeer();
    const output = client.takeOutput() ?? new Uint8Array(0);
    const [connect] = peer.read(output.subarray(1536)); // after C2
    expect(connect).toMatchObject([
      0,
      'connect',
      1,
      { app: 'live', tcUrl: 'rtmp://localhost/live', fourCcList: FOUR_CCS, capsEx: 15 },
    ]);
    return { client, peer };
  }

  test('refused at connect', () => {
    const { client, peer } = greeted();
    const info = { level: 'error', code: 'NetConnection.Connect.Rejected', description: 'No such app.' };
    expect(client.receive(peer.command(0, '_error', 1, null, info).bytes())).toEqual([
      { type: 'rejected', code: info.code, description: info.description },
    ]);
  });

  test('ends when a server drops it later, and tells so once', () => {
    const { client, peer } = greeted();
    const status = (level: string, code: string) => peer.command(1, 'onStatus', 0, null, { level, code });
    peer.command(0, '_result', 1, {}, {}).command(0, '_error', 2, null, {}).command(0, '_result', 4, null, 1);
    status('status', 'NetStream.Publish.Start');
    expect(client.receive(peer.bytes())).toEqual([{ type: 'ready' }]);
    status('error', 'NetStream.Failed');
    status('error', 'NetStream.Failed');
    expect(client.receive(peer.bytes())).toEqual([
      { type: 'rejected', code: 'NetStream.Failed', description: '' },
    ]);
  });

  test('marks metadata, and only that, for the server to keep', () => {
    const { client, peer } = greeted();
    peer.command(0, '_result', 1, {}, {}).command(0, '_result', 4, null, 1);
    client.receive(
      peer.command(1, 'onStatus', 0, null, { level: 'status', code: 'NetStream.Publish.Start' }).bytes(),
    );
    peer.read(client.takeOutput());
    client.sendMessage({ kind: 'data', timestampMs: 0, payload: encodeAmf0(['onMetaData', { width: 320 }]) });
    client.sendMessage({ kind: 'data', timestampMs: 0, payload: encodeAmf0(['onCuePoint', 1]) });
    expect(peer.read(client.takeOutput())).toEqual([
      [1, '@setDataFrame', 'onMetaData', { width: 320 }],
      [1, 'onCuePoint', 1],
    ]);
  });

  test.each([
    [{ tcUrl: 'rtmp://other/live' }, 'rtmp://other/live'],
    [{}, undefined],
  ])('reconnect request %j', (more, tcUrl) => {
    const { client, peer } = greeted();
    const info = { level: 'status', code: 'NetConnection.Connect.ReconnectRequest', ...more };
    expect(client.receive(peer.command(0, 'onStatus', 0, null, info).bytes())).toEqual([
      { type: 'reconnect-request', tcUrl },
    ]);
    expect(client.state.phase).toBe('connecting');
  });

  test('a createStream answer without a stream id is malformed', () => {
    const { client, peer } = greeted();
    const bytes = peer.command(0, '_result', 1, {}, {}).command(0, '_result', 4, null, -1).bytes();
    expect(codeOf(() => client.receive(bytes))).toBe('RTMP_BAD_COMMAND');
    expect(client.state.phase).toBe('failed');
    client.close();
    expect(client.state.phase).toBe('closed');
  });

  test('metadata that a server sends before it says that play has started', () => {
    const { client, peer } = greeted('play');
    peer.command(0, '_result', 1, {}, {}).command(0, '_result', 4, null, 1);
    peer.message({ typeId: 18, streamId: 1, timestampMs: 0, payload: encodeAmf0(['onMetaData', {}]) });
    expect(client.receive(peer.bytes())).toMatchObject([{ type: 'message', message: { kind: 'data' } }]);
  });
});

describe('garbage', () => {
  test('after the handshake raises nothing but coded errors, on both sides', () => {
    const anyValue = fc.constantFrom<Amf0Value>(
      'connect',
      'publish',
      'play',
      'onStatus',
      '_result',
      1,
      4,
      null,
      CONNECT,
      'cam',
      Number.NaN,
    );
    const anyMessage = fc.record({
      typeId: fc.nat(24),
      streamId: fc.nat(2),
      timestampMs: fc.nat(0xffffffff),
      payload: fc.oneof(
        fc.uint8Array({ maxLength: 60 }),
        fc.array(anyValue, { maxLength: 5 }).map((values) => encodeAmf0(values)),
      ),
    });
    fc.assert(
      fc.property(fc.array(anyMessage, { maxLength: 12 }), fc.boolean(), (messages, isConnected) => {
        const bytes = (peer: RawPeer) => {
          for (const message of messages) peer.message(message);
          return peer.bytes();
        };
        const { server, peer } = isConnected ? connected() : opened();
        codeOf(() => {
          for (const event of server.receive(bytes(peer))) {
            if (event.type === 'publish') server.acceptPublish();
            if (event.type === 'play') server.acceptPlay();
          }
        });
        server.takeOutput();
        const client = newClient('play');
        client.receive(HANDSHAKE);
        codeOf(() => client.receive(bytes(new RawPeer())));
        client.takeOutput();
      }),
      { seed: 9, numRuns: 1000 },
    );
  });

  test('a publisher cut off at any byte is no error', () => {
    const { server, peer } = connected();
    peer
      .command(1, 'publish', 5, null, 'cam')
      .message({ typeId: 9, streamId: 1, timestampMs: 0, payload: new Uint8Array(300) });
    for (const byte of peer.bytes()) server.receive(Uint8Array.of(byte));
    expect(server.state.phase).toBe('requested');
  });
});
