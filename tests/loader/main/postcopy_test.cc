// From POSTCOPY_ADVISE over the switch to what follows it, in whole and in single bytes.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

using test::MainRig;
using test::MainStreamBuilder;
using test::make_page;

constexpr uint64_t kHuge = 2 << 20;

MainSettings relayed() {
  MainSettings settings;
  settings.postcopy = Postcopy::relayed;
  return settings;
}

// Up to the last PART before the switch.
MainStreamBuilder precopy(uint64_t page_sizes = kPageBytes) {
  MainStreamBuilder b;
  b.header().configuration().open_return_path().ping(1).advise(page_sizes);
  b.ram_start({{"mem", 8 * kPageBytes, {}}, {"vga", 4 * kPageBytes, {}}}).ram_close();
  b.ram_part().page("mem", 0, make_page(1)).zero("mem", kPageBytes).page("vga", 0, make_page(2)).ram_close();
  return b;
}

// As QEMU 10 writes it, and pages behind the package that nobody here may look at.
MainStreamBuilder behind_the_switch() {
  MainStreamBuilder b;
  b.discard("mem", {{0, kPageBytes}, {4 * kPageBytes, 2 * kPageBytes}})
      .discard("vga", {{kPageBytes, kPageBytes}});
  b.ping(2).package(300).ping(4);
  b.ram_part().page("mem", 0, make_page(3)).ram_close().ram_end().ram_close().u8(0);
  return b;
}

std::vector<std::byte> joined(const MainStreamBuilder& first, const MainStreamBuilder& second) {
  std::vector<std::byte> bytes = first.bytes();
  bytes.insert(bytes.end(), second.bytes().begin(), second.bytes().end());
  return bytes;
}

const std::vector<std::string> kSwitchLog{"postcopy", "discard mem 0+1", "discard mem 4+2",
                                          "discard vga 1+1"};

TEST(Postcopy, from_the_switch_on_every_byte_is_passed_on_and_pages_stay_as_they_are) {
  const std::vector<std::byte> wanted = behind_the_switch().bytes();
  for (const std::size_t step : {SIZE_MAX, std::size_t{1}, std::size_t{7}, std::size_t{61}}) {
    MainRig rig(relayed());
    rig.events.step_max = step == SIZE_MAX ? 13 : SIZE_MAX;
    ASSERT_EQ(ParseStatus::need_more, rig.feed(joined(precopy(), behind_the_switch()), step))
        << rig.channel.error().message();
    EXPECT_EQ(rig.events.tail, wanted) << step;
    const auto at = std::find(rig.events.log.begin(), rig.events.log.end(), "postcopy");
    ASSERT_NE(at, rig.events.log.end());
    EXPECT_EQ(std::vector<std::string>(at, at + 4), kSwitchLog);
    EXPECT_EQ((at + 4)->substr(0, 11), "package 300");
    EXPECT_EQ(at + 5, rig.events.log.end());
    // Page 0 of mem came again behind the switch, and is the destination's.
    EXPECT_EQ(std::memcmp(rig.events.memory.at("mem")->data(), make_page(1).data(), kPageBytes), 0);
    EXPECT_FALSE(rig.channel.end_of_stream());
  }
}

TEST(Postcopy, what_is_read_is_read_before_its_first_byte_is_passed_on) {
  MainRig rig(relayed());
  ASSERT_EQ(ParseStatus::need_more, rig.feed(joined(precopy(), behind_the_switch()), SIZE_MAX));
  const auto package = std::find_if(rig.events.log.begin(), rig.events.log.end(),
                                    [](const std::string& line) { return line.starts_with("package"); });
  ASSERT_NE(package, rig.events.log.end());
  // In one piece all of it is known while no more has left than the head of the command that switches.
  EXPECT_EQ(*package, "package 300 behind 5");
}

TEST(Postcopy, without_dirty_pages_the_package_switches) {
  MainStreamBuilder b = precopy();
  MainStreamBuilder rest;
  rest.package(40).u8(0x55);
  MainRig rig(relayed());
  ASSERT_EQ(ParseStatus::need_more, rig.feed(joined(b, rest), SIZE_MAX)) << rig.channel.error().message();
  EXPECT_EQ(rig.events.tail, rest.bytes());
}

TEST(Postcopy, the_capability_alone_changes_nothing) {
  MainStreamBuilder b = precopy();
  b.switchover_start().ram_end().ram_close();
  MainStreamBuilder tail;
  tail.device_tail();
  MainRig rig(relayed());
  ASSERT_EQ(ParseStatus::need_more, rig.feed(joined(b, tail), SIZE_MAX)) << rig.channel.error().message();
  EXPECT_EQ(rig.events.tail, tail.bytes());
  EXPECT_EQ(std::count(rig.events.log.begin(), rig.events.log.end(), "postcopy"), 0);
  EXPECT_EQ(std::count(rig.events.log.begin(), rig.events.log.end(), "ram complete"), 1);
}

