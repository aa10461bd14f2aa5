// A zlib bomb in one multifd channel beside an honest one, with the real decoders, on one worker.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <random>
#include <vector>

#include "loader/multifd/multifd_channel.h"
#include "loader/session/loader_worker.h"
#include "tests/loader/guarded_memory.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx {
namespace {

using test::GuardedMemory;
using test::MultifdMethod;
using test::MultifdStreamBuilder;

constexpr uint32_t kPagesPerPacket = 128;
constexpr std::size_t kSegment = 1448;
constexpr uint32_t kTurns = 64;

std::vector<uint64_t> offsets_of_a_packet() {
  std::vector<uint64_t> offsets;
  for (uint64_t page = 0; page < kPagesPerPacket; ++page) offsets.push_back(page * kPageBytes);
  return offsets;
}
// Pages that do not compress: 526 KB for each packet.
std::vector<std::byte> honest_stream(uint8_t id) {
  std::mt19937 random(id);
  std::vector<uint32_t> noise(kPagesPerPacket * kPageBytes / sizeof(uint32_t));
  for (uint32_t& word : noise) word = static_cast<uint32_t>(random());
  const std::byte* const pages = reinterpret_cast<const std::byte*>(noise.data());
  MultifdStreamBuilder b(MultifdMethod::zlib);
  b.init(id);
  b.sync(0);
  for (uint64_t packet = 1; b.bytes.size() < kTurns * LoaderWorker::kSlicesPerTurn * kSegment; ++packet)
    b.pages(packet, "mem", offsets_of_a_packet(), [&](uint64_t offset) { return pages + offset; });
  return std::move(b.bytes);
}
// Pages of zeros that a source sends as if they were none: two kilobytes for each packet of 512 KiB.
std::vector<std::byte> bomb_stream(uint8_t id) {
  const std::vector<std::byte> zeros(kPageBytes);
  MultifdStreamBuilder b(MultifdMethod::zlib, 9);
  b.init(id);
  b.sync(0);
  for (uint64_t packet = 1; packet <= 200; ++packet)
    b.pages(packet, "mem", offsets_of_a_packet(), [&](uint64_t) { return zeros.data(); });
  return std::move(b.bytes);
}

// Two channels of one worker, each with its connection.
class TwoChannels final : private ChannelDirectory {
 public:
  TwoChannels(const std::vector<std::byte>& first, const std::vector<std::byte>& second)
      : streams_{&first, &second} {
    blocks_.add(std::make_unique<RamBlock>("mem", memory_.data(), kPagesPerPacket * kPageBytes, true, true,
                                           kAnyNode));
    barrier_.release(Epoch{0});
    for (Channel& channel : channels_) EXPECT_TRUE(worker_.attach(channel));
  }
  // Bytes that each channel's parser took, and those it wrote beyond them, in kTurns turns that had enough.
  void run() {
    uint64_t now_ns = 0;
    for (uint32_t turn = 0; turn < kTurns; ++turn) {
      for (std::size_t i = 0; i < 2; ++i) fill(i);
      worker_.do_work(now_ns += LoaderWorker::kGatherNs);
    }
    EXPECT_TRUE(errors_.empty()) << errors_.front().message();
  }
  [[nodiscard]] uint64_t taken(std::size_t i) const { return parsers_[i].offset(); }
  [[nodiscard]] uint64_t written_beyond(std::size_t i) const { return parsers_[i].expanded_bytes(); }
  [[nodiscard]] uint64_t pages(std::size_t i) const { return parsers_[i].counters().normal_pages.read(); }

 private:
  Introduction identify(Bytes, Handoff& connection, uint32_t) noexcept override {
    return Introduction::as(parsers_[&connection == &handoffs_[1] ? 1 : 0]);
  }
  void channel_failed(const StreamError& error) noexcept override { errors_.push_back(error); }
  [[nodiscard]] bool over() const noexcept override { return false; }
  void fill(std::size_t i) {
    std::array<void*, 64> buffers;
    uint32_t count = 0;
    while (handoffs_[i].reclaim(buffers, count) > 0) continue;
    for (; handoffs_[i].writable() > 0 && given_[i] < streams_[i]->size(); given_[i] += kSegment)
      handoffs_[i].push({streams_[i]->data() + given_[i], nullptr,
                         static_cast<uint32_t>(std::min(kSegment, streams_[i]->size() - given_[i])),
                         StreamEnd::none});
    handoffs_[i].publish();
  }
  [[nodiscard]] MultifdSession session() {
    MultifdSession session;
    session.barrier = &barrier_;
    session.blocks = &blocks_;
    session.kernels = supported_page_kernels().back();
    session.compression = MultifdCompression::zlib;
    return session;
  }

  GuardedMemory memory_{kPagesPerPacket * kPageBytes};
  RamBlockList blocks_;
  FlushBarrier barrier_{2};
  std::array<const std::vector<std::byte>*, 2> streams_;
  std::array<std::size_t, 2> given_{};
  std::array<MultifdChannel, 2> parsers_{MultifdChannel{session()}, MultifdChannel{session()}};
  std::array<Handoff, 2> handoffs_{Handoff{256}, Handoff{256}};
  std::array<Channel, 2> channels_{Channel{handoffs_[0], *this, 0}, Channel{handoffs_[1], *this, 0}};
  LoaderWorker worker_{2};
  std::vector<StreamError> errors_;
};

// Its bytes per turn, and a turn must not become longer: neither in bytes taken nor in bytes written.
TEST(Bomb, of_zlib_leaves_an_honest_channel_its_part_of_a_worker) {
  const std::vector<std::byte> honest = honest_stream(0);
  const std::vector<std::byte> like = honest_stream(1);
  const std::vector<std::byte> bomb = bomb_stream(1);
  TwoChannels twins(honest, like);
  twins.run();
  TwoChannels beside(honest, bomb);
  beside.run();
  EXPECT_GE(static_cast<double>(beside.taken(0)), 0.8 * static_cast<double>(twins.taken(0)));
  EXPECT_GT(beside.pages(1), kPagesPerPacket) << "the bomb stood still";
  EXPECT_GT(beside.written_beyond(1), 100 * beside.taken(1)) << "no bomb";
  const auto part = [](const TwoChannels& of) {
    const double mine = static_cast<double>(of.taken(0) + of.written_beyond(0));
    return mine / (mine + static_cast<double>(of.taken(1) + of.written_beyond(1)));
  };
  EXPECT_NEAR(part(twins), 0.5, 0.01);
  EXPECT_GE(part(beside), 0.8 * part(twins));
  std::printf("of what a worker moves the honest channel has %.1f %%, beside its like %.1f %%\n",
              100 * part(beside), 100 * part(twins));
}

}  // namespace
}  // namespace migrx
