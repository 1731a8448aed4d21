/** One answer to Prometheus for all processes of this machine. */
import { registerViewersGauge, VIEWERS_GAUGE } from '@starling/frontend/metrics';
import { AggregatorRegistry, Registry } from 'prom-client';
import type { CountedViewer, ProcessMetrics } from './worker-messages.ts';

/**
 * The metrics of all processes as one text. Every series keeps its label `process`: the counters of a
 * process that was replaced begin anew, and in a sum Prometheus could not see that. Viewers are counted here:
 * a player of HLS whose requests come over several connections may be on several processes, with one session.
 * @param viewers of all processes; who is named twice counts once
 */
export async function machineMetrics(
  processes: readonly ProcessMetrics[],
  viewers: readonly CountedViewer[],
): Promise<string> {
  const counted = new Registry();
  const byId = new Map(viewers.map((viewer) => [viewer.id, viewer]));
  registerViewersGauge(counted, () =>
    Array.from(byId.values(), ({ channel, protocol }) => ({ channel, protocol, count: 1 })),
  );
  const ofProcesses = processes.map((metrics) =>
    metrics
      .filter(({ name }) => name !== VIEWERS_GAUGE)
      // No two series have the same labels: there is nothing to add up.
      .map((metric) => ({ ...metric, aggregator: 'first' })),
  );
  return AggregatorRegistry.aggregate([...ofProcesses, await counted.getMetricsAsJSON()]).metrics();
}
