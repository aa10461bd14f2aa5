// Stands between the main channel and whatever becomes of its events, and compares guest RAM with the
// source's whenever an epoch closes: the one moment at which all of it must be equal.
#pragma once

#include <string>
#include <vector>

#include "loader/main/main_events.h"
#include "loader/ram/ram_block.h"
#include "tests/sim/source.h"

namespace migrx::sim {

class EpochChecker : public MainEvents {
 public:
  EpochChecker(MainEvents& next, const Source& source, const RamBlockList& blocks)
      : next_(next), source_(source), blocks_(blocks) {
    // Before the first page nothing is known of the blocks' contents; afterwards these are the source's.
    for (const SourceBlock& block : source.blocks()) {
      reference_.emplace_back(block.image.size());
      known_.emplace_back(block.pages(), false);
    }
  }
  [[nodiscard]] uint64_t epochs() const { return epochs_; }
  [[nodiscard]] const std::string& difference() const { return difference_; }
  [[nodiscard]] bool header_read() const { return header_read_; }

  [[nodiscard]] bool writable() noexcept override { return next_.writable(); }
  StreamError on_header(uint32_t version) override {
    header_read_ = true;
    return next_.on_header(version);
  }
  StreamError on_configuration(const Configuration& configuration) override {
    return next_.on_configuration(configuration);
  }
  StreamError on_command(MigCommand command, Bytes payload) override {
    return next_.on_command(command, payload);
  }
  StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) override {
    return next_.on_ram_start(section, blocks);
  }
  void on_ram_section_begin(SectionType type, uint32_t id) noexcept override {
    next_.on_ram_section_begin(type, id);
  }
  void on_ram_section_end(SectionType type, uint32_t id, bool has_footer) noexcept override {
    next_.on_ram_section_end(type, id, has_footer);
  }
  void on_epoch_closed(uint64_t k) noexcept override;
  void on_ram_complete() noexcept override { next_.on_ram_complete(); }
  void on_other_section_begin(const SectionHeader& section) noexcept override {
    next_.on_other_section_begin(section);
  }
  [[nodiscard]] std::size_t on_verbatim(Bytes bytes) noexcept override { return next_.on_verbatim(bytes); }
  void on_other_section_end(const SectionHeader& section) noexcept override {
    next_.on_other_section_end(section);
  }
  [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override { return next_.on_tail(bytes); }

 private:
  void complain(std::string what) {
    if (difference_.empty()) difference_ = std::move(what);
  }

  MainEvents& next_;
  const Source& source_;
  const RamBlockList& blocks_;
  std::vector<std::vector<std::byte>> reference_;
  std::vector<std::vector<bool>> known_;
  uint64_t epochs_ = 0;
  bool header_read_ = false;
  std::string difference_;
};

}  // namespace migrx::sim
