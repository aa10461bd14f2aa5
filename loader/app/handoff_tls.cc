#include "loader/app/handoff_tls.h"

#include <utility>

#include "dataplane/wire/address_text.h"
#include "loader/app/setup_error.h"
#include "loader/destination/socket_address.h"

namespace migrx {
namespace {

constexpr const char* kCreds = "--handoff-tls-creds";
constexpr const char* kHostname = "--handoff-tls-hostname";
constexpr std::size_t kWarningsMax = 32;

std::string parse(const JobOptions& options, TlsCredsOptions& out) {
  return parse_tls_creds(*options.handoff_tls_creds, out, TlsCredsOptions::Endpoint::client, kCreds);
}

// The name that the destination's certificate must have; empty: the options do not say one. Where every host
// is itself, an address says nothing of who listens there, and no certificate has it.
std::string name_of(const JobOptions& options) {
  if (options.handoff_tls_hostname) return *options.handoff_tls_hostname;
  SocketAddress where;
  if (!options.handoff || !parse_socket_address(*options.handoff, where).empty()) return {};
  IpAddress address;
  if (!parse_ip_address(where.host.c_str(), address) || address.is_loopback()) return {};
  return IpAddressText(address).c_str();
}

}  // namespace

bool handoff_is_tls(const JobOptions& options, bool source_tls) noexcept {
  return options.handoff_tls_creds && options.handoff_tls != "off" &&
         (source_tls || options.handoff_tls == "on");
}

std::string check_handoff_tls(const JobOptions& options) {
  if (!options.handoff_tls_creds) {
    if (options.handoff_tls_hostname)
      return std::string(kHostname) + " is compared with a certificate: it needs " + kCreds;
    if (options.handoff_tls == "on") return std::string("--handoff-tls on needs credentials: give ") + kCreds;
    return {};
  }
  if (!options.handoff) return std::string(kCreds) + " is for a destination QEMU: it needs --handoff";
  TlsCredsOptions creds;
  if (std::string problem = parse(options, creds); !problem.empty()) return problem;
  if (options.handoff_tls_hostname && options.handoff_tls_hostname->empty())
    return std::string(kHostname) + " is empty: give the name in the destination's certificate";
  if (creds.kind == TlsCredsOptions::Kind::psk)
    return options.handoff_tls_hostname
               ? std::string(kHostname) + " is compared with a certificate, and psk has none: leave it out"
               : std::string{};
  if (creds.verify_peer && name_of(options).empty())
    return std::string(kCreds) +
           ": a UNIX socket and loopback say no name that a certificate could have: give " + kHostname +
           " with a name or address in the destination's server-cert.pem";
  return {};
}

HandoffTls::HandoffTls(const JobOptions& options, bool source_tls, Report& report) {
  if (!options.handoff_tls_creds) return;
  if (!handoff_is_tls(options, source_tls)) {
    if (options.handoff_tls == "auto")
      report.warnings.push_back(
          std::string("the hand-off is not encrypted, since the source's stream is not, and ") + kCreds +
          " is not used: give --handoff-tls on for a destination that has tls-creds all the same");
    return;
  }
  TlsCredsOptions creds;
  std::string problem = parse(options, creds);
  if (!problem.empty()) throw SetupError(problem);
  auto store = TlsCredentialStore::open(creds, problem, report.warnings);
  if (store == nullptr) throw SetupError(std::string(kCreds) + ": " + problem);
  connector_ = std::make_unique<TlsConnector>(std::move(store), name_of(options), kHostname);
}

void HandoffTls::tell(Terminal& terminal, Report& report) {
  if (connector_ == nullptr) return;
  while (const std::optional<std::string> text = connector_->take_warning()) {
    if (report.warnings.size() >= kWarningsMax) return;
    report.warnings.push_back("hand-off: " + *text);
    terminal.warn("warning: " + report.warnings.back());
  }
}

void HandoffTls::report(Report& report) const {
  if (connector_ == nullptr) return;
  report.handoff_tls = {connector_->description(), connector_->handshakes(), connector_->reloads()};
}

}  // namespace migrx
