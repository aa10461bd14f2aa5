#include "loader/destination/stream_rewriter.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

namespace migrx {
namespace {

constexpr uint64_t kSharedPages = 4;
constexpr uint64_t kVideoPages = 1024;  // two hugepages
constexpr uint64_t kRecordZero = 0x02;
constexpr uint64_t kRecordPage = 0x08;
constexpr uint64_t kRecordEos = 0x10;
constexpr uint64_t kRecordContinue = 0x20;

// A page record of the outgoing stream.
struct Record {
  std::string idstr;
  uint64_t page = 0;
  int first_byte = -1;  // -1: a zero record

  bool operator==(const Record&) const = default;
};

// The naive reader of a RAM PART or END section.
class Reader {
 public:
  explicit Reader(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  [[nodiscard]] bool done() const { return at_ == bytes_.size(); }
  std::vector<Record> section(SectionType expected) {
    EXPECT_EQ(u8(), static_cast<uint8_t>(expected));
    EXPECT_EQ(u32(), 2U);  // section id
    std::vector<Record> out;
    std::string idstr;
    for (;;) {
      const uint64_t word = u64();
      const uint64_t flags = word % kPageBytes;
      if (flags == kRecordEos) break;
      if ((flags & kRecordContinue) == 0) idstr = text(u8());
      Record record{idstr, word / kPageBytes};
      if ((flags & kRecordPage) != 0) {
        record.first_byte = std::to_integer<int>(bytes_.at(at_));
        at_ += kPageBytes;
      } else {
        EXPECT_NE(flags & kRecordZero, 0U);
        EXPECT_EQ(u8(), 0U);
      }
      out.push_back(record);
    }
    EXPECT_EQ(u8(), static_cast<uint8_t>(SectionType::footer));
    EXPECT_EQ(u32(), 2U);
    return out;
  }
  uint8_t u8() { return std::to_integer<uint8_t>(bytes_.at(at_++)); }
  uint32_t u32() {
    const uint32_t v = load_be32(&bytes_.at(at_));
    at_ += 4;
    return v;
  }
  uint64_t u64() {
    const uint64_t v = load_be64(&bytes_.at(at_));
    at_ += 8;
    return v;
  }
  std::string text(std::size_t length) {
    std::string out(reinterpret_cast<const char*>(&bytes_.at(at_)), length);
    at_ += length;
    return out;
  }
  void skip(std::size_t n) { at_ += n; }

 private:
  std::vector<std::byte> bytes_;
  std::size_t at_ = 0;
};

class StreamRewriterTest : public testing::Test {
 protected:
  explicit StreamRewriterTest(std::size_t room = 4 << 20)
      : shared_(kSharedPages * kPageBytes), video_memory_(kVideoPages * kPageBytes), out_(room) {
    blocks_.add(std::make_unique<RamBlock>("mem", shared_.data(), shared_.size(), true, true, kAnyNode));
    blocks_.add(
        std::make_unique<RamBlock>("vga", video_memory_.data(), video_memory_.size(), false, true, kAnyNode));
  }

  [[nodiscard]] std::vector<BlockEntry> entries() const {
    return {{"mem", shared_.size(), 0, {}}, {"vga", video_memory_.size(), 0, {}}};
  }
  RamBlock& video() { return blocks_[1]; }
  // As a channel does it: contents, then the mark.
  void load(uint64_t page, uint8_t value) {
    const PageTarget& target = video().target();
    std::memset(target.base + page * kPageBytes, value, kPageBytes);
    target.bits->set(page);
  }
  // As a channel treats a zero page.
  void load_zero(uint64_t page) {
    if (!video().target().still_zero(page)) load(page, 0);
  }
  void start() {
    ASSERT_FALSE(rewriter_.on_ram_start({SectionType::start, 2, "ram", 0, 4}, entries()));
    rewriter_.on_ram_section_end(SectionType::start, 2, true);
  }
  std::vector<std::byte> drain() {
    std::vector<std::byte> bytes;
    for (;;) {
      const Bytes piece = out_.readable();
      if (piece.empty()) {
        // Room again: what is still to come follows.
        const bool writable = rewriter_.writable();
        if (!out_.readable().empty()) continue;
        EXPECT_TRUE(writable);
        return bytes;
      }
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      out_.consume(piece.size());
    }
  }
  // Reads START with its block list and the PART that says that everything is zero.
  std::vector<Record> read_start(Reader& reader) {
    EXPECT_EQ(reader.u8(), static_cast<uint8_t>(SectionType::start));
    EXPECT_EQ(reader.u32(), 2U);
    EXPECT_EQ(reader.text(reader.u8()), "ram");
    reader.skip(8);
    EXPECT_EQ(reader.u64(), (kSharedPages + kVideoPages) * kPageBytes | 0x04);
    for (const char* const idstr : {"mem", "vga"}) {
      EXPECT_EQ(reader.text(reader.u8()), idstr);
      reader.skip(8);
    }
    EXPECT_EQ(reader.u64(), kRecordEos);
    EXPECT_EQ(reader.u8(), static_cast<uint8_t>(SectionType::footer));
    EXPECT_EQ(reader.u32(), 2U);
    return reader.section(SectionType::part);
  }
  std::vector<Record> begin() {
    start();
    Reader reader(drain());
    std::vector<Record> part = read_start(reader);
    EXPECT_TRUE(reader.done());
    return part;
  }
  std::vector<Record> end() {
    rewriter_.on_ram_complete();
    Reader reader(drain());
    std::vector<Record> records = reader.section(SectionType::end);
    EXPECT_TRUE(reader.done());
    return records;
  }

