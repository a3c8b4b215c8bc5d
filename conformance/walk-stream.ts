import { ByteReader, runParser } from '@wherry/bytes';
import { findVmdesc, type StreamModel, StreamWalk } from '@wherry/snapshot';
import { StreamError } from '@wherry/stream';

/** Walks a whole stream, with footers or without. @throws WherryError where it breaks */
export function walkStream(bytes: Uint8Array): StreamModel {
  try {
    return walk(new StreamWalk(), bytes);
  } catch (error) {
    if (!(error instanceof StreamError) || error.code !== 'FOOTERS_ABSENT') throw error;
    // What is at the end of the file tells where its sections end.
    return walk(new StreamWalk({ vmdesc: findVmdesc(bytes, 0) }), bytes);
  }
}

function walk(streamWalk: StreamWalk, bytes: Uint8Array): StreamModel {
  const reader = ByteReader.over(bytes);
  runParser(streamWalk.walkFile(reader), reader);
  return streamWalk.model;
}
