/**
 * Stream events to an MPEG transport stream of one programme: H.264 in Annex B, AAC in ADTS, one PES
 * packet for each access unit.
 *
 * Times are those of the timeline modulo 2^33, so that every frontend writes the same ones; players
 * expect the wrap, which comes every 26.5 hours.
 *
 * Source: ISO/IEC 13818-1 sections 2.4.3 (packets, PES), 2.4.4 (tables), 2.7 (intervals), 2.14 (H.264).
 */
import { type AccessUnit, type Track, timescaleHz } from '../access-unit.ts';
import { concatBytes } from '../bytes.ts';
import { type AdtsHeader, adtsHeaders } from '../codec/aac.ts';
import { parseAvcConfig } from '../codec/avc.ts';
import { rescaleTicks, VIDEO_TIMESCALE_HZ } from '../time.ts';

export const TS_PACKET_SIZE_BYTES = 188;
const HEADER_SIZE_BYTES = 4;
const PAYLOAD_SIZE_BYTES = TS_PACKET_SIZE_BYTES - HEADER_SIZE_BYTES;

const PID = { programAssociation: 0x0000, video: 0x0100, audio: 0x0101, programMap: 0x1000 } as const;
const PROGRAM_NUMBER = 1;
/** stream_type (table 2-34). Codecs that are not here are left out of the stream. */
const STREAM_TYPES = new Map<Track['codec'], number>([
  ['avc', 0x1b],
  ['aac', 0x0f],
]);
const STREAM_ID = { video: 0xe0, audio: 0xc0 } as const;

/** PTS, DTS and the base of the PCR have 33 bits. */
const TIMESTAMP_MODULUS = 2 ** 33;
/**
 * How far the clock reference stays behind the decoding times. A unit has to have arrived before it is
 * due, and arrives between its own clock reference and the next: so longer than a frame lasts.
 */
const CLOCK_LEAD_TICKS = 0.2 * VIDEO_TIMESCALE_HZ;
/** At most 0.1 s between clock references (2.7.2). */
const MAX_CLOCK_INTERVAL_TICKS = 0.1 * VIDEO_TIMESCALE_HZ;
/** So often a receiver that tunes in anywhere finds the tables, also where key frames are rare. */
const TABLES_INTERVAL_TICKS = 0.4 * VIDEO_TIMESCALE_HZ;

const NAL_UNIT_TYPE = { sequenceParameterSet: 7, pictureParameterSet: 8, accessUnitDelimiter: 9 } as const;
const START_CODE = Uint8Array.of(0, 0, 0, 1);
/** primary_pic_type 7: any slices may follow (H.264, 7.4.2.4). */
const ACCESS_UNIT_DELIMITER = Uint8Array.of(0, 0, 0, 1, NAL_UNIT_TYPE.accessUnitDelimiter, 0xf0);

interface VideoWriter {
  readonly nalLengthSizeBytes: number;
  /** In Annex B. */
  readonly parameterSets: readonly Uint8Array[];
}

/** True where {@link TsMuxer} can carry the track. */
export function canCarryInTs(track: Track): boolean {
  return STREAM_TYPES.has(track.codec) && (track.kind === 'video' || adtsHeaders(track.config) !== undefined);
}

/** Writes one transport stream; what it writes follows from the calls alone. */
export class TsMuxer {
  #tracks: readonly Track[] = [];
  #video: VideoWriter | undefined;
  #adts: AdtsHeader | undefined;
  #tables: { readonly association: Uint8Array; readonly map: Uint8Array } | undefined;
  #mapVersion = 0;
  readonly #continuityCounters = new Map<number, number>();
  #areTablesDue = true;
  #lastTablesTicks = 0;
  #lastClockTicks = Number.NEGATIVE_INFINITY;

