/** What the main process and its workers say to each other over Node's IPC channel. Both are of one build. */
import type { PushedChannel } from '@starling/frontend/main';
import type { Viewer } from '@starling/frontend/viewers';
import type { Registry } from 'prom-client';

/** What the registry of one process holds. */
export type ProcessMetrics = Awaited<ReturnType<Registry['getMetricsAsJSON']>>;

interface Address {
  /** The address to listen on; all of them when undefined. */
  readonly host?: string | undefined;
  readonly port: number;
}

/** From the main process. */
export type WorkerOrder =
  /** Take pushes. Comes first, once the worker listens. */
  | {
      readonly type: 'start';
      /** From 1 on; a worker that takes another's place has its number. */
      readonly workerNumber: number;
      readonly rtmp: Address;
      readonly publishToken: string;
    }
  /** Take viewers, on an HTTP port that all workers share. Once, after the worker has started. */
  | {
      readonly type: 'serve';
      readonly http: Address;
      /** Loopback port of the main process, which answers whatever is not a frontend's. */
      readonly mainPort: number;
    }
  | { readonly type: 'kick'; readonly viewerIds: readonly string[] }
  | { readonly type: 'metrics' }
  | { readonly type: 'stop' };

/** From a worker. */
export type WorkerReport =
  /** It hears orders from now on; what was said to it before is lost. */
  | { readonly type: 'listening' }
  /** It takes pushes from now on. */
  | { readonly type: 'started'; readonly rtmpPort: number }
  /** It takes viewers from now on. */
  | { readonly type: 'serving' }
  /** A port did not open; the worker ends. */
  | {
      readonly type: 'failed';
      readonly protocol: 'http' | 'rtmp';
      readonly port: number;
      /** The system's word for it, for instance EADDRINUSE. */
      readonly code: string | undefined;
      readonly message: string;
    }
  /** At each change, and every second as a sign of life. */
  | { readonly type: 'channels'; readonly channels: readonly PushedChannel[] }
  | { readonly type: 'viewers'; readonly viewers: readonly Viewer[] }
  | { readonly type: 'metrics'; readonly metrics: ProcessMetrics };
