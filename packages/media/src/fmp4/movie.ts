/**
 * A stream as movie files: fragmented MP4 that is a valid file after every fragment, so that whoever
 * writes it may be killed at any time.
 *
 *   ftyp moov free | moof mdat | moof mdat | ...
 *
 * The times of a file start at 0. The `free` box keeps room for the index (`sidx`) that is written over it when
 * the file is finished: with it players know the length and seek without reading the whole file.
 *
 * Source: ISO/IEC 14496-12 sections 8.1.2 (free), 8.8 (fragments), 8.16.3 (sidx).
 */
import {
  type AccessUnit,
  type Cue,
  isSameTrack,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
} from '../access-unit.ts';
import { ByteReader, ByteWriter, concatBytes } from '../bytes.ts';
import { samplesInUnit } from '../codec/samples.ts';
import { MediaError } from '../error.ts';
import { rescaleTicks, VIDEO_TIMESCALE_HZ } from '../time.ts';
import { readBoxes, readFullBoxHeader, requireBox, writeBox, writeFullBox } from './box.ts';
import { fragment, TFHD, TRUN } from './fragment.ts';
import { initSegment, NON_SYNC_SAMPLE_FLAGS } from './init-segment.ts';

/** Room for the index: 5,458 references, three hours of fragments of 2 s. A longer file refers to several at once. */
export const INDEX_SIZE_BYTES = 64 * 1024;

/** A fragment ends at the next random access point after this. */
const MIN_FRAGMENT_TICKS = VIDEO_TIMESCALE_HZ;
/** It ends here without one: what is not in the file yet is lost with the process. */
const MAX_FRAGMENT_TICKS = 3 * VIDEO_TIMESCALE_HZ;
const MAX_FRAGMENT_BYTES = 32 * 1024 * 1024;
/** Players would stand still for as long as nothing came: after a longer hole a new file begins. */
const MAX_HOLE_TICKS = 10 * VIDEO_TIMESCALE_HZ;
/** Of a video unit of which nothing else says how long it lasts. */
const USUAL_FRAME_DURATION_TICKS = VIDEO_TIMESCALE_HZ / 25;

/** Where a fragment lies in the time of its file, for the index. */
export interface FragmentEntry {
  readonly sizeBytes: number;
  /** Of the file's first track, in its timescale. */
  readonly startTicks: number;
  readonly endTicks: number;
  /** When its first picture in the order of presentation is shown. */
  readonly presentationTicks: number;
  /** A player can start here. */
  readonly isRandomAccess: boolean;
}

export type MovieEvent =
  /** A new file begins: its first bytes, and what the wall clock said at its start, in milliseconds since 1970. */
  | {
      readonly type: 'file';
      readonly head: Uint8Array;
      readonly tracks: readonly Track[];
      readonly startUnixMs: number;
    }
  /** To be appended to it. */
  | { readonly type: 'fragment'; readonly bytes: Uint8Array; readonly entry: FragmentEntry };

interface OpenFile {
  /** The best picture and all sound; as in the file's `moov`. */
  readonly tracks: readonly Track[];
  readonly startUnixMs: number;
  /** Where the file starts on the channel's timeline, in ticks of 1/90000 s. */
  readonly startTicks: number;
  sequenceNumber: number;
  /** Of the open fragment: units with times of the file, by the place of their track. */
  units: AccessUnit[][];
  unitBytes: number;
  /** Of the newest unit of each track, in the file's time. */
  readonly lastDtsTicks: number[];
  /** Of the first unit of the open fragment, in the file's time, 1/90000 s; undefined while it has none. */
  fragmentStartTicks: number | undefined;
  /** Where the last fragment ends, in the timescale of the first track. */
  endTicks: number;
  /** Of the newest unit of any track, in the file's time, 1/90000 s. */
  newestTicks: number;
}

