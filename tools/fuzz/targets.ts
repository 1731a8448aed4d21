/**
 * What is fuzzed: for each parser how an input is made, and what must hold whatever the input is.
 *
 * `run` may meet a MediaError wherever the parser documents one; everything else that it throws is a
 * crash, a broken promise of ours ({@link check}) included. It returns a signature: a few words on what
 * happened, the same for inputs that went the same way.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { IncomingMessage, ServerResponse } from 'node:http';
import { connect, Socket } from 'node:net';
import { inspect, isDeepStrictEqual } from 'node:util';
import { type Frontend, startFrontend } from '@starling/frontend/main';
import {
  type AccessUnit,
  type Cue,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
} from '@starling/media/access-unit';
import { concatBytes, equalBytes } from '@starling/media/bytes';
import { aacTrack } from '@starling/media/codec/aac';
import { avcTrack, parseAvcConfig, parseAvcSps } from '@starling/media/codec/avc';
import { MediaError } from '@starling/media/error';
import { FlvDemuxer, FlvReader } from '@starling/media/flv/demux';
import { decodeLinkMessage, encodeLinkMessage } from '@starling/media/flv/link';
import { flvHeader, flvTag, LinkMuxer } from '@starling/media/flv/mux';
import type { FlvMessage } from '@starling/media/flv/tag';
import { readBoxes } from '@starling/media/fmp4/box';
import { fragment, parseFragment } from '@starling/media/fmp4/fragment';
import { initSegment, parseInitSegment } from '@starling/media/fmp4/init-segment';
import type { LiveWindow } from '@starling/media/hls/live-window';
import {
  mediaPlaylist,
  multivariantPlaylist,
  serialiseMediaPlaylist,
  serialiseMultivariantPlaylist,
} from '@starling/media/hls/playlist';
import { Renditions } from '@starling/media/hls/renditions';
import type { Segment } from '@starling/media/hls/segmenter';
import { IngestGrid } from '@starling/media/ingest-grid';
import { type Amf0Value, decodeAmf0, encodeAmf0 } from '@starling/media/rtmp/amf0';
import { ChunkReader, ChunkWriter } from '@starling/media/rtmp/chunk';
import type { RtmpMessage } from '@starling/media/rtmp/message';
import { RtmpClientSession, RtmpServerSession, type ServerSessionEvent } from '@starling/media/rtmp/session';
import { compareTicks, VIDEO_TIMESCALE_HZ } from '@starling/media/time';
import * as hlsParser from 'hls-parser';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { enhancedCodecs } from './codec-target.ts';
import {
  AAC_CONFIGS,
  AUDIO_TRACK,
  AVC_CONFIGS,
  amfBytes,
  anyText,
  chunkBytes,
  clientToServerMessages,
  encoderMessages,
  flvTags,
  fragmentBytes,
  handshakeBytes,
  initSegmentBytes,
  linkMessages,
  mutateBoxes,
  readFlvTags,
  serverToClientMessages,
  splitFlvTags,
  VIDEO_TRACK,
} from './grammar.ts';
import { Random } from './random.ts';
import { check, type Target } from './target.ts';

/** The value, or the code of the MediaError. */
function attempt<T>(run: () => T): { readonly value: T } | { readonly code: string } {
  try {
    return { value: run() };
  } catch (error) {
    if (error instanceof MediaError) return { code: error.code };
    throw error;
  }
}

/** Names in a row with the repetitions left out and an end: the shape of a sequence. */
function shape(names: readonly string[]): string {
  const kept: string[] = [];
  for (const name of names) {
    if (kept.at(-1) === name || (kept.at(-1) === kept.at(-3) && kept.at(-2) === name)) continue;
    kept.push(name);
    if (kept.length === 5) break;
  }
  return kept.join(' ');
}

/** Cuts bytes at places that follow from the bytes, so that the same input is always cut alike. */
function pieces(bytes: Uint8Array): Uint8Array[] {
  let hash = bytes.length;
  for (const byte of bytes.subarray(0, 256)) hash = Math.imul(hash ^ byte, 16777619);
  const random = new Random(hash);
  const cut: Uint8Array[] = [];
  const maxPieceBytes = random.pick([3, 20, 300, 5000]) + (bytes.length >> 8);
  for (let at = 0; at < bytes.length; ) {
    const size = random.between(1, maxPieceBytes);
    cut.push(bytes.slice(at, at + size));
    at += size;
  }
  return cut;
}

// AMF0

const amf0: Target = {
  name: 'amf0',
  maxInputBytes: 4096,
  generate: amfBytes,
  run(input) {
    const decoded = attempt(() => decodeAmf0(input));
    if ('code' in decoded) return decoded.code;
    if (!hasLongKey(decoded.value)) {
      const again = decodeAmf0(encodeAmf0(decoded.value));
      // Two dates without a value differ for isDeepStrictEqual.
      const isSame = isDeepStrictEqual(again, decoded.value) || inspect(again) === inspect(decoded.value);
      check(isSame, 'what AMF0 decodes, encodes and decodes to the same');
    }
    return shape(decoded.value.map((value) => (value === null ? 'null' : typeof value)));
  },
};

