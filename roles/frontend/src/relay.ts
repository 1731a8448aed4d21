/**
 * The origin's side of distribution on demand: hands a channel that backends push here on to other frontends, with
 * its cues and the newest segments first, just as a backend does. What they make of it is the same, byte for byte.
 */
import { Channel } from '@starling/net/channel';
import type { RtmpPlayer } from '@starling/net/rtmp-server';
import type { Stream } from './stream.ts';

/** A frontend that does not read for so long is cut off; it pulls again, and gets whole segments. */
const STALL_DEADLINE_MS = 5000;
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;

export class Relay {
  readonly #stopListening: () => void;
  readonly #pulls = new Set<() => void>();
  #channel: Channel;

  constructor(stream: Stream) {
    this.#channel = new Channel(stream.channel);
    let isAnnounced = false;
    this.#stopListening = stream.listen({
      event: (event) => {
        const { epochUnixMs } = stream;
        if (!isAnnounced && epochUnixMs !== undefined) {
          isAnnounced = true;
          this.#channel.push([
            { type: 'timeline', epochUnixMs },
            ...stream.tracks.map((track) => ({ type: 'track' as const, track })),
          ]);
        }
        this.#channel.push([event]);
      },
      reset: () => {
        this.#endPulls();
        this.#channel = new Channel(stream.channel);
        isAnnounced = false;
      },
      // What was handed on of the segment is not whole either. Who pulls drops it, too, when it joins anew: from
      // nobody has it got all.
      dropped: () => {
        this.#endPulls();
        this.#channel.dropOpenSegment();
      },
    });
  }

  get pullCount(): number {
    return this.#pulls.size;
  }

  /** Serves a frontend that pulls, until its socket closes. */
  serve({ socket }: RtmpPlayer): void {
    if (socket.destroyed) return;
    let stallTimer: NodeJS.Timeout | undefined;
    const end = () => {
      clearTimeout(stallTimer);
      this.#pulls.delete(end);
      leave();
      socket.destroy();
    };
    const calm = () => {
      clearTimeout(stallTimer);
      stallTimer = undefined;
    };
    this.#pulls.add(end);
    socket.on('drain', calm);
    socket.on('close', end);
    const leave = this.#channel.join({
      get isDrained() {
        return socket.writableLength === 0;
      },
      send(chunks) {
        if (chunks.length === 0 || socket.destroyed) return;
        if (!socket.write(chunks)) stallTimer ??= setTimeout(end, STALL_DEADLINE_MS);
        if (socket.writableLength > MAX_QUEUED_BYTES) process.nextTick(end);
      },
      async whenDrained() {
        if (socket.destroyed || !socket.writableNeedDrain) return;
        await new Promise<void>((resolve) => {
          socket.once('drain', resolve);
          socket.once('close', resolve);
        });
      },
      overtaken: () => end(),
    });
  }

  close(): void {
    this.#stopListening();
    this.#endPulls();
  }

  #endPulls(): void {
    for (const end of [...this.#pulls]) end();
  }
}
