/** What a frontend counts, in Prometheus's form. */
import { Counter, Gauge, type Registry } from 'prom-client';

interface StreamFigures {
  readonly channel: string;
  readonly viewers: ReadonlyMap<string, number>;
  readonly windowBytes: number;
  readonly publishers: number;
}

interface RecordingFigures {
  readonly channel: string;
  readonly sizeBytes: number;
  readonly listedSeconds: number;
}

/** The present figures, asked for at each scrape. */
interface FigureSources {
  readonly readStreams: () => readonly StreamFigures[];
  readonly readRecordings: () => readonly RecordingFigures[];
}

export class FrontendMetrics {
  readonly bytesSent: Counter<'channel' | 'protocol'>;
  readonly skippedViewers: Counter<'channel' | 'protocol'>;
  readonly evictedViewers: Counter<'channel' | 'protocol'>;
  readonly unrecordedSegments: Counter<'channel'>;
  readonly refusedPushes: Counter<'reason'>;

  constructor(registry: Registry, { readStreams, readRecordings }: FigureSources) {
    const registers = [registry];
    this.bytesSent = new Counter({
      name: 'starling_frontend_sent_bytes_total',
      help: 'Bytes of media and playlists handed to viewers',
      labelNames: ['channel', 'protocol'],
      registers,
    });
    this.skippedViewers = new Counter({
      name: 'starling_frontend_skipped_viewers_total',
      help: 'Times that a slow viewer was moved on to a later random access point',
      labelNames: ['channel', 'protocol'],
      registers,
    });
    this.evictedViewers = new Counter({
      name: 'starling_frontend_evicted_viewers_total',
      help: 'Viewers cut off because they stayed behind',
      labelNames: ['channel', 'protocol'],
      registers,
    });
    this.unrecordedSegments = new Counter({
      name: 'starling_frontend_unrecorded_segments_total',
      help: 'Segments that the disk did not take, so that nobody can rewind to them',
      labelNames: ['channel'],
      registers,
    });
    this.refusedPushes = new Counter({
      name: 'starling_frontend_refused_pushes_total',
      help: 'Pushes that were not taken: without the proof or the token of a backend, to no channel, or one too many',
      labelNames: ['reason'],
      registers,
    });
    const gauge = <Figures extends { readonly channel: string }>(
      name: string,
      help: string,
      read: () => readonly Figures[],
      value: (figures: Figures) => number,
    ) =>
      new Gauge({
        name,
        help,
        labelNames: ['channel'],
        registers,
        collect() {
          this.reset();
          for (const figures of read()) this.set({ channel: figures.channel }, value(figures));
        },
      });
    registerViewersGauge(registry, function* () {
      for (const { channel, viewers } of readStreams()) {
        for (const [protocol, count] of viewers) yield { channel, protocol, count };
      }
    });
    gauge(
      'starling_frontend_window_bytes',
      'Bytes of the live window in memory',
      readStreams,
      (stream) => stream.windowBytes,
    );
    gauge(
      'starling_frontend_publishers',
      'Publishers that push the channel now',
      readStreams,
      (stream) => stream.publishers,
    );
    gauge(
      'starling_frontend_recording_bytes',
      'Bytes on disk to rewind into',
      readRecordings,
      (recording) => recording.sizeBytes,
    );
    gauge(
      'starling_frontend_recording_seconds',
      'How far back viewers can go',
      readRecordings,
      (recording) => recording.listedSeconds,
    );
  }
}

export const VIEWERS_GAUGE = 'starling_frontend_viewers';

/** @param read the present counts, asked for at each scrape; those of one channel and protocol add up */
export function registerViewersGauge(
  registry: Registry,
  read: () => Iterable<{ readonly channel: string; readonly protocol: string; readonly count: number }>,
): void {
  new Gauge({
    name: VIEWERS_GAUGE,
    help: 'Viewers now, by protocol',
    labelNames: ['channel', 'protocol'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { channel, protocol, count } of read()) this.inc({ channel, protocol }, count);
    },
  });
}