/** Malformed text grows when its bytes are replaced, perhaps past what a property's name may have. */
function hasLongKey(value: Amf0Value): boolean {
  if (typeof value !== 'object' || value === null || value instanceof Date) return false;
  return Object.entries(value).some(([key, child]) => key.length > 20_000 || hasLongKey(child));
}

// RTMP

const MAX_MESSAGE_BYTES = 8 * 1024 * 1024;
const HANDSHAKE_RANDOM = new Uint8Array(1528);

const rtmpChunks: Target = {
  name: 'rtmp-chunks',
  maxInputBytes: 8192,
  generate: (random) =>
    chunkBytes(random, random.oneIn(2) ? clientToServerMessages(random) : serverToClientMessages(random)),
  run(input) {
    const read = (parts: readonly Uint8Array[]) => {
      const reader = new ChunkReader({ maxMessageBytes: MAX_MESSAGE_BYTES });
      return attempt(() => parts.flatMap((part) => reader.push(part)));
    };
    const whole = read([input]);
    check(isDeepStrictEqual(whole, read(pieces(input))), 'chunks read the same wherever they are split');
    if ('code' in whole) return whole.code;
    const messages = whole.value;
    // Kept control messages only: the reader obeys and swallows the others.
    const output: Uint8Array[] = [];
    const writer = new ChunkWriter(output);
    for (const message of messages) writer.write(3 + (message.typeId % 8), message);
    const reader = new ChunkReader({ maxMessageBytes: MAX_MESSAGE_BYTES });
    check(isDeepStrictEqual(reader.push(concatBytes(output)), messages), 'chunks that are written are read');
    return shape(messages.map((message) => `${message.typeId}`));
  },
};

/** The first byte says how the rest is to be taken; bit 0: a valid handshake goes before it. */
function withHandshake(input: Uint8Array): Uint8Array {
  const rest = input.subarray(1);
  return ((input[0] ?? 0) & 1) === 0 ? concatBytes([handshakeBytes(), rest]) : rest;
}

function generateSession(random: Random, messages: readonly RtmpMessage[]): Uint8Array {
  const mode = random.below(256);
  const chunks = chunkBytes(random, messages);
  const isRaw = (mode & 1) === 1;
  return concatBytes(isRaw ? [Uint8Array.of(mode), handshakeBytes(), chunks] : [Uint8Array.of(mode), chunks]);
}

function serverEventName(event: ServerSessionEvent): string {
  return event.type === 'message' ? event.message.kind : event.type;
}

/** @param mode bit 1: refuse what is asked for; bit 2: leave it open until the end */
function runServerSession(parts: readonly Uint8Array[], mode: number) {
  const session = new RtmpServerSession({
    handshakeRandomBytes: HANDSHAKE_RANDOM,
    maxMessageBytes: MAX_MESSAGE_BYTES,
  });
  const events: ServerSessionEvent[] = [];
  const result = attempt(() => {
    for (const part of parts) {
      for (const event of session.receive(part)) {
        events.push(event);
        if (event.type === 'publish') {
          if (mode & 2) session.rejectPublish('NetStream.Publish.BadName', 'no');
          else session.acceptPublish();
        } else if (event.type === 'play') {
          if (mode & 2) session.rejectPlay('NetStream.Play.StreamNotFound', 'no');
          else session.acceptPlay();
          session.sendMessage({ kind: 'video', timestampMs: 0, payload: Uint8Array.of(1) });
          if (mode & 4) session.endPlay();
        }
      }
      session.takeOutput();
    }
  });
  session.takeOutput();
  if ('code' in result) {
    check(session.state.phase === 'failed', 'a session that threw has failed');
    const again = attempt(() => session.receive(Uint8Array.of(0)));
    check('code' in again && again.code === result.code, 'a session that has failed throws the same again');
  }
  return { events, code: 'code' in result ? result.code : undefined, phase: session.state.phase };
}

const rtmpServer: Target = {
  name: 'rtmp-server',
  maxInputBytes: 8192,
  generate: (random) => generateSession(random, clientToServerMessages(random)),
  run(input) {
    const mode = input[0] ?? 0;
    const bytes = withHandshake(input);
    const split = runServerSession(pieces(bytes), mode);
    const whole = runServerSession([bytes], mode & ~6);
    if ((mode & 6) === 0) checkSplit(split, whole); // a refusal counts from the next piece on
    for (const event of split.events)
      if (event.type === 'publish' || event.type === 'play') checkTarget(event.target);
    return `${split.code ?? split.phase}: ${shape(split.events.map(serverEventName))}`;
  },
};

