#include "loader/app/postcopy_duty.h"

#include <system_error>

namespace migrx {

void PostcopyDuty::let_go() {
  refill_.stop();
  if (giving_up_.joinable()) giving_up_.join();
}

void PostcopyDuty::begin(uint64_t now_ns) {
  guest_.keep(/*unlink=*/false);
  begun_ns_ = now_ns;
}

void PostcopyDuty::look(uint64_t now_ns, Terminal& terminal) {
  if (begun_ns_ == 0) return;
  if (!told_) {
    told_ = true;
    terminal.say(
        "postcopy: the guest goes on at the destination, which fetches its last pages through migrx");
  }
  if (giving_up_.joinable() || now_ns - begun_ns_ < kAfterNs) return;
  try {
    giving_up_ = std::thread([this] { guest_.give_up(); });
  } catch (const std::system_error&) {
    guest_.give_up();  // a host without room for a thread: this one is held up instead
  }
}

}  // namespace migrx
