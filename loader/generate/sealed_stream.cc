#include "loader/generate/sealed_stream.h"

#include <algorithm>
#include <cstring>

#include "loader/tls/kernels/aead_kernels.h"

namespace migrx {
namespace {

constexpr uint8_t kApplicationData = 23;
// What a record adds to its text at most.
constexpr std::size_t kOverheadMax = kTlsHeaderBytes + 8 + 1 + kTlsTagBytes;
constexpr std::size_t kKeyUpdateBytesMax = 64;

}  // namespace

SealedStream::SealedStream(const TlsSourceSettings& settings, ChannelStream& plain)
    : plain_(plain),
      records_per_key_(settings.records_per_key),
      session_(settings.credentials, settings.host),
      cipher_(select_gcm_kernels()),
      ring_(std::make_unique_for_overwrite<std::byte[]>(kRingBytes)),
      text_(kTlsTextBytesMax),
      record_(kTlsTextBytesMax + kOverheadMax) {
  (void)handshake({});
}

SealedStream::~SealedStream() = default;

bool SealedStream::fail(const std::string& text) {
  if (problem_.empty()) problem_ = text;
  return false;
}

bool SealedStream::receive(Bytes bytes, std::vector<std::byte>& text) {
  if (!problem_.empty()) return false;
  if (!secured_) {
    if (!handshake(bytes)) return false;
    if (!secured_) return true;
    bytes = {};  // GnuTLS has what came after it
  }
  if (session_.read(bytes, text)) return true;
  return session_.problem().empty() ? false : fail(session_.problem());
}

bool SealedStream::handshake(Bytes bytes) {
  const TlsClientSession::Progress progress = session_.handshake(bytes);
  const std::vector<std::byte> flight = session_.take_output();
  if (!append(flight)) return fail("the handshake is longer than the send buffer");
  if (progress == TlsClientSession::Progress::failed) return fail(session_.problem());
  if (progress == TlsClientSession::Progress::need_more) return true;
  TlsKeys keys;
  if (!session_.write_keys(keys) || !cipher_.set_keys(keys))
    return fail("the negotiated keys cannot be used");
  ages_ = keys.version == TlsVersion::tls13 && keys.suite != TlsSuite::chacha20_poly1305;
  description_ = session_.description() + ", " + cipher_.kernel_name();
  secured_ = true;
  return true;
}

bool SealedStream::append(Bytes bytes) {
  if (bytes.size() > room()) return false;
  while (!bytes.empty()) {
    const std::size_t at = end_ % kRingBytes;
    const std::size_t n = std::min(bytes.size(), kRingBytes - at);
    std::memcpy(ring_.get() + at, bytes.data(), n);
    bytes = bytes.subspan(n);
    end_ += n;
  }
  return true;
}

bool SealedStream::update_keys() {
  TlsKeys keys;
  if (!session_.update_keys(cipher_.sequence(), keys)) return fail("the key cannot be updated");
  if (!append(session_.take_output()) || !cipher_.set_keys(keys)) return fail("the new key cannot be used");
  ++key_updates_;
  return true;
}

void SealedStream::seal() {
  while (problem_.empty() && sealed_ < plain_.end()) {
    const std::size_t n = std::min<uint64_t>(plain_.element_end(sealed_) - sealed_, kTlsTextBytesMax);
    if (room() < n + kOverheadMax + kKeyUpdateBytesMax) return;
    if (ages_ && cipher_.sequence() >= records_per_key_ && !update_keys()) return;
    plain_.read(sealed_, {text_.data(), n});
    const std::size_t at = end_ % kRingBytes;
    if (kRingBytes - at >= n + kOverheadMax)
      end_ += cipher_.seal(kApplicationData, {text_.data(), n}, ring_.get() + at);
    else
      (void)append({record_.data(), cipher_.seal(kApplicationData, {text_.data(), n}, record_.data())});
    sealed_ += n;
    plain_.release(sealed_);
    ++records_;
  }
}

void SealedStream::read(uint64_t offset, std::span<std::byte> out) const noexcept {
  while (!out.empty()) {
    const std::size_t at = offset % kRingBytes;
    const std::size_t n = std::min(out.size(), kRingBytes - at);
    std::memcpy(out.data(), ring_.get() + at, n);
    out = out.subspan(n);
    offset += n;
  }
}

void SealedStream::release(uint64_t offset) noexcept {
  released_ = std::max(released_, std::min(offset, end_));
}

}  // namespace migrx
