#include "loader/app/reset_duty.h"

#include <fmt/format.h>

#include "dataplane/agent_thread.h"
#include "loader/app/linger.h"
#include "loader/app/network.h"
#include "loader/app/receive_options.h"
#include "loader/app/runtime_folder.h"
#include "loader/app/signals.h"
#include "loader/app/terminal.h"
#include "loader/session/session.h"

namespace migrx {
namespace {

constexpr uint64_t kCloseNs = 1'000'000'000;
// A source whose migration failed may be about to open its next channel: with no process to refuse it, its
// kernel would go on trying for two minutes.
constexpr uint64_t kRefuseNs = 250'000'000;

std::string folder_of(const ReceiveOptions& options) {
  return options.runtime_dir.empty() ? default_runtime_folder() : options.runtime_dir;
}

}  // namespace

void inherit_from_predecessors(const ReceiveOptions& options, LiveConnections& live, Terminal& terminal) {
  std::string problem;
  const std::optional<RuntimeFolder> folder = RuntimeFolder::open(folder_of(options), problem);
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

std::string leave_behind(const ReceiveOptions& options, std::vector<LostConnection> lost, bool killed) {
  if (options.linger_s == 0)
    return fmt::format(
        "{} connections of the source are not known to be gone, and --linger 0 starts no process to reset "
        "them: if the source's guest stands still, give migrate_cancel there",
        lost.size());
  LostRecord record = record_of(options, std::move(lost));
  record.killed = killed;
  return start_lingering(record, folder_of(options));
}

ResetDuty::ResetDuty(const ReceiveOptions& options, Network& network, LiveConnections& live)
    : options_(options), network_(network), live_(live) {}

void ResetDuty::begin(LiveConnections::List list, bool refuses_all) {
  list_ = std::move(list);
  board_ = std::make_shared<ResetBoard>(list_.connections.size());
  ResetModeConfig config;
  config.max_ns = kNever;
  config.lost = list_.connections;
  config.board = board_;
  config.refuses_all = refuses_all;
  for (uint32_t i = 0; i < network_.poll_cores(); ++i) {
    config.asks = i == 0;
    network_.poll_core(i).request_reset_mode(config);
  }
}

void ResetDuty::start() {
  LiveConnections::List inherited = live_.inherited();
  if (!inherited.connections.empty()) begin(std::move(inherited), false);
}

void ResetDuty::look() {
  if (board_ == nullptr) return;
  for (std::size_t i = 0; i < board_->size(); ++i)
    if (board_->state(i) == ResetBoard::State::closed) live_.ended(list_.places[i]);
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
  network_.stop_listening();
  if (own_left) begin(live_.all(), true);
  const uint64_t over_ns = monotonic_ns();
  for (;;) {
    const bool busy = network_.connections() > 0 || (own_left && !board_->all_closed());
    const uint64_t least_ns = completed ? 0 : kRefuseNs;
    if (monotonic_ns() >= over_ns + (busy ? kCloseNs : least_ns)) break;
    (void)signals.wait(1000);
  }
  look();
}

}  // namespace migrx
