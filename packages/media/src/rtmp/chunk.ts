/**
 * The RTMP chunk stream: messages cut into chunks and put together again.
 *
 * A chunk is a basic header (format and chunk stream id, 1 to 3 bytes), a message header (11, 7, 3
 * or 0 bytes for formats 0 to 3), an extended timestamp (0 or 4 bytes) and payload.
 *
 * Source: RTMP 1.0 section 5.3.1.
 */
import { concatBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';
import { messageTypeId, parseControlMessage, type RtmpMessage, serializeControlMessage } from './message.ts';

/** Until the peer says otherwise (5.4.1). */
const DEFAULT_CHUNK_SIZE_BYTES = 128;
/** Of a timestamp field: the value is in the extended timestamp (5.3.1.3). */
const EXTENDED = 0xff_ffff;
const MESSAGE_HEADER_BYTES = [11, 7, 3, 0] as const;
const MAX_HEADER_BYTES = 3 + 11 + 4;
/** Encoders use three to six. */
const MAX_CHUNK_STREAMS = 64;
/** Protocol control messages (5.4). */
export const CONTROL_CHUNK_STREAM_ID = 2;

/** What later chunks on a chunk stream leave out, and the message that is being received on it. */
interface ChunkStream {
  timestampMs: number;
  deltaMs: number;
  /** The last extended timestamp as it was sent; undefined when the last header had none. */
  extendedTimestamp: number | undefined;
  lengthBytes: number;
  typeId: number;
  streamId: number;
  isReceiving: boolean;
  /** The payload received so far, when it came in pieces; grows as data comes. */
  assembly: Uint8Array;
  receivedBytes: number;
}

const NOTHING = new Uint8Array(0);

/**
 * Puts messages together from bytes split anywhere. It obeys Set Chunk Size and Abort itself and
 * does not return them.
 *
 * Bounds: 64 chunk streams; every message at most `maxMessageBytes`, all unfinished ones together at
 * most twice that, and never more than about twice what the peer has sent. An announced length takes
 * no memory.
 */
export class ChunkReader {
  readonly #maxMessageBytes: number;
  readonly #chunkStreams = new Map<number, ChunkStream>();
  #chunkSizeBytes = DEFAULT_CHUNK_SIZE_BYTES;
  /** The chunk whose payload is being read, and what is left of it. */
  #current: ChunkStream | undefined;
  #chunkBytesLeft = 0;
  /** The front of a header that the last input cut off. */
  #tail: Uint8Array = NOTHING;
  #assemblyBytes = 0;

  constructor(options: { readonly maxMessageBytes: number }) {
    this.#maxMessageBytes = options.maxMessageBytes;
  }

  /**
   * Takes the next bytes.
   *
   * A payload that lies in one piece in `bytes` is returned as a view of it, so the caller must not
   * write to `bytes` afterwards. Every other payload is a copy.
   *
   * @returns the messages that these bytes complete
   * @throws MediaError the reader is then spent
   */
  push(bytes: Uint8Array): RtmpMessage[] {
    const messages: RtmpMessage[] = [];
    let offset = 0;
    if (this.#tail.length > 0) {
      // Completing the cut header takes only the front of the input, not a copy of all of it.
      const borrowedBytes = Math.min(MAX_HEADER_BYTES, bytes.length);
      const joined = concatBytes([this.#tail, bytes.subarray(0, borrowedBytes)]);
      const leftBytes = joined.length - this.#consume(joined, messages);
      if (leftBytes > borrowedBytes) {
        this.#tail = joined;
        return messages;
      }
      offset = borrowedBytes - leftBytes;
    }
    const rest = bytes.subarray(offset);
    this.#tail = rest.slice(this.#consume(rest, messages));
    return messages;
  }

  /** @returns how many bytes it took: all but a header that is not yet whole */
  #consume(bytes: Uint8Array, messages: RtmpMessage[]): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let offset = 0;
    while (offset < bytes.length) {
      let stream = this.#current;
      if (stream === undefined) {
        offset = this.#readHeader(view, offset);
        stream = this.#current;
        if (stream === undefined) break;
      }
      const availableBytes = bytes.length - offset;
      const left = this.#chunkBytesLeft;
      let payload: Uint8Array | undefined;
      if (left === stream.lengthBytes && left <= availableBytes) {
        payload = bytes.subarray(offset, offset + left);
        offset += left;
      } else {
        const pieceBytes = Math.min(left, availableBytes);
        this.#append(stream, bytes.subarray(offset, offset + pieceBytes), availableBytes);
        offset += pieceBytes;
        this.#chunkBytesLeft -= pieceBytes;
        if (this.#chunkBytesLeft > 0) break;
        if (stream.receivedBytes === stream.lengthBytes) payload = stream.assembly;
      }
      this.#current = undefined;
      if (payload === undefined) continue;
      this.#release(stream);
      this.#complete(
        { typeId: stream.typeId, streamId: stream.streamId, timestampMs: stream.timestampMs, payload },
        messages,
      );
    }
    return offset;
  }

  /**
   * Reads the header at `at` and makes its chunk the current one; leaves everything as it is when
   * the header is not yet whole.
   * @returns the offset of the payload, or `at`
   */
  #readHeader(view: DataView, at: number): number {
    const end = view.byteLength;
    let offset = at;
    const format = view.getUint8(offset) >> 6;
    let chunkStreamId = view.getUint8(offset) & 0x3f;
    offset++;
    if (chunkStreamId === 0) {
      if (end - offset < 1) return at;
      chunkStreamId = 64 + view.getUint8(offset);
      offset += 1;
    } else if (chunkStreamId === 1) {
      if (end - offset < 2) return at;
      chunkStreamId = 64 + view.getUint16(offset, true);
      offset += 2;
    }
    const known = this.#chunkStreams.get(chunkStreamId);
    // librtmp (OBS) answers pings with format 1 though nothing went before on the control chunk stream.
    const mayBeFirst = format === 0 || (format === 1 && chunkStreamId === CONTROL_CHUNK_STREAM_ID);
    if (known === undefined && !mayBeFirst) {
      throw new MediaError(
        'RTMP_CHUNK_WITHOUT_HEADER',
        `Chunk stream ${chunkStreamId} begins with a chunk of format ${format}.`,
      );
    }
    if (known === undefined && this.#chunkStreams.size === MAX_CHUNK_STREAMS) {
      throw new MediaError('RTMP_TOO_MANY_CHUNK_STREAMS', `At most ${MAX_CHUNK_STREAMS} are accepted.`);
    }
    const stream = known ?? newChunkStream();
    if (stream.isReceiving && format !== 3) {
      throw new MediaError(
        'RTMP_BAD_MESSAGE',
        `A new message begins on chunk stream ${chunkStreamId} after ${stream.receivedBytes} of ${stream.lengthBytes} bytes of the last.`,
      );
    }

    if (end - offset < (MESSAGE_HEADER_BYTES[format] ?? 0)) return at;
    let { lengthBytes, typeId, streamId } = stream;
    let timestampField = stream.extendedTimestamp === undefined ? stream.deltaMs : EXTENDED;
    if (format <= 2) {
      timestampField = readU24(view, offset);
      offset += 3;
    }
    if (format <= 1) {
      lengthBytes = readU24(view, offset);
      typeId = view.getUint8(offset + 3);
      offset += 4;
      if (lengthBytes > this.#maxMessageBytes) {
        throw new MediaError(
          'RTMP_MESSAGE_TOO_LONG',
          `A message of type ${typeId} has ${lengthBytes} bytes, ${this.#maxMessageBytes} are allowed.`,
        );
      }
    }
    if (format === 0) {
      streamId = view.getUint32(offset, true);
      offset += 4;
    }

    if (stream.isReceiving) {
      const extendedBytes = repeatedExtendedTimestampBytes(view, offset, stream);
      if (extendedBytes === undefined) return at;
      offset += extendedBytes;
    } else {
      let extendedTimestamp: number | undefined;
      if (timestampField === EXTENDED) {
        if (end - offset < 4) return at;
        extendedTimestamp = view.getUint32(offset);
        offset += 4;
      }
      // A format 3 chunk right after a format 0 chunk takes that one's timestamp for its delta (5.3.1.2.4).
      const deltaMs = extendedTimestamp ?? timestampField;
      stream.timestampMs = format === 0 ? deltaMs : (stream.timestampMs + deltaMs) >>> 0;
      stream.deltaMs = deltaMs;
      stream.extendedTimestamp = extendedTimestamp;
      stream.lengthBytes = lengthBytes;
      stream.typeId = typeId;
      stream.streamId = streamId;
      stream.isReceiving = true;
      if (known === undefined) this.#chunkStreams.set(chunkStreamId, stream);
    }
    this.#current = stream;
    this.#chunkBytesLeft = Math.min(this.#chunkSizeBytes, stream.lengthBytes - stream.receivedBytes);
    return offset;
  }

  /** @param availableBytes how much input is here: the assembly grows to take it all in one step */
  #append(stream: ChunkStream, piece: Uint8Array, availableBytes: number): void {
    const neededBytes = stream.receivedBytes + piece.length;
    if (stream.assembly.length < neededBytes) {
      const capacityBytes = Math.min(
        stream.lengthBytes,
        Math.max(stream.receivedBytes + availableBytes, 2 * stream.assembly.length),
      );
      this.#assemblyBytes += capacityBytes - stream.assembly.length;
      if (this.#assemblyBytes > 2 * this.#maxMessageBytes) {
        throw new MediaError(
          'RTMP_MESSAGE_TOO_LONG',
          `Unfinished messages take ${this.#assemblyBytes} bytes together, ${2 * this.#maxMessageBytes} are allowed.`,
        );
      }
      const grown = new Uint8Array(capacityBytes);
      grown.set(stream.assembly.subarray(0, stream.receivedBytes));
      stream.assembly = grown;
    }
    stream.assembly.set(piece, stream.receivedBytes);
    stream.receivedBytes = neededBytes;
  }

  #release(stream: ChunkStream): void {
    this.#assemblyBytes -= stream.assembly.length;
    stream.assembly = NOTHING;
    stream.receivedBytes = 0;
    stream.isReceiving = false;
  }

  #complete(message: RtmpMessage, messages: RtmpMessage[]): void {
    if (message.typeId !== messageTypeId.setChunkSize && message.typeId !== messageTypeId.abort) {
      messages.push(message);
      return;
    }
    const control = parseControlMessage(message);
    if (control?.type === 'set-chunk-size') this.#chunkSizeBytes = control.sizeBytes;
    if (control?.type === 'abort') {
      const aborted = this.#chunkStreams.get(control.chunkStreamId);
      if (aborted !== undefined) this.#release(aborted);
    }
  }
}

