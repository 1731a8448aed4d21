/**
 * docs/metrics.md lists what the roles really register, and what is in ops/monitoring asks for nothing else. To write the document anew:
 * `npx vitest run --project unit apps/cli/test/metrics.test.ts -u`.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { startBackend } from '@starling/backend/main';
import { BalancerMetrics } from '@starling/balancer/metrics';
import { startCoordinator } from '@starling/coordinator/main';
import { startFrontend } from '@starling/frontend/main';
import { newNodeIdentity } from '@starling/model/node-identity';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { LogShipper } from '../src/log-shipper.ts';
import { NodeAgent } from '../src/node-agent.ts';
import { httpOptions } from '../src/process.ts';

const root = resolve(import.meta.dirname, '../../..');
const monitoring = (name: string) => join(root, 'ops/monitoring', name);
const registries = {
  Frontend: new Registry(),
  Backend: new Registry(),
  Coordinator: new Registry(),
  Balancer: new Registry(),
  'Every process': new Registry(),
};
const dataDir = mkdtempSync(join(tmpdir(), 'starling-metrics-'));
const closers: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  const logger = pino({ level: 'silent' });
  const coordinator = await startCoordinator({
    ...{ dataDir, logger, operatorToken: 'operator', nodeToken: 'node', webDir: undefined },
    registry: registries.Coordinator,
  });
  closers.push(() => coordinator.close());
  const { port } = await coordinator.listen('127.0.0.1', 0);
  const shared = { logger, rtmpHost: '127.0.0.1', rtmpPort: 0 };
  const frontend = await startFrontend({ ...shared, publishToken: 'x', registry: registries.Frontend });
  closers.push(() => frontend.close());
  const backend = await startBackend({
    ...{ ...shared, dataDir, frontends: [], leases: { from: 'nobody' }, rtmps: { port: 0 } },
    coordinator: { baseUrl: `http://127.0.0.1:${port}`, token: 'node' },
    registry: registries.Backend,
  });
  closers.push(() => backend.close());
  new BalancerMetrics(registries.Balancer, {
    admittedCount: () => 0,
    listedCount: () => 0,
    certificateEndUnixMs: () => undefined,
    nginxStatus: async () => undefined,
  });
  httpOptions(registries['Every process'], { port: 0 });
  const agent = await NodeAgent.open({
    membership: {
      identity: await newNodeIdentity(),
      ...{ coordinatorUrl: `http://127.0.0.1:${port}`, dataDir, host: '127.0.0.1' },
    },
    part: {
      ports: () => ({}),
      ...{ isReady: () => true, isIdle: () => true, channelCount: () => 0, viewerCount: () => 0 },
      ...{ onFleet: () => {}, drain: () => {}, resume: () => {} },
    },
    ...{ version: '0.1.0', logger, registry: registries['Every process'], onEnd: () => {} },
  });
  closers.push(() => agent.close());
  new LogShipper().shipTo({ node: 'test', ship: async () => {} }, registries['Every process']);
}, 180_000);
afterAll(async () => {
  for (const close of closers.reverse()) await close();
  rmSync(dataDir, { recursive: true, force: true });
});

interface Documented {
  readonly name: string;
  readonly type: string;
}

const metricsOf = (registry: Registry) =>
  registry
    .getMetricsAsArray()
    .map((metric) => {
      const { name, help, labelNames } = metric as unknown as Record<'name' | 'help', string> & {
        labelNames: string[];
      };
      return { name, help, labelNames, type: metric.constructor.name.toLowerCase() };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));

function documentText(): string {
  const tables = Object.entries(registries).map(([title, registry]) => {
    const rows = metricsOf(registry).map(({ name, help, labelNames, type }) => {
      const labels = labelNames.length === 0 ? '' : `{${labelNames.join(',')}}`;
      return `| \`${name}${labels}\` | ${type} | ${help} |`;
    });
    return `## ${title}\n\n| metric | type | meaning |\n| --- | --- | --- |\n${rows.join('\n')}\n`;
  });
  return `# Metrics

What \`/metrics\` answers, in Prometheus's text format, beside the \`process_*\` and \`nodejs_*\` metrics of prom-client. With several workers
every series has the label \`process\`: add them up with \`sum without (process)\`. A test compares this list with what the roles
register. [operations.md](operations.md#watching-over-it) says who may read it, and what is in \`ops/monitoring\`.

${tables.join('\n')}`;
}

const documented = (): Documented[] =>
  [...readFileSync(join(root, 'docs/metrics.md'), 'utf8').matchAll(/^\| `(\w+)[^`]*` \| (\w+) \|/gm)].map(
    ([, name = '', type = '']) => ({ name, type }),
  );

/** The names of ours that an expression of PromQL asks for; of a histogram, its series. */
function problemsOf(expression: string): string[] {
  const known = new Set(
    documented().flatMap(({ name, type }) =>
      type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  );
  const names = expression.match(/\b(?:starling|process|nodejs)_\w+/g) ?? [];
  const unknown = names.filter((name) => name.startsWith('starling_') && !known.has(name));
  const isAboutNothing = names.length === 0 && !/\bup\b/.test(expression);
  return isAboutNothing ? [`no metric in: ${expression}`] : unknown;
}

it('docs/metrics.md lists every metric that a role registers, and no other', async () => {
  await expect(documentText()).toMatchFileSnapshot(join(root, 'docs/metrics.md'));
  expect(documented().length).toBeGreaterThan(30);
  expect(new Set(documented().map(({ name }) => name)).size).toBe(documented().length);
});

describe('ops/monitoring', () => {
  it('the alert rules ask for documented metrics, and each says what to do', () => {
    const { groups } = parse(readFileSync(monitoring('alerts.yml'), 'utf8')) as {
      groups: { name: string; rules: Record<string, unknown>[] }[];
    };
    const rules = groups.flatMap((group) => group.rules);
    expect(rules.length).toBeGreaterThan(10);
    for (const { alert, expr, labels, annotations } of rules) {
      expect(alert).toMatch(/^Starling[A-Z]\w+$/);
      expect({ alert, unknown: problemsOf(String(expr)) }).toEqual({ alert, unknown: [] });
      expect(labels).toMatchObject({ severity: expect.stringMatching(/^(warning|critical)$/) });
      expect(annotations).toMatchObject({
        summary: expect.stringMatching(/\.$/),
        action: expect.stringMatching(/[.?]$/),
      });
    }
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  });

  it('the dashboard asks for documented metrics, each panel in a place of its own', () => {
    const dashboard = JSON.parse(readFileSync(monitoring('dashboard.json'), 'utf8')) as {
      panels: {
        id: number;
        title: string;
        type: string;
        gridPos: { x: number; y: number; w: number; h: number };
        targets?: { expr: string }[];
      }[];
    };
    const places = new Set<string>();
    for (const { title, type, gridPos, targets = [] } of dashboard.panels) {
      if (type !== 'row') expect({ title, count: targets.length > 0 }).toEqual({ title, count: true });
      const unknown = targets.flatMap(({ expr }) => problemsOf(expr));
      expect({ title, unknown }).toEqual({ title, unknown: [] });
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(places.has(`${x} ${y}`), `${title} lies over another panel`).toBe(false);
          places.add(`${x} ${y}`);
        }
      }
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
    }
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
  });

  // Debian's package `prometheus` has it.
  const promtool = ['/usr/bin/promtool', process.env.PROMTOOL ?? ''].find((path) => existsSync(path));
  it.skipIf(promtool === undefined)('promtool takes the alert rules and the configuration', async () => {
    const check = (what: string, file: string, ...options: string[]) =>
      promisify(execFile)(promtool ?? '', ['check', what, ...options, monitoring(file)]);
    expect((await check('rules', 'alerts.yml')).stdout).toContain('SUCCESS');
    expect((await check('config', 'prometheus.yml', '--syntax-only')).stdout).toContain('SUCCESS');
  });
});
