import { describe, expect, test } from 'vitest';
import { hex, toHex } from '../../test/hex.ts';
import { errorCodeOf } from '../../test/media-error.ts';
import { ByteWriter } from '../bytes.ts';
import { readBoxes, requireBox, writeBox, writeFullBox } from './box.ts';

/** A container with two children (ISO/IEC 14496-12, 4.2). */
const NESTED = hex(`
  0000001d  size
  6d6f6f66  'moof'
    0000000c  size
    66726565  'free'
    01020304
    00000009  size
    736b6970  'skip'
    05
`);

describe('MP4 boxes', () => {
  test('are written with their sizes', () => {
    const writer = new ByteWriter(1);
    writeBox(writer, 'moof', () => {
      writeBox(writer, 'free', () => writer.u8(1).u8(2).u8(3).u8(4));
      writeBox(writer, 'skip', () => writer.u8(5));
    });
    expect(writer.finish()).toEqual(NESTED);
  });

  test('have version and flags where they are full', () => {
    const writer = new ByteWriter();
    writeFullBox(writer, 'mfhd', 1, 0x020304, () => writer.u8(9));
    expect(toHex(writer.finish())).toBe(
      toHex(
        hex(`
          0000000d  size
          6d666864  'mfhd'
          01        version
          020304    flags
          09
        `),
      ),
    );
  });

  test('are read as views with their offsets', () => {
    const [moof] = readBoxes(NESTED);
    expect(moof?.type).toBe('moof');
    const children = readBoxes(moof?.content ?? NESTED);
    expect(children.map(({ type, byteOffset }) => ({ type, byteOffset }))).toEqual([
      { type: 'free', byteOffset: 0 },
      { type: 'skip', byteOffset: 12 },
    ]);
    expect(requireBox(children, 'skip', 'moof').content).toEqual(Uint8Array.of(5));
    expect(children[0]?.content.buffer).toBe(NESTED.buffer);
    expect(errorCodeOf(() => requireBox(children, 'traf', 'moof'))).toBe('MP4_MISSING_BOX');
  });

  test('may have a 64-bit size, or one that runs to the end', () => {
    const large = hex(`
      00000001          size: see largesize
      6d646174          'mdat'
      0000000000000011  largesize
      07
      00000000          size: to the end
      6d646174          'mdat'
      0809
    `);
    expect(readBoxes(large).map(({ content }) => [...content])).toEqual([[7], [8, 9]]);
  });

  test.each([
    ['a size below the header', '00000007 66726565', 'MP4_BAD_BOX'],
    ['a size of 4 GiB', 'ffffffff 66726565 00', 'BYTES_TRUNCATED'],
    ['a large size below its header', '00000001 66726565 000000000000000f', 'MP4_BAD_BOX'],
    ['a large size beyond 2^53', '00000001 66726565 ff00000000000000', 'MP4_BAD_BOX'],
  ])('with %s are refused', (_, fields, code) => {
    expect(errorCodeOf(() => readBoxes(hex(fields.replaceAll(' ', '\n'))))).toBe(code);
  });

  test('cut short anywhere are reported as truncated', () => {
    for (let length = 1; length < NESTED.length; length++) {
      expect(errorCodeOf(() => readBoxes(NESTED.subarray(0, length)))).toBe('BYTES_TRUNCATED');
    }
  });
});