function newChunkStream(): ChunkStream {
  return {
    timestampMs: 0,
    deltaMs: 0,
    extendedTimestamp: undefined,
    lengthBytes: 0,
    typeId: 0,
    streamId: 0,
    isReceiving: false,
    assembly: NOTHING,
    receivedBytes: 0,
  };
}

/**
 * Size of the extended timestamp of a format 3 chunk within a message: 4 when the first header had
 * one, as the specification asks, but 0 when the bytes here are other than that, because encoders
 * that leave it out are in use (OBS until 2024). A repeated timestamp is the field as sent or,
 * with some servers, the absolute time.
 * @returns undefined while the bytes at hand do not decide it
 */
function repeatedExtendedTimestampBytes(
  view: DataView,
  offset: number,
  stream: ChunkStream,
): 0 | 4 | undefined {
  if (stream.extendedTimestamp === undefined) return 0;
  const sizeBytes = Math.min(4, view.byteLength - offset);
  let front = 0;
  for (let i = 0; i < sizeBytes; i++) front = front * 256 + view.getUint8(offset + i);
  const scale = 256 ** (4 - sizeBytes);
  const isRepeated =
    front === Math.floor(stream.extendedTimestamp / scale) ||
    front === Math.floor(stream.timestampMs / scale);
  if (!isRepeated) return 0;
  return sizeBytes === 4 ? 4 : undefined;
}

