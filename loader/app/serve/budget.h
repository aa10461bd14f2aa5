// What a daemon may promise to migrations, and what it has promised. Pure.
#pragma once

#include <cstdint>
#include <string>

namespace migrx {

struct Budget {
  uint32_t sessions = 0;
  uint64_t places = 0;             // connections, on each poll core; packet buffers are reserved for each
  uint64_t private_ram_bytes = 0;  // of blocks without a file
};

// Why what is asked for does not fit beside what is promised already, with the numbers. Empty: it fits.
[[nodiscard]] std::string no_room(const Budget& whole, const Budget& promised, const Budget& asked);

}  // namespace migrx
