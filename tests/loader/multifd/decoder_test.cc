#include "loader/multifd/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "tests/loader/multifd/channel_fixture.h"

namespace migrx {
namespace {

using test::ChannelFixture;
using test::MultifdMethod;
using Builder = test::MultifdStreamBuilder;

struct Case {
  MultifdMethod method;
  int level;
};
std::string name_of(const testing::TestParamInfo<Case>& c) {
  return std::string(to_string(static_cast<MultifdCompression>(c.param.method))) + "_" +
         std::to_string(c.param.level);
}

class EachMethod : public ChannelFixture, public testing::WithParamInterface<Case> {
 protected:
  [[nodiscard]] MultifdCompression compression() const {
    return static_cast<MultifdCompression>(GetParam().method);
  }
  [[nodiscard]] bool keeps_stream() const {
    return GetParam().method == MultifdMethod::zlib || GetParam().method == MultifdMethod::zstd;
  }
};
INSTANTIATE_TEST_SUITE_P(Methods, EachMethod,
                         testing::Values(Case{MultifdMethod::zlib, 0}, Case{MultifdMethod::zlib, 1},
                                         Case{MultifdMethod::zlib, 6}, Case{MultifdMethod::zlib, 9},
                                         Case{MultifdMethod::zstd, 1}, Case{MultifdMethod::zstd, 3},
                                         Case{MultifdMethod::zstd, 19}, Case{MultifdMethod::qpl, 1},
                                         Case{MultifdMethod::uadk, 6}),
                         name_of);

TEST_P(EachMethod, many_packets_in_random_pieces) {
  std::mt19937 random(13);
  Builder b(GetParam().method, GetParam().level);
  b.init(0);
  b.sync(0);
  std::vector<uint32_t> version(block().pages());
  for (uint32_t packet = 1; packet <= 16; ++packet) {
    std::vector<uint64_t> offsets = shuffled_offsets(version.size(), random);
    offsets.resize(1 + random() % offsets.size());
    if (random() % 2 == 0) std::sort(offsets.begin(), offsets.end());
    b.pages(packet, "mem", offsets, content(packet % 7 + 1), {}, packet == 8);
    for (const uint64_t offset : offsets) version[offset / kPageBytes] = packet % 7 + 1;
  }
  b.sync(99);
  for (const std::size_t piece_max :
       {std::size_t{100}, std::size_t{1448}, std::size_t{9000}, b.bytes.size()}) {
    reset();
    make_channel(compression());
    barrier().release(Epoch{1U << 30});  // nothing has to wait
    for (std::size_t at = 0; at < b.bytes.size();) {
      const std::size_t n = std::min<std::size_t>(
          piece_max == b.bytes.size() ? piece_max : 1 + random() % piece_max, b.bytes.size() - at);
      const std::vector<std::byte> piece(b.bytes.begin() + static_cast<std::ptrdiff_t>(at),
                                         b.bytes.begin() + static_cast<std::ptrdiff_t>(at + n));
      ASSERT_EQ(feed(piece), ParseStatus::need_more) << channel().error().message();
      at += n;
    }
    EXPECT_EQ(channel().counters().syncs.read(), 3U);
    for (uint64_t page = 0; page < block().pages(); ++page)
      ASSERT_TRUE(version[page] == 0 ? page_is_zero(page * kPageBytes)
                                     : page_is(page * kPageBytes, version[page]))
          << page << " " << piece_max;
  }
}

TEST_P(EachMethod, every_split_point_of_two_packets) {
  Builder b(GetParam().method, GetParam().level);
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x2000, 0x3000}, content(4));
  b.pages(2, "mem", {0x2000}, content(5));
  // The decoder is the same at each level; what a high one needs is larger, and takes long to have anew.
  const std::size_t step = GetParam().method == MultifdMethod::zstd && GetParam().level > 1 ? 13 : 1;
  for (std::size_t cut = 64 + 1344; cut <= b.bytes.size(); cut += step) {
    reset();
    make_channel(compression());
    release(0);
    ASSERT_EQ(feed(Bytes(b.bytes).first(cut)), ParseStatus::need_more) << cut << channel().error().message();
    ASSERT_EQ(feed(Bytes(b.bytes).subspan(cut)), ParseStatus::need_more)
        << cut << channel().error().message();
    ASSERT_TRUE(page_is(0x2000, 5) && page_is(0x3000, 4)) << cut;
  }
}

