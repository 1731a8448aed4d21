/**
 * AMF0: the values in RTMP commands and FLV script tags.
 *
 * Source: Action Message Format, AMF 0 (Adobe, 2007); AMF 3 (Adobe, 2013) section 3 for the
 * scalars behind the avmplus marker.
 */
import { ByteReader, ByteWriter } from '../bytes.ts';
import { MediaError } from '../error.ts';

export interface Amf0Object {
  [key: string]: Amf0Value;
}

export type Amf0Value = number | boolean | string | null | undefined | Date | Amf0Value[] | Amf0Object;

/** On encoding: properties that go out as an ECMA array, the form that players expect of onMetaData. */
export class Amf0EcmaArray {
  readonly properties: Amf0Object;

  constructor(properties: Amf0Object) {
    this.properties = properties;
  }
}

const marker = {
  number: 0x00,
  boolean: 0x01,
  string: 0x02,
  object: 0x03,
  movieClip: 0x04,
  null: 0x05,
  undefined: 0x06,
  reference: 0x07,
  ecmaArray: 0x08,
  objectEnd: 0x09,
  strictArray: 0x0a,
  date: 0x0b,
  longString: 0x0c,
  unsupported: 0x0d,
  recordSet: 0x0e,
  xmlDocument: 0x0f,
  typedObject: 0x10,
  avmPlus: 0x11,
} as const;

const amf3Marker = { undefined: 0, null: 1, false: 2, true: 3, integer: 4, double: 5, string: 6 } as const;

/** Real peers nest three deep. */
const MAX_DEPTH = 32;
/** A file's key frame index in onMetaData is the largest real case: two numbers for each key frame. */
const MAX_VALUES = 65_536;
const MAX_SHORT_STRING_BYTES = 0xffff;