function checkSplit(split: { code: string | undefined }, whole: { code: string | undefined }): void {
  const haveBothFailed = (split.code === undefined) === (whole.code === undefined);
  check(haveBothFailed, 'an error does not depend on where input is split');
  if (split.code !== undefined) return;
  check(isDeepStrictEqual(split, whole), 'events do not depend on where input is split');
}

function checkTarget(target: { app: string; streamName: string; query: ReadonlyMap<string, string> }): void {
  for (const path of [target.app, target.streamName]) {
    check(!path.startsWith('/') && !path.endsWith('/'), 'no slash begins or ends an app or stream name');
    check(!path.includes('?'), 'a query is not part of an app or stream name');
  }
  check(!target.query.has(''), 'a query has no empty name');
}

const rtmpClient: Target = {
  name: 'rtmp-client',
  maxInputBytes: 8192,
  generate: (random) => generateSession(random, serverToClientMessages(random)),
  run(input) {
    const mode = (input[0] ?? 0) & 2 ? 'play' : 'publish';
    const bytes = withHandshake(input);
    const run = (parts: readonly Uint8Array[]) => {
      const session = new RtmpClientSession({
        mode,
        tcUrl: 'rtmp://host/live',
        app: 'live',
        streamName: 'cam?key=K',
        handshakeRandomBytes: HANDSHAKE_RANDOM,
        maxMessageBytes: 64 * 1024,
      }); // prettier-ignore
      const events: string[] = [];
      const result = attempt(() => {
        for (const part of parts) {
          for (const event of session.receive(part)) {
            events.push(event.type === 'message' ? event.message.kind : event.type);
            if (mode === 'publish')
              session.sendMessage({ kind: 'data', timestampMs: 0, payload: ON_META_DATA });
          }
          session.takeOutput();
        }
      });
      const { phase } = session.state;
      session.close();
      session.takeOutput();
      return { events, code: 'code' in result ? result.code : undefined, phase };
    };
    const split = run(pieces(bytes));
    const whole = run([bytes]);
    checkSplit(split, whole);
    return `${mode} ${split.code ?? split.phase}: ${shape(split.events)}`;
  },
};

const ON_META_DATA = encodeAmf0(['onMetaData', {}]);

/** Text in three parts, a zero byte between them: stream name, app, tcUrl. */
const rtmpQuery: Target = {
  name: 'rtmp-query',
  maxInputBytes: 1024,
  generate: (random) =>
    Buffer.from([anyText(random), anyText(random), anyText(random)].join('\0').slice(0, 2000)),
  run(input) {
    const [name = '', app = '', tcUrl = ''] = Buffer.from(input).toString('latin1').split('\0', 3);
    const session = new RtmpServerSession({
      handshakeRandomBytes: HANDSHAKE_RANDOM,
      maxMessageBytes: MAX_MESSAGE_BYTES,
    });
    const chunks: Uint8Array[] = [handshakeBytes()];
    const writer = new ChunkWriter(chunks);
    const send = (...values: Amf0Value[]) =>
      writer.write(3, { typeId: 20, streamId: 0, timestampMs: 0, payload: encodeAmf0(values) });
    send('connect', 1, { app, tcUrl });
    send('publish', 2, null, name, 'live');
    const names: string[] = [];
    for (const event of session.receive(concatBytes(chunks))) {
      if (event.type !== 'publish') continue;
      checkTarget(event.target);
      const { app: parsedApp, streamName, query } = event.target;
      check(query.size <= input.length, 'a query has no more pairs than bytes');
      names.push(
        parsedApp === '' ? 'no app' : 'app',
        streamName === '' ? 'no name' : 'name',
        `${Math.min(query.size, 8)} pairs`,
      );
      names.push([...query.values()].some((value) => value.includes('%')) ? 'bad escape' : 'no escape');
    }
    check(names.length > 0, 'a publish is heard');
    return names.join(', ');
  },
};

// FLV

const flvReader: Target = {
  name: 'flv-reader',
  maxInputBytes: 4096,
  generate: (random) =>
    concatBytes([
      flvHeader({ video: random.oneIn(2), audio: random.oneIn(2) }),
      ...encoderMessages(random, random.below(12)).map(({ message }) => flvTag(message)),
    ]),
  run(input) {
    const read = (parts: readonly Uint8Array[]) => {
      const reader = new FlvReader();
      return attempt(() => parts.flatMap((part) => reader.push(part)));
    };
    const whole = read([input]);
    check(isDeepStrictEqual(whole, read(pieces(input))), 'FLV reads the same wherever it is split');
    if ('code' in whole) return whole.code;
    const written = concatBytes([flvHeader({ video: true, audio: true }), ...whole.value.map(flvTag)]);
    check(isDeepStrictEqual(new FlvReader().push(written), whole.value), 'FLV that is written is read');
    return shape(whole.value.map(({ kind }) => kind));
  },
};

