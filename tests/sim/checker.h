// Stands between the main channel and whatever becomes of its events, and compares guest RAM with the
// source's whenever an epoch closes: the one moment at which all of it must be equal.
#pragma once

#include <string>
#include <vector>

#include "loader/main/forwarding_events.h"
#include "loader/ram/ram_block.h"
#include "tests/sim/source.h"

namespace migrx::sim {

class EpochChecker : public ForwardingEvents {
 public:
  EpochChecker(MainEvents& next, const Source& source, const RamBlockList& blocks)
      : ForwardingEvents(next), source_(source), blocks_(blocks) {
    // Before the first page nothing is known of the blocks' contents; afterwards these are the source's.
    for (const SourceBlock& block : source.blocks()) {
      reference_.emplace_back(block.image.size());
      known_.emplace_back(block.pages(), false);
    }
  }
  [[nodiscard]] uint64_t epochs() const { return epochs_; }
  [[nodiscard]] const std::string& difference() const { return difference_; }
  [[nodiscard]] bool header_read() const { return header_read_; }

  StreamError on_header(uint32_t version) override {
    header_read_ = true;
    return ForwardingEvents::on_header(version);
  }
  void on_epoch_closed(Epoch epoch) noexcept override;

 private:
  void complain(std::string what) {
    if (difference_.empty()) difference_ = std::move(what);
  }

  const Source& source_;
  const RamBlockList& blocks_;
  std::vector<std::vector<std::byte>> reference_;
  std::vector<std::vector<bool>> known_;
  uint64_t epochs_ = 0;
  bool header_read_ = false;
  std::string difference_;
};

}  // namespace migrx::sim
