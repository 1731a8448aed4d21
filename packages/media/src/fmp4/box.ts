/**
 * MP4 boxes: a size, a four-character type and a content, nested.
 *
 * Source: ISO/IEC 14496-12 section 4.2.
 */
import { ByteReader, type ByteWriter } from '../bytes.ts';
import { MediaError } from '../error.ts';

/** Writes one box; its size is filled in once the content is written. */
export function writeBox(writer: ByteWriter, type: string, writeContent: () => void): void {
  const at = writer.length;
  writer.u32(0).ascii(type);
  writeContent();
  writer.patchU32(at, writer.length - at);
}

/** Writes one box whose content begins with a version and 24 flag bits (ISO/IEC 14496-12, 4.2.2). */
export function writeFullBox(
  writer: ByteWriter,
  type: string,
  version: number,
  flags: number,
  writeContent: () => void,
): void {
  writeBox(writer, type, () => {
    writer.u8(version).u24(flags);
    writeContent();
  });
}

export interface Box {
  readonly type: string;
  /** What follows the header: a view. */
  readonly content: Uint8Array;
  /** Where the header starts in the bytes that were read. */
  readonly byteOffset: number;
}

/**
 * Lists the boxes that follow one another in `bytes`: a file, a fragment, or the content of a
 * container box. Contents are views.
 *
 * @throws MediaError BYTES_TRUNCATED when the bytes end inside a box; MP4_BAD_BOX when a size is
 * smaller than the box's own header or beyond 2^53 - 1
 */
export function readBoxes(bytes: Uint8Array): Box[] {
  const reader = new ByteReader(bytes);
  const boxes: Box[] = [];
  while (reader.remaining > 0) {
    const byteOffset = reader.offset;
    const size32 = reader.u32();
    const type = readFourCc(reader);
    let sizeBytes = size32;
    if (size32 === 0) sizeBytes = bytes.length - byteOffset; // "extends to the end of the file"
    if (size32 === 1) sizeBytes = reader.u64(); // largesize
    const headerSizeBytes = reader.offset - byteOffset;
    if (sizeBytes < headerSizeBytes) {
      throw new MediaError(
        'MP4_BAD_BOX',
        `box '${type}' is ${sizeBytes} bytes long, its header alone is ${headerSizeBytes}`,
        { byteOffset },
      );
    }
    boxes.push({ type, content: reader.take(sizeBytes - headerSizeBytes), byteOffset });
  }
  return boxes;
}

/** Reads four characters. Bytes outside printable ASCII come out as dots, fit for a message. */
export function readFourCc(reader: ByteReader): string {
  let fourCc = '';
  for (const byte of reader.take(4)) {
    fourCc += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.';
  }
  return fourCc;
}

/** Reads the version and flags that begin the content of a full box. */
export function readFullBoxHeader(reader: ByteReader): { version: number; flags: number } {
  return { version: reader.u8(), flags: reader.u24() };
}

/**
 * The first box of a type.
 * @param parent where it was looked for, for the message
 * @throws MediaError MP4_MISSING_BOX
 */
export function requireBox(boxes: readonly Box[], type: string, parent: string): Box {
  const found = boxes.find((box) => box.type === type);
  if (found === undefined) throw new MediaError('MP4_MISSING_BOX', `no '${type}' in ${parent}`);
  return found;
}
