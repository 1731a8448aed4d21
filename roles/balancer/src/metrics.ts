/** What Prometheus hears of the balancer. */
import { Counter, Gauge, type Registry } from 'prom-client';

/** What is looked up when Prometheus asks. */
export interface BalancerReadings {
  admittedCount(): number;
  listedCount(): number;
  certificateEndUnixMs(): number | undefined;
  /** nginx's `stub_status`; undefined when it does not answer. */
  nginxStatus(): Promise<string | undefined>;
}

export class BalancerMetrics {
  readonly reloads: Counter<'result'>;
  readonly ejections: Counter;
  readonly orders: Counter<'result'>;

  constructor(registry: Registry, readings: BalancerReadings) {
    const registers = [registry];
    this.reloads = new Counter({
      name: 'starling_balancer_reloads_total',
      help: 'Configurations that nginx took or refused',
      labelNames: ['result'],
      registers,
    });
    this.ejections = new Counter({
      name: 'starling_balancer_ejections_total',
      help: 'Times that a frontend was taken out',
      registers,
    });
    this.orders = new Counter({
      name: 'starling_balancer_certificate_orders_total',
      help: 'Certificates that were ordered by ACME',
      labelNames: ['result'],
      registers,
    });
    new Gauge({
      name: 'starling_balancer_connections',
      help: 'Connections that nginx has open',
      registers,
      async collect() {
        const status = await readings.nginxStatus();
        this.set(Number(/^Active connections: (\d+)/.exec(status ?? '')?.[1] ?? 0));
      },
    });
    new Gauge({
      name: 'starling_balancer_certificate_end_timestamp_seconds',
      help: 'When the certificate in use ends',
      registers,
      collect() {
        this.set((readings.certificateEndUnixMs() ?? 0) / 1000);
      },
    });
    new Gauge({
      name: 'starling_balancer_frontends',
      help: 'Frontends that get viewers, and that are listed',
      labelNames: ['state'],
      registers,
      collect() {
        this.set({ state: 'in' }, readings.admittedCount());
        this.set({ state: 'listed' }, readings.listedCount());
      },
    });
  }
}
