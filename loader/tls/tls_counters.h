// What became of the records of one connection, and of all.
#pragma once

#include <cstdint>

#include "dataplane/handoff/counter.h"

namespace migrx {

// Written by the channel's worker, read by anybody.
struct TlsCounters {
  Counter records;
  Counter straight_pages;  // opened straight into guest RAM; a record may hold several
  Counter key_updates;
};

// The same at one moment, of one channel or of several.
struct TlsRecords {
  uint64_t records = 0;
  uint64_t straight_pages = 0;
  uint64_t key_updates = 0;

  void add(const TlsCounters& of) noexcept {
    records += of.records.read();
    straight_pages += of.straight_pages.read();
    key_updates += of.key_updates.read();
  }
};

}  // namespace migrx