  std::vector<std::byte> shared_;
  std::vector<std::byte> video_memory_;
  RamBlockList blocks_;
  ByteFifo out_;
  StreamRewriter rewriter_{blocks_, HandoffForm::plain, {}, {}, out_};
};

TEST_F(StreamRewriterTest, a_source_without_configuration_section_is_refused_with_what_to_do) {
  const StreamError error = rewriter_.on_configuration({});
  EXPECT_EQ(error.error_class, ErrorClass::unsupported);
  EXPECT_NE(error.message().find("--no-handoff"), std::string::npos) << error.message();
  EXPECT_TRUE(drain().empty());
}

TEST_F(StreamRewriterTest, other_subsections_pass_and_capabilities_are_made_the_destinations) {
  const auto raw = [](const std::string& text) {
    const auto* const bytes = reinterpret_cast<const std::byte*>(text.data());
    return std::vector<std::byte>(bytes, bytes + text.size());
  };
  Configuration configuration;
  configuration.present = true;
  configuration.machine = "pc-q35-9.0";
  configuration.subsections = {{"configuration/capabilities", raw("OLD")},
                               {"configuration/uuid", raw("UUID")}};
  configuration.capabilities = {"multifd", "mapped-ram", "x-ignore-shared"};
  ASSERT_FALSE(rewriter_.on_configuration(configuration));
  EXPECT_FALSE(rewriter_.writable());  // until the destination has answered
  rewriter_.destination_proved();
  const std::vector<std::byte> sent = drain();
  const std::string text(reinterpret_cast<const char*>(sent.data()), sent.size());
  EXPECT_NE(text.find("pc-q35-9.0UUID"), std::string::npos);
  EXPECT_EQ(text.find("OLD"), std::string::npos);
  EXPECT_EQ(text.find("mapped-ram"), std::string::npos);
  EXPECT_EQ(text.find("x-ignore-shared"), std::string::npos);
  EXPECT_NE(text.find(std::string("\0\0\0\1\7multifd", 12)), std::string::npos);
}

TEST_F(StreamRewriterTest, commands_pass_but_those_it_has_given_itself) {
  for (const MigCommand own : {MigCommand::open_return_path, MigCommand::ping, MigCommand::switchover_start})
    EXPECT_FALSE(rewriter_.on_command(own, {}));
  EXPECT_TRUE(drain().empty());
  constexpr std::array<std::byte, 2> kPayload{std::byte{7}, std::byte{9}};
  EXPECT_FALSE(rewriter_.on_command(MigCommand::enable_colo, kPayload));
  // QEMU_VM_COMMAND, be16 command, be16 length, payload (migration/savevm.c qemu_savevm_command_send).
  EXPECT_EQ(drain(), (std::vector<std::byte>{std::byte{8}, std::byte{0}, std::byte{8}, std::byte{0},
                                             std::byte{2}, std::byte{7}, std::byte{9}}));
}

class PostcopyRewriterTest : public StreamRewriterTest {
 protected:
  // Reads what was written up to now: a command and its payload.
  static void expect_command(Reader& reader, MigCommand command, std::size_t bytes) {
    EXPECT_EQ(reader.u8(), 8U);
    const uint32_t head = reader.u32();
    EXPECT_EQ(head >> 16, static_cast<uint32_t>(command));
    EXPECT_EQ(head & 0xffff, bytes);
  }
  StreamError advise(uint64_t page_sizes) {
    std::array<std::byte, 16> payload{};
    store_be64(payload.data(), page_sizes);
    store_be64(payload.data() + 8, kPageBytes);
    return rewriter_.on_command(MigCommand::postcopy_advise, payload);
  }
};

TEST_F(PostcopyRewriterTest, behind_advise_nothing_is_loaded_before_the_memory_is_there_again) {
  EXPECT_TRUE(rewriter_.writable());
  ASSERT_FALSE(advise(kPageBytes));
  EXPECT_TRUE(rewriter_.advised());
  EXPECT_FALSE(rewriter_.writable());
  rewriter_.memory_ready();
  EXPECT_TRUE(rewriter_.writable());
  Reader reader(drain());
  expect_command(reader, MigCommand::postcopy_advise, 16);
  reader.skip(16);
  expect_command(reader, MigCommand::ping, 4);
  EXPECT_EQ(reader.u32(), StreamRewriter::kAdvisePing);
  EXPECT_TRUE(reader.done());
}

// The destination would end, and say why in its own log alone.
TEST_F(PostcopyRewriterTest, other_page_sizes_than_the_sources_are_refused_before_advise_leaves) {
  const StreamError error = advise(kPageBytes | 2 << 20);
  EXPECT_EQ(error.error_class, ErrorClass::mismatch);
  EXPECT_NE(error.message().find("0x201000"), std::string::npos) << error.message();
  EXPECT_TRUE(drain().empty());
  EXPECT_FALSE(rewriter_.advised());
}

TEST_F(PostcopyRewriterTest, a_block_in_hugepages_is_listed_with_their_size_and_compared) {
  StreamRewriter rewriter(blocks_, HandoffForm::plain, {}, {{"mem", 2 << 20}}, out_);
  std::array<std::byte, 16> payload{};
  store_be64(payload.data(), kPageBytes | 2 << 20);
  ASSERT_FALSE(rewriter.on_command(MigCommand::postcopy_advise, payload));
  rewriter.memory_ready();
  (void)drain();
  const SectionHeader section{SectionType::start, 2, "ram", 0, 4};
  const StreamError error = rewriter.on_ram_start(section, entries());
  EXPECT_EQ(error.error_class, ErrorClass::mismatch);
  EXPECT_NE(error.message().find("'mem'"), std::string::npos) << error.message();
}

// What the destination has to have before it drops pages: private blocks as they are now. Then the source
// speaks.
TEST_F(PostcopyRewriterTest, at_the_switch_changed_private_pages_leave_before_the_sources_first_byte) {
  ASSERT_FALSE(advise(kPageBytes));
  rewriter_.memory_ready();
  start();
  while (!rewriter_.writable()) (void)drain();
  (void)drain();
  load(7, 0xaa);
  EXPECT_FALSE(rewriter_.in_postcopy());
  ASSERT_FALSE(rewriter_.on_postcopy());
  EXPECT_TRUE(rewriter_.in_postcopy());
  ASSERT_FALSE(rewriter_.on_postcopy_discard("mem", 1, 2));
  EXPECT_FALSE(rewriter_.packaged());
  ASSERT_FALSE(rewriter_.on_postcopy_package(100));
  EXPECT_TRUE(rewriter_.packaged());
  constexpr std::array<std::byte, 3> kRaw{std::byte{0xf1}, std::byte{0xf2}, std::byte{0xf3}};
  EXPECT_EQ(rewriter_.on_tail(kRaw), kRaw.size());
  Reader reader(drain());
  EXPECT_EQ(reader.section(SectionType::part), (std::vector<Record>{{"vga", 7, 0xaa}}));
  EXPECT_EQ(reader.u8(), 0xf1U);
  EXPECT_EQ(reader.u8(), 0xf2U);
  EXPECT_EQ(reader.u8(), 0xf3U);
  EXPECT_TRUE(reader.done());
  // Of pages 0 to 3 two were dropped: the others are there.
  EXPECT_EQ(rewriter_.discarded().kept("mem", 0), 0b1001);
  EXPECT_EQ(rewriter_.discarded().kept("vga", 0), 0);
}

TEST_F(StreamRewriterTest, every_private_page_is_zero_beforehand_and_every_hugepage_touched_once) {
  const std::vector<Record> part = begin();
  std::vector<Record> expected;
  for (uint64_t page = 0; page < kVideoPages; ++page) {
    if (page % 512 == 0) expected.push_back({"vga", page, 1});
    expected.push_back({"vga", page, -1});
  }
  EXPECT_EQ(part, expected);
}

TEST_F(StreamRewriterTest, a_zero_page_for_untouched_memory_is_neither_written_nor_sent) {
  begin();
  for (uint64_t page = 0; page < kVideoPages; ++page) load_zero(page);
  EXPECT_EQ(video().pages_written(), 0U);
  EXPECT_EQ(end(), std::vector<Record>{});
}

// Its record in the first PART says zero, whatever lies in memory when that goes out.
TEST_F(StreamRewriterTest, a_page_loaded_before_the_first_part_went_out_comes_again_with_its_content) {
  ASSERT_FALSE(rewriter_.on_ram_start({SectionType::start, 2, "ram", 0, 4}, entries()));
  load(1000, 0x11);
  rewriter_.on_ram_section_end(SectionType::start, 2, true);
  rewriter_.on_epoch_closed(Epoch{1});
  Reader reader(drain());
  const std::vector<Record> first = read_start(reader);
  ASSERT_EQ(first.size(), kVideoPages + 2);
  EXPECT_EQ(first[1002], (Record{"vga", 1000, -1}));
  EXPECT_EQ(reader.section(SectionType::part), (std::vector<Record>{{"vga", 1000, 0x11}}));
  EXPECT_TRUE(reader.done());
}

TEST_F(StreamRewriterTest, each_epoch_brings_what_changed_in_it_and_end_what_changed_since) {
  begin();
  load(3, 0x33);
  load(700, 0x77);
  rewriter_.on_epoch_closed(Epoch{1});
  Reader part(drain());
  EXPECT_EQ(part.section(SectionType::part), (std::vector<Record>{{"vga", 3, 0x33}, {"vga", 700, 0x77}}));
  EXPECT_TRUE(part.done());
  rewriter_.on_epoch_closed(Epoch{2});
  EXPECT_TRUE(drain().empty());  // nothing has changed
  load(3, 0x34);
  EXPECT_EQ(end(), (std::vector<Record>{{"vga", 3, 0x34}}));
  EXPECT_EQ(video().pages_written(), 2U);
}

// Its mark was taken, so nothing but `taken` says that there is something to clear.
TEST_F(StreamRewriterTest, a_page_that_had_content_is_cleared_and_sent_as_zero) {
  begin();
  load(5, 0x55);
  rewriter_.on_epoch_closed(Epoch{1});
  (void)drain();
  load_zero(5);
  EXPECT_EQ(video_memory_[5 * kPageBytes], std::byte{0});
  EXPECT_EQ(end(), (std::vector<Record>{{"vga", 5, -1}}));
}

TEST_F(StreamRewriterTest, device_state_begins_only_behind_all_of_end) {
  begin();
  load(9, 0x99);
  rewriter_.on_ram_complete();
  EXPECT_FALSE(rewriter_.device_state_begun());
  constexpr std::array kTail{std::byte{0x04}};
  EXPECT_EQ(rewriter_.on_tail(kTail), 1U);
  EXPECT_TRUE(rewriter_.device_state_begun());
  Reader reader(drain());
  EXPECT_EQ(reader.section(SectionType::end), (std::vector<Record>{{"vga", 9, 0x99}}));
  EXPECT_EQ(reader.u8(), 0x04U);
}

class NarrowStreamRewriterTest : public StreamRewriterTest {
 protected:
  NarrowStreamRewriterTest() : StreamRewriterTest(2 * kMainEventBytesMax) {}
};

TEST_F(NarrowStreamRewriterTest, a_part_larger_than_the_fifo_goes_out_as_there_is_room) {
  begin();
  for (uint64_t page = 0; page < kVideoPages; ++page) load(page, static_cast<uint8_t>(page % 255 + 1));
  rewriter_.on_epoch_closed(Epoch{1});
  EXPECT_FALSE(rewriter_.writable());
  Reader part(drain());
  const std::vector<Record> records = part.section(SectionType::part);
  ASSERT_EQ(records.size(), kVideoPages);
  for (uint64_t page = 0; page < kVideoPages; ++page)
    EXPECT_EQ(records[page], (Record{"vga", page, static_cast<int>(page % 255 + 1)}));
  EXPECT_TRUE(part.done());
}

}  // namespace
}  // namespace migrx
