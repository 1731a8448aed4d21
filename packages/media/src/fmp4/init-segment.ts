/**
 * The init segment of fragmented MP4: what a decoder needs before the first fragment.
 *
 * It is a pure function of the tracks: no dates, no names of programs, no identifiers, so every
 * process that plays the same channel writes the same bytes.
 *
 * Sources: ISO/IEC 14496-12 (boxes), 14496-15 section 5.4.2 (avc1), 14496-14 section 5.6 (mp4a)
 * and 14496-1 section 7.2.6 (the descriptors inside esds).
 */
import {
  AAC_SAMPLES_PER_UNIT,
  type AudioTrack,
  type Track,
  timescaleHz,
  type VideoTrack,
} from '../access-unit.ts';
import { ByteReader, ByteWriter } from '../bytes.ts';
import { aacTrack } from '../codec/aac.ts';
import { avcTrack } from '../codec/avc.ts';
import { MediaError } from '../error.ts';
import { VIDEO_TIMESCALE_HZ } from '../time.ts';
import { type Box, readBoxes, readFullBoxHeader, requireBox, writeBox, writeFullBox } from './box.ts';

/**
 * Sample flags of ISO/IEC 14496-12 section 8.8.3.1: a sample that depends on no other, and one
 * that depends on others and is not a random access point.
 */
export const SYNC_SAMPLE_FLAGS = 0x0200_0000;
export const NON_SYNC_SAMPLE_FLAGS = 0x0101_0000;

/** Identity transformation (ISO/IEC 14496-12, 8.2.2.1): 16.16 fixed point, the last column 2.30. */
const UNITY_MATRIX = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000] as const;

/** `und` as three letters of five bits (ISO/IEC 14496-12, 8.4.2.3). */
const LANGUAGE_UNDETERMINED = 0x55c4;

/**
 * Writes `ftyp` and `moov` for fragments of these tracks.
 *
 * @param tracks video first, then audio; track ids count from 1 in this order. The timescale is
 * 1/90000 s for video and one sample for audio.
 */
export function initSegment(tracks: readonly Track[]): Uint8Array {
  const writer = new ByteWriter(2048);
  writeBox(writer, 'ftyp', () => {
    // iso6 is the first brand with tfdt, default-base-is-moof and signed composition offsets.
    writer.ascii('iso6').u32(0).ascii('iso6').ascii('mp41');
  });
  writeBox(writer, 'moov', () => {
    writeMovieHeader(writer, tracks.length + 1);
    tracks.forEach((track, index) => {
      writeTrack(writer, track, index + 1);
    });
    writeBox(writer, 'mvex', () => {
      tracks.forEach((track, index) => {
        writeTrackExtends(writer, track, index + 1);
      });
    });
  });
  return writer.finish().slice();
}

function writeMovieHeader(writer: ByteWriter, nextTrackId: number): void {
  writeFullBox(writer, 'mvhd', 0, 0, () => {
    writer.u32(0); // creation_time
    writer.u32(0); // modification_time
    writer.u32(VIDEO_TIMESCALE_HZ);
    writer.u32(0); // duration: all of it is in the fragments
    writer.u32(0x0001_0000); // rate 1.0
    writer.u16(0x0100); // volume 1.0
    writer.u16(0).u32(0).u32(0); // reserved
    for (const value of UNITY_MATRIX) writer.u32(value);
    for (let i = 0; i < 6; i++) writer.u32(0); // pre_defined
    writer.u32(nextTrackId);
  });
}

