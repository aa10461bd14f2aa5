// One connection's bytes when the stream is encrypted, from the moment they are made until they are
// acknowledged: the handshake, then records. Unlike plain bytes, which are made again when they are sent
// again, a record is sealed once and kept.
//
//   ChannelStream ─ header or page ─▶ record ─▶ ring ─ by offset ─▶ frames
//   handshake, key updates ─────────────────────▶
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "loader/generate/channel_stream.h"
#include "loader/tls/client_session.h"
#include "loader/tls/record_cipher.h"

namespace migrx {

// As at a QEMU source. Shared by all streams of a run.
struct TlsSourceSettings {
  std::shared_ptr<const TlsCredentials> credentials;  // of a client
  std::string host;                                   // --tls-hostname
  // Records under one key: GnuTLS, and so a QEMU source, updates a key of AES-GCM in TLS 1.3 there.
  uint64_t records_per_key = (uint64_t{1} << 24) - 3;
};

// Single thread.
class SealedStream {
 public:
  static constexpr std::size_t kRingBytes = std::size_t{2} << 20;

  // plain is not owned. The ClientHello is there at once.
  SealedStream(const TlsSourceSettings& settings, ChannelStream& plain);
  ~SealedStream();

  // What came back in order: the rest of the handshake, then the return path, whose text is appended to
  // `text`. False: problem(), or the peer said that nothing more comes.
  [[nodiscard]] bool receive(Bytes bytes, std::vector<std::byte>& text);
  [[nodiscard]] bool secured() const noexcept { return secured_; }
  // Seals what `plain` has, as QEMU does it: a record for each header and for each page, 16 KiB at most. What
  // has been sealed is released there. Until the ring is full.
  void seal();

  // As of ChannelStream, of ciphertext.
  [[nodiscard]] uint64_t end() const noexcept { return end_; }
  void read(uint64_t offset, std::span<std::byte> out) const noexcept;
  void release(uint64_t offset) noexcept;

  [[nodiscard]] uint64_t records() const noexcept { return records_; }
  [[nodiscard]] uint64_t key_updates() const noexcept { return key_updates_; }
  // "TLS1.3 AES-256-GCM, vaes512"; once secured.
  [[nodiscard]] const std::string& description() const noexcept { return description_; }
  // After something failed; empty: nothing.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

 private:
  [[nodiscard]] bool handshake(Bytes bytes);
  bool fail(const std::string& text);  // false, so that it can be returned
  [[nodiscard]] std::size_t room() const noexcept {
    return kRingBytes - static_cast<std::size_t>(end_ - released_);
  }
  [[nodiscard]] bool append(Bytes bytes);
  [[nodiscard]] bool update_keys();

  ChannelStream& plain_;
  const uint64_t records_per_key_;
  TlsClientSession session_;
  RecordCipher cipher_;
  bool secured_ = false;
  bool ages_ = false;    // the key is one that is updated
  uint64_t sealed_ = 0;  // of plain
  const std::unique_ptr<std::byte[]> ring_;
  std::vector<std::byte> text_;    // of the record at hand
  std::vector<std::byte> record_;  // one that does not fit before the ring's end
  uint64_t end_ = 0;
  uint64_t released_ = 0;
  uint64_t records_ = 0;
  uint64_t key_updates_ = 0;
  std::string description_;
  std::string problem_;
};

}  // namespace migrx
