import { parentPort, workerData } from 'node:worker_threads';
import { GuestRam, populateAhead } from '../src/index.ts';

const ram = await GuestRam.attach(workerData);
parentPort!.postMessage('ready');
populateAhead(ram);
