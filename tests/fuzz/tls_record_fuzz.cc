// TLS records after the handshake, sealed by our own sender, with other bytes among them. Input: a byte of
// version, suite, kernels and whether the parser has places for page data, a byte of piece size, then steps:
// [kind, length, bytes].
//
// Whatever comes, the parser behind sees the text of the records that were sealed and came whole, in their
// order, and nothing of the first one that did not, nor of any after it.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "dataplane/handoff/handoff.h"
#include "loader/tls/kernels/aead_kernels.h"
#include "loader/tls/tls_channel.h"
#include "tests/fuzz/fuzz_target.h"

namespace migrx::test {
namespace {

enum Kind : uint8_t {
  kText,
  kManyText,
  kAlertRecord,
  kRaw,
  kFlipped,
  kCut,
  kPadded,
  kPadding,
  kPages,
  kPaddedToPages,
  kKinds
};

constexpr uint8_t kApplicationType = 23;
constexpr uint8_t kAlertType = 21;

class Parser final : public ChannelParser {
 public:
  ParseResult parse(Bytes piece) noexcept override {
    text.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    return {piece.size(), ParseStatus::need_more};
  }
  bool ready() noexcept override { return true; }
  StreamError end_of_stream() noexcept override { return {}; }
  const StreamError& error() const noexcept override { return error_; }
  uint64_t offset() const noexcept override { return text.size(); }
  // Every second KiB is elsewhere. What lies between the places must stay as it is.
  MutableBytes page_place(std::size_t from, std::size_t to) noexcept override {
    if (!has_places || to > kTlsTextBytesMax) return {};
    const std::size_t n = std::min(kPlace - from % kPlace, to - from);
    return {memory_.get() + place_of(from), n};
  }
  void page_data_written(std::size_t bytes) noexcept override {
    for (std::size_t at = 0; at < bytes; ++at) text.push_back(static_cast<char>(memory_.get()[place_of(at)]));
  }
  [[nodiscard]] bool gaps_are_untouched() const {
    for (std::size_t at = 0; at < kMemory; ++at)
      if (at / kPlace % 2 != 0 && memory_.get()[at] != std::byte{0xa5}) return false;
    return true;
  }
  std::string text;
  bool has_places = false;

 private:
  static constexpr std::size_t kPlace = 1024;
  static constexpr std::size_t kMemory = 2 * kTlsTextBytesMax;
  static std::size_t place_of(std::size_t at) noexcept { return at / kPlace * 2 * kPlace + at % kPlace; }
  static std::byte* filled_memory() {
    auto* const memory = static_cast<std::byte*>(std::aligned_alloc(64, kMemory));
    std::memset(memory, 0xa5, kMemory);
    return memory;
  }

  StreamError error_;
  std::unique_ptr<std::byte, decltype(&std::free)> memory_{filled_memory(), &std::free};
};

class Directory final : public ChannelDirectory {
 public:
  Introduction identify(Bytes greeting, Handoff&, uint32_t) noexcept override {
    return greeting.size() < kMagicBytes ? Introduction::needs(kMagicBytes) : Introduction::as(parser);
  }
  Introduction ask_again(Handoff&, uint32_t) noexcept override { return Introduction::as(parser); }
  void channel_failed(const StreamError&) noexcept override {}
  [[nodiscard]] bool over() const noexcept override { return false; }
  Parser parser;
};

TlsKeys keys_of(uint8_t choice) {
  TlsKeys keys;
  keys.version = (choice & 1) != 0 ? TlsVersion::tls12 : TlsVersion::tls13;
  keys.suite = static_cast<TlsSuite>(choice / 2 % 3);
  for (std::size_t i = 0; i < keys.key.size(); ++i) keys.key[i] = static_cast<uint8_t>(i * 7 + choice);
  for (std::size_t i = 0; i < keys.iv.size(); ++i) keys.iv[i] = static_cast<uint8_t>(i * 11 + choice);
  return keys;
}

// The sender: what goes over the wire, and what of it may reach the parser.
class Wire {
 public:
  Wire(const TlsKeys& keys, const GcmKernels* kernels) : cipher_(kernels) {
    if (!cipher_.set_keys(keys)) std::abort();
  }
  void seal(uint8_t type, Bytes text) {
    record_.resize(kTlsHeaderBytes + 8 + text.size() + 1 + kTlsTagBytes);
    record_.resize(cipher_.seal(type, text, record_.data()));
  }
  void text(Bytes text) {
    seal(kApplicationType, text);
    send(record_);
    if (whole_) expected.append(reinterpret_cast<const char*>(text.data()), text.size());
  }
  void alert(Bytes text) {
    seal(kAlertType, text);
    send(record_);
  }
  void flipped(Bytes text, std::size_t bit) {
    seal(kApplicationType, text);
    record_[bit / 8 % record_.size()] ^= static_cast<std::byte>(1U << bit % 8);
    send(record_);
    whole_ = false;
  }
  void cut(Bytes text, std::size_t left) {
    seal(kApplicationType, text);
    record_.resize(left % record_.size());
    send(record_);
    whole_ = false;  // what follows cannot complete it
  }
  // Zeros after the content type (RFC 8446, section 5.4). TLS 1.2 knows no padding, and no such type.
  void padded(Bytes text, std::size_t zeros) {
    std::vector<std::byte> inner(text.begin(), text.end());
    inner.push_back(std::byte{kApplicationType});
    inner.resize(inner.size() + zeros);
    seal(0, inner);
    send(record_);
    whole_ = whole_ && cipher_.version() == TlsVersion::tls13;
    if (whole_) expected.append(reinterpret_cast<const char*>(text.data()), text.size());
  }
  void padding(std::size_t zeros) {
    seal(0, std::vector<std::byte>(zeros));
    send(record_);
    whole_ = false;
  }
  void raw(Bytes other) {
    send(other);
    whole_ = whole_ && other.empty();
  }
  [[nodiscard]] bool whole() const noexcept { return whole_; }

