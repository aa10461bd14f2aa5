// Runs inside the Linux test guest: keeps rewriting a buffer and checks, before each rewrite, that every page
// still holds what the previous pass left there. Prints one line per pass; a page lost or stale after a migration
// shows as BAD. usage: memcheck MEBIBYTES MILLISECONDS_BETWEEN_PASSES
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kPage = 4096, kWords = kPage / sizeof(uint64_t) };

// Any function of page, word and pass that does not repeat will do.
static uint64_t word_of(uint64_t page, uint64_t word, uint64_t pass) {
  uint64_t x = (page * kWords + word) * 0x9e3779b97f4a7c15u + pass * 0xbf58476d1ce4e5b9u;
  return x ^ x >> 29;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const uint64_t pages = strtoull(argv[1], NULL, 10) * (1 << 20) / kPage;
  const unsigned pause_us = (unsigned)strtoul(argv[2], NULL, 10) * 1000;
  uint64_t* const memory =
      mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return 1;
  uint64_t bad = 0;
  for (uint64_t pass = 1;; ++pass) {
    for (uint64_t page = 0; page < pages; ++page) {
      uint64_t* const words = memory + page * kWords;
      int wrong = 0;
      for (uint64_t word = 0; word < kWords; ++word) {
        wrong |= pass > 1 && words[word] != word_of(page, word, pass - 1);
        words[word] = word_of(page, word, pass);
      }
      bad += wrong != 0;
    }
    // The form of the busy guest's lines, so that one parser reads both.
    printf("count %08lx pass %08lx bad %08lx\n", (unsigned long)pass, (unsigned long)pass, (unsigned long)bad);
    fflush(stdout);
    usleep(pause_us);
  }
}
