import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { concatBytes } from '../bytes.ts';
import { MediaError, type MediaErrorCode } from '../error.ts';
import { ChunkReader, ChunkWriter } from './chunk.ts';
import { type RtmpMessage, serializeControlMessage } from './message.ts';

const MAX_MESSAGE_BYTES = 100_000;
const newReader = () => new ChunkReader({ maxMessageBytes: MAX_MESSAGE_BYTES });
const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'));
const filled = (length: number, from = 0) => Uint8Array.from({ length }, (_, i) => (i + from) & 0xff);

/** A message without its payload's identity, to compare. */
const plain = (message: RtmpMessage) => ({
  ...message,
  payload: Buffer.from(message.payload).toString('hex'),
});

function readAll(chunks: Uint8Array, pieceBytes = chunks.length): RtmpMessage[] {
  const reader = newReader();
  const messages: RtmpMessage[] = [];
  for (let at = 0; at < chunks.length; at += pieceBytes) {
    messages.push(...reader.push(chunks.slice(at, at + pieceBytes)));
  }
  return messages;
}

function codeOf(action: () => unknown): MediaErrorCode | undefined {
  try {
    action();
  } catch (error) {
    if (error instanceof MediaError) return error.code;
    throw error;
  }
  return undefined;
}

describe('examples of RTMP 1.0 section 5.3.2', () => {
  const audio = (timestampMs: number, from: number): RtmpMessage => ({
    typeId: 8,
    streamId: 12345,
    timestampMs,
    payload: filled(32, from),
  });

  // 5.3.2.1: formats 0, 2, 3, 3 on chunk stream 3; 44, 36, 33 and 33 bytes.
  const audioChunks = concatBytes([
    hex('03 0003e8 000020 08 39300000'), // time 1000, length 32, type 8, stream 12345 (little-endian)
    filled(32, 0),
    hex('83 000014'), // delta 20
    filled(32, 1),
    hex('c3'),
    filled(32, 2),
    hex('c3'),
    filled(32, 3),
  ]);
  const audioMessages = [audio(1000, 0), audio(1020, 1), audio(1040, 2), audio(1060, 3)];

  // 5.3.2.2: one message of 307 bytes in chunks of 140, 129 and 52 bytes.
  const video: RtmpMessage = { typeId: 9, streamId: 12346, timestampMs: 1000, payload: filled(307) };
  const videoChunks = concatBytes([
    hex('04 0003e8 000133 09 3a300000'),
    video.payload.subarray(0, 128),
    hex('c4'),
    video.payload.subarray(128, 256),
    hex('c4'),
    video.payload.subarray(256),
  ]);

  test('have the lengths that the specification states', () => {
    expect([audioChunks.length, videoChunks.length]).toEqual([44 + 36 + 33 + 33, 140 + 129 + 52]);
  });

  test('are read, split at any byte', () => {
    const chunks = concatBytes([audioChunks, videoChunks]);
    const expected = [...audioMessages, video].map(plain);
    for (let at = 0; at <= chunks.length; at++) {
      const reader = newReader();
      const messages = [...reader.push(chunks.slice(0, at)), ...reader.push(chunks.slice(at))];
      expect(messages.map(plain)).toEqual(expected);
    }
    for (const pieceBytes of [1, 2, 3, 5, 7])
      expect(readAll(chunks, pieceBytes).map(plain)).toEqual(expected);
  });

  test('the second is written', () => {
    const output: Uint8Array[] = [];
    new ChunkWriter(output).write(4, video);
    expect(concatBytes(output)).toEqual(videoChunks);
  });
});

