import { Assembler, abs16, abs32, imm16, imm32, rel8, rel32 } from './assembler.ts';

/** What the guest does; every field has a default. */
export interface GuestOptions {
  /** First byte of the range that is rewritten, 4 KiB aligned, at or above 1 MiB. */
  readonly rangeStart?: number;
  /** End of that range (exclusive), 4 KiB aligned. */
  readonly rangeEnd?: number;
  /** Timer interrupts a second, one pass each: 19 to 1000. */
  readonly passesPerSecond?: number;
  /** Flush the TLB before each page is written; see {@link bootSector}. */
  readonly flushTlb?: boolean;
}

/** Where firmware puts the boot sector, and where it runs. */
export const bootSectorAddress = 0x7c00;
const stackTop = 0x9000;
const idtAddress = 0x6000;
const timerVector = 0x20;
const pitHz = 1_193_182;
const localApic = 0xfee0_0000;
const com1 = 0x3f8;

/**
 * Builds the guest: a 512-byte boot sector that rewrites a range of pages in passes, for ever.
 *
 * ```
 * line (256 bytes)  | pass number u32 | its own address u32 x 63 |     16 lines a page
 * ```
 *
 * Each pass first checks that every line still holds what the pass before left there, then writes
 * the new pass number into it, and prints one mark on COM1: the pass as eight hex digits, then
 * `!` and the number of wrong words as eight hex digits if there were any, then a newline. Between
 * passes the CPU halts until the timer (PIT, IRQ 0) wakes it.
 *
 * All state of the loop is in registers, and the only stack words are the interrupt frame, which is
 * the same in every pass: so a page of the guest's own code or stack can never be stale.
 *
 * `flushTlb` toggles CR0.WP before a page is written. QEMU before 9.0 does not flush TCG's TLB when
 * it collects the dirty bitmap, so a write through an entry that is already cached there is not
 * logged, and the page arrives stale. @see QEMU cpu_physical_memory_sync_dirty_bitmap
 */
export function bootSector(options: GuestOptions = {}): Uint8Array {
  const {
    rangeStart = 0x10_0000,
    rangeEnd = 0x20_0000,
    passesPerSecond = 20,
    flushTlb = true,
  } = options;
  checkRange(rangeStart, rangeEnd);
  if (!(passesPerSecond >= 19 && passesPerSecond <= 1000)) {
    throw new RangeError(`passesPerSecond is ${passesPerSecond}, must be 19 to 1000`);
  }

  const a = new Assembler(bootSectorAddress);
  enterProtectedMode(a);
  setUpInterrupts(a, Math.round(pitHz / passesPerSecond));
  setUpSerialPort(a);
  fillRange(a, rangeStart, rangeEnd);
  rewriteRange(a, rangeStart, rangeEnd, flushTlb);
  printMark(a);

  a.label('timer_interrupt');
  a.outByte(0x20, 0x20); // end of interrupt
  a.op('iretd', 0xcf);

  a.label('idt_pointer');
  a.data([0xff, 0x07, idtAddress & 0xff, idtAddress >> 8, 0, 0]);
  a.label('gdt_pointer');
  a.op('dw gdt_end - gdt - 1', imm16(23));
  a.op('dd gdt', abs32('gdt'));
  a.label('gdt');
  a.data([0, 0, 0, 0, 0, 0, 0, 0]);
  a.data([0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0]); // 0x08: code, flat 4 GiB
  a.data([0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]); // 0x10: data, flat 4 GiB
  a.padTo(510);
  a.data([0x55, 0xaa]);
  return a.assemble();
}

function checkRange(start: number, end: number): void {
  const aligned = start % 4096 === 0 && end % 4096 === 0;
  if (!aligned || start < 0x10_0000 || end <= start || end > 0xc000_0000) {
    throw new RangeError(`range ${start}..${end} must be whole pages between 1 MiB and 3 GiB`);
  }
}

