// The form of the stream that a destination QEMU gets.
#pragma once

#include <cstdint>

namespace migrx {

enum class HandoffForm : uint8_t {
  // All blocks are listed, and no record comes for those that lie in shared memory. QEMU's precopy loader
  // does
  // not count pages: what no record names stays as it is (QEMU migration/ram.c, ram_load_precopy). Nothing
  // has
  // to be set at the destination.
  plain,
  // The capability x-ignore-shared is on at the destination, and each block's address stands in the list. For
  // destinations that another program has prepared in that way.
  x_ignore_shared,
};

}  // namespace migrx