describe('basic header (5.3.1.1)', () => {
  const body = '000000 000001 09 01000000 aa';
  test.each([
    [2, `02 ${body}`],
    [63, `3f ${body}`],
    [64, `00 00 ${body}`],
    [319, `00 ff ${body}`],
    [320, `01 00 01 ${body}`],
    [65_599, `01 ff ff ${body}`],
  ])('chunk stream %d', (chunkStreamId, text) => {
    const message = { typeId: 9, streamId: 1, timestampMs: 0, payload: Uint8Array.of(0xaa) };
    const output: Uint8Array[] = [];
    new ChunkWriter(output).write(chunkStreamId, message);
    expect(concatBytes(output)).toEqual(hex(text));
    for (const pieceBytes of [1, 100]) expect(readAll(hex(text), pieceBytes)).toEqual([message]);
  });

  test('a chunk stream below 320 in its 3-byte form is the same chunk stream', () => {
    const messages = readAll(hex(`00 05 ${body} 01 05 00 ${body} 80 05 000007 bb`));
    expect(messages.map((message) => message.timestampMs)).toEqual([0, 0, 7]);
  });
});

describe('timestamps', () => {
  const times = (text: string) => readAll(hex(text)).map((message) => message.timestampMs);

  test('0xFFFFFE needs no extended timestamp, 0xFFFFFF does', () => {
    expect(times('03 fffffe 000001 08 01000000 aa')).toEqual([0xfffffe]);
    expect(times('03 ffffff 000001 08 01000000 00ffffff aa')).toEqual([0xffffff]);
    expect(times('03 ffffff 000001 08 01000000 fffffffe aa')).toEqual([0xfffffffe]);
  });

  test('deltas wrap at 2^32', () => {
    expect(times('03 ffffff 000001 08 01000000 fffffff0 aa  83 000020 bb  c3 cc')).toEqual([
      0xfffffff0, 0x10, 0x30,
    ]);
  });

  test('an extended delta, and its repetition by format 3 on a new message', () => {
    expect(times('03 00000a 000001 08 01000000 aa  83 ffffff 01000000 bb  c3 01000000 cc')).toEqual([
      10, 0x0100000a, 0x0200000a,
    ]);
  });

  test('format 3 right after format 0 takes its timestamp for the delta (5.3.1.2.4)', () => {
    expect(times('03 000017 000001 08 01000000 aa  c3 bb')).toEqual([23, 46]);
  });

  test('the first time is written in format 0, small steps in format 1, all else in format 0', () => {
    const output: Uint8Array[] = [];
    const writer = new ChunkWriter(output);
    const write = (timestampMs: number) => {
      writer.write(4, { typeId: 8, streamId: 1, timestampMs, payload: Uint8Array.of(0xaa) });
      return Buffer.from(concatBytes(output.splice(0))).toString('hex');
    };
    expect(write(0x01000000)).toBe('04ffffff0000010801000000' + '01000000' + 'aa');
    expect(write(0x01000017)).toBe('44000017' + '000001' + '08' + 'aa');
    expect(write(0x01000010)).toBe('04ffffff000001080100000001000010aa'); // backwards
    expect(write(0x02000010)).toBe('04ffffff000001080100000002000010aa'); // a leap of 4.7 hours
    expect(write(0x0300000f)).toBe('04ffffff00000108010000000300000faa'); // just too far for 24 bits
    expect(write(0xffffffff)).toBe('04ffffff0000010801000000ffffffffaa');
    expect(write(0x00000003)).toBe('4400000400000108aa'); // over the wrap
  });

  test('every continuation that is written repeats the extended timestamp', () => {
    const output: Uint8Array[] = [];
    new ChunkWriter(output).write(4, {
      typeId: 9,
      streamId: 1,
      timestampMs: 0x01020304,
      payload: new Uint8Array(300).fill(0xbb),
    });
    expect(Buffer.from(concatBytes(output)).toString('hex')).toBe(
      `04ffffff00012c090100000001020304${'bb'.repeat(128)}c401020304${'bb'.repeat(128)}c401020304${'bb'.repeat(44)}`,
    );
  });
});

