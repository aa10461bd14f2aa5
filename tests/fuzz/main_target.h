// A main channel for fuzzing: small guarded blocks, events that take everything, no gtest.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loader/colo/secondary.h"
#include "loader/main/main_channel.h"
#include "tests/loader/guarded_memory.h"

namespace migrx::test {

class FuzzEvents final : public MainEvents {
 public:
  explicit FuzzEvents(RamBlockList& blocks) : blocks_(blocks) {}

  // No room now and then: parking is part of what is fuzzed.
  bool writable() noexcept override { return ++asked_ % 7 != 3; }
  StreamError on_header(uint32_t) override { return {}; }
  StreamError on_configuration(const Configuration&) override { return {}; }
  StreamError on_command(MigCommand, Bytes) override { return {}; }
  StreamError on_ram_start(const SectionHeader&, std::span<const BlockEntry> entries) override {
    uint64_t bytes = 0;
    for (const BlockEntry& entry : entries) {
      if (entry.used_length > kBytesMax - bytes) return make_error(ErrorClass::mismatch, 0, "", "too long");
      bytes += entry.used_length;
      memory_.push_back(std::make_unique<GuardedMemory>(entry.used_length));
      blocks_.add(std::make_unique<RamBlock>(entry.idstr, memory_.back()->data(), entry.used_length, false,
                                             true, kAnyNode));
    }
    return {};
  }
  void on_ram_section_begin(SectionType, uint32_t) noexcept override {}
  void on_ram_section_end(SectionType, uint32_t, bool) noexcept override {}
  void on_epoch_closed(Epoch) noexcept override {}
  void on_ram_complete() noexcept override {}
  void on_other_section_begin(const SectionHeader&) noexcept override {}
  std::size_t on_verbatim(Bytes bytes) noexcept override { return bytes.size() > 600 ? 600 : bytes.size(); }
  void on_other_section_end(const SectionHeader&) noexcept override {}
  StreamError on_postcopy() override {
    in_postcopy_ = true;
    return {};
  }
  // Whoever keeps a bitmap of the block would write there.
  StreamError on_postcopy_discard(std::string_view idstr, uint64_t first, uint64_t pages) override {
    const RamBlock* const block = blocks_.find(idstr);
    if (!in_postcopy_ || block == nullptr || pages == 0 || first >= block->pages() ||
        pages > block->pages() - first)
      std::abort();
    return {};
  }
  std::size_t on_tail(Bytes bytes) noexcept override {
    return in_postcopy_ && ++asked_ % 5 == 2 ? std::min<std::size_t>(bytes.size(), asked_ % 3) : bytes.size();
  }

 private:
  static constexpr uint64_t kBytesMax = 256 << 10;
  RamBlockList& blocks_;
  uint64_t asked_ = 0;
  bool in_postcopy_ = false;
  std::vector<std::unique_ptr<GuardedMemory>> memory_;
};

// What holds for every input; aborts if it does not.
inline void require(bool condition) {
  if (!condition) std::abort();
}

class FuzzChannel {
 public:
  explicit FuzzChannel(const MainSettings& settings)
      : settings_(settings),
        events_(blocks_),
        barrier_(settings.multifd_channels),
        compress_(1, 4, kernels()),
        secondary_(settings.x_colo ? std::make_unique<ColoSecondary>(events_, blocks_, kernels(),
                                                                     [] { return uint64_t{1} << 40; })
                                   : nullptr),
        channel_(settings_, secondary_ != nullptr ? static_cast<MainEvents&>(*secondary_) : events_, blocks_,
                 barrier_, compress_, kernels(), nullptr, secondary_.get()) {
    if (secondary_ != nullptr) require(secondary_->reserve().empty());
  }

  // Called behind every turn of the parser.
  std::function<void()> on_turn = [] {};

  // Feeds everything in pieces of `step` bytes. False: the channel failed.
  bool feed(Bytes stream, std::size_t step) {
    while (!stream.empty()) {
      Bytes piece = stream.first(std::min(step, stream.size()));
      stream = stream.subspan(piece.size());
      for (int turns = 0;; ++turns) {
        const uint64_t before = channel_.offset();
        const ParseResult result = channel_.parse(piece);
        on_turn();
        require(result.consumed <= piece.size());
        require(channel_.offset() - before == result.consumed || result.status == ParseStatus::failed);
        if (result.status == ParseStatus::failed) {
          const StreamError& error = channel_.error();
          require(static_cast<bool>(error) && error.field[0] != '\0' && error.offset <= channel_.offset());
          require(!error.message().empty());
          return false;
        }
        piece = piece.subspan(result.consumed);
        if (result.status == ParseStatus::need_more) {
          require(piece.empty());
          break;
        }
        // Whoever main waits for comes.
        compress_.helper(0).do_work();
        for (uint32_t i = 0; i < settings_.multifd_channels; ++i)
          barrier_.arrive(MultifdId{i}, channel_.epoch());
        if (channel_.file_position_wanted().has_value()) channel_.file_position_reached();
        require(turns < 100000);
      }
    }
    return true;
  }
  // Bytes behind a failover: the channel may park for ever.
  void feed_late(Bytes stream) {
    require(channel_.parse(stream).consumed <= stream.size());
    on_turn();
  }
  [[nodiscard]] ColoSecondary* colo() { return secondary_.get(); }
  [[nodiscard]] const RamBlockList& blocks() const { return blocks_; }
  void end() { static_cast<void>(channel_.end_of_stream()); }

 private:
  static const PageKernels& kernels() { return *supported_page_kernels().front(); }

  const MainSettings settings_;
  RamBlockList blocks_;
  FuzzEvents events_;
  FlushBarrier barrier_;
  CompressJobs compress_;
  std::unique_ptr<ColoSecondary> secondary_;  // with the capability x-colo
  MainChannel channel_;
};

}  // namespace migrx::test
