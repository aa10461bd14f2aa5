// A TLS server in memory, as a QEMU destination's channels are: GnuTLS, no tickets.
#pragma once

#include <gnutls/gnutls.h>

#include <string>
#include <vector>

#include "dataplane/handoff/byte_order.h"
#include "tests/loader/tls/memory_transport.h"

namespace migrx {

class TlsServer {
 public:
  // dir: a folder with ca-cert.pem, FILE-cert.pem and FILE-key.pem; psk: "user:hex" instead. verify: clients
  // need a certificate of that authority.
  explicit TlsServer(const std::string& dir, const std::string& file = "server", const std::string& psk = "",
                     bool verify = true);
  ~TlsServer();
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;

  // More bytes from the client: the handshake goes on, then text is kept in `text`.
  void take(Bytes from_client);
  void write(Bytes text);  // one record
  void update_key();       // KeyUpdate, update_not_requested
  void bye();              // close_notify
  // What goes to the client; whoever asks takes it.
  [[nodiscard]] std::vector<std::byte> output();
  bool open = false;
  bool failed = false;  // QEMU closes the connection then
  std::vector<std::byte> text;

 private:
  static int find_key(gnutls_session_t session, const char* user, gnutls_datum_t* key);

  const std::string psk_;
  const bool verify_;
  gnutls_session_t session_ = nullptr;
  gnutls_certificate_credentials_t x509_ = nullptr;
  gnutls_psk_server_credentials_t psk_credentials_ = nullptr;
  MemoryTransport transport_;
};

}  // namespace migrx
