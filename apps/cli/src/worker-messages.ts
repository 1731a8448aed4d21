/** What the main process and its workers say to each other over Node's IPC channel. Both are of one build. */
import type { FrontendConfig, PushedChannel } from '@starling/frontend/main';
import type { PeerFrontend } from '@starling/frontend/pulls';
import type { Viewer } from '@starling/frontend/viewers';
import type { Registry } from 'prom-client';
import type { HttpSettings } from './process.ts';

/** What the registry of one process holds. */
export type ProcessMetrics = Awaited<ReturnType<Registry['getMetricsAsJSON']>>;

/** What a frontend is to do, as far as it can be said to another process. */
export type FrontendSettings = Omit<FrontendConfig, 'logger' | 'registry'>;

/** What it takes to count each viewer once. */
export type CountedViewer = Pick<Viewer, 'id' | 'channel' | 'protocol'>;

/** From the main process. */
export type WorkerOrder =
  /** Take pushes. Comes first, once the worker listens. */
  | {
      readonly type: 'start';
      /** From 1 on; a worker that takes another's place has its number. */
      readonly workerNumber: number;
      /** Name of the main process. */
      readonly node: string;
      readonly frontend: FrontendSettings;
    }
  /** Take viewers, on an HTTP port that all workers share. Once, after the worker has started. */
  | {
      readonly type: 'serve';
      readonly http: HttpSettings;
      /** Loopback port of the main process, which answers whatever is not a frontend's. */
      readonly mainPort: number;
    }
  | { readonly type: 'metrics' }
  /** Take no new viewers, and send away those on endless answers; `endlessWithinMs` undefined: take viewers again. */
  | { readonly type: 'drain'; readonly endlessWithinMs: number | undefined }
  /** Believe what proxies at these addresses say, beside those of the settings. */
  | { readonly type: 'trust'; readonly addresses: readonly string[] }
  /** Pull what is not pushed here from these, and hand on to them what is. */
  | { readonly type: 'peers'; readonly peers: readonly PeerFrontend[] }
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
  | { readonly type: 'viewers'; readonly viewers: readonly CountedViewer[] }
  | { readonly type: 'metrics'; readonly metrics: ProcessMetrics };
