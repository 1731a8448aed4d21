/** An encoder of our own: publishes prepared messages as Enhanced RTMP, at the pace of their timestamps. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { FlvMessage } from '@starling/media/flv/tag';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import { run, starling } from './network.ts';

/** @returns the key of a new stream; one that an earlier attempt of the same test left goes first */
export async function addStream(dataDir: string, name: string): Promise<string> {
  const add = () => starling(dataDir, ['stream', 'add', name, '--json']);
  let added = await add();
  if (added.stderr.startsWith(`There is a channel ${name} already`)) {
    await starling(dataDir, ['stream', 'rm', name]);
    added = await add();
  }
  if (added.stderr !== '') throw new Error(added.stderr);
  const { key } = JSON.parse(added.stdout) as { key: string };
  return key;
}

/**
 * Publishes until the messages are at their end, and stays connected.
 * @param messages in the order of their timestamps
 * @returns ends the connection; once the server has let it in
 */
export async function publish(
  rtmp: string,
  { name, key }: { name: string; key: string },
  messages: Iterable<FlvMessage>,
): Promise<() => void> {
  const { hostname, port } = new URL(rtmp);
  const session = new RtmpClientSession({
    mode: 'publish',
    tcUrl: rtmp,
    app: 'live',
    streamName: `${name}?key=${key}`,
    handshakeRandomBytes: randomBytes(1528),
    maxMessageBytes: 1024 * 1024,
  });
  const socket = connect(Number(port), hostname);
  const flush = () => {
    const output = session.takeOutput();
    if (output !== undefined && !socket.destroyed) socket.write(output);
  };
  await new Promise<void>((resolve, reject) => {
    socket.on('connect', flush);
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`the server closed the connection of ${name}`)));
    socket.on('data', (bytes) => {
      for (const event of session.receive(bytes)) {
        if (event.type === 'ready') resolve();
        if (event.type === 'rejected') reject(new Error(event.description));
      }
      flush();
    });
  });
  const startedAtMs = performance.now();
  const iterator = messages[Symbol.iterator]();
  let next = iterator.next();
  const timer = setInterval(() => {
    while (next.done !== true && next.value.timestampMs <= performance.now() - startedAtMs) {
      session.sendMessage(next.value);
      next = iterator.next();
    }
    flush();
  }, 20);
  socket.on('close', () => clearInterval(timer));
  return () => socket.destroy();
}

/** A track of a clip that can be played in a loop. */
export interface ClipTrack {
  readonly kind: 'video' | 'audio';
  readonly sequenceHeader: Uint8Array;
  readonly packets: readonly { timestampMs: number; isKey: boolean; payload: Uint8Array }[];
}

/** The shortest stretch that is a whole number of pictures at 25 Hz, of seconds, and of AAC frames at 48 kHz. */
const CLIP_MS = 8000;
const CLIP_PICTURES = 200;
const CLIP_AUDIO_FRAMES = 375;

/**
 * The same moving test card in several sizes, with key frames each second, and tones of several pitches.
 * Taken apart here from FLV as Adobe's specification lays it out (FLV 10.1, E.4).
 */
export async function makeClip(
  folder: string,
  sizes: readonly string[],
  tonesHz: readonly number[],
): Promise<ClipTrack[]> {
  const seconds = CLIP_MS / 1000 + 1;
  const video = sizes.flatMap((size, i) => [
    ...['-map', '0:v', '-s', size, '-c:v', 'libx264', '-preset', 'veryfast', '-pix_fmt', 'yuv420p'],
    ...[
      '-bf',
      '2',
      '-g',
      '25',
      '-sc_threshold',
      '0',
      '-flvflags',
      'no_duration_filesize',
      `${folder}/v${i}.flv`,
    ],
  ]);
  const audio = tonesHz.flatMap((_, i) => [
    ...['-map', `${i + 1}:a`, '-c:a', 'aac', '-b:a', '96k', '-ac', '2', `${folder}/a${i}.flv`],
  ]);
  const made = await run('ffmpeg', [
    ...['-v', 'error', '-y', '-f', 'lavfi', '-i', `testsrc2=size=1280x720:rate=25:duration=${seconds}`],
    ...tonesHz.flatMap((hz) => ['-f', 'lavfi', '-i', `sine=${hz}:sample_rate=48000:duration=${seconds}`]),
    ...video,
    ...audio,
  ]);
  if (made.exitCode !== 0) throw new Error(made.stderr);
  return [
    ...sizes.map((_, i) => readClipTrack(readFileSync(`${folder}/v${i}.flv`), 'video')),
    ...tonesHz.map((_, i) => readClipTrack(readFileSync(`${folder}/a${i}.flv`), 'audio')),
  ];
}