const generateTags = (random: Random) =>
  flvTags(random.oneIn(2) ? encoderMessages(random, random.below(30)) : linkMessages(random).slice(0, 60));

const flvDemuxer: Target = {
  name: 'flv-demuxer',
  maxInputBytes: 4096,
  generate: generateTags,
  split: splitFlvTags,
  run(input) {
    const demuxer = new FlvDemuxer();
    const names: string[] = [];
    const events: StreamEvent[] = [];
    for (const { timed } of readFlvTags(input)) {
      const link =
        timed.message.kind === 'data' ? attempt(() => decodeLinkMessage(timed.message.payload)) : undefined;
      if (link !== undefined && 'value' in link && link.value !== undefined) {
        const again = decodeLinkMessage(encodeLinkMessage(link.value));
        check(isDeepStrictEqual(again, link.value), 'a link message that is encoded is decoded');
      }
      const result = attempt(() => demuxer.push(timed.message));
      if ('code' in result) names.push(result.code);
      else {
        events.push(...result.value);
        for (const event of result.value) names.push(event.type === 'unit' ? event.unit.kind : event.type);
        for (const event of result.value) checkDemuxed(event);
      }
    }
    checkLink(events);
    return shape(names);
  },
};

function checkDemuxed(event: StreamEvent): void {
  if (event.type === 'unit') {
    const { dtsTicks, ptsTicks, data } = event.unit;
    check(Number.isSafeInteger(dtsTicks) && Number.isSafeInteger(ptsTicks), 'times are whole ticks');
    check(data.length > 0, 'no unit is empty');
  } else if (event.type === 'track') {
    checkTrack(event.track);
  }
}

function checkTrack(track: Track): void {
  check(/^(avc1\.[0-9a-f]{6}|mp4a\.40\.\d+)$/.test(track.codecString), `codec string ${track.codecString}`);
  if (track.kind === 'video') {
    check(
      Number.isInteger(track.widthPx) && track.widthPx > 0 && track.widthPx <= 0xffff,
      'a width fits its box',
    );
    check(
      Number.isInteger(track.heightPx) && track.heightPx > 0 && track.heightPx <= 0xffff,
      'a height fits its box',
    );
  } else {
    check(Number.isInteger(track.sampleRateHz) && track.sampleRateHz > 0, 'a sample rate is a whole number');
    check(track.channelCount > 0 && track.channelCount < 256, 'a channel count is sane');
  }
}

/** What came out goes over one of our links and comes out the same, from the first cue on. */
function checkLink(events: readonly StreamEvent[]): void {
  const muxer = new LinkMuxer();
  const demuxer = new FlvDemuxer();
  const frameTicks: { video: number | undefined } = { video: undefined };
  let lastMs = 0;
  for (const event of events) {
    if (event.type === 'track' && event.track.kind === 'video')
      frameTicks.video = event.track.frameDurationTicks;
    if (event.type === 'cue') lastMs = event.cue.startTicks / 90;
    if (event.type === 'unit') {
      // What no node of ours sends: times before the epoch, leaps, frames of less than 2 ms.
      const { unit } = event;
      const offsetTicks = Math.abs(unit.ptsTicks - unit.dtsTicks);
      const ms = unit.kind === 'video' ? unit.dtsTicks / 90 : lastMs;
      if (unit.dtsTicks < 0 || Math.abs(ms - lastMs) > 2 ** 30 || offsetTicks > 8_388_607 * 90) return;
      if (unit.kind === 'audio' || (frameTicks.video ?? 3600) < 180) continue;
      lastMs = ms;
    }
    const again = muxer.encode(event).flatMap((message) => demuxer.push(message));
    check(again.length === 1, 'every event that goes over a link arrives');
    if (event.type === 'track') continue; // a track may be announced under another frame duration
    check(isDeepStrictEqual(again[0], event), 'an event that goes over a link arrives as it was');
  }
}

// The timeline

/** Follows a stream of the contract in access-unit.ts and raises what is wrong in it. */
class ContractChecker {
  /** By {@link trackIndex}. */
  readonly #tracks = new Map<number, Track>();
  #hasTimeline = false;
  #cue: Cue | undefined;
  #isAfterCue = false;
  #replacesTracks = false;
  #last: { unit: AccessUnit; hz: number } | undefined;
  readonly #lastTicks = new Map<number, { ticks: number; hz: number }>();
  /** Where the open segment's media ends, in ticks of 1/90000 s, as far as it is known. */
  #targetDurationMs = 0;

