/** One line that the guest printed. */
export interface Mark {
  /** The number of the pass that was finished, from 1. */
  readonly pass: number;
  /** How many 32-bit words did not hold what the guest had written there; 0 when all is well. */
  readonly wrongWords: number;
}

/** Reads the complete lines of a guest's serial output. @throws Error for a line that is no mark */
export function parseMarks(serialText: string): Mark[] {
  const lines = serialText.split('\n');
  lines.pop(); // what follows the last newline is not complete
  return lines.map((line) => {
    const match = /^([0-9a-f]{8})(?:!([0-9a-f]{8}))?$/.exec(line);
    if (match?.[1] === undefined) throw new Error(`no mark: ${JSON.stringify(line)}`);
    return {
      pass: Number.parseInt(match[1], 16),
      wrongWords: Number.parseInt(match[2] ?? '0', 16),
    };
  });
}
