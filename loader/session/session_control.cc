#include "loader/session/session_control.h"

#include <algorithm>
#include <array>
#include <utility>

#include "loader/main/return_path.h"
#include "loader/session/watchdogs.h"

namespace migrx {
namespace {

// A worker that lives looks at each of its channels some thousand times in this time.
constexpr uint64_t kLookNs = 1'000'000'000;

// Of a refused one: it was asked for more, and has sent it.
bool has_said_more(const Channel& channel) noexcept {
  return channel.connection().bytes_received.read() > channel.said_unasked();
}

}  // namespace

SessionControl::SessionControl(Session& session, Destination& destination,
                               std::function<Handoff*()> take_accepted, std::vector<LoaderWorker*> workers,
                               SessionLimits limits)
    : session_(session),
      destination_(destination),
      take_accepted_(std::move(take_accepted)),
      workers_(std::move(workers)),
      limits_(limits) {}

uint32_t SessionControl::do_work(uint64_t now_ns) {
  const std::size_t before = served_.size();
  take_connections(now_ns);
  uint32_t work = static_cast<uint32_t>(served_.size() - before);
  if (phase_ == Phase::running) tell_destination_of_channels();
  work += destination_.do_work(now_ns);
  if (session_.security() != nullptr) work += session_.security()->do_work(now_ns);
  refuse_strangers(now_ns);
  if (phase_ == Phase::running && session_.in_postcopy()) phase_ = Phase::postcopy;
  switch (phase_) {
    case Phase::postcopy:
      if (!answer_source()) break;
      switch (postcopy_.do_work()) {
        case PostcopyControl::Stage::relaying:
        case PostcopyControl::Stage::paused:
          break;
        case PostcopyControl::Stage::arrived:
          begin_telling();
          break;
        case PostcopyControl::Stage::broken:
          session_.overturn(postcopy_.error());
          destination_.abandon();
          begin_resetting(now_ns, now_ns);
          break;
      }
      break;
    case Phase::running:
      look_for_silent_peers(now_ns);
      (void)answer_source();
      answer_primary();
      if (!watch_arrival(now_ns) && !watch_ends()) watch_silence(now_ns);
      judge(now_ns);
      break;
    case Phase::telling: {
      (void)to_source_.flush(session_.main_connection(), session_.security());
      // With a return path the source closes when it has read SHUT 0. Without one it closed long ago.
      const Channel* const main = channel_of(session_.main_connection());
      const StreamEnd end = main == nullptr ? StreamEnd::fin : main->end();
      const bool gone = end != StreamEnd::none;
      // Read after `gone`: an acknowledgement that came before the end counts.
      const bool told =
          main == nullptr || (to_source_.empty() && session_.main_connection()->all_acknowledged());
      const bool ended = end == StreamEnd::fin || end == StreamEnd::reset;
      // In postcopy the guest is at the destination whatever the source believes.
      if (return_path_open_ && !told && ended && !session_.in_postcopy()) {
        // It ended before SHUT 0 reached its TCP: it was cancelled, or it is dead.
        session_.overturn(session_.main_channel().closed_unread());
        destination_.abandon();
        begin_resetting(now_ns, now_ns);  // it is dead, or has closed its channels
        break;
      }
      told_ = told_ || told;
      // Until the source's TCP has acknowledged SHUT 0 an outage may be on; TCP says when that is given up.
      if (told && return_path_open_ && deadline_ns_ == 0) deadline_ns_ = now_ns + limits_.farewell_ns;
      const bool late = deadline_ns_ != 0 && now_ns >= deadline_ns_;
      if (gone || (told && !return_path_open_) || late || verdict_given_up_) {
        source_unsure_ = return_path_open_ && !told;
        if (late && told && return_path_open_ && !gone)
          warnings_.push_back(
              "the source was told that its guest is here, and keeps its connection open: ask the source "
              "(query-migrate). If the answer is colo, x-colo is on there, and its guest stands still and "
              "waits for checkpoints: end that QEMU (quit), and never give it x-colo-lost-heartbeat, or the "
              "guest runs twice");
        session_.finish();
        // A source that may still wait for SHUT 0 must not wait for ever.
        if (source_unsure_) reset_all();
        deadline_ns_ = now_ns + limits_.abort_ns;
        phase_ = Phase::closing;
      }
      break;
    }
    case Phase::closing:
      // Orderly: FIN after everything sent. The poll cores finish the handshake while the report is written.
      if (close_all() || now_ns >= deadline_ns_) end();
      break;
    case Phase::failing_over:
      go_on_with_failover(now_ns);
      break;
    case Phase::aborting: {
      Handoff* const main = session_.main_connection();
      const bool told =
          main == nullptr || (to_source_.flush(main, session_.security()) && main->all_acknowledged());
      if (told || now_ns >= deadline_ns_) begin_resetting(now_ns, now_ns + limits_.multifd_reset_ns);
      break;
    }
    case Phase::resetting: {
      // Also those whose command ring was full, and late ones.
      reset_due(now_ns);
      if (all_are_gone(now_ns) || now_ns >= deadline_ns_) {
        reset_all();
        end();
      }
      break;
    }
    case Phase::over:
      break;
  }
  return work;
}

void SessionControl::cancel() {
  const bool may_end = phase_ == Phase::running || phase_ == Phase::failing_over;
  if (!may_end || destination_.verdict() == Verdict::accepted) return;
  session_.fail(make_error(ErrorClass::cancelled, 0, "operator",
                           "ended by a signal before the migration was complete"));
}

bool SessionControl::give_up_telling() {
  if (phase_ != Phase::telling) return false;
  verdict_given_up_ = true;
  return true;
}

bool SessionControl::guest_in_transit() const noexcept {
  const SessionState state = session_.state();
  const ColoSecondary* const colo = session_.colo();
  // COLO's guest runs at its primary between two checkpoints.
  if (phase_ == Phase::running && colo != nullptr && colo->stage() > ColoSecondary::Stage::migrating)
    return false;
  return phase_ == Phase::telling || phase_ == Phase::failing_over || state == SessionState::switchover ||
         state == SessionState::device_state;
}

bool SessionControl::cancellable() const noexcept {
  if (phase_ != Phase::running && phase_ != Phase::failing_over) return false;
  if (destination_.verdict() == Verdict::accepted) return false;
  // Without a return path nothing can tell a source that it still has its guest.
  return !guest_in_transit() || return_path_open_ || session_.colo() != nullptr;
}

int SessionControl::worker_of(const Handoff* connection) const noexcept {
  const Channel* const channel = channel_of(connection);
  return channel == nullptr ? -1 : static_cast<int>(channel->worker());
}

void SessionControl::take_connections(uint64_t now_ns) {
  // Of those that come to a session which has failed, main is reset at once and a multifd channel in its
  // time.
  const bool takes_in = phase_ == Phase::running || phase_ == Phase::postcopy || phase_ == Phase::aborting ||
                        (phase_ == Phase::resetting && now_ns < multifd_reset_ns_);
  while (!takes_in || has_room()) {
    Handoff* const connection = take_accepted_();
    if (connection == nullptr) return;
    const std::size_t worker = least_loaded_worker();
    Channel* const channel =
        takes_in ? session_.add_connection(*connection, static_cast<uint32_t>(worker)) : nullptr;
    if (channel == nullptr || !workers_[worker]->attach(*channel)) {
      if (channel != nullptr) session_.remove_connection(*channel);
      ++refused_;
      (void)connection->abort();
      connection->detach();
      ended_(*connection);
      connection->retire();
      continue;
    }
    served_.push_back({.channel = channel, .since_ns = now_ns, .aborted = false, .looked_ns = now_ns});
  }
}

bool SessionControl::has_room() const noexcept {
  return session_.has_room() && std::any_of(workers_.begin(), workers_.end(),
                                            [](const LoaderWorker* worker) { return worker->has_room(); });
}

// Channels of one source carry about the same, so the worker with the fewest has the least to do; other
// sessions' channels count. Of equals the next in turn.
std::size_t SessionControl::least_loaded_worker() {
  std::size_t best = next_worker_ % workers_.size();
  for (std::size_t i = 1; i < workers_.size(); ++i) {
    const std::size_t worker = (next_worker_ + i) % workers_.size();
    if (workers_[worker]->serving() < workers_[best]->serving()) best = worker;
  }
  next_worker_ = best + 1;
  return best;
}

void SessionControl::tell_destination_of_channels() {
  channels_told_.resize(session_.channels_expected() - 1);
  for (uint32_t i = 0; i < channels_told_.size(); ++i) {
    if (channels_told_[i] || session_.multifd_connection(i) == nullptr) continue;
    if (!session_.multifd_channel(i).id()) continue;
    channels_told_[i] = true;
    destination_.on_multifd_init(session_.multifd_channel(i).init_packet());
  }
}

void SessionControl::refuse_strangers(uint64_t now_ns) {
  session_.set_unheard(somebody_is_unheard());
  const bool holds_elsewhere = holds_channels_from_elsewhere();
  for (std::size_t i = 0; i < served_.size();) {
    Served& served = served_[i];
    if (served.channel->identified()) {
      // Given up a moment before its first bytes were read: the source has been reset, so its guest runs on.
      // (COLO's source, once lost, is reset as well, and that is no end.)
      const bool lost = session_.colo() != nullptr && session_.colo()->source_lost();
      if (served.aborted && !lost && phase_ == Phase::running)
        session_.fail(make_error(ErrorClass::timed_out, 0, "session: connection",
                                 "given up after %.0f s without a byte, then its first bytes came",
                                 static_cast<double>(limits_.identify_ns) * 1e-9));
      ++i;
      continue;
    }
    // A silent one is still its worker's: the reset comes back to it as the end of the stream.
    // One that has spoken and was not heard yet is no stranger: its worker is late.
    const bool silent = now_ns - served.since_ns > silence_ns_max(served.channel->connection()) &&
                        (served.channel->secured() || served.channel->connection().bytes_received.read() <
                                                          served.channel->greeting_wanted());
    if (served.channel->refused() && served.refused_ns == 0) {
      served.refused_ns = now_ns;
      ++refused_;
    }
    const bool held = holds_elsewhere && served.channel->claim() == Claim::elsewhere;
    if (was_own(served, now_ns)) session_.fail_for_surplus();
    if (!served.aborted && (silent || (!held && may_reset_refused(served, now_ns)))) {
      served.aborted = served.channel->connection().abort();
      refused_ += served.aborted && served.refused_ns == 0 ? 1 : 0;
    }
    if (!served.aborted || !served.channel->let_go()) {
      ++i;
      continue;
    }
    ended_(served.channel->connection());
    served.channel->connection().retire();
    session_.remove_connection(*served.channel);
    served_.erase(served_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

bool SessionControl::may_reset_refused(const Served& served, uint64_t now_ns) const noexcept {
  const Channel& channel = *served.channel;
  // Of a failed session the order is reset_due()'s.
  if (!channel.refused() || session_.state() == SessionState::failed) return false;
  const bool undecided = channel.claim() == Claim::surplus && session_.unheard();
  uint64_t held_ns = limits_.refused_silent_ns;
  // A source connects main first, so main was the first whose TLS was refused.
  if (has_said_more(channel) && !undecided)
    held_ns = channel.claim() == Claim::unknown ? 0 : limits_.refused_ns;
  return !channel.may_be_multifd() || channel.end() != StreamEnd::none || !session_.holds_dismissed() ||
         now_ns - served.refused_ns >= held_ns;
}

// Main waits for those that are missing, and they may be these, sent through a NAT. To reset them alone would
// do that source harm; to end the session for them before its time, another source, whose SYN or first bytes
// were lost. watch_arrival() has that time. They cannot be its own when there are more than are missing.
bool SessionControl::holds_channels_from_elsewhere() const noexcept {
  if (!session_.main_waits() || session_.state() == SessionState::failed) return false;
  const auto open = std::count_if(served_.begin(), served_.end(), [this](const Served& served) {
    const Channel& channel = *served.channel;
    return channel.refused() && channel.claim() == Claim::elsewhere && channel.end() == StreamEnd::none &&
           !session_.is_rival(channel.connection());
  });
  return open > 0 &&
         open <= static_cast<std::ptrdiff_t>(session_.channels_expected() - session_.identified());
}

// It is open and in use after a time in which any other source would have closed it: it is the session's own.
// To reset it alone would do that source harm.
bool SessionControl::was_own(const Served& served, uint64_t now_ns) const noexcept {
  const Channel& channel = *served.channel;
  if (phase_ != Phase::running || session_.state() >= SessionState::device_state) return false;
  return channel.refused() && channel.claim() == Claim::surplus && channel.end() == StreamEnd::none &&
         has_said_more(channel) && now_ns - served.refused_ns >= limits_.refused_ns &&
         session_.surplus_is_own();
}

bool SessionControl::is_unidentified(const Served& served) noexcept {
  return !served.channel->identified() && !served.channel->refused() && !served.aborted;
}

// Who finds no room waits in a poll core.
bool SessionControl::somebody_is_unheard() const noexcept {
  return !has_room() || std::any_of(served_.begin(), served_.end(), [this](const Served& served) {
    const Handoff& connection = served.channel->connection();
    return is_unidentified(served) && &connection != session_.admission().main_connection() &&
           !session_.is_stranger(connection);
  });
}

std::optional<uint64_t> SessionControl::silent_since_ns() {
  SilentPeers* const peers = session_.silent_peers();
  if (peers == nullptr) return UINT64_MAX;
  if (!std::exchange(silence_asked_, true)) {
    peers->ask();
    return std::nullopt;
  }
  const std::optional<uint64_t> answer = peers->oldest_ns();
  if (answer) silence_asked_ = false;
  return answer;
}

// Nobody is served any more; and until multifd channels may be reset, nobody is silent who may be one.
bool SessionControl::all_are_gone(uint64_t now_ns) {
  const auto all_let_go = [this] {
    return std::all_of(served_.begin(), served_.end(),
                       [](const Served& served) { return served.channel->let_go(); });
  };
  if (!all_let_go()) return false;
  if (now_ns >= multifd_reset_ns_) return true;
  if (silent_since_ns() != UINT64_MAX) return false;
  take_connections(now_ns);  // who spoke before the answer
  return all_let_go();
}

void SessionControl::look_for_silent_peers(uint64_t now_ns) {
  SilentPeers* const peers = session_.silent_peers();
  if (peers == nullptr || !session_.admission().gathered()) {
    silence_asked_ = false;
    return;
  }
  const std::optional<uint64_t> answer = silent_since_ns();
  if (!answer) return;
  take_connections(now_ns);  // who spoke before the answer
  if (!has_room()) return;   // somebody may be left there
  uint64_t since_ns = *answer;
  for (const Served& served : served_) {
    const Handoff& connection = served.channel->connection();
    if (!is_unidentified(served) || connection.opened_ns == 0) continue;
    if (&connection == session_.admission().main_connection()) continue;
    since_ns = std::min(since_ns, connection.opened_ns);
  }
  session_.heard_all(since_ns);
}

// A source since 9.0 says nothing on main before all of its channels are connected (QEMU migration/multifd.c,
// multifd_send_setup() waits for them), and a SYN that is lost again and again comes after half a minute:
// while channels are missing, silence is no sign of a stranger. watch_arrival() has the time for them.
uint64_t SessionControl::silence_ns_max(const Handoff& connection) const noexcept {
  const bool may_wait = session_.channels_expected() > 1 &&
                        session_.identified() < session_.channels_expected() &&
                        !session_.is_stranger(connection);
  const bool may_be_preempt = session_.postcopy_advised() && !session_.is_stranger(connection);
  if (limits_.identify_ns == 0 || may_be_preempt) return UINT64_MAX;
  if (!may_wait) return limits_.identify_ns;
  return patience_ns(limits_.identify_ns, limits_.channels_ns);
}

bool SessionControl::answer_source() {
  Handoff* const main = session_.main_connection();
  (void)to_source_.flush(main, session_.security());
  SessionEvent event;
  // What finds no room stays in the ring of events, and when that is half full main waits.
  while (to_source_.has_room() && session_.next_event(event)) {
    switch (event.kind) {
      case SessionEvent::Kind::return_path_opened:
        open_return_path(static_cast<OwedAck>(event.value));
        break;
      case SessionEvent::Kind::ping:
        to_source_.put(make_pong(event.value));
        break;
      case SessionEvent::Kind::ram_complete:
        break;
    }
    (void)to_source_.flush(main, session_.security());
  }
  // What a destination QEMU says is passed on, also when migrx was not told of the capability: the source,
  // whose capabilities are the same, waits for it. The first has a place of its own in the queue.
  const uint32_t due = destination_.switchover_acks().value_or(own_switchover_acks_);
  while (return_path_open_ && switchover_acks_ < due && (switchover_acks_ == 0 || to_source_.has_room())) {
    ++switchover_acks_;
    to_source_.put(make_switchover_ack());
  }
  return to_source_.flush(main, session_.security());
}

void SessionControl::open_return_path(OwedAck owed) {
  return_path_open_ = true;
  if (destination_.switchover_acks()) return;
  own_switchover_acks_ = owed == OwedAck::none ? 0 : 1;
  if (owed == OwedAck::one_perhaps)
    warnings_.push_back(
        "the machine type does not tell whether the source waits for a SWITCHOVER_ACK: migrx sent one, which "
        "QEMU before 11.1 needs; a newer source then does not finish, and its guest runs on: in that case "
        "migrate again with --switchover-ack-legacy off");
}

std::optional<std::string> SessionControl::take_warning() {
  if (warnings_.empty()) return postcopy_.take_warning();
  std::string first = std::move(warnings_.front());
  warnings_.erase(warnings_.begin());
  return first;
}

bool SessionControl::close_all() {
  bool all = true;
  for (Served& served : served_) {
    if (!served.closed) served.closed = served.channel->connection().close();
    all = all && served.closed;
  }
  return all;
}

uint64_t SessionControl::bytes_received() const noexcept {
  uint64_t sum = 0;
  // Not those of strangers, who could keep a session that has come to a halt from being ended.
  for (const Served& served : served_)
    if (served.channel->identified()) sum += served.channel->connection().bytes_received.read();
  return sum;
}

uint64_t SessionControl::heard_ns() const noexcept {
  uint64_t latest = 0;
  for (const Served& served : served_)
    if (served.channel->identified()) latest = std::max(latest, served.channel->connection().heard_ns.read());
  return latest;
}

uint64_t SessionControl::all_heard_ns() const noexcept {
  uint64_t earliest = UINT64_MAX;
  for (const Served& served : served_) {
    const uint64_t heard_ns = served.channel->connection().heard_ns.read();
    if (served.channel->identified() && served.channel->end() == StreamEnd::none && heard_ns != 0)
      earliest = std::min(earliest, heard_ns);
  }
  return earliest;
}

bool SessionControl::has_open_connection() const noexcept {
  return std::any_of(served_.begin(), served_.end(), [](const Served& served) {
    return served.channel->identified() && served.channel->end() == StreamEnd::none;
  });
}

bool SessionControl::has_unread_bytes() const noexcept {
  return std::any_of(served_.begin(), served_.end(), [](const Served& served) {
    return served.channel->identified() && !served.channel->let_go() && served.channel->connection().unread();
  });
}

bool SessionControl::has_bytes_under_way(bool at_barrier) const noexcept {
  return std::any_of(served_.begin(), served_.end(), [&](const Served& served) {
    const Handoff& connection = served.channel->connection();
    return served.channel->identified() && served.channel->end() == StreamEnd::none &&
           connection.bytes_shown.read() > connection.bytes_received.read() &&
           (at_barrier || !stands_at_barrier(connection));
  });
}

bool SessionControl::stands_at_barrier(const Handoff& connection) const noexcept {
  const FlushBarrier& barrier = session_.barrier();
  const bool is_main = &connection == session_.main_connection();
  for (uint32_t i = 0; i < barrier.channels(); ++i) {
    const MultifdId id{i};
    if (is_main && barrier.main_waits_for(id)) return true;
    if (&connection == session_.multifd_connection(i))
      return barrier.epochs_arrived(id) > barrier.epochs_released();
  }
  return false;
}

// One that waits at a barrier, for the destination or for its admission is looked at all the time.
bool SessionControl::holds_source_up(uint64_t now_ns) noexcept {
  bool any = false;
  for (Served& served : served_) {
    const Channel& channel = *served.channel;
    const uint64_t looks = channel.slices.read() + channel.owed_turns.read() + channel.parked_turns.read();
    const bool unread = !channel.let_go() && channel.connection().unread();
    if (looks != served.looks || !unread) served.looked_ns = now_ns;
    served.looks = looks;
    any = any || now_ns - served.looked_ns >= kLookNs;
  }
  return any;
}

// Every one: a path may swallow the large packets of one channel while another has none on its way.
void SessionControl::probe_all() noexcept {
  for (const Served& served : served_)
    if (served.channel->identified() && served.channel->end() == StreamEnd::none)
      (void)served.channel->connection().probe();
}

const Channel* SessionControl::channel_of(const Handoff* connection) const noexcept {
  for (const Served& served : served_)
    if (&served.channel->connection() == connection) return served.channel;
  return nullptr;
}

bool SessionControl::watch_arrival(uint64_t now_ns) {
  const uint32_t here = session_.identified();
  if (here > 0 && setup_since_ns_ == 0) {
    setup_since_ns_ = now_ns;
    stall_clock_.progressed(now_ns);
  }
  ArrivalFacts facts{here, session_.channels_expected(), now_ns - setup_since_ns_};
  // Its own bytes: a stranger's prove nothing.
  if (const Handoff* const main = session_.admission().main_connection(); here == 1 && main != nullptr)
    facts.main_alone_bytes = main->bytes_received.read();
  facts.unheard = !has_room() || std::any_of(served_.begin(), served_.end(), [](const Served& served) {
    const Channel& channel = *served.channel;
    return is_unidentified(served) && channel.greeting_wanted() > 0 &&
           channel.connection().bytes_received.read() >= channel.greeting_wanted();
  });
  const StreamError error = judge_arrival(facts, limits_);
  if (error) session_.fail(error);
  return static_cast<bool>(error);
}

bool SessionControl::watch_ends() {
  const FlushBarrier& barrier = session_.barrier();
  for (uint32_t i = 0; i < barrier.channels(); ++i) {
    const Channel* const channel = channel_of(session_.multifd_connection(i));
    if (channel == nullptr) continue;
    EndFacts facts;
    facts.begun = barrier.epochs_released() > 0;
    facts.ends_parked = channel->ends_parked();
    facts.let_go = channel->let_go();
    facts.end = channel->end();
    facts.awaited = barrier.main_waits_for(MultifdId{i});
    facts.ram_complete = session_.moments().ram_complete.load(std::memory_order_acquire) != 0;
    facts.return_path = return_path_open_;
    switch (judge_end(facts)) {
      case EndVerdict::fine:
        break;
      case EndVerdict::before_main: {
        StreamError error = make_error(
            ErrorClass::truncated, session_.multifd_connection(i)->bytes_received.read(), "multifd channel",
            "closed after its first SYNC, before main had begun: the source was cancelled, or has failed");
        error.channel = ChannelName{MultifdId{i}};
        session_.fail(error);
        return true;
      }
      case EndVerdict::too_early:
        session_.fail(session_.multifd_channel(i).closed_too_early());
        return true;
    }
  }
  return false;
}

void SessionControl::watch_silence(uint64_t now_ns) {
  if (session_.identified() == 0) return;
  const Channel* const main = channel_of(session_.main_connection());
  const uint64_t parked_turns = main != nullptr ? main->parked_turns.read() : 0;
  SilenceFacts facts;
  facts.main_parked = parked_turns != parked_turns_;
  parked_turns_ = parked_turns;
  if (has_unread_bytes() || has_bytes_under_way(/*at_barrier=*/true)) waited_ns_ = now_ns;
  // A question leaves after so much silence, and only what was heard later answers it.
  if (all_heard_ns() >= waited_ns_ + StallClock::kAskNs) facts.idle_ns = now_ns - waited_ns_;
  const uint64_t bytes = bytes_received();
  // What leaves for a slow destination is progress too.
  stall_clock_.heard(heard_ns(), now_ns);
  stall_clock_.held(holds_source_up(now_ns), now_ns);
  if (bytes != progress_bytes_ || destination_.last_sent_ns() > stall_clock_.since_ns()) {
    progress_bytes_ = bytes;
    stall_clock_.progressed(now_ns);
    return;
  }
  if (has_open_connection() && stall_clock_.ask(now_ns)) probe_all();
  facts.quiet_ns = stall_clock_.quiet_ns(now_ns);
  facts.device_state = session_.state() == SessionState::device_state;
  facts.colo = session_.colo() != nullptr;
  facts.under_way = has_bytes_under_way(/*at_barrier=*/false);
  if (facts.device_state && !facts.under_way) destination_.source_silent(facts.quiet_ns);
  facts.before_ram = session_.moments().blocks_known.load(std::memory_order_acquire) != 0 &&
                     session_.moments().first_pass.load(std::memory_order_acquire) == 0;
  const FlushBarrier& barrier = session_.barrier();
  facts.one_too_many = session_.admission().surplus() > 0 && barrier.epochs_released() <= 2;
  for (uint32_t i = 0; i < barrier.channels(); ++i) {
    facts.channels_wait = facts.channels_wait ||
                          barrier.epochs_arrived(MultifdId{i}) > barrier.epochs_released() ||
                          barrier.main_waits_for(MultifdId{i});
    const Channel* const channel = channel_of(session_.multifd_connection(i));
    facts.channel_closed =
        facts.channel_closed || (channel != nullptr && channel->let_go() && channel->end() == StreamEnd::fin);
  }
  const SilenceVerdict verdict = judge_silence(facts, limits_);
  if (verdict != SilenceVerdict::fine) session_.fail(error_of(verdict, limits_, session_.standing()));
}

bool SessionControl::fail_over() {
  const ColoSecondary* const colo = session_.colo();
  if (phase_ != Phase::running || colo == nullptr || colo->stage() <= ColoSecondary::Stage::migrating)
    return false;
  failover_wanted_ = true;
  return true;
}

// COLO's messages take the place of the return path.
void SessionControl::answer_primary() {
  ColoSecondary* const colo = session_.colo();
  if (colo == nullptr) return;
  ColoMessage message{};
  while (to_source_.has_room() && colo->next_message(message)) {
    std::array<std::byte, 4> code;
    store_be32(code.data(), static_cast<uint32_t>(message));
    to_source_.put(code);
  }
  (void)to_source_.flush(session_.main_connection(), session_.security());
}

void SessionControl::begin_failover() {
  // The primary's next message must meet a closed door: whoever runs the guest now, it is not this source's.
  session_.leave_source();
  reset_all();
  phase_ = Phase::failing_over;
}

void SessionControl::go_on_with_failover(uint64_t now_ns) {
  reset_all();
  if (session_.state() == SessionState::failed) {  // cancelled
    begin_abort(now_ns);
    return;
  }
  // Until its worker has let go of the channel, the secondary is that worker's.
  const Channel* const main = channel_of(session_.main_connection());
  if (main != nullptr && !main->let_go()) return;
  if (!failover_replayed_ && session_.colo()->replay()) {
    failover_replayed_ = true;
    destination_.source_ended();
  }
  switch (destination_.verdict()) {
    case Verdict::pending:
      break;
    case Verdict::accepted:
      session_.finish();
      end();
      break;
    case Verdict::refused:
      session_.fail(destination_.error());
      begin_abort(now_ns);
      break;
  }
}

void SessionControl::judge(uint64_t now_ns) {
  ColoSecondary* const colo = session_.colo();
  const bool colo_enabled = colo != nullptr && colo->enabled();
  // A source that broke the rules is told so; what becomes of the guest is the operator's to say.
  if (colo != nullptr && colo->source_lost()) reset_all();
  if (failover_wanted_ && session_.state() != SessionState::failed && colo->fail_over()) {
    begin_failover();
    return;
  }
  const Channel* const main = channel_of(session_.main_connection());
  if (!source_end_told_ && main != nullptr && main->end() != StreamEnd::none &&
      session_.state() == SessionState::device_state) {
    source_end_told_ = true;
    // With a return path the source keeps main open until it has read our verdict (QEMU
    // migration/migration.c, await_return_path_close_on_source): a source that closes before has failed, and
    // its guest runs on.
    if (!return_path_open_ && !colo_enabled)
      destination_.source_ended();
    else if (!colo_enabled && destination_.verdict() == Verdict::pending)
      session_.fail(session_.main_channel().closed_too_early());
  }
  switch (destination_.verdict()) {
    case Verdict::pending:
      break;
    case Verdict::refused:
      session_.fail(destination_.error());
      break;
    case Verdict::accepted:
      if (!session_.settle()) break;
      if (!answer_source()) return;  // nothing follows SHUT: what is owed goes first, next turn
      if (return_path_open_) to_source_.put(make_shut(0));
      (void)to_source_.flush(session_.main_connection(), session_.security());
      return begin_telling();
  }
  if (session_.state() == SessionState::failed) begin_abort(now_ns);
}

StreamEnd SessionControl::main_end() const noexcept {
  const Channel* const main = channel_of(session_.main_connection());
  return main->end() == StreamEnd::none && main->let_go() ? StreamEnd::local : main->end();
}

bool SessionControl::reset_identified() {
  bool all_let_go = true;
  for (Served& served : served_) {
    if (!served.channel->identified()) continue;
    if (!served.aborted) served.aborted = served.channel->connection().abort();
    all_let_go = all_let_go && served.channel->let_go();
  }
  return all_let_go;
}

void SessionControl::forget_reset() {
  std::erase_if(served_, [this](const Served& served) {
    Channel& channel = *served.channel;
    if (!served.aborted || !channel.identified() || channel.may_be_multifd()) return false;
    ended_(channel.connection());
    channel.connection().retire();
    session_.remove_connection(channel);
    return true;
  });
}

void SessionControl::begin_telling() {
  phase_ = Phase::telling;
  deadline_ns_ = 0;
}

void SessionControl::begin_abort(uint64_t now_ns) {
  destination_.abandon();
  (void)answer_source();
  if (return_path_open_) to_source_.put(make_shut(1));
  (void)to_source_.flush(session_.main_connection(), session_.security());
  phase_ = Phase::aborting;
  deadline_ns_ = now_ns + (return_path_open_ ? limits_.abort_ns : 0);
}

void SessionControl::begin_resetting(uint64_t now_ns, uint64_t multifd_reset_ns) {
  phase_ = Phase::resetting;
  silence_asked_ = false;
  multifd_reset_ns_ = multifd_reset_ns;
  deadline_ns_ = multifd_reset_ns + limits_.abort_ns;
  reset_due(now_ns);
}

void SessionControl::reset_all() {
  for (Served& served : served_)
    if (!served.aborted) served.aborted = served.channel->connection().abort();
}

void SessionControl::reset_due(uint64_t now_ns) {
  for (Served& served : served_) {
    const bool wait = now_ns < multifd_reset_ns_ && served.channel->may_be_multifd() &&
                      served.channel->end() == StreamEnd::none;
    if (!served.aborted && !wait) served.aborted = served.channel->connection().abort();
  }
}

void SessionControl::end() {
  session_.release_dismissed();
  phase_ = Phase::over;
}

}  // namespace migrx
