// Records that hold page data are opened straight into guest RAM: a multifd channel behind a record layer
// whose keys both sides know, and RAM between guard pages.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "loader/tls/kernels/aead_kernels.h"
#include "loader/tls/tls_channel.h"
#include "tests/loader/multifd/channel_fixture.h"

namespace migrx {
namespace {

using test::ChannelFixture;
using test::MultifdStreamBuilder;

constexpr uint8_t kAlertType = 21;
constexpr uint8_t kDataType = 23;

class OneChannel final : public ChannelDirectory {
 public:
  explicit OneChannel(ChannelParser& parser) : parser_(parser) {}
  Introduction identify(Bytes greeting, Handoff&, uint32_t) noexcept override {
    return greeting.size() < kMagicBytes ? Introduction::needs(kMagicBytes) : Introduction::as(parser_);
  }
  void channel_failed(const StreamError&) noexcept override {}
  [[nodiscard]] bool over() const noexcept override { return false; }

 private:
  ChannelParser& parser_;
};

struct Form {
  std::string name;
  const char* kernels;  // nullptr: OpenSSL
  TlsVersion version;
  TlsSuite suite;
};

std::vector<Form> forms(std::optional<TlsVersion> only = {}) {
  std::vector<Form> all{{"openssl", nullptr, TlsVersion::tls13, TlsSuite::aes_256_gcm},
                        {"openssl_tls12", nullptr, TlsVersion::tls12, TlsSuite::aes_128_gcm},
                        {"chacha", nullptr, TlsVersion::tls13, TlsSuite::chacha20_poly1305}};
  for (const char* const name : {"aesni", "vaes256", "vaes512"}) {
    if (find_gcm_kernels(name) == nullptr) continue;
    all.push_back({name, name, TlsVersion::tls13, TlsSuite::aes_256_gcm});
    all.push_back({std::string(name) + "_tls12", name, TlsVersion::tls12, TlsSuite::aes_128_gcm});
  }
  if (only) std::erase_if(all, [&](const Form& form) { return form.version != *only; });
  return all;
}

class PageRecords : public ChannelFixture, public testing::WithParamInterface<Form> {
 protected:
  PageRecords() { begin(); }

