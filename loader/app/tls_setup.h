// Checks --tls-creds and --tls-authz before any source may connect, and turns what TLS tells
// later into warnings.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/report.h"
#include "loader/app/terminal.h"
#include "loader/tls/tls_acceptor.h"

namespace migrx {

class TlsSetup {
 public:
  // Throws SetupError with the file and what to do. Warnings go to the report. connections_max, handshake_s:
  // bounds of handshakes and open connections, and of a handshake's time.
  TlsSetup(const std::string& creds, const std::vector<std::string>& authz, uint32_t connections_max,
           double handshake_s, Report& report);

  [[nodiscard]] TlsAcceptor& acceptor() noexcept { return *acceptor_; }
  // Peers that were refused since the last call, and what became of changed credentials, become warnings.
  // Control thread.
  void tell(Terminal& terminal, Report& report);
  // What was negotiated, into the report.
  void report(Report& report) const;

 private:
  TlsAuthz authz_;
  std::unique_ptr<TlsAcceptor> acceptor_;
};

// What is wrong with the two options' texts; empty: nothing.
[[nodiscard]] std::string check_tls_options(const std::optional<std::string>& creds,
                                            const std::vector<std::string>& authz);

}  // namespace migrx