TEST(Postcopy, no_room_parks_at_any_point_and_nothing_is_lost) {
  const std::vector<std::byte> wanted = behind_the_switch().bytes();
  for (uint64_t every = 2; every < 6; ++every) {
    MainRig rig(relayed());
    rig.events.refuse_every = every;
    rig.events.step_max = 3;
    Bytes left;
    const std::vector<std::byte> stream = joined(precopy(), behind_the_switch());
    left = stream;
    for (int turn = 0; turn < 10'000 && !left.empty(); ++turn) {
      const ParseResult result = rig.channel.parse(left);
      ASSERT_NE(result.status, ParseStatus::failed) << rig.channel.error().message();
      left = left.subspan(result.consumed);
      rig.events.room = turn % 3 != 0;
    }
    EXPECT_TRUE(left.empty());
    rig.events.room = true;
    (void)rig.channel.parse({});
    EXPECT_EQ(rig.events.tail, wanted);
  }
}

TEST(Postcopy, a_refused_switch_passes_nothing_on) {
  MainRig rig(relayed());
  rig.events.refuse_postcopy = true;
  EXPECT_EQ(ParseStatus::failed, rig.feed(joined(precopy(), behind_the_switch()), SIZE_MAX));
  EXPECT_TRUE(rig.events.tail.empty());
}

// Page sizes are listed of blocks in hugepages alone, and nothing says of which.
TEST(Postcopy, page_sizes_are_found_in_the_list_of_blocks) {
  struct Form {
    const char* name;
    std::vector<MainStreamBuilder::Block> blocks;
    std::vector<std::optional<uint64_t>> wanted;
  };
  const std::vector<Form> forms{
      {"none", {{"mem", kPageBytes, {}}, {"vga", kPageBytes, {}}}, {{}, {}}},
      {"the first", {{"mem", kHuge, {kHuge}}, {"vga", kPageBytes, {}}}, {{kHuge}, {}}},
      {"one in the middle",
       {{"a", kHuge, {}}, {"mem", kHuge, {kHuge}}, {"vga", kPageBytes, {}}},
       {{}, {kHuge}, {}}},
      {"the last", {{"vga", kPageBytes, {}}, {"mem", kHuge, {kHuge}}}, {{}, {kHuge}}},
      {"all", {{"a", kHuge, {kHuge}}, {"b", kHuge, {kHuge}}}, {{kHuge}, {kHuge}}},
  };
  for (const Form& form : forms)
    for (const std::size_t step : {SIZE_MAX, std::size_t{1}}) {
      MainStreamBuilder b;
      b.header()
          .configuration()
          .open_return_path()
          .advise(kPageBytes | kHuge)
          .ram_start(form.blocks)
          .ram_close();
      b.ram_part().page(form.blocks[0].idstr, 0, make_page(9)).ram_close();
      MainRig rig(relayed());
      rig.events.block_bytes_max = 4 << 20;
      ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), step))
          << form.name << ": " << rig.channel.error().message();
      ASSERT_EQ(rig.events.listed.size(), form.wanted.size()) << form.name;
      for (std::size_t i = 0; i < form.wanted.size(); ++i)
        EXPECT_EQ(rig.events.listed[i].page_bytes, form.wanted[i]) << form.name << " " << i;
      EXPECT_EQ(
          std::memcmp(rig.events.memory.at(form.blocks[0].idstr)->data(), make_page(9).data(), kPageBytes),
          0);
    }
}

// ---- What no QEMU says

struct Refusal {
  const char* name;
  const char* says;
  std::function<void(MainStreamBuilder&)> more;
};

void expect_refused(const std::vector<Refusal>& refusals, const MainStreamBuilder& begin) {
  for (const Refusal& refusal : refusals)
    for (const std::size_t step : {SIZE_MAX, std::size_t{1}}) {
      MainStreamBuilder b = begin;
      refusal.more(b);
      MainRig rig(relayed());
      EXPECT_EQ(ParseStatus::failed, rig.feed(b.bytes(), step)) << refusal.name;
      EXPECT_NE(rig.channel.error().message().find(refusal.says), std::string::npos)
          << refusal.name << ": " << rig.channel.error().message();
    }
}

TEST(PostcopyRefusal, at_advise) {
  MainStreamBuilder begin;
  begin.header().configuration().open_return_path();
  expect_refused(
      {
          {"twice", "came twice", [](auto& b) { b.advise().advise(); }},
          {"another target page", "target page size", [](auto& b) { b.advise(kPageBytes, 16384); }},
          {"no page size", "no sum of page sizes", [](auto& b) { b.advise(0); }},
          {"a page size of 512", "no sum of page sizes", [](auto& b) { b.advise(kPageBytes | 512); }},
          {"behind the list", "behind the list",
           [](auto& b) {
             b.ram_start({{"mem", kPageBytes, {}}}).ram_close().advise();
           }},
          {"the switch before the list", "before the list", [](auto& b) { b.advise().package(1); }},
          {"a page size not announced", "none of the page sizes",
           [](auto& b) {
             b.advise(kPageBytes | kHuge).ram_start({{"mem", kHuge, {1 << 30}}, {"b", kPageBytes, {}}});
           }},
          {"a page size twice", "empty name",
           [](auto& b) {
             b.advise(kPageBytes | kHuge).ram_start({{"mem", kHuge, {kHuge, kHuge}}, {"b", kPageBytes, {}}});
           }},
          {"half a hugepage", "not in whole pages",
           [](auto& b) {
             b.advise(kPageBytes | kHuge).ram_start({{"mem", kHuge + kPageBytes, {kHuge}}}).eos();
           }},
      },
      begin);
}

