#include "loader/main/main_channel.h"

#include <gtest/gtest.h>

#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

using test::MainRig;
using test::MainStreamBuilder;
using test::make_page;
using Log = std::vector<std::string>;
using Image = std::map<std::string, std::vector<std::byte>>;

// A whole precopy migration as QEMU 10.0 sends it, with each record kind that needs no capability, and what
// memory must hold afterwards.
struct Precopy {
  MainStreamBuilder stream;
  Image image;
  std::vector<std::byte> tail;

  void put(const std::string& block, uint64_t offset, std::span<const std::byte> page) {
    std::copy(page.begin(), page.end(), image[block].begin() + static_cast<std::ptrdiff_t>(offset));
  }

  explicit Precopy(bool footers = true, bool configuration = true) {
    image["pc.ram"].resize(8 * kPageBytes);
    image["0000:00:02.0/vga.vram"].resize(4 * kPageBytes);
    stream.footers = footers;
    stream.header();
    if (configuration) stream.configuration("pc-i440fx-10.0");
    stream.open_return_path().ping(1);
    stream.ram_start({{"pc.ram", 8 * kPageBytes, {}}, {"0000:00:02.0/vga.vram", 4 * kPageBytes, {}}})
        .ram_close();
    stream.ram_part();
    for (uint64_t i = 0; i < 6; ++i) {
      stream.page("pc.ram", i * kPageBytes, make_page(i));
      put("pc.ram", i * kPageBytes, make_page(i));
    }
    stream.zero("pc.ram", 6 * kPageBytes).zero("pc.ram", 7 * kPageBytes);
    stream.page("0000:00:02.0/vga.vram", 3 * kPageBytes, make_page(77));
    put("0000:00:02.0/vga.vram", 3 * kPageBytes, make_page(77));
    stream.ram_close();
    // An empty PART, then one whose first record continues the block of the section before.
    stream.ram_part().ram_close();
    stream.ram_part().page("0000:00:02.0/vga.vram", 0, make_page(78)).ram_close();
    put("0000:00:02.0/vga.vram", 0, make_page(78));
    stream.switchover_start();
    stream.ram_end();
    stream.zero("pc.ram", 2 * kPageBytes);  // a page that was written becomes zero
    put("pc.ram", 2 * kPageBytes, std::vector<std::byte>(kPageBytes));
    stream.page("pc.ram", 5 * kPageBytes, make_page(500));
    put("pc.ram", 5 * kPageBytes, make_page(500));
    stream.ram_close();
    const std::size_t before = stream.size();
    stream.device_tail();
    tail.assign(stream.bytes().begin() + static_cast<std::ptrdiff_t>(before), stream.bytes().end());
  }

  void expect_memory(MainRig& rig) const {
    for (const auto& [name, bytes] : image) {
      const test::GuardedMemory& memory = *rig.events.memory.at(name);
      ASSERT_EQ(bytes.size(), memory.size());
      EXPECT_EQ(0, std::memcmp(bytes.data(), memory.data(), bytes.size())) << name;
    }
  }
};

const Log kPrecopyLog = {
    "header 3",
    "configuration pc-i440fx-10.0",
    "command OPEN_RETURN_PATH",
    "command PING 1",
    "ram start 2",
    "  pc.ram 32768",
    "  0000:00:02.0/vga.vram 16384",
    "epoch 0",
    "ram section end 2 footer",
    "ram part 2",
    "epoch 1",
    "ram section end 2 footer",
    "ram part 2",
    "epoch 2",
    "ram section end 2 footer",
    "ram part 2",
    "epoch 3",
    "ram section end 2 footer",
    "command SWITCHOVER_START",
    "ram end 2",
    "epoch 4",
    "ram section end 2 footer",
    "ram complete",
};

TEST(MainChannel, precopy_stream_fills_memory_and_tells_its_events_in_order) {
  Precopy precopy;
  MainRig rig;
  ASSERT_EQ(ParseStatus::need_more, rig.feed(precopy.stream.bytes())) << rig.channel.error().message();
  EXPECT_EQ(kPrecopyLog, rig.events.log);
  EXPECT_EQ(precopy.tail, rig.events.tail);
  precopy.expect_memory(rig);
  EXPECT_EQ(precopy.stream.size(), rig.channel.offset());
  EXPECT_FALSE(rig.channel.end_of_stream());
  const MainCounters& counters = rig.channel.counters();
  EXPECT_EQ(9u, counters.normal_pages.read());
  EXPECT_EQ(3u, counters.zero_pages.read());
  EXPECT_EQ(2u, counters.zero_pages_untouched.read());
  EXPECT_EQ(kPageBytes, rig.channel.expanded_bytes());
  EXPECT_EQ(5u, counters.ram_sections.read());
  EXPECT_EQ(precopy.tail.size(), counters.tail_bytes.read());
  EXPECT_TRUE(rig.blocks.find("pc.ram")->written().test(2));
  EXPECT_FALSE(rig.blocks.find("pc.ram")->written().test(6)) << "a zero page of fresh memory is not touched";
}

