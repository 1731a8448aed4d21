/** What Prometheus hears of the balancer. */
import { Counter, Gauge, type Registry } from 'prom-client';

export interface BalancerReadings {
  readonly admitted: number;
  readonly listed: number;
  readonly certificateEndsUnixMs: number | undefined;
  /** nginx's `stub_status`; undefined when it does not answer. */
  readonly nginxStatus: string | undefined;
}

export class BalancerMetrics {
  readonly reloads: Counter<'result'>;
  readonly ejections: Counter;
  readonly orders: Counter<'result'>;

  constructor(registry: Registry, read: () => Promise<BalancerReadings>) {
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
    const connections = new Gauge({
      name: 'starling_balancer_connections',
      help: 'Connections that nginx has open',
      registers,
    });
    const certificateEnd = new Gauge({
      name: 'starling_balancer_certificate_end_timestamp_seconds',
      help: 'When the certificate in use ends',
      registers,
    });
    new Gauge({
      name: 'starling_balancer_frontends',
      help: 'Frontends that get viewers, and that are listed',
      labelNames: ['state'],
      registers,
      async collect() {
        const { admitted, listed, certificateEndsUnixMs, nginxStatus } = await read();
        this.set({ state: 'in' }, admitted);
        this.set({ state: 'listed' }, listed);
        certificateEnd.set((certificateEndsUnixMs ?? 0) / 1000);
        connections.set(Number(/^Active connections: (\d+)/.exec(nginxStatus ?? '')?.[1] ?? 0));
      },
    });
  }
}
