#include "loader/app/serve/budget.h"

#include <fmt/format.h>

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

}  // namespace migrx
