import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { concatBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';
import { Amf0EcmaArray, type Amf0Value, decodeAmf0, encodeAmf0 } from './amf0.ts';

const ascii = (text: string) => [...text].map((character) => character.charCodeAt(0));
const bytes = (...parts: (number | number[])[]) => Uint8Array.from(parts.flat());

function codeOf(action: () => unknown): string | undefined {
  try {
    action();
  } catch (error) {
    return error instanceof MediaError ? error.code : String(error);
  }
  return undefined;
}

/** [value, its bytes as AMF 0 section 2 lays them out] */
const golden: [string, Amf0Value | Amf0EcmaArray, Uint8Array][] = [
  ['number 1', 1, bytes(0x00, [0x3f, 0xf0, 0, 0, 0, 0, 0, 0])],
  ['number -2.5', -2.5, bytes(0x00, [0xc0, 0x04, 0, 0, 0, 0, 0, 0])],
  ['true', true, bytes(0x01, 0x01)],
  ['false', false, bytes(0x01, 0x00)],
  ['string', 'connect', bytes(0x02, [0, 7], ascii('connect'))],
  ['UTF-8 string', 'é€😀', bytes(0x02, [0, 9], [0xc3, 0xa9], [0xe2, 0x82, 0xac], [0xf0, 0x9f, 0x98, 0x80])],
  ['null', null, bytes(0x05)],
  ['undefined', undefined, bytes(0x06)],
  [
    'object',
    { app: 'live', n: null },
    bytes(0x03, [0, 3], ascii('app'), 0x02, [0, 4], ascii('live'), [0, 1], ascii('n'), 0x05, [0, 0], 0x09),
  ],
  ['strict array', ['*', true], bytes(0x0a, [0, 0, 0, 2], 0x02, [0, 1], ascii('*'), 0x01, 0x01)],
  [
    'date 1000 ms',
    new Date(1000),
    bytes(0x0b, [0x40, 0x8f, 0x40, 0, 0, 0, 0, 0] /* 1000.0 */, [0, 0] /* time zone */),
  ],
  [
    'ECMA array',
    new Amf0EcmaArray({ width: 1 }),
    bytes(0x08, [0, 0, 0, 1], [0, 5], ascii('width'), 0x00, [0x3f, 0xf0, 0, 0, 0, 0, 0, 0], [0, 0], 0x09),
  ],
  ['long string', 'x'.repeat(65_536), bytes(0x0c, [0, 1, 0, 0], ascii('x'.repeat(65_536)))],
];

describe('golden bytes', () => {
  test.each(golden)('%s', (_, value, expected) => {
    expect(encodeAmf0([value])).toEqual(expected);
    expect(decodeAmf0(expected)).toEqual([value instanceof Amf0EcmaArray ? value.properties : value]);
  });

  test('an ECMA array whose count is a lie', () => {
    expect(decodeAmf0(bytes(0x08, [0xff, 0xff, 0xff, 0xff], [0, 1], ascii('a'), 0x05, [0, 0], 0x09))).toEqual(
      [{ a: null }],
    );
  });

  test('typed object, XML document, unsupported', () => {
    const typed = bytes(0x10, [0, 1], ascii('C'), [0, 1], ascii('a'), 0x01, 0x01, [0, 0], 0x09);
    const xml = bytes(0x0f, [0, 0, 0, 4], ascii('<a/>'));
    expect(decodeAmf0(concatBytes([typed, xml, bytes(0x0d)]))).toEqual([{ a: true }, '<a/>', undefined]);
  });

  test('AMF3 scalars behind the avmplus marker', () => {
    const amf3 = (...value: (number | number[])[]) => bytes(0x11, ...value);
    const values = [
      amf3(0x00), // undefined
      amf3(0x01), // null
      amf3(0x02), // false
      amf3(0x03), // true
      amf3(0x04, 0x7f), // 127 in one byte
      amf3(0x04, [0x81, 0x00]), // 128 in two
      amf3(0x04, [0xff, 0xff, 0xff, 0xff]), // -1 in four
      amf3(0x05, [0x3f, 0xf0, 0, 0, 0, 0, 0, 0]), // 1.0
      amf3(0x06, (4 << 1) | 1, ascii('live')), // inline string
    ];
    expect(decodeAmf0(concatBytes(values))).toEqual([undefined, null, false, true, 127, 128, -1, 1, 'live']);
  });
});

test('keys that name parts of every JavaScript object are plain data', () => {
  const key = '__proto__';
  const [value] = decodeAmf0(
    bytes(0x03, [0, key.length], ascii(key), 0x02, [0, 1], ascii('x'), [0, 0], 0x09),
  );
  expect(Object.entries(value as object)).toEqual([[key, 'x']]);
});

describe('malformed', () => {
  const nested = (depth: number) =>
    concatBytes([...Array(depth).fill(bytes(0x0a, [0, 0, 0, 1])), bytes(0x05)]);

  test.each([
    ['unknown marker', bytes(0x12), 'AMF0_UNKNOWN_MARKER'],
    ['reference', bytes(0x07, 0, 0), 'AMF0_UNSUPPORTED_TYPE'],
    ['AMF3 object', bytes(0x11, 0x0a, 0x0b), 'AMF0_UNSUPPORTED_TYPE'],
    ['AMF3 string reference', bytes(0x11, 0x06, 0x02), 'AMF0_UNSUPPORTED_TYPE'],
    ['array longer than the bytes', bytes(0x0a, [0xff, 0xff, 0xff, 0xff], 0x05), 'AMF0_TOO_LONG'],
    ['long string longer than the bytes', bytes(0x0c, [0xff, 0xff, 0xff, 0xff], 0x41), 'BYTES_TRUNCATED'],
    ['too many values', new Uint8Array(65_537).fill(0x05), 'AMF0_TOO_LONG'],
    ['nested too deep', nested(40), 'AMF0_TOO_DEEP'],
    ['nested absurdly deep', nested(60_000), 'AMF0_TOO_DEEP'],
  ])('%s', (_, input, code) => {
    expect(codeOf(() => decodeAmf0(input))).toBe(code);
  });

  test('nested as deep as allowed', () => {
    expect(codeOf(() => decodeAmf0(nested(32)))).toBeUndefined();
  });

  test('every truncation of every golden value', () => {
    for (const [name, , encoded] of golden) {
      if (encoded.length > 1000) continue;
      for (let length = 1; length < encoded.length; length++) {
        expect([name, length, codeOf(() => decodeAmf0(encoded.subarray(0, length)))]).toEqual([
          name,
          length,
          expect.stringMatching(/BYTES_TRUNCATED|AMF0_TOO_LONG/),
        ]);
      }
    }
  });

  test('garbage raises nothing but coded errors', () => {
    const garbage = fc.array(fc.oneof(fc.nat(0x12), fc.nat(255)), { maxLength: 200 });
    fc.assert(
      fc.property(garbage, (input) => {
        const code = codeOf(() => decodeAmf0(Uint8Array.from(input)));
        expect(code ?? 'BYTES_').toMatch(/^(AMF0|BYTES)_/);
      }),
      { seed: 1, numRuns: 2000 },
    );
  });
});

test('what is encoded is decoded', () => {
  const { value } = fc.letrec<{ value: Amf0Value }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.double(),
      fc.boolean(),
      fc.string({ unit: 'binary' }),
      fc.constantFrom(null, undefined),
      fc.date({ noInvalidDate: true }),
      fc.array(tie('value'), { maxLength: 4 }),
      fc.dictionary(fc.string(), tie('value'), { maxKeys: 4, noNullPrototype: true }),
    ),
  }));
  fc.assert(
    fc.property(fc.array(value, { maxLength: 4 }), (values) => {
      expect(decodeAmf0(encodeAmf0(values))).toEqual(values);
    }),
    { seed: 2, numRuns: 500 },
  );
});

