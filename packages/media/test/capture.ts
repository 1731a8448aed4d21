/**
 * What an encoder of Enhanced RTMP sends to a server, byte for byte, as `fixtures/captures` keeps it: made by
 * our own client from streams that FFmpeg encoded and that encoded-stream.ts laid out by the specification.
 *
 *   STARLING_RECORD=1 npx vitest run --project unit packages/media/test/captures.test.ts
 *
 * records them anew; the encoders' versions decide on the bytes, so review what changes.
 */
import type { FlvMessage } from '../src/flv/tag.ts';
import { RtmpClientSession, RtmpServerSession } from '../src/rtmp/session.ts';
import { type EncodedStream, enhancedMessages } from './encoded-stream.ts';

/** A fixed one, so that a recording is the same each time. */
const HANDSHAKE_BYTES = Uint8Array.from({ length: 1528 }, (_, index) => (index * 151 + 7) & 0xff);

/** The bytes from client to server: handshake, commands, and the messages in the order of their times. */
export function record(streams: readonly EncodedStream[]): Uint8Array {
  return recordMessages(streams.flatMap(enhancedMessages));
}

/** Each stream as a track of its own: OneTrack multitrack messages for all but the first of each kind. */
export function recordMultitrack(streams: readonly EncodedStream[]): Uint8Array {
  const counts = { video: 0, audio: 0 };
  return recordMessages(
    streams.flatMap((stream) => {
      const trackId = counts[stream.kind]++;
      const messages = enhancedMessages(stream);
      return trackId === 0 ? messages : messages.map((message) => asTrack(message, trackId));
    }),
  );
}

/**
 * Source: Enhanced RTMP v2, ExVideoTagHeader and ExAudioTagHeader: the first byte says Multitrack (6 for video,
 * 5 for audio), the next holds AvMultitrackType OneTrack (0) and the packet type; FourCC, track id, body.
 */
function asTrack(message: FlvMessage, trackId: number): FlvMessage {
  const [first = 0] = message.payload;
  const multitrack = message.kind === 'video' ? 6 : 5;
  const head = Uint8Array.of((first & 0xf0) | multitrack, first & 0x0f);
  const fourCc = message.payload.subarray(1, 5);
  const payload = Buffer.concat([head, fourCc, Uint8Array.of(trackId), message.payload.subarray(5)]);
  return { ...message, payload: new Uint8Array(payload) };
}

/** PacketType 0, in a multitrack message behind its header. */
function isSequenceStart({ kind, payload: [first = 0, second = 0] }: FlvMessage): boolean {
  const packetType = first & 0x0f;
  return (packetType === (kind === 'video' ? 6 : 5) ? second & 0x0f : packetType) === 0;
}

function recordMessages(messages: readonly FlvMessage[]): Uint8Array {
  const client = new RtmpClientSession({
    mode: 'publish',
    tcUrl: 'rtmp://localhost/live',
    app: 'live',
    streamName: 'capture',
    handshakeRandomBytes: HANDSHAKE_BYTES,
    maxMessageBytes: 1 << 20,
  });
  const server = new RtmpServerSession({ handshakeRandomBytes: HANDSHAKE_BYTES, maxMessageBytes: 1 << 20 });
  const recorded: Uint8Array[] = [];
  let isReady = false;
  for (let output = client.takeOutput(); output !== undefined; output = client.takeOutput()) {
    recorded.push(output);
    for (const event of server.receive(output)) if (event.type === 'publish') server.acceptPublish();
    const answer = server.takeOutput();
    if (answer === undefined) continue;
    isReady ||= client.receive(answer).some((event) => event.type === 'ready');
  }
  if (!isReady) throw new Error('the server never accepted the publish');
  // Encoders say how to decode all tracks before the first unit of any.
  const place = (message: FlvMessage) => (isSequenceStart(message) ? -1 : message.timestampMs);
  for (const message of messages.toSorted((a, b) => place(a) - place(b))) client.sendMessage(message);
  client.close();
  const rest = client.takeOutput();
  if (rest !== undefined) recorded.push(rest);
  return new Uint8Array(Buffer.concat(recorded));
}