/**
 * Writes a channel's stream into movie files. Events in, bytes out.
 *
 * A file begins at a cue with a random access point: the first one, where the configuration of a track
 * changes, after a hole, and where asked for with `fileDurationMs`. It holds the largest picture and every
 * audio track.
 */
export class MovieWriter {
  readonly #fileDurationMs: number;
  /** By {@link trackIndex}. */
  readonly #tracks = new Map<number, Track>();
  #replacesTracks = false;
  #discontinuitySequence: number | undefined;
  /** No unit has followed it. */
  #openingCue: Cue | undefined;
  #isFileDue = false;
  #file: OpenFile | undefined;

  /** @param options.fileDurationMs a file begins at each multiple of it since 1970; at no time where undefined */
  constructor(options: { fileDurationMs?: number } = {}) {
    this.#fileDurationMs = options.fileDurationMs ?? Number.POSITIVE_INFINITY;
  }

  /** Takes an event of the stream, in the order of the contract in access-unit.ts. */
  push(event: StreamEvent): MovieEvent[] {
    switch (event.type) {
      case 'timeline':
        return [];
      case 'track':
        if (this.#replacesTracks) this.#tracks.clear();
        this.#replacesTracks = false;
        this.#tracks.set(trackIndex(event.track), event.track);
        return [];
      case 'cue': {
        const { discontinuitySequence } = event.cue;
        this.#replacesTracks = discontinuitySequence !== this.#discontinuitySequence;
        this.#discontinuitySequence = discontinuitySequence;
        this.#openingCue = event.cue;
        return [];
      }
      case 'unit': {
        const made = this.#openingCue === undefined ? [] : this.#enterSegment(this.#openingCue, event.unit);
        this.#openingCue = undefined;
        made.push(...this.#add(event.unit));
        return made;
      }
    }
  }

  /** Begins a new file at the next random access point that opens a segment. */
  beginFile(): void {
    this.#isFileDue = true;
  }

  /** Ends the open file with what it has. The next cue may begin another one. */
  end(): MovieEvent[] {
    const made = this.#flush(undefined);
    this.#file = undefined;
    return made;
  }

  /** Begins a file with the segment where one has to. */
  #enterSegment(cue: Cue, unit: AccessUnit): MovieEvent[] {
    const file = this.#file;
    const tracks = this.#tracksOfFile();
    const hasOtherTracks =
      file === undefined ||
      file.tracks.length !== tracks.length ||
      file.tracks.some((track, index) => {
        const other = tracks[index];
        return other === undefined || trackIndex(other) !== trackIndex(track) || !isSameTrack(other, track);
      });
    if (file !== undefined && !hasOtherTracks) {
      const holeTicks = cue.startTicks - file.startTicks - file.newestTicks;
      const isDue =
        this.#isFileDue ||
        Math.floor(cue.programDateTimeUnixMs / this.#fileDurationMs) >
          Math.floor(file.startUnixMs / this.#fileDurationMs);
      if (holeTicks <= MAX_HOLE_TICKS && holeTicks > -MAX_HOLE_TICKS && !(isDue && cue.isIndependent))
        return [];
    }
    const made = this.#flush(cue.startTicks);
    this.#file = undefined;
    if (tracks.length === 0 || !cue.isIndependent || !unit.isRandomAccess) return made;
    this.#isFileDue = false;
    this.#file = {
      tracks,
      startUnixMs: cue.programDateTimeUnixMs,
      startTicks: cue.startTicks,
      sequenceNumber: 0,
      units: tracks.map(() => []),
      unitBytes: 0,
      lastDtsTicks: tracks.map(() => -1),
      fragmentStartTicks: undefined,
      endTicks: 0,
      newestTicks: 0,
    };
    made.push({ type: 'file', head: movieHead(tracks), tracks, startUnixMs: cue.programDateTimeUnixMs });
    return made;
  }

  #tracksOfFile(): Track[] {
    const sorted = [...this.#tracks.values()].sort((a, b) => trackIndex(a) - trackIndex(b));
    let picture: Track | undefined;
    for (const track of sorted) {
      if (track.kind !== 'video') continue;
      if (picture?.kind !== 'video' || track.heightPx > picture.heightPx) picture = track;
    }
    return sorted.filter((track) => track.kind === 'audio' || track === picture);
  }

  #add(unit: AccessUnit): MovieEvent[] {
    const file = this.#file;
    if (file === undefined) return [];
    const place = file.tracks.findIndex((track) => trackIndex(track) === trackIndex(unit));
    const track = file.tracks[place];
    if (track === undefined) return [];
    const shiftTicks = rescaleTicks(file.startTicks, VIDEO_TIMESCALE_HZ, timescaleHz(track));
    const dtsTicks = unit.dtsTicks - shiftTicks;
    if (dtsTicks <= (file.lastDtsTicks[place] ?? -1)) return [];
    const ticks = rescaleTicks(dtsTicks, timescaleHz(track), VIDEO_TIMESCALE_HZ);
    const elapsedTicks = ticks - (file.fragmentStartTicks ?? ticks);
    const isFull =
      elapsedTicks >= MAX_FRAGMENT_TICKS ||
      file.unitBytes + unit.data.length > MAX_FRAGMENT_BYTES ||
      (place === 0 && unit.isRandomAccess && elapsedTicks >= MIN_FRAGMENT_TICKS);
    const made = isFull ? this.#flush(file.startTicks + ticks) : [];
    file.lastDtsTicks[place] = dtsTicks;
    file.units[place]?.push({ ...unit, dtsTicks, ptsTicks: unit.ptsTicks - shiftTicks });
    file.fragmentStartTicks ??= ticks;
    file.unitBytes += unit.data.length;
    file.newestTicks = Math.max(file.newestTicks, ticks);
    return made;
  }

  /** @param endTicks on the timeline, in 1/90000 s: where the next fragment starts, if that is known */
  #flush(endTicks: number | undefined): MovieEvent[] {
    const file = this.#file;
    if (file === undefined || file.units.every((units) => units.length === 0)) return [];
    const nextTicks = endTicks === undefined ? undefined : endTicks - file.startTicks;
    const tracks = file.tracks.map((track, place) => {
      const units = file.units[place] ?? [];
      return { track, units, endTicks: endOf(track, units, nextTicks) };
    });
    const bytes = fragment({ sequenceNumber: ++file.sequenceNumber, tracks });
    const entry = entryOf(tracks, bytes.length, file.endTicks);
    file.endTicks = entry.endTicks;
    file.units = file.tracks.map(() => []);
    file.unitBytes = 0;
    file.fragmentStartTicks = undefined;
    return [{ type: 'fragment', bytes, entry }];
  }
}