TEST_P(EachMethod, the_payload_must_hold_exactly_the_pages) {
  // One page more, one page less than the header says.
  for (const int difference : {-1, 1}) {
    Builder b(GetParam().method, GetParam().level);
    b.init(0);
    b.sync(0);
    std::vector<uint64_t> offsets{0x1000, 0x2000, 0x3000};
    const Builder::Buffer payload = b.encode(offsets, content(1));
    offsets.resize(static_cast<std::size_t>(3 + difference), 0x9000);
    Builder::Header h;
    h.flags = b.method_flag();
    h.normal_pages = static_cast<uint32_t>(offsets.size());
    h.next_packet_size = static_cast<uint32_t>(payload.size());
    h.ramblock = "mem";
    h.offsets = offsets;
    b.header(h);
    b.bytes.insert(b.bytes.end(), payload.begin(), payload.end());
    reset();
    make_channel(compression());
    release(0);
    EXPECT_EQ(channel().parse(b.bytes).status, ParseStatus::failed) << difference;
    EXPECT_EQ(channel().error().error_class, ErrorClass::bad_stream);
    const std::string message = channel().error().message();
    const char* const want =
        keeps_stream() ? difference > 0 ? "before all pages" : "more than the pages" : "lengths";
    EXPECT_NE(message.find(want), std::string::npos) << message;
  }
}

// Sizes around those of the decoders' own buffers, 64 and 128 KiB; the pages end where the block does, and a
// guard page follows.
TEST_P(EachMethod, one_byte_too_many_or_too_few_writes_nothing_but_the_pages) {
  if (!keeps_stream()) GTEST_SKIP() << "one stream for each page";
  const auto compress = [&](const Builder::Buffer& plain) {
    Builder::Buffer out(plain.size() + plain.size() / 100 + 1000);
    if (GetParam().method == MultifdMethod::zlib) {
      z_stream z{};
      EXPECT_EQ(deflateInit(&z, GetParam().level), Z_OK);
      z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
      z.avail_in = static_cast<uInt>(plain.size());
      z.next_out = reinterpret_cast<Bytef*>(out.data());
      z.avail_out = static_cast<uInt>(out.size());
      EXPECT_EQ(deflate(&z, Z_SYNC_FLUSH), Z_OK);
      out.resize(out.size() - z.avail_out);
      deflateEnd(&z);
      return out;
    }
    ZSTD_CCtx* const z = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, GetParam().level);
    ZSTD_inBuffer from{plain.data(), plain.size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    EXPECT_EQ(ZSTD_compressStream2(z, &to, &from, ZSTD_e_flush), 0U);
    ZSTD_freeCCtx(z);
    out.resize(to.pos);
    return out;
  };
  for (const uint64_t pages : {uint64_t{1}, uint64_t{16}, uint64_t{32}, uint64_t{33}})
    for (const int extra : {-1, 0, 1}) {
      ASSERT_LT(pages, block().pages());
      const uint64_t first = block().pages() - pages;
      Builder::Buffer plain;
      for (uint64_t page = first; page < block().pages(); ++page) {
        const std::vector<std::byte> bytes = content_of(page * kPageBytes, 3);
        plain.insert(plain.end(), bytes.begin(), bytes.end());
      }
      plain.resize(static_cast<std::size_t>(static_cast<int64_t>(plain.size()) + extra), std::byte{0xee});
      const Builder::Buffer payload = compress(plain);
      Builder b(GetParam().method, GetParam().level);
      b.init(0);
      b.sync(0);
      Builder::Header h;
      h.flags = b.method_flag();
      h.normal_pages = static_cast<uint32_t>(pages);
      h.next_packet_size = static_cast<uint32_t>(payload.size());
      h.ramblock = "mem";
      for (uint64_t page = first; page < block().pages(); ++page) h.offsets.push_back(page * kPageBytes);
      b.header(h);
      b.bytes.insert(b.bytes.end(), payload.begin(), payload.end());
      reset();
      make_channel(compression());
      release(0);
      const ParseStatus status = channel().parse(b.bytes).status;
      EXPECT_EQ(status, extra == 0 ? ParseStatus::need_more : ParseStatus::failed) << pages << " " << extra;
      const std::string message = extra == 0 ? "" : channel().error().message();
      if (extra != 0) {
        EXPECT_NE(message.find(extra < 0 ? "before all pages" : "more than the pages"), std::string::npos)
            << message;
      }
      EXPECT_TRUE(page_is_zero((first - 1) * kPageBytes)) << pages << " " << extra;
      for (uint64_t page = first; extra == 0 && page < block().pages(); ++page)
        EXPECT_TRUE(page_is(page * kPageBytes, 3)) << page;
    }
}

