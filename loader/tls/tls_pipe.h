// A GnuTLS session without a socket: the caller gives it the bytes that the peer sent and takes the bytes
// that it wants to send. Servers' and clients' sessions derive from it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "dataplane/handoff/byte_order.h"
#include "loader/tls/record_cipher.h"

struct gnutls_session_int;

namespace migrx {

// One thread at a time.
class TlsPipe {
 public:
  // Bytes that may wait here: GnuTLS's own bound of a handshake message, and its records' headers.
  static constexpr std::size_t kInputBytesMax = std::size_t{160} * 1024;
  enum class Direction : uint8_t { from_peer, to_peer };

  // flags: of gnutls_init(). session() is nullptr when there is no memory for it.
  explicit TlsPipe(unsigned flags);
  ~TlsPipe();
  TlsPipe(const TlsPipe&) = delete;
  TlsPipe& operator=(const TlsPipe&) = delete;

  [[nodiscard]] gnutls_session_int* session() const noexcept { return session_; }
  // More bytes from the peer, after those that have not been read. False: too many; nothing is kept.
  [[nodiscard]] bool give(Bytes bytes);
  // These bytes and no others.
  void give_only(Bytes bytes);
  // Given and not read.
  [[nodiscard]] Bytes rest() const noexcept { return Bytes{input_}.subspan(input_read_); }
  // What is to be sent; the caller takes it.
  [[nodiscard]] std::vector<std::byte> take_output() noexcept;

  // Of the record layer, once the handshake is done. False: the suite is none of record_cipher.h's.
  [[nodiscard]] bool keys(Direction direction, TlsKeys& keys) const;
  // The number of the next record that GnuTLS opens or seals itself.
  [[nodiscard]] bool set_sequence(Direction direction, uint64_t sequence);
  // "TLS1.3 AES-256-GCM"; once the handshake is done.
  [[nodiscard]] std::string description() const;
  // The last alert that the peer sent, for people. Its number is the peer's to choose, and not all have a
  // name.
  [[nodiscard]] std::string alert() const;

 private:
  struct Callbacks;

  gnutls_session_int* session_ = nullptr;
  std::vector<std::byte> input_;
  std::size_t input_read_ = 0;
  std::vector<std::byte> output_;
};

}  // namespace migrx