function readU24(view: DataView, offset: number): number {
  return (view.getUint16(offset) << 8) | view.getUint8(offset + 2);
}

/**
 * Cuts messages into chunks. A message begins with format 1 where it follows the last one on its
 * chunk stream by less than 4.6 hours, otherwise with format 0; so after the first message, players
 * that read extended timestamps wrongly do not meet any.
 */
export class ChunkWriter {
  readonly #output: Uint8Array[];
  readonly #last = new Map<number, { readonly streamId: number; readonly timestampMs: number }>();
  #chunkSizeBytes: number;

  /**
   * @param output where the chunks are appended, in pieces; payloads are views, not copies
   * @param chunkSizeBytes what the peer has been told already
   */
  constructor(output: Uint8Array[], chunkSizeBytes = DEFAULT_CHUNK_SIZE_BYTES) {
    this.#output = output;
    this.#chunkSizeBytes = chunkSizeBytes;
  }

  /** Tells the peer the size of the chunks that follow, 1 to 16777215 bytes, and uses it. */
  setChunkSize(sizeBytes: number): void {
    this.write(CONTROL_CHUNK_STREAM_ID, serializeControlMessage({ type: 'set-chunk-size', sizeBytes }));
    this.#chunkSizeBytes = sizeBytes;
  }