function writeTrack(writer: ByteWriter, track: Track, trackId: number): void {
  const isVideo = track.kind === 'video';
  writeBox(writer, 'trak', () => {
    // track_enabled | track_in_movie
    writeFullBox(writer, 'tkhd', 0, 0x00_0003, () => {
      writer.u32(0); // creation_time
      writer.u32(0); // modification_time
      writer.u32(trackId);
      writer.u32(0); // reserved
      writer.u32(0); // duration
      writer.u32(0).u32(0); // reserved
      writer.u16(0); // layer
      writer.u16(0); // alternate_group
      writer.u16(isVideo ? 0 : 0x0100); // volume 1.0 for audio
      writer.u16(0); // reserved
      for (const value of UNITY_MATRIX) writer.u32(value);
      writer.u16(isVideo ? track.widthPx : 0).u16(0); // width, 16.16
      writer.u16(isVideo ? track.heightPx : 0).u16(0); // height, 16.16
    });
    writeBox(writer, 'mdia', () => {
      writeFullBox(writer, 'mdhd', 0, 0, () => {
        writer.u32(0); // creation_time
        writer.u32(0); // modification_time
        writer.u32(timescaleHz(track));
        writer.u32(0); // duration
        writer.u16(LANGUAGE_UNDETERMINED);
        writer.u16(0); // pre_defined
      });
      writeFullBox(writer, 'hdlr', 0, 0, () => {
        writer.u32(0); // pre_defined
        writer.ascii(isVideo ? 'vide' : 'soun');
        writer.u32(0).u32(0).u32(0); // reserved
        writer.u8(0); // name: empty, zero-terminated
      });
      writeBox(writer, 'minf', () => {
        if (isVideo) {
          // The flag bit is fixed by the specification (12.1.2.2).
          writeFullBox(writer, 'vmhd', 0, 1, () => {
            writer.u16(0); // graphicsmode: copy
            writer.u16(0).u16(0).u16(0); // opcolor
          });
        } else {
          writeFullBox(writer, 'smhd', 0, 0, () => {
            writer.u16(0); // balance
            writer.u16(0); // reserved
          });
        }
        writeBox(writer, 'dinf', () => {
          writeFullBox(writer, 'dref', 0, 0, () => {
            writer.u32(1); // entry_count
            writeFullBox(writer, 'url ', 0, 1, () => {}); // flag: the media is in this file
          });
        });
        writeSampleTable(writer, track);
      });
    });
  });
}

/** The sample table holds the codec configuration; its other boxes are required but empty. */
function writeSampleTable(writer: ByteWriter, track: Track): void {
  writeBox(writer, 'stbl', () => {
    writeFullBox(writer, 'stsd', 0, 0, () => {
      writer.u32(1); // entry_count
      if (track.kind === 'video') writeAvc1(writer, track);
      else writeMp4a(writer, track);
    });
    for (const type of ['stts', 'stsc']) {
      writeFullBox(writer, type, 0, 0, () => writer.u32(0)); // entry_count
    }
    writeFullBox(writer, 'stsz', 0, 0, () => writer.u32(0).u32(0)); // sample_size, sample_count
    writeFullBox(writer, 'stco', 0, 0, () => writer.u32(0)); // entry_count
  });
}

function writeAvc1(writer: ByteWriter, track: VideoTrack): void {
  writeBox(writer, 'avc1', () => {
    writer.u32(0).u16(0); // reserved
    writer.u16(1); // data_reference_index
    writer.u16(0).u16(0); // pre_defined, reserved
    writer.u32(0).u32(0).u32(0); // pre_defined
    writer.u16(track.widthPx);
    writer.u16(track.heightPx);
    writer.u32(0x0048_0000); // horizresolution: 72 dpi
    writer.u32(0x0048_0000); // vertresolution: 72 dpi
    writer.u32(0); // reserved
    writer.u16(1); // frame_count
    for (let i = 0; i < 8; i++) writer.u32(0); // compressorname
    writer.u16(0x0018); // depth: colour without alpha
    writer.u16(0xffff); // pre_defined
    writeBox(writer, 'avcC', () => writer.bytes(track.config));
  });
}

function writeMp4a(writer: ByteWriter, track: AudioTrack): void {
  writeBox(writer, 'mp4a', () => {
    writer.u32(0).u16(0); // reserved
    writer.u16(1); // data_reference_index
    writer.u32(0).u32(0); // reserved
    writer.u16(track.channelCount);
    writer.u16(16); // samplesize
    writer.u16(0).u16(0); // pre_defined, reserved
    // 16.16; a rate that does not fit is told by the AudioSpecificConfig alone.
    writer.u16(track.sampleRateHz <= 0xffff ? track.sampleRateHz : 0).u16(0);
    writeFullBox(writer, 'esds', 0, 0, () => {
      const decoderSpecificInfo = descriptor(DECODER_SPECIFIC_INFO_TAG, (body) => body.bytes(track.config));
      const decoderConfig = descriptor(DECODER_CONFIG_TAG, (body) =>
        body
          .u8(0x40) // objectTypeIndication: ISO/IEC 14496-3 audio
          .u8(0x15) // streamType audio (5) << 2 | upStream 0 | reserved 1
          .u24(0) // bufferSizeDB
          .u32(0) // maxBitrate: unknown
          .u32(0) // avgBitrate: unknown
          .bytes(decoderSpecificInfo),
      );
      const slConfig = descriptor(SL_CONFIG_TAG, (body) => body.u8(2)); // predefined: MP4 file
      writer.bytes(
        descriptor(ES_DESCRIPTOR_TAG, (body) =>
          body
            .u16(0) // ES_ID: the track id stands for it (ISO/IEC 14496-14, 3.1.2)
            .u8(0) // no dependency, no URL, no OCR stream
            .bytes(decoderConfig)
            .bytes(slConfig),
        ),
      );
    });
  });
}

