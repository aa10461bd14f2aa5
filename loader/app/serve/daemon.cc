#include "loader/app/serve/daemon.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "dataplane/tenants.h"
#include "loader/app/serve/client_sockets.h"
#include "loader/control/control_message.h"
#include "loader/destination/port_range.h"
#include "numa/clock.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

constexpr int kIdleUs = 50'000;

ControlError refused(const char* error_class, std::string sentence) {
  return {error_class, std::move(sentence)};
}

// Empty: there are none of them.
std::string surplus_argument(const Json& arguments) {
  return arguments.empty() ? std::string{} : arguments.begin().key();
}

}  // namespace

Daemon::Daemon(const ServeOptions& options, const Job::Surroundings& surroundings)
    : options_(options), at_(surroundings), allow_(allowed_networks(options)) {
  (void)parse_port_range(options.listen_range, range_);
}

Daemon::~Daemon() = default;

ControlAnswer Daemon::execute(ControlRequest& request) {
  if (request.command == "session-add") return session_add(request);
  if (request.command == "session-cancel") return session_cancel(request);
  if (request.command == "query-session") return query_session(request);
  const std::string surplus = surplus_argument(request.arguments);
  const auto plain = [&](auto&& body) -> ControlAnswer {
    if (!surplus.empty())
      return refused(control_class::kArguments,
                     fmt::format("{} has no argument {}", request.command, surplus));
    return body();
  };
  if (request.command == "query-sessions") return plain([&] { return query_sessions(request); });
  if (request.command == "query-host") return plain([&] { return query_host(request); });
  if (request.command == "query-version") return plain([&] { return query_version(request); });
  if (request.command == "quit") return plain([&] { return quit(request); });
  return refused(control_class::kCommandNotFound,
                 fmt::format("there is no command {}: session-add, session-cancel, query-sessions, "
                             "query-session, query-host, query-version and quit are",
                             request.command));
}

ControlAnswer Daemon::session_add(ControlRequest& request) {
  SessionArguments arguments;
  if (const std::optional<ControlError> error =
          parse_session_arguments(request.arguments, request.files.size(), request.peer, arguments))
    return *error;
  return begin(request.peer, std::move(arguments), request.files);
}

ControlAnswer Daemon::begin(const ControlPeer& peer, SessionArguments arguments,
                            std::vector<Descriptor>& came) {
  ControlAnswer answer = admit(peer, std::move(arguments), came);
  if (std::holds_alternative<ControlError>(answer)) ++ended_.refused;
  return answer;
}

ControlAnswer Daemon::admit(const ControlPeer& peer, SessionArguments arguments,
                            std::vector<Descriptor>& came) {
  if (draining_)
    return refused(control_class::kShuttingDown,
                   "this daemon ends once its migrations are over, and takes no new one: ask again when it "
                   "has been started anew");
  ReceiveOptions& options = arguments.options;
  const bool root = peer.root();
  if (!root)
    if (std::string problem = not_for_clients(options); !problem.empty())
      return refused(control_class::kNotPermitted, std::move(problem));
  if (!root && !options.allow.empty())
    return refused(control_class::kNotPermitted,
                   "allow: who may connect is the host's to say, by --allow of the daemon");
  if (options.allow.empty()) options.allow = allow_;
  options.runtime_dir = options_.runtime_dir;
  if (std::optional<ControlError> error = settle_port(peer, arguments)) return *std::move(error);
  if (const std::string problem = check_host_options(options_, options); !problem.empty())
    return refused(control_class::kArguments, problem);
  const Budget asked{1, places_for(options.multifd_channels), options.private_ram_max};
  std::string why = port_busy(options.listen);
  const Room room = room_for(whole(), promised(), asked, waiting(peer), options.wait, why);
  if (room == Room::none) return refused(control_class::kNoRoom, std::move(why));
  if (jobs_.size() >= kKeptMax) {
    const auto oldest = std::find_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->over(); });
    if (oldest != jobs_.end()) jobs_.erase(oldest);
  }
  jobs_.push_back(std::make_unique<Job>(fmt::format("s{}", ++last_id_), peer, std::move(arguments),
                                        std::move(came), at_));
  Job& job = *jobs_.back();
  if (room == Room::now)
    job.start();
  else
    job.wait_for(why);
  Json answer{{"id", job.id()}, {"port", job.port()}};
  if (!why.empty()) answer["waits-for"] = why;
  return answer;
}

