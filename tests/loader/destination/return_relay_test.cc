#include "loader/destination/return_relay.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace migrx {
namespace {

constexpr uint64_t kPages = 100;

class Message {
 public:
  Message& be16(uint64_t v) { return number(v, 2); }
  Message& be32(uint64_t v) { return number(v, 4); }
  Message& be64(uint64_t v) { return number(v, 8); }
  Message& u8(uint64_t v) { return number(v, 1); }
  Message& text(std::string_view s) {
    for (const char c : s) bytes.push_back(static_cast<std::byte>(c));
    return *this;
  }
  Message& head(ReturnPathType type, uint64_t length) {
    return be16(static_cast<uint64_t>(type)).be16(length);
  }
  Message& pong(uint32_t value) { return head(ReturnPathType::pong, 4).be32(value); }
  Message& shut(uint32_t value) { return head(ReturnPathType::shut, 4).be32(value); }
  Message& request(uint64_t start, uint32_t length) {
    return head(ReturnPathType::req_pages, 12).be64(start).be32(length);
  }
  Message& request(uint64_t start, uint32_t length, std::string_view block) {
    return head(ReturnPathType::req_pages_id, 13 + block.size())
        .be64(start)
        .be32(length)
        .u8(block.size())
        .text(block);
  }
  Message& bitmap(std::string_view block, const std::vector<uint8_t>& bits,
                  uint64_t mark = 0x0123456789abcdef) {
    head(ReturnPathType::recv_bitmap, 1 + block.size()).u8(block.size()).text(block).be64(bits.size());
    for (const uint8_t byte : bits) u8(byte);
    return be64(mark);
  }
  std::vector<std::byte> bytes;

 private:
  Message& number(uint64_t v, int size) {
    for (int shift = (size - 1) * 8; shift >= 0; shift -= 8)
      bytes.push_back(static_cast<std::byte>(v >> shift));
    return *this;
  }
};

class ReturnRelayTest : public testing::Test {
 protected:
  ReturnRelayTest() : memory_(kPages * kPageBytes), video_(8 * kPageBytes) {
    blocks_.add(std::make_unique<RamBlock>("mem", memory_.data(), memory_.size(), true, true, kAnyNode));
    blocks_.add(std::make_unique<RamBlock>("vga", video_.data(), video_.size(), false, true, kAnyNode));
    discarded_.prepare(blocks_);
    discarded_.add("mem", 3, 2);
    discarded_.add("mem", 64, 30);
    discarded_.add("vga", 0, 8);
  }
  // In pieces of `step` bytes.
  bool feed(ReturnRelay& relay, const std::vector<std::byte>& bytes, std::size_t step) {
    out_.clear();
    for (Bytes left{bytes}; !left.empty(); left = left.subspan(std::min(step, left.size())))
      if (!relay.feed(left.first(std::min(step, left.size())), &discarded_, out_)) return false;
    return true;
  }

