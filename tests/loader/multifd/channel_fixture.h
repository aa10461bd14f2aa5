// A multifd channel with two small blocks between guard pages, and a barrier.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "loader/multifd/multifd_channel.h"
#include "tests/loader/guarded_memory.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx::test {

class ChannelFixture : public testing::Test {
 protected:
  static constexpr uint64_t kMemBytes = 64 * kPageBytes;
  static constexpr uint64_t kSmallBytes = 5 * kPageBytes;

  ChannelFixture() { reset(); }

  // Fresh blocks and barrier; no channel.
  void reset(NodeId node = kAnyNode, uint32_t channels = 2) {
    channel_.reset();
    blocks_ = std::make_unique<RamBlockList>();
    // The memory stays: a test of every split asks for it ten thousand times.
    for (const GuardedMemory* const memory : {&mem_, &small_}) std::memset(memory->data(), 0, memory->size());
    blocks_->add(std::make_unique<RamBlock>("mem", mem_.data(), kMemBytes, true, true, node));
    blocks_->add(std::make_unique<RamBlock>("small", small_.data(), kSmallBytes, false, true, kAnyNode));
    barrier_ = std::make_unique<FlushBarrier>(channels);
  }
  void make_channel(MultifdCompression compression = MultifdCompression::none,
                    const NodeRouter* router = nullptr) {
    MultifdSession session;
    session.barrier = barrier_.get();
    session.blocks = blocks_.get();
    session.kernels = supported_page_kernels().back();
    session.compression = compression;
    session.decoder_limits = limits_;
    channel_ = std::make_unique<MultifdChannel>(session, router);
  }

  MultifdChannel& channel() { return *channel_; }
  FlushBarrier& barrier() { return *barrier_; }
  RamBlock& block() { return (*blocks_)[0]; }
  RamBlock& block2() { return (*blocks_)[1]; }
  void release(uint64_t k) { barrier_->release(Epoch{k}); }
  DecoderLimits limits_;

  // Expects that all is used up, unless the channel fails.
  ParseStatus feed(Bytes piece) {
    const ParseResult result = channel_->parse(piece);
    if (result.status != ParseStatus::failed) {
      EXPECT_EQ(result.consumed, piece.size());
    }
    return result.status;
  }

  // Page contents: a function of offset and version, of middling compressibility.
  static std::vector<std::byte> content_of(uint64_t offset, uint32_t version) {
    std::mt19937 random(static_cast<uint32_t>(offset) * 31 + version);
    std::vector<std::byte> page(kPageBytes);
    const auto kind = random() % 4;
    for (std::size_t i = 0; i < page.size(); ++i)
      page[i] = static_cast<std::byte>(kind == 0   ? random()
                                       : kind == 1 ? random() % 5
                                       : kind == 2 ? i / 40
                                                   : version);
    page[0] = std::byte{1};
    return page;
  }
  // For MultifdStreamBuilder::pages().
  MultifdStreamBuilder::Page content(uint32_t version) {
    return [this, version](uint64_t offset) {
      std::vector<std::byte>& page = contents_[{offset, version}];
      if (page.empty()) page = content_of(offset, version);
      return page.data();
    };
  }
  bool page_is(uint64_t offset, uint32_t version) { return page_is(offset, version, block()); }
  bool page_is(uint64_t offset, uint32_t version, const RamBlock& of) {
    const std::byte* const want = content(version)(offset);
    return std::equal(want, want + kPageBytes, of.host() + offset);
  }
  bool page_is_zero(uint64_t offset) { return page_is_zero(offset, block()); }
  static bool page_is_zero(uint64_t offset, const RamBlock& of) {
    return std::all_of(of.host() + offset, of.host() + offset + kPageBytes,
                       [](std::byte b) { return b == std::byte{0}; });
  }
  std::vector<uint64_t> pages_written() {
    std::vector<uint64_t> pages;
    for (uint64_t i = 0; i < block().pages(); ++i)
      if (block().written().test(i)) pages.push_back(i);
    return pages;
  }
  static std::vector<uint64_t> shuffled_offsets(std::size_t pages, std::mt19937& random) {
    std::vector<uint64_t> offsets;
    for (std::size_t i = 0; i < pages; ++i) offsets.push_back(i * kPageBytes);
    std::shuffle(offsets.begin(), offsets.end(), random);
    return offsets;
  }

 private:
  GuardedMemory mem_{kMemBytes};
  GuardedMemory small_{kSmallBytes};
  std::unique_ptr<RamBlockList> blocks_;
  std::unique_ptr<FlushBarrier> barrier_;
  std::unique_ptr<MultifdChannel> channel_;
  std::map<std::pair<uint64_t, uint32_t>, std::vector<std::byte>> contents_;
};

}  // namespace migrx::test
