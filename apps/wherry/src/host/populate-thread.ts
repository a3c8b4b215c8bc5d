import { workerData } from 'node:worker_threads';
import { GuestRam, populateAhead } from '@wherry/page-engine';

// The whole of the thread that has memory given to pages which are about to arrive.
populateAhead(await GuestRam.attach(workerData));