TEST(MainChannel, a_stream_torn_at_any_byte_gives_the_same) {
  Precopy precopy;
  for (std::size_t cut = 1; cut < precopy.stream.size(); ++cut) {
    // Inside page payloads nothing new happens: every byte around them, then now and then.
    if (cut > 400 && cut % 61 != 0 && cut + 3000 < precopy.stream.size()) continue;
    MainRig rig;
    const Bytes all(precopy.stream.bytes());
    ASSERT_EQ(ParseStatus::need_more, rig.feed(all.first(cut)));
    ASSERT_EQ(cut, rig.channel.offset());
    ASSERT_EQ(ParseStatus::need_more, rig.feed(all.subspan(cut))) << cut << rig.channel.error().message();
    ASSERT_EQ(kPrecopyLog, rig.events.log) << cut;
    ASSERT_EQ(precopy.tail, rig.events.tail) << cut;
    precopy.expect_memory(rig);
  }
}

TEST(MainChannel, a_stream_in_pieces_of_any_size_gives_the_same) {
  Precopy precopy;
  for (const std::size_t step :
       {1U, 2U, 3U, 5U, 7U, 8U, 9U, 13U, 61U, 64U, 536U, 1448U, 4095U, 4096U, 4097U, 8948U}) {
    MainRig rig;
    ASSERT_EQ(ParseStatus::need_more, rig.feed(precopy.stream.bytes(), step))
        << rig.channel.error().message();
    EXPECT_EQ(kPrecopyLog, rig.events.log) << step;
    EXPECT_EQ(precopy.tail, rig.events.tail) << step;
    precopy.expect_memory(rig);
  }
}

// Machine types up to 2.3: no configuration, no footers.
TEST(MainChannel, streams_of_old_machine_types_have_neither_configuration_nor_footers) {
  for (const std::size_t step : {std::size_t{1}, std::size_t{100}, SIZE_MAX}) {
    Precopy precopy(false, false);
    MainRig rig;
    ASSERT_EQ(ParseStatus::need_more, rig.feed(precopy.stream.bytes(), step))
        << rig.channel.error().message();
    EXPECT_FALSE(rig.events.configuration->present);
    Log expected = kPrecopyLog;
    for (std::string& line : expected) {
      if (line == "ram section end 2 footer") line = "ram section end 2";
      if (line == "configuration pc-i440fx-10.0") line = "configuration ";
    }
    EXPECT_EQ(expected, rig.events.log);
    EXPECT_EQ(precopy.tail, rig.events.tail);
    precopy.expect_memory(rig);
  }
}

TEST(MainChannel, memory_that_held_other_bytes_is_cleared_by_zero_pages) {
  Precopy precopy;
  MainRig rig;
  rig.events.stale = true;
  ASSERT_EQ(ParseStatus::need_more, rig.feed(precopy.stream.bytes()));
  EXPECT_EQ(std::vector<std::byte>(kPageBytes), rig.page_at("pc.ram", 6 * kPageBytes));
  EXPECT_EQ(0u, rig.channel.counters().zero_pages_untouched.read());
  EXPECT_TRUE(rig.blocks.find("pc.ram")->written().test(6));
}

// The hand-off has no room: the channel stops without losing a byte, and says so again and again.
TEST(MainChannel, parks_while_the_outgoing_side_has_no_room) {
  Precopy precopy;
  for (const uint64_t every : {3U, 5U, 7U}) {
    MainRig rig;
    rig.events.refuse_every = every;
    rig.events.step_max = 7;
    ASSERT_EQ(ParseStatus::need_more, rig.feed(precopy.stream.bytes(), 97)) << rig.channel.error().message();
    EXPECT_EQ(kPrecopyLog, rig.events.log);
    EXPECT_EQ(precopy.tail, rig.events.tail);
    precopy.expect_memory(rig);
  }
  MainRig rig;
  rig.events.room = false;
  // Four bytes decide which channel this is; they never park.
  EXPECT_EQ(ParseStatus::need_more, rig.channel.parse(Bytes(precopy.stream.bytes()).first(4)).status);
  EXPECT_EQ(ParseStatus::parked, rig.channel.parse(Bytes(precopy.stream.bytes()).subspan(4, 100)).status);
  EXPECT_FALSE(rig.channel.ready());
  rig.events.room = true;
  EXPECT_TRUE(rig.channel.ready());
}

TEST(MainChannel, blocks_that_are_not_ready_hold_page_records_back) {
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kPageBytes, {}}});
  const std::size_t listed = b.size();
  b.ram_close();
  MainRig rig;
  ASSERT_EQ(ParseStatus::need_more, rig.feed(Bytes(b.bytes()).first(listed - 1)));
  // Room goes away in the very event that announces the blocks.
  rig.events.refuse_every = rig.events.asked + 1;
  EXPECT_EQ(ParseStatus::parked, rig.channel.parse(Bytes(b.bytes()).subspan(listed - 1)).status);
  EXPECT_EQ("  ram 4096", rig.events.log.back());
  rig.events.refuse_every = 0;
  EXPECT_EQ(ParseStatus::need_more, rig.feed(Bytes(b.bytes()).subspan(listed)));
}

