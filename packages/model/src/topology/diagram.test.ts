import { describe, expect, it } from 'vitest';
import { profiles } from './deployment.ts';
import { mermaidDiagram, svgDiagram } from './diagram.ts';
import { drawPlan } from './draw-plan.ts';

describe('diagrams', () => {
  it('draw the IPTV seed: its subnets, its hosts, and who speaks to whom', () => {
    const plan = drawPlan({
      profile: 'classic-iptv',
      region: 'us-east-1',
      operatorAddress: '203.0.113.7/32',
    });
    const lines = mermaidDiagram(plan).split('\n');
    expect(lines.filter((line) => line.includes('-->')).sort()).toEqual(
      [
        '  Internet -- "22" --> BastionA',
        '  Frontend0 -- "all" --> BastionA',
        '  Frontend1 -- "all" --> BastionA',
        '  Backend0 -- "all" --> BastionA',
        '  Internet -- "80, 443" --> Balancer',
        '  BastionA -- "22" --> Balancer',
        '  Balancer -- "80" --> Frontend0',
        '  Balancer -- "80" --> Frontend1',
        '  BastionA -- "22" --> Frontend0',
        '  Backend0 -- "1935" --> Frontend0',
        '  BastionA -- "22" --> Frontend1',
        '  Backend0 -- "1935" --> Frontend1',
        '  BastionA -- "22" --> Backend0',
      ].sort(),
    );
    expect(lines).toContain('  subgraph frontends["Private subnets: frontends 10.0.128.0/18"]');
  });

  it.each(profiles)('%s: the SVG has every box and arrow of the flow chart', (profile) => {
    const plan = drawPlan({ profile, region: 'eu-west-1' });
    const [chart, svg] = [mermaidDiagram(plan), svgDiagram(plan)];
    expect(svg.match(/class="box"/g)).toHaveLength((chart.match(/<br\/>/g) ?? []).length);
    expect(svg.match(/class="arrow"/g)).toHaveLength((chart.match(/-->/g) ?? []).length);
  });
});
