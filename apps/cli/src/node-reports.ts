/** What a process tells the coordinator of itself: its log, and how it is. Nothing waits for it. */
import { stat, statfs } from 'node:fs/promises';
import { hostname } from 'node:os';
import type { NodeHealth } from '@starling/model/node-health';
import { type CoordinatorAccess, openCoordinator } from '@starling/model/node-identity';
import type { Registry } from 'prom-client';
import packageJson from '../package.json' with { type: 'json' };
import type { LogShipper } from './log-shipper.ts';

const REPORT_EVERY_MS = 5000;
const FAREWELL_MS = 500;

export interface NodeReportsOptions {
  readonly coordinator: CoordinatorAccess;
  /** Name of this process: see {@link nodeName}. The coordinator knows a node of its registry by its name there. */
  readonly node: string;
  readonly registry: Registry;
  readonly logShipper: LogShipper;
  /** Folders whose disks are looked at. */
  readonly folders: readonly string[];
}

/** @param place what tells it apart from others of its role on the machine: a port, or a worker */
export function nodeName(role: string, place: string | number): string {
  return `${role}@${hostname().replace(/[^A-Za-z0-9.-]/g, '-')}:${place}`;
}

/** @returns what ends the reports, with a farewell */
export function startNodeReports(options: NodeReportsOptions): { close(): Promise<void> } {
  const { node, registry, logShipper } = options;
  const client = openCoordinator(options.coordinator);
  logShipper.shipTo({ node, ship: (batch) => client.shipLogs(batch) }, registry);
  let isReporting = false;
  const report = async () => {
    if (isReporting) return; // the coordinator is slow, or gone
    isReporting = true;
    // What is lost is in the next report.
    await readHealth(options, false)
      .then((health) => client.reportHealth(health))
      .catch(() => {});
    isReporting = false;
  };
  void report();
  const timer = setInterval(() => void report(), REPORT_EVERY_MS);
  timer.unref();
  return {
    async close() {
      clearInterval(timer);
      await logShipper.close();
      let deadline: NodeJS.Timeout | undefined;
      const enough = new Promise((resolve) => {
        deadline = setTimeout(resolve, FAREWELL_MS);
      });
      const farewell = readHealth(options, true).then((health) => client.reportHealth(health));
      await Promise.race([farewell.catch(() => {}), enough]);
      clearTimeout(deadline);
    },
  };
}

/** From the metrics of the process, whatever roles it has, and from its disks. */
async function readHealth(
  { node, registry, folders }: NodeReportsOptions,
  isLeaving: boolean,
): Promise<NodeHealth> {
  const valuesOf = async (name: string) => (await registry.getSingleMetric(name)?.get())?.values ?? [];
  const sumOf = async (...names: string[]) =>
    (await Promise.all(names.map(valuesOf))).flat().reduce((sum, { value }) => sum + value, 0);
  const balanced = await valuesOf('starling_balancer_frontends');
  const balancedCount = (state: string) => balanced.find(({ labels }) => labels.state === state)?.value ?? 0;
  const certificates = [
    ...(await valuesOf('starling_backend_certificate_end_timestamp_seconds')).map(({ value }) => ({
      name: 'RTMPS',
      endsAtSeconds: value,
    })),
    ...(await valuesOf('starling_balancer_certificate_end_timestamp_seconds')).map(({ value }) => ({
      name: 'HTTPS',
      endsAtSeconds: value,
    })),
  ];
  return {
    node,
    version: packageJson.version,
    isLeaving,
    disks: await readDisks(folders),
    certificates: certificates
      .filter(({ endsAtSeconds }) => endsAtSeconds > 0)
      .map(({ name, endsAtSeconds }) => ({ name, endsAt: new Date(endsAtSeconds * 1000).toISOString() })),
    refusedPublishCount:
      (await sumOf('starling_backend_refused_publishes_total')) +
      (await valuesOf('starling_frontend_refused_pushes_total'))
        .filter(({ labels }) => labels.reason === 'proof' || labels.reason === 'token')
        .reduce((sum, { value }) => sum + value, 0),
    recordingFaultCount: await sumOf('starling_backend_recording_faults_total'),
    balancedFrontends:
      balanced.length === 0 ? null : { listed: balancedCount('listed'), admitted: balancedCount('in') },
  };
}

/** Each disk once; a folder that is not there yet has none. */
async function readDisks(folders: readonly string[]): Promise<NodeHealth['disks']> {
  const disks = new Map<number, NodeHealth['disks'][number]>();
  for (const folder of folders) {
    try {
      const { dev } = await stat(folder);
      const { bavail, blocks, bsize } = await statfs(folder);
      const path = folder.slice(-150);
      if (!disks.has(dev)) disks.set(dev, { path, freeBytes: bavail * bsize, sizeBytes: blocks * bsize });
    } catch {
      // Not there yet: it is made when it is needed.
    }
  }
  return [...disks.values()];
}
