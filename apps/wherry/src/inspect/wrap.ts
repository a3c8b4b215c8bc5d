/** Breaks a text into lines of at most `columns` characters, between words where it can. */
export function wrap(text: string, columns: number): string[] {
  const width = Math.max(columns, 16);
  const lines: string[] = [];
  let line = '';
  for (let word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = '';
    }
    for (; word.length > width; word = word.slice(width)) lines.push(word.slice(0, width));
    line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines;
}