  /** From here on no chunk refers to one before. */
  restart(): void {
    this.#last.clear();
  }

  /** @param chunkStreamId 2 to 65599 */
  write(chunkStreamId: number, message: RtmpMessage): void {
    this.writeParts(chunkStreamId, message, [message.payload]);
  }

  /** A message whose payload lies in several pieces. Headers are small enough for V8 to keep them on its heap. */
  writeParts(
    chunkStreamId: number,
    { typeId, streamId, timestampMs }: Omit<RtmpMessage, 'payload'>,
    parts: readonly Uint8Array[],
  ): void {
    let lengthBytes = 0;
    for (const part of parts) lengthBytes += part.length;
    const last = this.#last.get(chunkStreamId);
    const deltaMs = last === undefined ? 0 : (timestampMs - last.timestampMs) >>> 0;
    const isRelative = last?.streamId === streamId && deltaMs < EXTENDED;
    const time = isRelative ? deltaMs : timestampMs;
    const extended = time >= EXTENDED ? time : undefined;

    const basicBytes = basicHeaderSizeBytes(chunkStreamId);
    const header = new Uint8Array(basicBytes + (isRelative ? 7 : 11) + (extended === undefined ? 0 : 4));
    writeBasicHeader(header, isRelative ? 1 : 0, chunkStreamId);
    writeU24(header, basicBytes, extended === undefined ? time : EXTENDED);
    writeU24(header, basicBytes + 3, lengthBytes);
    header[basicBytes + 6] = typeId;
    if (!isRelative) {
      for (let i = 0; i < 4; i++) header[basicBytes + 7 + i] = streamId >>> (8 * i); // little-endian
    }
    if (extended !== undefined) writeU32(header, header.length - 4, extended);
    this.#output.push(header);

    let leftBytes = this.#chunkSizeBytes;
    let continuation: Uint8Array | undefined;
    for (const part of parts) {
      for (let from = 0; from < part.length; ) {
        if (leftBytes === 0) {
          continuation ??= continuationHeader(chunkStreamId, extended);
          this.#output.push(continuation);
          leftBytes = this.#chunkSizeBytes;
        }
        const pieceBytes = Math.min(leftBytes, part.length - from);
        this.#output.push(pieceBytes === part.length ? part : part.subarray(from, from + pieceBytes));
        from += pieceBytes;
        leftBytes -= pieceBytes;
      }
    }
    this.#last.set(chunkStreamId, { streamId, timestampMs });
  }
}

function continuationHeader(chunkStreamId: number, extended: number | undefined): Uint8Array {
  const basicBytes = basicHeaderSizeBytes(chunkStreamId);
  const header = new Uint8Array(basicBytes + (extended === undefined ? 0 : 4));
  writeBasicHeader(header, 3, chunkStreamId);
  if (extended !== undefined) writeU32(header, basicBytes, extended);
  return header;
}

function basicHeaderSizeBytes(chunkStreamId: number): number {
  return chunkStreamId < 64 ? 1 : chunkStreamId < 64 + 256 ? 2 : 3;
}

function writeBasicHeader(target: Uint8Array, format: number, chunkStreamId: number): void {
  if (chunkStreamId < 64) {
    target[0] = (format << 6) | chunkStreamId;
  } else if (chunkStreamId < 64 + 256) {
    target[0] = format << 6;
    target[1] = chunkStreamId - 64;
  } else {
    target[0] = (format << 6) | 1;
    target[1] = chunkStreamId - 64; // little-endian; stores keep the low 8 bits
    target[2] = (chunkStreamId - 64) >> 8;
  }
}

function writeU24(target: Uint8Array, at: number, value: number): void {
  target[at] = value >> 16;
  target[at + 1] = value >> 8;
  target[at + 2] = value;
}

function writeU32(target: Uint8Array, at: number, value: number): void {
  target[at] = value >>> 24;
  writeU24(target, at + 1, value);
}
