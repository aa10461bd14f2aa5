// Sections of other devices between ram's: followed to their end and passed on byte for byte.
#include "loader/main/other_sections.h"

#include <gtest/gtest.h>

#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

using test::MainRig;
using test::MainStreamBuilder;
using test::make_page;
using B = MainStreamBuilder;

// Writes a stream in which `mark` notes the bytes that must be passed on.
class Marked {
 public:
  B b;
  std::vector<std::byte> expected;
  template <class Write>
  void verbatim(Write&& write) {
    const std::size_t before = b.size();
    write(b);
    expected.insert(expected.end(), b.bytes().begin() + static_cast<std::ptrdiff_t>(before), b.bytes().end());
  }
};

void expect_passed(const Marked& m, const std::vector<std::string>& log_has,
                   const MainSettings& settings = {}) {
  for (const std::size_t step : {SIZE_MAX, std::size_t{1}, std::size_t{3}, std::size_t{1000}}) {
    for (const bool slow : {false, true}) {
      if (slow && step == 1 && m.b.size() > 100000) continue;
      MainRig rig(settings);
      if (slow) {
        rig.events.step_max = 333;
        rig.events.refuse_every = 5;
      }
      ASSERT_EQ(ParseStatus::need_more, rig.feed(m.b.bytes(), step)) << rig.channel.error().message();
      EXPECT_TRUE(m.expected == rig.events.verbatim)
          << m.expected.size() << " " << rig.events.verbatim.size();
      EXPECT_EQ(m.expected.size(), rig.channel.counters().verbatim_bytes.read());
      for (const std::string& line : log_has)
        EXPECT_NE(rig.events.log.end(), std::find(rig.events.log.begin(), rig.events.log.end(), line))
            << line;
      EXPECT_EQ("ram complete", rig.events.log.back());
    }
  }
}

void finish(Marked& m) {
  m.b.ram_end().zero("ram", 0).ram_close().device_tail();
}

// As a 10.0.2 source sends it: START 1c "disk0" "bm0" granularity be32, u8; a PART with bits; END 42 … 20 …
// 01.
TEST(OtherSections, dirty_bitmap_is_passed_on_between_ram_sections) {
  Marked m;
  m.b.header().configuration().command(3).ram_start({{"ram", 2 * kPageBytes, {}}}).ram_close();
  m.verbatim([](B& b) {
    b.section_start(31, "dirty-bitmap", 0, 1);
    b.u8(0x1c).str8("disk0").str8("bm0").be32(0x10000).u8(1).u8(0x01).footer(31);
  });
  m.b.ram_part().page("ram", 0, make_page(1)).ram_close();
  m.verbatim([](B& b) {
    b.section_part(31).u8(0x01).footer(31);  // an empty one
    b.section_part(31);
    b.u8(0x40).be64(128).be32(64).be64(1024).raw(make_page(9, 1024));
    b.u8(0x42).be64(256).be32(64);  // zeroes: no bits follow
    b.u8(0x4c).str8("disk0").str8("bm0").be64(0).be32(8).be64(0);
    b.u8(0x80).u8(0x01).footer(31);  // two bytes of flags: 0x8001
  });
  m.b.ram_part().ram_close();
  m.b.ram_end().zero("ram", kPageBytes).ram_close();
  m.verbatim([](B& b) {
    b.section_end(31).u8(0x42).be64(512).be32(64).u8(0x20);
    b.u8(0x80).u8(0x80).be16(0x0001).footer(31);  // four bytes of flags
  });
  m.b.device_tail();
  for (const std::size_t step : {SIZE_MAX, std::size_t{1}}) {
    MainRig rig;
    ASSERT_EQ(ParseStatus::need_more, rig.feed(m.b.bytes(), step)) << rig.channel.error().message();
    EXPECT_EQ(m.expected, rig.events.verbatim);
    EXPECT_EQ("other end dirty-bitmap", rig.events.log.back())
        << "END of the bitmaps comes behind that of RAM";
    EXPECT_EQ(make_page(1), rig.page_at("ram", 0));
    EXPECT_EQ(0x04, std::to_integer<int>(rig.events.tail.at(0)));
  }
}

TEST(OtherSections, dirty_bitmap_without_bitmaps_before_ram) {
  Marked m;
  m.b.header().configuration();
  m.verbatim([](B& b) { b.section_start(1, "dirty-bitmap", 0, 1).u8(1).footer(1); });
  m.b.ram_start({{"ram", kPageBytes, {}}}).ram_close();
  finish(m);
  expect_passed(m, {"other 1 dirty-bitmap", "other end dirty-bitmap"});
}