function enterProtectedMode(a: Assembler): void {
  a.op('cli', 0xfa);
  a.op('cld', 0xfc);
  a.op('xor ax, ax', 0x31, 0xc0);
  a.op('mov ds, ax', 0x8e, 0xd8);
  a.op('in al, 0x92', 0xe4, 0x92);
  a.op('or al, 2', 0x0c, 0x02); // A20 on
  a.op('and al, 0xfe', 0x24, 0xfe); // bit 0 would reset the machine
  a.op('out 0x92, al', 0xe6, 0x92);
  a.op('lgdt [gdt_pointer]', 0x0f, 0x01, 0x16, abs16('gdt_pointer'));
  a.op('mov eax, cr0', 0x0f, 0x20, 0xc0);
  a.op('or al, 1', 0x0c, 0x01);
  a.op('mov cr0, eax', 0x0f, 0x22, 0xc0);
  a.op('jmp 8:protected', 0xea, abs16('protected'), imm16(8));
  a.label('protected'); // 32-bit code from here on
  a.op('mov ax, 0x10', 0x66, 0xb8, imm16(0x10));
  a.op('mov ds, ax', 0x8e, 0xd8);
  a.op('mov es, ax', 0x8e, 0xc0);
  a.op('mov ss, ax', 0x8e, 0xd0);
  a.op('mov esp, stack_top', 0xbc, imm32(stackTop));
}

function setUpInterrupts(a: Assembler, pitDivisor: number): void {
  const gate = idtAddress + 8 * timerVector;
  a.op('mov eax, timer_interrupt', 0xb8, abs32('timer_interrupt')); // below 64 KiB
  a.op('or eax, 8 << 16', 0x0d, imm32(8 << 16)); // code segment
  a.op('mov [gate], eax', 0xa3, imm32(gate));
  writeWord(a, gate + 4, 0x8e00); // present, 32-bit interrupt gate
  a.op('lidt [idt_pointer]', 0x0f, 0x01, 0x1d, abs32('idt_pointer'));
  writeWord(a, localApic + 0xf0, 0x1ff); // local APIC on, spurious vector 0xff
  writeWord(a, localApic + 0x350, 0x700); // LINT0 takes what the PIC delivers
  a.outByte(0x20, 0x11); // PIC: edge triggered, cascaded, ICW4 follows
  a.outByte(0x21, timerVector);
  a.outByte(0x21, 0x04);
  a.outByte(0x21, 0x01);
  a.outByte(0x21, 0xfe); // only IRQ 0
  a.outByte(0x43, 0x34); // PIT: channel 0, low then high byte, rate generator
  a.outByte(0x40, pitDivisor);
  a.outByte(0x40, pitDivisor >> 8);
}

function writeWord(a: Assembler, address: number, value: number): void {
  a.op('mov dword [address], value', 0xc7, 0x05, imm32(address), imm32(value));
}

function setUpSerialPort(a: Assembler): void {
  const out = (port: number, value: number): void => {
    a.op('mov dx, port', 0x66, 0xba, imm16(port));
    a.op('mov al, value', 0xb0, value);
    a.op('out dx, al', 0xee);
  };
  out(com1 + 3, 0x80); // divisor latch
  out(com1, 1); // 115200 baud; the latch's high byte is 0 at reset, and after any firmware
  out(com1 + 3, 0x03); // 8 data bits, no parity, 1 stop bit
}

function fillRange(a: Assembler, start: number, end: number): void {
  a.op('mov edi, start', 0xbf, imm32(start));
  a.label('fill_line');
  a.op('mov eax, edi', 0x89, 0xf8);
  a.op('xor ecx, ecx; mov cl, 64', 0x31, 0xc9, 0xb1, 64);
  a.op('mov edx, eax', 0x89, 0xc2);
  a.op('rep stosd', 0xf3, 0xab);
  a.op('mov [edx], ecx', 0x89, 0x0a); // pass 0
  a.op('cmp edi, end', 0x81, 0xff, imm32(end));
  a.op('jb fill_line', 0x72, rel8('fill_line'));
  a.op('xor ebp, ebp', 0x31, 0xed); // ebp: passes done
}

