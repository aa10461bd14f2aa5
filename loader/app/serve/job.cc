#include "loader/app/serve/job.h"

#include <signal.h>

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "loader/app/destinations.h"
#include "loader/app/session_signals.h"
#include "loader/app/setup_error.h"
#include "numa/clock.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

constexpr uint32_t kCompressSlots = 4;  // nobody helps: the worker of the main channel inflates by itself
constexpr double kTellProgress_s = 0.2;
constexpr int kQueuedUs = 50'000;
constexpr int kPreparingUs = 1'000;

}  // namespace

Job::Job(std::string id, ControlPeer peer, SessionArguments arguments, std::vector<Descriptor> came,
         const Surroundings& surroundings)
    : id_(std::move(id)),
      peer_(std::move(peer)),
      at_(surroundings),
      start_ns_(monotonic_ns()),
      arguments_(std::move(arguments)),
      came_(std::move(came)) {
  report_.started_unix_s = unix_time_s();
  report_.command = "receive";
  report_.version = MIGRX_VERSION;
  report_.outcome = "failed";
}

void Job::start() {
  start_ns_ = monotonic_ns();
  report_.started_unix_s = unix_time_s();
  state_ = State::preparing;
  if (!terminal_.last_progress().empty()) terminal_.progress({});  // it waits for nothing any more
  try {
    start_thread(&Job::prepare);
  } catch (const std::system_error& problem) {
    fail(std::string("no thread can be made for this migration: ") + problem.what());
  }
}

Job::~Job() {
  if (cancellation_) cancellation_->ask();
  join();
  forget_memory();
}

double Job::now_s() const {
  return static_cast<double>(monotonic_ns() - start_ns_) * 1e-9;
}

void Job::start_thread(void (Job::*body)()) {
  thread_done_.store(false, std::memory_order_relaxed);
  thread_ = std::thread([this, body] {
    (this->*body)();
    thread_done_.store(true, std::memory_order_release);  // pairs with do_work()
  });
}

void Job::join() {
  if (thread_.joinable()) thread_.join();
}

// As ReceiveRun::receive() does it for a host of its own.
void Job::prepare() {
  try {
    if (const std::optional<ControlError> error =
            open_session_files(std::move(came_), peer_, at_.client_files, arguments_))
      throw SetupError(error->sentence);
    SessionOptions& options = arguments_.options;
    sockets_.find_qmp(options);
    settings_ = session_settings(options, at_.host.placement().poll_agents);
    if (options.tls_creds)
      tls_ = std::make_unique<TlsSetup>(*options.tls_creds, options.tls_authz, settings_.connections_max,
                                        options.identify_timeout_s, report_);
    handoff_tls_ = std::make_unique<HandoffTls>(options, options.tls_creds.has_value(), report_);
    addresses_ = inspect_by_qmp(options, arguments_.ram, handoff_tls_->security() != nullptr, report_,
                                terminal_, *cancellation_);
    guest_ = std::make_unique<GuestBlocks>(arguments_.ram, options.private_ram_max,
                                           options.handoff.has_value(), at_.lifeline, *cancellation_);
    const double since_s = now_s();
    guest_->prefault(at_.host.placement(), memory_settings(options), terminal_, *cancellation_,
                     options.expect_postcopy);
    report_.timeline.prefault_s = now_s() - since_s;
    if (report_.timeline.prefault_s > 0)
      report_.prefault_bytes_per_s = static_cast<double>(guest_->bytes()) / report_.timeline.prefault_s;
    arm_by_qmp(options, source_capabilities(options.capabilities), *guest_, report_, terminal_,
               *cancellation_);
    sockets_.find_handoff(options);
  } catch (const std::exception& problem) {
    problem_ = problem.what();
  }
}

// Whatever fails here must not end the daemon, nor change where the guest is.
void Job::finish() {
  try {
    report_and_release();
  } catch (const std::exception& problem) {
    terminal_.warn(std::string("warning: the report of this migration is not whole: ") + problem.what());
  }
}

void Job::report_and_release() {
  if (reception_ != nullptr) {
    const bool done = exit_status_ == 0 || exit_status_ == 3;
    if (done) disarm_by_qmp(arguments_.options, report_);
    reception_->report_end(report_);
    if (done) keep_blocks(arguments_.options, *guest_, report_);
  }
  report_json_ = to_json(report_);
  summary_ = summary(report_);
  if (reception_ != nullptr) reception_->let_go_of_guest();
  guest_.reset();
  came_.clear();
  sockets_.close();
  if (exit_status_ != 0 && exit_status_ != 3 && exit_status_ != 4)  // the files are a guest's
    for (const ClientFile& file : arguments_.files) at_.client_files.remove(peer_, file);
  arguments_.files.clear();
}

uint32_t Job::do_work(uint64_t now_ns) {
  switch (state_) {
    case State::queued:
      if (!cancellation_->pending()) return 0;
      fail("cancelled while it waited for room");
      return 1;
    case State::preparing:
      if (!thread_done_.load(std::memory_order_acquire)) return 0;
      join();
      begin();
      return 1;
    case State::running:
      return run(now_ns);
    case State::departing:
      depart();
      return 0;
    case State::finishing:
      if (!thread_done_.load(std::memory_order_acquire)) return 0;
      join();
      end();
      return 1;
    case State::over:
      return 0;
  }
  return 0;
}

