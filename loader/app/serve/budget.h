// What a daemon may promise to migrations, what it has promised, and who has to wait. Pure.
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

// Migrations that wait, each with the descriptors that came with its request.
inline constexpr uint32_t kWaitingMax = 128;
inline constexpr uint32_t kWaitingOfUserMax = 16;  // of one user who is not root
struct WaitingLine {
  uint32_t all = 0;
  uint32_t for_room = 0;      // the others wait for a port
  uint32_t of_this_user = 0;  // 0 for root
};

enum class Room : uint8_t { now, later, none };
// wait: who asks would rather wait than be refused. Nobody overtakes those who wait for room: a large
// migration would never find room beside small ones. why: before, what else it has to wait for (its port;
// empty: nothing); afterwards, what there is no room for (empty: now).
[[nodiscard]] Room room_for(const Budget& whole, const Budget& promised, const Budget& asked,
                            const WaitingLine& line, bool wait, std::string& why);

}  // namespace migrx
