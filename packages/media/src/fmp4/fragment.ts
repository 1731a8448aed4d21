/**
 * Movie fragments: `moof` with the times, sizes and flags of a run of access units, and `mdat`
 * with their bytes.
 *
 * Source: ISO/IEC 14496-12 sections 8.8.4 to 8.8.12.
 */
import type { AccessUnit, Track } from '../access-unit.ts';
import { ByteReader, ByteWriter } from '../bytes.ts';
import { MediaError } from '../error.ts';
import { type Box, readBoxes, readFullBoxHeader, requireBox, writeBox, writeFullBox } from './box.ts';
import { NON_SYNC_SAMPLE_FLAGS, SYNC_SAMPLE_FLAGS } from './init-segment.ts';

/** Flags of tfhd (ISO/IEC 14496-12, 8.8.7.1). */
export const TFHD = {
  baseDataOffset: 0x00_0001,
  sampleDescriptionIndex: 0x00_0002,
  defaultSampleDuration: 0x00_0008,
  defaultSampleSize: 0x00_0010,
  defaultSampleFlags: 0x00_0020,
  defaultBaseIsMoof: 0x02_0000,
} as const;

/** Flags of trun (ISO/IEC 14496-12, 8.8.8.1). */
export const TRUN = {
  dataOffset: 0x00_0001,
  firstSampleFlags: 0x00_0004,
  sampleDuration: 0x00_0100,
  sampleSize: 0x00_0200,
  sampleFlags: 0x00_0400,
  sampleCompositionTimeOffset: 0x00_0800,
} as const;

/** The bit of the sample flags that says that a decoder cannot start here (8.8.3.1). */
const SAMPLE_IS_NON_SYNC = 0x0001_0000;

const MOOF_AND_MDAT_HEADERS_SIZE_BYTES = 32; // moof 8, mfhd 16, mdat 8
const TRAF_MAX_SIZE_BYTES = 76; // traf 8, tfhd 24, tfdt 20, trun 24: without the rows of samples
const ROW_MAX_SIZE_BYTES = 16;

export interface FragmentTrack {
  readonly track: Track;
  /** In decode order. */
  readonly units: readonly AccessUnit[];
  /** DTS of the next unit of this track, in its timescale: gives the last sample's duration. */
  readonly endTicks: number;
}

/**
 * Writes one `moof` and one `mdat`. Each payload is copied once, into the one allocation.
 *
 * The bytes depend on the arguments alone. All that a sample needs is said in the fragment; the
 * defaults of the init segment are not relied on.
 *
 * @param options.tracks all tracks of the init segment in its order; a track without units gets no `traf`
 */
export function fragment(options: { sequenceNumber: number; tracks: readonly FragmentTrack[] }): Uint8Array {
  let maxSizeBytes = MOOF_AND_MDAT_HEADERS_SIZE_BYTES;
  for (const { units } of options.tracks) {
    maxSizeBytes += TRAF_MAX_SIZE_BYTES + units.length * ROW_MAX_SIZE_BYTES;
    for (const unit of units) maxSizeBytes += unit.data.length;
  }
  const writer = new ByteWriter(maxSizeBytes);
  const runs: { dataOffsetField: number; units: readonly AccessUnit[] }[] = [];
  writeBox(writer, 'moof', () => {
    writeFullBox(writer, 'mfhd', 0, 0, () => writer.u32(options.sequenceNumber));
    options.tracks.forEach((fragmentTrack, index) => {
      const { units } = fragmentTrack;
      if (units.length === 0) return;
      runs.push({ dataOffsetField: writeTrackFragment(writer, fragmentTrack, index + 1), units });
    });
  });
  writeBox(writer, 'mdat', () => {
    for (const { dataOffsetField, units } of runs) {
      writer.patchU32(dataOffsetField, writer.length);
      for (const unit of units) writer.bytes(unit.data);
    }
  });
  return writer.finish();
}

