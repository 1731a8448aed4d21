/**
 * A worker of `starling up` or `starling frontend`: one frontend in a process of its own, on the HTTP port that
 * all workers share. `workers.ts` starts it and says what to do; it ends when that process does.
 */
import { type Frontend, startFrontend } from '@starling/frontend/main';
import { forwardTo } from '@starling/net/http-proxy';
import { type HttpListener, listenHttp } from '@starling/net/http-server';
import type { Logger } from 'pino';
import { letHeapDouble } from './heap.ts';
import { LogShipper } from './log-shipper.ts';
import { startNodeReports } from './node-reports.ts';
import { httpOptions, openLog, openRegistry } from './process.ts';
import type { WorkerOrder, WorkerReport } from './worker-messages.ts';

const LOOK_AT_CHANNELS_EVERY_MS = 100;
const SIGN_OF_LIFE_EVERY_MS = 1000;
const REPORT_VIEWERS_EVERY_MS = 1000;
/** Bounds what the main process has to read: with more viewers the reports come less often. */
const MAX_REPORTED_VIEWERS_PER_SECOND = 2000;

letHeapDouble();
const registry = openRegistry();
let running:
  | {
      readonly frontend: Frontend;
      readonly logger: Logger;
      readonly reports: ReturnType<typeof startNodeReports> | undefined;
    }
  | undefined;
let http: HttpListener | undefined;

process.on('message', (order) => obey(order as WorkerOrder));
process.on('disconnect', () => process.exit()); // the main process is gone
// A terminal sends it to the whole group; the main process says when to stop.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => void stop());
report({ type: 'listening' });

function obey(order: WorkerOrder): void {
  switch (order.type) {
    case 'start':
      start(order).catch((error: unknown) => fail('rtmp', order.frontend.rtmpPort, error));
      return;
    case 'serve':
      serve(order).catch((error: unknown) => fail('http', order.http.port, error));
      return;
    case 'metrics':
      void registry.getMetricsAsJSON().then((metrics) => report({ type: 'metrics', metrics }));
      return;
    case 'drain':
      if (order.endlessWithinMs === undefined) running?.frontend.resume();
      else running?.frontend.drain(order.endlessWithinMs);
      return;
    case 'trust':
      http?.trust(order.addresses);
      return;
    case 'peers':
      running?.frontend.setPeers(order.peers);
      return;
    case 'stop':
      void stop();
      return;
  }
}

async function start(order: Extract<WorkerOrder, { type: 'start' }>): Promise<void> {
  registry.setDefaultLabels({ process: `worker-${order.workerNumber}` });
  const logShipper = new LogShipper();
  const logger = openLog(logShipper).child({ role: 'frontend', worker: order.workerNumber });
  const frontend = await startFrontend({
    workerNumber: order.workerNumber,
    ...order.frontend,
    logger,
    registry,
  });
  const { coordinator, dataDir, dvr } = order.frontend;
  const reports =
    coordinator &&
    startNodeReports({
      ...{ coordinator, registry, logShipper, node: `${order.node}/worker-${order.workerNumber}` },
      folders: [dataDir, dvr?.dir].filter((folder) => folder !== undefined),
    });
  running = { frontend, logger, reports };
  report({ type: 'started', rtmpPort: frontend.rtmpPort });
  keepReporting(frontend);
}

async function serve(order: Extract<WorkerOrder, { type: 'serve' }>): Promise<void> {
  if (running === undefined) throw new Error('told to serve before the start');
  const { frontend, logger } = running;
  const forward = forwardTo(order.mainPort);
  http = await listenHttp(
    order.http,
    logger,
    (request, response) => {
      if (!frontend.handleRequest(request, response)) forward(request, response);
    },
    frontend.handleUpgrade,
    httpOptions(registry, order.http),
  );
  report({ type: 'serving' });
}

function keepReporting(frontend: Frontend): void {
  let reported = '';
  let reportedAtMs = 0;
  setInterval(() => {
    const channels = frontend.channels();
    const text = JSON.stringify(channels);
    const nowMs = performance.now();
    if (text === reported && nowMs - reportedAtMs < SIGN_OF_LIFE_EVERY_MS) return;
    reported = text;
    reportedAtMs = nowMs;
    report({ type: 'channels', channels });
  }, LOOK_AT_CHANNELS_EVERY_MS);

  const reportViewers = () => {
    const viewers = frontend.viewers().map(({ id, channel, protocol }) => ({ id, channel, protocol }));
    const waitMs = Math.max(
      REPORT_VIEWERS_EVERY_MS,
      (viewers.length / MAX_REPORTED_VIEWERS_PER_SECOND) * 1000,
    );
    // Not before the last report is out of this process.
    report({ type: 'viewers', viewers }, () => setTimeout(reportViewers, waitMs));
  };
  reportViewers();
}

async function stop(): Promise<void> {
  await running?.frontend.close();
  await http?.close();
  await running?.reports?.close();
  process.exit();
}

function fail(protocol: 'http' | 'rtmp', port: number, error: unknown): void {
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  const message = error instanceof Error ? error.message : String(error);
  report({ type: 'failed', protocol, port, code, message }, () => process.exit(1));
}

/** @param onSent it is out of this process, or the main process is gone */
function report(message: WorkerReport, onSent: () => void = () => {}): void {
  process.send?.(message, undefined, undefined, onSent);
}
