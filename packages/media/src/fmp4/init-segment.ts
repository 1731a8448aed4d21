/**
 * The init segment of fragmented MP4: what a decoder needs before the first fragment.
 *
 * It is a pure function of the tracks: no dates, no names of programs, no identifiers, so every
 * process that plays the same channel writes the same bytes.
 *
 * Sources: ISO/IEC 14496-12 (boxes), 14496-15 sections 5.4.2 (avc1) and 8.4.1 (hvc1), 14496-14 section 5.6
 * (mp4a) and 14496-1 section 7.2.6 (the descriptors inside esds); AV1-ISOBMFF section 2.2 (av01); VP Codec
 * ISO Media File Format Binding (vp09); "Encapsulation of Opus in ISO BMFF" 0.6.8 section 4.3; "Encapsulation
 * of FLAC in ISO BMFF" 0.0.4 section 3.3; ETSI TS 102 366 annex F (ac-3, ec-3).
 */
import {
  type AudioCodec,
  type AudioTrack,
  type Track,
  timescaleHz,
  type VideoCodec,
  type VideoTrack,
} from '../access-unit.ts';
import { ByteReader, ByteWriter } from '../bytes.ts';
import { aacTrack } from '../codec/aac.ts';
import { ac3Track, eac3Track } from '../codec/ac3.ts';
import { av1Track } from '../codec/av1.ts';
import { avcTrack } from '../codec/avc.ts';
import { flacHeaderOf, flacTrack, parseFlacStreamInfo } from '../codec/flac.ts';
import { hevcTrack } from '../codec/hevc.ts';
import { mp3TrackOf } from '../codec/mp3.ts';
import { opusTrack, parseOpusIdHeader, serialiseOpusIdHeader } from '../codec/opus.ts';
import { constantSamplesPerUnit } from '../codec/samples.ts';
import { vp9Track } from '../codec/vp9.ts';
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
      if (track.kind === 'video') writeVisualSampleEntry(writer, track);
      else writeAudioSampleEntry(writer, track);
    });
    for (const type of ['stts', 'stsc']) {
      writeFullBox(writer, type, 0, 0, () => writer.u32(0)); // entry_count
    }
    writeFullBox(writer, 'stsz', 0, 0, () => writer.u32(0).u32(0)); // sample_size, sample_count
    writeFullBox(writer, 'stco', 0, 0, () => writer.u32(0)); // entry_count
  });
}

/** Sample entry and configuration box of each video codec. */
const VIDEO_BOXES: Readonly<Record<VideoCodec, { readonly entry: string; readonly config: string }>> = {
  avc: { entry: 'avc1', config: 'avcC' },
  hevc: { entry: 'hvc1', config: 'hvcC' },
  av1: { entry: 'av01', config: 'av1C' },
  vp9: { entry: 'vp09', config: 'vpcC' },
};

function writeVisualSampleEntry(writer: ByteWriter, track: VideoTrack): void {
  const boxes = VIDEO_BOXES[track.codec];
  writeBox(writer, boxes.entry, () => {
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
    // vpcC alone is a full box, of version 1.
    if (track.codec === 'vp9') writeFullBox(writer, boxes.config, 1, 0, () => writer.bytes(track.config));
    else writeBox(writer, boxes.config, () => writer.bytes(track.config));
  });
}

const AUDIO_ENTRIES: Readonly<Record<AudioCodec, string>> = {
  aac: 'mp4a',
  mp3: 'mp4a',
  opus: 'Opus',
  flac: 'fLaC',
  ac3: 'ac-3',
  eac3: 'ec-3',
};

function writeAudioSampleEntry(writer: ByteWriter, track: AudioTrack): void {
  writeBox(writer, AUDIO_ENTRIES[track.codec], () => {
    writer.u32(0).u16(0); // reserved
    writer.u16(1); // data_reference_index
    writer.u32(0).u32(0); // reserved
    writer.u16(track.channelCount);
    writer.u16(track.codec === 'flac' ? parseFlacStreamInfo(track.config).bitsPerSample : 16); // samplesize
    writer.u16(0).u16(0); // pre_defined, reserved
    writer.u16(sampleEntryRateHz(track)).u16(0); // 16.16
    writeAudioConfig(writer, track);
  });
}