describe('extended timestamp of format 3 within a message', () => {
  const payload = filled(300, 0x40);
  const message = { typeId: 9, streamId: 1, timestampMs: 0x01020304, payload };
  const chunks = (continuation: string) =>
    concatBytes([
      hex('04 ffffff 00012c 09 01000000 01020304'),
      payload.subarray(0, 128),
      hex(continuation),
      payload.subarray(128, 256),
      hex(continuation),
      payload.subarray(256),
    ]);

  test.each([
    ['repeated', 'c4 01020304'],
    ['left out, as old OBS does', 'c4'],
  ])('%s, split at any byte', (_, continuation) => {
    const input = chunks(continuation);
    for (let at = 0; at <= input.length; at++) {
      const reader = newReader();
      expect([...reader.push(input.slice(0, at)), ...reader.push(input.slice(at))]).toEqual([message]);
    }
    expect(readAll(input, 1)).toEqual([message]);
  });

  test('left out before a last chunk of one byte that is the last one sent', () => {
    const short = filled(129, 0x40);
    const input = concatBytes([
      hex('04 ffffff 000081 09 01000000 01020304'),
      short.subarray(0, 128),
      hex('c4'),
      short.subarray(128),
    ]);
    for (const pieceBytes of [1, input.length]) {
      expect(readAll(input, pieceBytes)).toEqual([{ ...message, payload: short }]);
    }
  });

  test('of a delta: the delta or the absolute time may be repeated', () => {
    const first = hex('04 ffffff 000001 09 01000000 01000000 aa');
    const second = (continuation: string) =>
      concatBytes([hex('44 ffffff 000081 09 02000000'), filled(128), hex(continuation), filled(1, 128)]);
    for (const continuation of ['c4 02000000', 'c4 03000000', 'c4']) {
      const messages = readAll(concatBytes([first, second(continuation)]));
      expect(messages[1]).toEqual({ typeId: 9, streamId: 1, timestampMs: 0x03000000, payload: filled(129) });
    }
  });
});

describe('control messages obeyed by the reader', () => {
  const first = '04 000000 000104 09 01000000'; // 260 bytes
  const setChunkSize = (size: string) => `02 000000 000004 01 00000000 ${size}`;

  test('a chunk size that changes in the middle of a message on another chunk stream', () => {
    const payload = filled(260);
    const input = concatBytes([
      hex(first),
      payload.subarray(0, 128),
      hex(setChunkSize('00000064')), // 100
      hex('c4'),
      payload.subarray(128, 228),
      hex(setChunkSize('00010000')),
      hex('c4'),
      payload.subarray(228),
    ]);
    for (const pieceBytes of [1, 50, input.length]) {
      expect(readAll(input, pieceBytes)).toEqual([{ typeId: 9, streamId: 1, timestampMs: 0, payload }]);
    }
  });

  test('abort drops the unfinished message of a chunk stream', () => {
    const input = concatBytes([
      hex(first),
      filled(128),
      hex('02 000000 000004 02 00000000 00000004'), // abort chunk stream 4
      hex('04 000005 000001 09 01000000 aa'),
    ]);
    expect(readAll(input)).toEqual([
      { typeId: 9, streamId: 1, timestampMs: 5, payload: Uint8Array.of(0xaa) },
    ]);
  });

  test('abort of a chunk stream that does not exist', () => {
    expect(readAll(hex('02 000000 000004 02 00000000 00000009'))).toEqual([]);
  });
});

test("librtmp's first ping response, of format 1 on chunk stream 2", () => {
  expect(readAll(hex('42 000000 000006 04 0007 00000001'))).toEqual([
    { typeId: 4, streamId: 0, timestampMs: 0, payload: hex('0007 00000001') },
  ]);
});

test('empty messages, one of them by format 3', () => {
  expect(readAll(hex('04 000001 000000 08 01000000 c4'), 1).map(plain)).toEqual([
    { typeId: 8, streamId: 1, timestampMs: 1, payload: '' },
    { typeId: 8, streamId: 1, timestampMs: 2, payload: '' },
  ]);
});

test('a payload in one piece is a view of the input, others are copies', () => {
  const input = concatBytes([hex('04 000000 000040 09 01000000'), filled(64)]);
  expect(newReader().push(input)[0]?.payload.buffer).toBe(input.buffer);
  const reader = newReader();
  expect(reader.push(input.subarray(0, 50))).toEqual([]);
  const [message] = reader.push(input.subarray(50));
  expect(message?.payload.buffer).not.toBe(input.buffer);
  expect(message?.payload.buffer.byteLength).toBe(64);
});

