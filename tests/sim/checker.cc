#include "tests/sim/checker.h"

#include <cstring>

#include "tests/sim/allocation_counter.h"

namespace migrx::sim {

void EpochChecker::on_epoch_closed(Epoch epoch) noexcept {
  const uint64_t k = epoch.number();
  const AllocationsNotCounted ours;
  if (k != epochs_)
    complain("epoch " + std::to_string(k) + " closed where " + std::to_string(epochs_) + " was next");
  ++epochs_;
  if (k >= source_.epochs().size()) {
    complain("epoch " + std::to_string(k) + " closed, which the source never began");
    return next().on_epoch_closed(epoch);
  }
  for (const SentPage& page : source_.epochs()[k]) {
    const std::size_t at = std::size_t{page.page} * kPageBytes;
    std::byte* const known = reference_[page.block].data() + at;
    std::memcpy(known, page.content.data(), kPageBytes);
    known_[page.block][page.page] = true;
    if (page.or_this.empty()) continue;
    // Both copies may have been written at the same time: any mixture will do, a later epoch repairs it.
    const RamBlock* const ram = blocks_.find(source_.blocks()[page.block].idstr);
    if (ram == nullptr) continue;
    for (std::size_t i = 0; i < kPageBytes; ++i)
      if (ram->host()[at + i] == page.or_this[i]) known[i] = page.or_this[i];
  }
  for (std::size_t b = 0; b < reference_.size(); ++b) {
    const RamBlock* const ram = blocks_.find(source_.blocks()[b].idstr);
    if (ram == nullptr) {
      complain("block " + source_.blocks()[b].idstr + " is missing at epoch " + std::to_string(k));
      continue;
    }
    for (std::size_t page = 0; page < known_[b].size(); ++page) {
      const std::size_t at = page * kPageBytes;
      if (!known_[b][page] || std::memcmp(ram->host() + at, reference_[b].data() + at, kPageBytes) == 0)
        continue;
      complain("page " + std::to_string(page) + " of " + source_.blocks()[b].idstr + " differs when epoch " +
               std::to_string(k) + " of " + std::to_string(source_.epochs().size()) + " closes");
      break;
    }
  }
  next().on_epoch_closed(epoch);
}

}  // namespace migrx::sim
