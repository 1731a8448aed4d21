/**
 * RTMP sessions: bytes of one connection in, events and bytes for the peer out. A server session
 * takes one publisher or one player; a client session is one of them.
 *
 * Source: RTMP 1.0 section 7.2; Enhanced RTMP v2 (2026-01-31), "Enhancing NetConnection connect
 * Command" and "Reconnect Request". The commands around `publish` that RTMP 1.0 leaves out
 * (releaseStream, FCPublish and so on) are Flash Media Server's, as encoders expect them.
 */
import { concatBytes, equalBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';
import { type FlvMessage, FOUR_CCS } from '../flv/tag.ts';
import { type Amf0Object, type Amf0Value, decodeAmf0, encodeAmf0, isAmf0Object } from './amf0.ts';
import { ChunkReader, ChunkWriter, CONTROL_CHUNK_STREAM_ID } from './chunk.ts';
import { Handshake } from './handshake.ts';
import {
  type ControlMessage,
  messageTypeId,
  parseControlMessage,
  type RtmpMessage,
  serializeControlMessage,
  splitAggregate,
  unwrapAmf3,
  userControlEvent,
} from './message.ts';

/** What a peer asks to publish or play, taken apart. */
export interface PublishTarget {
  /** Without slashes at its ends and without query. */
  readonly app: string;
  readonly streamName: string;
  /** Of the stream name, the app and the tcUrl together; where a name occurs twice, the first in that order counts. */
  readonly query: ReadonlyMap<string, string>;
}

const MEDIA_TYPE_ID = {
  audio: messageTypeId.audio,
  video: messageTypeId.video,
  data: messageTypeId.data,
} as const;

const CHUNK_STREAM_ID = { command: 3, audio: 4, status: 5, video: 6, data: 7 } as const;

/** SRS's choice, which every player in use has met; a message is one or a few chunks. */
const CHUNK_SIZE_BYTES = 60_000;
const WINDOW_BYTES = 2_500_000;
/** Wirecast stalls without acknowledgements although it sets no window (SRS issue 795). */
const MAX_ACKNOWLEDGEMENT_INTERVAL_BYTES = 2_500_000;
/** More than an acknowledgement's own size: two peers with tiny windows must not answer each other for ever. */
const MIN_ACKNOWLEDGEMENT_INTERVAL_BYTES = 1024;

/** What Starling takes and passes on. Encoders and players that never heard of it ignore it. */
const fourCcInfoMask = { canDecode: 1, canEncode: 2, canForward: 4 } as const;
const capsExMask = { reconnect: 1, multitrack: 2, modEx: 4, timestampNanoOffset: 8 } as const;
const forwarded = (fourCcs: readonly string[]): Amf0Object =>
  Object.fromEntries(fourCcs.map((fourCc) => [fourCc, fourCcInfoMask.canForward]));
const ENHANCEMENTS: Amf0Object = {
  fourCcList: [...FOUR_CCS.video, ...FOUR_CCS.audio],
  videoFourCcInfoMap: forwarded(FOUR_CCS.video),
  audioFourCcInfoMap: forwarded(FOUR_CCS.audio),
  capsEx: capsExMask.reconnect | capsExMask.multitrack | capsExMask.modEx | capsExMask.timestampNanoOffset,
};

const SET_DATA_FRAME = encodeAmf0(['@setDataFrame']);
const ON_META_DATA = encodeAmf0(['onMetaData']);

function writeMedia(
  writer: ChunkWriter,
  streamId: number,
  { kind, timestampMs }: Omit<FlvMessage, 'payload'>,
  parts: readonly Uint8Array[],
): void {
  writer.writeParts(CHUNK_STREAM_ID[kind], { typeId: MEDIA_TYPE_ID[kind], streamId, timestampMs }, parts);
}

/** The message stream that {@link SharedChunkWriter} writes to: the first that a server creates, if it is ours. */
export const SHARED_STREAM_ID = 1;

/**
 * Cuts the messages of a stream once for all that take it: its players, or the servers that it is published
 * to. Their sessions have all announced the same chunk size and never send media themselves, so the bytes fit
 * each of them.
 *
 * After `restart` no chunk refers to one before it. A receiver may so begin, or go on after a gap, with
 * any message that `restart` preceded.
 */
export class SharedChunkWriter {
  readonly #output: Uint8Array[] = [];
  readonly #writer = new ChunkWriter(this.#output, CHUNK_SIZE_BYTES);

  restart(): void {
    this.#writer.restart();
  }

  /** @returns the message as chunks, in pieces; parts of the payload are views */
  write(message: FlvMessage): readonly Uint8Array[] {
    this.add(message, [message.payload]);
    return this.take();
  }

  /** Adds a message whose payload lies in several pieces to what `take` gives. */
  add(message: Omit<FlvMessage, 'payload'>, parts: readonly Uint8Array[]): void {
    writeMedia(this.#writer, SHARED_STREAM_ID, message, parts);
  }

  /** All that was added since the last call, as chunks, in pieces. */
  take(): readonly Uint8Array[] {
    return this.#output.splice(0);
  }
}

/** What server and client share: handshake, chunks, acknowledgements, pings, wrappers. */
class RtmpConnection {
  readonly #output: Uint8Array[] = [];
  readonly #handshake: Handshake;
  readonly #reader: ChunkReader;
  readonly #writer = new ChunkWriter(this.#output);
  /** Counts from the end of the handshake. */
  #receivedBytes = 0;
  #acknowledgedBytes = 0;
  #acknowledgementIntervalBytes = MAX_ACKNOWLEDGEMENT_INTERVAL_BYTES;
  #announcedWindowBytes: number | undefined;

  constructor(side: 'server' | 'client', handshakeRandomBytes: Uint8Array, maxMessageBytes: number) {
    this.#handshake = new Handshake(side, handshakeRandomBytes, this.#output);
    this.#reader = new ChunkReader({ maxMessageBytes });
  }

  get isHandshakeComplete(): boolean {
    return this.#handshake.isComplete;
  }

  /** @returns the commands, audio, video and data messages that the bytes complete, AMF3 and aggregates unwrapped */
  receive(bytes: Uint8Array): RtmpMessage[] {
    const handshakeBytes = this.#handshake.isComplete ? 0 : this.#handshake.receive(bytes);
    if (handshakeBytes === bytes.length) return [];
    const messages: RtmpMessage[] = [];
    for (const message of this.#reader.push(bytes.subarray(handshakeBytes))) {
      const control = parseControlMessage(message);
      if (control !== undefined) this.#obey(control);
      else if (message.typeId !== messageTypeId.aggregate) messages.push(unwrapAmf3(message));
      else for (const part of splitAggregate(message)) messages.push(unwrapAmf3(part));
    }
    this.#receivedBytes += bytes.length - handshakeBytes;
    if (this.#receivedBytes - this.#acknowledgedBytes >= this.#acknowledgementIntervalBytes) {
      this.#acknowledgedBytes = this.#receivedBytes;
      this.sendControl({ type: 'acknowledgement', receivedBytes: this.#receivedBytes % 2 ** 32 });
    }
    return messages;
  }

  #obey(control: ControlMessage): void {
    if (control.type === 'window-acknowledgement-size') {
      // Half the window, so that the sender never reaches its end and waits.
      this.#acknowledgementIntervalBytes = Math.min(
        Math.max(control.sizeBytes / 2, MIN_ACKNOWLEDGEMENT_INTERVAL_BYTES),
        MAX_ACKNOWLEDGEMENT_INTERVAL_BYTES,
      );
    } else if (control.type === 'set-peer-bandwidth') {
      if (control.sizeBytes !== this.#announcedWindowBytes) this.announceWindow(control.sizeBytes);
    } else if (control.type === 'user-control' && control.event === userControlEvent.pingRequest) {
      this.sendControl({ ...control, event: userControlEvent.pingResponse });
    }
  }

  announceWindow(sizeBytes: number): void {
    this.#announcedWindowBytes = sizeBytes;
    this.sendControl({ type: 'window-acknowledgement-size', sizeBytes });
  }

  setChunkSize(sizeBytes: number): void {
    this.#writer.setChunkSize(sizeBytes);
  }

  sendControl(control: ControlMessage): void {
    this.#writer.write(CONTROL_CHUNK_STREAM_ID, serializeControlMessage(control));
  }

  /** @param streamId 0 for the connection, else the message stream that the command is about */
  sendCommand(streamId: number, name: string, transactionId: number, ...values: readonly Amf0Value[]): void {
    this.#writer.write(streamId === 0 ? CHUNK_STREAM_ID.command : CHUNK_STREAM_ID.status, {
      typeId: messageTypeId.command,
      streamId,
      timestampMs: 0,
      payload: encodeAmf0([name, transactionId, ...values]),
    });
  }

  sendMedia(streamId: number, message: FlvMessage): void {
    writeMedia(this.#writer, streamId, message, [message.payload]);
  }

  takeOutput(): Uint8Array | undefined {
    if (this.#output.length === 0) return undefined;
    const bytes = concatBytes(this.#output);
    this.#output.length = 0;
    return bytes;
  }
}

interface Command {
  readonly name: string;
  /** 0 where no answer is wanted. */
  readonly transactionId: number;
  /** What follows the transaction id; the first is the command object, usually null. */
  readonly values: readonly Amf0Value[];
  readonly streamId: number;
}

function parseCommand(message: RtmpMessage): Command {
  const [name, transactionId, ...values] = decodeAmf0(message.payload);
  if (typeof name !== 'string') throw new MediaError('RTMP_BAD_COMMAND', 'A command has no name.');
  return {
    name,
    transactionId: typeof transactionId === 'number' ? transactionId : 0,
    values,
    streamId: message.streamId,
  };
}

/** @returns undefined for a message that is no audio, video or data */
function flvMessageOf(message: RtmpMessage): FlvMessage | undefined {
  const { timestampMs, payload } = message;
  switch (message.typeId) {
    case messageTypeId.audio:
      return { kind: 'audio', timestampMs, payload };
    case messageTypeId.video:
      return { kind: 'video', timestampMs, payload };
    case messageTypeId.data:
      return {
        kind: 'data',
        timestampMs,
        payload: startsWith(payload, SET_DATA_FRAME) ? payload.subarray(SET_DATA_FRAME.length) : payload,
      };
    default:
      return undefined;
  }
}

function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return equalBytes(bytes.subarray(0, prefix.length), prefix);
}

function stringProperty(value: Amf0Value, key: string): string | undefined {
  const property = isAmf0Object(value) ? value[key] : undefined;
  return typeof property === 'string' ? property : undefined;
}

interface StreamRequest {
  readonly kind: 'publish' | 'play';
  readonly streamId: number;
  readonly target: PublishTarget;
}

export type ServerSessionEvent =
  | {
      readonly type: 'connect';
      readonly app: string;
      readonly tcUrl: string;
      /** Codecs that the peer declared it can receive, perhaps `*`; empty for peers older than Enhanced RTMP. */
      readonly fourCcList: readonly string[];
    }
  /** To be answered by `acceptPublish` or `rejectPublish`. */
  | { readonly type: 'publish'; readonly target: PublishTarget }
  /** To be answered by `acceptPlay` or `rejectPlay`. */
  | { readonly type: 'play'; readonly target: PublishTarget }
  | { readonly type: 'message'; readonly message: FlvMessage }
  /** The peer ended what it published or played, or withdrew its request. */
  | { readonly type: 'unpublish' };

export type ServerSessionState =
  | { readonly phase: 'handshake' | 'awaiting-connect' }
  | { readonly phase: 'connected' }
  | { readonly phase: 'requested' | 'publishing' | 'playing'; readonly request: StreamRequest }
  | { readonly phase: 'failed'; readonly error: MediaError };

type ServerPhase = ServerSessionState['phase'];

const serverTransitions: Readonly<Record<ServerPhase, readonly ServerPhase[]>> = {
  handshake: ['awaiting-connect', 'failed'],
  'awaiting-connect': ['connected', 'failed'],
  connected: ['requested', 'failed'],
  requested: ['publishing', 'playing', 'connected', 'failed'],
  publishing: ['connected', 'failed'],
  playing: ['connected', 'failed'],
  failed: [],
};

/**
 * The server's side of one connection.
 *
 * | phase            | event                                             | next phase       |
 * | ---------------- | ------------------------------------------------- | ---------------- |
 * | handshake        | C2 is complete                                    | awaiting-connect |
 * | awaiting-connect | `connect`                                         | connected        |
 * | connected        | `publish` or `play`                               | requested        |
 * | requested        | `acceptPublish()`                                 | publishing       |
 * | requested        | `acceptPlay()`                                    | playing          |
 * | requested        | `rejectPublish()`, `rejectPlay()`                 | connected        |
 * | requested, publishing, playing | FCUnpublish (of a publisher), deleteStream, closeStream, `endPlay()` | connected |
 * | any              | malformed input, a command out of order           | failed           |
 *
 * The caller handles events in order and answers each `publish` or `play` before it looks at the
 * next event. A request that the same bytes already withdrew (its `unpublish` event comes later) is
 * answered all the same; the answer then does nothing.
 *
 * Call `takeOutput` after every other call, also after `receive` threw: the output may hold the
 * status that tells the peer why.
 */
export class RtmpServerSession {
  readonly #connection: RtmpConnection;
  #state: ServerSessionState = { phase: 'handshake' };
  #app = '';
  #tcUrl = '';
  #receivable: ReceivableFourCcs = NOTHING_RECEIVABLE;
  #canReconnect = false;
  #nextStreamId = 1;
  /** Requests that the caller has yet to answer: as many as one call of `receive` brought. */
  readonly #unanswered: StreamRequest[] = [];

  /**
   * @param options.handshakeRandomBytes 1528 bytes
   * @param options.maxMessageBytes longer messages are refused
   */
  constructor(options: { readonly handshakeRandomBytes: Uint8Array; readonly maxMessageBytes: number }) {
    this.#connection = new RtmpConnection('server', options.handshakeRandomBytes, options.maxMessageBytes);
  }

  get state(): ServerSessionState {
    return this.#state;
  }

  #enter(next: ServerSessionState): void {
    if (!serverTransitions[this.#state.phase].includes(next.phase)) {
      throw new Error(`RTMP server session cannot go from ${this.#state.phase} to ${next.phase}`);
    }
    this.#state = next;
  }

  /**
   * Takes the next bytes from the peer. Payloads of messages may be views of `bytes`.
   * @throws MediaError the session is then spent: every later call throws the same error
   */
  receive(bytes: Uint8Array): ServerSessionEvent[] {
    if (this.#state.phase === 'failed') throw this.#state.error;
    const events: ServerSessionEvent[] = [];
    try {
      const messages = this.#connection.receive(bytes);
      if (this.#state.phase === 'handshake' && this.#connection.isHandshakeComplete) {
        this.#enter({ phase: 'awaiting-connect' });
      }
      for (const message of messages) {
        if (message.typeId === messageTypeId.command) this.#handleCommand(parseCommand(message), events);
        else this.#handleMedia(message, events);
      }
    } catch (error) {
      if (error instanceof MediaError) this.#enter({ phase: 'failed', error });
      throw error;
    }
    return events;
  }

  /** All bytes for the peer since the last call. */
  takeOutput(): Uint8Array | undefined {
    return this.#connection.takeOutput();
  }

  acceptPublish(): void {
    const request = this.#answer('publish');
    if (request === undefined) return;
    this.#enter({ phase: 'publishing', request });
    this.#sendUserControl(userControlEvent.streamBegin, request.streamId);
    const description = `Publishing ${request.target.streamName}.`;
    this.#sendStatus(request.streamId, 'status', 'NetStream.Publish.Start', description);
  }

  /** @param code for instance `NetStream.Publish.BadName`; encoders show the description to their user */
  rejectPublish(code: string, description: string): void {
    this.#reject('publish', code, description);
  }

  acceptPlay(): void {
    const request = this.#answer('play');
    if (request === undefined) return;
    this.#enter({ phase: 'playing', request });
    const { streamId, target } = request;
    this.#sendUserControl(userControlEvent.streamBegin, streamId);
    this.#sendStatus(streamId, 'status', 'NetStream.Play.Reset', `Resetting ${target.streamName}.`);
    this.#sendStatus(streamId, 'status', 'NetStream.Play.Start', `Playing ${target.streamName}.`);
  }

  /** @param code for instance `NetStream.Play.StreamNotFound` */
  rejectPlay(code: string, description: string): void {
    this.#reject('play', code, description);
  }

  /** Tells a player that the stream is over, so that it ends instead of reporting a lost connection. */
  endPlay(): void {
    if (this.#state.phase !== 'playing') return;
    const { streamId, target } = this.#state.request;
    this.#enter({ phase: 'connected' });
    this.#sendUserControl(userControlEvent.streamEof, streamId);
    this.#sendStatus(streamId, 'status', 'NetStream.Play.UnpublishNotify', `${target.streamName} has ended.`);
  }

  /**
   * True where the peer said when it connected that it can receive a codec in the enhanced form. Peers older
   * than Enhanced RTMP say nothing, and can take legacy tags alone.
   * @param fourCc for instance `hvc1`; see FOUR_CC in flv/tag.ts
   */
  canReceive(kind: 'video' | 'audio', fourCc: string): boolean {
    return this.#receivable[kind].has(fourCc) || this.#receivable[kind].has(ANY_FOUR_CC);
  }

  /**
   * Asks the peer to move: to another server, or to this one anew. It goes on being served until it leaves.
   * Source: Enhanced RTMP v2, "Reconnect Request".
   * @param tcUrl absolute, or relative to the peer's own; without it the peer connects to where it is
   * @returns false where the peer has not said that it understands; nothing is sent then
   */
  requestReconnect(tcUrl?: string): boolean {
    if (!this.#canReconnect) return false;
    const info = statusInfo(
      'status',
      'NetConnection.Connect.ReconnectRequest',
      'The server asks you to reconnect.',
    );
    this.#connection.sendCommand(0, 'onStatus', 0, null, tcUrl === undefined ? info : { ...info, tcUrl });
    return true;
  }

  /**
   * Sends to a player; does nothing when the peer is not one, for it may just have left.
   * The payload is read when `takeOutput` is called.
   */
  sendMessage(message: FlvMessage): void {
    if (this.#state.phase === 'playing') this.#connection.sendMedia(this.#state.request.streamId, message);
  }

  /** @returns the oldest unanswered request, or undefined when the peer has withdrawn it */
  #answer(kind: StreamRequest['kind']): StreamRequest | undefined {
    const request = this.#unanswered.shift();
    if (request?.kind !== kind) throw new Error(`no ${kind} request to answer but ${request?.kind}`);
    return this.#state.phase === 'requested' && this.#state.request === request ? request : undefined;
  }

  #reject(kind: StreamRequest['kind'], code: string, description: string): void {
    const request = this.#answer(kind);
    if (request === undefined) return;
    this.#enter({ phase: 'connected' });
    this.#sendStatus(request.streamId, 'error', code, description);
  }

  #handleMedia(message: RtmpMessage, events: ServerSessionEvent[]): void {
    const state = this.#state;
    // A refused publisher may have sent media before it read the refusal; a player's data is of no use.
    if (state.phase !== 'publishing' && !(state.phase === 'requested' && state.request.kind === 'publish'))
      return;
    if (message.streamId !== state.request.streamId && message.streamId !== 0) return;
    const media = flvMessageOf(message);
    if (media !== undefined) events.push({ type: 'message', message: media });
  }

  #handleCommand(command: Command, events: ServerSessionEvent[]): void {
    const { name, transactionId, values, streamId } = command;
    if (name === 'connect') {
      this.#connect(command, events);
      return;
    }
    if (this.#state.phase === 'awaiting-connect') {
      throw new MediaError('RTMP_BAD_COMMAND', `${printable(name)} came before connect.`);
    }
    switch (name) {
      case 'createStream':
        this.#sendResult(command, this.#nextStreamId++);
        return;
      case 'publish':
        // The type (live, record, append) is the same to a live server.
        this.#request('publish', command, events);
        return;
      case 'play':
        this.#request('play', command, events);
        return;
      case 'deleteStream':
        this.#endStream((request) => request.streamId === values[1], events);
        return;
      case 'closeStream':
        this.#endStream((request) => request.streamId === streamId, events);
        return;
      case 'FCUnpublish':
        this.#sendResult(command, undefined);
        this.#endStream((request) => request.kind === 'publish', events);
        return;
      case 'getStreamLength':
        this.#sendResult(command, 0); // live: no length
        return;
      case 'releaseStream':
      case 'FCPublish':
      case 'FCSubscribe':
      case '_checkbw':
        this.#sendResult(command, undefined);
        return;
      case '_result':
      case '_error':
      case 'onStatus':
        return; // Answers to calls that we never make.
      default:
        if (transactionId === 0) return;
        this.#connection.sendCommand(
          0,
          '_error',
          transactionId,
          null,
          statusInfo('error', 'NetConnection.Call.Failed', `There is no method ${printable(name)}.`),
        );
    }
  }

  #connect(command: Command, events: ServerSessionEvent[]): void {
    if (this.#state.phase !== 'awaiting-connect')
      throw new MediaError('RTMP_BAD_COMMAND', 'A second connect.');
    const [properties] = command.values;
    if (!isAmf0Object(properties)) throw new MediaError('RTMP_BAD_COMMAND', 'connect has no command object.');
    this.#tcUrl = stringProperty(properties, 'tcUrl') ?? '';
    // Some encoders put the application into the tcUrl alone.
    this.#app = stringProperty(properties, 'app') || pathOfUrl(this.#tcUrl);

    this.#connection.announceWindow(WINDOW_BYTES);
    this.#connection.sendControl({ type: 'set-peer-bandwidth', sizeBytes: WINDOW_BYTES, limit: 'dynamic' });
    this.#connection.setChunkSize(CHUNK_SIZE_BYTES);
    const isEnhanced = Object.keys(ENHANCEMENTS).some((key) => properties[key] !== undefined);
    // The specification does not say which of the two objects holds them; peers look in either.
    const enhancements = isEnhanced ? ENHANCEMENTS : {};
    this.#connection.sendCommand(
      0,
      '_result',
      command.transactionId,
      { fmsVer: 'FMS/3,0,1,123', capabilities: 31, ...enhancements },
      {
        ...statusInfo('status', 'NetConnection.Connect.Success', 'Connection succeeded.'),
        objectEncoding: properties.objectEncoding === 3 ? 3 : 0,
        ...enhancements,
      },
    );
    this.#enter({ phase: 'connected' });
    this.#receivable = receivableFourCcs(properties);
    const { capsEx } = properties;
    this.#canReconnect = typeof capsEx === 'number' && (capsEx & capsExMask.reconnect) !== 0;
    events.push({
      type: 'connect',
      app: splitQuery(this.#app).path,
      tcUrl: this.#tcUrl,
      fourCcList: [...new Set([...this.#receivable.video, ...this.#receivable.audio])],
    });
  }

  #request(kind: StreamRequest['kind'], command: Command, events: ServerSessionEvent[]): void {
    const { streamId, values } = command;
    const name = values[1];
    if (typeof name !== 'string') throw new MediaError('RTMP_BAD_COMMAND', `${kind} has no stream name.`);
    if ('request' in this.#state) {
      const description = `This connection has a stream to ${this.#state.request.kind} already.`;
      const code = kind === 'publish' ? 'NetStream.Publish.BadName' : 'NetStream.Play.Failed';
      this.#sendStatus(streamId, 'error', code, description);
      if (this.#state.request.kind !== kind) throw new MediaError('RTMP_BAD_COMMAND', description);
      return;
    }
    const request = { kind, streamId, target: targetOf(this.#tcUrl, this.#app, name) };
    this.#enter({ phase: 'requested', request });
    this.#unanswered.push(request);
    events.push({ type: kind, target: request.target });
  }

  #endStream(isMeant: (request: StreamRequest) => boolean, events: ServerSessionEvent[]): void {
    if (!('request' in this.#state)) return;
    const { request } = this.#state;
    if (!isMeant(request)) return;
    this.#enter({ phase: 'connected' });
    if (request.kind === 'publish') {
      const description = `${request.target.streamName} is unpublished.`;
      this.#sendStatus(request.streamId, 'status', 'NetStream.Unpublish.Success', description);
    }
    events.push({ type: 'unpublish' });
  }

  #sendResult(command: Command, result: Amf0Value): void {
    if (command.transactionId === 0) return;
    this.#connection.sendCommand(0, '_result', command.transactionId, null, result);
  }

  #sendStatus(streamId: number, level: 'status' | 'error', code: string, description: string): void {
    this.#connection.sendCommand(streamId, 'onStatus', 0, null, statusInfo(level, code, description));
  }

  #sendUserControl(event: number, streamId: number): void {
    this.#connection.sendControl({ type: 'user-control', event, values: [streamId] });
  }
}

function statusInfo(level: 'status' | 'error', code: string, description: string): Amf0Object {
  return { level, code, description };
}

/** A peer's words, cut and without control characters, for messages. */
function printable(text: string): string {
  return JSON.stringify(text.slice(0, 64));
}

/** FourCCs that a peer can receive; a star means any. */
interface ReceivableFourCcs {
  readonly video: ReadonlySet<string>;
  readonly audio: ReadonlySet<string>;
}

const ANY_FOUR_CC = '*';
const NOTHING_RECEIVABLE: ReceivableFourCcs = { video: new Set(), audio: new Set() };

/** The codecs that the `connect` command object says the peer can receive, whichever way it says so. */
function receivableFourCcs(properties: Amf0Object): ReceivableFourCcs {
  const list = Array.isArray(properties.fourCcList) ? properties.fourCcList : [];
  const listed = list.filter((entry) => typeof entry === 'string');
  return {
    video: new Set([...listed, ...receivableOf(properties.videoFourCcInfoMap)]),
    audio: new Set([...listed, ...receivableOf(properties.audioFourCcInfoMap)]),
  };
}

function receivableOf(fourCcInfoMap: Amf0Value): string[] {
  if (!isAmf0Object(fourCcInfoMap)) return [];
  const canReceive = fourCcInfoMask.canDecode | fourCcInfoMask.canForward;
  return Object.entries(fourCcInfoMap).flatMap(([fourCc, mask]) =>
    typeof mask === 'number' && (mask & canReceive) !== 0 ? [fourCc] : [],
  );
}

/** The path after the host of `rtmp://host:port/path`. */
function pathOfUrl(url: string): string {
  return /^[a-z]+:\/\/[^/]*\/(.*)$/is.exec(url)?.[1] ?? '';
}

function targetOf(tcUrl: string, app: string, streamName: string): PublishTarget {
  const name = splitQuery(streamName);
  const application = splitQuery(app);
  const query = new Map<string, string>();
  for (const source of [name.query, application.query, splitQuery(tcUrl).query]) {
    for (const pair of source.split('&')) {
      const [, key, value] = /^([^=]+)=?(.*)$/s.exec(pair) ?? [];
      if (key === undefined || value === undefined) continue;
      const decodedKey = percentDecode(key);
      if (!query.has(decodedKey)) query.set(decodedKey, percentDecode(value));
    }
  }
  return { app: application.path, streamName: name.path, query };
}

function splitQuery(text: string): { path: string; query: string } {
  const at = text.indexOf('?');
  const path = at < 0 ? text : text.slice(0, at);
  return { path: withoutOuterSlashes(path), query: at < 0 ? '' : text.slice(at + 1) };
}

/** By hand: a regular expression for the slashes at the end takes quadratic time where others follow them. */
function withoutOuterSlashes(path: string): string {
  let start = 0;
  let end = path.length;
  while (start < end && path[start] === '/') start++;
  while (end > start && path[end - 1] === '/') end--;
  return path.slice(start, end);
}

/** A plus sign stays one: keys may hold it, and encoders do not send forms. Malformed text stays as it is. */
function percentDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export type ClientSessionEvent =
  /** The server accepted; media may flow. */
  | { readonly type: 'ready' }
  /** The server refused, or ended what it had accepted. */
  | { readonly type: 'rejected'; readonly code: string; readonly description: string }
  | { readonly type: 'message'; readonly message: FlvMessage }
  /** Enhanced RTMP: go on, but move to `tcUrl` (or connect anew) at the next good moment. */
  | { readonly type: 'reconnect-request'; readonly tcUrl: string | undefined };

export type ClientSessionState =
  | { readonly phase: 'handshake' | 'connecting' | 'creating-stream' }
  | { readonly phase: 'requested' | 'ready'; readonly streamId: number }
  | { readonly phase: 'rejected' | 'closed' }
  | { readonly phase: 'failed'; readonly error: MediaError };

type ClientPhase = ClientSessionState['phase'];

const clientTransitions: Readonly<Record<ClientPhase, readonly ClientPhase[]>> = {
  handshake: ['connecting', 'closed', 'failed'],
  connecting: ['creating-stream', 'rejected', 'closed', 'failed'],
  'creating-stream': ['requested', 'rejected', 'closed', 'failed'],
  requested: ['ready', 'rejected', 'closed', 'failed'],
  ready: ['rejected', 'closed', 'failed'],
  rejected: ['closed', 'failed'],
  closed: [],
  failed: ['closed'],
};

const TRANSACTION_ID = {
  connect: 1,
  releaseStream: 2,
  fcPublish: 3,
  createStream: 4,
  request: 5,
  fcUnpublish: 6,
} as const;

/**
 * The client's side of one connection, which publishes or plays one stream.
 *
 * | phase           | event                                     | next phase      |
 * | --------------- | ----------------------------------------- | --------------- |
 * | handshake       | S2 is complete (sends connect)            | connecting      |
 * | connecting      | _result (sends createStream)              | creating-stream |
 * | creating-stream | _result (sends publish or play)           | requested       |
 * | requested       | onStatus Publish.Start or Play.Start      | ready           |
 * | connecting to ready | _error, onStatus of level error       | rejected        |
 * | any             | `close()`                                 | closed          |
 * | any             | malformed input                           | failed          |
 *
 * Call `takeOutput` at the start and after every other call.
 */
export class RtmpClientSession {
  readonly #mode: 'publish' | 'play';
  readonly #tcUrl: string;
  readonly #app: string;
  readonly #streamName: string;
  readonly #connection: RtmpConnection;
  #state: ClientSessionState = { phase: 'handshake' };

  /**
   * @param options.app without query, unless the server wants it there
   * @param options.streamName with its query, for instance `cam?key=K`
   * @param options.handshakeRandomBytes 1528 bytes
   * @param options.maxMessageBytes longer messages are refused
   */
  constructor(options: {
    readonly mode: 'publish' | 'play';
    readonly tcUrl: string;
    readonly app: string;
    readonly streamName: string;
    readonly handshakeRandomBytes: Uint8Array;
    readonly maxMessageBytes: number;
  }) {
    this.#mode = options.mode;
    this.#tcUrl = options.tcUrl;
    this.#app = options.app;
    this.#streamName = options.streamName;
    this.#connection = new RtmpConnection('client', options.handshakeRandomBytes, options.maxMessageBytes);
  }

  get state(): ClientSessionState {
    return this.#state;
  }

  #enter(next: ClientSessionState): void {
    if (!clientTransitions[this.#state.phase].includes(next.phase)) {
      throw new Error(`RTMP client session cannot go from ${this.#state.phase} to ${next.phase}`);
    }
    this.#state = next;
  }

  /**
   * Takes the next bytes from the server. Payloads of messages may be views of `bytes`.
   * @throws MediaError the session is then spent: every later call throws the same error
   */
  receive(bytes: Uint8Array): ClientSessionEvent[] {
    if (this.#state.phase === 'failed') throw this.#state.error;
    if (this.#state.phase === 'closed') return [];
    const events: ClientSessionEvent[] = [];
    try {
      const messages = this.#connection.receive(bytes);
      if (this.#state.phase === 'handshake' && this.#connection.isHandshakeComplete) this.#connect();
      for (const message of messages) {
        if (message.typeId === messageTypeId.command) this.#handleCommand(parseCommand(message), events);
        else this.#handleMedia(message, events);
      }
    } catch (error) {
      if (error instanceof MediaError) this.#enter({ phase: 'failed', error });
      throw error;
    }
    return events;
  }

  /** All bytes for the server since the last call; at first C0 and C1. */
  takeOutput(): Uint8Array | undefined {
    return this.#connection.takeOutput();
  }

  /**
   * Publishes a message; does nothing unless the session is ready, for the server may just have
   * ended it. Metadata is marked for the server to keep (`@setDataFrame`). The payload is read when
   * `takeOutput` is called.
   */
  sendMessage(message: FlvMessage): void {
    if (this.#mode !== 'publish') throw new Error('an RTMP player sends no media');
    if (this.#state.phase !== 'ready') return;
    const isMetadata = message.kind === 'data' && startsWith(message.payload, ON_META_DATA);
    this.#connection.sendMedia(
      this.#state.streamId,
      isMetadata ? { ...message, payload: concatBytes([SET_DATA_FRAME, message.payload]) } : message,
    );
  }

  /** True where the server takes what a {@link SharedChunkWriter} cuts: it is ready, and numbers streams as ours do. */
  get takesSharedChunks(): boolean {
    return this.#state.phase === 'ready' && this.#state.streamId === SHARED_STREAM_ID;
  }

  /** Says goodbye; what follows from the server is ignored. Idempotent. */
  close(): void {
    if (this.#state.phase === 'closed') return;
    if (this.#state.phase === 'requested' || this.#state.phase === 'ready') {
      if (this.#mode === 'publish') {
        this.#connection.sendCommand(0, 'FCUnpublish', TRANSACTION_ID.fcUnpublish, null, this.#streamName);
      }
      this.#connection.sendCommand(0, 'deleteStream', 0, null, this.#state.streamId);
    }
    this.#enter({ phase: 'closed' });
  }

  #connect(): void {
    this.#connection.sendCommand(0, 'connect', TRANSACTION_ID.connect, {
      app: this.#app,
      // Some servers take publishers only from what looks like Flash Media Live Encoder.
      ...(this.#mode === 'publish'
        ? { type: 'nonprivate', flashVer: 'FMLE/3.0 (compatible; Starling)' }
        : {
            flashVer: 'LNX 9,0,124,2',
            fpad: false,
            capabilities: 15,
            audioCodecs: 4071,
            videoCodecs: 252,
            videoFunction: 1,
          }),
      tcUrl: this.#tcUrl,
      objectEncoding: 0,
      ...ENHANCEMENTS,
    });
    this.#enter({ phase: 'connecting' });
  }

  #handleMedia(message: RtmpMessage, events: ClientSessionEvent[]): void {
    // Some servers send metadata before they say that play has started.
    if (this.#mode !== 'play' || !('streamId' in this.#state)) return;
    if (message.streamId !== this.#state.streamId && message.streamId !== 0) return;
    const media = flvMessageOf(message);
    if (media !== undefined) events.push({ type: 'message', message: media });
  }

  #handleCommand(command: Command, events: ClientSessionEvent[]): void {
    const { name, transactionId, values } = command;
    const info = values[1];
    if (name === 'onStatus') {
      this.#handleStatus(info, events);
    } else if (this.#state.phase === 'connecting' && transactionId === TRANSACTION_ID.connect) {
      if (name === '_result') this.#createStream();
      else if (name === '_error') this.#reject(info, 'NetConnection.Connect.Rejected', events);
    } else if (this.#state.phase === 'creating-stream' && transactionId === TRANSACTION_ID.createStream) {
      if (name === '_result') this.#requestStream(info);
      else if (name === '_error') this.#reject(info, 'NetConnection.Call.Failed', events);
    }
    // Everything else is advice (onBWDone) or the answer to a courtesy (releaseStream, FCPublish).
  }

  #handleStatus(info: Amf0Value, events: ClientSessionEvent[]): void {
    const code = stringProperty(info, 'code') ?? '';
    if (code === 'NetConnection.Connect.ReconnectRequest') {
      events.push({ type: 'reconnect-request', tcUrl: stringProperty(info, 'tcUrl') });
    } else if (stringProperty(info, 'level') === 'error') {
      this.#reject(info, 'NetStream.Failed', events);
    } else if (this.#state.phase === 'requested') {
      const started = this.#mode === 'publish' ? 'NetStream.Publish.Start' : 'NetStream.Play.Start';
      if (code !== started) return;
      this.#enter({ phase: 'ready', streamId: this.#state.streamId });
      events.push({ type: 'ready' });
    }
  }

  #createStream(): void {
    if (this.#mode === 'publish') {
      this.#connection.setChunkSize(CHUNK_SIZE_BYTES);
      this.#connection.sendCommand(0, 'releaseStream', TRANSACTION_ID.releaseStream, null, this.#streamName);
      this.#connection.sendCommand(0, 'FCPublish', TRANSACTION_ID.fcPublish, null, this.#streamName);
    }
    this.#connection.sendCommand(0, 'createStream', TRANSACTION_ID.createStream, null);
    this.#enter({ phase: 'creating-stream' });
  }

  #requestStream(streamId: Amf0Value): void {
    if (typeof streamId !== 'number' || streamId >>> 0 !== streamId) {
      throw new MediaError(
        'RTMP_BAD_COMMAND',
        `createStream gave the stream id ${typeof streamId === 'number' ? streamId : typeof streamId}.`,
      );
    }
    if (this.#mode === 'publish') {
      this.#connection.sendCommand(
        streamId,
        'publish',
        TRANSACTION_ID.request,
        null,
        this.#streamName,
        'live',
      );
    } else {
      const bufferMs = 3000;
      const liveOrRecorded = -2000;
      const values = [streamId, bufferMs];
      this.#connection.sendControl({ type: 'user-control', event: userControlEvent.setBufferLength, values });
      this.#connection.sendCommand(
        streamId,
        'play',
        TRANSACTION_ID.request,
        null,
        this.#streamName,
        liveOrRecorded,
      );
    }
    this.#enter({ phase: 'requested', streamId });
  }

  #reject(info: Amf0Value, fallbackCode: string, events: ClientSessionEvent[]): void {
    if (this.#state.phase === 'rejected') return;
    this.#enter({ phase: 'rejected' });
    events.push({
      type: 'rejected',
      code: stringProperty(info, 'code') ?? fallbackCode,
      description: stringProperty(info, 'description') ?? '',
    });
  }
}
