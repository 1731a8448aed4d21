/**
 * Transcodes one live stream to the house format with one FFmpeg process: events in, events out. While FFmpeg
 * cannot be had, the stream goes through as it is: a picture in another format is better than none.
 */
import type { ChildProcessByStdio } from 'node:child_process';
import { spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import {
  type AccessUnit,
  isDefaultTrack,
  isSameTrack,
  type StreamEvent,
  type Track,
  timescaleHz,
  trackIndex,
} from '@starling/media/access-unit';
import { flvHeader, flvTag, sequenceHeaderMessage, unitMessage } from '@starling/media/flv/mux';
import { isLegacyCodec } from '@starling/media/flv/tag';
import { rescaleTicks } from '@starling/media/time';
import type { LiveEncoderName, Transcode } from '@starling/model/stream-input';
import type { Logger } from 'pino';
import { EncoderOutput } from './encoder-output.ts';
import { type Rung, withoutVuiTiming } from './house-format.ts';
import { liveEncodeArguments } from './live-encoding.ts';

/** How long to wait for the sequence header of the second track. */
const SECOND_TRACK_WAIT_MS = 1000;
/** What may wait to be taken by an encoder that does not keep up; then it goes on with a later key frame. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;
/** A clock that steps further has been set, and FFmpeg begins anew; one track may lag the other a little. */
const MAX_STEP_BACK_MS = 1000;
const MAX_STEP_FORTH_MS = 10_000;
/** FLV counts milliseconds in 31 bits: after 20 days FFmpeg begins anew. */
const MAX_RUN_MS = 20 * 86_400_000;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 10_000;
const GOOD_RUN_MS = 10_000;
/** So many failures in a row, and the hardware is left alone. */
const HARDWARE_ATTEMPTS = 2;
const MAX_STDERR_CHARS = 4096;

export interface LiveEncoderOptions {
  readonly stream: string;
  readonly transcode: Transcode;
  /** The tallest first: track 0. */
  readonly rungs: readonly Rung[];
  readonly ffmpegPath?: string;
  readonly logger: Logger;
  onEvent(event: StreamEvent): void;
}

interface Run {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly output: EncoderOutput;
  readonly tracks: readonly Track[];
  readonly baseMs: number;
  readonly startedAtMs: number;
  lastMs: number;
  /** Since it did not keep up: the next key frame is waited for. */
  isSkipping: boolean;
}

export class LiveEncoder {
  readonly #options: LiveEncoderOptions;
  readonly #logger: Logger;
  #encoder: LiveEncoderName;
  /** What the publisher has announced. */
  readonly #input = new Map<number, Track>();
  /** What goes out. */
  readonly #output = new Map<number, Track>();
  #run: Run | undefined;
  #firstUnitAtMs: number | undefined;
  #failures = 0;
  #retryAtMs = 0;
  #passesThrough = false;
  #lastSkipLogMs = Number.NEGATIVE_INFINITY;

  constructor(options: LiveEncoderOptions) {
    this.#options = options;
    this.#logger = options.logger.child({ stream: options.stream });
    this.#encoder = options.transcode.encoder;
  }

  /** What goes out; nothing before anything does. */
  get tracks(): readonly Track[] {
    return [...this.#output.values()];
  }

  /** Takes an event of the publisher, on its clock. */
  push(event: StreamEvent): void {
    if (event.type === 'track' && isDefaultTrack(event.track)) this.#takeTrack(event.track);
    else if (event.type === 'unit' && isDefaultTrack(event.unit)) this.#takeUnit(event.unit);
  }

  /** The publisher left. */
  end(): void {
    this.#stop();
    this.#input.clear();
    this.#output.clear();
    this.#firstUnitAtMs = undefined;
    this.#failures = 0;
    this.#retryAtMs = 0;
    this.#passesThrough = false;
  }

  #takeTrack(track: Track): void {
    const known = this.#input.get(trackIndex(track));
    if (known !== undefined && isSameTrack(known, track)) return;
    this.#input.set(trackIndex(track), track);
    this.#stop();
    const cannot = !isLegacyCodec(track.codec);
    if (cannot && !this.#passesThrough) {
      this.#logger.warn(
        { codec: track.codec },
        'this codec cannot be transcoded; the stream goes through as it is',
      );
    }
    this.#passesThrough ||= cannot;
    if (this.#passesThrough)
      for (const one of this.#input.values()) this.#emit({ type: 'track', track: one });
  }

  #takeUnit(unit: AccessUnit): void {
    if (this.#passesThrough) return this.#emit({ type: 'unit', unit });
    const track = this.#input.get(trackIndex(unit));
    if (track === undefined) return;
    this.#firstUnitAtMs ??= performance.now();
    const ms = rescaleTicks(unit.dtsTicks, timescaleHz(track), 1000);
    if (this.#run !== undefined && this.#isClockSet(this.#run, ms)) this.#stop();
    this.#run ??= this.#startIfReady(unit, ms);
    const run = this.#run;
    if (run === undefined) return;
    run.lastMs = Math.max(run.lastMs, ms);
    const opens = unit.kind === 'video' && unit.isRandomAccess;
    if (run.isSkipping) {
      if (!opens || run.child.stdin.writableLength > MAX_WAITING_BYTES / 8) return;
      run.isSkipping = false;
    }
    // A unit from before the first key frame would lie before the start of the file.
    if (ms < run.baseMs) return;
    run.child.stdin.write(flvTag(unitMessage(unit, track, run.baseMs)));
    if (run.child.stdin.writableLength > MAX_WAITING_BYTES) this.#skip(run);
  }

  #isClockSet(run: Run, ms: number): boolean {
    const stepMs = ms - run.lastMs;
    return stepMs < -MAX_STEP_BACK_MS || stepMs > MAX_STEP_FORTH_MS || ms - run.baseMs > MAX_RUN_MS;
  }

  #skip(run: Run): void {
    run.isSkipping = true;
    const nowMs = performance.now();
    if (nowMs - this.#lastSkipLogMs < 1000) return;
    this.#lastSkipLogMs = nowMs;
    this.#logger.warn('the encoder does not keep up: pictures are left out. Choose a faster preset.');
  }

  #startIfReady(unit: AccessUnit, ms: number): Run | undefined {
    const tracks = [...this.#input.values()];
    const hasVideo = tracks.some(({ kind }) => kind === 'video');
    const hasAudio = tracks.some(({ kind }) => kind === 'audio');
    const nowMs = performance.now();
    const isComplete = hasVideo && hasAudio;
    if (!isComplete && nowMs - (this.#firstUnitAtMs ?? nowMs) < SECOND_TRACK_WAIT_MS) return undefined;
    const canStart = unit.isRandomAccess && (unit.kind === 'video' || !hasVideo);
    if (!canStart || nowMs < this.#retryAtMs) return undefined;

    const { transcode, rungs, ffmpegPath = 'ffmpeg' } = this.#options;
    const args = liveEncodeArguments({
      encoder: this.#encoder,
      preset: transcode.preset,
      rungs,
      hasVideo,
      hasAudio,
    });
    // Its own process group: a Ctrl-C on the terminal is for us.
    const child = spawn(ffmpegPath, args, { stdio: ['pipe', 'pipe', 'pipe'], detached: true });
    const run: Run = {
      child,
      output: new EncoderOutput(),
      tracks,
      baseMs: ms,
      startedAtMs: nowMs,
      lastMs: ms,
      isSkipping: false,
    };
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-MAX_STDERR_CHARS);
    });
    child.stdin.on('error', () => {}); // it ended: 'close' says how
    child.stdout.on('data', (chunk: Uint8Array) => {
      if (this.#run !== run) return; // of a publisher, or a clock, that is gone
      try {
        for (const event of run.output.push(chunk)) this.#emit(event);
      } catch (error) {
        this.#fail(run, String(error));
      }
    });
    child.on('error', (error) => this.#fail(run, error.message));
    child.on('close', () => this.#fail(run, stderr.trim().split('\n').at(-1) ?? 'it ended'));
    child.stdin.write(flvHeader({ video: hasVideo, audio: hasAudio }));
    for (const track of tracks) child.stdin.write(flvTag(sequenceHeaderMessage(track, 0)));
    return run;
  }

  #emit(event: StreamEvent): void {
    if (event.type !== 'track') return this.#options.onEvent(event);
    const isEncoded = !this.#passesThrough && event.track.kind === 'video';
    const track: Track =
      event.track.kind === 'video'
        ? {
            ...event.track,
            config: isEncoded ? withoutVuiTiming(event.track.config) : event.track.config,
            // As playout has it: a channel may mix frame rates behind one configuration.
            frameDurationTicks: undefined,
          }
        : event.track;
    this.#output.set(trackIndex(track), track);
    this.#options.onEvent({ type: 'track', track });
  }

  /** The run ended without our asking. */
  #fail(run: Run, reason: string): void {
    if (this.#run !== run) return;
    this.#stop();
    const nowMs = performance.now();
    if (nowMs - run.startedAtMs > GOOD_RUN_MS) this.#failures = 0;
    this.#failures++;
    this.#logger.warn({ encoder: this.#encoder, reason }, 'the live encoder ended; it is started again');
    if (this.#encoder !== 'x264' && this.#failures >= HARDWARE_ATTEMPTS) {
      this.#logger.warn(
        { encoder: this.#encoder },
        'the hardware encoder cannot be used here; x264 takes its place',
      );
      this.#encoder = 'x264';
      this.#failures = 0;
    }
    const retryMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.#retryAtMs = nowMs + retryMs;
  }

  #stop(): void {
    const pid = this.#run?.child.pid;
    this.#run = undefined;
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL'); // what it still holds is a picture or two, of a source that is gone
    } catch {
      // It ended by itself meanwhile.
    }
  }
}
