/** A plan as files: what each emitter makes of it, by file name. CloudFormation is in `cloudformation/`. */
import { mermaidDiagram, svgDiagram } from '@starling/model/topology/diagram';
import type { Plan } from '@starling/model/topology/plan';
import { securityMatrixMarkdown } from '@starling/model/topology/security-matrix';
import { ansibleFiles, ansibleInventory, sshConfig } from './ansible/inventory.ts';
import { terraformConfiguration } from './terraform/terraform.ts';

export const emitters = {
  terraform: (plan: Plan) => ({
    'main.tf.json': json(
      terraformConfiguration(plan, { 'inventory.yaml': ansibleInventory(plan), ssh_config: sshConfig(plan) }),
    ),
    ...hostVars(plan),
  }),
  ansible: ansibleFiles,
  diagram: (plan: Plan) => ({ 'network.svg': svgDiagram(plan), 'network.mmd': mermaidDiagram(plan) }),
  matrix: (plan: Plan) => ({ 'matrix.md': securityMatrixMarkdown(plan) }),
  prices: (plan: Plan) => ({
    'prices.json': json([
      ...plan.resources.flatMap(({ id, kind, prices }) => prices.map((price) => ({ id, kind, ...price }))),
      ...plan.usage.map((price) => ({ id: null, kind: 'usage', ...price })),
    ]),
  }),
  plan: (plan: Plan) => ({ 'plan.json': json(plan) }),
} satisfies Record<string, (plan: Plan) => Readonly<Record<string, string>>>;
export type Emitter = keyof typeof emitters;

/** Terraform writes inventory and SSH configuration, since it knows the addresses; hosts' variables are known now. */
function hostVars(plan: Plan): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(ansibleFiles(plan)).filter(([name]) => name.startsWith('host_vars/')),
  );
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
