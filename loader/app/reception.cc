#include "loader/app/reception.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "dataplane/wire/address_text.h"
#include "loader/app/destinations.h"
#include "loader/app/session_report.h"
#include "loader/app/setup_error.h"
#include "loader/app/watch/metric_table.h"
#include "numa/clock.h"

namespace migrx {
namespace {

constexpr std::size_t kReceptionWarningsMax = 32;  // a scanner may come from many addresses

TenantConfig tenant_of(const SessionOptions& options, const Network& network) {
  constexpr uint64_t kLong = 1'000'000 * kNsPerSecond;
  const SessionLimits limits = limits_of(options);
  TenantConfig tenant;
  tenant.port = options.listen;
  tenant.allow = network.allowed(options.allow);
  tenant.places_max = places_for(options.multifd_channels);
  // Those who connect and do not speak have the other places at most.
  tenant.places_reserved = options.multifd_channels + 1;
  // As SessionControl has it: main of a source since 9.0 may be silent until all its channels are connected.
  tenant.first_bytes_ns = std::min(patience_ns(limits.identify_ns, limits.channels_ns), kLong);
  return tenant;
}

// Once for each peer: a source tries again.
void warn_of_misled_peer(const IpAddress& peer, bool tls_wanted, Terminal& terminal, Report& report) {
  const std::string warning =
      fmt::format("{} began {} and was reset: if it is the source, {}", IpAddressText(peer).view(),
                  tls_wanted ? "without TLS" : "with a TLS handshake",
                  tls_wanted ? "set tls-creds there" : "unset tls-creds there, or give --tls-creds here");
  if (std::find(report.warnings.begin(), report.warnings.end(), warning) != report.warnings.end()) return;
  if (report.warnings.size() >= kReceptionWarningsMax) return;
  report.warnings.push_back(warning);
  terminal.warn("warning: " + warning);
}

}  // namespace

Reception::Reception(const SessionOptions& options, SessionSettings settings,
                     std::map<std::string, uint64_t> addresses, const Surroundings& surroundings)
    : at_(surroundings), postcopy_(at_.guest, at_.host.placement(), options.memory_group) {
  const SessionLimits limits = limits_of(options);
  BlockTable& blocks = at_.guest.table();
  Workers& workers = at_.host.workers();
  HandoffChoice choice = handoff_choice(options, options.multifd_channels, at_.handoff_tls.security());
  choice.refill = &postcopy_.refill();
  choice.memory_postponed = options.expect_postcopy;
  choice.on_postcopy = [this] { postcopy_.begin(monotonic_ns()); };
  destination_ = make_destination(options.handoff, options.dump_blocks, at_.guest, std::move(addresses),
                                  limits.stall_ns, std::move(choice));
  settings.urgent_pages = destination_->urgent_pages();
  MainEvents* events = &destination_->events();
  if (settings.main.x_colo) {
    colo_ = std::make_unique<ColoSecondary>(destination_->events(), blocks.list(), workers.kernels(),
                                            available_memory_bytes);
    if (const std::string problem = colo_->reserve(); !problem.empty()) throw SetupError(problem);
    settings.colo = colo_.get();
    events = colo_.get();
  }
  if (at_.tls != nullptr) settings.security = &at_.tls->acceptor();
  Network& network = at_.host.network();
  port_ = std::make_unique<OpenPort>(network, at_.arrivals, tenant_of(options, network));
  settings.silent_peers = &port_->silent_peers();
  session_ = std::make_unique<Session>(workers.with_routers(std::move(settings)), blocks, *events,
                                       workers.kernels(), at_.compress);
  control_ = std::make_unique<SessionControl>(
      *session_, *destination_, [this] { return port_ != nullptr ? port_->take() : nullptr; },
      workers.pointers(), limits);
  control_->on_ended([this](const Handoff& connection) {
    at_.live_connections.ended(at_.host.network().place(connection));
  });
}

int Reception::status_if_killed() const noexcept {
  if (control_->telling()) return control_->told() ? 0 : 3;
  return session_->in_postcopy() ? 4 : 1;
}

int Reception::exit_status() const noexcept {
  if (session_->state() == SessionState::done) return control_->source_unsure() ? 3 : 0;
  return session_->in_postcopy() ? 4 : 1;
}

void Reception::tell(Terminal& terminal, Report& report) {
  postcopy_.look(monotonic_ns(), terminal);
  if (session_->postcopy_advised() && port_ != nullptr && !std::exchange(keeps_silent_, true))
    port_->keep_silent();
  if (const std::optional<IpAddress> peer = session_->take_misled_peer())
    warn_of_misled_peer(*peer, at_.tls != nullptr, terminal, report);
  if (at_.tls != nullptr) at_.tls->tell(terminal, report);
  at_.handoff_tls.tell(terminal, report);
  while (std::optional<std::string> warning = control_->take_warning()) {
    terminal.warn("warning: " + *warning);
    report.warnings.push_back(std::move(*warning));
  }
  if (colo_ != nullptr) colo_watch_.look(*colo_, terminal);
}

ProgressSample Reception::sample(double now_s) const {
  ProgressSample sample = sample_progress(*session_, at_.guest.table(), now_s);
  at_.host.sample(sample);
  return sample;
}

void Reception::report_parts(Report& report) const {
  if (at_.alone) at_.host.report(report);
  if (colo_ != nullptr) report.colo = counters_of(*colo_);
  if (session_->in_postcopy()) report.postcopy = counters_of(destination_->postcopy());
  if (at_.tls != nullptr) at_.tls->report(report);
  at_.handoff_tls.report(report);
  if (at_.alone) report.cpu_s = cpu_seconds();
}

void Reception::report_now(Report& report) const {
  sample_channels(*session_, at_.start_ns, report);
  report_parts(report);
}

void Reception::report_end(Report& report) const {
  if (!destination_->warning().empty()) report.warnings.push_back(destination_->warning());
  if (destination_->last_sent_ns() > 0)
    report.timeline.handed_on_s = static_cast<double>(destination_->last_sent_ns() - at_.start_ns) * 1e-9;
  report_session(*session_, *control_, at_.guest.table(), at_.start_ns,
                 at_.host.workers().cpus(at_.host.placement()), report);
  at_.guest.report(report);
  report_parts(report);
}

}  // namespace migrx