/** A rate that does not fit 16 bits is told by the configuration alone; FLAC wants a fraction of it (section 3.3.1). */
function sampleEntryRateHz({ codec, sampleRateHz }: AudioTrack): number {
  if (sampleRateHz <= 0xffff) return sampleRateHz;
  if (codec !== 'flac') return 0;
  let fractionHz = sampleRateHz;
  while (fractionHz > 0xffff) fractionHz /= 2;
  return Math.floor(fractionHz);
}

function writeAudioConfig(writer: ByteWriter, track: AudioTrack): void {
  switch (track.codec) {
    case 'aac':
    case 'mp3':
      writeElementaryStream(writer, track);
      return;
    case 'opus': {
      const header = parseOpusIdHeader(track.config);
      writeBox(writer, 'dOps', () => {
        writer.u8(0); // Version
        writer.u8(header.channelCount);
        writer.u16(header.preSkipSamples);
        writer.u32(header.inputSampleRateHz);
        writer.u16(header.outputGain);
        writer.u8(header.channelMappingFamily);
        writer.bytes(header.channelMapping);
      });
      return;
    }
    case 'flac': {
      const { block } = parseFlacStreamInfo(track.config);
      writeFullBox(writer, 'dfLa', 0, 0, () => writer.bytes(block));
      return;
    }
    case 'ac3':
      writeBox(writer, 'dac3', () => writer.bytes(track.config));
      return;
    case 'eac3':
      writeBox(writer, 'dec3', () => writer.bytes(track.config));
      return;
  }
}

/** objectTypeIndication (ISO/IEC 14496-1, table 5): MPEG-4, MPEG-2 and MPEG-1 audio. */
const OBJECT_TYPE = { mpeg4Audio: 0x40, mpeg2Audio: 0x69, mpeg1Audio: 0x6b } as const;