TEST_P(EachMethod, bytes_behind_the_pages_are_refused_or_belong_to_the_stream) {
  Builder b(GetParam().method, GetParam().level);
  b.init(0);
  b.sync(0);
  Builder::Buffer payload = b.encode({0x1000}, content(1));
  payload.insert(payload.end(), 40, std::byte{0xff});
  Builder::Header h;
  h.flags = b.method_flag();
  h.normal_pages = 1;
  h.next_packet_size = static_cast<uint32_t>(payload.size());
  h.ramblock = "mem";
  h.offsets = {0x1000};
  b.header(h);
  b.bytes.insert(b.bytes.end(), payload.begin(), payload.end());
  make_channel(compression());
  release(0);
  EXPECT_EQ(channel().parse(b.bytes).status, ParseStatus::failed);
  EXPECT_EQ(channel().error().error_class, ErrorClass::bad_stream);
}

TEST_P(EachMethod, garbage_is_refused) {
  std::mt19937 random(14);
  int refused = 0;
  for (int round = 0; round < 100; ++round) {
    Builder b(GetParam().method, GetParam().level);
    b.init(0);
    b.sync(0);
    Builder::Header h;
    h.flags = b.method_flag();
    h.normal_pages = 2;
    h.next_packet_size = 1 + static_cast<uint32_t>(random() % 3000);
    h.ramblock = "mem";
    h.offsets = {0x1000, 0x3f000};
    b.header(h);
    for (uint32_t i = 0; i < h.next_packet_size; ++i) b.bytes.push_back(static_cast<std::byte>(random()));
    reset();
    make_channel(compression());
    release(0);
    refused += channel().parse(b.bytes).status == ParseStatus::failed ? 1 : 0;
  }
  EXPECT_EQ(refused, 100);
}

class Decoders : public ChannelFixture {
 protected:
  std::string message_of(MultifdMethod method, const Builder::Buffer& payload, uint32_t pages) {
    reset();
    Builder b(method);
    b.init(0);
    b.sync(0);
    Builder::Header h;
    h.flags = b.method_flag();
    h.normal_pages = pages;
    h.next_packet_size = static_cast<uint32_t>(payload.size());
    h.ramblock = "mem";
    for (uint32_t i = 0; i < pages; ++i) h.offsets.push_back(i * kPageBytes);
    b.header(h);
    b.bytes.insert(b.bytes.end(), payload.begin(), payload.end());
    make_channel(static_cast<MultifdCompression>(method));
    release(0);
    return channel().parse(b.bytes).status == ParseStatus::failed ? channel().error().message() : "";
  }
};

TEST_F(Decoders, a_zlib_stream_with_an_end_is_refused) {
  const std::vector<std::byte> page = content_of(0, 1);
  EXPECT_NE(message_of(MultifdMethod::zlib, Builder::deflate_whole(page.data(), page.size(), 6, 15), 1)
                .find("stream ends"),
            std::string::npos);
}

TEST_F(Decoders, zlib_headers_are_checked) {
  Builder b(MultifdMethod::zlib);
  const Builder::Buffer good = b.encode({0}, content(1));
  EXPECT_EQ(message_of(MultifdMethod::zlib, good, 1), "");
  for (const auto& [at, value] : {std::pair{0, 0x79}, {0, 0x88}, {1, 0x02}, {1, 0x20}}) {
    Builder::Buffer bad = good;
    bad[static_cast<std::size_t>(at)] = static_cast<std::byte>(value);
    EXPECT_NE(message_of(MultifdMethod::zlib, bad, 1).find("corrupt"), std::string::npos)
        << at << " " << value;
  }
  EXPECT_NE(message_of(MultifdMethod::zlib, {std::byte{0x78}}, 1).find("before all pages"),
            std::string::npos);
}

