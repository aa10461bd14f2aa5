// Where main waits for the multifd channels, for each family of sources (FlushMode), and what it holds back
// there.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

using test::MainRig;
using test::MainStreamBuilder;
using test::make_page;
using B = MainStreamBuilder;

constexpr uint32_t kChannels = 3;

// What a source writes on main, in short: S START, P PART, E END, each with its EOS; f a MULTIFD_FLUSH before
// it; z a zero record.
B write(const std::string& script) {
  B b;
  b.header().configuration();
  std::string records;
  for (const char c : script) {
    if (c == 'f' || c == 'z') {
      records += c;
      continue;
    }
    if (c == 'S') b.ram_start({{"ram", 4 * kPageBytes, {}}});
    if (c == 'P') b.ram_part();
    if (c == 'E') b.ram_end();
    for (const char r : records) {
      if (r == 'f') b.multifd_flush();
      if (r == 'z') b.zero("ram", 0);
    }
    records.clear();
    b.ram_close();
  }
  return b.device_tail(), b;
}

// Feeds everything; each time main parks, all channels arrive. Returns the number of markers met.
uint64_t markers_of(MainRig& rig, const B& b, std::size_t step = SIZE_MAX) {
  Bytes left(b.bytes());
  uint64_t met = 0;
  for (;;) {
    const ParseResult result = rig.channel.parse(left.first(std::min(left.size(), step)));
    left = left.subspan(result.consumed);
    if (result.status == ParseStatus::failed) {
      ADD_FAILURE() << rig.channel.error().message();
      return met;
    }
    if (result.status == ParseStatus::parked) {
      EXPECT_FALSE(rig.channel.ready());
      EXPECT_FALSE(rig.barrier.released(Epoch{met})) << "channels wait until main has met its marker";
      for (uint32_t i = 0; i < kChannels; ++i) {
        EXPECT_FALSE(rig.channel.ready()) << "channel " << i << " is still missing";
        rig.barrier.arrive(MultifdId{i}, Epoch{met});
      }
      EXPECT_TRUE(rig.channel.ready());
      ++met;
    } else if (left.empty()) {
      return met;
    }
  }
}

struct Family {
  const char* source;
  const char* script;
  uint64_t markers;
  FlushMode mode;
};

constexpr Family kFamilies[] = {
    {"7.2 and 8.0: each EOS", "SPPPE", 5, FlushMode::section},
    {"7.2: empty PARTs, zero pages", "SPzPzzPE", 5, FlushMode::section},
    {"8.1 and later with a machine type up to 8.0", "SPE", 3, FlushMode::section},
    {"8.1 to 9.0: END has one more FLUSH", "fSPfPPffE", 4, FlushMode::round},
    {"8.1 to 9.0: two wraps in one PART", "fSzfzfPzE", 3, FlushMode::round},
    {"9.1 and 9.2: END without FLUSH", "fSPfPPE", 2, FlushMode::round},
    {"10.0", "fSPfPPfE", 3, FlushMode::round},
    {"10.0, no wrap before END", "fSE", 1, FlushMode::round},
};

TEST(Markers, each_family_of_sources_waits_where_it_wrote_its_syncs) {
  for (const Family& family : kFamilies) {
    for (const std::size_t step : {SIZE_MAX, std::size_t{1}}) {
      MainRig rig({.multifd_channels = kChannels});
      EXPECT_EQ(family.markers, markers_of(rig, write(family.script), step)) << family.source;
      EXPECT_EQ(family.mode, rig.channel.flush_mode()) << family.source;
      EXPECT_EQ(Epoch{family.markers}, rig.channel.epoch());
      EXPECT_EQ("ram complete", rig.events.log.back());
      EXPECT_FALSE(rig.events.tail.empty());
      // 9.1 and 9.2: a SYNC that has no marker any more passes.
      EXPECT_TRUE(rig.barrier.released(Epoch{family.markers})) << family.source;
      EXPECT_TRUE(rig.barrier.released(Epoch{family.markers + 100})) << family.source;
    }
  }
}

// A damaged packet taken for the last SYNC: pages of it are still to come while the guest may run.
TEST(Markers, the_end_of_ram_with_a_channel_inside_a_packet_is_refused) {
  MainRig rig({.multifd_channels = kChannels, .multifd_flush_after_each_section = FlushMode::section});
  const B b = write("SE");
  for (uint32_t i = 0; i < kChannels; ++i)
    for (uint64_t k = 0; k < 2; ++k) rig.barrier.arrive(MultifdId{i}, Epoch{k});
  ASSERT_TRUE(rig.barrier.begin_pages(MultifdId{1}));
  EXPECT_EQ(rig.channel.parse(Bytes{b.bytes()}).status, ParseStatus::failed);
  EXPECT_NE(rig.channel.error().message().find("multifd channel 1 has pages after its last SYNC"),
            std::string::npos)
      << rig.channel.error().message();
}

// 8.1.0 and 8.1.1 write FLUSH without multifd too.
TEST(Markers, without_multifd_nobody_waits_and_each_eos_closes_an_epoch) {
  for (const Family& family : kFamilies) {
    MainRig rig;
    ASSERT_EQ(ParseStatus::need_more, rig.feed(write(family.script).bytes())) << family.source;
    const auto sections = static_cast<uint64_t>(
        std::count_if(family.script, family.script + strlen(family.script), [](char c) { return c < 'a'; }));
    EXPECT_EQ(Epoch{sections}, rig.channel.epoch());
  }
}