TEST(MainChannel, background_snapshot_ends_ram_without_an_end_section) {
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", 2 * kPageBytes, {}}}).ram_close();
  b.ram_part().page("ram", kPageBytes, make_page(1)).ram_close();
  const std::size_t before = b.size();
  b.device_tail();
  {
    MainRig rig({.background_snapshot = true});
    ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), 3)) << rig.channel.error().message();
    EXPECT_EQ("ram complete", rig.events.log.back());
    EXPECT_EQ(
        std::vector<std::byte>(b.bytes().begin() + static_cast<std::ptrdiff_t>(before), b.bytes().end()),
        rig.events.tail);
    EXPECT_FALSE(rig.channel.end_of_stream());
  }
  MainRig rig;
  ASSERT_EQ(ParseStatus::failed, rig.feed(b.bytes()));
  EXPECT_EQ(ErrorClass::unsupported, rig.channel.error().error_class);
  EXPECT_NE(std::string::npos, rig.channel.error().message().find("background-snapshot"));
  EXPECT_NE(std::string::npos, rig.channel.error().message().find("timer"));
}

TEST(MainChannel, an_event_can_refuse_and_its_error_gets_place_and_channel) {
  Precopy precopy;
  MainRig rig;
  rig.events.refuse_command = MigCommand::switchover_start;
  ASSERT_EQ(ParseStatus::failed, rig.feed(precopy.stream.bytes()));
  EXPECT_EQ(ChannelName::main(), rig.channel.error().channel);
  EXPECT_GT(rig.channel.error().offset, 0u);
  EXPECT_STREQ("command", rig.channel.error().field);
  EXPECT_EQ(ParseStatus::failed, rig.channel.parse({}).status) << "stays failed";
}

// COLO: with the capability the command goes to the session, which knows whether it can.
TEST(MainChannel, enable_colo_is_the_sessions_to_decide_when_the_capability_is_on) {
  MainStreamBuilder b;
  b.header().configuration().command(8);
  {
    MainRig rig({.x_colo = true});
    EXPECT_EQ(ParseStatus::need_more, rig.feed(b.bytes()));
    EXPECT_EQ("command ENABLE_COLO", rig.events.log.back());
  }
  MainRig rig;
  EXPECT_EQ(ParseStatus::failed, rig.feed(b.bytes()));
  EXPECT_EQ(ErrorClass::mismatch, rig.channel.error().error_class);
  EXPECT_NE(std::string::npos, rig.channel.error().message().find("x-colo"));
}

// Page targets may change between epochs: the seam for the COLO cache. The record behind the switch goes to
// the new target, an XBZRLE patch included.
TEST(MainChannel, a_page_target_switched_at_an_epoch_takes_the_following_pages) {
  const auto first = make_page(1);
  auto second = first;
  second[100] = std::byte{0x17};
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", 2 * kPageBytes, {}}}).ram_close();
  b.ram_part().page("ram", 0, first).ram_close();
  b.ram_part()
      .xbzrle("ram", 0, test::encode_xbzrle(first, second))
      .page("ram", kPageBytes, make_page(2))
      .ram_close();
  MainRig rig({.xbzrle = true});
  test::GuardedMemory cache(2 * kPageBytes);
  PageBitmap marked(2);
  rig.events.at_epoch = [&](uint64_t k) {
    if (k != 1) return;
    std::memcpy(cache.data(), rig.events.memory.at("ram")->data(), cache.size());
    rig.blocks.find("ram")->set_target({cache.data(), &marked, false, nullptr});
  };
  ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes())) << rig.channel.error().message();
  EXPECT_EQ(first, rig.page_at("ram", 0)) << "guest RAM keeps the state of the checkpoint";
  EXPECT_EQ(0, std::memcmp(second.data(), cache.data(), kPageBytes));
  EXPECT_EQ(0, std::memcmp(make_page(2).data(), cache.data() + kPageBytes, kPageBytes));
  EXPECT_EQ(2u, marked.count());
}

TEST(MainChannel, the_end_of_the_stream_is_an_error_before_the_device_state) {
  Precopy precopy;
  const Bytes all(precopy.stream.bytes());
  const std::size_t ram_bytes = all.size() - precopy.tail.size();
  for (std::size_t cut = 0; cut <= ram_bytes; cut += cut < 300 ? 1 : 311) {
    MainRig rig;
    ASSERT_EQ(ParseStatus::need_more, rig.feed(all.first(cut)));
    const StreamError error = rig.channel.end_of_stream();
    ASSERT_TRUE(error) << cut;
    EXPECT_EQ(ErrorClass::truncated, error.error_class);
    EXPECT_EQ(cut, error.offset);
    EXPECT_EQ(ChannelName::main(), error.channel);
  }
}

}  // namespace
}  // namespace migrx