describe('UTF-8 is as the WHATWG coder has it', () => {
  test('decoding any bytes', () => {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const byte = fc.oneof(fc.nat(255), fc.constantFrom(0xe0, 0xed, 0xf0, 0xf4, 0x80, 0x90, 0x9f, 0xa0, 0xbf));
    fc.assert(
      fc.property(fc.array(byte, { maxLength: 40 }), (array) => {
        const utf8 = Uint8Array.from(array);
        const encoded = concatBytes([bytes(0x02, [0, utf8.length]), utf8]);
        expect(decodeAmf0(encoded)).toEqual([decoder.decode(utf8)]);
      }),
      { seed: 3, numRuns: 3000 },
    );
  });

  test('encoding any UTF-16, lone surrogates too', () => {
    const unit = fc.oneof(fc.nat(0xffff), fc.integer({ min: 0xd800, max: 0xdfff }));
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 40 }), (units) => {
        const text = String.fromCharCode(...units);
        expect(encodeAmf0([text]).subarray(3)).toEqual(new TextEncoder().encode(text));
      }),
      { seed: 4, numRuns: 2000 },
    );
  });

  test('a text longer than one piece', () => {
    const text = 'añ😀'.repeat(5000);
    expect(decodeAmf0(encodeAmf0([text]))).toEqual([text]);
  });
});
