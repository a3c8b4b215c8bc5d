import type { Command, Configuration, SectionHead } from '@wherry/stream';
import { SectionType } from '@wherry/stream';
import type { Piece } from './locator.ts';

const encoder = new TextEncoder();

/** The pieces of a configuration section. */
export function configurationPieces(configuration: Configuration): Piece[] {
  const { machineType, targetPageBits, capabilities, uuid } = configuration;
  const subsection = (name: string): Piece[] => [
    [1, 'The byte that begins a subsection', SectionType.subsection],
    ...named(`configuration/${name}`, 'a subsection of the configuration'),
    [4, `Version of the subsection configuration/${name}`, 1],
  ];
  return [
    [1, 'The byte that begins the configuration', SectionType.configuration],
    [4, 'Length of the machine type’s name', byteLength(machineType)],
    [byteLength(machineType), 'The machine type', machineType],
    ...(targetPageBits === undefined
      ? []
      : ([
          ...subsection('target-page-bits'),
          [4, 'Bits of a target page', targetPageBits],
        ] as const)),
    ...(capabilities === undefined
      ? []
      : ([
          ...subsection('capabilities'),
          [4, 'How many capabilities follow', capabilities.length],
          ...capabilities.flatMap((name) => named(name, 'a capability that is on')),
        ] as const)),
    ...(uuid === undefined
      ? []
      : ([...subsection('uuid'), [16, 'UUID of the machine', uuid]] as const)),
  ];
}

/** The pieces of a section's type byte and head. */
export function headPieces(head: SectionHead): Piece[] {
  const pieces: Piece[] = [
    [1, `The byte that begins a section: ${head.kind.toUpperCase()}`, SectionType[head.kind]],
    [4, 'Section id: the sender’s number for this section', head.sectionId],
  ];
  if ('idstr' in head) {
    pieces.push(
      ...named(head.idstr, 'the section'),
      [4, 'Instance id: which of the devices of this name', head.instanceId],
      [4, 'Version of the section', head.version],
    );
  }
  return pieces;
}

/** The pieces of a command with its payload. */
export function commandPieces(command: Command): Piece[] {
  const pieces: Piece[] = [
    [1, 'The byte that begins a command', SectionType.command],
    [2, `Number of the command ${command.name}`],
    [2, 'Length of the command’s payload'],
  ];
  switch (command.name) {
    case 'ping':
      pieces.push([4, 'What the destination sends back', command.value]);
      break;
    case 'packaged':
      pieces.push([4, 'Length of the package that follows', command.lengthBytes]);
      break;
    case 'postcopy-advise':
      if (command.ram !== undefined) {
        pieces.push(
          [8, 'Page sizes of all RAM blocks, one bit each', command.ram.pageSizesSummary],
          [8, 'Bytes of a target page', command.ram.targetPageBytes],
        );
      }
      break;
    case 'postcopy-ram-discard':
      pieces.push(
        [1, 'Version of the discard', 0],
        ...named(command.block, 'the RAM block'),
        [1, 'A nil behind the name', 0],
        ...command.ranges.flatMap(({ start, length }): Piece[] => [
          [8, 'Where the range to throw away begins in the block', start],
          [8, 'Bytes of the range to throw away', length],
        ]),
      );
      break;
    case 'recv-bitmap':
      pieces.push(...named(command.block, 'the RAM block whose bitmap is asked for'));
      break;
  }
  return pieces;
}

function named(name: string, what: string): Piece[] {
  return [
    [1, `Length of the name of ${what}`, byteLength(name)],
    [byteLength(name), `Name of ${what}`, name],
  ];
}

function byteLength(text: string): number {
  return encoder.encode(text).length;
}