// Footers are learnt from whatever section ends first.
TEST(OtherSections, streams_without_footers) {
  Marked m;
  m.b.footers = false;
  m.b.header();
  m.verbatim([](B& b) { b.section_start(1, "dirty-bitmap", 0, 1).u8(1); });
  m.b.ram_start({{"ram", kPageBytes, {}}}).ram_close();
  m.verbatim([](B& b) { b.section_part(1).u8(1); });
  finish(m);
  expect_passed(m, {"other end dirty-bitmap"});
}

TEST(OtherSections, block_migration_of_old_sources) {
  Marked m;
  m.b.header().configuration();
  const std::vector<std::byte> chunk = make_page(4, 1 << 20);
  m.verbatim([&](B& b) {
    b.section_start(1, "block", 0, 1).be64(2).footer(1);
    b.section_part(1);
    b.be64(0x1000 << 9 | 0x01).str8("drive-virtio-disk0").raw(chunk);
    b.be64(0x1800 << 9 | 0x01 | 0x08).str8("drive-virtio-disk0");  // a zero block has no data
    b.be64(55 << 9 | 0x04);                                        // progress
    b.be64(2).footer(1);
  });
  m.b.ram_start({{"ram", kPageBytes, {}}}).ram_close();
  m.verbatim([](B& b) { b.section_end(1).be64(100 << 9 | 0x04).be64(2).footer(1); });
  finish(m);
  expect_passed(m, {"other 1 block", "other 3 block"});
}

TEST(OtherSections, early_virtio_mem_is_delimited_by_computation) {
  Marked m;
  m.b.header().configuration().ram_start({{"ram", kPageBytes, {}}}).ram_close();
  m.verbatim([](B& b) {
    b.section_full(40, "0000:00:04.0/virtio-mem-device-early", 0, 1);
    b.be64(0x140000000).be64(64 << 21).be64(1 << 21).be32(0).be64(4 << 21).be64(0xf).footer(40);
    b.section_full(41, "0000:00:05.0/virtio-mem-device-early", 0, 1);
    b.be64(0x180000000).be64(65 << 21).be64(1 << 21).be32(1).be64(0).be64(0).be64(1).footer(41);
  });
  m.b.ram_part().page("ram", 0, make_page(2)).ram_close();
  finish(m);
  expect_passed(
      m, {"other 4 0000:00:04.0/virtio-mem-device-early", "other end 0000:00:05.0/virtio-mem-device-early"});
}

TEST(OtherSections, what_cannot_be_followed_is_refused) {
  const auto fails = [](const B& b, const char* words) {
    for (const std::size_t step : {SIZE_MAX, std::size_t{1}}) {
      MainRig rig;
      ASSERT_EQ(ParseStatus::failed, rig.feed(b.bytes(), step)) << words;
      EXPECT_EQ(ErrorClass::bad_stream, rig.channel.error().error_class);
      EXPECT_NE(std::string::npos, rig.channel.error().message().find(words))
          << rig.channel.error().message();
    }
  };
  const auto begin = [](B& b, const char* idstr) -> B& {
    return b.header().configuration().section_start(1, idstr, 0, 1);
  };
  const auto early = [](B& b) -> B& {
    return b.header().configuration().section_full(1, "x/virtio-mem-device-early", 0, 1);
  };
  B b1, b2, b3, b4, b5, b6;
  fails(begin(b1, "dirty-bitmap").u8(0x40).be64(0).be32(1).be64((1 << 20) + 1),
        "found 1048577, allowed 1048576");
  fails(begin(b2, "block").be64(0x10), "unknown flags 0x10");
  fails(begin(b3, "block").be64(0), "unknown flags 0x0");
  fails(early(b4).be64(0).be64(1 << 30).be64(0).be32(0).be64(0), "blocks of 0");
  fails(early(b5).be64(0).be64(uint64_t{1} << 60).be64(1 << 20).be32(0).be64(0),
        "virtio-mem-device-early: blocks");
  fails(early(b6).be64(0).be64((1 << 21) + 1).be64(1 << 21).be32(0).be64(0), "block_size");
}

// A 10.0 source with dirty-bitmaps wrote some 49,000 pairs of empty PARTs in a short migration.
TEST(OtherSections, many_empty_parts) {
  B b;
  b.header().configuration().section_start(1, "dirty-bitmap", 0, 1).u8(1).footer(1);
  b.ram_start({{"ram", kPageBytes, {}}}).ram_close();
  for (int i = 0; i < 49000; ++i) {
    b.ram_part().ram_close();
    b.section_part(1).u8(1).footer(1);
  }
  b.ram_end().ram_close().section_end(1).u8(1).footer(1).device_tail();
  MainRig rig;
  ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), 1448));
  EXPECT_EQ(49002u, rig.channel.counters().ram_sections.read());
  EXPECT_EQ(49002u, rig.channel.counters().other_sections.read());
}

}  // namespace
}  // namespace migrx
