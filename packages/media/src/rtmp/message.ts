/**
 * RTMP messages: their types, the protocol control messages and the two wrappers (aggregate, AMF3).
 *
 * Source: RTMP 1.0 sections 5.4, 6.2 and 7.1.
 */
import { ByteReader, ByteWriter } from '../bytes.ts';
import { MediaError } from '../error.ts';

export interface RtmpMessage {
  /** One of {@link messageTypeId}, or another that a peer made up. */
  readonly typeId: number;
  /** Message stream id; 0 is the connection itself. */
  readonly streamId: number;
  /** Absolute, 32 bits, may wrap. */
  readonly timestampMs: number;
  readonly payload: Uint8Array;
}

export const messageTypeId = {
  setChunkSize: 1,
  abort: 2,
  acknowledgement: 3,
  userControl: 4,
  windowAcknowledgementSize: 5,
  setPeerBandwidth: 6,
  audio: 8,
  video: 9,
  dataAmf3: 15,
  commandAmf3: 17,
  data: 18,
  command: 20,
  aggregate: 22,
} as const;

/** User control events (7.1.7). */
export const userControlEvent = {
  streamBegin: 0,
  streamEof: 1,
  setBufferLength: 3,
  pingRequest: 6,
  pingResponse: 7,
} as const;

const bandwidthLimits = ['hard', 'soft', 'dynamic'] as const;

/** A chunk holds at most one message, whose length has 24 bits, so a greater chunk size means this one (5.4.1). */
const MAX_CHUNK_SIZE_BYTES = 0xff_ffff;

export type ControlMessage =
  | { readonly type: 'set-chunk-size'; readonly sizeBytes: number }
  | { readonly type: 'abort'; readonly chunkStreamId: number }
  /** `receivedBytes` counts from the end of the handshake, modulo 2^32. */
  | { readonly type: 'acknowledgement'; readonly receivedBytes: number }
  | { readonly type: 'window-acknowledgement-size'; readonly sizeBytes: number }
  | {
      readonly type: 'set-peer-bandwidth';
      readonly sizeBytes: number;
      readonly limit: (typeof bandwidthLimits)[number];
    }
  /** `values`: what the event carries, each 32 bits: a stream id, a ping's timestamp, a buffer length in ms. */
  | { readonly type: 'user-control'; readonly event: number; readonly values: readonly number[] };

/**
 * Parses a protocol control message.
 * @returns undefined when the message is of another type
 * @throws MediaError BYTES_TRUNCATED, RTMP_CHUNK_SIZE or RTMP_BAD_MESSAGE
 */
export function parseControlMessage(message: RtmpMessage): ControlMessage | undefined {
  if (message.typeId > messageTypeId.setPeerBandwidth) return undefined;
  const reader = new ByteReader(message.payload);
  switch (message.typeId) {
    case messageTypeId.setChunkSize: {
      const sizeBytes = reader.u32();
      if (sizeBytes < 1 || sizeBytes > 0x7fff_ffff) {
        throw new MediaError('RTMP_CHUNK_SIZE', `It announced ${sizeBytes}.`);
      }
      return { type: 'set-chunk-size', sizeBytes: Math.min(sizeBytes, MAX_CHUNK_SIZE_BYTES) };
    }
    case messageTypeId.abort:
      return { type: 'abort', chunkStreamId: reader.u32() };
    case messageTypeId.acknowledgement:
      return { type: 'acknowledgement', receivedBytes: reader.u32() };
    case messageTypeId.windowAcknowledgementSize:
      return { type: 'window-acknowledgement-size', sizeBytes: reader.u32() };
    case messageTypeId.setPeerBandwidth: {
      const sizeBytes = reader.u32();
      const limitType = reader.u8();
      const limit = bandwidthLimits[limitType];
      if (limit === undefined) {
        throw new MediaError('RTMP_BAD_MESSAGE', `Bandwidth limit type ${limitType}, allowed are 0 to 2.`);
      }
      return { type: 'set-peer-bandwidth', sizeBytes, limit };
    }
    case messageTypeId.userControl: {
      const event = reader.u16();
      const values: number[] = [];
      // No event has more than two; SWF verification (27) carries a digest that means nothing here.
      while (reader.remaining >= 4 && values.length < 2) values.push(reader.u32());
      return { type: 'user-control', event, values };
    }
    default:
      return undefined;
  }
}

/** Serialises a protocol control message; its chunks belong on chunk stream 2 (5.4). */
export function serializeControlMessage(control: ControlMessage): RtmpMessage {
  const writer = new ByteWriter(16);
  const finish = (typeId: number): RtmpMessage => ({
    typeId,
    streamId: 0,
    timestampMs: 0,
    payload: writer.finish(),
  });
  switch (control.type) {
    case 'set-chunk-size':
      writer.u32(control.sizeBytes);
      return finish(messageTypeId.setChunkSize);
    case 'abort':
      writer.u32(control.chunkStreamId);
      return finish(messageTypeId.abort);
    case 'acknowledgement':
      writer.u32(control.receivedBytes);
      return finish(messageTypeId.acknowledgement);
    case 'window-acknowledgement-size':
      writer.u32(control.sizeBytes);
      return finish(messageTypeId.windowAcknowledgementSize);
    case 'set-peer-bandwidth':
      writer.u32(control.sizeBytes).u8(bandwidthLimits.indexOf(control.limit));
      return finish(messageTypeId.setPeerBandwidth);
    case 'user-control':
      writer.u16(control.event);
      for (const value of control.values) writer.u32(value);
      return finish(messageTypeId.userControl);
  }
}

/**
 * Splits an aggregate message into its messages. They take the aggregate's stream id, and their
 * times move by the difference between the aggregate's and the first one's (7.1.6).
 *
 * @throws MediaError BYTES_TRUNCATED
 */
export function splitAggregate(aggregate: RtmpMessage): RtmpMessage[] {
  const reader = new ByteReader(aggregate.payload);
  const messages: RtmpMessage[] = [];
  let offsetMs: number | undefined;
  while (reader.remaining > 0) {
    const typeId = reader.u8();
    const sizeBytes = reader.u24();
    const timestampLow24 = reader.u24();
    const timestampMs = ((reader.u8() << 24) | timestampLow24) >>> 0;
    reader.skip(3); // stream id: the aggregate's counts
    const payload = reader.take(sizeBytes);
    reader.skip(4); // back pointer
    offsetMs ??= aggregate.timestampMs - timestampMs;
    messages.push({
      typeId,
      streamId: aggregate.streamId,
      timestampMs: (timestampMs + offsetMs) >>> 0,
      payload,
    });
  }
  return messages;
}

/**
 * Turns an AMF3 data or command message into its AMF0 form: real peers put one zero byte before
 * AMF0 values, which may themselves switch to AMF3. Other messages are returned as they are.
 */
export function unwrapAmf3(message: RtmpMessage): RtmpMessage {
  const { typeId, payload } = message;
  if (typeId !== messageTypeId.dataAmf3 && typeId !== messageTypeId.commandAmf3) return message;
  return {
    ...message,
    typeId: typeId === messageTypeId.dataAmf3 ? messageTypeId.data : messageTypeId.command,
    payload: payload[0] === 0 ? payload.subarray(1) : payload,
  };
}
