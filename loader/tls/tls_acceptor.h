// TLS for the connections of one session: handshakes, and what GnuTLS says of the few records that are not
// application data. Handshakes run on a helper thread (handshake_helper.h).
//
//   worker: accept() ─▶ TlsChannel ─bytes─▶ control: do_work() ─▶ helper: handshake() ─▶ control ─keys─▶
//   TlsChannel
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "loader/session/channel_security.h"
#include "loader/tls/current_credentials.h"
#include "loader/tls/handshake_helper.h"
#include "loader/tls/server_session.h"
#include "loader/tls/tls_channel.h"

namespace migrx {

class TlsAcceptor final : public ChannelSecurity {
 public:
  // store: what each connection's handshake begins with. connections_max: under way or open at a time; beyond
  // it a connection is refused. handshake_ns: how long one may take (0: for ever). authz may be null. All
  // must outlive the acceptor.
  TlsAcceptor(std::unique_ptr<TlsCredentialStore> store, const TlsAuthz* authz, uint32_t connections_max,
              uint64_t handshake_ns);
  ~TlsAcceptor() override;

  // ---- Worker threads ----
  [[nodiscard]] ChannelParser* accept(Handoff& connection, uint32_t worker,
                                      ChannelDirectory& directory) noexcept override;

  // ---- Control thread ----
  uint32_t do_work(uint64_t now_ns) override;
  [[nodiscard]] bool seal(const Handoff& connection, Bytes message, std::vector<std::byte>& out) override;
  void forget(const Handoff& connection) override;
  // The next sentence about a peer that was refused, for the operator.
  [[nodiscard]] std::optional<std::string> take_refusal();
  // The same about our own credentials.
  [[nodiscard]] std::optional<std::string> take_warning() { return credentials_.take_warning(); }
  // "TLS1.3 AES-256-GCM, C=GB,O=Example,CN=source": of the first connection that was opened; empty: none yet.
  [[nodiscard]] const std::string& description() const noexcept { return description_; }
  [[nodiscard]] uint64_t handshakes() const noexcept { return handshakes_; }
  // Of all connections, also those that were forgotten.
  [[nodiscard]] TlsRecords records();
  // How often changed credentials were read.
  [[nodiscard]] uint32_t reloads() const noexcept { return credentials_.reloads(); }

 private:
  static constexpr std::size_t kRefusalsMax = 16;  // sentences that wait; a scanner may make many
  struct Connection;
  using Progress = TlsServerSession::Progress;

  uint32_t serve(Connection& connection, uint64_t now_ns);
  bool send_output(Connection& connection);
  void refuse(Connection& connection, const std::string& why);
  void help(Connection& connection);

  CurrentCredentials credentials_;  // the helper gets them
  const TlsAuthz* const authz_;
  const GcmKernels* const kernels_;
  const uint32_t connections_max_;
  const uint64_t handshake_ns_;

  std::mutex mutex_;  // connections_; held for moments, never by a worker that moves bytes
  std::vector<std::shared_ptr<Connection>> connections_;
  TlsRecords forgotten_;  // of those that are no longer among them

  std::deque<std::string> refusals_;
  std::string description_;
  uint64_t handshakes_ = 0;
  HandshakeHelper helper_;  // last: its job uses the others
};

}  // namespace migrx