function writeElementaryStream(writer: ByteWriter, track: AudioTrack): void {
  const isMp3 = track.codec === 'mp3';
  const mp3ObjectType = track.sampleRateHz >= 32_000 ? OBJECT_TYPE.mpeg1Audio : OBJECT_TYPE.mpeg2Audio;
  writeFullBox(writer, 'esds', 0, 0, () => {
    // An MP3 frame says all itself.
    const decoderSpecificInfo = isMp3
      ? new Uint8Array(0)
      : descriptor(DECODER_SPECIFIC_INFO_TAG, (body) => body.bytes(track.config));
    const decoderConfig = descriptor(DECODER_CONFIG_TAG, (body) =>
      body
        .u8(isMp3 ? mp3ObjectType : OBJECT_TYPE.mpeg4Audio)
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
}

function writeTrackExtends(writer: ByteWriter, track: Track, trackId: number): void {
  writeFullBox(writer, 'trex', 0, 0, () => {
    writer.u32(trackId);
    writer.u32(1); // default_sample_description_index
    writer.u32((track.kind === 'video' ? track.frameDurationTicks : constantSamplesPerUnit(track)) ?? 0);
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
 * Reads the tracks of an init segment: one of ours, or one of FFmpeg's.
 *
 * MP3 of an init segment is described by its sample entry alone, as MPEG-1 or MPEG-2 audio of that rate.
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

const VISUAL_FIELDS_SIZE_BYTES = 78;
const AUDIO_FIELDS_SIZE_BYTES = 28;

function parseSampleDescription(stsd: Uint8Array, frameDurationTicks: number | undefined): Track {
  const reader = new ByteReader(stsd);
  readFullBoxHeader(reader);
  reader.skip(4); // entry_count: the first entry is the one that counts
  const [entry] = readBoxes(reader.take(reader.remaining));
  if (entry === undefined) throw new MediaError('MP4_MISSING_BOX', 'no sample entry in stsd');
  const fields = new ByteReader(entry.content);
  /** The content of a box inside the sample entry, after the entry's own fields. */
  const boxContent = (type: string, fieldsSizeBytes: number) => {
    fields.skip(fieldsSizeBytes - fields.offset);
    return requireBox(readBoxes(fields.take(fields.remaining)), type, entry.type).content;
  };
  switch (entry.type) {
    case 'avc1':
      return avcTrack(boxContent('avcC', VISUAL_FIELDS_SIZE_BYTES), frameDurationTicks);
    case 'hvc1':
    case 'hev1':
      return hevcTrack(boxContent('hvcC', VISUAL_FIELDS_SIZE_BYTES), frameDurationTicks);
    case 'av01': {
      const track = av1Track(boxContent('av1C', VISUAL_FIELDS_SIZE_BYTES), frameDurationTicks);
      if (track === undefined) throw new MediaError('AV1_BAD_CONFIG', 'it has no sequence header');
      return track;
    }
    case 'vp09': {
      fields.skip(24); // reserved, data_reference_index, pre_defined, reserved
      const size = { widthPx: fields.u16(), heightPx: fields.u16() };
      return vp9Track(boxContent('vpcC', VISUAL_FIELDS_SIZE_BYTES), size, frameDurationTicks);
    }
    case 'mp4a':
      return parseMp4a(boxContent('esds', AUDIO_FIELDS_SIZE_BYTES), new ByteReader(entry.content));
    case 'Opus':
      return opusTrack(opusIdHeader(boxContent('dOps', AUDIO_FIELDS_SIZE_BYTES)));
    case 'fLaC': {
      const reader = new ByteReader(boxContent('dfLa', AUDIO_FIELDS_SIZE_BYTES));
      readFullBoxHeader(reader);
      return flacTrack(flacHeaderOf(reader.take(reader.remaining)));
    }
    case 'ac-3':
      return ac3Track(boxContent('dac3', AUDIO_FIELDS_SIZE_BYTES));
    case 'ec-3':
      return eac3Track(boxContent('dec3', AUDIO_FIELDS_SIZE_BYTES));
    default:
      throw new MediaError('MP4_UNSUPPORTED_CODEC', `sample entry '${entry.type}'`);
  }
}

/** The ID header that a box `dOps` describes. */
function opusIdHeader(dOps: Uint8Array): Uint8Array {
  const reader = new ByteReader(dOps);
  reader.skip(1); // Version
  return serialiseOpusIdHeader({
    channelCount: reader.u8(),
    preSkipSamples: reader.u16(),
    inputSampleRateHz: reader.u32(),
    outputGain: reader.u16(),
    channelMappingFamily: reader.u8(),
    channelMapping: reader.take(reader.remaining),
  });
}

/** @param entry the sample entry's fields */
function parseMp4a(esds: Uint8Array, entry: ByteReader): AudioTrack {
  const { objectType, decoderSpecificInfo } = parseElementaryStream(esds);
  switch (objectType) {
    case OBJECT_TYPE.mpeg1Audio:
    case OBJECT_TYPE.mpeg2Audio: {
      entry.skip(16); // reserved, data_reference_index
      const channelCount = entry.u16();
      entry.skip(6); // samplesize, pre_defined, reserved
      return mp3TrackOf(entry.u16(), channelCount);
    }
    default:
      return aacTrack(decoderSpecificInfo());
  }
}

/** Takes the nested descriptors of an esds box apart. */
function parseElementaryStream(esds: Uint8Array): {
  objectType: number;
  decoderSpecificInfo: () => Uint8Array;
} {
  const reader = new ByteReader(esds);
  readFullBoxHeader(reader);
  const es = new ByteReader(readDescriptor(reader, ES_DESCRIPTOR_TAG));
  es.skip(2); // ES_ID
  const flags = es.u8();
  if (flags & 0x80) es.skip(2); // dependsOn_ES_ID
  if (flags & 0x40) es.skip(es.u8()); // URL
  if (flags & 0x20) es.skip(2); // OCR_ES_Id
  const decoderConfig = new ByteReader(readDescriptor(es, DECODER_CONFIG_TAG));
  const objectType = decoderConfig.u8();
  decoderConfig.skip(12); // streamType .. avgBitrate
  return { objectType, decoderSpecificInfo: () => readDescriptor(decoderConfig, DECODER_SPECIFIC_INFO_TAG) };
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