describe('refusals', () => {
  test.each<[string, string, MediaErrorCode]>([
    ['a chunk stream that begins with format 1', '44 000000 000001 09 aa', 'RTMP_CHUNK_WITHOUT_HEADER'],
    ['a chunk stream that begins with format 3', 'c4', 'RTMP_CHUNK_WITHOUT_HEADER'],
    ['format 3 at first on chunk stream 2', 'c2', 'RTMP_CHUNK_WITHOUT_HEADER'],
    ['an absurd length', '04 000000 ffffff 09 01000000', 'RTMP_MESSAGE_TOO_LONG'],
    ['a length one too long', '04 000000 0186a1 09 01000000', 'RTMP_MESSAGE_TOO_LONG'],
    ['chunk size 0', '02 000000 000004 01 00000000 00000000', 'RTMP_CHUNK_SIZE'],
    ['a chunk size message of 3 bytes', '02 000000 000003 01 00000000 000001', 'BYTES_TRUNCATED'],
    [
      'a new message before the last is complete',
      `04 000000 000081 09 01000000 ${'aa'.repeat(128)} 04 000000 000001 09 01000000 aa`,
      'RTMP_BAD_MESSAGE',
    ],
  ])('%s', (_, text, code) => {
    expect(codeOf(() => readAll(hex(text)))).toBe(code);
    expect(codeOf(() => readAll(hex(text), 1))).toBe(code);
  });

  test('the 65th chunk stream', () => {
    const reader = newReader();
    const open = (chunkStreamId: number) => {
      const output: Uint8Array[] = [];
      new ChunkWriter(output).write(chunkStreamId, {
        typeId: 8,
        streamId: 1,
        timestampMs: 0,
        payload: Uint8Array.of(0),
      });
      return reader.push(concatBytes(output));
    };
    for (let i = 0; i < 64; i++) expect(open(3 + i)).toHaveLength(1);
    expect(open(3)).toHaveLength(1);
    expect(codeOf(() => open(3 + 64))).toBe('RTMP_TOO_MANY_CHUNK_STREAMS');
  });

  test('unfinished messages that together exceed twice the longest', () => {
    const reader = newReader();
    const open = (chunkStreamId: number) =>
      reader.push(
        concatBytes([
          hex(`${chunkStreamId.toString(16).padStart(2, '0')} 000000 0186a0 09 01000000`),
          new Uint8Array(80_000),
        ]),
      );
    reader.push(hex('02 000000 000004 01 00000000 00013880')); // chunks of 80,000 bytes
    expect(open(4)).toEqual([]);
    expect(open(5)).toEqual([]);
    expect(codeOf(() => open(6))).toBe('RTMP_MESSAGE_TOO_LONG');
  });

  test('finished messages do not count', () => {
    const reader = newReader();
    const front = concatBytes([hex('04 000000 000080 09 01000000'), filled(100)]);
    for (let i = 0; i < 3000; i++) {
      expect(reader.push(front)).toHaveLength(0);
      expect(reader.push(filled(28))).toHaveLength(1);
    }
  });

  test('announced lengths take no memory', () => {
    const before = process.memoryUsage().arrayBuffers;
    const readers = Array.from({ length: 50 }, () => new ChunkReader({ maxMessageBytes: 16_000_000 }));
    for (const reader of readers) {
      reader.push(hex('02 000000 000004 01 00000000 00000001')); // chunks of one byte
      for (let i = 0; i < 60; i++)
        reader.push(hex(`${(3 + i).toString(16).padStart(2, '0')} 000000 f42400 09 01000000 aa`));
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4_000_000);
    expect(readers).toHaveLength(50);
  });
});

/** One message on a chunk stream, and what the sender prefers. */
interface Sent {
  readonly chunkStreamId: number;
  readonly message: RtmpMessage;
  readonly preferredFormat: number;
}

interface LastHeader {
  readonly message: RtmpMessage;
  readonly timestampField: number;
}

/**
 * A chunk writer of its own, straight from the specification, that uses every format where it is
 * allowed, interleaves chunk streams and changes the chunk size between chunks.
 */
