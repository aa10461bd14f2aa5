#include "loader/app/tls_setup.h"

#include "loader/app/setup_error.h"

namespace migrx {
namespace {

constexpr std::size_t kWarningsMax = 32;  // a scanner may come from many addresses

}  // namespace

TlsSetup::TlsSetup(const std::string& creds, const std::vector<std::string>& authz, uint32_t connections_max,
                   double handshake_s, Report& report) {
  TlsCredsOptions options;
  std::string problem = parse_tls_creds(creds, options);
  if (problem.empty()) problem = authz_.set(authz);
  if (!problem.empty()) throw SetupError(problem);
  auto store = TlsCredentialStore::open(options, problem, report.warnings);
  if (store == nullptr) throw SetupError("--tls-creds: " + problem);
  acceptor_ = std::make_unique<TlsAcceptor>(std::move(store), &authz_, connections_max,
                                            static_cast<uint64_t>(handshake_s * 1e9));
}

void TlsSetup::tell(Terminal& terminal, Report& report) {
  const auto tell_one = [&](const std::string& text) {
    if (report.warnings.size() >= kWarningsMax) return;
    report.warnings.push_back(text);
    terminal.warn("warning: " + text);
  };
  while (const std::optional<std::string> text = acceptor_->take_warning()) tell_one(*text);
  while (const std::optional<std::string> text = acceptor_->take_refusal()) tell_one(*text);
}

void TlsSetup::report(Report& report) const {
  report.tls = {acceptor_->description(), acceptor_->handshakes(), acceptor_->reloads()};
  report.tls_records = acceptor_->records();
}

std::string check_tls_options(const std::optional<std::string>& creds,
                              const std::vector<std::string>& authz) {
  if (!creds) return authz.empty() ? "" : "--tls-authz names clients of TLS: it needs --tls-creds";
  TlsCredsOptions options;
  if (std::string problem = parse_tls_creds(*creds, options); !problem.empty()) return problem;
  if (options.kind == TlsCredsOptions::Kind::psk && !authz.empty())
    return "--tls-authz names certificates, and psk has none: leave it out";
  if (!authz.empty() && !options.verify_peer)
    return "--tls-authz needs certificates that are verified: leave verify-peer=off out";
  return {};
}

}  // namespace migrx
