import { registerViewersGauge } from '@starling/frontend/metrics';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { machineMetrics } from '../src/machine-metrics.ts';

function processNamed(name: string, bytes: number): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ process: name });
  const registers = [registry];
  new Counter({ name: 'bytes_total', help: 'Bytes', labelNames: ['channel'], registers }).inc(
    { channel: 'a' },
    bytes,
  );
  new Gauge({ name: 'lag_seconds', help: 'Lag', registers, aggregator: 'average' }).set(Number.NaN);
  new Gauge({ name: 'start_seconds', help: 'Start', registers, aggregator: 'omit' }).set(bytes);
  new Histogram({ name: 'wait_seconds', help: 'Wait', registers, buckets: [1] }).observe(bytes);
  // It sees a viewer that the other process sees as well.
  registerViewersGauge(registry, () => [{ channel: 'a', protocol: 'hls', count: 1 }]);
  return registry;
}

it('has every series of every process once, under one heading, and each viewer once', async () => {
  const processes = [processNamed('main', 1), processNamed('worker-1', 2)];
  const text = await machineMetrics(await Promise.all(processes.map((one) => one.getMetricsAsJSON())), [
    { id: 'on-both', channel: 'a', protocol: 'hls' },
    { id: 'on-one', channel: 'a', protocol: 'flv' },
    { id: 'on-both', channel: 'a', protocol: 'hls' },
    { id: 'on-the-other', channel: 'a', protocol: 'flv' },
  ]);
  expect(text.split('\n').filter((line) => !line.startsWith('# HELP'))).toEqual([
    '# TYPE bytes_total counter',
    'bytes_total{channel="a",process="main"} 1',
    'bytes_total{channel="a",process="worker-1"} 2',
    '',
    '# TYPE lag_seconds gauge',
    'lag_seconds{process="main"} Nan',
    'lag_seconds{process="worker-1"} Nan',
    '',
    '# TYPE start_seconds gauge',
    'start_seconds{process="main"} 1',
    'start_seconds{process="worker-1"} 2',
    '',
    '# TYPE wait_seconds histogram',
    'wait_seconds_bucket{le="1",process="main"} 1',
    'wait_seconds_bucket{le="+Inf",process="main"} 1',
    'wait_seconds_sum{process="main"} 1',
    'wait_seconds_count{process="main"} 1',
    'wait_seconds_bucket{le="1",process="worker-1"} 0',
    'wait_seconds_bucket{le="+Inf",process="worker-1"} 1',
    'wait_seconds_sum{process="worker-1"} 2',
    'wait_seconds_count{process="worker-1"} 1',
    '',
    '# TYPE starling_frontend_viewers gauge',
    'starling_frontend_viewers{channel="a",protocol="hls"} 1',
    'starling_frontend_viewers{channel="a",protocol="flv"} 2',
    '',
  ]);
});