  std::vector<std::byte> bytes;
  std::string expected;

 private:
  void send(Bytes more) { bytes.insert(bytes.end(), more.begin(), more.end()); }

  RecordCipher cipher_;
  std::vector<std::byte> record_;
  bool whole_ = true;
};

void perform(Wire& wire, Bytes script) {
  while (script.size() >= 2) {
    const auto kind = std::to_integer<uint8_t>(script[0]) % kKinds;
    const auto length = std::to_integer<std::size_t>(script[1]);
    script = script.subspan(2);
    const Bytes bytes = script.first(std::min(length, script.size()));
    script = script.subspan(bytes.size());
    switch (kind) {
      case kText:
        wire.text(bytes);
        break;
      case kManyText: {
        const std::vector<std::byte> many(std::min(length * 80, kTlsTextBytesMax),
                                          bytes.empty() ? std::byte{0} : bytes[0]);
        wire.text(many);
        break;
      }
      case kAlertRecord:
        wire.alert(bytes);
        break;
      case kRaw:
        wire.raw(bytes);
        break;
      case kPadded:
        wire.padded(bytes, length);
        break;
      case kPadding:
        wire.padding(length);
        break;
      case kPages: {
        // As long as one to four pages, and each byte another.
        std::vector<std::byte> pages((1 + length % 4) * 4096);
        for (std::size_t i = 0; i < pages.size(); ++i)
          pages[i] =
              static_cast<std::byte>(i * 5 / 3) ^ (bytes.empty() ? std::byte{0} : bytes[i % bytes.size()]);
        wire.text(pages);
        break;
      }
      case kPaddedToPages:
        wire.padded(bytes, (1 + length % 4) * 4096 - bytes.size());
        break;
      case kFlipped:
        wire.flipped(bytes, length * 31);
        break;
      default:
        wire.cut(bytes, length);
    }
  }
}

}  // namespace

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::vector<std::byte>> seeds;
  for (uint8_t choice = 0; choice < 12; ++choice)
    for (uint8_t last = 0; last < kKinds; ++last) {
      // Every second one has places for page data.
      std::vector<std::byte> input{static_cast<std::byte>(choice + 12 * (last % 2)),
                                   static_cast<std::byte>(choice * 20 + last)};
      const auto step = [&input](uint8_t kind, const std::string& text) {
        input.push_back(static_cast<std::byte>(kind));
        input.push_back(static_cast<std::byte>(text.size()));
        for (const char c : text) input.push_back(static_cast<std::byte>(c));
      };
      step(kText, "QE");
      step(kText, "VM and the rest");
      step(kManyText, std::string(200, 'z'));
      step(kAlertRecord, "xy");
      step(kText, "");
      if (last % 4 == 1) step(kPages, "page");
      step(last, "the last one");
      step(kText, "and after it");
      seeds.push_back(std::move(input));
    }
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  using namespace migrx::test;
  if (size < 2) return 0;
  const GcmKernels* const kernels = data[0] / 6 % 2 == 0 ? select_gcm_kernels() : nullptr;
  TlsKeys keys = keys_of(data[0]);
  Wire wire(keys, kernels);
  perform(wire, {reinterpret_cast<const std::byte*>(data) + 2, size - 2});

  Handoff connection(64);
  Directory directory;
  directory.parser.has_places = data[0] / 12 % 2 != 0;
  TlsChannel channel(connection, directory, 0, kernels);
  const std::size_t step = 1 + std::size_t{data[1]} * 3;
  // Some of it came with the handshake's last bytes.
  const std::size_t rest = std::min<std::size_t>(wire.bytes.size(), data[1] % 40);
  channel.establish(keys, Bytes{wire.bytes}.first(rest));
  Bytes left = Bytes{wire.bytes}.subspan(rest);
  ParseStatus status = ParseStatus::parked;
  for (bool again = true; again && status != ParseStatus::failed && status != ParseStatus::refused;) {
    // Pieces of their own, so that a read beyond one is seen by a sanitizer.
    const std::vector<std::byte> piece(
        left.begin(), left.begin() + static_cast<std::ptrdiff_t>(std::min(step, left.size())));
    const ParseResult result = channel.parse(piece);
    if (result.consumed > piece.size()) std::abort();
    status = result.status;
    left = left.subspan(status == ParseStatus::need_more ? piece.size() : result.consumed);
    again = !left.empty();
    if (status != ParseStatus::parked) continue;
    if (channel.phase() != TlsChannel::Phase::set_aside) std::abort();  // nothing else parks here
    if (channel.record().size() > TlsChannel::kAsideBytesMax) std::abort();
    keys.sequence = channel.record_sequence() + 1;
    channel.resume(keys);
    again = true;
  }
  if (!directory.parser.gaps_are_untouched()) std::abort();
  const std::string& got = directory.parser.text;
  if (wire.expected.compare(0, got.size(), got) != 0) std::abort();
  // Fewer bytes than a magic are nobody's yet.
  if (wire.whole() && status == ParseStatus::need_more &&
      wire.expected.size() >= ChannelDirectory::kMagicBytes && got != wire.expected)
    std::abort();
  if (wire.whole() && status == ParseStatus::failed) std::abort();
  if (status == ParseStatus::failed && !channel.error()) std::abort();
  return 0;
}
