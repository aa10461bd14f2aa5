#include "loader/app/reset_duty.h"

#include <fmt/format.h>

#include "loader/app/host_options.h"
#include "loader/app/linger.h"
#include "loader/app/lost_connection.h"
#include "loader/app/network.h"
#include "loader/app/runtime_folder.h"
#include "loader/app/signals.h"
#include "loader/app/terminal.h"
#include "loader/session/session.h"
#include "numa/clock.h"

namespace migrx {
namespace {

constexpr uint64_t kCloseNs = 1'000'000'000;
// A source whose migration failed may be about to open its next channel: with no process to refuse it, its
// kernel would go on trying for two minutes.
constexpr uint64_t kRefuseNs = 250'000'000;

}  // namespace

void inherit_from_predecessors(const HostOptions& options, const std::string& runtime_dir,
                               LiveConnections& live, Terminal& terminal) {
  std::string problem;
  const std::optional<RuntimeFolder> folder = RuntimeFolder::open(runtime_folder_of(runtime_dir), problem);
  if (!folder) {
    terminal.warn("warning: " + problem);
    return;
  }
  folder->take_over(record_of(options, {}), [&](const std::vector<LostConnection>& lost) {
    live.inherit(lost);
    if (!lost.empty())
      terminal.say(
          fmt::format("an earlier receiver gave up: its {} connections are reset from here on", lost.size()));
  });
}

std::string leave_behind(const HostOptions& options, const std::string& runtime_dir,
                         std::vector<LostConnection> lost, bool killed) {
  if (options.linger_s == 0)
    return fmt::format(
        "{} connections of the source are not known to be gone, and --linger 0 starts no process to reset "
        "them: if the source's guest stands still, give migrate_cancel there",
        lost.size());
  LostRecord record = record_of(options, std::move(lost));
  record.killed = killed;
  return start_lingering(record, runtime_folder_of(runtime_dir));
}

std::string leave_behind(const HostOptions& options, const std::string& runtime_dir,
                         const Supervision::Legacy& legacy) {
  std::vector<LostConnection> lost;
  for (const std::string& text : legacy.connections)
    if (const auto connection = lost_connection_from(text)) lost.push_back(*connection);
  return leave_behind(options, runtime_dir, std::move(lost), legacy.killed);
}

ResetDuty::ResetDuty(Network& network, LiveConnections& live, uint64_t patience_ns)
    : network_(network), live_(live), patience_ns_(patience_ns) {}

void ResetDuty::begin(LiveConnections::List list, bool refuses_all) {
  Duty duty{std::move(list.places), std::make_shared<ResetBoard>(list.connections.size()), monotonic_ns()};
  ResetModeConfig config;
  config.max_ns = patience_ns_;
  config.lost = std::move(list.connections);
  config.board = duty.board;
  config.refuses_all = refuses_all;
  for (uint32_t i = 0; i < network_.poll_cores(); ++i) {
    config.asks = i == 0;
    // Without a place for it the connections stay on the list that outlives this process.
    (void)network_.poll_core(i).request_reset_mode(config);
  }
  duties_.push_back(std::move(duty));
}

void ResetDuty::start() {
  LiveConnections::List inherited = live_.inherited();
  if (!inherited.connections.empty()) begin(std::move(inherited), false);
}

void ResetDuty::look() {
  for (const Duty& duty : duties_)
    for (std::size_t i = 0; i < duty.places.size(); ++i)
      if (duty.board->state(i) == ResetBoard::State::closed) live_.ended(duty.places[i]);
  const uint64_t now_ns = monotonic_ns();
  std::erase_if(duties_, [&](const Duty& duty) {
    const bool given_up = now_ns - duty.since_ns >= patience_ns_;
    if (given_up)
      for (const uint32_t place : duty.places) live_.ended(place);
    return given_up || duty.board->all_closed();
  });
}

std::size_t ResetDuty::waiting() const noexcept {
  std::size_t waiting = 0;
  for (const Duty& duty : duties_)
    for (std::size_t i = 0; i < duty.places.size(); ++i)
      if (duty.board->state(i) != ResetBoard::State::closed) ++waiting;
  return waiting;
}

bool ResetDuty::part(const Session& session, bool completed) {
  LiveConnections::List left;
  for (const auto& channel : session.channels()) {
    const uint32_t place = network_.place(channel->connection());
    const StreamEnd end = channel->end();
    if (completed || end == StreamEnd::fin || end == StreamEnd::reset)
      live_.ended(place);
    else
      live_.lose(place, left);
  }
  if (left.connections.empty()) return true;
  begin(std::move(left), false);
  return false;
}

void ResetDuty::finish(const Session& session, bool completed, const SignalWatch& signals) {
  look();
  bool own_left = false;
  for (const auto& channel : session.channels()) {
    const StreamEnd end = channel->end();
    if (completed || end == StreamEnd::fin || end == StreamEnd::reset)
      live_.ended(network_.place(channel->connection()));
    else
      own_left = true;
  }
  network_.tenants().close_all();
  if (own_left) begin(live_.all(), true);
  const uint64_t over_ns = monotonic_ns();
  for (;;) {
    // Predecessors' peers, too: one that was reset a moment ago says so when it is asked next, and no process
    // need stay for it.
    const bool busy = network_.connections() > 0 || waiting() > 0;
    const uint64_t least_ns = completed ? 0 : kRefuseNs;
    if (monotonic_ns() >= over_ns + (busy ? kCloseNs : least_ns)) break;
    (void)signals.wait(1000);
  }
  look();
}

}  // namespace migrx
