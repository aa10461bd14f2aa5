#include "dataplane/handoff/handoff.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace migrx {
namespace {

Slice slice_of(std::vector<std::byte>& buffer) {
  return {buffer.data(), &buffer, static_cast<uint32_t>(buffer.size()), StreamEnd::none};
}

TEST(Handoff, slices_are_seen_after_publish_and_come_home_after_release) {
  Handoff handoff(8);
  std::vector<std::byte> a(10), b(20);
  EXPECT_EQ(handoff.writable(), 7U);
  handoff.push(slice_of(a));
  handoff.push(slice_of(b));
  EXPECT_TRUE(handoff.readable().empty());
  handoff.publish();
  ASSERT_EQ(handoff.readable().size(), 2U);
  handoff.advance(1);
  ASSERT_EQ(handoff.readable().size(), 1U);
  EXPECT_EQ(handoff.readable()[0].length, 20U);

  void* home[8];
  uint32_t count = 0;
  EXPECT_EQ(handoff.reclaim(home, count), 0U);  // advanced is not released
  handoff.release(1);
  EXPECT_EQ(handoff.reclaim(home, count), 1U);
  ASSERT_EQ(count, 1U);
  EXPECT_EQ(home[0], &a);
  EXPECT_EQ(handoff.held(), 1U);
}

TEST(Handoff, the_end_marker_fits_into_a_full_ring) {
  Handoff handoff(4);
  std::vector<std::byte> a(1);
  while (handoff.writable() > 0) handoff.push(slice_of(a));
  handoff.push_end(StreamEnd::fin);
  handoff.publish();
  uint32_t seen = 0;
  StreamEnd end = StreamEnd::none;
  for (auto run = handoff.readable(); !run.empty(); run = handoff.readable()) {
    seen += static_cast<uint32_t>(run.size());
    end = run.back().end;
    handoff.advance(static_cast<uint32_t>(run.size()));
  }
  EXPECT_EQ(seen, 4U);
  EXPECT_EQ(end, StreamEnd::fin);
}

TEST(Handoff, detach_gives_back_what_was_never_read) {
  Handoff handoff(8);
  std::vector<std::byte> a(1), b(1);
  handoff.push(slice_of(a));
  handoff.push(slice_of(b));
  handoff.publish();
  handoff.detach();
  void* home[8];
  uint32_t count = 0;
  EXPECT_EQ(handoff.reclaim(home, count), 2U);
  EXPECT_EQ(count, 2U);
  EXPECT_EQ(handoff.held(), 0U);
}

// Under TSan this shows the pairings named in the header: bytes are written before publish and read after
// readable(), read before release and overwritten after reclaim.
TEST(Handoff, two_threads_reuse_the_same_buffers) {
  Handoff handoff(16);
  constexpr uint32_t kBuffers = 8;
  constexpr uint64_t kSlices = 50'000;
  struct Buffer {
    std::byte bytes[64];
  };
  std::vector<Buffer> pool(kBuffers);
  std::vector<void*> free_buffers;
  for (Buffer& buffer : pool) free_buffers.push_back(&buffer);
  std::thread poll_core([&] {
    for (uint64_t i = 0; i < kSlices;) {
      void* home[4];
      uint32_t count = 0;
      handoff.reclaim(home, count);
      for (uint32_t k = 0; k < count; ++k) free_buffers.push_back(home[k]);
      if (free_buffers.empty() || handoff.writable() == 0) {
        std::this_thread::yield();
        continue;
      }
      auto* const buffer = static_cast<Buffer*>(free_buffers.back());
      free_buffers.pop_back();
      store_be64(buffer->bytes, i++);
      handoff.push({buffer->bytes, buffer, 8, StreamEnd::none});
      handoff.publish();
    }
    handoff.push_end(StreamEnd::fin);
    handoff.publish();
  });
  uint64_t expected = 0;
  for (bool ended = false; !ended;) {
    const auto run = handoff.readable();
    if (run.empty()) std::this_thread::yield();
    for (const Slice& slice : run) {
      if (slice.end == StreamEnd::none)
        ASSERT_EQ(load_be64(slice.data), expected++);
      else
        ended = true;
    }
    handoff.advance(static_cast<uint32_t>(run.size()));
    handoff.release(static_cast<uint32_t>(run.size()));
  }
  poll_core.join();
  EXPECT_EQ(expected, kSlices);
}

}  // namespace
}  // namespace migrx
