/** What the coordinator counts, in Prometheus's form. */
import type { AlarmKind } from '@starling/model/alarm';
import { alarmKinds } from '@starling/model/alarm';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** The present figures, asked for at each scrape. */
export interface CoordinatorReadings {
  isDatabaseUp(): boolean;
  backendCount(): number;
  nodeCount(): number;
  watcherCounts(): { readonly backend: number; readonly frontend: number };
  openAlarms(): ReadonlyMap<AlarmKind, number>;
}

export class CoordinatorMetrics {
  readonly requests: Counter<'method' | 'route' | 'status'>;
  readonly requestSeconds: Histogram;
  readonly deliveries: Counter<'result'>;
  readonly failedLogins: Counter;
  readonly logLines: Counter;

  constructor(registry: Registry) {
    const registers = [registry];
    this.requests = new Counter({
      name: 'starling_coordinator_requests_total',
      help: 'Requests that were answered, by route and class of status',
      labelNames: ['method', 'route', 'status'],
      registers,
    });
    this.requestSeconds = new Histogram({
      name: 'starling_coordinator_request_seconds',
      help: 'How long answers took; watches are not among them',
      buckets: [0.005, 0.025, 0.1, 0.5, 2.5, 10],
      registers,
    });
    this.deliveries = new Counter({
      name: 'starling_coordinator_deliveries_total',
      help: 'Attempts to tell somebody of an event by webhook or e-mail',
      labelNames: ['result'],
      registers,
    });
    this.failedLogins = new Counter({
      name: 'starling_coordinator_failed_logins_total',
      help: 'Logins with a wrong name, password or code',
      registers,
    });
    this.logLines = new Counter({
      name: 'starling_coordinator_log_lines_total',
      help: 'Lines of logs that nodes shipped',
      registers,
    });
  }

  /** Once the parts are there. */
  watch(registry: Registry, readings: CoordinatorReadings): void {
    const registers = [registry];
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        ...{ name, help, registers },
        collect() {
          this.set(read());
        },
      });
    gauge('starling_coordinator_database_up', '1 while the database answers', () =>
      readings.isDatabaseUp() ? 1 : 0,
    );
    gauge('starling_coordinator_backends', 'Backends that report', () => readings.backendCount());
    gauge('starling_coordinator_nodes', 'Processes that say how they are', () => readings.nodeCount());
    new Gauge({
      name: 'starling_coordinator_watchers',
      help: 'Backends and frontends that follow the state',
      labelNames: ['role'],
      registers,
      collect() {
        const { backend, frontend } = readings.watcherCounts();
        this.set({ role: 'backend' }, backend);
        this.set({ role: 'frontend' }, frontend);
      },
    });
    new Gauge({
      name: 'starling_coordinator_open_alarms',
      help: 'Alarms that are not resolved, by kind',
      labelNames: ['kind'],
      registers,
      collect() {
        const open = readings.openAlarms();
        for (const kind of alarmKinds) this.set({ kind }, open.get(kind) ?? 0);
      },
    });
  }
}
