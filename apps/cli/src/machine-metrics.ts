/** One answer to Prometheus for all processes of this machine. */
import { registerViewersGauge, VIEWERS_GAUGE } from '@starling/frontend/metrics';
import type { Viewer } from '@starling/frontend/viewers';
import { AggregatorRegistry, Registry } from 'prom-client';
import type { ProcessMetrics } from './worker-messages.ts';

/**
 * The metrics of all processes as one text. Every series keeps its label `process`: the counters of a
 * process that was replaced begin anew, and in a sum Prometheus could not see that. Viewers are counted here,
 * because one may be on several processes.
 */
export async function machineMetrics(
  processes: readonly ProcessMetrics[],
  viewers: readonly Viewer[],
): Promise<string> {
  const counted = new Registry();
  registerViewersGauge(counted, () =>
    viewers.map(({ channel, protocol }) => ({ channel, protocol, count: 1 })),
  );
  const ofProcesses = processes.map((metrics) =>
    metrics
      .filter(({ name }) => name !== VIEWERS_GAUGE)
      // No two series have the same labels: there is nothing to add up.
      .map((metric) => ({ ...metric, aggregator: 'first' })),
  );
  return AggregatorRegistry.aggregate([...ofProcesses, await counted.getMetricsAsJSON()]).metrics();
}
