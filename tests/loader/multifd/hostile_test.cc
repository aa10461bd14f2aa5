// What a source must not send: each field's limits, and damage at random.
#include <gtest/gtest.h>

#include <functional>

#include "tests/loader/multifd/channel_fixture.h"

namespace migrx {
namespace {

using test::ChannelFixture;
using test::MultifdMethod;
using Builder = test::MultifdStreamBuilder;

class HostileMultifd : public ChannelFixture {
 protected:
  // init, SYNC 0, then what `write` adds; released up to epoch 1.
  StreamError error_of(const std::function<void(Builder&)>& write,
                       MultifdCompression compression = MultifdCompression::none) {
    reset();
    Builder b;
    b.init(1);
    b.sync(0);
    EXPECT_EQ(b.bytes.size(), kBegin);
    write(b);
    make_channel(compression);
    release(0);
    const ParseStatus status = channel().parse(b.bytes).status;
    EXPECT_EQ(status == ParseStatus::failed, static_cast<bool>(channel().error()));
    return channel().error();
  }
  StreamError error_of_header(const std::function<void(Builder::Header&)>& change) {
    return error_of([&](Builder& b) {
      Builder::Header h;
      h.normal_pages = 1;
      h.next_packet_size = kPageBytes;
      h.ramblock = "mem";
      h.offsets = {0x1000};
      change(h);
      b.header(h);
      b.fill(h.next_packet_size > (1U << 20) ? 0 : h.next_packet_size);
    });
  }
  static constexpr uint64_t kBegin = 64 + 1344;
};

void expect(const StreamError& error, ErrorClass error_class, const std::string& text, uint64_t offset) {
  EXPECT_EQ(error.error_class, error_class) << error.message();
  EXPECT_NE(error.message().find(text), std::string::npos) << error.message();
  EXPECT_EQ(error.offset, offset) << error.message();
}

TEST_F(HostileMultifd, init_packet) {
  const auto init_error = [&](std::size_t at, uint8_t value) {
    reset();
    Builder b;
    b.init(1);
    b.bytes[at] = std::byte{value};
    make_channel();
    channel().parse(b.bytes);
    return channel().error();
  };
  expect(init_error(0, 0x10), ErrorClass::bad_stream, "magic", 0);
  expect(init_error(7, 2), ErrorClass::unsupported, "version", 0);
  expect(init_error(24, 2), ErrorClass::mismatch, "multifd-channels is 2 here", 0);
  expect(init_error(24, 255), ErrorClass::mismatch, "channel id 255", 0);
  EXPECT_FALSE(init_error(25, 0xff));
  EXPECT_FALSE(init_error(63, 0xff));
}

TEST_F(HostileMultifd, header_fields) {
  using H = Builder::Header;
  EXPECT_FALSE(error_of_header([](H&) {}));
  expect(error_of_header([](H& h) { h.magic = 0x11223345; }), ErrorClass::bad_stream, "magic", kBegin);
  expect(error_of_header([](H& h) { h.version = 0; }), ErrorClass::unsupported, "version", kBegin);
  expect(error_of_header([](H& h) { h.flags = 0x80; }), ErrorClass::unsupported, "0x80", kBegin);
  expect(error_of_header([](H& h) { h.flags = 0x41; }), ErrorClass::bad_stream, "exclude", kBegin);
  expect(error_of_header([](H& h) { h.flags = 0x02; }), ErrorClass::mismatch,
         "multifd-compression is zlib at the source and none here", kBegin);
  expect(error_of_header([](H& h) { h.flags = 0x06; }), ErrorClass::mismatch, "is 0x6 at the source", kBegin);
  expect(error_of_header([](H& h) { h.pages_alloc = 129; }), ErrorClass::mismatch, "pages_alloc", kBegin);
  expect(error_of_header([](H& h) { h.pages_alloc = 0; }), ErrorClass::bad_stream, "normal_pages", kBegin);
  expect(error_of_header([](H& h) { h.normal_pages = 129; }), ErrorClass::bad_stream, "normal_pages", kBegin);
  expect(error_of_header([](H& h) { h.normal_pages = 0xffffffff; }), ErrorClass::bad_stream, "normal_pages",
         kBegin);
  expect(error_of_header([](H& h) { h.zero_pages = 128; }), ErrorClass::bad_stream, "zero_pages", kBegin);
  expect(error_of_header([](H& h) { h.zero_pages = 0xffffffff; }), ErrorClass::bad_stream, "zero_pages",
         kBegin);
  expect(error_of_header([](H& h) { h.next_packet_size = 4095; }), ErrorClass::bad_stream, "next_packet_size",
         kBegin);
  expect(error_of_header([](H& h) { h.next_packet_size = 0; }), ErrorClass::bad_stream, "next_packet_size",
         kBegin);
  expect(error_of_header([](H& h) { h.next_packet_size = 0xffffffff; }), ErrorClass::bad_stream,
         "next_packet_size", kBegin);
  expect(error_of_header([](H& h) { h.ramblock = "me"; }), ErrorClass::bad_stream, "\"me\"", kBegin);
  expect(error_of_header([](H& h) { h.ramblock = ""; }), ErrorClass::bad_stream, "block list", kBegin);
  expect(error_of_header([](H& h) { h.ramblock = "\x1b[2J"; }), ErrorClass::bad_stream, "\"?[2J\"", kBegin);
  expect(error_of_header([](H& h) { h.ramblock = std::string(256, 'a'); }), ErrorClass::bad_stream, "no end",
         kBegin);
  expect(error_of_header([](H& h) { h.ramblock = std::string(255, 'a'); }), ErrorClass::bad_stream,
         "block list", kBegin);
  for (const uint64_t offset : {uint64_t{0x1001}, uint64_t{0x1fff}, kMemBytes, kMemBytes + 0x1000,
                                uint64_t{0xfffffffffffff000}, ~uint64_t{0}})
    expect(error_of_header([&](H& h) { h.offsets = {offset}; }), ErrorClass::bad_stream, "page 0 of 1",
           kBegin + 320);
  EXPECT_FALSE(error_of_header([](H& h) { h.offsets = {kMemBytes - kPageBytes}; }));
  expect(error_of_header([](H& h) {
           h.zero_pages = 2;
           h.offsets = {0x1000, 0, kMemBytes};
         }),
         ErrorClass::bad_stream, "page 2 of 3", kBegin + 320 + 16);
}

TEST_F(HostileMultifd, flags_and_sizes_of_packets_without_normal_pages_are_not_looked_at) {
  const auto zero_only = [](uint32_t flags) {
    return [flags](Builder::Header& h) {
      h.flags = flags;
      h.normal_pages = 0;
      h.zero_pages = 1;
      h.next_packet_size = 0;
    };
  };
  for (const uint32_t flags : {0U, 2U, 4U, 32U}) EXPECT_FALSE(error_of_header(zero_only(flags)));
  EXPECT_FALSE(error_of([](Builder& b) {
    b.empty_trailer(0);
    b.sync(1);
  }));
  EXPECT_EQ(channel().counters().syncs.read(), 2U);
}

TEST_F(HostileMultifd, compressed_payload_sizes) {
  for (const uint32_t size : {0U, kMultifdPayloadMax + 1, 0xffffffffU})
    expect(error_of(
               [&](Builder& b) {
                 Builder::Header h;
                 h.flags = 2;
                 h.normal_pages = 1;
                 h.next_packet_size = size;
                 h.ramblock = "mem";
                 h.offsets = {0};
                 b.header(h);
               },
               MultifdCompression::zlib),
           ErrorClass::bad_stream, "next_packet_size", kBegin);
}

// A bomb: the payload inflates to 1024 times what the header announces. What is over is not even inflated;
// the block's guard pages see to it that nothing is written there.
TEST_F(HostileMultifd, a_payload_that_inflates_to_more_than_its_pages_is_cut_off) {
  const std::vector<std::byte> zeros(64 << 20);
  std::vector<std::byte> bomb = Builder::deflate_whole(zeros.data(), zeros.size(), 9, 15);
  bomb.resize(std::min<std::size_t>(bomb.size(), kMultifdPayloadMax));
  ASSERT_LT(bomb.size(), 80'000U);
  const StreamError error = error_of(
      [&](Builder& b) {
        Builder::Header h;
        h.flags = 2;
        h.normal_pages = 16;
        h.next_packet_size = static_cast<uint32_t>(bomb.size());
        h.ramblock = "mem";
        for (uint64_t page = 0; page < 16; ++page) h.offsets.push_back(page * kPageBytes);
        b.header(h);
        b.bytes.insert(b.bytes.end(), bomb.begin(), bomb.end());
      },
      MultifdCompression::zlib);
  expect(error, ErrorClass::bad_stream, "more than the pages", kBegin);
  EXPECT_LE(pages_written().size(), 16U);
}

// libzstd keeps a window of this size at most, whatever a frame asks for.
TEST_F(HostileMultifd, the_window_of_zstd_is_bounded_by_default) {
  EXPECT_EQ(DecoderLimits{}.zstd_window_log_max, 27);
  // A frame that asks for 2^31: magic, no content size, window descriptor (exponent 21, mantissa 0).
  const std::vector<std::byte> frame{std::byte{0x28}, std::byte{0xb5},    std::byte{0x2f}, std::byte{0xfd},
                                     std::byte{0x00}, std::byte{21 << 3}, std::byte{1},    std::byte{0},
                                     std::byte{0},    std::byte{0}};
  const StreamError error = error_of(
      [&](Builder& b) {
        Builder::Header h;
        h.flags = 4;
        h.normal_pages = 1;
        h.next_packet_size = static_cast<uint32_t>(frame.size());
        h.ramblock = "mem";
        h.offsets = {0};
        b.header(h);
        b.bytes.insert(b.bytes.end(), frame.begin(), frame.end());
      },
      MultifdCompression::zstd);
  expect(error, ErrorClass::mismatch, "window", kBegin);
}

// The guest may run by then.
TEST_F(HostileMultifd, no_page_may_come_behind_the_end_of_ram) {
  for (const bool zero : {false, true}) {
    reset();
    Builder b;
    b.init(0);
    b.sync(0);
    b.sync(1);
    if (zero)
      b.pages(2, "mem", {}, content(1), {0});
    else
      b.pages(2, "mem", {0}, content(1));
    make_channel();
    EXPECT_FALSE(barrier().release_all());
    EXPECT_EQ(channel().parse(b.bytes).status, ParseStatus::failed);
    expect(channel().error(), ErrorClass::bad_stream, "after the end of RAM", 64 + 2 * 1344);
    EXPECT_TRUE(pages_written().empty());
  }
}

TEST_F(HostileMultifd, no_page_may_come_before_the_first_sync) {
  Builder b;
  b.init(0);
  b.pages(0, "mem", {0}, content(1));
  make_channel();
  EXPECT_EQ(channel().parse(b.bytes).status, ParseStatus::failed);
  expect(channel().error(), ErrorClass::bad_stream, "before the first SYNC", 64);
  EXPECT_EQ(channel().error().channel, (ChannelName{MultifdId{0}}));
  EXPECT_TRUE(pages_written().empty());

  reset();
  Builder with_sync;
  with_sync.init(0);
  with_sync.pages(0, "mem", {}, content(1), {0}, true);
  make_channel();
  EXPECT_EQ(channel().parse(with_sync.bytes).status, ParseStatus::failed);
  expect(channel().error(), ErrorClass::bad_stream, "before the first SYNC", 64);
}

TEST_F(HostileMultifd, device_state_is_refused_with_the_device_name) {
  const StreamError error = error_of([](Builder& b) {
    b.be32(0x11223344);
    b.be32(1);
    b.be32(0x40);
    const std::string idstr = "0000:00:03.0/vfio";
    for (std::size_t i = 0; i < 256; ++i)
      b.bytes.push_back(i < idstr.size() ? static_cast<std::byte>(idstr[i]) : std::byte{0});
    b.be32(5);
    b.be32(100);
  });
  expect(error, ErrorClass::unsupported, "0000:00:03.0/vfio instance 5", kBegin);
  EXPECT_NE(error.message().find("x-migration-multifd-transfer"), std::string::npos);
}

// Whatever comes, stores stay inside the blocks (guard pages), and the channel ends in one of its states.
TEST_F(HostileMultifd, random_damage_never_writes_outside_of_the_blocks) {
  std::mt19937 random(12);
  int failed = 0, survived = 0;
  for (const MultifdMethod method : {MultifdMethod::none, MultifdMethod::zlib, MultifdMethod::zstd,
                                     MultifdMethod::qpl, MultifdMethod::uadk}) {
    Builder b(method);
    b.init(0);
    b.sync(0);
    b.pages(1, "mem", {0x3f000, 0x3e000, 0}, content(1), {0x3d000});
    b.pages(2, "small", {0x4000, 0x3000}, content(2), {0});
    b.sync(3);
    b.pages(4, "mem", {0x1000, 0x2000}, content(3));
    const auto compression = static_cast<MultifdCompression>(method);
    for (int round = 0; round < 400; ++round) {
      std::vector<std::byte> damaged = b.bytes;
      for (auto flips = 1 + random() % 4; flips > 0; --flips) {
        // Headers are the interesting part: offsets and counts lie in the first bytes behind each packet's
        // begin.
        const std::size_t at = random() % 2 == 0 ? random() % damaged.size() : (64 + 1344 + random() % 400);
        damaged[at] ^= static_cast<std::byte>(1U << random() % 8);
      }
      reset();
      make_channel(compression);
      barrier().release(Epoch{1U << 30});  // nothing has to wait
      ParseStatus status = ParseStatus::need_more;
      for (std::size_t at = 0; at < damaged.size() && status != ParseStatus::failed;) {
        const std::size_t n = std::min<std::size_t>(1 + random() % 3000, damaged.size() - at);
        status = channel().parse(Bytes(damaged).subspan(at, n)).status;
        at += n;
      }
      (status == ParseStatus::failed ? failed : survived) += 1;
      EXPECT_EQ(status == ParseStatus::failed, static_cast<bool>(channel().error()));
    }
  }
  EXPECT_GT(failed, 500);
  EXPECT_GT(survived, 50);
}

}  // namespace
}  // namespace migrx