/** Where the last unit of a fragment ends, in the track's timescale. */
function endOf(track: Track, units: readonly AccessUnit[], nextTicks: number | undefined): number {
  const [last, before] = [units.at(-1), units.at(-2)];
  if (last === undefined) return 0;
  if (track.kind === 'audio') return last.dtsTicks + samplesInUnit(track, last.data);
  if (nextTicks !== undefined && nextTicks > last.dtsTicks && nextTicks - last.dtsTicks < MAX_HOLE_TICKS) {
    return nextTicks;
  }
  const distanceTicks = before && last.dtsTicks - before.dtsTicks;
  return last.dtsTicks + (track.frameDurationTicks ?? distanceTicks ?? USUAL_FRAME_DURATION_TICKS);
}

function entryOf(
  tracks: readonly {
    readonly track: Track;
    readonly units: readonly AccessUnit[];
    readonly endTicks: number;
  }[],
  sizeBytes: number,
  beforeTicks: number,
): FragmentEntry {
  const [reference] = tracks;
  const [first] = reference?.units ?? [];
  if (reference === undefined || first === undefined) {
    // The picture stands still while the sound goes on.
    const startTicks = beforeTicks;
    return {
      sizeBytes,
      startTicks,
      endTicks: startTicks,
      presentationTicks: startTicks,
      isRandomAccess: false,
    };
  }
  return {
    sizeBytes,
    startTicks: first.dtsTicks,
    endTicks: reference.endTicks,
    presentationTicks: reference.units.reduce(
      (least, { ptsTicks }) => Math.min(least, ptsTicks),
      Number.POSITIVE_INFINITY,
    ),
    isRandomAccess: first.isRandomAccess,
  };
}

