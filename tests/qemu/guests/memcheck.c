// Runs inside the Linux test guest: keeps rewriting a buffer and checks, before each rewrite, that every page
// still holds what the previous pass left there, and that a second buffer holds what it was filled with at
// the start. Prints one line per pass; a page lost or stale after a migration shows as bad. usage: memcheck
// MEBIBYTES_REWRITTEN MEBIBYTES_KEPT MILLISECONDS_BETWEEN_PASSES
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kPage = 4096, kWords = kPage / sizeof(uint64_t) };

// Any function of page, word and pass that does not repeat will do. Of an odd page only every 32nd word
// changes from pass to pass, so that xbzrle finds something to send as a difference.
static uint64_t word_of(uint64_t page, uint64_t word, uint64_t pass) {
  if (page % 2 == 1 && word % 32 != 0) pass = 0;
  uint64_t x = (page * kWords + word) * 0x9e3779b97f4a7c15u + pass * 0xbf58476d1ce4e5b9u;
  return x ^ x >> 29;
}

static uint64_t* map_pages(const char* mebibytes, uint64_t* pages) {
  *pages = strtoull(mebibytes, NULL, 10) * (1 << 20) / kPage;
  void* const memory = mmap(NULL, *pages * kPage + kPage, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) exit(1);
  return memory;
}

static int differs(const uint64_t* words, uint64_t page, uint64_t pass) {
  int wrong = 0;
  for (uint64_t word = 0; word < kWords; ++word) wrong |= words[word] != word_of(page, word, pass);
  return wrong;
}

static void write_page(uint64_t* words, uint64_t page, uint64_t pass) {
  for (uint64_t word = 0; word < kWords; ++word) words[word] = word_of(page, word, pass);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  uint64_t pages = 0, kept_pages = 0, bad = 0;
  uint64_t* const memory = map_pages(argv[1], &pages);
  uint64_t* const kept = map_pages(argv[2], &kept_pages);
  const unsigned pause_us = (unsigned)strtoul(argv[3], NULL, 10) * 1000;
  for (uint64_t page = 0; page < kept_pages; ++page) write_page(kept + page * kWords, page, 0);
  for (uint64_t pass = 1;; ++pass) {
    for (uint64_t page = 0; page < pages; ++page) {
      bad += pass > 1 && differs(memory + page * kWords, page, pass - 1);
      write_page(memory + page * kWords, page, pass);
    }
    for (uint64_t page = 0; page < kept_pages; ++page) bad += differs(kept + page * kWords, page, 0) != 0;
    // The form of the busy guest's lines, so that one parser reads both.
    printf("count %08lx pass %08lx bad %08lx\n", (unsigned long)pass, (unsigned long)pass,
           (unsigned long)bad);
    fflush(stdout);
    usleep(pause_us);
  }
}
