// What the machines below the main channel's grammar answer when they are run.
#pragma once

#include <cstdint>

namespace migrx {

enum class Step : uint8_t {
  need_more,  // everything fed was used up; run again with more
  parked,     // an event found no room; run again when MainEvents::writable() says so
  done,       // this machine has come to its end; bytes that follow belong to the next
  failed,     // the error is set
};

}  // namespace migrx
