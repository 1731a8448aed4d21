/** What can be wrong with the question what a deployment costs. */
export type CostErrorCode = 'COST_QUANTITY' | 'COST_VIEWERS' | 'COST_OPTION';

export class CostError extends Error {
  readonly code: CostErrorCode;

  constructor(code: CostErrorCode, message: string) {
    super(message);
    this.name = 'CostError';
    this.code = code;
  }
}