function writeTrackExtends(writer: ByteWriter, track: Track, trackId: number): void {
  writeFullBox(writer, 'trex', 0, 0, () => {
    writer.u32(trackId);
    writer.u32(1); // default_sample_description_index
    writer.u32(track.kind === 'video' ? (track.frameDurationTicks ?? 0) : AAC_SAMPLES_PER_UNIT);
    writer.u32(0); // default_sample_size
    writer.u32(track.kind === 'video' ? NON_SYNC_SAMPLE_FLAGS : SYNC_SAMPLE_FLAGS);
  });
}

// Class tags of ISO/IEC 14496-1, table 1.
const ES_DESCRIPTOR_TAG = 0x03;
const DECODER_CONFIG_TAG = 0x04;
const DECODER_SPECIFIC_INFO_TAG = 0x05;
const SL_CONFIG_TAG = 0x06;

/** One MPEG-4 descriptor: tag, size in groups of seven bits (ISO/IEC 14496-1, 8.3.3), body. */
function descriptor(tag: number, writeBody: (body: ByteWriter) => void): Uint8Array {
  const body = new ByteWriter(64);
  writeBody(body);
  const writer = new ByteWriter(body.length + 5).u8(tag);
  for (let shift = 21; shift > 0; shift -= 7) {
    if (body.length >> shift > 0) writer.u8(0x80 | ((body.length >> shift) & 0x7f));
  }
  return writer
    .u8(body.length & 0x7f)
    .bytes(body.finish())
    .finish();
}

/**
 * Reads the tracks of an init segment: one of ours, or one of FFmpeg's with H.264 and AAC.
 *
 * Edit lists are not applied: times are those of the fragments.
 *
 * @returns the tracks in the order of their ids, as `parseFragment` wants them
 * @throws MediaError MP4_MISSING_BOX, MP4_BAD_BOX, BYTES_TRUNCATED, or the codec's own code;
 * MP4_BAD_BOX also when the ids do not count from 1 or a timescale is not the track's
 */
export function parseInitSegment(bytes: Uint8Array): Track[] {
  const movie = readBoxes(requireBox(readBoxes(bytes), 'moov', 'the init segment').content);
  const frameDurations = defaultSampleDurations(movie);
  const tracks: Track[] = [];
  for (const box of movie) {
    if (box.type !== 'trak') continue;
    tracks.push(parseTrack(box.content, tracks.length + 1, frameDurations));
  }
  if (tracks.length === 0) throw new MediaError('MP4_MISSING_BOX', "no 'trak' in moov");
  return tracks;
}

/** `default_sample_duration` of each track id that has one. */
function defaultSampleDurations(movie: readonly Box[]): Map<number, number> {
  const durations = new Map<number, number>();
  for (const box of readBoxes(requireBox(movie, 'mvex', 'moov').content)) {
    if (box.type !== 'trex') continue;
    const reader = new ByteReader(box.content);
    readFullBoxHeader(reader);
    const trackId = reader.u32();
    reader.skip(4); // default_sample_description_index
    const durationTicks = reader.u32();
    if (durationTicks > 0) durations.set(trackId, durationTicks);
  }
  return durations;
}

