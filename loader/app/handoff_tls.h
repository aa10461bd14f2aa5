// Whether the hand-off to the destination QEMU is encrypted, and with what: --handoff-tls-creds,
// --handoff-tls-hostname and --handoff-tls.
#pragma once

#include <memory>
#include <string>

#include "loader/app/job_options.h"
#include "loader/app/report.h"
#include "loader/app/terminal.h"
#include "loader/tls/tls_connector.h"

namespace migrx {

// libvirt sets tls-creds at both ends or at none, so the hand-off is as the source's stream is. source_tls:
// it is encrypted. The options have been checked.
[[nodiscard]] bool handoff_is_tls(const JobOptions& options, bool source_tls) noexcept;

// What is wrong with the three options together, or with the name that is missing. Empty: nothing. Pure.
[[nodiscard]] std::string check_handoff_tls(const JobOptions& options);

class HandoffTls {
 public:
  // Reads the credentials where they are needed. Throws SetupError with the file and what to do. Warnings go
  // to the report.
  HandoffTls(const JobOptions& options, bool source_tls, Report& report);

  // For DestinationSettings. nullptr: the hand-off is plain.
  [[nodiscard]] LinkSecurity* security() noexcept { return connector_.get(); }
  // What became of changed credentials since the last call. Control thread.
  void tell(Terminal& terminal, Report& report);
  // What was negotiated, into the report.
  void report(Report& report) const;

 private:
  std::unique_ptr<TlsConnector> connector_;
};

}  // namespace migrx
