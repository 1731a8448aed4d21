/** `starling audit`: what is not safe in a deployment, before and after it is one. */
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  type Acceptance,
  accept,
  type Finding,
  inOrder,
  type Severity,
  severities,
} from '@starling/infra/audit/finding';
import { auditPlan, planRules } from '@starling/infra/audit/plan-rules';
import {
  type AuditReport,
  failing,
  type ReportFormat,
  reportFormats,
  toJunit,
  toMarkdown,
  toSarif,
} from '@starling/infra/audit/report';
import { auditRunning, runningRules } from '@starling/infra/audit/running-rules';
import { auditTemplate, templateRules } from '@starling/infra/audit/template-rules';
import type { CloudFormationTemplate } from '@starling/infra/cloudformation/synthesize';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type Static, Type } from 'typebox';
import { Value } from 'typebox/value';
import { parse as parseYaml } from 'yaml';
import { addDeploymentOptions, type DeploymentOptions, planOfOptions } from '../deployment-options.ts';
import { type CommandContext, CommandError, type TextOutput } from '../io.ts';
import { examples, printTable } from '../output.ts';

interface AuditOptions extends DeploymentOptions {
  readonly template?: string;
  readonly address?: URL;
  readonly selfSigned?: true;
  readonly accept?: string;
  readonly format?: ReportFormat;
  readonly out?: string;
  readonly failOn: Severity;
}

const AcceptanceFile = Type.Array(
  Type.Object(
    {
      rule: Type.String(),
      resource: Type.String(),
      reason: Type.String({ minLength: 10 }),
      until: Type.String({ pattern: '^\\d{4}-\\d{2}-\\d{2}$' }),
    },
    { additionalProperties: false },
  ),
  { maxItems: 500 },
);

export function addAuditCommand(program: Command, { io, wantsJson }: CommandContext): void {
  addDeploymentOptions(program.command('audit'))
    .description(
      'What is not safe in a deployment: in its plan, its templates and, where given, the running system.',
    )
    .option('--template <folder>', 'templates that `infra synth` wrote, instead of new ones')
    .option(
      '--address <url>',
      'also look at a running system, such as https://watch.example.org',
      parseAddress,
    )
    .option('--self-signed', 'take a certificate of no known authority')
    .option('--accept <file>', 'findings that are accepted: a list of rule, resource, reason, until')
    .addOption(new Option('--format <format>', 'of the report').choices(reportFormats))
    .option('--out <file>', 'write the report to a file')
    .addOption(
      new Option('--fail-on <severity>', 'exit with 1 at this severity or worse')
        .choices(severities)
        .default('high'),
    )
    .addHelpText(
      'after',
      `\nA file for --accept:\n  - { rule: INGEST_PLAINTEXT_OPEN, resource: AppGroup/AppRtmp0, reason: "cameras know no TLS", until: 2027-06-30 }\n${examples(
        'starling audit --profile production --region eu-west-1',
        'starling audit --file deploy.yaml --format sarif --out audit.sarif',
        'starling audit --file deploy.yaml --address https://watch.example.org --fail-on medium',
      )}`,
    )
    .action(async (options: AuditOptions) => {
      const plan = planOfOptions(io, options);
      const findings = auditPlan(plan);
      // Loaded here: the CDK takes seconds, and nothing else needs it.
      const { synthesize } = await import('@starling/infra/cloudformation/synthesize');
      for (const { name, template } of synthesize(plan)) {
        const given =
          options.template === undefined ? template : readTemplate(resolve(io.cwd, options.template), name);
        findings.push(...auditTemplate(given, template));
      }
      if (options.address !== undefined) {
        findings.push(...(await auditRunning(options.address, options.selfSigned !== true)));
      }
      const today = new Date().toISOString().slice(0, 10);
      const acceptances =
        options.accept === undefined ? [] : readAcceptances(resolve(io.cwd, options.accept));
      const report: AuditReport = {
        subject: `${plan.deployment.profile} in ${plan.deployment.region}`,
        date: today,
        rules: [...planRules, ...templateRules, ...(options.address === undefined ? [] : runningRules)],
        findings: inOrder(accept(findings, acceptances, today)),
      };
      const format = options.format ?? (wantsJson() ? 'json' : 'text');
      const text = format === 'text' ? undefined : render(report, format);
      if (options.out !== undefined) {
        writeFileSync(resolve(io.cwd, options.out), text ?? toMarkdown(report));
        print(io.stdout, report);
      } else if (text === undefined) print(io.stdout, report);
      else io.stdout.write(text);
      const failed = failing(report, options.failOn);
      if (failed.length > 0) {
        throw new CommandError(
          `${failed.length} of the findings are ${options.failOn} or worse: mend them, or accept them with a reason.`,
        );
      }
    });
}

function render(report: AuditReport, format: Exclude<ReportFormat, 'text'>): string {
  if (format === 'markdown') return toMarkdown(report);
  if (format === 'junit') return toJunit(report);
  return `${JSON.stringify(format === 'sarif' ? toSarif(report) : report, null, 2)}\n`;
}

function print(output: TextOutput, { subject, rules, findings }: AuditReport): void {
  printTable(
    output,
    ['SEVERITY', 'RULE', 'RESOURCE', 'WHAT', 'REMEDY'],
    findings.map(({ rule, resource, message, accepted }: Finding) => [
      accepted === null ? rule.severity : `accepted until ${accepted.until}`,
      rule.id,
      resource,
      message,
      accepted === null ? rule.remedy : accepted.reason,
    ]),
    `${subject}: nothing breaks any of ${rules.length} rules.`,
  );
}

function readTemplate(folder: string, stack: string): CloudFormationTemplate {
  const path = resolve(folder, `${stack}.template.json`);
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new CommandError(`${path} cannot be read: ${(error as Error).message}`);
  }
}

function readAcceptances(path: string): Acceptance[] {
  let content: unknown;
  try {
    // Dates stay text.
    content = parseYaml(readFileSync(path, 'utf8'), { schema: 'core' });
  } catch (error) {
    throw new CommandError(`${path} cannot be read: ${(error as Error).message}`);
  }
  if (Value.Check(AcceptanceFile, content)) return content as Static<typeof AcceptanceFile>;
  const [problem] = Value.Errors(AcceptanceFile, content);
  throw new CommandError(
    `${path} is not a list of accepted findings: ${problem?.instancePath || 'it'} ${problem?.message}. Each needs rule, resource, reason (10 characters or more) and until (2027-06-30).`,
  );
}

function parseAddress(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && /^https?:$/.test(url.protocol)) return url;
  throw new InvalidArgumentError('It has to be an address such as https://watch.example.org.');
}