/** Reads the tags of one kind: 9 bytes of header and 4 of size, then tags of 11 bytes, a body and 4 bytes. */
function readClipTrack(flv: Buffer, kind: ClipTrack['kind']): ClipTrack {
  const tagType = kind === 'video' ? 9 : 8;
  /** Before the data: frame type and codec, packet type, composition time; sound format, packet type. */
  const headBytes = kind === 'video' ? 5 : 2;
  let sequenceHeader: Uint8Array = new Uint8Array(0);
  const packets: { timestampMs: number; isKey: boolean; payload: Uint8Array }[] = [];
  for (let at = 13; at + 11 <= flv.length; ) {
    const sizeBytes = flv.readUIntBE(at + 1, 3);
    const body = flv.subarray(at + 11, at + 11 + sizeBytes);
    if (flv[at] === tagType) {
      const timestampMs = flv.readUIntBE(at + 4, 3) + (flv[at + 7] ?? 0) * 2 ** 24;
      const payload = new Uint8Array(body.subarray(kind === 'video' ? 2 : headBytes));
      if (body[1] === 0) sequenceHeader = new Uint8Array(body.subarray(headBytes));
      else if (body[1] === 1) packets.push({ timestampMs, isKey: (body[0] ?? 0) >> 4 === 1, payload });
    }
    at += 11 + sizeBytes + 4;
  }
  return {
    kind,
    sequenceHeader,
    packets: packets.slice(0, kind === 'video' ? CLIP_PICTURES : CLIP_AUDIO_FRAMES),
  };
}

/**
 * The clip over and over, as Enhanced RTMP v2: track 0 of each kind plainly, the others as OneTrack messages,
 * as OBS and FFmpeg send them.
 */
export function* loopClip(tracks: readonly ClipTrack[]): Generator<FlvMessage> {
  const ids = tracks.map((track, i) => tracks.slice(0, i).filter(({ kind }) => kind === track.kind).length);
  const write = (i: number, timestampMs: number, packetType: 0 | 1, isKey: boolean, payload: Uint8Array) => {
    const kind = tracks[i]?.kind ?? 'video';
    const trackId = ids[i] ?? 0;
    const fourCc = Buffer.from(kind === 'video' ? 'avc1' : 'mp4a');
    // isExVideoHeader, frame type and packet type; audio: ExHeader 9 and packet type. Multitrack is 6 and 5.
    const first = (type: number) => (kind === 'video' ? 0x80 | ((isKey ? 1 : 2) << 4) | type : 0x90 | type);
    const head =
      trackId === 0
        ? [first(packetType), ...fourCc]
        : [first(kind === 'video' ? 6 : 5), packetType, ...fourCc, trackId]; // OneTrack is 0 in the high nibble
    return { kind, timestampMs, payload: new Uint8Array(Buffer.concat([Buffer.from(head), payload])) };
  };
  for (const [i, { sequenceHeader }] of tracks.entries()) yield write(i, 0, 0, true, sequenceHeader);
  const packets = tracks
    .flatMap((track, i) => track.packets.map((packet) => ({ i, ...packet })))
    .sort((a, b) => a.timestampMs - b.timestampMs);
  for (let startMs = 0; ; startMs += CLIP_MS) {
    for (const { i, timestampMs, isKey, payload } of packets) {
      yield write(i, startMs + timestampMs, 1, isKey, payload);
    }
  }
}