function rewriteRange(a: Assembler, start: number, end: number, flushTlb: boolean): void {
  a.label('pass');
  a.op('xor ebx, ebx', 0x31, 0xdb); // ebx: wrong words in this pass
  a.op('mov edi, start', 0xbf, imm32(start));

  a.label('check_line');
  a.op('mov esi, edi', 0x89, 0xfe);
  a.op('cmp [edi], ebp', 0x39, 0x2f);
  a.op('je check_word', 0x74, rel8('check_word'));
  a.label('wrong');
  a.op('inc ebx', 0x43);
  a.label('check_word');
  a.op('add esi, 4', 0x83, 0xc6, 4);
  a.op('test esi, 0xff', 0xf7, 0xc6, imm32(0xff));
  a.op('jz line_checked', 0x74, rel8('line_checked'));
  a.op('cmp [esi], edi', 0x39, 0x3e);
  a.op('je check_word', 0x74, rel8('check_word'));
  a.op('jmp wrong', 0xeb, rel8('wrong'));
  a.label('line_checked');
  a.op('mov edi, esi', 0x89, 0xf7);
  a.op('test edi, 0xfff', 0xf7, 0xc7, imm32(0xfff));
  a.op('jnz check_line', 0x75, rel8('check_line'));

  // A whole page is checked; now its lines get the next pass number.
  if (flushTlb) {
    a.op('mov eax, cr0', 0x0f, 0x20, 0xc0);
    a.op('xor eax, 1 << 16', 0x35, imm32(1 << 16));
    a.op('mov cr0, eax', 0x0f, 0x22, 0xc0);
  }
  a.op('lea eax, [ebp + 1]', 0x8d, 0x45, 1);
  a.op('lea esi, [edi - 4096]', 0x8d, 0xb7, imm32(-4096));
  a.label('stamp_line');
  a.op('mov [esi], eax', 0x89, 0x06);
  a.op('add esi, 256', 0x81, 0xc6, imm32(256));
  a.op('cmp esi, edi', 0x39, 0xfe);
  a.op('jb stamp_line', 0x72, rel8('stamp_line'));

  a.op('cmp edi, end', 0x81, 0xff, imm32(end));
  a.op('jb check_line', 0x72, rel8('check_line'));
  a.op('inc ebp', 0x45);
}

/** Emits the mark; `edi` holds where to go on, so that nothing is pushed. */
function printMark(a: Assembler): void {
  a.op('mov esi, ebp', 0x89, 0xee);
  a.op('mov edi, pass_printed', 0xbf, abs32('pass_printed'));

  a.label('print_hex'); // esi as eight digits
  a.op('xor ecx, ecx; mov cl, 8', 0x31, 0xc9, 0xb1, 8);
  a.label('print_digit');
  a.op('rol esi, 4', 0xc1, 0xc6, 4);
  a.op('mov eax, esi', 0x89, 0xf0);
  a.op('and al, 15', 0x24, 15);
  a.op('cmp al, 10', 0x3c, 10);
  a.op('jb decimal', 0x72, rel8('decimal'));
  a.op("add al, 'a' - '0' - 10", 0x04, 0x61 - 0x30 - 10);
  a.label('decimal');
  a.op("add al, '0'", 0x04, 0x30);
  a.op('mov ah, al', 0x88, 0xc4);
  a.op('jmp transmit', 0xeb, rel8('transmit'));

  a.label('print_character'); // ah
  a.op('xor ecx, ecx; mov cl, 1', 0x31, 0xc9, 0xb1, 1);
  a.label('transmit');
  a.op('mov dx, com1 + 5', 0x66, 0xba, imm16(com1 + 5));
  a.label('transmitter_busy');
  a.op('in al, dx', 0xec);
  a.op('test al, 0x20', 0xa8, 0x20); // holding register empty
  a.op('jz transmitter_busy', 0x74, rel8('transmitter_busy'));
  a.op('mov dx, com1', 0x66, 0xba, imm16(com1));
  a.op('mov al, ah', 0x88, 0xe0);
  a.op('out dx, al', 0xee);
  a.op('loop print_digit', 0xe2, rel8('print_digit'));
  a.op('jmp edi', 0xff, 0xe7);

  a.label('pass_printed');
  a.op('test ebx, ebx', 0x85, 0xdb);
  a.op('jz new_line', 0x74, rel8('new_line'));
  a.op("mov ah, '!'", 0xb4, 0x21);
  a.op('mov edi, bang_printed', 0xbf, abs32('bang_printed'));
  a.op('jmp print_character', 0xeb, rel8('print_character'));
  a.label('bang_printed');
  a.op('mov esi, ebx', 0x89, 0xde);
  a.op('mov edi, new_line', 0xbf, abs32('new_line'));
  a.op('jmp print_hex', 0xeb, rel8('print_hex'));
  a.label('new_line');
  a.op('mov ah, 10', 0xb4, 10);
  a.op('mov edi, wait_timer', 0xbf, abs32('wait_timer'));
  a.op('jmp print_character', 0xeb, rel8('print_character'));

  a.label('wait_timer');
  a.op('xor eax, eax', 0x31, 0xc0); // the interrupt frame's flags are the same in every pass
  a.op('sti', 0xfb);
  a.op('hlt', 0xf4);
  a.op('cli', 0xfa);
  a.op('jmp pass', 0xe9, rel32('pass'));
}