  void begin() {
    reset();
    make_channel();
    release(0);
    keys_.version = GetParam().version;
    keys_.suite = GetParam().suite;
    for (std::size_t i = 0; i < keys_.key.size(); ++i) keys_.key[i] = static_cast<uint8_t>(i * 7 + 3);
    const GcmKernels* const kernels =
        GetParam().kernels != nullptr ? find_gcm_kernels(GetParam().kernels) : nullptr;
    sealer_ = std::make_unique<RecordCipher>(kernels);
    ASSERT_TRUE(sealer_->set_keys(keys_));
    directory_ = std::make_unique<OneChannel>(channel());
    tls_ = std::make_unique<TlsChannel>(handoff_, *directory_, 0, kernels);
    tls_->establish(keys_, {});
    wire_.clear();
  }
  void seal(Bytes text, uint8_t type = kDataType) {
    std::vector<std::byte> record(kTlsHeaderBytes + 8 + text.size() + 1 + kTlsTagBytes);
    record.resize(sealer_->seal(type, text, record.data()));
    wire_.insert(wire_.end(), record.begin(), record.end());
  }
  // What is left of `b` after the bytes that were sealed before; a record for each of these lengths.
  void seal_parts(const MultifdStreamBuilder& b, const std::vector<std::size_t>& lengths) {
    std::size_t at = sealed_;
    for (const std::size_t length : lengths) {
      seal(Bytes(b.bytes).subspan(at, length));
      at += length;
    }
    sealed_ = at;
  }
  // Pieces of their own, so that a sanitizer sees a read beyond one.
  ParseStatus deliver(Bytes bytes, std::size_t piece_max = 1448) {
    ParseStatus status = ParseStatus::need_more;
    while (!bytes.empty() && status == ParseStatus::need_more) {
      const std::size_t n = std::min(bytes.size(), piece_max);
      const std::vector<std::byte> piece(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
      const ParseResult result = tls_->parse(piece);
      status = result.status;
      bytes = bytes.subspan(status == ParseStatus::need_more ? n : result.consumed);
    }
    return status;
  }
  [[nodiscard]] uint64_t straight() const { return tls_->counters().straight_pages.read(); }

  TlsKeys keys_;
  Handoff handoff_{64};
  std::unique_ptr<RecordCipher> sealer_;
  std::unique_ptr<OneChannel> directory_;
  std::unique_ptr<TlsChannel> tls_;
  std::vector<std::byte> wire_;
  std::size_t sealed_ = 0;
  std::mt19937 random_{17};
};

INSTANTIATE_TEST_SUITE_P(Forms, PageRecords, testing::ValuesIn(forms()),
                         [](const auto& form) { return form.param.name; });

// TLS 1.2 has no padding.
class PaddedPageRecords : public PageRecords {};
INSTANTIATE_TEST_SUITE_P(Forms, PaddedPageRecords, testing::ValuesIn(forms(TlsVersion::tls13)),
                         [](const auto& form) { return form.param.name; });

// The first page ends where the guarded memory does: a byte too many would be a fault.
TEST_P(PageRecords, come_to_their_pages_wherever_they_are_torn) {
  MultifdStreamBuilder b;
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x3f000, 0x5000, 0x6000}, content(1));
  seal_parts(b, {64, 1344, 1344, 4096, 4096, 4096});
  const std::vector<std::byte> whole = wire_;
  for (std::size_t cut = whole.size() - 4150; cut <= whole.size(); ++cut) {
    sealed_ = 0;
    begin();
    ASSERT_EQ(deliver(Bytes(whole).first(cut), 4096), ParseStatus::need_more) << cut;
    ASSERT_EQ(deliver(Bytes(whole).subspan(cut)), ParseStatus::need_more) << cut;
    ASSERT_TRUE(page_is(0x3f000, 1) && page_is(0x5000, 1) && page_is(0x6000, 1)) << cut;
    ASSERT_EQ(pages_written(), (std::vector<uint64_t>{5, 6, 0x3f})) << cut;
    ASSERT_EQ(straight(), 3U) << cut;
    ASSERT_EQ(channel().offset(), b.bytes.size()) << cut;
  }
}

TEST_P(PageRecords, of_several_pages_are_taken_whole) {
  MultifdStreamBuilder b;
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x5000, 0x6000, 0x9000, 0xa000}, content(1));
  // The second has pages that do not lie side by side in the guest.
  seal_parts(b, {64, 1344, 1344, 4096, 8192, 4096});
  EXPECT_EQ(deliver(wire_), ParseStatus::need_more);
  EXPECT_TRUE(page_is(0x5000, 1) && page_is(0x6000, 1) && page_is(0x9000, 1) && page_is(0xa000, 1));
  EXPECT_EQ(straight(), 4U);
}

// A source may cut its stream into records as it likes.
TEST_P(PageRecords, are_the_same_stream_whatever_their_lengths) {
  MultifdStreamBuilder b;
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x5000, 0x6000, 0x7000, 0x2000}, content(1), {0x9000});
  b.pages(2, "mem", {0x6000, 0x1000, 0x3f000}, content(2));
  b.sync(3);
  uint64_t all_straight = 0;
  for (int round = 0; round < 60; ++round) {
    sealed_ = 0;
    begin();
    for (std::size_t left = b.bytes.size(); left > 0;) {
      constexpr std::size_t kLengths[] = {4096, 4096, 8192, 1344, 64, 100, 4032, 1};
      const std::size_t n = std::min(left, kLengths[random_() % std::size(kLengths)]);
      seal_parts(b, {n});
      left -= n;
    }
    ASSERT_EQ(deliver(wire_, 1 + random_() % 3000), ParseStatus::parked);  // at the SYNC
    ASSERT_TRUE(page_is(0x5000, 1) && page_is(0x7000, 1) && page_is(0x2000, 1));
    ASSERT_TRUE(page_is(0x6000, 2) && page_is(0x1000, 2) && page_is(0x3f000, 2));
    ASSERT_EQ(barrier().epochs_arrived(MultifdId{0}), 2U);
    all_straight += straight();
  }
  EXPECT_GT(all_straight, 0U);
}

