/** The forms in which a stream goes out to viewers who get one endless response. */
import type { AccessUnit, Cue, Track } from '@starling/media/access-unit';
import {
  flvHeader,
  flvTag,
  metadataMessage,
  sequenceHeaderMessage,
  unitMessage,
  unitTag,
} from '@starling/media/flv/mux';
import { isLegacyCodec } from '@starling/media/flv/tag';
import { canCarryInTs, TsMuxer } from '@starling/media/mpeg-ts/mux';
import { SharedChunkWriter } from '@starling/media/rtmp/session';
import { ticksToMs, VIDEO_TIMESCALE_HZ } from '@starling/media/time';

/**
 * Muxes one stream for all its viewers. The bytes that follow a cue, after those of `head`, make a
 * whole stream; so do those that follow a unit that a decoder can start at, for a viewer who has had a head
 * before.
 */
export interface Container {
  canCarry(track: Track): boolean;
  /** What a viewer gets before the bytes that followed the newest independent cue. */
  head(): readonly Uint8Array[];
  /** @returns false where the times begin anew, and the responses have to end first */
  openSegment(cue: Cue): boolean;
  /** @returns what those who watch already get: how to decode the tracks that are new */
  setTracks(tracks: readonly Track[]): readonly Uint8Array[];
  unit(unit: AccessUnit, track: Track): readonly Uint8Array[];
}

/** 20 days. The 31-bit wrap of FLV's and RTMP's timestamps, which players cannot cross, comes after 24.8. */
const TIMESTAMP_PERIOD_MS = 20 * 24 * 3600 * 1000;

/**
 * The times of FLV and RTMP. They are offset per stream, not per viewer: the offset is a whole number
 * of periods of the timeline, the same on every frontend, and shorter than the wrap.
 */
class OffsetTimes {
  #offsetMs: number | undefined;
  #headTimestampMs = 0;

  get offsetMs(): number {
    return this.#offsetMs ?? 0;
  }

  /** Of the newest independent cue. */
  get headTimestampMs(): number {
    return this.#headTimestampMs;
  }

  openSegment(cue: Cue): boolean {
    const startMs = Math.floor(ticksToMs(cue.startTicks, VIDEO_TIMESCALE_HZ));
    const offsetMs = Math.floor(startMs / TIMESTAMP_PERIOD_MS) * TIMESTAMP_PERIOD_MS;
    const isSamePeriod = this.#offsetMs === undefined || this.#offsetMs === offsetMs;
    this.#offsetMs = offsetMs;
    if (cue.isIndependent) this.#headTimestampMs = startMs - offsetMs;
    return isSamePeriod;
  }
}

/** FLV, for HTTP-FLV and WebSocket-FLV. */
export class FlvContainer implements Container {
  readonly #times = new OffsetTimes();
  #tracks: readonly Track[] = [];

  canCarry(): boolean {
    return true;
  }

  head(): readonly Uint8Array[] {
    const has = (kind: Track['kind']) => this.#tracks.some((track) => track.kind === kind);
    return [
      flvHeader({ video: has('video'), audio: has('audio') }),
      flvTag(metadataMessage(this.#tracks, this.#times.headTimestampMs)),
      ...this.#sequenceHeaders(this.#tracks),
    ];
  }

  openSegment(cue: Cue): boolean {
    return this.#times.openSegment(cue);
  }

  setTracks(tracks: readonly Track[]): readonly Uint8Array[] {
    const newTracks = tracks.filter((track) => !this.#tracks.includes(track));
    this.#tracks = tracks;
    return this.#sequenceHeaders(newTracks);
  }

  unit(unit: AccessUnit, track: Track): readonly Uint8Array[] {
    return [unitTag(unit, track, this.#times.offsetMs)];
  }

  #sequenceHeaders(tracks: readonly Track[]): Uint8Array[] {
    return tracks.map((track) => flvTag(sequenceHeaderMessage(track, this.#times.headTimestampMs)));
  }
}

/** RTMP messages in chunks, for players: for all of them, or for those who take codecs of Enhanced RTMP too. */
export class RtmpContainer implements Container {
  readonly #isEnhanced: boolean;
  readonly #times = new OffsetTimes();
  readonly #writer = new SharedChunkWriter();
  #tracks: readonly Track[] = [];

  constructor(codecs: 'legacy' | 'enhanced') {
    this.#isEnhanced = codecs === 'enhanced';
  }

  canCarry(track: Track): boolean {
    return this.#isEnhanced || isLegacyCodec(track.codec);
  }

  head(): readonly Uint8Array[] {
    const metadata = metadataMessage(this.#tracks, this.#times.headTimestampMs);
    const writer = new SharedChunkWriter();
    return [...writer.write(metadata), ...this.#sequenceHeaders(this.#tracks, writer)];
  }

  openSegment(cue: Cue): boolean {
    this.#writer.restart();
    return this.#times.openSegment(cue);
  }

  setTracks(tracks: readonly Track[]): readonly Uint8Array[] {
    const newTracks = tracks.filter((track) => !this.#tracks.includes(track));
    this.#tracks = tracks;
    const sequenceHeaders = this.#sequenceHeaders(newTracks, this.#writer);
    this.#writer.restart(); // joiners do not get these
    return sequenceHeaders;
  }

  unit(unit: AccessUnit, track: Track): readonly Uint8Array[] {
    if (unit.isRandomAccess && (unit.kind === 'video' || this.#tracks.length === 1)) this.#writer.restart();
    return this.#writer.write(unitMessage(unit, track, this.#times.offsetMs));
  }

  #sequenceHeaders(tracks: readonly Track[], writer: SharedChunkWriter): Uint8Array[] {
    return tracks.flatMap((track) => [
      ...writer.write(sequenceHeaderMessage(track, this.#times.headTimestampMs)),
    ]);
  }
}

/** An MPEG transport stream, for Plex, set-top boxes and whatever else wants one over HTTP. */
export class TsContainer implements Container {
  readonly #muxer = new TsMuxer();

  canCarry(track: Track): boolean {
    return canCarryInTs(track);
  }

  /** Nothing: the tables precede every random access point. */
  head(): readonly Uint8Array[] {
    return [];
  }

  openSegment(): boolean {
    this.#muxer.startSegment();
    return true;
  }

  setTracks(tracks: readonly Track[]): readonly Uint8Array[] {
    this.#muxer.setTracks(tracks);
    return [];
  }

  unit(unit: AccessUnit): readonly Uint8Array[] {
    return [this.#muxer.unit(unit)];
  }
}
