#include "loader/app/serve/budget.h"

#include <fmt/format.h>

#include <utility>

namespace migrx {
namespace {

constexpr uint64_t kMiB = 1 << 20;

bool fits(uint64_t whole, uint64_t promised, uint64_t asked) {
  return asked <= whole && promised <= whole - asked;
}

}  // namespace

std::string no_room(const Budget& whole, const Budget& promised, const Budget& asked) {
  if (!fits(whole.sessions, promised.sessions, asked.sessions))
    return fmt::format(
        "{} of {} migrations are under way: wait for one to end, or start the daemon with a "
        "larger --sessions-max",
        promised.sessions, whole.sessions);
  if (!fits(whole.places, promised.places, asked.places))
    return fmt::format(
        "{} of {} connections are promised to other migrations, and this one may need {}: wait "
        "for one to end, give it fewer --multifd-channels, or start the daemon with a larger "
        "--connections-max",
        promised.places, whole.places, asked.places);
  if (!fits(whole.private_ram_bytes, promised.private_ram_bytes, asked.private_ram_bytes))
    return fmt::format(
        "{} of {} MiB for blocks without a file are promised to other migrations, and this one "
        "may take {}: give it a smaller --private-ram-max, or the daemon a larger "
        "--private-ram-total",
        promised.private_ram_bytes / kMiB, whole.private_ram_bytes / kMiB, asked.private_ram_bytes / kMiB);
  return {};
}

Room room_for(const Budget& whole, const Budget& promised, const Budget& asked, const WaitingLine& line,
              bool wait, std::string& why) {
  if (why.empty()) why = no_room(whole, promised, asked);
  if (why.empty() && line.for_room > 0)
    why = fmt::format("{} migrations wait for room already, and begin in the order they came", line.for_room);
  if (why.empty()) return Room::now;
  if (std::string never = no_room(whole, {}, asked); !never.empty()) {
    why = std::move(never);
    return Room::none;
  }
  if (!wait) {
    why += "; or let it wait its turn (wait, or --wait)";
    return Room::none;
  }
  const bool user = line.of_this_user >= kWaitingOfUserMax;
  if (line.all < kWaitingMax && !user) return Room::later;
  why = fmt::format("{} migrations wait already{}: ask again when one has begun",
                    user ? line.of_this_user : line.all, user ? " for this user" : "");
  return Room::none;
}

}  // namespace migrx