  /**
   * Takes over the tracks of the units that follow. Those whose codec has no place in the stream are
   * left out.
   * @throws MediaError AVC_BAD_CONFIG, AAC_BAD_CONFIG
   */
  setTracks(tracks: readonly Track[]): void {
    const carried = tracks.filter(canCarryInTs);
    const layoutOf = (of: readonly Track[]) => of.map((track) => track.codec).join();
    if (this.#tables !== undefined && layoutOf(carried) !== layoutOf(this.#tracks)) {
      this.#mapVersion = (this.#mapVersion + 1) % 32;
    }
    this.#tracks = carried;
    const video = carried.find((track) => track.kind === 'video');
    const audio = carried.find((track) => track.kind === 'audio');
    this.#video = video === undefined ? undefined : videoWriter(video.config);
    this.#adts = audio === undefined ? undefined : adtsHeaders(audio.config);
    this.#tables = {
      association: section(0x00, 1, 0, [
        ...u16(PROGRAM_NUMBER),
        ...u16(0xe000 | PID.programMap), // 3 reserved bits
      ]),
      map: section(0x02, PROGRAM_NUMBER, this.#mapVersion, [
        ...u16(0xe000 | this.#clockPid),
        ...u16(0xf000), // no descriptors of the programme
        ...carried.flatMap((track) => [
          STREAM_TYPES.get(track.codec) ?? 0,
          ...u16(0xe000 | PID[track.kind]),
          ...u16(0xf000), // no descriptors of the stream
        ]),
      ]),
    };
    this.#areTablesDue = true;
  }

  /** The next unit is preceded by the tables, so that a receiver can begin there. */
  startSegment(): void {
    this.#areTablesDue = true;
  }

  /**
   * Writes a unit, and before it the tables and the clock reference that are due. A picture at which a
   * decoder can start always has the tables before it, and its parameter sets within.
   *
   * @returns whole packets; nothing when the unit's track is not carried. Of a picture whose NAL units
   *   do not fit its size, what comes before the fault.
   */
  unit(unit: AccessUnit): Uint8Array {
    const track = this.#tracks.find(({ kind }) => kind === unit.kind);
    const payload = this.#payload(unit);
    if (track === undefined || payload === undefined) return new Uint8Array(0);
    const hz = timescaleHz(track);
    const dtsTicks = rescaleTicks(unit.dtsTicks, hz, VIDEO_TIMESCALE_HZ);
    const ptsTicks = rescaleTicks(unit.ptsTicks, hz, VIDEO_TIMESCALE_HZ);
    const pid = PID[unit.kind];
    const isStart = unit.isRandomAccess && unit.kind === 'video';

    const packets: Uint8Array[] = [];
    if (this.#areTablesDue || isStart || dtsTicks - this.#lastTablesTicks >= TABLES_INTERVAL_TICKS) {
      packets.push(...this.#writeTables());
      this.#areTablesDue = false;
      this.#lastTablesTicks = dtsTicks;
    }
    const isClockDue = dtsTicks - this.#lastClockTicks >= MAX_CLOCK_INTERVAL_TICKS;
    const carriesClock = pid === this.#clockPid;
    if (carriesClock || isClockDue) this.#lastClockTicks = dtsTicks;
    const clockTicks = dtsTicks - CLOCK_LEAD_TICKS;
    if (!carriesClock && isClockDue) {
      packets.push(this.#packets(this.#clockPid, [], { clockTicks, isRandomAccess: false }));
    }
    packets.push(
      this.#packets(pid, [pesHeader(unit.kind, sizeOf(payload), ptsTicks, dtsTicks), ...payload], {
        clockTicks: carriesClock ? clockTicks : undefined,
        isRandomAccess: unit.isRandomAccess,
      }),
    );
    return joined(packets);
  }

  get #clockPid(): number {
    return PID[this.#tracks.some(({ kind }) => kind === 'video') ? 'video' : 'audio'];
  }

  /** @returns the elementary stream's bytes in pieces; undefined when there is nothing to send */
  #payload(unit: AccessUnit): Uint8Array[] | undefined {
    if (unit.kind === 'video') {
      return this.#video === undefined ? undefined : annexB(unit, this.#video);
    }
    const header = this.#adts?.(unit.data.length);
    return header === undefined || header.length === 0 ? undefined : [header, unit.data];
  }

  #writeTables(): Uint8Array[] {
    if (this.#tables === undefined) return [];
    const pointerField = Uint8Array.of(0); // the section begins right behind it
    const { association, map } = this.#tables;
    return [
      this.#packets(PID.programAssociation, [pointerField, association, filling(association)], undefined),
      this.#packets(PID.programMap, [pointerField, map, filling(map)], undefined),
    ];
  }

  /**
   * Cuts a payload unit into packets (2.4.3.2). The adaptation field of the first carries the clock
   * reference; that of the last fills it up.
   * @param payload pieces; none for a packet that has only an adaptation field
   */
  #packets(pid: number, payload: readonly Uint8Array[], adaptation: Adaptation | undefined): Uint8Array {
    const clockTicks = adaptation?.clockTicks;
    const flags = (adaptation?.isRandomAccess ? 0x40 : 0) | (clockTicks === undefined ? 0 : 0x10);
    const firstFieldBytes = flags === 0 ? 0 : 2 + (clockTicks === undefined ? 0 : 6);
    let leftBytes = sizeOf(payload);
    const hasPayload = leftBytes > 0;
    const packetCount = Math.ceil((firstFieldBytes + leftBytes) / PAYLOAD_SIZE_BYTES);
    const bytes = new Uint8Array(packetCount * TS_PACKET_SIZE_BYTES);
    let counter = this.#continuityCounters.get(pid) ?? 15;
    const source = new PieceReader(payload);
    for (let index = 0; index < packetCount; index++) {
      const at = index * TS_PACKET_SIZE_BYTES;
      const takenBytes = Math.min(leftBytes, PAYLOAD_SIZE_BYTES - (index === 0 ? firstFieldBytes : 0));
      const fieldBytes = PAYLOAD_SIZE_BYTES - takenBytes;
      if (hasPayload) counter = (counter + 1) % 16; // it does not count packets without payload (2.4.3.3)
      bytes[at] = 0x47;
      bytes[at + 1] = (index === 0 && hasPayload ? 0x40 : 0) | (pid >> 8);
      bytes[at + 2] = pid;
      bytes[at + 3] = (fieldBytes > 0 ? 0x20 : 0) | (hasPayload ? 0x10 : 0) | counter;
      if (fieldBytes > 0) {
        const field = bytes.subarray(at + HEADER_SIZE_BYTES, at + HEADER_SIZE_BYTES + fieldBytes);
        writeAdaptationField(field, index === 0 ? flags : 0, index === 0 ? clockTicks : undefined);
      }
      source.read(bytes.subarray(at + TS_PACKET_SIZE_BYTES - takenBytes, at + TS_PACKET_SIZE_BYTES));
      leftBytes -= takenBytes;
    }
    this.#continuityCounters.set(pid, counter);
    return bytes;
  }
}