function* referenceChunks(
  sent: readonly Sent[],
  options: {
    readonly repeatsExtendedTimestamp: boolean;
    readonly sizes: readonly number[];
    readonly picks: readonly number[];
  },
): Generator<{ bytes: Uint8Array; completed?: RtmpMessage }> {
  const queues = new Map<number, Sent[]>();
  for (const entry of sent)
    queues.set(entry.chunkStreamId, [...(queues.get(entry.chunkStreamId) ?? []), entry]);
  const last = new Map<number, LastHeader>();
  const progress = new Map<number, number>();
  let chunkSize = 128;
  for (let step = 0; queues.size > 0; step++) {
    const size = options.sizes[step % options.sizes.length] ?? 0;
    if (size > 0) {
      chunkSize = size;
      yield {
        bytes: concatBytes([
          hex('02 000000 000004 01 00000000'),
          serializeControlMessage({ type: 'set-chunk-size', sizeBytes: size }).payload,
        ]),
      };
    }
    const ids = [...queues.keys()];
    const id = ids[(options.picks[step % options.picks.length] ?? 0) % ids.length] ?? 0;
    const queue = queues.get(id) ?? [];
    const [entry] = queue;
    if (entry === undefined) throw new Error('empty queue');
    const { message } = entry;
    const from = progress.get(id) ?? 0;
    const header: number[] = [];
    const basic = (format: number) => {
      if (id < 64) header.push((format << 6) | id);
      else if (id < 320) header.push(format << 6, id - 64);
      else header.push((format << 6) | 1, (id - 64) & 0xff, (id - 64) >> 8);
    };
    const u = (value: number, count: number) => {
      for (let i = count - 1; i >= 0; i--) header.push(Math.floor(value / 256 ** i) % 256);
    };
    if (from > 0) {
      basic(3);
      const field = last.get(id)?.timestampField ?? 0;
      if (field >= 0xffffff && options.repeatsExtendedTimestamp) u(field, 4);
    } else {
      const previous = last.get(id);
      const delta =
        previous === undefined ? 0 : (message.timestampMs - previous.message.timestampMs + 2 ** 32) % 2 ** 32;
      let possible = 0;
      if (previous?.message.streamId === message.streamId) {
        possible = 1;
        if (
          previous.message.typeId === message.typeId &&
          previous.message.payload.length === message.payload.length
        ) {
          possible = previous.timestampField === delta ? 3 : 2;
        }
      }
      const format = Math.min(possible, entry.preferredFormat);
      const field = format === 0 ? message.timestampMs : delta;
      basic(format);
      if (format <= 2) u(Math.min(field, 0xffffff), 3);
      if (format <= 1) {
        u(message.payload.length, 3);
        u(message.typeId, 1);
      }
      if (format === 0) for (let i = 0; i < 4; i++) header.push((message.streamId >>> (8 * i)) & 0xff);
      if (field >= 0xffffff) u(field, 4);
      last.set(id, { message, timestampField: field });
    }
    const to = Math.min(message.payload.length, from + chunkSize);
    const bytes = concatBytes([Uint8Array.from(header), message.payload.subarray(from, to)]);
    if (to < message.payload.length) {
      progress.set(id, to);
      yield { bytes };
      continue;
    }
    progress.delete(id);
    queue.shift();
    if (queue.length === 0) queues.delete(id);
    yield { bytes, completed: message };
  }
}

const anyTimestamp = fc.oneof(
  fc.nat(5000),
  fc.constantFrom(0xfffffe, 0xffffff, 0x1000000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff),
  fc.nat(0xffffffff),
);
const anyPayload = fc
  .record({
    length: fc.oneof(fc.constantFrom(0, 1, 127, 128, 129, 256), fc.nat(400)),
    from: fc.integer({ min: 0x80, max: 0xff }),
  })
  // Bytes 0x80 to 0xff, none twice in a row: never an extended timestamp of these tests by chance.
  .map(({ length, from }) => Uint8Array.from({ length }, (_, i) => 0x80 | (from + 3 * i)));