TEST(Markers, the_setting_overrides_what_start_shows) {
  {
    MainRig rig({.multifd_channels = kChannels, .multifd_flush_after_each_section = FlushMode::round});
    EXPECT_EQ(1u, markers_of(rig, write("SPfPE")));
  }
  // QEMU waits at both when it has been told to wait after each section.
  MainRig rig({.multifd_channels = kChannels, .multifd_flush_after_each_section = FlushMode::section});
  EXPECT_EQ(4u, markers_of(rig, write("fSPE")));
}

TEST(Markers, a_flush_that_contradicts_start_is_an_error_that_names_the_property) {
  MainRig rig({.multifd_channels = kChannels});
  for (uint32_t i = 0; i < kChannels; ++i) rig.barrier.arrive(MultifdId{i}, Epoch{5});
  EXPECT_EQ(ParseStatus::failed, rig.feed(write("SPfPE").bytes()));
  EXPECT_EQ(ErrorClass::bad_stream, rig.channel.error().error_class);
  EXPECT_NE(std::string::npos, rig.channel.error().message().find("multifd-flush-after-each-section"));
}

// B1: nothing of epoch k+1 is applied, and nothing behind the marker is even read, before all have arrived.
TEST(Markers, main_applies_nothing_behind_a_marker_before_all_have_arrived) {
  B b;
  b.header().configuration().ram_start({{"ram", 4 * kPageBytes, {}}}).multifd_flush().ram_close();
  b.ram_part().page("ram", 0, make_page(1)).multifd_flush();
  const std::size_t marker = b.size();
  b.page("ram", 0, make_page(2)).ram_close();
  MainRig rig({.multifd_channels = 2});
  rig.barrier.arrive(MultifdId{0}, Epoch{0});
  rig.barrier.arrive(MultifdId{1}, Epoch{0});
  ParseResult result = rig.channel.parse(b.bytes());
  ASSERT_EQ(ParseStatus::parked, result.status);
  EXPECT_EQ(marker, result.consumed);
  EXPECT_EQ(make_page(1), rig.page_at("ram", 0));
  EXPECT_TRUE(rig.barrier.released(Epoch{0}));
  EXPECT_FALSE(rig.barrier.released(Epoch{1}));
  EXPECT_EQ(ParseStatus::parked, rig.channel.parse({}).status);
  rig.barrier.arrive(MultifdId{1}, Epoch{1});
  EXPECT_EQ(ParseStatus::parked, rig.channel.parse({}).status);
  rig.barrier.arrive(MultifdId{0}, Epoch{1});
  // No byte need come for the others to be released.
  EXPECT_EQ(ParseStatus::need_more, rig.channel.parse({}).status);
  EXPECT_TRUE(rig.barrier.released(Epoch{1}));
  EXPECT_EQ(ParseStatus::need_more, rig.feed(Bytes(b.bytes()).subspan(marker)));
  EXPECT_EQ(make_page(2), rig.page_at("ram", 0));
}

// on_epoch_closed sees a quiet moment: all have arrived, nobody has been released.
TEST(Markers, an_epoch_is_told_before_anybody_is_released) {
  MainRig rig({.multifd_channels = kChannels});
  uint64_t told = 0;
  rig.events.at_epoch = [&](uint64_t k) {
    EXPECT_EQ(told, k);
    EXPECT_TRUE(rig.barrier.all_arrived(Epoch{k}));
    EXPECT_FALSE(rig.barrier.released(Epoch{k}));
    ++told;
  };
  markers_of(rig, write("fSPfPfE"));
  EXPECT_EQ(3u, told);
}

// Channels on threads write their number of the epoch into a cell of their own; main's callback finds all
// cells in the same epoch, every time.
TEST(Markers, threads_and_main_agree_on_every_epoch) {
  constexpr uint64_t kEpochs = 300;
  std::string script = "fS";
  for (uint64_t k = 1; k < kEpochs; ++k) script += k % 3 == 0 ? "fP" : k % 3 == 1 ? "PfP" : "zfP";
  script += "E";
  const B b = write(script);
  MainRig rig({.multifd_channels = kChannels});
  std::array<uint64_t, kChannels> cells{};  // plain: the barrier alone orders them
  rig.events.at_epoch = [&](uint64_t k) {
    for (const uint64_t cell : cells) EXPECT_EQ(k + 1, cell);
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kChannels; ++i) {
    threads.emplace_back([&, i] {
      for (uint64_t k = 0; k < kEpochs; ++k) {
        cells[i] = k + 1;
        rig.barrier.arrive(MultifdId{i}, Epoch{k});
        while (!rig.barrier.released(Epoch{k})) std::this_thread::yield();
      }
    });
  }
  Bytes left(b.bytes());
  while (!left.empty()) {
    const ParseResult result = rig.channel.parse(left);
    left = left.subspan(result.consumed);
    if (result.status == ParseStatus::failed) break;
    while (!rig.channel.ready()) std::this_thread::yield();
  }
  EXPECT_FALSE(rig.barrier.release_all());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Epoch{kEpochs}, rig.channel.epoch());
  EXPECT_FALSE(rig.channel.error()) << rig.channel.error().message();
}

}  // namespace
}  // namespace migrx