  std::vector<std::byte> memory_;
  std::vector<std::byte> video_;
  RamBlockList blocks_;
  DiscardedPages discarded_;
  std::vector<std::byte> out_;
};

TEST_F(ReturnRelayTest, passes_every_message_on_as_it_is_and_counts_requests) {
  Message in;
  in.pong(2)
      .request(0x3000, 4096, "mem")
      .request(0x40000, 8192)
      .pong(4)
      .head(ReturnPathType::resume_ack, 4)
      .be32(1);
  in.head(ReturnPathType::switchover_ack, 0).shut(0);
  for (const std::size_t step : {std::size_t{1}, std::size_t{5}, std::size_t{4096}}) {
    ReturnRelay relay;
    ASSERT_TRUE(feed(relay, in.bytes, step)) << relay.error().message();
    EXPECT_EQ(out_, in.bytes);
    EXPECT_EQ(relay.requests(), 2U);
    EXPECT_EQ(relay.requested_bytes(), 12288U);
    EXPECT_EQ(relay.shut(), 0U);
  }
}

// The destination knows of the pages that it has placed itself; the others are in the file all the same.
TEST_F(ReturnRelayTest, a_bitmap_gets_the_pages_that_were_loaded_here_and_not_discarded) {
  std::vector<uint8_t> bits(16);
  bits[0] = 0b1000;  // page 3 was discarded, and has come since
  Message in;
  in.bitmap("mem", bits).bitmap("vga", {0x0f, 0, 0, 0, 0, 0, 0, 0}).pong(9);
  std::vector<uint8_t> wanted(16);
  for (uint64_t page = 0; page < kPages; ++page) {
    const bool discarded = (page >= 3 && page < 5) || (page >= 64 && page < 94);
    if (!discarded || page == 3) wanted[page / 8] = static_cast<uint8_t>(wanted[page / 8] | 1U << page % 8);
  }
  Message expected;
  expected.bitmap("mem", wanted).bitmap("vga", {0x0f, 0, 0, 0, 0, 0, 0, 0}).pong(9);
  for (const std::size_t step : {std::size_t{1}, std::size_t{13}, std::size_t{4096}}) {
    ReturnRelay relay;
    ASSERT_TRUE(feed(relay, in.bytes, step)) << relay.error().message();
    EXPECT_EQ(out_, expected.bytes) << step;
  }
}

TEST_F(ReturnRelayTest, a_connection_that_was_lost_within_a_message_is_begun_anew) {
  ReturnRelay relay;
  Message torn;
  torn.request(0, 4096, "mem");
  torn.bytes.resize(9);
  ASSERT_TRUE(feed(relay, torn.bytes, 4096));
  relay.begin_anew();
  Message in;
  in.bitmap("vga", {1, 0, 0, 0, 0, 0, 0, 0}).shut(0);
  ASSERT_TRUE(feed(relay, in.bytes, 3)) << relay.error().message();
  EXPECT_EQ(out_, in.bytes);
}

TEST_F(ReturnRelayTest, what_no_destination_says_is_refused_and_not_passed_on) {
  struct Wrong {
    const char* name;
    const char* says;
    Message message;
  };
  std::vector<Wrong> wrongs{
      {"invalid", "message 0 of 0 bytes", Message().be16(0).be16(0)},
      {"unknown", "message 9 of 4 bytes", Message().be16(9).be16(4).be32(0)},
      {"a short PONG", "message 2 of 3 bytes", Message().be16(2).be16(3)},
      {"a long request", "message 3 of 269 bytes", Message().be16(3).be16(269)},
      {"a name that does not fit", "REQ_PAGES_ID",
       Message().head(ReturnPathType::req_pages_id, 16).be64(0).be32(4096).u8(9).text("mem")},
      {"a bitmap's name that does not fit", "RECV_BITMAP",
       Message().head(ReturnPathType::recv_bitmap, 4).u8(2).text("mem")},
      {"a bitmap of nothing", "size",
       Message().head(ReturnPathType::recv_bitmap, 4).u8(3).text("mem").be64(0)},
      {"a bitmap of everything", "size",
       Message().head(ReturnPathType::recv_bitmap, 4).u8(3).text("mem").be64(UINT64_MAX)},
      {"another end mark", "end mark", Message().bitmap("mem", {0, 0}, 7)},
      {"words behind SHUT", "follows SHUT", Message().shut(0).pong(1)},
  };
  for (const Wrong& wrong : wrongs)
    for (const std::size_t step : {std::size_t{1}, std::size_t{4096}}) {
      ReturnRelay relay;
      EXPECT_FALSE(feed(relay, wrong.message.bytes, step)) << wrong.name;
      EXPECT_NE(relay.error().message().find(wrong.says), std::string::npos)
          << wrong.name << ": " << relay.error().message();
    }
}

// Up to the package the ranges still come, and a destination that speaks of bitmaps then is none.
TEST_F(ReturnRelayTest, before_the_package_nothing_is_added) {
  ReturnRelay relay;
  Message in;
  in.bitmap("mem", std::vector<uint8_t>(16));
  ASSERT_TRUE(relay.feed(in.bytes, nullptr, out_));
  EXPECT_EQ(out_, in.bytes);
}

}  // namespace
}  // namespace migrx