/** What a file begins with: `ftyp`, `moov` and the room for the index. */
function movieHead(tracks: readonly Track[]): Uint8Array {
  return concatBytes([initSegment(tracks), freeSpace(INDEX_SIZE_BYTES)]);
}

function freeSpace(sizeBytes: number): Uint8Array {
  const writer = new ByteWriter(sizeBytes);
  writeBox(writer, 'free', () => writer.bytes(new Uint8Array(sizeBytes - BOX_HEADER_SIZE_BYTES)));
  return writer.finish();
}

const BOX_HEADER_SIZE_BYTES = 8;
const SIDX_FIELDS_SIZE_BYTES = 40; // header 8, version and flags 4, ids 8, times 16, counts 4
const REFERENCE_SIZE_BYTES = 12;
/** A subsegment that starts with a closed group of pictures (ISO/IEC 14496-12, annex I). */
const STARTS_WITH_SAP_1 = 0x9000_0000;

/**
 * The index of a finished file, to be written over the `free` box at the end of its head.
 * @param entries all fragments of the file
 * @returns exactly {@link INDEX_SIZE_BYTES}
 */
export function movieIndex(tracks: readonly Track[], entries: readonly FragmentEntry[]): Uint8Array {
  const [track] = tracks;
  const maxReferences = Math.floor(
    (INDEX_SIZE_BYTES - SIDX_FIELDS_SIZE_BYTES - BOX_HEADER_SIZE_BYTES) / REFERENCE_SIZE_BYTES,
  );
  // A player enters where a reference starts, so what is no random access point belongs to the one before.
  let references: FragmentEntry[] = [];
  for (const entry of entries) {
    const before = references.at(-1);
    if (before === undefined || entry.isRandomAccess) references.push(entry);
    else references[references.length - 1] = joined(before, entry);
  }
  const perReference = Math.ceil(references.length / maxReferences);
  if (perReference > 1) {
    references = Array.from({ length: Math.ceil(references.length / perReference) }, (_, index) =>
      references.slice(index * perReference, (index + 1) * perReference).reduce(joined),
    );
  }
  const writer = new ByteWriter(INDEX_SIZE_BYTES);
  const sidxSizeBytes = SIDX_FIELDS_SIZE_BYTES + references.length * REFERENCE_SIZE_BYTES;
  writeFullBox(writer, 'sidx', 1, 0, () => {
    writer.u32(1); // reference_ID: the first track
    writer.u32(track === undefined ? VIDEO_TIMESCALE_HZ : timescaleHz(track));
    writer.u64(references[0]?.presentationTicks ?? 0); // earliest_presentation_time
    writer.u64(INDEX_SIZE_BYTES - sidxSizeBytes); // first_offset: the free box that follows
    writer.u16(0).u16(references.length); // reserved, reference_count
    references.forEach((reference, index) => {
      const nextTicks = references[index + 1]?.startTicks ?? reference.endTicks;
      writer.u32(reference.sizeBytes); // reference_type 0: media
      writer.u32(nextTicks - reference.startTicks);
      writer.u32(reference.isRandomAccess ? STARTS_WITH_SAP_1 : 0);
    });
  });
  return concatBytes([writer.finish(), freeSpace(INDEX_SIZE_BYTES - sidxSizeBytes)]);
}

