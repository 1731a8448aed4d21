import { describe, expect, test } from 'vitest';
import { concatBytes } from '../bytes.ts';
import {
  type ControlMessage,
  parseControlMessage,
  type RtmpMessage,
  serializeControlMessage,
  splitAggregate,
  unwrapAmf3,
} from './message.ts';

const message = (typeId: number, payload: number[], timestampMs = 0): RtmpMessage => ({
  typeId,
  streamId: 0,
  timestampMs,
  payload: Uint8Array.from(payload),
});

/** RTMP 1.0 sections 5.4.1 to 5.4.5 and 7.1.7. */
const golden: [ControlMessage, RtmpMessage][] = [
  [{ type: 'set-chunk-size', sizeBytes: 4096 }, message(1, [0, 0, 0x10, 0])],
  [{ type: 'abort', chunkStreamId: 6 }, message(2, [0, 0, 0, 6])],
  [{ type: 'acknowledgement', receivedBytes: 0xfffffffe }, message(3, [0xff, 0xff, 0xff, 0xfe])],
  [
    { type: 'user-control', event: 3, values: [1, 3000] }, // SetBufferLength
    message(4, [0, 3, 0, 0, 0, 1, 0, 0, 0x0b, 0xb8]),
  ],
  [{ type: 'user-control', event: 6, values: [0x01020304] }, message(4, [0, 6, 1, 2, 3, 4])], // PingRequest
  [{ type: 'window-acknowledgement-size', sizeBytes: 2_500_000 }, message(5, [0, 0x26, 0x25, 0xa0])],
  [
    { type: 'set-peer-bandwidth', sizeBytes: 2_500_000, limit: 'dynamic' },
    message(6, [0, 0x26, 0x25, 0xa0, 2]),
  ],
];

describe('control messages', () => {
  test.each(golden)('%j', (control, expected) => {
    expect(serializeControlMessage(control)).toEqual(expected);
    expect(parseControlMessage(expected)).toEqual(control);
    for (let length = 0; length < expected.payload.length; length++) {
      const cut = { ...expected, payload: expected.payload.subarray(0, length) };
      // A user control event may have no value at all (SWF verification).
      if (control.type !== 'user-control' || length < 2) {
        expect(() => parseControlMessage(cut)).toThrow(/BYTES_TRUNCATED/);
      }
    }
  });

  test('other messages are none', () => {
    expect(parseControlMessage(message(9, [0x17]))).toBeUndefined();
  });

  test.each([
    ['0', [0, 0, 0, 0]],
    ['with the top bit set', [0x80, 0, 0, 1]],
  ])('a chunk size %s is refused', (_, payload) => {
    expect(() => parseControlMessage(message(1, payload))).toThrow(/RTMP_CHUNK_SIZE/);
  });

  test('a chunk size beyond the longest message means the longest message', () => {
    expect(parseControlMessage(message(1, [0x7f, 0xff, 0xff, 0xff]))).toEqual({
      type: 'set-chunk-size',
      sizeBytes: 0xffffff,
    });
  });

  test('a bandwidth limit that is not defined is refused', () => {
    expect(() => parseControlMessage(message(6, [0, 0, 0, 1, 3]))).toThrow(/RTMP_BAD_MESSAGE/);
  });
});

describe('aggregate', () => {
  // RTMP 1.0 section 7.1.6: each message as an FLV tag with a back pointer.
  const aggregate = Uint8Array.from([
    ...[8, 0, 0, 2, 0x00, 0x00, 0x0a, 0x00, 0, 0, 0, 0xaf, 0x01, 0, 0, 0, 13], // audio at 10 ms
    ...[9, 0, 0, 1, 0x00, 0x00, 0x1e, 0x00, 0, 0, 0, 0x17, 0, 0, 0, 12], // video at 30 ms
    ...[8, 0, 0, 0, 0x00, 0x00, 0x05, 0x01, 0, 0, 0, 0, 0, 0, 11], // audio at 0x01000005 ms, empty
  ]);

  test('splits, and moves the times so that the first is at the aggregate', () => {
    const parts = splitAggregate({ typeId: 22, streamId: 1, timestampMs: 1010, payload: aggregate });
    expect(parts).toEqual([
      { typeId: 8, streamId: 1, timestampMs: 1010, payload: Uint8Array.of(0xaf, 0x01) },
      { typeId: 9, streamId: 1, timestampMs: 1030, payload: Uint8Array.of(0x17) },
      { typeId: 8, streamId: 1, timestampMs: 0x01000005 + 1000, payload: new Uint8Array(0) },
    ]);
  });

  test('times wrap at 2^32', () => {
    const parts = splitAggregate({ typeId: 22, streamId: 1, timestampMs: 0xfffffffa, payload: aggregate });
    expect(parts.map((part) => part.timestampMs)).toEqual([0xfffffffa, 14, 0x00ffffff - 0x10 + 6]);
  });

  test('truncated', () => {
    const whole = [0, 17, 33, aggregate.length];
    for (let length = 0; length <= aggregate.length; length++) {
      const split = () =>
        splitAggregate({ typeId: 22, streamId: 1, timestampMs: 0, payload: aggregate.subarray(0, length) });
      if (whole.includes(length)) expect(split()).toHaveLength(whole.indexOf(length));
      else expect(split).toThrow(/BYTES_TRUNCATED/);
    }
  });
});

test('AMF3 data and commands lose their zero byte', () => {
  const amf0 = [0x02, 0, 1, 0x61];
  expect(unwrapAmf3(message(15, [0, ...amf0]))).toEqual(message(18, amf0));
  expect(unwrapAmf3(message(17, [0, ...amf0]))).toEqual(message(20, amf0));
  expect(unwrapAmf3(message(17, amf0))).toEqual(message(20, amf0));
  expect(unwrapAmf3(message(20, amf0))).toEqual(message(20, amf0));
  expect(concatBytes([unwrapAmf3(message(15, [])).payload])).toEqual(new Uint8Array(0));
});
