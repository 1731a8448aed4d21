/** What an audit says. */

export const severities = ['critical', 'high', 'medium', 'low'] as const;
export type Severity = (typeof severities)[number];

export interface Rule {
  /** Stays the same from release to release: `SSH_OPEN`. */
  readonly id: string;
  readonly severity: Severity;
  readonly title: string;
  /** Controls of others that ask for the same: AWS Foundational Security Best Practices, CIS AWS Foundations 3.0. */
  readonly controls: readonly string[];
  /** What to do. */
  readonly remedy: string;
}

export interface Finding {
  readonly rule: Rule;
  /** Id in the plan, logical id in the template, or an address. */
  readonly resource: string;
  readonly message: string;
  /** Why it is as it is, and until when that is accepted; null for what is to be mended. */
  readonly accepted: Acceptance | null;
}

/** A finding that somebody has looked at and let be. */
export interface Acceptance {
  readonly rule: string;
  /** Of one resource; `*` for all. */
  readonly resource: string;
  readonly reason: string;
  /** `2027-06-30`: after that day it is a finding again. */
  readonly until: string;
}

/**
 * Sets the accepted ones apart.
 * @param today `2026-11-30`
 */
export function accept(
  findings: readonly Omit<Finding, 'accepted'>[],
  acceptances: readonly Acceptance[],
  today: string,
): Finding[] {
  return findings.map((finding) => ({
    ...finding,
    accepted:
      acceptances.find(
        ({ rule, resource, until }) =>
          rule === finding.rule.id && (resource === '*' || resource === finding.resource) && until >= today,
      ) ?? null,
  }));
}

/** Worst first, then by rule and resource. */
export function inOrder(findings: readonly Finding[]): Finding[] {
  return [...findings].sort(
    (a, b) =>
      severities.indexOf(a.rule.severity) - severities.indexOf(b.rule.severity) ||
      a.rule.id.localeCompare(b.rule.id) ||
      a.resource.localeCompare(b.resource),
  );
}