  get tracks(): readonly Track[] {
    return [...this.#tracks.values()];
  }

  take(event: StreamEvent): void {
    switch (event.type) {
      case 'timeline':
        check(!this.#hasTimeline, 'the timeline is said once');
        this.#hasTimeline = true;
        return;
      case 'track':
        check(this.#hasTimeline, 'the timeline comes before the tracks');
        check(
          this.#cue === undefined || this.#replacesTracks || this.#isAfterCue,
          'tracks change right after a discontinuity',
        );
        if (this.#replacesTracks) this.#tracks.clear();
        this.#replacesTracks = false;
        this.#tracks.set(trackIndex(event.track), event.track);
        return;
      case 'cue':
        this.#takeCue(event.cue);
        return;
      case 'unit':
        this.#takeUnit(event.unit);
    }
  }

  #takeCue(cue: Cue): void {
    check(this.#tracks.size > 0, 'tracks come before the first cue');
    check(!this.#isAfterCue, 'a unit follows each cue');
    const before = this.#cue;
    if (before !== undefined) {
      check(cue.mediaSequenceNumber === before.mediaSequenceNumber + 1, 'media sequence numbers rise by one');
      check(cue.startTicks > before.startTicks, 'cues rise');
      const rise = cue.discontinuitySequence - before.discontinuitySequence;
      check(rise === 0 || rise === 1, 'discontinuity sequences rise by one');
      this.#replacesTracks = rise === 1;
      check(cue.programDateTimeUnixMs >= before.programDateTimeUnixMs, 'programme date-times rise');
    }
    check(Number.isSafeInteger(cue.startTicks) && cue.startTicks >= 0, 'a cue lies on the timeline');
    if (this.#targetDurationMs > 0)
      check(cue.targetDurationMs === this.#targetDurationMs, 'the target duration stays');
    this.#targetDurationMs = cue.targetDurationMs;
    this.#cue = cue;
    this.#isAfterCue = true;
  }

  #takeUnit(unit: AccessUnit): void {
    const index = trackIndex(unit);
    const track = this.#tracks.get(index);
    check(track !== undefined, 'a unit has a track');
    check(this.#cue !== undefined, 'a cue comes before the first unit');
    const hz = timescaleHz(track);
    const { dtsTicks } = unit;
    check(Number.isSafeInteger(dtsTicks), 'a DTS is a whole number of ticks');
    check(
      compareTicks(dtsTicks, hz, this.#cue.startTicks, VIDEO_TIMESCALE_HZ) >= 0,
      'a unit lies behind its cue',
    );
    if (this.#isAfterCue) {
      const startHz = this.#last?.hz ?? hz;
      const last = this.#last?.unit.dtsTicks ?? dtsTicks - 1;
      check(
        compareTicks(last, startHz, this.#cue.startTicks, VIDEO_TIMESCALE_HZ) < 0,
        'units before a cue lie before it',
      );
    }
    if (this.#last !== undefined) {
      const order = compareTicks(dtsTicks, hz, this.#last.unit.dtsTicks, this.#last.hz);
      check(
        order > 0 || (order === 0 && trackIndex(this.#last.unit) < index),
        'units come in order of DTS, and of tracks when equal',
      );
    }
    const before = this.#lastTicks.get(index);
    if (before !== undefined) {
      check(compareTicks(dtsTicks, hz, before.ticks, before.hz) > 0, 'DTS rise on each track');
    }
    check(unit.kind === 'audio' ? unit.ptsTicks === dtsTicks : unit.ptsTicks >= dtsTicks, 'PTS follow DTS');
    this.#lastTicks.set(index, { ticks: dtsTicks, hz });
    this.#last = { unit, hz };
    this.#isAfterCue = false;
  }
}

const PART_TARGET_MS = 500;

/** A frontend's HLS in small: all renditions, with the playlists read by another implementation. */
class Viewer {
  #renditions = Viewer.#newRenditions();
  /** By rendition and number. */
  readonly segments = new Map<string, Segment>();

  static #newRenditions(): Renditions {
    return new Renditions({ partTargetMs: PART_TARGET_MS, windowDurationMs: 6000, minSegments: 2 });
  }

  /** @throws MediaError as the segmenter does */
  push(event: StreamEvent): void {
    if (event.type === 'timeline') {
      this.#renditions = Viewer.#newRenditions();
      this.segments.clear();
    }
    for (const { rendition, event: made } of this.#renditions.push(event)) {
      if (made.type === 'part') {
        const { durationTicks } = made.part;
        check(durationTicks > 0 && durationTicks <= PART_TARGET_MS * 90, 'no part outlasts the part target');
        continue;
      }
      const { segment } = made;
      const partTicks = segment.parts.reduce((sum, part) => sum + part.durationTicks, 0);
      check(partTicks === segment.durationTicks, 'the parts make up their segment');
      this.segments.set(`${rendition}/${segment.cue.mediaSequenceNumber}`, segment);
    }
  }

  /** @param isCueTrusted the target duration of the cues is believed to be true */
  checkPlaylists(isCueTrusted: boolean): void {
    const { onAir, isPlayable } = this.#renditions;
    for (const { window } of onAir) if (window.isPlayable) this.#checkMediaPlaylist(window, isCueTrusted);
    if (!isPlayable) return;
    const text = serialiseMultivariantPlaylist(multivariantPlaylist(onAir, (name) => `${name}/index.m3u8`));
    checkNumbers(text);
    hlsParser.setOptions({ strictMode: true, silent: true });
    const parsed = hlsParser.parse(text);
    const uris = new Set(Array.from(text.matchAll(/^[^#].*$|URI="(.*?)"/gm), ([line, uri]) => uri ?? line));
    check('variants' in parsed && parsed.variants.length > 0, 'the variants are listed');
    check(uris.size === onAir.length, 'every rendition is listed');
  }

  #checkMediaPlaylist(window: LiveWindow, isCueTrusted: boolean): void {
    for (const segment of window.segments) {
      for (const part of segment.parts) parseFragment(part.bytes, segment.init.tracks);
    }
    const names = {
      segment: (number: number) => `${number}.m4s`,
      part: (number: number, index: number) => `${number}.${index}.m4s`,
      init: (id: string) => `init-${id}.mp4`,
    };
    const media = serialiseMediaPlaylist(mediaPlaylist(window, names));
    checkNumbers(media);
    for (const [, date] of media.matchAll(/DATE-TIME:(.*)/g)) {
      check(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(date ?? ''), `programme date-time ${date}`);
    }
    for (const number of media.matchAll(/^(\d+)\.m4s$/gm)) {
      check(/^\d{1,15}$/.test(number[1] ?? ''), `segment ${number[1]} can be asked for`);
    }
    hlsParser.setOptions({ strictMode: true, silent: true });
    try {
      const list = hlsParser.parse(media);
      check('segments' in list && list.segments.length === window.segments.length, 'every segment is listed');
    } catch (error) {
      const isLongSegment = error instanceof Error && error.message.includes('EXTINF duration');
      if (!isLongSegment || isCueTrusted) throw error;
    }
  }
}

function checkNumbers(playlist: string): void {
  check(!/NaN|Infinity|undefined|e[+-]\d/.test(playlist), `numbers in ${playlist}`);
}

const ingest: Target = {
  name: 'ingest',
  maxInputBytes: 16_384,
  generate: (random) => flvTags(encoderMessages(random, random.pick([20, 100, 400]))),
  split: splitFlvTags,
  run(input) {
    const grid = new IngestGrid({ epochUnixMs: 1_700_000_000_000, programmeId: 'live' });
    let demuxer = new FlvDemuxer();
    let nowUnixMs = 1_700_000_100_000;
    const contract = new ContractChecker();
    const viewer = new Viewer();
    let joiner: Viewer | undefined;
    let discontinuitySequence: number | undefined;
    const names: string[] = [];
    const take = (event: StreamEvent) => {
      contract.take(event);
      names.push(event.type === 'unit' ? event.unit.kind : event.type);
      viewer.push(event); // nothing that we wrote ourselves may be refused
      if (event.type === 'cue') {
        // Another frontend starts later, at a cue that is no discontinuity.
        if (joiner === undefined && discontinuitySequence === event.cue.discontinuitySequence) {
          joiner = new Viewer();
          joiner.push({ type: 'timeline', epochUnixMs: 0 });
          for (const track of contract.tracks) joiner.push({ type: 'track', track });
        }
        discontinuitySequence = event.cue.discontinuitySequence;
      }
      joiner?.push(event);
    };
    for (const { isEnd, timed } of readFlvTags(input)) {
      nowUnixMs += timed.elapsedMs;
      if (isEnd) {
        demuxer = new FlvDemuxer();
        grid.endOfPublisher().forEach(take);
        continue;
      }
      const demuxed = attempt(() => demuxer.push(timed.message));
      if ('code' in demuxed) names.push(demuxed.code);
      else for (const event of demuxed.value) grid.push(event, nowUnixMs).forEach(take);
    }
    grid.endOfPublisher().forEach(take);
    viewer.checkPlaylists(true);
    for (const [number, segment] of joiner?.segments ?? []) {
      const bytes = (one: Segment | undefined) => concatBytes(one?.parts.map((part) => part.bytes) ?? []);
      check(
        equalBytes(bytes(segment), bytes(viewer.segments.get(number))),
        'every frontend makes the same segments',
      );
    }
    return shape(names);
  },
};

const segmenter: Target = {
  name: 'segmenter',
  maxInputBytes: 16_384,
  generate: (random) => flvTags(random.oneIn(8) ? encoderMessages(random, 40) : linkMessages(random)),
  split: splitFlvTags,
  run(input) {
    const demuxer = new FlvDemuxer();
    const viewer = new Viewer();
    const names: string[] = [];
    for (const { timed } of readFlvTags(input)) {
      const result = attempt(() => {
        for (const event of demuxer.push(timed.message)) {
          names.push(event.type === 'unit' ? event.unit.kind : event.type);
          viewer.push(event);
        }
      });
      if ('code' in result) names.push(result.code);
    }
    viewer.checkPlaylists(false);
    return `${Math.min(viewer.segments.size, 5)} segments: ${shape(names)}`;
  },
};

// MP4

const mp4Boxes: Target = {
  name: 'mp4-boxes',
  maxInputBytes: 2048,
  generate: (random) => (random.oneIn(2) ? initSegmentBytes(random) : fragmentBytes(random)),
  mutate: mutateBoxes,
  run(input) {
    const result = attempt(() => readBoxes(input));
    if ('code' in result) return result.code;
    for (const { content, byteOffset } of result.value) {
      check(content.byteOffset >= input.byteOffset && byteOffset < input.length, 'a box lies in its file');
    }
    return `${Math.min(result.value.length, 4)} boxes`;
  },
};

const mp4Init: Target = {
  name: 'mp4-init',
  maxInputBytes: 2048,
  generate: initSegmentBytes,
  mutate: mutateBoxes,
  run(input) {
    const result = attempt(() => parseInitSegment(input));
    if ('code' in result) return result.code;
    const tracks = result.value;
    tracks.forEach(checkTrack);
    check(
      isDeepStrictEqual(parseInitSegment(initSegment(tracks)), tracks),
      'an init segment that is written is read',
    );
    return shape(tracks.map(({ kind, codecString }) => `${kind} ${codecString}`));
  },
};

const mp4Fragment: Target = {
  name: 'mp4-fragment',
  maxInputBytes: 2048,
  generate: fragmentBytes,
  mutate: mutateBoxes,
  run(input) {
    const tracks = [VIDEO_TRACK, AUDIO_TRACK];
    const result = attempt(() => parseFragment(input, tracks));
    if ('code' in result) return result.code;
    const units = result.value;
    check(units.length <= input.length, 'there are no more samples than bytes');
    const byTrack = tracks.map((track) => {
      const own = units.filter(({ kind }) => kind === track.kind);
      return { track, units: own, endTicks: (own.at(-1)?.dtsTicks ?? 0) + 1024 };
    });
    const isOrderly = byTrack.every(({ units: own }) =>
      own.every((unit, index) => {
        const next = own[index + 1]?.dtsTicks ?? unit.dtsTicks;
        const offset = unit.ptsTicks - unit.dtsTicks;
        const fits = Number.isSafeInteger(next) && next - unit.dtsTicks < 2 ** 32 && offset === (offset | 0);
        return fits && next >= unit.dtsTicks;
      }),
    );
    if (isOrderly) {
      const written = fragment({ sequenceNumber: 1, tracks: byTrack });
      const expected = byTrack.flatMap((one) => one.units);
      check(
        isDeepStrictEqual(parseFragment(written, tracks), expected),
        'a fragment that is written is read',
      );
    }
    return `${isOrderly} ${shape(units.map(({ kind, isRandomAccess }) => `${kind}${isRandomAccess ? '!' : ''}`))}`;
  },
};

// Codecs

const avcConfig: Target = {
  name: 'avc-config',
  maxInputBytes: 512,
  generate: (random) => random.pick(AVC_CONFIGS).slice(),
  run(input) {
    const track = attempt(() => avcTrack(input));
    if ('code' in track) return track.code;
    checkTrack(track.value);
    const { sequenceParameterSets, pictureParameterSets, nalLengthSizeBytes } = parseAvcConfig(input);
    check([1, 2, 4].includes(nalLengthSizeBytes), 'a NAL length has 1, 2 or 4 bytes');
    const [sps = new Uint8Array(0)] = sequenceParameterSets;
    const { frameRate, isProgressive } = parseAvcSps(sps);
    check(
      frameRate === undefined || frameRate.numerator / frameRate.denominator > 0,
      'a frame rate is positive',
    );
    return `${sequenceParameterSets.length > 1} ${pictureParameterSets.length > 1} ${isProgressive} ${frameRate !== undefined} `;
  },
};

const aacConfig: Target = {
  name: 'aac-config',
  maxInputBytes: 128,
  generate: (random) =>
    random.oneIn(2) ? random.pick(AAC_CONFIGS).slice() : random.bytes(random.between(1, 24)),
  run(input) {
    const track = attempt(() => aacTrack(input));
    if ('code' in track) return track.code;
    checkTrack(track.value);
    return track.value.codecString;
  },
};

// HTTP

/** A socket to nobody: swallows what is written. */
class NullSocket extends Socket {
  override _read(): void {}
  override _write(_chunk: unknown, _encoding: string, done: () => void): void {
    done();
  }
  override _writev(_chunks: unknown, done: () => void): void {
    done();
  }
  override _final(done: () => void): void {
    done();
  }
}

let frontend: Frontend | undefined;
let publisher: Socket | undefined;

/** Pushes a few segments to the frontend, as a backend does, so that the paths lead somewhere. */
async function pushChannel(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const session = new RtmpClientSession({
    mode: 'publish',
    tcUrl: `rtmp://127.0.0.1:${port}/live`,
    app: 'live',
    streamName: 'fuzz?token=t',
    handshakeRandomBytes: randomBytes(1528),
    maxMessageBytes: 64 * 1024,
  }); // prettier-ignore
  const flush = () => socket.write(session.takeOutput() ?? new Uint8Array(0));
  socket.on('error', () => {});
  const isReady = new Promise<void>((resolve) => {
    socket.on('data', (bytes) => {
      for (const event of session.receive(bytes)) if (event.type === 'ready') resolve();
      flush();
    });
  });
  flush();
  await isReady;
  const random = new Random(1);
  let messages: FlvMessage[] = [];
  while (messages.length < 200) messages = linkMessages(random).map(({ message }) => message);
  for (const message of messages) session.sendMessage(message);
  flush();
  // A silent publisher is cut off, and its channel goes off the air.
  const keepAlive = setInterval(() => {
    session.sendMessage({ kind: 'data', timestampMs: 0, payload: ON_META_DATA });
    flush();
  }, 5000);
  keepAlive.unref();
  socket.on('close', () => clearInterval(keepAlive));
  return socket;
}

const PATHS = [
  '/live/fuzz/index.m3u8',
  '/live/fuzz/main/index.m3u8',
  '/live/fuzz/main/1.m4s',
  '/live/fuzz/main/init-0123456789abcdef.mp4',
  '/live/fuzz.flv',
  '/live/fuzz.ts',
  '/live/fuzz/thumbnail.jpg',
  '/live/none/index.m3u8',
  '/live/',
  '/',
  '/healthz',
  '//live/fuzz',
  '/live/fuzz/../x',
  '*',
] as const; // prettier-ignore
const QUERIES = [
  '',
  '?',
  '?_HLS_msn=1',
  '?_HLS_msn=1&_HLS_part=0',
  '?_HLS_msn=-1',
  '?_HLS_part=1',
  '?_HLS_skip=v2',
  '?_HLS_msn=1e99&_HLS_msn=2',
  '?a=%zz',
] as const;
const METHODS = ['GET', 'HEAD', 'OPTIONS', 'POST', 'get', '', 'PRI'] as const;
const HEADERS = [
  'accept-encoding: gzip',
  'accept-encoding: br;q=1, *;q=0',
  'range: bytes=0-',
  'upgrade: websocket',
  'if-none-match: *',
] as const;

/** Lines of text: method, address, headers. */
const http: Target = {
  name: 'http',
  maxInputBytes: 1024,
  generate(random) {
    const address = random.pick(PATHS) + random.pick(QUERIES);
    const headers = HEADERS.filter(() => random.oneIn(3));
    return Buffer.from([random.oneIn(4) ? random.pick(METHODS) : 'GET', address, ...headers].join('\n'));
  },
  async prepare() {
    const registry = new Registry();
    const logger = pino({ level: 'silent' });
    frontend = await startFrontend({
      rtmpHost: '127.0.0.1',
      rtmpPort: 0,
      publishToken: 't',
      logger,
      registry,
    });
    publisher = await pushChannel(frontend.rtmpPort);
    for (let tries = 0; tries < 200 && !frontend.isPlayable('fuzz'); tries++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    check(frontend.isPlayable('fuzz'), 'the pushed channel is on the air');
  },
  async close() {
    publisher?.destroy();
    await frontend?.close();
    frontend = undefined;
  },
  run(input) {
    if (frontend === undefined) throw new Error('the frontend has not been started');
    const [method = '', url = '', ...headers] = Buffer.from(input).toString('latin1').split('\n');
    const socket = new NullSocket();
    const request = new IncomingMessage(socket);
    request.method = method;
    request.url = url;
    for (const header of headers) {
      const [name = '', value = ''] = header.split(': ', 2);
      request.headers[name.toLowerCase()] = value;
    }
    const response = new ServerResponse(request);
    response.assignSocket(socket);
    const isOurs = frontend.handleRequest(request, response);
    check(isOurs || !response.headersSent, 'a request that is not taken is not answered');
    check(isOurs || !url.startsWith('/live/'), 'what lies below /live/ is taken');
    const status = response.headersSent ? response.statusCode : 'waits';
    // The viewer leaves.
    request.emit('close');
    response.emit('close');
    socket.emit('close');
    socket.destroy();
    return `${isOurs} ${status} ${String(response.getHeader('content-type'))} ${String(response.getHeader('content-encoding'))}`;
  },
};

export const targets: readonly Target[] = [
  amf0,
  rtmpChunks,
  rtmpServer,
  rtmpClient,
  rtmpQuery,
  flvReader,
  flvDemuxer,
  ingest,
  segmenter,
  mp4Boxes,
  mp4Init,
  mp4Fragment,
  avcConfig,
  aacConfig,
  enhancedCodecs,
  http,
];
