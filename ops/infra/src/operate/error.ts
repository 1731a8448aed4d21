/** What can go wrong while a deployment is operated. The command line prints the message and exits 1. */

/** Code and meaning; docs/errors.md shows it. */
export const operateErrorCatalogue = {
  AWS_NO_CREDENTIALS: "The AWS SDK's default chain found no credentials.",
  AWS_CREDENTIALS_REFUSED: 'AWS does not know the credentials, or they have expired.',
  AWS_NO_REGION: 'No region is configured.',
  AWS_UNREACHABLE: 'AWS cannot be reached over the network, or did not answer in time.',
  AWS_DENIED: 'The credentials do not allow a call; the message names it.',
  AWS_THROTTLED: 'AWS refused a call, again and again, because there were too many.',
  AWS_NO_CAPACITY: 'AWS has no free machine of the type in that zone, or the account may have no more.',
  AWS_REFUSED: 'AWS refused a call for another reason, which the message gives.',
  DEPLOYMENT_BAD_NAME: 'A deployment is named with letters, digits and hyphens, 1 to 40 of them.',
  DEPLOYMENT_NOT_FOUND: 'Nothing in the region carries the tag of the deployment.',
  DEPLOYMENT_NOT_OURS:
    'Something has the name that the deployment would use, but not its tag. It is left alone.',
  DEPLOYMENT_BROKEN: 'Part of the deployment is in a state that only its operator can mend.',
  DEADLINE:
    'AWS did not get there within the time that is given. The same command goes on from where it was.',
  INTERRUPTED: 'The command was stopped. The same command goes on from where it was.',
  SCALE_FIXED:
    'The role runs on machines that are listed in the deployment file, which no call can multiply.',
  SCALE_LIMIT: 'The number is outside what the auto-scaling group or the service allows.',
  SCHEDULE_BAD: 'Opening hours do not make sense, or overlap with others.',
  SCHEDULE_NOT_FOUND: 'There are no opening hours of that name.',
  SCHEDULE_IN_FILE: 'The deployment file has opening hours; others beside them would undo them.',
  SCHEDULE_NO_ROLE: 'EventBridge Scheduler has no role with which it could start and stop things.',
  STACK_BAD_TEMPLATE: 'The template cannot be read, or CloudFormation does not take it.',
  STACK_NEEDS_BUCKET: 'The template is too long for a call; CloudFormation takes it out of a bucket.',
  STACK_FAILED: 'CloudFormation could not make the change, and rolled it back.',
  STACK_STUCK: 'The stack is in a state that it only leaves by hand.',
  STACK_PROTECTED: 'The stack is protected from deletion.',
  NOT_CONFIRMED: 'The question was not answered with yes. Nothing was changed.',
} as const;

export type OperateErrorCode = keyof typeof operateErrorCatalogue;

/** One sentence for the operator: what happened, to what, and what to do. */
export class OperateError extends Error {
  override readonly name = 'OperateError';
  readonly code: OperateErrorCode;

  constructor(code: OperateErrorCode, message: string, options?: { cause: unknown }) {
    super(message, options);
    this.code = code;
  }
}