function parseTrack(trak: Uint8Array, expectedId: number, frameDurations: Map<number, number>): Track {
  const boxes = readBoxes(trak);
  const trackHeader = new ByteReader(requireBox(boxes, 'tkhd', 'trak').content);
  skipDates(trackHeader);
  const trackId = trackHeader.u32();
  if (trackId !== expectedId) {
    throw new MediaError('MP4_BAD_BOX', `track id ${trackId} where ${expectedId} is expected`);
  }
  const media = readBoxes(requireBox(boxes, 'mdia', 'trak').content);
  const mediaHeader = new ByteReader(requireBox(media, 'mdhd', 'mdia').content);
  skipDates(mediaHeader);
  const timescale = mediaHeader.u32();

  const information = readBoxes(requireBox(media, 'minf', 'mdia').content);
  const sampleTable = readBoxes(requireBox(information, 'stbl', 'minf').content);
  const track = parseSampleDescription(
    requireBox(sampleTable, 'stsd', 'stbl').content,
    frameDurations.get(trackId),
  );
  if (timescale !== timescaleHz(track)) {
    throw new MediaError(
      'MP4_BAD_BOX',
      `the ${track.kind} track counts ${timescale} ticks per second where ${timescaleHz(track)} are expected`,
    );
  }
  return track;
}

/** Skips version, flags, creation and modification time of a header box. */
function skipDates(reader: ByteReader): void {
  const { version } = readFullBoxHeader(reader);
  reader.skip(version === 0 ? 8 : 16);
}

const AVC1_FIELDS_SIZE_BYTES = 78;
const MP4A_FIELDS_SIZE_BYTES = 28;

function parseSampleDescription(stsd: Uint8Array, frameDurationTicks: number | undefined): Track {
  const reader = new ByteReader(stsd);
  readFullBoxHeader(reader);
  reader.skip(4); // entry_count: the first entry is the one that counts
  const [entry] = readBoxes(reader.take(reader.remaining));
  if (entry === undefined) throw new MediaError('MP4_MISSING_BOX', 'no sample entry in stsd');
  const fields = new ByteReader(entry.content);
  switch (entry.type) {
    case 'avc1': {
      fields.skip(AVC1_FIELDS_SIZE_BYTES);
      const avcC = requireBox(readBoxes(fields.take(fields.remaining)), 'avcC', 'avc1');
      return avcTrack(avcC.content, frameDurationTicks);
    }
    case 'mp4a': {
      fields.skip(MP4A_FIELDS_SIZE_BYTES);
      const esds = requireBox(readBoxes(fields.take(fields.remaining)), 'esds', 'mp4a');
      return aacTrack(audioSpecificConfig(esds.content));
    }
    default:
      throw new MediaError('MP4_UNSUPPORTED_CODEC', `sample entry '${entry.type}'; avc1 and mp4a are taken`);
  }
}

/** Finds the AudioSpecificConfig inside the nested descriptors of an esds box. */
function audioSpecificConfig(esds: Uint8Array): Uint8Array {
  const reader = new ByteReader(esds);
  readFullBoxHeader(reader);
  const es = new ByteReader(readDescriptor(reader, ES_DESCRIPTOR_TAG));
  es.skip(2); // ES_ID
  const flags = es.u8();
  if (flags & 0x80) es.skip(2); // dependsOn_ES_ID
  if (flags & 0x40) es.skip(es.u8()); // URL
  if (flags & 0x20) es.skip(2); // OCR_ES_Id
  const decoderConfig = new ByteReader(readDescriptor(es, DECODER_CONFIG_TAG));
  decoderConfig.skip(13); // objectTypeIndication .. avgBitrate
  return readDescriptor(decoderConfig, DECODER_SPECIFIC_INFO_TAG);
}

function readDescriptor(reader: ByteReader, expectedTag: number): Uint8Array {
  const byteOffset = reader.offset;
  const tag = reader.u8();
  if (tag !== expectedTag) {
    throw new MediaError('MP4_BAD_BOX', `descriptor tag ${tag} in esds where ${expectedTag} is expected`, {
      byteOffset,
    });
  }
  let sizeBytes = 0;
  let sizeByte: number;
  let sizeByteCount = 0;
  do {
    if (++sizeByteCount > 4) {
      throw new MediaError('MP4_BAD_BOX', 'a descriptor size in esds is longer than four bytes', {
        byteOffset,
      });
    }
    sizeByte = reader.u8();
    sizeBytes = sizeBytes * 128 + (sizeByte & 0x7f);
  } while (sizeByte & 0x80);
  return reader.take(sizeBytes);
}
