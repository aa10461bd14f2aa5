#include "loader/app/colo_watch.h"

#include <fmt/format.h>

#include <fstream>
#include <string>

namespace migrx {

uint64_t available_memory_bytes() {
  std::ifstream in("/proc/meminfo");
  std::string name;
  uint64_t kib = 0;
  std::string unit;
  while (in >> name >> kib) {
    if (name == "MemAvailable:") return kib * 1024;
    std::getline(in, unit);
  }
  return 0;
}

void ColoWatch::look(const ColoSecondary& colo, Terminal& terminal) {
  if (!begun_ && colo.stage() > ColoSecondary::Stage::migrating) {
    begun_ = true;
    terminal.say(fmt::format("COLO: the initial migration is complete ({} MiB of cache); SIGUSR1 fails over",
                             colo.cache().bytes() >> 20));
  }
  if (!lost_ && colo.source_lost()) {
    lost_ = true;
    terminal.warn(
        fmt::format("COLO: the source is lost: {}. {} checkpoints are finished: SIGUSR1 fails over to the "
                    "last one (only once the source's guest has surely stopped), SIGTERM drops them",
                    colo.loss().message(), colo.checkpoints.read()));
  }
}

}  // namespace migrx