interface Adaptation {
  /** Of the clock reference, in ticks of 1/90000 s. */
  readonly clockTicks: number | undefined;
  readonly isRandomAccess: boolean;
}

/** Fills `field` (2.4.3.4). */
function writeAdaptationField(field: Uint8Array, flags: number, clockTicks: number | undefined): void {
  field.fill(0xff);
  field[0] = field.length - 1; // adaptation_field_length
  if (field.length === 1) return;
  field[1] = flags;
  if (clockTicks === undefined) return;
  const base = modulo33(clockTicks);
  // 33 bits of base, 6 reserved, 9 of extension. Stores keep the low 8 bits.
  field[2] = Math.floor(base / 2 ** 25);
  field[3] = Math.floor(base / 2 ** 17);
  field[4] = Math.floor(base / 2 ** 9);
  field[5] = Math.floor(base / 2);
  field[6] = ((base % 2) << 7) | 0x7e;
  field[7] = 0;
}

/** The header of a PES packet that holds one access unit (2.4.3.6). */
function pesHeader(
  kind: AccessUnit['kind'],
  payloadSizeBytes: number,
  ptsTicks: number,
  dtsTicks: number,
): Uint8Array {
  const hasDts = ptsTicks !== dtsTicks;
  const timesBytes = hasDts ? 10 : 5;
  const packetLength = 3 + timesBytes + payloadSizeBytes;
  return Uint8Array.of(
    0,
    0,
    1,
    STREAM_ID[kind],
    ...u16(packetLength > 0xffff ? 0 : packetLength), // 0: until the next one begins; allowed for video
    0x84, // '10', data_alignment_indicator
    hasDts ? 0xc0 : 0x80,
    timesBytes,
    ...timestamp(hasDts ? 3 : 2, ptsTicks),
    ...(hasDts ? timestamp(1, dtsTicks) : []),
  );
}

/** PTS or DTS: 33 bits in three groups, each closed by a marker bit. */
function timestamp(prefix: number, ticks: number): number[] {
  const value = modulo33(ticks);
  const middle = Math.floor(value / 2 ** 15) & 0x7fff;
  const low = value & 0x7fff;
  return [
    (prefix << 4) | (Math.floor(value / 2 ** 30) << 1) | 1,
    ...u16((middle << 1) | 1),
    ...u16((low << 1) | 1),
  ];
}