void Job::fail(const std::string& why) {
  problem_ = why;
  report_.error = make_error(ErrorClass::io, 0, "host", "%s", why.c_str());
  if (cancellation_->pending()) report_.outcome = "cancelled";
  begin_to_finish();
}

void Job::begin() {
  if (problem_.empty() && cancellation_->pending()) problem_ = "cancelled before the source could connect";
  if (!problem_.empty()) return fail(problem_);
  if (!watch_memory())
    return fail("too many files of guest RAM are loaded at a time: wait for a migration to end");
  const SessionOptions& options = arguments_.options;
  compress_ = std::make_unique<CompressJobs>(0, kCompressSlots, at_.host.workers().kernels());
  try {
    reception_ = std::make_unique<Reception>(
        options, std::move(settings_), std::move(addresses_),
        Reception::Surroundings{at_.host, *guest_, tls_.get(), *handoff_tls_, at_.live_connections,
                                at_.arrivals, *compress_, start_ns_, /*alone=*/false});
  } catch (const std::exception& problem) {
    return fail(problem.what());
  }
  for (const std::string& warning : report_.warnings) terminal_.warn("warning: " + warning);
  report_.timeline.ready_s = now_s();
  exit_status_ = 1;
  state_ = State::running;
  at_.tell("READY", {{"id", id_}, {"address", at_.host.network().first_address()}, {"port", port()}});
}

uint32_t Job::run(uint64_t now_ns) {
  look_at_memory();
  const uint32_t work = reception_->control().do_work(now_ns);
  reception_->tell(terminal_, report_);
  tell_progress();
  if (!reception_->control().over()) return work;
  report_.timeline.done_s = now_s();
  reception_->close_port();
  state_ = State::departing;
  return work + 1;
}

// Whoever can write a file of guest RAM can cut it, and the fault would end the daemon with every session.
bool Job::watch_memory() {
  for (const std::span<std::byte> mapping : guest_->mappings()) {
    const std::optional<MappingGuard::Place> place = at_.guard.watch(mapping.data(), mapping.size());
    if (!place) return false;
    watched_.push_back(*place);
  }
  return true;
}

void Job::look_at_memory() {
  if (std::none_of(watched_.begin(), watched_.end(), [this](auto place) { return at_.guard.lost(place); }))
    return;
  reception_->fail(
      make_error(ErrorClass::io, 0, "guest memory",
                 "a file of --ram was cut, or a page of it was lost, while it was loaded: the guest "
                 "stays at the source; find out who shortens that file, and migrate again"));
}

void Job::forget_memory() {
  for (const MappingGuard::Place place : watched_) at_.guard.forget(place);
  watched_.clear();
}

void Job::tell_progress() {
  const SessionState state = reception_->session().state();
  if (state != told_state_) {
    if (told_state_ == SessionState::listening) at_.tell("CONNECTED", {{"id", id_}});
    if (state == SessionState::switchover ||
        (state == SessionState::device_state && told_state_ != SessionState::switchover) ||
        (state == SessionState::postcopy && told_state_ < SessionState::switchover))
      at_.tell("SWITCHOVER", {{"id", id_}});
    told_state_ = state;
  }
  const double at_s = now_s();
  if (at_s - progress_s_ < kTellProgress_s) return;
  progress_s_ = at_s;
  sample_ = reception_->sample(at_s);
  terminal_.progress(progress_.line(sample_, 0));
  if (sample_.rounds != told_rounds_)
    at_.tell("ROUND", {{"id", id_}, {"round", told_rounds_ = sample_.rounds}});
}

// Workers let go of each channel within a turn; nothing of the session may be read by them any more when its
// memory goes.
void Job::depart() {
  const auto& channels = reception_->session().channels();
  if (!std::all_of(channels.begin(), channels.end(), [](const auto& channel) { return channel->let_go(); }))
    return;
  // Nothing that comes now changes where the guest is.
  exit_status_ = reception_->exit_status();
  (void)at_.resets.part(reception_->session(), exit_status_ == 0);
  begin_to_finish();
}

// A host without room for another thread must not end the other migrations: this one holds them up instead.
void Job::begin_to_finish() {
  forget_memory();
  last_look_ = look();
  state_ = State::finishing;
  try {
    start_thread(&Job::finish);
  } catch (const std::system_error&) {
    finish();
    thread_done_.store(true, std::memory_order_relaxed);
  }
}

