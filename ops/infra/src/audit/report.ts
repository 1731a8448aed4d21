/** What an audit found, in the forms that people and programs read. */
import { type Finding, inOrder, type Rule, type Severity, severities } from './finding.ts';

export const reportFormats = ['text', 'markdown', 'json', 'sarif', 'junit'] as const;
export type ReportFormat = (typeof reportFormats)[number];

export interface AuditReport {
  /** `beta in eu-west-1` */
  readonly subject: string;
  /** `2026-11-30` */
  readonly date: string;
  /** All that were looked at, whether something broke them or not. */
  readonly rules: readonly Rule[];
  readonly findings: readonly Finding[];
}

/** The ones that nobody has accepted and that are at least so bad. */
export function failing({ findings }: AuditReport, least: Severity): Finding[] {
  const limit = severities.indexOf(least);
  return findings.filter((one) => one.accepted === null && severities.indexOf(one.rule.severity) <= limit);
}

/** In the manner of a review: a summary, what is well, what is to be done, what was accepted. */
export function toMarkdown(report: AuditReport): string {
  const open = inOrder(report.findings.filter(({ accepted }) => accepted === null));
  const accepted = inOrder(report.findings.filter((one) => one.accepted !== null));
  const broken = new Set(report.findings.map(({ rule }) => rule.id));
  const kept = report.rules.filter(({ id }) => !broken.has(id));
  const counts = severities.map(
    (severity) => `${open.filter(({ rule }) => rule.severity === severity).length} ${severity}`,
  );
  const lines = [
    `# Security review: ${report.subject}`,
    '',
    `${report.date}. ${report.rules.length} rules: ${counts.join(', ')}; ${accepted.length} accepted.`,
    '',
  ];
  for (const severity of severities) {
    const of = open.filter(({ rule }) => rule.severity === severity);
    if (of.length === 0) continue;
    lines.push(`## ${severity.slice(0, 1).toUpperCase()}${severity.slice(1)}`, '');
    for (const { rule, resource, message } of of) {
      const controls = rule.controls.length === 0 ? '' : ` (${rule.controls.join(', ')})`;
      lines.push(
        `**${rule.id}** ${rule.title}${controls}`,
        '',
        `- \`${resource}\` ${message}`,
        `- ${rule.remedy}`,
        '',
      );
    }
  }
  if (accepted.length > 0) {
    lines.push('## Accepted', '', '| rule | resource | until | why |', '| --- | --- | --- | --- |');
    for (const { rule, resource, accepted: acceptance } of accepted) {
      lines.push(`| ${rule.id} | ${resource} | ${acceptance?.until} | ${acceptance?.reason} |`);
    }
    lines.push('');
  }
  lines.push(
    '## Kept',
    '',
    ...kept.map(({ id, title }) => `- ${id}: not so: ${title.slice(0, 1).toLowerCase()}${title.slice(1)}`),
    '',
  );
  return lines.join('\n');
}

/** SARIF 2.1.0 (OASIS), as GitHub and others show it beside the code. */
export function toSarif(report: AuditReport): object {
  const levels: Readonly<Record<Severity, string>> = {
    critical: 'error',
    high: 'error',
    medium: 'warning',
    low: 'note',
  };
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'starling audit',
            rules: report.rules.map((rule) => ({
              id: rule.id,
              shortDescription: { text: rule.title },
              help: { text: rule.remedy },
              defaultConfiguration: { level: levels[rule.severity] },
              properties: { tags: rule.controls },
            })),
          },
        },
        results: report.findings.map(({ rule, resource, message, accepted }) => ({
          ruleId: rule.id,
          ruleIndex: report.rules.findIndex(({ id }) => id === rule.id),
          level: levels[rule.severity],
          message: { text: `${resource} ${message}` },
          locations: [
            { logicalLocations: [{ name: resource, fullyQualifiedName: `${report.subject}/${resource}` }] },
          ],
          ...(accepted === null
            ? {}
            : { suppressions: [{ kind: 'external', justification: accepted.reason }] }),
        })),
      },
    ],
  };
}

/** JUnit's XML, for continuous integration: a test for each rule. */
export function toJunit(report: AuditReport): string {
  const cases = report.rules.map((rule) => {
    const open = report.findings.filter((one) => one.rule.id === rule.id && one.accepted === null);
    const failures = open.map(
      ({ resource, message }) =>
        `<failure type="${rule.severity}" message="${escapeXml(rule.title)}">${escapeXml(`${resource} ${message}. ${rule.remedy}`)}</failure>`,
    );
    return `  <testcase classname="${escapeXml(report.subject)}" name="${rule.id}">${failures.join('')}</testcase>`;
  });
  const failed = new Set(
    report.findings.filter(({ accepted }) => accepted === null).map(({ rule }) => rule.id),
  );
  return `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="starling audit" tests="${report.rules.length}" failures="${failed.size}">
${cases.join('\n')}
</testsuite>
`;
}

function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