/** @returns where the `data_offset` stands, to be filled in once it is known */
function writeTrackFragment(writer: ByteWriter, fragmentTrack: FragmentTrack, trackId: number): number {
  const { track, units, endTicks } = fragmentTrack;
  const durations = units.map((unit, index) => (units[index + 1]?.dtsTicks ?? endTicks) - unit.dtsTicks);
  const [baseMediaDecodeTime = 0] = units.map((unit) => unit.dtsTicks);
  const [firstDuration = 0] = durations;
  if (baseMediaDecodeTime < 0 || durations.some((ticks) => ticks < 0)) {
    throw new Error(`${track.kind} times run backwards: ${baseMediaDecodeTime} ticks, then ${durations}`);
  }
  const defaultFlags = track.kind === 'video' ? NON_SYNC_SAMPLE_FLAGS : SYNC_SAMPLE_FLAGS;
  const flags = units.map((unit) => (unit.isRandomAccess ? SYNC_SAMPLE_FLAGS : NON_SYNC_SAMPLE_FLAGS));
  const [firstFlags = defaultFlags, ...laterFlags] = flags;

  const hasOneDuration = durations.every((ticks) => ticks === firstDuration);
  const hasOwnFlags = laterFlags.some((value) => value !== defaultFlags);
  const hasFirstFlags = !hasOwnFlags && firstFlags !== defaultFlags;
  const hasOffsets = units.some((unit) => unit.ptsTicks !== unit.dtsTicks);
  let dataOffsetField = 0;

  writeBox(writer, 'traf', () => {
    const tfhdFlags =
      TFHD.defaultBaseIsMoof | TFHD.defaultSampleFlags | (hasOneDuration ? TFHD.defaultSampleDuration : 0);
    writeFullBox(writer, 'tfhd', 0, tfhdFlags, () => {
      writer.u32(trackId);
      if (hasOneDuration) writer.u32(firstDuration);
      writer.u32(defaultFlags);
    });
    writeFullBox(writer, 'tfdt', 1, 0, () => writer.u64(baseMediaDecodeTime));
    const trunFlags =
      TRUN.dataOffset |
      TRUN.sampleSize |
      (hasFirstFlags ? TRUN.firstSampleFlags : 0) |
      (hasOneDuration ? 0 : TRUN.sampleDuration) |
      (hasOwnFlags ? TRUN.sampleFlags : 0) |
      (hasOffsets ? TRUN.sampleCompositionTimeOffset : 0);
    // Version 1: composition offsets are signed.
    writeFullBox(writer, 'trun', 1, trunFlags, () => {
      writer.u32(units.length);
      dataOffsetField = writer.length;
      writer.u32(0);
      if (hasFirstFlags) writer.u32(firstFlags);
      units.forEach((unit, index) => {
        if (!hasOneDuration) writer.u32(durations[index] ?? 0);
        writer.u32(unit.data.length);
        if (hasOwnFlags) writer.u32(flags[index] ?? defaultFlags);
        if (hasOffsets) writer.i32(unit.ptsTicks - unit.dtsTicks);
      });
    });
  });
  return dataOffsetField;
}

/**
 * Reads the access units of one fragment, or of several that follow one another.
 *
 * Boxes other than `moof` and `mdat` are skipped. The sample defaults of `tfhd` are applied; those
 * of the init segment are not known here, so a fragment that leans on them is refused, and so is
 * one that counts offsets from the start of its file.
 *
 * @param tracks of the init segment: track id 1 is the first
 * @returns in decode order track by track; `data` is a view of `bytes`
 * @throws MediaError BYTES_TRUNCATED, MP4_MISSING_BOX or MP4_BAD_BOX
 */
export function parseFragment(bytes: Uint8Array, tracks: readonly Track[]): AccessUnit[] {
  const units: AccessUnit[] = [];
  let moof: Box | undefined;
  for (const box of readBoxes(bytes)) {
    if (box.type === 'moof') {
      if (moof !== undefined) break;
      moof = box;
    } else if (box.type === 'mdat' && moof !== undefined) {
      for (const traf of readBoxes(moof.content)) {
        if (traf.type === 'traf') parseTrackFragment(traf.content, bytes, moof, box, tracks, units);
      }
      moof = undefined;
    }
  }
  if (moof !== undefined) throw new MediaError('MP4_MISSING_BOX', "no 'mdat' after moof");
  return units;
}