void Job::end() {
  if (reception_ != nullptr)
    for (const auto& channel : reception_->session().channels()) channel->connection().retire();
  reception_.reset();
  tls_.reset();
  handoff_tls_.reset();
  compress_.reset();
  cancellation_.reset();
  state_ = State::over;
  last_look_.report = condensed(report_);
  const bool complete = exit_status_ == 0;
  terminal_.conclude(
      {.text = summary_.substr(0, summary_.find('\n')),
       .warning = !complete,
       .fields = {{"MIGRX_OUTCOME", report_.outcome}, {"MIGRX_EXIT_STATUS", std::to_string(exit_status_)}}});
  Json data{{"id", id_}, {"outcome", report_.outcome}};
  if (!complete) data["reason"] = report_.error ? report_.error.message() : problem_;
  at_.tell(complete ? "COMPLETED" : "FAILED", data);
}

int Job::pause_us(uint32_t work) noexcept {
  if (state_ == State::queued) return kQueuedUs;
  if (state_ != State::running) return work > 0 ? 0 : kPreparingUs;
  return pace_.pause_us(reception_->session().state(), work);
}

bool Job::unused() const noexcept {
  return state_ == State::queued || state_ == State::preparing ||
         (state_ == State::running && reception_->session().state() == SessionState::listening &&
          reception_->session().channels().empty());
}

SignalAnswer Job::signal(uint64_t now_ns) {
  switch (state_) {
    case State::queued:
    case State::preparing:
      cancellation_->ask();
      return SignalAnswer::end;
    case State::running:
      return act_on_signal(SIGTERM, now_ns, signal_policy_, reception_->control(), terminal_);
    case State::departing:
    case State::finishing:
    case State::over:
      break;
  }
  return SignalAnswer::none;
}

Budget Job::wanted() const noexcept {
  return {1, places_for(arguments_.options.multifd_channels), arguments_.options.private_ram_max};
}

Budget Job::promised() const noexcept {
  if (queued() || over()) return {};
  Budget promised = wanted();
  // Places are counted by the tenants that have them (Tenants::places_promised()), from running on.
  if (state_ != State::preparing) promised.places = 0;
  return promised;
}

const char* Job::state_name() const noexcept {
  switch (state_) {
    case State::queued:
      return "queued";
    case State::preparing:
      return "preparing";
    case State::running:
      switch (reception_->session().state()) {
        case SessionState::listening:
          return "ready";
        case SessionState::setup:
          return "setup";
        case SessionState::precopy:
        case SessionState::colo:
          return "precopy";
        case SessionState::switchover:
          return "switchover";
        case SessionState::postcopy_paused:
          return "postcopy-paused";
        case SessionState::postcopy:
          return "postcopy";
        case SessionState::device_state:
        case SessionState::done:
        case SessionState::failed:
          return "device-state";
      }
      break;
    case State::departing:
    case State::finishing:
      return reception_ != nullptr ? "device-state" : "preparing";
    case State::over:
      return "done";
  }
  return "done";
}

bool Job::guest_stands_still() const noexcept {
  if (state_ != State::running) return false;
  const SessionState state = reception_->session().state();
  return state == SessionState::switchover || state == SessionState::device_state;
}

SessionLook Job::look() const {
  SessionLook look{id_, "", {}, {}};
  switch (state_) {
    case State::queued:
      look.state = "queued";
      break;
    case State::preparing:
      look.state = "preparing";
      break;
    case State::running:
    case State::departing: {
      Report live;
      live.warnings = report_.warnings;
      live.timeline = report_.timeline;
      reception_->report_now(live);
      look.report = condensed(live);
      look.progress = reception_->sample(now_s());
      look.state = to_string(reception_->session().state());
      break;
    }
    case State::finishing:
    case State::over:
      look = last_look_;
      look.state =
          to_string(exit_status_ == 0 || exit_status_ == 3 ? SessionState::done : SessionState::failed);
      break;
  }
  return look;
}

// As the last line of progress had them.
Json Job::figures() const {
  Json figures{{"channels", sample_.channels},
               {"channels-expected", sample_.channels_expected},
               {"wire-bytes", sample_.wire_bytes},
               {"rounds", sample_.rounds},
               {"ram-bytes", sample_.ram_pages * kPageBytes},
               {"first-pass-bytes", sample_.first_pass_pages * kPageBytes}};
  if (const double left_s = progress_.first_pass_left_s(); left_s >= 0) figures["left-s"] = left_s;
  return figures;
}

Json Job::line() const {
  Json line{{"id", id_},
            {"state", state_name()},
            {"port", port()},
            {"uid", peer_.uid},
            {"progress", terminal_.last_progress()}};
  if (reception_ != nullptr && progress_s_ > 0) line["figures"] = figures();
  if (over()) line["outcome"] = report_.outcome;
  return line;
}

Json Job::describe() const {
  Json out{{"id", id_}, {"state", state_name()}, {"port", port()}, {"progress", terminal_.last_progress()}};
  // While its thread runs the report is that thread's.
  if (state_ == State::running || state_ == State::departing) out["warnings"] = report_.warnings;
  if (!over()) return out;
  out["warnings"] = report_.warnings;
  out["outcome"] = report_.outcome;
  out["exit-status"] = exit_status_;
  out["summary"] = summary_;
  if (Json report = Json::parse(report_json_, nullptr, /*allow_exceptions=*/false); !report.is_discarded())
    out["report"] = std::move(report);
  return out;
}

}  // namespace migrx
