/** Ends the command with one message and an exit code: 1 failed, 2 wrong usage, 130 interrupted. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}