/** True for an object with named properties: not an array, a date, null or a scalar. */
export function isAmf0Object(value: Amf0Value): value is Amf0Object {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** Serialises values one after the other, as a command or a script tag holds them. */
export function encodeAmf0(values: readonly (Amf0Value | Amf0EcmaArray)[]): Uint8Array {
  const writer = new ByteWriter();
  for (const value of values) writeValue(writer, value);
  return writer.finish();
}

/**
 * Parses all values in `bytes`. Objects, typed objects and ECMA arrays come back as objects without
 * a prototype, so that a key such as `constructor` finds only what the peer sent.
 *
 * @throws MediaError BYTES_TRUNCATED, AMF0_UNKNOWN_MARKER, AMF0_UNSUPPORTED_TYPE, AMF0_TOO_DEEP
 *   (beyond 32 levels) or AMF0_TOO_LONG (beyond 65,536 values, or an array longer than the bytes)
 */
export function decodeAmf0(bytes: Uint8Array): Amf0Value[] {
  const decoder = new Amf0Decoder(bytes);
  const values: Amf0Value[] = [];
  while (decoder.hasMore) values.push(decoder.readValue(0));
  return values;
}

function writeValue(writer: ByteWriter, value: Amf0Value | Amf0EcmaArray): void {
  if (typeof value === 'number') {
    writer.u8(marker.number).f64(value);
  } else if (typeof value === 'boolean') {
    writer.u8(marker.boolean).u8(value ? 1 : 0);
  } else if (typeof value === 'string') {
    const utf8 = encodeUtf8(value);
    if (utf8.length <= MAX_SHORT_STRING_BYTES) writer.u8(marker.string).u16(utf8.length).bytes(utf8);
    else writer.u8(marker.longString).u32(utf8.length).bytes(utf8);
  } else if (value === null) {
    writer.u8(marker.null);
  } else if (value === undefined) {
    writer.u8(marker.undefined);
  } else if (Array.isArray(value)) {
    writer.u8(marker.strictArray).u32(value.length);
    for (const element of value) writeValue(writer, element);
  } else if (value instanceof Date) {
    // The time zone is reserved and must be zero (2.13).
    writer.u8(marker.date).f64(value.getTime()).u16(0);
  } else if (value instanceof Amf0EcmaArray) {
    writer.u8(marker.ecmaArray).u32(Object.keys(value.properties).length);
    writeProperties(writer, value.properties);
  } else {
    writer.u8(marker.object);
    writeProperties(writer, value);
  }
}

function writeProperties(writer: ByteWriter, properties: Amf0Object): void {
  for (const [key, value] of Object.entries(properties)) {
    const utf8 = encodeUtf8(key);
    if (utf8.length > MAX_SHORT_STRING_BYTES) throw new Error(`AMF0 property name of ${utf8.length} bytes`);
    writer.u16(utf8.length).bytes(utf8);
    writeValue(writer, value);
  }
  writer.u16(0).u8(marker.objectEnd);
}

class Amf0Decoder {
  readonly #reader: ByteReader;
  #valuesLeft = MAX_VALUES;

  constructor(bytes: Uint8Array) {
    this.#reader = new ByteReader(bytes);
  }

  get hasMore(): boolean {
    return this.#reader.remaining > 0;
  }

  readValue(depth: number): Amf0Value {
    const reader = this.#reader;
    const byteOffset = reader.offset;
    if (depth > MAX_DEPTH) {
      throw new MediaError('AMF0_TOO_DEEP', `At most ${MAX_DEPTH} levels are read.`, { byteOffset });
    }
    if (this.#valuesLeft === 0) {
      throw new MediaError('AMF0_TOO_LONG', `At most ${MAX_VALUES} values are read.`, { byteOffset });
    }
    this.#valuesLeft--;
    const type = reader.u8();
    switch (type) {
      case marker.number:
        return reader.f64();
      case marker.boolean:
        return reader.u8() !== 0;
      case marker.string:
        return decodeUtf8(reader.take(reader.u16()));
      case marker.longString:
      case marker.xmlDocument:
        return decodeUtf8(reader.take(reader.u32()));
      case marker.null:
        return null;
      case marker.undefined:
      case marker.unsupported:
        return undefined;
      case marker.typedObject:
        reader.skip(reader.u16()); // The class name means nothing outside Flash.
        return this.#readProperties(depth);
      case marker.object:
        return this.#readProperties(depth);
      case marker.ecmaArray:
        reader.skip(4); // The count is only a hint: encoders write zero or a wrong one.
        return this.#readProperties(depth);
      case marker.strictArray:
        return this.#readStrictArray(depth);
      case marker.date: {
        const date = new Date(reader.f64());
        reader.skip(2);
        return date;
      }
      case marker.avmPlus:
        return this.#readAmf3Scalar();
      case marker.movieClip:
      case marker.recordSet:
      case marker.reference:
        throw new MediaError('AMF0_UNSUPPORTED_TYPE', `The marker is ${hex(type)}.`, { byteOffset });
      default:
        throw new MediaError('AMF0_UNKNOWN_MARKER', `The marker is ${hex(type)}.`, { byteOffset });
    }
  }

  #readProperties(depth: number): Amf0Object {
    const reader = this.#reader;
    const properties: Amf0Object = Object.create(null);
    for (;;) {
      const key = decodeUtf8(reader.take(reader.u16()));
      if (key === '' && reader.bytes[reader.offset] === marker.objectEnd) {
        reader.skip(1);
        return properties;
      }
      properties[key] = this.readValue(depth + 1);
    }
  }

  #readStrictArray(depth: number): Amf0Value[] {
    const reader = this.#reader;
    const byteOffset = reader.offset;
    const count = reader.u32();
    if (count > reader.remaining) {
      throw new MediaError('AMF0_TOO_LONG', `${count} elements announced, ${reader.remaining} bytes left.`, {
        byteOffset,
      });
    }
    const elements: Amf0Value[] = [];
    for (let i = 0; i < count; i++) elements.push(this.readValue(depth + 1));
    return elements;
  }

  /** Flash peers that negotiated AMF3 switch to it for single values; commands hold only scalars. */
  #readAmf3Scalar(): Amf0Value {
    const reader = this.#reader;
    const byteOffset = reader.offset;
    const type = reader.u8();
    switch (type) {
      case amf3Marker.undefined:
        return undefined;
      case amf3Marker.null:
        return null;
      case amf3Marker.false:
        return false;
      case amf3Marker.true:
        return true;
      case amf3Marker.integer:
        return (this.#readU29() << 3) >> 3; // 29 bits, signed
      case amf3Marker.double:
        return reader.f64();
      case amf3Marker.string: {
        const header = this.#readU29();
        const isInline = (header & 1) === 1;
        // A reference needs an earlier string in the same value; a scalar has none.
        if (isInline) return decodeUtf8(reader.take(header >>> 1));
        throw new MediaError('AMF0_UNSUPPORTED_TYPE', 'An AMF3 string is a reference.', { byteOffset });
      }
      default:
        throw new MediaError('AMF0_UNSUPPORTED_TYPE', `The AMF3 marker is ${hex(type)}.`, { byteOffset });
    }
  }

  /** AMF3 1.3.1: seven bits in each of up to three bytes, then eight in the fourth. */
  #readU29(): number {
    let value = 0;
    for (let i = 0; i < 3; i++) {
      const byte = this.#reader.u8();
      value = (value << 7) | (byte & 0x7f);
      if (byte < 0x80) return value;
    }
    return (value << 8) | this.#reader.u8();
  }
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`;
}

const REPLACEMENT_CHARACTER = 0xfffd;

/** Lone surrogates become U+FFFD, as in the WHATWG Encoding Standard. */
function encodeUtf8(text: string): Uint8Array {
  const utf8 = new Uint8Array(text.length * 3);
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    let codePoint = text.codePointAt(i) ?? 0;
    if (codePoint >= 0xd800 && codePoint <= 0xdfff) codePoint = REPLACEMENT_CHARACTER;
    if (codePoint < 0x80) {
      utf8[length++] = codePoint;
      continue;
    }
    if (codePoint < 0x800) {
      utf8[length++] = 0xc0 | (codePoint >> 6);
    } else {
      if (codePoint < 0x1_0000) {
        utf8[length++] = 0xe0 | (codePoint >> 12);
      } else {
        i++; // The pair's second half is already in the code point.
        utf8[length++] = 0xf0 | (codePoint >> 18);
        utf8[length++] = 0x80 | ((codePoint >> 12) & 0x3f);
      }
      utf8[length++] = 0x80 | ((codePoint >> 6) & 0x3f);
    }
    utf8[length++] = 0x80 | (codePoint & 0x3f);
  }
  return utf8.subarray(0, length);
}

/** Malformed sequences become U+FFFD, one for each maximal subpart (WHATWG Encoding Standard, 9.1.1). */
function decodeUtf8(utf8: Uint8Array): string {
  const pieceUnits = 4096; // Few enough for one call's arguments.
  let text = '';
  let units: number[] = [];
  for (let i = 0; i < utf8.length; ) {
    const lead = utf8[i++] ?? 0;
    let codePoint = lead;
    if (lead >= 0x80) {
      let continuationCount = 0;
      let lowest = 0x80;
      let highest = 0xbf;
      if (lead >= 0xc2 && lead <= 0xdf) {
        continuationCount = 1;
        codePoint = lead & 0x1f;
      } else if (lead >= 0xe0 && lead <= 0xef) {
        continuationCount = 2;
        codePoint = lead & 0x0f;
        if (lead === 0xe0) lowest = 0xa0; // else it would be overlong
        if (lead === 0xed) highest = 0x9f; // else it would be a surrogate
      } else if (lead >= 0xf0 && lead <= 0xf4) {
        continuationCount = 3;
        codePoint = lead & 0x07;
        if (lead === 0xf0) lowest = 0x90; // else it would be overlong
        if (lead === 0xf4) highest = 0x8f; // else it would exceed U+10FFFF
      } else {
        codePoint = REPLACEMENT_CHARACTER;
      }
      for (; continuationCount > 0; continuationCount--) {
        const byte = utf8[i];
        if (byte === undefined || byte < lowest || byte > highest) {
          codePoint = REPLACEMENT_CHARACTER;
          break;
        }
        codePoint = (codePoint << 6) | (byte & 0x3f);
        lowest = 0x80;
        highest = 0xbf;
        i++;
      }
    }
    if (codePoint < 0x1_0000) units.push(codePoint);
    else units.push(0xd7c0 + (codePoint >> 10), 0xdc00 | (codePoint & 0x3ff));
    if (units.length >= pieceUnits) {
      text += String.fromCharCode(...units);
      units = [];
    }
  }
  return text + String.fromCharCode(...units);
}