std::optional<ControlError> Daemon::settle_port(const ControlPeer& peer, SessionArguments& arguments) const {
  ReceiveOptions& options = arguments.options;
  if (arguments.listen) {
    if (!peer.root() && (*arguments.listen < range_.first || *arguments.listen > range_.last))
      return refused(control_class::kNotPermitted,
                     fmt::format("listen {}: other clients than root may take the ports {} to {}",
                                 *arguments.listen, range_.first, range_.last));
    options.listen = *arguments.listen;
  } else {
    options.listen = free_port();
    if (options.listen == 0)
      return refused(control_class::kNoRoom,
                     fmt::format("the ports {} to {} are all taken: wait for a migration to end, or start "
                                 "the daemon with a larger --listen-range",
                                 range_.first, range_.last));
  }
  return std::nullopt;
}

Job* Daemon::job(const std::string& id) noexcept {
  const auto found =
      std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& job) { return job->id() == id; });
  return found == jobs_.end() ? nullptr : found->get();
}

Job* Daemon::find(const ControlRequest& request, ControlError& error) {
  const auto id = request.arguments.find("id");
  if (request.arguments.size() != 1 || id == request.arguments.end() || !id->is_string()) {
    error =
        refused(control_class::kArguments,
                fmt::format("{} takes one argument: id, a string as session-add gave it", request.command));
    return nullptr;
  }
  const auto& name = id->get_ref<const std::string&>();
  Job* const found = job(name);
  if (found == nullptr) {
    error = refused(control_class::kNotFound, fmt::format("there is no session {}", name));
    return nullptr;
  }
  if (!found->belongs_to(request.peer)) {
    error = refused(control_class::kNotPermitted,
                    fmt::format("session {} is another user's: ask as that user, or as root", name));
    return nullptr;
  }
  return found;
}

ControlAnswer Daemon::session_cancel(const ControlRequest& request) {
  ControlError error;
  Job* const job = find(request, error);
  if (job == nullptr) return error;
  const SignalAnswer answer = job->signal(monotonic_ns());
  return Json{{"answer", to_word(answer)}, {"text", to_text(answer, SIGTERM)}};
}

ControlAnswer Daemon::query_session(const ControlRequest& request) {
  ControlError error;
  const Job* const job = find(request, error);
  if (job == nullptr) return error;
  return job->describe();
}

ControlAnswer Daemon::query_sessions(const ControlRequest&) const {
  Json list = Json::array();
  for (const auto& job : jobs_) list.push_back(job->line());
  return list;
}

ControlAnswer Daemon::query_host(const ControlRequest&) const {
  Report report;
  at_.host.report(report);
  const Json all = Json::parse(to_json(report), nullptr, /*allow_exceptions=*/false);
  Json out{{"address", at_.host.network().first_address()}};
  for (const auto& [name, value] : counters_of(numbers())) {
    const std::size_t dot = name.find('.');
    (dot == std::string::npos ? out[name] : out[name.substr(0, dot)][name.substr(dot + 1)]) = value;
  }
  out["draining"] = draining_;  // a flag, for programs
  for (const char* const part : {"ports", "cores", "dataplane", "memory"})
    if (all.contains(part)) out[part] = all[part];
  return out;
}

ControlAnswer Daemon::query_version(const ControlRequest&) const {
  return Json{{"version", MIGRX_VERSION}, {"protocol", kControlProtocol}};
}

ControlAnswer Daemon::quit(const ControlRequest& request) {
  if (request.peer.uid != 0)
    return refused(control_class::kNotPermitted, "quit is root's: it ends the service for everybody");
  drain();
  return Json::object();
}

uint32_t Daemon::do_work(uint64_t now_ns) {
  uint32_t all = 0;
  pause_us_ = kIdleUs;
  let_in();
  for (const auto& job : jobs_) {
    if (job->over()) continue;
    const uint32_t work = job->do_work(now_ns);
    all += work;
    if (job->over()) count_end(job->exit_status());
    pause_us_ = std::min(pause_us_, job->pause_us(work));
  }
  return all;
}

