/**
 * All live inputs of the backend: encoders that publish over RTMP, and streams that FFmpeg brings; each
 * as it is, or transcoded.
 */
import type { StreamEvent, Track } from '@starling/media/access-unit';
import type { BackendState } from '@starling/model/entities';
import type { Logger } from 'pino';
import { FfmpegInput, type FfmpegStreamInput } from './ffmpeg-input.ts';
import type { Rung } from './house-format.ts';
import { Ingest, type IngestOptions } from './ingest.ts';
import { LiveEncoder } from './live-encoder.ts';

export interface InputsOptions extends Omit<IngestOptions, 'onEvent' | 'onPublishChange'> {
  /** What comes in of a stream, on its encoder's clock. */
  onEvent(stream: string, event: StreamEvent): void;
  onPublishChange(stream: string, isPublishing: boolean): void;
  readonly logger: Logger;
}

type StreamOfState = BackendState['streams'][number];

export class Inputs {
  readonly #options: InputsOptions;
  readonly #ffmpegInputs = new Map<string, { readonly source: string; readonly input: FfmpegInput }>();
  readonly #encoders = new Map<string, { readonly source: string; readonly encoder: LiveEncoder }>();
  #ingest: Ingest | undefined;

  private constructor(options: InputsOptions) {
    this.#options = options;
  }

  /** @throws the system's error when an RTMP port cannot be opened */
  static async open(options: InputsOptions): Promise<Inputs> {
    const inputs = new Inputs(options);
    inputs.#ingest = await Ingest.listen({
      ...options,
      onEvent: (stream, event) => inputs.#take(stream, event),
      onPublishChange: (stream, isPublishing) => inputs.#changePublishing(stream, isPublishing),
    });
    return inputs;
  }

  get rtmpPort(): number {
    return this.#ingest?.port ?? 0;
  }

  /** Undefined without RTMPS. */
  get rtmpsPort(): number | undefined {
    return this.#ingest?.rtmpsPort;
  }

  get publishingStreams(): string[] {
    const brought = [...this.#ffmpegInputs].filter(([, { input }]) => input.isPublishing);
    return [...(this.#ingest?.publishingStreams ?? []), ...brought.map(([name]) => name)];
  }

  /** Why nothing comes of the streams that FFmpeg is to bring. */
  get problems(): { stream: string; problem: string }[] {
    return [...this.#ffmpegInputs].flatMap(
      ([
        stream,
        {
          input: { problem },
        },
      ]) => (problem === undefined ? [] : [{ stream, problem }]),
    );
  }

  /** What is known of a stream that is coming in; nothing while none does. */
  tracksOf(stream: string): readonly Track[] {
    const encoder = this.#encoders.get(stream)?.encoder;
    if (encoder !== undefined) return encoder.tracks;
    return this.#ffmpegInputs.get(stream)?.input.tracks ?? this.#ingest?.tracksOf(stream) ?? [];
  }

  /**
   * Takes over the list of streams; inputs that are gone or changed are ended.
   * @param elsewhere those whose channels other backends run
   * @param rungsOf what a stream is transcoded to, if it is
   */
  setStreams(
    streams: readonly StreamOfState[],
    elsewhere: readonly StreamOfState[],
    rungsOf: (stream: string) => readonly Rung[],
  ): void {
    this.#setEncoders(streams, rungsOf);
    const isRtmp = ({ input }: StreamOfState) => input.type === 'rtmp';
    this.#ingest?.setStreams(streams.filter(isRtmp), elsewhere.filter(isRtmp));
    const wanted = new Map<string, FfmpegStreamInput>();
    for (const { name, input } of streams) if (input.type !== 'rtmp') wanted.set(name, input);
    for (const [name, { source, input }] of this.#ffmpegInputs) {
      if (source === JSON.stringify(wanted.get(name))) continue;
      this.#ffmpegInputs.delete(name);
      input.close();
      if (input.isPublishing) this.#changePublishing(name, false);
    }
    for (const [name, input] of wanted) {
      if (!this.#ffmpegInputs.has(name)) {
        this.#ffmpegInputs.set(name, { source: JSON.stringify(input), input: this.#bring(name, input) });
      }
    }
  }

  async close(): Promise<void> {
    for (const { input } of this.#ffmpegInputs.values()) input.close();
    this.#ffmpegInputs.clear();
    for (const { encoder } of this.#encoders.values()) encoder.end();
    await this.#ingest?.close();
  }

  #take(stream: string, event: StreamEvent): void {
    const encoder = this.#encoders.get(stream)?.encoder;
    if (encoder === undefined) this.#options.onEvent(stream, event);
    else encoder.push(event);
  }

  #changePublishing(stream: string, isPublishing: boolean): void {
    if (!isPublishing) this.#encoders.get(stream)?.encoder.end();
    this.#options.onPublishChange(stream, isPublishing);
  }

  #setEncoders(streams: readonly StreamOfState[], rungsOf: (stream: string) => readonly Rung[]): void {
    const wanted = new Map(
      streams.flatMap(({ name, transcode }) =>
        transcode === null ? [] : [[name, { transcode, rungs: rungsOf(name) }]],
      ),
    );
    for (const [name, { source, encoder }] of this.#encoders) {
      if (source === JSON.stringify(wanted.get(name))) continue;
      this.#encoders.delete(name);
      encoder.end();
    }
    const { logger, onEvent } = this.#options;
    for (const [name, encoding] of wanted) {
      if (this.#encoders.has(name)) continue;
      const encoder = new LiveEncoder({
        stream: name,
        ...encoding,
        logger,
        onEvent: (event) => onEvent(name, event),
      });
      this.#encoders.set(name, { source: JSON.stringify(encoding), encoder });
    }
  }

  #bring(stream: string, input: FfmpegStreamInput): FfmpegInput {
    const { host, logger } = this.#options;
    // What an ended process still had to say is not of the stream any more.
    const isCurrent = () => this.#ffmpegInputs.get(stream)?.input === brought;
    const brought: FfmpegInput = new FfmpegInput({
      stream,
      input,
      host,
      logger,
      onEvent: (event) => {
        if (isCurrent()) this.#take(stream, event);
      },
      onPublishChange: (isPublishing) => {
        if (isCurrent()) this.#changePublishing(stream, isPublishing);
      },
    });
    return brought;
  }
}
