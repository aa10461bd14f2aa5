// The busy guest of machines other than the PC: no firmware, no MMU, no interrupts. The rig compiles it to a
// few hundred bytes of position-independent code without any other section and lets QEMU put them into RAM.
// Macros:
//   UART                            address of its data register, which takes bytes at any time
//   FILL_START FILL_END             range filled once at start, as addresses
//   DIRTY_START DIRTY_END           range written over and over, as addresses
//   PAGES_PER_TICK TICKS_PER_LINE   pages written per tick (1/100 s), ticks between two lines on the console
// It checks itself as busy.S does: pass g stores g at byte 8 of each page and expects to find g - 1 there.
typedef unsigned long word;
typedef unsigned int half;

#define ALWAYS static inline __attribute__((always_inline))
#define PAGE 4096UL

#if defined(__aarch64__)
ALWAYS word now(void) {
  word ticks;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
}
ALWAYS word tick_length(void) {
  word hertz;
  __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hertz));
  return hertz / 100;
}
#elif defined(__riscv)
ALWAYS word now(void) {
  word ticks;
  __asm__ volatile("rdtime %0" : "=r"(ticks));
  return ticks;
}
ALWAYS word tick_length(void) {
  return 10000000 / 100;
}  // of QEMU's virt machine
#endif

ALWAYS void put(word letter) {
  *(volatile unsigned char*)UART = (unsigned char)letter;
}
ALWAYS void put_hex(half value) {
  for (int shift = 28; shift >= 0; shift -= 4) {
    const half digit = (value >> shift) & 15;
    put(digit < 10 ? '0' + digit : 'a' + digit - 10);
  }
}

ALWAYS void fill(void) {
  for (word page = FILL_START; page < FILL_END; page += PAGE) {
    if (((page >> 12) & 3) == 0) continue;  // stays zero
    word value = page * 0x9e3779b1UL | 1;
    for (word at = page; at < page + PAGE; at += 8) {
      value ^= value << 13;
      value ^= value >> 7;
      value ^= value << 17;
      *(volatile word*)at = value;
    }
  }
}

__attribute__((used, noinline)) static void run(void);

// The stack ends where the filled range begins. This comes first in the code.
__attribute__((naked)) void _start(void) {
#if defined(__aarch64__)
  __asm__("mov x0, %0\n mov sp, x0\n b run" ::"i"(FILL_START));
#elif defined(__riscv)
  __asm__("li sp, %0\n j run" ::"i"(FILL_START));
#endif
}

static void run(void) {
  half pass = 1, bad = 0, lines = 0;
  word cursor = DIRTY_START, next = 0;
  fill();
  // A string would be data, of which there is none.
  put('f');
  put('i');
  put('l');
  put('l');
  put('e');
  put('d');
  put('\n');
  next = now();
  for (half ticks = TICKS_PER_LINE;;) {
    while ((long)(now() - next) < 0) {
    }
    next += tick_length();
    for (int i = 0; i < PAGES_PER_TICK; ++i) {
      volatile half* const stamp = (volatile half*)(cursor + 8);
      if (pass > 1 && *stamp != pass - 1) ++bad;
      *stamp = pass;
      *(volatile half*)(cursor + 16 + pass % 250 * 16) = pass;
      cursor += PAGE;
      if (cursor >= DIRTY_END) {
        cursor = DIRTY_START;
        ++pass;
      }
    }
    if (--ticks != 0) continue;
    ticks = TICKS_PER_LINE;
    put('c');
    put('o');
    put('u');
    put('n');
    put('t');
    put(' ');
    put_hex(++lines);
    put(' ');
    put('p');
    put('a');
    put('s');
    put('s');
    put(' ');
    put_hex(pass);
    put(' ');
    put('b');
    put('a');
    put('d');
    put(' ');
    put_hex(bad);
    put('\n');
  }
}
