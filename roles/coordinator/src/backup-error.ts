/** A backup cannot be made or taken. The message is one sentence that says why and what to do. */
export class BackupError extends Error {
  override readonly name = 'BackupError';
}
