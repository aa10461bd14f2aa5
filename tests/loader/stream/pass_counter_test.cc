#include "loader/stream/pass_counter.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "loader/stream/round_count.h"

namespace migrx {
namespace {

constexpr uint64_t kPage = 4096;
const int kRam = 0;
const int kRom = 0;

TEST(PassCounter, a_page_below_the_last_one_of_its_block_begins_anew) {
  PassCounter passes;
  for (uint64_t page = 0; page < 100; ++page) passes.note(&kRam, page * kPage);
  EXPECT_EQ(passes.begun_anew(), 0U);
  for (const uint64_t page : {5U, 9U, 70U, 71U}) passes.note(&kRam, page * kPage);
  EXPECT_EQ(passes.begun_anew(), 1U);
  passes.note(&kRam, 71 * kPage);  // the same one again is no way back
  EXPECT_EQ(passes.begun_anew(), 1U);
  passes.note(&kRam, 0);
  EXPECT_EQ(passes.begun_anew(), 2U);
}

TEST(PassCounter, going_to_another_block_and_back_begins_nothing_anew) {
  PassCounter passes;
  for (uint64_t page = 0; page < 10; ++page) {
    passes.note(&kRam, page * kPage);
    passes.note(&kRom, page * kPage);
  }
  EXPECT_EQ(passes.begun_anew(), 0U);
  passes.note(&kRam, 0);
  passes.note(&kRom, 0);
  passes.note(&kRam, kPage);
  EXPECT_EQ(passes.begun_anew(), 1U);  // one pass over both
}

TEST(PassCounter, threads_of_the_source_that_overtake_each_other_begin_nothing_anew) {
  PassCounter passes;
  for (const uint64_t page : {0U, 2U, 1U, 3U, 6U, 5U, 4U, 7U}) passes.note(&kRam, page * kPage, 8 * kPage);
  EXPECT_EQ(passes.begun_anew(), 0U);
  for (uint64_t page = 8; page < 100; ++page) passes.note(&kRam, page * kPage, 8 * kPage);
  passes.note(&kRam, 50 * kPage, 8 * kPage);
  EXPECT_EQ(passes.begun_anew(), 1U);
}

// A stream may name as many blocks as it likes, and offsets at the end of the address space.
TEST(PassCounter, has_places_for_the_first_blocks_only) {
  PassCounter passes;
  const std::array<char, 2 * PassCounter::kBlocks> blocks{};
  for (const char& block : blocks) {
    passes.note(&block, ~uint64_t{0} - kPage);
    passes.note(&block, 0);
  }
  EXPECT_EQ(passes.begun_anew(), 1U);
}

// Each round's packet comes on another channel, as with rounds of few pages; some have none.
TEST(RoundCount, counts_each_epoch_that_brought_pages_once) {
  RoundCount rounds;
  EXPECT_EQ(rounds.count(), 0U);
  for (const uint64_t epoch : {1U, 1U, 2U, 2U, 4U, 4U, 4U, 9U}) rounds.note(Epoch{epoch});
  EXPECT_EQ(rounds.count(), 4U);
}

TEST(RoundCount, channels_on_several_threads_count_a_round_once) {
  RoundCount rounds;
  std::vector<std::thread> channels;
  for (int i = 0; i < 4; ++i)
    channels.emplace_back([&rounds] {
      for (uint64_t epoch = 1; epoch <= 10'000; ++epoch) rounds.note(Epoch{epoch});
    });
  for (std::thread& channel : channels) channel.join();
  EXPECT_LE(rounds.count(), 10'000U);  // a thread that is epochs behind the others sees that they are counted
  EXPECT_GE(rounds.count(), 2'500U);
}

}  // namespace
}  // namespace migrx
