// The client's side of one connection's TLS: the handshake, and what comes back. A source for measurements
// seals its records elsewhere (loader/generate/sealed_stream.h) and asks for its keys, and for new ones; the
// hand-off has its few records sealed by GnuTLS.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "loader/tls/credentials.h"
#include "loader/tls/tls_pipe.h"

namespace migrx {

// Sans-IO; one thread at a time.
class TlsClientSession {
 public:
  enum class Progress : uint8_t { need_more, done, failed };

  // credentials: of a client. host: the name or address that the server's certificate must have; host_option:
  // the option that names another one.
  TlsClientSession(std::shared_ptr<const TlsCredentials> credentials, std::string host,
                   std::string host_option = "--tls-hostname");

  // The handshake goes on with these bytes; the first time with none. Takes milliseconds when it signs.
  [[nodiscard]] Progress handshake(Bytes bytes);
  // What is to be sent now; the caller takes it.
  [[nodiscard]] std::vector<std::byte> take_output() noexcept { return pipe_.take_output(); }
  // After done: the direction towards the server.
  [[nodiscard]] bool write_keys(TlsKeys& keys) const { return pipe_.keys(TlsPipe::Direction::to_peer, keys); }
  // After done: the record that announces new keys (RFC 8446, section 4.6.3) is in take_output(), and `keys`
  // are those of the record after it. sequence: the next record's number under the old ones.
  [[nodiscard]] bool update_keys(uint64_t sequence, TlsKeys& keys);
  // After done, and by callers that do not use keys: the text as records in take_output(). False: problem().
  [[nodiscard]] bool write(Bytes text);
  // After done: more bytes from the server; plaintext is appended to `text`. False: problem(), or the server
  // said close_notify.
  [[nodiscard]] bool read(Bytes bytes, std::vector<std::byte>& text);

  // "TLS1.3 AES-256-GCM"; after done.
  [[nodiscard]] std::string description() const { return pipe_.description(); }
  // After something failed; empty: nothing.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

 private:
  [[nodiscard]] bool verify_server();
  bool fail(std::string text);  // false, so that it can be returned

  const std::shared_ptr<const TlsCredentials> credentials_;
  const std::string host_;
  const std::string host_option_;
  TlsPipe pipe_;
  std::string problem_;
};

}  // namespace migrx