function parseTrackFragment(
  traf: Uint8Array,
  bytes: Uint8Array,
  moof: Box,
  mdat: Box,
  tracks: readonly Track[],
  units: AccessUnit[],
): void {
  const boxes = readBoxes(traf);
  const header = new ByteReader(requireBox(boxes, 'tfhd', 'traf').content);
  const { flags } = readFullBoxHeader(header);
  const trackId = header.u32();
  const track = tracks[trackId - 1];
  if (track === undefined) {
    throw new MediaError(
      'MP4_BAD_BOX',
      `track id ${trackId} in a fragment; there are ${tracks.length} tracks`,
    );
  }
  if (flags & TFHD.baseDataOffset || !(flags & TFHD.defaultBaseIsMoof)) {
    throw new MediaError('MP4_BAD_BOX', 'the fragment does not count data offsets from its moof');
  }
  if (flags & TFHD.sampleDescriptionIndex) header.skip(4);
  const defaultDurationTicks = flags & TFHD.defaultSampleDuration ? header.u32() : undefined;
  const defaultSizeBytes = flags & TFHD.defaultSampleSize ? header.u32() : undefined;
  const defaultFlags = flags & TFHD.defaultSampleFlags ? header.u32() : undefined;
  const decodeTime = new ByteReader(requireBox(boxes, 'tfdt', 'traf').content);
  let dtsTicks = readFullBoxHeader(decodeTime).version === 1 ? decodeTime.u64() : decodeTime.u32();

  const dataStart = mdat.content.byteOffset - bytes.byteOffset;
  const dataEnd = dataStart + mdat.content.length;
  let dataOffset = dataStart;
  for (const trun of boxes) {
    if (trun.type !== 'trun') continue;
    const reader = new ByteReader(trun.content);
    const run = readFullBoxHeader(reader);
    const sampleCount = reader.u32();
    // A sample takes a byte of a row or of the payload; a higher count is absurd, and rows without
    // fields would let it cost memory.
    if (units.length + sampleCount > bytes.length) {
      throw new MediaError('MP4_BAD_BOX', `${sampleCount} samples in a fragment of ${bytes.length} bytes`);
    }
    if (run.flags & TRUN.dataOffset) dataOffset = moof.byteOffset + reader.i32();
    let firstFlags = run.flags & TRUN.firstSampleFlags ? reader.u32() : undefined;
    for (let i = 0; i < sampleCount; i++) {
      const durationTicks = run.flags & TRUN.sampleDuration ? reader.u32() : defaultDurationTicks;
      const sizeBytes = run.flags & TRUN.sampleSize ? reader.u32() : defaultSizeBytes;
      const sampleFlags = run.flags & TRUN.sampleFlags ? reader.u32() : (firstFlags ?? defaultFlags);
      firstFlags = undefined;
      let offsetTicks = 0;
      if (run.flags & TRUN.sampleCompositionTimeOffset) {
        offsetTicks = run.version === 0 ? reader.u32() : reader.i32();
      }
      if (durationTicks === undefined || sizeBytes === undefined || sampleFlags === undefined) {
        throw new MediaError(
          'MP4_BAD_BOX',
          'the fragment leaves the duration, size or flags of a sample open',
        );
      }
      if (dataOffset < dataStart || sizeBytes > dataEnd - dataOffset) {
        throw new MediaError(
          'MP4_BAD_BOX',
          `a sample of ${sizeBytes} bytes at ${dataOffset} lies outside mdat (${dataStart} to ${dataEnd})`,
        );
      }
      units.push({
        kind: track.kind,
        trackId: track.trackId,
        dtsTicks,
        ptsTicks: dtsTicks + offsetTicks,
        isRandomAccess: track.kind === 'audio' || !(sampleFlags & SAMPLE_IS_NON_SYNC),
        data: bytes.subarray(dataOffset, dataOffset + sizeBytes),
      });
      dtsTicks += durationTicks;
      dataOffset += sizeBytes;
    }
  }
}
