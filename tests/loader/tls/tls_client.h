// A TLS client in memory, as QEMU's channels are: GnuTLS, one record per write.
#pragma once

#include <gnutls/gnutls.h>

#include <string>
#include <vector>

#include "dataplane/handoff/byte_order.h"
#include "tests/loader/tls/memory_transport.h"

namespace migrx {

class TlsClient {
 public:
  // dir: a folder with ca-cert.pem and, perhaps, FILE-cert.pem and FILE-key.pem; psk: "user:hex" instead.
  explicit TlsClient(const std::string& dir, const std::string& file = "client",
                     const std::string& priority = "NORMAL", const std::string& psk = "");
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  // Goes on with what the server sent; true when the handshake is done. `failed` is set when it cannot be.
  bool handshake(Bytes from_server);
  void write(Bytes text);  // one record
  void write_padded(Bytes text, std::size_t padding);
  void update_key();  // KeyUpdate, update_not_requested
  void bye();         // close_notify
  std::string read(Bytes from_server);
  // What goes to the server; whoever asks takes it.
  [[nodiscard]] std::vector<std::byte> take();
  bool failed = false;

 private:
  gnutls_session_t session_ = nullptr;
  gnutls_certificate_credentials_t x509_ = nullptr;
  gnutls_psk_client_credentials_t psk_ = nullptr;
  MemoryTransport transport_;
};

}  // namespace migrx