void Daemon::count_end(int exit_status) noexcept {
  ++(exit_status == 0 ? ended_.completed : exit_status == 3 ? ended_.unsure : ended_.failed);
}

// Those who wait begin in the order they came.
void Daemon::let_in() {
  for (const auto& job : jobs_) {
    if (!job->queued()) continue;
    if (draining_) {
      job->turn_away(
          "this daemon ends once its migrations are over: ask again when it has been started anew");
      continue;
    }
    // Who waits for a port takes nobody's room.
    if (const std::string problem = port_busy(job->port()); !problem.empty()) {
      job->wait_for(problem);
      continue;
    }
    if (const std::string problem = no_room(whole(), promised(), job->wanted()); !problem.empty()) {
      job->wait_for(problem);
      return;
    }
    job->start();
  }
}

WaitingLine Daemon::waiting(const ControlPeer& peer) const {
  WaitingLine line;
  for (const auto& job : jobs_) {
    if (!job->queued()) continue;
    ++line.all;
    if (!port_in_use(job->port())) ++line.for_room;
    if (!peer.root() && job->uid() == peer.uid) ++line.of_this_user;
  }
  return line;
}

void Daemon::signal_all(uint64_t now_ns) {
  for (const auto& job : jobs_) (void)job->signal(now_ns);
}

uint32_t Daemon::under_way() const noexcept {
  return static_cast<uint32_t>(
      std::count_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return !job->over(); }));
}

DaemonNumbers Daemon::numbers() const {
  DaemonNumbers now = ended_;
  now.promised = promised();
  now.whole = whole();
  now.waiting = static_cast<uint32_t>(
      std::count_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->queued(); }));
  now.peers_to_be_told = at_.resets.waiting();
  now.draining = draining_;
  return now;
}

std::vector<SessionLook> Daemon::looks() const {
  const std::size_t over = jobs_.size() - under_way();
  std::size_t too_old = over - std::min(over, kLookedAtMax);
  std::vector<SessionLook> looks;
  for (const auto& job : jobs_) {
    if (job->over() && too_old > 0)
      --too_old;
    else
      looks.push_back(job->look());
  }
  return looks;
}

bool Daemon::guest_stands_still() const noexcept {
  return std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->guest_stands_still(); });
}

std::vector<JobTerminal::Line> Daemon::take_lines() {
  std::vector<JobTerminal::Line> lines;
  for (const auto& job : jobs_)
    for (JobTerminal::Line& line : job->take_lines()) {
      const bool warning = line.text.starts_with("warning: ");
      line.text =
          warning ? "warning: " + job->id() + ": " + line.text.substr(9) : job->id() + ": " + line.text;
      line.fields.emplace_back("MIGRX_SESSION", job->id());
      lines.push_back(std::move(line));
    }
  return lines;
}

Budget Daemon::whole() const {
  return {options_.sessions_max, at_.host.network().places(), private_ram_of(options_)};
}

Budget Daemon::promised() const {
  Budget sum;
  for (const auto& job : jobs_) {
    const Budget one = job->promised();
    sum.sessions += one.sessions;
    sum.places += one.places;
    sum.private_ram_bytes += one.private_ram_bytes;
  }
  sum.places += at_.host.network().tenants().places_promised();
  return sum;
}

bool Daemon::port_in_use(uint16_t port) const {
  return at_.host.network().tenants().listening_on(port) != nullptr ||
         std::any_of(jobs_.begin(), jobs_.end(), [port](const auto& job) {
           return !job->over() && !job->queued() && job->port() == port;
         });
}

std::string Daemon::port_busy(uint16_t port) const {
  if (!port_in_use(port)) return {};
  return fmt::format("listen {}: another migration has that port: name another one, or none", port);
}

uint16_t Daemon::free_port() const {
  for (uint32_t number = range_.first; number <= range_.last; ++number) {
    const auto port = static_cast<uint16_t>(number);
    const bool kept = std::any_of(jobs_.begin(), jobs_.end(),
                                  [port](const auto& job) { return job->queued() && job->port() == port; });
    if (!kept && !port_in_use(port)) return port;
  }
  return 0;
}

}  // namespace migrx
