#include "dataplane/wire/segment.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string_view>
#include <vector>

#include "dataplane/wire/checksum.h"

namespace migrx {
namespace {

using Frame = std::vector<std::byte>;

Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span{text});
}

OutSegment sample() {
  OutSegment out;
  out.tuple = {Ipv4Address{0x0a4d0002}, Ipv4Address{0x0a4d0001}, 4444,
               45678};  // what the sender calls remote is we
  out.link.remote_mac.bytes.fill(std::byte{2});
  out.link.local_mac.bytes.fill(std::byte{4});
  out.seq = SeqNum{0xffff'fffe};
  out.ack = SeqNum{7};
  out.window = 1000;
  out.flags = tcp_flag::ack | tcp_flag::psh;
  return out;
}

Frame build(const OutSegment& out, TxChecksum checksum = TxChecksum::full) {
  Frame frame(kHeaderBytesMax + out.payload.size());
  frame.resize(build_segment(out, frame, checksum));
  return frame;
}

WireCounter parse(const Frame& frame, TcpSegment& segment) {
  return parse_segment(frame, static_cast<uint32_t>(frame.size()), segment);
}

bool sums_ok(const TcpSegment& segment, const Frame& frame) {
  const Bytes whole{frame};
  return ip_checksum_ok(segment, whole) && tcp_checksum_ok(segment, {&whole, 1});
}

TEST(Segment, built_segment_is_parsed_back) {
  OutSegment out = sample();
  out.payload = bytes_of("hello");
  out.options = tcp_option::timestamps;
  out.ts_val = 0x01020304;
  out.ts_ecr = 0x05060708;
  const Frame frame = build(out);
  TcpSegment in;
  ASSERT_EQ(parse(frame, in), WireCounter::segment_ok);
  EXPECT_EQ(in.tuple, (FourTuple{Ipv4Address{0x0a4d0001}, Ipv4Address{0x0a4d0002}, 45678, 4444}));
  EXPECT_EQ(in.link.remote_mac, out.link.local_mac);
  EXPECT_EQ(in.link.local_mac, out.link.remote_mac);
  EXPECT_EQ(in.seq, out.seq);
  EXPECT_EQ(in.ack, out.ack);
  EXPECT_EQ(in.window, 1000);
  EXPECT_EQ(in.flags, out.flags);
  EXPECT_EQ(in.options, tcp_option::timestamps);
  EXPECT_EQ(in.ts_val, out.ts_val);
  EXPECT_EQ(in.ts_ecr, out.ts_ecr);
  ASSERT_EQ(in.payload_length, 5U);
  EXPECT_EQ(std::memcmp(frame.data() + in.payload_offset, "hello", 5), 0);
  EXPECT_TRUE(sums_ok(in, frame));
  EXPECT_EQ(in.length(), 5U);
}

TEST(Segment, every_option_of_a_syn_is_read) {
  OutSegment out = sample();
  out.flags = tcp_flag::syn;
  out.options =
      tcp_option::mss | tcp_option::window_scale | tcp_option::sack_permitted | tcp_option::timestamps;
  out.mss = 8960;
  out.window_scale = 7;
  out.ts_val = 9;
  const Frame frame = build(out);
  TcpSegment in;
  ASSERT_EQ(parse(frame, in), WireCounter::segment_ok);
  EXPECT_EQ(in.options, out.options);
  EXPECT_EQ(in.mss, 8960);
  EXPECT_EQ(in.window_scale, 7);
  EXPECT_EQ(in.ts_val, 9U);
  EXPECT_EQ(in.length(), 1U);
  EXPECT_TRUE(sums_ok(in, frame));
}

TEST(Segment, sack_blocks_beside_timestamps_and_alone) {
  for (const uint8_t options : {uint8_t{0}, tcp_option::timestamps}) {
    OutSegment out = sample();
    out.options = options;
    out.sack_count = 4;
    for (uint32_t i = 0; i < 4; ++i) out.sack[i] = {SeqNum{i * 10}, SeqNum{i * 10 + 5}};
    const Frame frame = build(out);
    TcpSegment in;
    ASSERT_EQ(parse(frame, in), WireCounter::segment_ok);
    ASSERT_EQ(in.sack_count, options == 0 ? 4 : 3);
    for (uint32_t i = 0; i < in.sack_count; ++i) EXPECT_EQ(in.sack[i], out.sack[i]);
    EXPECT_EQ(in.options, options);
    EXPECT_TRUE(sums_ok(in, frame));
  }
}

TEST(Segment, vlan_tag_comes_back) {
  OutSegment out = sample();
  out.link.tagged = 1;
  out.link.vlan_tci = 0x2064;
  const Frame frame = build(out);
  TcpSegment in;
  ASSERT_EQ(parse(frame, in), WireCounter::segment_ok);
  EXPECT_EQ(in.link.tagged, 1);
  EXPECT_EQ(in.link.vlan_tci, 0x2064);
  EXPECT_EQ(in.tcp_offset, 38);
  EXPECT_TRUE(sums_ok(in, frame));
}

// RFC 894: frames are padded to 60 bytes. The padding is no payload.
TEST(Segment, ethernet_padding_is_trimmed) {
  Frame frame = build(sample());
  frame.resize(60, std::byte{0xee});
  TcpSegment in;
  ASSERT_EQ(parse(frame, in), WireCounter::segment_ok);
  EXPECT_EQ(in.payload_length, 0U);
  EXPECT_TRUE(sums_ok(in, frame));
}

TEST(Segment, ip_options_are_skipped) {
  OutSegment out = sample();
  out.payload = bytes_of("xyz");
  Frame frame = build(out);
  // Three NOPs and an end of list.
  const std::array<std::byte, 4> options{std::byte{1}, std::byte{1}, std::byte{1}, std::byte{0}};
  frame.insert(frame.begin() + 34, options.begin(), options.end());
  frame[14] = std::byte{0x46};
  store_be16(&frame[16], static_cast<uint16_t>(frame.size() - 14));
  TcpSegment in;
  ASSERT_EQ(parse(frame, in), WireCounter::segment_ok);
  EXPECT_EQ(in.tcp_offset, 38);
  ASSERT_EQ(in.payload_length, 3U);
  EXPECT_EQ(std::memcmp(frame.data() + in.payload_offset, "xyz", 3), 0);
}

TEST(Segment, fragments_are_refused) {
  for (const uint16_t fragment : {uint16_t{0x2000}, uint16_t{0x0001}, uint16_t{0x1fff}}) {
    Frame frame = build(sample());
    store_be16(&frame[20], fragment);
    TcpSegment in;
    EXPECT_EQ(parse(frame, in), WireCounter::ip_fragment);
  }
}

TEST(Segment, each_wrong_field_has_its_fate) {
  struct Case {
    std::size_t offset;
    uint8_t value;
    WireCounter fate;
  };
  const Case cases[] = {
      {12, 0x86, WireCounter::other_ethertype}, {13, 0x06, WireCounter::arp},
      {14, 0x65, WireCounter::ip_header_bad},   {14, 0x44, WireCounter::ip_header_bad},
      {16, 0xff, WireCounter::ip_length_bad},   {17, 19, WireCounter::ip_header_bad},
      {17, 39, WireCounter::tcp_header_bad},    {23, 1, WireCounter::icmp},
      {23, 17, WireCounter::other_ip_protocol}, {26, 0xe0, WireCounter::ip_header_bad},
      {46, 0x40, WireCounter::tcp_header_bad},  {46, 0xf0, WireCounter::tcp_header_bad},
  };
  for (const Case& c : cases) {
    Frame frame = build(sample());
    frame[c.offset] = std::byte{c.value};
    TcpSegment in;
    EXPECT_EQ(parse(frame, in), c.fate) << "offset " << c.offset;
  }
}

// A tag of a provider's, with and without the customer's behind it, and two of the customer's kind.
TEST(Segment, more_than_one_802_1q_tag_is_told_apart_from_other_protocols) {
  const Frame plain = build(sample());
  const auto with = [&](std::initializer_list<uint16_t> tags) {
    Frame frame(plain.begin(), plain.begin() + 12);
    for (const uint16_t tag : tags) {
      std::array<std::byte, 4> bytes{};
      store_be16(bytes.data(), tag);
      store_be16(bytes.data() + 2, 7);
      frame.insert(frame.end(), bytes.begin(), bytes.end());
    }
    frame.insert(frame.end(), plain.begin() + 12, plain.end());
    return frame;
  };
  TcpSegment in;
  EXPECT_EQ(parse(with({0x8100}), in), WireCounter::segment_ok);
  for (const Frame& frame :
       {with({0x88a8}), with({0x88a8, 0x8100}), with({0x8100, 0x8100}), with({0x8100, 0x88a8})})
    EXPECT_EQ(parse(frame, in), WireCounter::stacked_vlan);
}

TEST(Segment, headers_must_lie_in_the_first_buffer) {
  OutSegment out = sample();
  out.payload = bytes_of("hello");
  out.options = tcp_option::timestamps;
  const Frame frame = build(out);
  TcpSegment in;
  for (std::size_t n = 0; n < frame.size(); ++n) {
    const WireCounter fate = parse_segment(Bytes{frame}.first(n), static_cast<uint32_t>(frame.size()), in);
    if (n < 14) {
      EXPECT_EQ(fate, WireCounter::frame_too_short) << n;
    } else if (n < 66) {
      EXPECT_EQ(fate, WireCounter::frame_headers_split) << n;
    } else {
      EXPECT_EQ(fate, WireCounter::segment_ok) << n;
    }
  }
}

TEST(Segment, cut_frames_are_refused_at_every_length) {
  OutSegment out = sample();
  out.payload = bytes_of("hello");
  const Frame frame = build(out);
  TcpSegment in;
  for (std::size_t n = 0; n < frame.size(); ++n) {
    // An exact copy, so that a sanitizer sees any byte read beyond it.
    const Frame cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_NE(parse(cut, in), WireCounter::segment_ok) << n;
  }
}

TEST(Segment, checksum_over_scattered_buffers_and_every_flipped_bit) {
  OutSegment out = sample();
  out.payload = bytes_of("some bytes that matter");
  Frame frame = build(out);
  frame.resize(frame.size() + 3, std::byte{0xaa});  // padding
  TcpSegment in;
  ASSERT_EQ(parse(frame, in), WireCounter::segment_ok);
  const Bytes whole{frame};
  for (std::size_t a = 54; a < whole.size(); ++a) {
    for (std::size_t b = a; b < whole.size(); ++b) {
      const Bytes pieces[] = {whole.first(a), whole.subspan(a, b - a), whole.subspan(b)};
      ASSERT_TRUE(tcp_checksum_ok(in, pieces)) << a << " " << b;
    }
  }
  const Bytes short_of_one[] = {whole.first(in.payload_offset + in.payload_length - 1)};
  EXPECT_FALSE(tcp_checksum_ok(in, short_of_one));
  for (std::size_t bit = in.tcp_offset * 8U; bit < (in.payload_offset + in.payload_length) * 8U; ++bit) {
    frame[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    EXPECT_FALSE(tcp_checksum_ok(in, {&whole, 1})) << bit;
    frame[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
  }
}

// DPDK's transmit offload wants the sum of the pseudo-header in the field and completes it.
TEST(Segment, offloaded_checksum_is_the_pseudo_headers) {
  OutSegment out = sample();
  out.payload = bytes_of("data");
  Frame offloaded = build(out, TxChecksum::both_by_port);
  const Frame full = build(out);
  EXPECT_EQ(load_be16(&offloaded[24]), 0);
  ChecksumSum sum;
  sum.add(Bytes{offloaded}.subspan(34));
  store_be16(&offloaded[50], sum.checksum());
  EXPECT_EQ(load_be16(&offloaded[50]), load_be16(&full[50]));
  EXPECT_NE(load_be16(&build(out, TxChecksum::tcp_by_port)[24]), 0);
}

TEST(Segment, malformed_options_end_parsing_but_keep_what_came_before) {
  struct Case {
    std::vector<uint8_t> bytes;
    uint8_t options;
  };
  const Case cases[] = {
      {{2, 4, 5, 0xb4}, tcp_option::mss},
      {{2, 4, 5, 0xb4, 3, 0, 0, 0}, tcp_option::mss},           // length 0
      {{2, 4, 5, 0xb4, 3, 1, 7, 0}, tcp_option::mss},           // length 1
      {{2, 4, 5, 0xb4, 1, 1, 1, 8}, tcp_option::mss},           // a kind without room for its length
      {{8, 10, 0, 0, 0, 1, 0, 0}, 0},                           // longer than the header
      {{0, 4, 2, 4, 5, 0xb4, 0, 0}, 0},                         // end of list hides the rest
      {{3, 4, 7, 0, 4, 2, 1, 1}, tcp_option::sack_permitted},   // window scale of a wrong length
      {{253, 6, 1, 2, 3, 4, 4, 2}, tcp_option::sack_permitted}  // unknown kind
  };
  for (const Case& c : cases) {
    Frame frame = build(sample());
    for (const uint8_t b : c.bytes) frame.push_back(std::byte{b});
    frame[46] = static_cast<std::byte>((20 + c.bytes.size()) / 4 << 4);
    store_be16(&frame[16], static_cast<uint16_t>(frame.size() - 14));
    TcpSegment in;
    ASSERT_EQ(parse(frame, in), WireCounter::segment_ok);
    EXPECT_EQ(in.options, c.options) << static_cast<int>(c.bytes[0]);
    EXPECT_EQ(in.payload_length, 0U);
  }
}

// A bulk sender writes the payload straight into the frame, where header_bytes() says.
TEST(Segment, payload_already_in_place_gives_the_same_frame) {
  const std::string text(100, 'p');
  for (const int options : {0, 8, 1 | 2 | 4 | 8, 4}) {
    for (const int tagged : {0, 1}) {
      OutSegment out = sample();
      out.options = static_cast<uint8_t>(options);
      out.link.tagged = static_cast<uint16_t>(tagged);
      out.mss = 1460;
      out.payload = bytes_of(text);
      const Frame copied = build(out);
      Frame frame(kHeaderBytesMax + text.size());
      ASSERT_EQ(header_bytes(out) + text.size(), copied.size());
      std::memcpy(frame.data() + header_bytes(out), text.data(), text.size());
      out.payload = Bytes{frame}.subspan(header_bytes(out), text.size());
      frame.resize(build_segment(out, frame, TxChecksum::full));
      EXPECT_EQ(frame, copied);
    }
  }
}

// Whatever the bytes are, the payload that is reported lies inside the frame.
TEST(Segment, random_damage_never_leads_out_of_the_frame) {
  std::mt19937 random{4};
  OutSegment out = sample();
  out.options = tcp_option::timestamps;
  out.payload = bytes_of("0123456789");
  const Frame good = build(out);
  uint32_t accepted = 0;
  for (int round = 0; round < 50'000; ++round) {
    Frame frame = good;
    for (uint32_t n = 1 + random() % 4; n > 0; --n)
      frame[random() % frame.size()] = static_cast<std::byte>(random());
    frame.resize(random() % 4 == 0 ? random() % (frame.size() + 1) : frame.size());
    TcpSegment in;
    if (parse(frame, in) != WireCounter::segment_ok) continue;
    ++accepted;
    ASSERT_LE(in.payload_offset + in.payload_length, frame.size());
    ASSERT_LE(in.sack_count, kSackBlocksMax);
    static_cast<void>(sums_ok(in, frame));
  }
  EXPECT_GT(accepted, 1000U);
}

}  // namespace
}  // namespace migrx