const anyMessage = fc.record({
  typeId: fc.constantFrom(8, 9, 18, 20),
  streamId: fc.constantFrom(0, 1, 0x01020304),
  timestampMs: anyTimestamp,
  payload: anyPayload,
});
const anySent = fc.array(
  fc.record({
    chunkStreamId: fc.constantFrom(3, 63, 64, 319, 320, 65_599),
    message: anyMessage,
    preferredFormat: fc.nat(3),
  }),
  { maxLength: 20 },
);
/** Runs of equal steps, so that format 3 begins messages too. */
const anySteadySent = fc
  .record({
    message: anyMessage,
    stepMs: fc.oneof(fc.nat(100), anyTimestamp),
    count: fc.integer({ min: 1, max: 8 }),
  })
  .map(({ message, stepMs, count }) =>
    Array.from({ length: count }, (_, i) => ({
      chunkStreamId: 6,
      message: { ...message, timestampMs: (message.timestampMs + i * stepMs) % 2 ** 32 },
      preferredFormat: 3,
    })),
  );
/** Sizes of chunks to change to, 0 for no change; from 4 bytes up, so that Set Chunk Size itself is one chunk. */
const anySchedule = fc.record({
  repeatsExtendedTimestamp: fc.boolean(),
  sizes: fc.array(fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: 4, max: 300 })), {
    minLength: 1,
  }),
  picks: fc.array(fc.nat(10), { minLength: 1 }),
});
const anyCuts = fc.array(fc.nat(10_000), { maxLength: 20 });

function cut(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const at = [0, ...cuts.map((value) => value % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return at.slice(1).map((end, i) => bytes.slice(at[i], end));
}

describe('properties', () => {
  test('chunks of an independent writer, all formats, interleaved, are read however they are cut', () => {
    fc.assert(
      fc.property(fc.oneof(anySent, anySteadySent), anySchedule, anyCuts, (sent, schedule, cuts) => {
        const chunks = [...referenceChunks(sent, schedule)];
        const expected = chunks.flatMap(({ completed }) =>
          completed === undefined ? [] : [plain(completed)],
        );
        const bytes = concatBytes(chunks.map((chunk) => chunk.bytes));
        for (const pieces of [[bytes], cut(bytes, cuts), cut(bytes, [...bytes.keys()])]) {
          const reader = newReader();
          expect(pieces.flatMap((piece) => reader.push(piece)).map(plain)).toEqual(expected);
        }
      }),
      { seed: 5, numRuns: 400 },
    );
  });

  test('what the writer writes, the reader reads', () => {
    const anySize = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 70_000 }));
    fc.assert(
      fc.property(anySent, fc.array(anySize, { minLength: 1 }), anyCuts, (sent, sizes, cuts) => {
        const output: Uint8Array[] = [];
        const writer = new ChunkWriter(output);
        sent.forEach(({ chunkStreamId, message }, i) => {
          const size = sizes[i % sizes.length] ?? 0;
          if (size > 0) writer.setChunkSize(size);
          writer.write(chunkStreamId, message);
        });
        const bytes = concatBytes(output);
        const expected = sent.map(({ message }) => plain(message));
        for (const pieces of [[bytes], cut(bytes, cuts), cut(bytes, [...bytes.keys()])]) {
          const reader = newReader();
          expect(pieces.flatMap((piece) => reader.push(piece)).map(plain)).toEqual(expected);
        }
      }),
      { seed: 6, numRuns: 300 },
    );
  });

  test('damaged chunks raise nothing but coded errors', () => {
    fc.assert(
      fc.property(
        anySent,
        anySchedule,
        fc.array(fc.tuple(fc.nat(5000), fc.nat(255)), { maxLength: 10 }),
        (sent, schedule, damage) => {
          const bytes = concatBytes([...referenceChunks(sent, schedule)].map((chunk) => chunk.bytes));
          for (const [at, value] of damage) if (bytes.length > 0) bytes[at % bytes.length] = value;
          codeOf(() => readAll(bytes));
          codeOf(() => readAll(bytes, 7));
        },
      ),
      { seed: 7, numRuns: 500 },
    );
  });

  test('garbage raises nothing but coded errors', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
        codeOf(() => readAll(bytes));
        codeOf(() => readAll(bytes, 1));
      }),
      { seed: 8, numRuns: 1000 },
    );
  });
});
