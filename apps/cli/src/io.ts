/** What a command has of the process that it runs in, so that tests can give it something else. */

export interface TextOutput {
  write(text: string): unknown;
  /** True on a terminal. */
  readonly isTTY?: boolean | undefined;
  /** Width of the terminal. */
  readonly columns?: number | undefined;
}

export interface Io {
  readonly stdout: TextOutput;
  readonly stderr: TextOutput;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** All of standard input. */
  readStdin(): Promise<string>;
  /** A line that is asked for on a terminal, or the first of standard input. */
  readLine(prompt: string): Promise<string>;
  /** A line that nobody shall see: asked for on a terminal, where it is not shown, or read from standard input. */
  readSecret(prompt: string): Promise<string>;
  /**
   * Calls `listener` instead of ending the process when the user presses Ctrl-C.
   * @returns ends that
   */
  onInterrupt(listener: () => void): () => void;
}

/** What a command gets: the process, and the options that all commands share. Ask when the command runs. */
export interface CommandContext {
  readonly io: Io;
  /** Absolute. */
  readonly dataDir: () => string;
  /** Whether results are wanted as JSON. */
  readonly wantsJson: () => boolean;
}

/** The command could not be done. The message is one sentence that says why and what to do. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}