function joined(first: FragmentEntry, second: FragmentEntry): FragmentEntry {
  return { ...first, sizeBytes: first.sizeBytes + second.sizeBytes, endTicks: second.endTicks };
}

/**
 * What the index needs to know of a fragment, from its `moof` alone: so that the index of a file whose writer
 * was killed is made without reading the media.
 *
 * @param moof the content of the box
 * @param sizeBytes of `moof` and `mdat`
 * @param beforeTicks where the fragment before it ends: what has nothing of the first track takes no time
 * @throws MediaError MP4_BAD_BOX, MP4_MISSING_BOX or BYTES_TRUNCATED for what {@link MovieWriter} did not write
 */
export function readFragmentEntry(moof: Uint8Array, sizeBytes: number, beforeTicks: number): FragmentEntry {
  for (const traf of readBoxes(moof)) {
    if (traf.type !== 'traf') continue;
    const boxes = readBoxes(traf.content);
    const header = new ByteReader(requireBox(boxes, 'tfhd', 'traf').content);
    const { flags } = readFullBoxHeader(header);
    if (header.u32() !== 1) continue;
    const defaultDurationTicks = flags & TFHD.defaultSampleDuration ? header.u32() : undefined;
    const defaultFlags = header.u32();
    const decodeTime = new ByteReader(requireBox(boxes, 'tfdt', 'traf').content);
    readFullBoxHeader(decodeTime);
    const startTicks = decodeTime.u64();
    const run = new ByteReader(requireBox(boxes, 'trun', 'traf').content);
    const trun = readFullBoxHeader(run);
    const sampleCount = run.u32();
    run.skip(4); // data_offset
    let firstFlags = trun.flags & TRUN.firstSampleFlags ? run.u32() : defaultFlags;
    let endTicks = startTicks;
    let presentationTicks = Number.POSITIVE_INFINITY;
    for (let index = 0; index < sampleCount; index++) {
      const dtsTicks = endTicks;
      endTicks += trun.flags & TRUN.sampleDuration ? run.u32() : (defaultDurationTicks ?? 0);
      run.skip(4); // sample_size
      const sampleFlags = trun.flags & TRUN.sampleFlags ? run.u32() : firstFlags;
      if (index === 0) firstFlags = sampleFlags;
      const offsetTicks = trun.flags & TRUN.sampleCompositionTimeOffset ? run.i32() : 0;
      presentationTicks = Math.min(presentationTicks, dtsTicks + offsetTicks);
    }
    const isRandomAccess = firstFlags !== NON_SYNC_SAMPLE_FLAGS;
    return { sizeBytes, startTicks, endTicks, presentationTicks, isRandomAccess };
  }
  const ticks = { startTicks: beforeTicks, endTicks: beforeTicks, presentationTicks: beforeTicks };
  return { sizeBytes, ...ticks, isRandomAccess: false };
}

/**
 * Reads the header of a box, from at least 16 bytes of it, or from fewer at the end of a file.
 * @returns the whole box's size and where its content starts; undefined where the bytes do not suffice
 * @throws MediaError MP4_BAD_BOX for one without a definite size
 */
export function readBoxHeader(
  bytes: Uint8Array,
): { readonly type: string; readonly sizeBytes: number; readonly headerSizeBytes: number } | undefined {
  if (bytes.length < BOX_HEADER_SIZE_BYTES) return undefined;
  const reader = new ByteReader(bytes);
  const size32 = reader.u32();
  const type = String.fromCharCode(...reader.take(4));
  if (size32 === 1) {
    return bytes.length < 16 ? undefined : { type, sizeBytes: reader.u64(), headerSizeBytes: 16 };
  }
  if (size32 < BOX_HEADER_SIZE_BYTES) throw new MediaError('MP4_BAD_BOX', `a box of ${size32} bytes`);
  return { type, sizeBytes: size32, headerSizeBytes: BOX_HEADER_SIZE_BYTES };
}
