import type { FleetNode, NodeRole, NodeState } from '@starling/model/node';
import { expect, it } from 'vitest';
import { balancedFleet } from './fleet.ts';

const node = (
  name: string,
  role: NodeRole,
  addresses: FleetNode['addresses'],
  state: NodeState = 'joined',
): FleetNode => ({
  ...{ name, role, addresses, state, id: '0123456789abcdef', publicKey: 'k'.repeat(43), restartBootId: null },
});

it('has those nodes behind the balancer that work, beside those that are listed', () => {
  const listed = {
    frontends: [{ host: 'old', port: 80 }],
    backends: [{ host: 'old', rtmpPort: 1935 }],
  };
  const nodes = [
    node('a', 'frontend', { host: '10.0.0.1', httpPort: 8080, pushPorts: [1937, 1938] }),
    node('silent', 'frontend', null),
    node('cordoned', 'frontend', { host: '10.0.0.2', httpPort: 8080 }, 'cordoned'),
    node('draining', 'backend', { host: '10.0.0.3', rtmpPort: 1935 }, 'draining'),
    node('b', 'backend', { host: '10.0.0.4', rtmpPort: 1935, rtmpsPort: 1936 }),
    node('all in one', 'backend', { host: '10.0.0.5', httpPort: 8080, rtmpPort: 1935 }),
    node('self', 'balancer', { host: '10.0.0.6', httpPort: 443 }),
  ];
  expect(balancedFleet({ revision: 7, nodes }, listed)).toEqual({
    frontends: [
      { host: 'old', port: 80 },
      { host: '10.0.0.1', port: 8080 },
      { host: '10.0.0.5', port: 8080 },
    ],
    backends: [
      { host: 'old', rtmpPort: 1935 },
      { host: '10.0.0.4', rtmpPort: 1935, rtmpsPort: 1936 },
      { host: '10.0.0.5', rtmpPort: 1935, rtmpsPort: undefined },
    ],
  });
});
