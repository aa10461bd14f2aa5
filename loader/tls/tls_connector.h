// TLS for the hand-off's connections, on which migrx is the client. Handshakes run on a helper thread
// (handshake_helper.h); afterwards the control thread seals and opens by GnuTLS, which is fast enough for
// device state and the few blocks without a file.
//
//   control: connect() ─▶ SecuredLink ─bytes─▶ helper: handshake() ─▶ SecuredLink: seal(), open()
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "loader/destination/link_security.h"
#include "loader/tls/client_session.h"
#include "loader/tls/current_credentials.h"
#include "loader/tls/handshake_helper.h"

namespace migrx {

class TlsConnector final : public LinkSecurity {
 public:
  // store: of a client; what each connection's handshake begins with. host: the name or address that the
  // destination's certificate must have; host_option: the option that names it. Throws std::system_error
  // when the host has no room for a thread.
  TlsConnector(std::unique_ptr<TlsCredentialStore> store, std::string host, std::string host_option);
  ~TlsConnector() override;

  // ---- Control thread ----
  [[nodiscard]] std::unique_ptr<SecuredLink> connect() override;
  // The next sentence about our own credentials, for the operator.
  [[nodiscard]] std::optional<std::string> take_warning() { return credentials_.take_warning(); }
  // "TLS1.3 AES-256-GCM": of the first connection that was opened; empty: none yet.
  [[nodiscard]] std::string description();
  [[nodiscard]] uint64_t handshakes() const noexcept { return handshakes_.load(std::memory_order_relaxed); }
  // How often changed credentials were read.
  [[nodiscard]] uint32_t reloads() const noexcept { return credentials_.reloads(); }

 private:
  struct Connection;
  class Link;

  void help(Connection& connection);

  CurrentCredentials credentials_;  // the helper gets them
  const std::string host_;
  const std::string host_option_;

  std::mutex mutex_;  // description_
  std::string description_;
  std::atomic<uint64_t> handshakes_{0};
  HandshakeHelper helper_;  // last: its job uses the others
};

}  // namespace migrx