// Sources up to 8.2: what follows the last page does not wait for another byte.
TEST_P(PageRecords, that_end_a_packet_with_a_sync_reach_the_barrier_at_once) {
  MultifdStreamBuilder b(test::MultifdMethod::none, 1, true);
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x7000, 0x8000}, content(1), {}, true);
  seal_parts(b, {64, 1344, 1344, 4096, 4096});
  EXPECT_EQ(deliver(wire_), ParseStatus::parked);
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 2U);
  EXPECT_EQ(straight(), 2U);
}

TEST_P(PageRecords, count_for_nobody_before_their_tag_was_right) {
  MultifdStreamBuilder b;
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x5000}, content(1), {}, true);
  seal_parts(b, {64, 1344, 1344, 4096});
  ASSERT_EQ(deliver(Bytes(wire_).first(wire_.size() - 1)), ParseStatus::need_more);
  EXPECT_TRUE(pages_written().empty());
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 1U);
  EXPECT_EQ(deliver(Bytes(wire_).last(1)), ParseStatus::parked);
  EXPECT_EQ(pages_written(), (std::vector<uint64_t>{5}));
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 2U);
}

TEST_P(PageRecords, that_were_damaged_end_the_channel_and_touch_no_other_page) {
  for (const std::size_t from_end : {1UL, 16UL, 17UL, 18UL, 2000UL, 4100UL}) {
    sealed_ = 0;
    begin();
    MultifdStreamBuilder b;
    b.init(0);
    b.sync(0);
    b.pages(1, "mem", {0x5000}, content(1), {}, true);
    seal_parts(b, {64, 1344, 1344, 4096});
    wire_[wire_.size() - from_end] ^= std::byte{4};
    EXPECT_EQ(deliver(wire_), ParseStatus::failed) << from_end;
    EXPECT_STREQ(tls_->error().field, "TLS record: tag");
    EXPECT_TRUE(pages_written().empty());
    EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 1U);
    const std::vector<std::byte> zeros(kPageBytes);
    for (const uint64_t page : {0x4000U, 0x6000U, 0x3f000U})
      EXPECT_EQ(0, std::memcmp(block().host() + page, zeros.data(), zeros.size())) << page;
  }
}

// Padding (RFC 8446, section 5.4) can make a record as long as one of a page.
TEST_P(PaddedPageRecords, that_only_look_like_one_take_the_other_way) {
  MultifdStreamBuilder b;
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x5000, 0x9000}, content(1));
  seal_parts(b, {64, 1344, 1344});
  for (const std::size_t length : {100UL, 0UL, 4095UL}) {
    std::vector<std::byte> inner(b.bytes.begin() + static_cast<std::ptrdiff_t>(sealed_),
                                 b.bytes.begin() + static_cast<std::ptrdiff_t>(sealed_ + length));
    inner.push_back(std::byte{kDataType});
    inner.resize(4096);
    seal(inner, 0);
    sealed_ += length;
  }
  seal(Bytes(b.bytes).subspan(sealed_));
  EXPECT_EQ(deliver(wire_), ParseStatus::need_more);
  EXPECT_EQ(straight(), 0U);
  EXPECT_TRUE(page_is(0x5000, 1) && page_is(0x9000, 1));
}

TEST_P(PageRecords, of_another_type_are_no_pages) {
  MultifdStreamBuilder b;
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x5000}, content(1));
  seal_parts(b, {64, 1344, 1344});
  seal(std::vector<std::byte>(4096, std::byte{1}), kAlertType);
  EXPECT_EQ(deliver(wire_), ParseStatus::failed);
  EXPECT_STREQ(tls_->error().field, "TLS record: type");
  EXPECT_TRUE(pages_written().empty());
}

}  // namespace
}  // namespace migrx
