/** In a browser: a guest's pages go from one shared memory to another. */
import { GuestRam, RamReceiver, RamSender } from '@wherry/page-engine';

const blocks = [{ name: 'ram', lengthBytes: 2 ** 20, hostPageBytes: 4096 }];
const source = await GuestRam.create(blocks, { shared: true });
const destination = await GuestRam.create(blocks, { shared: true });
source.setAllReceived(true);
source.block('ram')?.write(5000, new TextEncoder().encode('hello'));

const sender = new RamSender(source);
const receiver = new RamReceiver(destination);
sender.oweAll();
for (let chunk = sender.next(); chunk; chunk = sender.next()) {
  receiver.input.bytes.set(chunk.bytes);
  const { error } = receiver.decode(0, chunk.bytes.length);
  if (error) throw error;
  chunk.release();
}

const same = source.block('ram')?.checksum() === destination.block('ram')?.checksum();
if (!same) throw new Error('the two memories differ');
console.log(receiver.counters.normalPages);