TEST_F(Decoders, a_zstd_frame_with_an_end_is_refused) {
  const std::vector<std::byte> page = content_of(0, 1);
  Builder::Buffer frame(ZSTD_compressBound(page.size()));
  frame.resize(ZSTD_compress(frame.data(), frame.size(), page.data(), page.size(), 1));
  EXPECT_NE(message_of(MultifdMethod::zstd, frame, 1).find("stream ends"), std::string::npos);
}

TEST_F(Decoders, a_zstd_window_beyond_the_limit_is_refused) {
  limits_.zstd_window_log_max = 20;
  Builder small(MultifdMethod::zstd, 1), large(MultifdMethod::zstd, 19);  // windows of 2^19 and 2^23
  EXPECT_EQ(message_of(MultifdMethod::zstd, small.encode({0}, content(1)), 1), "");
  EXPECT_NE(message_of(MultifdMethod::zstd, large.encode({0}, content(1)), 1).find("window"),
            std::string::npos);
}

TEST_F(Decoders, lengths_of_single_pages_are_checked) {
  Builder b(MultifdMethod::qpl);
  const Builder::Buffer good = b.encode({0, 0x1000}, content(1));
  EXPECT_EQ(message_of(MultifdMethod::qpl, good, 2), "");
  for (const uint32_t length : {0U, 4097U, 0xffffffffU, 0x80000000U}) {
    Builder::Buffer bad = good;
    store_be32(bad.data(), length);
    EXPECT_NE(message_of(MultifdMethod::qpl, bad, 2).find("lengths"), std::string::npos) << length;
  }
  Builder::Buffer too_long = good;
  too_long.push_back(std::byte{0});
  EXPECT_NE(message_of(MultifdMethod::qpl, too_long, 2).find("lengths"), std::string::npos);
  EXPECT_NE(
      message_of(MultifdMethod::qpl, Builder::Buffer(good.begin(), good.begin() + 7), 2).find("before all"),
      std::string::npos);
}

TEST(MultifdCompressionNames, are_those_of_qemu) {
  MultifdCompression method = MultifdCompression::none;
  for (const char* name : {"none", "zlib", "zstd", "qpl", "uadk", "qatzip"}) {
    EXPECT_TRUE(parse_multifd_compression(name, method));
    EXPECT_STREQ(to_string(method), name);
    EXPECT_STREQ(multifd_flags_name(multifd_flags_of(method)).data(), name);
    EXPECT_EQ(is_supported(method), std::string_view(name) != "qatzip");
  }
  EXPECT_FALSE(parse_multifd_compression("lz4", method));
}

TEST(DecodeStatus, each_says_something_of_its_own) {
  std::set<std::string> texts;
  for (const DecodeStatus status :
       {DecodeStatus::ok, DecodeStatus::corrupt, DecodeStatus::stream_ended, DecodeStatus::too_little,
        DecodeStatus::too_much, DecodeStatus::bad_length, DecodeStatus::window_too_large,
        DecodeStatus::out_of_memory})
    texts.insert(to_string(status));
  EXPECT_EQ(texts.size(), 8U);
  EXPECT_EQ(texts.count("?"), 0U);
}

TEST(PageDecoder, none_where_payloads_are_pages_or_not_supported) {
  const PageKernels& kernels = *supported_page_kernels().front();
  for (const MultifdCompression method : {MultifdCompression::none, MultifdCompression::qatzip})
    EXPECT_EQ(make_page_decoder(method, kernels, {}), nullptr);
  for (const MultifdCompression method : {MultifdCompression::zlib, MultifdCompression::zstd,
                                          MultifdCompression::qpl, MultifdCompression::uadk}) {
    EXPECT_TRUE(is_supported(method));
    EXPECT_NE(make_page_decoder(method, kernels, {}), nullptr);
  }
  EXPECT_FALSE(is_supported(MultifdCompression::qatzip));
}

}  // namespace
}  // namespace migrx
