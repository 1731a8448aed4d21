/** All live inputs of the backend: encoders that publish over RTMP, and streams that FFmpeg brings. */
import type { StreamEvent, Track } from '@starling/media/access-unit';
import type { BackendState } from '@starling/model/entities';
import type { Logger } from 'pino';
import { FfmpegInput, type FfmpegStreamInput } from './ffmpeg-input.ts';
import { Ingest, type IngestOptions } from './ingest.ts';

export interface InputsOptions extends Omit<IngestOptions, 'onEvent' | 'onPublishChange'> {
  /** What comes in of a stream, on its encoder's clock. */
  onEvent(stream: string, event: StreamEvent): void;
  onPublishChange(stream: string, isPublishing: boolean): void;
  readonly logger: Logger;
}

type StreamOfState = BackendState['streams'][number];

export class Inputs {
  readonly #options: InputsOptions;
  readonly #ingest: Ingest;
  readonly #ffmpegInputs = new Map<string, { readonly source: string; readonly input: FfmpegInput }>();

  private constructor(options: InputsOptions, ingest: Ingest) {
    this.#options = options;
    this.#ingest = ingest;
  }

  /** @throws the system's error when the RTMP port cannot be opened */
  static async open(options: InputsOptions): Promise<Inputs> {
    return new Inputs(options, await Ingest.listen(options));
  }

  get rtmpPort(): number {
    return this.#ingest.port;
  }

  /** Undefined without RTMPS. */
  get rtmpsPort(): number | undefined {
    return this.#ingest.rtmpsPort;
  }

  get publishingStreams(): string[] {
    const brought = [...this.#ffmpegInputs].filter(([, { input }]) => input.isPublishing);
    return [...this.#ingest.publishingStreams, ...brought.map(([name]) => name)];
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
    return this.#ffmpegInputs.get(stream)?.input.tracks ?? this.#ingest.tracksOf(stream);
  }

  /** Takes over the list of streams; inputs that are gone or changed are ended. */
  setStreams(streams: readonly StreamOfState[]): void {
    this.#ingest.setStreams(streams.filter(({ input }) => input.type === 'rtmp'));
    const wanted = new Map<string, FfmpegStreamInput>();
    for (const { name, input } of streams) if (input.type !== 'rtmp') wanted.set(name, input);
    for (const [name, { source, input }] of this.#ffmpegInputs) {
      if (source === JSON.stringify(wanted.get(name))) continue;
      this.#ffmpegInputs.delete(name);
      input.close();
      if (input.isPublishing) this.#options.onPublishChange(name, false);
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
    await this.#ingest.close();
  }

  #bring(stream: string, input: FfmpegStreamInput): FfmpegInput {
    const { logger, onEvent, onPublishChange } = this.#options;
    // What an ended process still had to say is not of the stream any more.
    const isCurrent = () => this.#ffmpegInputs.get(stream)?.input === brought;
    const brought: FfmpegInput = new FfmpegInput({
      stream,
      input,
      logger,
      onEvent: (event) => {
        if (isCurrent()) onEvent(stream, event);
      },
      onPublishChange: (isPublishing) => {
        if (isCurrent()) onPublishChange(stream, isPublishing);
      },
    });
    return brought;
  }
}