function modulo33(ticks: number): number {
  return ((ticks % TIMESTAMP_MODULUS) + TIMESTAMP_MODULUS) % TIMESTAMP_MODULUS;
}

/** A section of a table that has one section (2.4.4.1, 2.4.4.9). */
function section(tableId: number, extension: number, version: number, body: readonly number[]): Uint8Array {
  const length = 5 + body.length + 4;
  const bytes = [
    tableId,
    ...u16(0xb000 | length), // section_syntax_indicator, reserved bits
    ...u16(extension),
    0xc0 | (version << 1) | 1, // current
    0, // section_number
    0, // last_section_number
    ...body,
  ];
  const crc = crc32(bytes);
  return Uint8Array.of(...bytes, ...u16(crc >>> 16), ...u16(crc & 0xffff));
}

/** What follows a section in its packet (2.4.4). */
function filling(tableSection: Uint8Array): Uint8Array {
  return new Uint8Array(PAYLOAD_SIZE_BYTES - 1 - tableSection.length).fill(0xff);
}

/** The checksum of sections (annex A): polynomial 0x04c11db7, all ones first, no reflection. */
function crc32(bytes: readonly number[]): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte << 24;
    for (let bit = 0; bit < 8; bit++) crc = (crc << 1) ^ (crc & 0x8000_0000 ? 0x04c1_1db7 : 0);
  }
  return crc >>> 0;
}

function videoWriter(config: Uint8Array): VideoWriter {
  const { nalLengthSizeBytes, sequenceParameterSets, pictureParameterSets } = parseAvcConfig(config);
  const parameterSets = [...sequenceParameterSets, ...pictureParameterSets];
  return { nalLengthSizeBytes, parameterSets: parameterSets.flatMap((set) => [START_CODE, set]) };
}

/**
 * Length-prefixed NAL units as a byte stream with start codes, opened by an access unit delimiter
 * (2.14.1). Parameter sets come before the picture that needs them, unless it brings its own.
 * Source: H.264 annex B.
 */
function annexB(unit: AccessUnit, writer: VideoWriter): Uint8Array[] {
  const { data } = unit;
  const pieces: Uint8Array[] = [];
  let bringsParameterSets = false;
  let at = 0;
  while (at + writer.nalLengthSizeBytes <= data.length) {
    let sizeBytes = 0;
    for (let i = 0; i < writer.nalLengthSizeBytes; i++) sizeBytes = sizeBytes * 256 + (data[at + i] ?? 0);
    at += writer.nalLengthSizeBytes;
    if (sizeBytes > data.length - at) break;
    const nalUnit = data.subarray(at, at + sizeBytes);
    at += sizeBytes;
    const type = (nalUnit[0] ?? 0) & 0x1f;
    if (sizeBytes === 0 || type === NAL_UNIT_TYPE.accessUnitDelimiter) continue;
    bringsParameterSets ||= type === NAL_UNIT_TYPE.sequenceParameterSet;
    pieces.push(START_CODE, nalUnit);
  }
  const needsParameterSets = unit.isRandomAccess && !bringsParameterSets;
  return [ACCESS_UNIT_DELIMITER, ...(needsParameterSets ? writer.parameterSets : []), ...pieces];
}

function u16(value: number): [number, number] {
  return [(value >> 8) & 0xff, value & 0xff];
}

function sizeOf(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}

function joined(packets: readonly Uint8Array[]): Uint8Array {
  const [only] = packets;
  return packets.length === 1 && only !== undefined ? only : concatBytes(packets);
}

/** Reads pieces one after another, as if they were one. */
class PieceReader {
  readonly #pieces: readonly Uint8Array[];
  #index = 0;
  #offset = 0;

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = pieces;
  }

  /** Fills `target` with the next bytes. */
  read(target: Uint8Array): void {
    let written = 0;
    while (written < target.length) {
      const piece = this.#pieces[this.#index];
      if (piece === undefined) throw new Error(`${target.length - written} bytes read past the end`);
      const taken = piece.subarray(this.#offset, this.#offset + target.length - written);
      target.set(taken, written);
      written += taken.length;
      this.#offset += taken.length;
      if (this.#offset < piece.length) continue;
      this.#index++;
      this.#offset = 0;
    }
  }
}