TEST(PostcopyRefusal, at_the_switch) {
  const auto raw = [](MainStreamBuilder& b, std::size_t length, auto&& payload) {
    b.u8(8).be16(6).be16(length);
    payload(b);
  };
  expect_refused(
      {
          {"LISTEN", "POSTCOPY_LISTEN before the switch", [](auto& b) { b.command(4); }},
          {"RUN", "POSTCOPY_RUN before the switch", [](auto& b) { b.command(5); }},
          {"RESUME", "POSTCOPY_RESUME before", [](auto& b) { b.command(9); }},
          {"RECV_BITMAP", "RECV_BITMAP before", [](auto& b) { b.command(10); }},
          {"behind END", "behind the END", [](auto& b) { b.ram_end().ram_close().package(1); }},
          {"LISTEN behind the switch", "between the switch",
           [](auto& b) {
             b.discard("mem", {{0, 4096}}).command(4);
           }},
          {"a section behind the switch", "section type",
           [](auto& b) {
             b.discard("mem", {{0, 4096}}).ram_part().ram_close();
           }},
          {"a package of no length", "PACKAGED of length 0", [](auto& b) { b.command(7); }},
          {"of an unknown block", "not in the list",
           [](auto& b) {
             b.discard("rom", {{0, 4096}});
           }},
          {"beyond the block", "no pages of its",
           [](auto& b) {
             b.discard("mem", {{8 * kPageBytes, 4096}});
           }},
          {"across the block's end", "no pages of its",
           [](auto& b) {
             b.discard("mem", {{0, 9 * kPageBytes}});
           }},
          {"a sum that wraps", "no pages of its",
           [](auto& b) {
             b.discard("mem", {{kPageBytes, ~uint64_t{4095}}});
           }},
          {"no whole page", "no pages of its",
           [](auto& b) {
             b.discard("mem", {{0, 100}});
           }},
          {"from within a page", "no pages of its",
           [](auto& b) {
             b.discard("mem", {{8, 4096}});
           }},
          {"nothing", "no pages of its",
           [](auto& b) {
             b.discard("mem", {{0, 0}});
           }},
          {"too short", "RAM_DISCARD of length 19", [&](auto& b) { raw(b, 19, [](auto&) {}); }},
          {"too long", "RAM_DISCARD of length 452", [&](auto& b) { raw(b, 452, [](auto&) {}); }},
          {"another version", "version",
           [&](auto& b) { raw(b, 22, [](auto& p) { p.u8(1).str8("mem").u8(0).be64(0).be64(4096); }); }},
          {"a name without end", "no end",
           [&](auto& b) { raw(b, 22, [](auto& p) { p.u8(0).str8("mem").u8(1).be64(0).be64(4096); }); }},
          {"a name beyond the payload", "does not fit",
           [&](auto& b) {
             raw(b, 22, [](auto& p) { p.u8(0).u8(200).text("mem").u8(0).be64(0).be64(4096); });
           }},
          {"half a range", "does not fit",
           [&](auto& b) {
             raw(b, 30, [](auto& p) { p.u8(0).str8("mem").u8(0).be64(0).be64(4096).be64(0); });
           }},
      },
      precopy());
}

// A channel with pages that no marker has met: they may be on their way to memory.
TEST(PostcopyRefusal, a_multifd_channel_with_pages_behind_its_last_sync) {
  MainSettings settings = relayed();
  settings.multifd_channels = 1;
  MainRig rig(settings);
  MainStreamBuilder b;
  b.header().configuration().open_return_path().advise();
  b.ram_start({{"mem", kPageBytes, {}}}).multifd_flush().ram_close();
  rig.barrier.arrive(MultifdId{0}, Epoch{0});
  ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), SIZE_MAX)) << rig.channel.error().message();
  ASSERT_TRUE(rig.barrier.begin_pages(MultifdId{0}));
  MainStreamBuilder rest;
  rest.package(3);
  EXPECT_EQ(ParseStatus::failed, rig.feed(rest.bytes(), SIZE_MAX));
  EXPECT_NE(rig.channel.error().message().find("pages after its last SYNC"), std::string::npos);
  EXPECT_TRUE(rig.events.tail.empty());
}

}  // namespace
}  // namespace migrx
