/** Viewers of HTTP-FLV and RTMP, who read and discard. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { RtmpClientSession } from '@starling/media/rtmp/session';
import { monotonicMs } from './clock.ts';
import type { CrowdPlan, CrowdReport } from './crowd.ts';
import { Distribution } from './distribution.ts';
import { lightSocket } from './http-connection.ts';
import { StampReader } from './stamp.ts';

type StreamsPlan = Extract<CrowdPlan, { kind: 'streams' }>;

/** What comes after a shorter silence is the same arrival. */
const ARRIVAL_SILENCE_MS = 2;
/** Viewers who look for stamps all the time. */
const OBSERVERS = 3;
/** Who has no picture then is counted as lost. */
const JOIN_TIMEOUT_MS = 10_000;

interface Viewer {
  readonly socket: Socket;
  readonly connectedAtMs: number;
  readonly stamps: StampReader;
  readonly isObserver: boolean;
  hasJoined: boolean;
  lastArrivalAtMs: number;
}

export class StreamViewers {
  readonly #plan: StreamsPlan;
  readonly #viewers: Viewer[] = [];
  readonly #joins = new Distribution();
  #gaps = new Distribution();
  #delays = new Distribution();
  #receivedBytes = 0;
  #joinedCount = 0;

  constructor(plan: StreamsPlan) {
    this.#plan = plan;
  }

  async join(): Promise<void> {
    const { count, joinMs } = this.#plan;
    const startedAtMs = monotonicMs();
    while (this.#viewers.length < count) {
      const due = Math.ceil(((monotonicMs() - startedAtMs) / joinMs) * count);
      while (this.#viewers.length < Math.min(due, count)) this.#open();
      await new Promise((wake) => setTimeout(wake, 5));
    }
    const deadlineMs = monotonicMs() + JOIN_TIMEOUT_MS;
    while (this.#joinedCount < count && monotonicMs() < deadlineMs) {
      await new Promise((wake) => setTimeout(wake, 50));
    }
    if (this.#joinedCount === 0) throw new Error('no viewer got a picture');
  }

  begin(): void {
    this.#gaps = new Distribution();
    this.#delays = new Distribution();
    this.#receivedBytes = 0;
  }

  report(): CrowdReport {
    const nowMs = monotonicMs();
    for (const { lastArrivalAtMs } of this.#viewers) this.#gaps.add(nowMs - lastArrivalAtMs);
    return {
      openCount: this.#viewers.filter(({ socket, hasJoined }) => hasJoined && !socket.destroyed).length,
      receivedBytes: this.#receivedBytes,
      requests: 0,
      errors: 0,
      gaps: this.#gaps.summary(),
      joins: this.#joins.summary(),
      delays: this.#delays.summary(),
      answers: new Distribution().summary(),
    };
  }

  #open(): void {
    const { protocol, port, path } = this.#plan;
    const connectedAtMs = monotonicMs();
    const rtmp = protocol === 'rtmp' ? playSession(port, path) : undefined;
    let isPlaying = false;
    const flush = () => {
      const output = rtmp?.takeOutput();
      if (output !== undefined) socket.write(output);
    };
    const socket = lightSocket(port, (bytes) => {
      this.#receive(viewer, bytes);
      if (rtmp === undefined || isPlaying) return;
      const events = rtmp.receive(Uint8Array.from(bytes));
      isPlaying = events.some((event) => event.type === 'message' && event.message.kind === 'video');
      flush();
    });
    socket.on('error', () => {}); // 'close' follows, and the viewer is counted as lost
    if (rtmp === undefined) socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    else flush();
    const viewer: Viewer = {
      socket,
      connectedAtMs,
      stamps: new StampReader(),
      isObserver: this.#viewers.length < OBSERVERS,
      hasJoined: false,
      lastArrivalAtMs: connectedAtMs,
    };
    this.#viewers.push(viewer);
  }

  #receive(viewer: Viewer, bytes: Buffer): void {
    const nowMs = monotonicMs();
    this.#receivedBytes += bytes.length;
    const silenceMs = nowMs - viewer.lastArrivalAtMs;
    if (silenceMs > ARRIVAL_SILENCE_MS) this.#gaps.add(silenceMs);
    viewer.lastArrivalAtMs = nowMs;
    if (viewer.hasJoined && !viewer.isObserver) return;
    for (const { isRandomAccess, sentAtMs } of viewer.stamps.push(bytes)) {
      if (viewer.hasJoined) {
        if (sentAtMs > 0) this.#delays.add(nowMs - sentAtMs);
      } else if (isRandomAccess) {
        viewer.hasJoined = true;
        this.#joinedCount++;
        this.#joins.add(nowMs - viewer.connectedAtMs);
      }
    }
  }
}

function playSession(port: number, path: string): RtmpClientSession {
  const [, app = '', streamName = ''] = path.split('/');
  return new RtmpClientSession({
    mode: 'play',
    tcUrl: `rtmp://127.0.0.1:${port}/${app}`,
    app,
    streamName,
    handshakeRandomBytes: randomBytes(1528),
    maxMessageBytes: 8 << 20,
  });
}
