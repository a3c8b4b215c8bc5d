import type { StreamFacts } from '@wherry/vmstate';
import type { StreamModel } from './stream-model.ts';

/** Takes out of a stream's model what says whether another side will load it. */
export function streamFacts({ configuration, ram, items, vmdesc }: StreamModel): StreamFacts {
  return {
    ...(configuration && {
      machine: configuration.machineType,
      capabilities: configuration.capabilities ?? [],
    }),
    ...(ram && { ramBlocks: ram.blocks }),
    sections: items.flatMap((item) =>
      item.type === 'section' && (item.kind === 'start' || item.kind === 'full') ? [item] : [],
    ),
    ...(vmdesc?.value && { vmdesc: vmdesc.value }),
  };
}
