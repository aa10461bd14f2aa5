// The control thread's part of a session: takes in connections, answers the return path, watches the clock,
// and ends the session in the one way that leaves the source able to go on.
//
//   running ──accepted──▶ telling (SHUT 0) ──acked, source gone──▶ closing (FIN on all) ──▶ over
//      ├──the source switched──▶ postcopy (postcopy_control.h) ──arrived──▶ telling, or broken──▶ resetting
//      ├──COLO, failover──▶ failing_over (reset, the destination gets the last checkpoint) ──accepted──▶ over
//      └──failed, refused, cancelled──▶ aborting (SHUT 1, acked or 200 ms) ──▶ resetting ──▶ over
//
// In resetting main goes first: channel.h says why multifd channels wait.
//
// SHUT is the last message to the source on the return path. With 0 the source reports a completed migration
// and its guest stays stopped; with any other value the migration has failed and the source's guest runs on.
// So SHUT 0 is sent only when the destination has the whole guest.
//
// Sans-IO: time is an argument, bytes go through the hand-off's command ring.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "loader/session/destination.h"
#include "loader/session/loader_worker.h"
#include "loader/session/postcopy_control.h"
#include "loader/session/return_path_queue.h"
#include "loader/session/session.h"
#include "loader/session/session_limits.h"
#include "loader/session/stall_clock.h"

namespace migrx {

class SessionControl : private PostcopyPeers {
 public:
  // take_accepted: the next new connection of any poll core, nullptr when there is none. workers: who serves
  // channels. All must outlive this object.
  SessionControl(Session& session, Destination& destination, std::function<Handoff*()> take_accepted,
                 std::vector<LoaderWorker*> workers, SessionLimits limits);

  // `tell` is called with each connection that has ended, before it is given back.
  void on_ended(std::function<void(const Handoff&)> tell) { ended_ = std::move(tell); }

  // Returns work done; call until over().
  uint32_t do_work(uint64_t now_ns);
  [[nodiscard]] bool over() const noexcept { return phase_ == Phase::over; }
  [[nodiscard]] bool return_path_open() const noexcept { return return_path_open_; }
  // Worker that serves this connection, -1: none.
  [[nodiscard]] int worker_of(const Handoff* connection) const noexcept;
  [[nodiscard]] uint64_t refused() const noexcept { return refused_; }
  // The source fell silent before it acknowledged SHUT 0: it may have the guest still.
  [[nodiscard]] bool source_unsure() const noexcept { return source_unsure_; }

  // The operator wants the session to end. After the destination's acceptance it is too late: the migration
  // is finished.
  void cancel();

  // The destination has the guest and the source does not acknowledge it: waits no longer, source_unsure().
  // False: not in that state, nothing was done.
  bool give_up_telling();

  // The destination has the guest, the source is being told; and its TCP has acknowledged that.
  [[nodiscard]] bool telling() const noexcept { return phase_ == Phase::telling; }
  [[nodiscard]] bool told() const noexcept { return told_; }
  // Something the operator should know now, each once; it ends nothing.
  [[nodiscard]] std::optional<std::string> take_warning();
  // The source has switched to postcopy, and the guest is of two halves: only an end of the source's or the
  // destination's ends the session.
  [[nodiscard]] bool relaying() const noexcept {
    return phase_ == Phase::postcopy && postcopy_.stage() == PostcopyControl::Stage::relaying;
  }
  // A connection broke in postcopy. Both QEMUs wait, and so does migrx, until the source resumes.
  [[nodiscard]] bool paused() const noexcept {
    return phase_ == Phase::postcopy && postcopy_.stage() == PostcopyControl::Stage::paused;
  }
  // paused(): the operator wants no more of it.
  void leave_paused() noexcept { postcopy_.leave(); }
  // The session is being ended without success.
  [[nodiscard]] bool aborting() const noexcept {
    return phase_ == Phase::aborting || phase_ == Phase::resetting;
  }
  // The source's guest stands still, or is about to: what is under way is best finished.
  [[nodiscard]] bool guest_in_transit() const noexcept;
  // cancel() would leave the source with its guest. Without a return path it would not, once the guest is in
  // transit: such a source may believe already that it is done.
  [[nodiscard]] bool cancellable() const noexcept;

  // COLO: the guest goes on here, as it was at the last finished checkpoint (QEMU: x-colo-lost-heartbeat). A
  // checkpoint that is being loaded finishes first. False: not in COLO, nothing was done.
  bool fail_over();

 private:
  enum class Phase : uint8_t { running, postcopy, telling, closing, failing_over, aborting, resetting, over };
  struct Served {
    Channel* channel;
    uint64_t since_ns;
    bool aborted;
    bool closed = false;
    uint64_t refused_ns = 0;  // when that was seen; 0: it was not
    uint64_t looks = 0;       // of its worker, a call ago
    uint64_t looked_ns = 0;   // when those changed, or nothing was unread
  };

  // Those for whom there is no room wait where they are: their first bytes have been acknowledged.
  void take_connections(uint64_t now_ns);
  // Of the session, and of some worker.
  [[nodiscard]] bool has_room() const noexcept;
  [[nodiscard]] std::size_t least_loaded_worker();
  void tell_destination_of_channels();
  void refuse_strangers(uint64_t now_ns);
  // When the SYN came of the peer that has been silent longest, UINT64_MAX: there is none. Nothing: the poll
  // cores have been asked, and have not answered yet. Whoever spoke before the answer is to be taken in.
  [[nodiscard]] std::optional<uint64_t> silent_since_ns();
  [[nodiscard]] bool all_are_gone(uint64_t now_ns);
  // Tells the session when nobody who connected before the last of the channels is silent any more.
  void look_for_silent_peers(uint64_t now_ns);
  // True: no message for the source is left here.
  bool answer_source();
  void open_return_path(OwedAck owed);
  // False: some connection could not be told yet.
  bool close_all();
  // The watchdogs (watchdogs.h): each gathers its facts and ends the session when it must; true: it did.
  bool watch_arrival(uint64_t now_ns);
  bool watch_ends();
  void watch_silence(uint64_t now_ns);
  void judge(uint64_t now_ns);
  // ---- PostcopyPeers
  [[nodiscard]] StreamEnd main_end() const noexcept override;
  [[nodiscard]] bool reset_identified() override;
  void forget_reset() override;
  void answer_primary();
  void begin_failover();
  void go_on_with_failover(uint64_t now_ns);
  void begin_telling();
  void begin_abort(uint64_t now_ns);
  // multifd_reset_ns: when open multifd channels may be reset; all else is at once.
  void begin_resetting(uint64_t now_ns, uint64_t multifd_reset_ns);
  void reset_due(uint64_t now_ns);
  void reset_all();
  [[nodiscard]] bool may_reset_refused(const Served& served, uint64_t now_ns) const noexcept;
  [[nodiscard]] bool was_own(const Served& served, uint64_t now_ns) const noexcept;
  [[nodiscard]] bool holds_channels_from_elsewhere() const noexcept;
  // It has not said whose it is, and nobody has refused it or given it up.
  [[nodiscard]] static bool is_unidentified(const Served& served) noexcept;
  // Somebody has connected who may be the main channel of another source on the source's host.
  [[nodiscard]] bool somebody_is_unheard() const noexcept;
  void end();
  [[nodiscard]] uint64_t bytes_received() const noexcept;
  // When any of the source's connections was heard last; 0: not known.
  [[nodiscard]] uint64_t heard_ns() const noexcept;
  // Each of them that is open was heard at this moment or later; UINT64_MAX: of none that is known.
  [[nodiscard]] uint64_t all_heard_ns() const noexcept;
  // Of the source.
  [[nodiscard]] bool has_open_connection() const noexcept;
  // On some channel of the source.
  [[nodiscard]] bool has_unread_bytes() const noexcept;
  // What a connection that is open has sent has not come; `at_barrier`: of those too that stand at one.
  [[nodiscard]] bool has_bytes_under_way(bool at_barrier) const noexcept;
  // What a connection brought is not looked at: its worker stands still.
  [[nodiscard]] bool holds_source_up(uint64_t now_ns) noexcept;
  // Of a channel of the source.
  [[nodiscard]] bool stands_at_barrier(const Handoff& connection) const noexcept;
  // Asks the source for a sign of life on each connection.
  void probe_all() noexcept;
  // How long this connection may be silent before it is taken for a stranger's.
  [[nodiscard]] uint64_t silence_ns_max(const Handoff& connection) const noexcept;
  [[nodiscard]] const Channel* channel_of(const Handoff* connection) const noexcept;

  Session& session_;
  Destination& destination_;
  const std::function<Handoff*()> take_accepted_;
  std::function<void(const Handoff&)> ended_ = [](const Handoff&) {};
  const std::vector<LoaderWorker*> workers_;
  const SessionLimits limits_;
  uint32_t own_switchover_acks_ = 0;  // that the source waits for when no destination QEMU says it
  uint32_t switchover_acks_ = 0;      // sent so far
  std::vector<std::string> warnings_;

  Phase phase_ = Phase::running;
  std::vector<Served> served_;
  std::size_t next_worker_ = 0;
  bool silence_asked_ = false;       // of the poll cores, who have not answered
  std::vector<bool> channels_told_;  // by place of the multifd channel: the destination knows its init packet
  bool return_path_open_ = false;
  bool source_end_told_ = false;
  bool source_unsure_ = false;
  bool verdict_given_up_ = false;
  bool told_ = false;
  bool failover_wanted_ = false;
  bool failover_replayed_ = false;
  ReturnPathQueue to_source_;
  PostcopyControl postcopy_{session_, destination_, *this};
  uint64_t refused_ = 0;
  uint64_t multifd_reset_ns_ = 0;  // in resetting: when multifd channels may be reset
  uint64_t deadline_ns_ = 0;       // of the present phase; 0 in telling: SHUT 0 is not acknowledged yet
  uint64_t setup_since_ns_ = 0;    // first channel
  StallClock stall_clock_;         // since bytes_received() changed, or the destination took any
  uint64_t progress_bytes_ = 0;
  uint64_t parked_turns_ = 0;  // of main, a call ago
  uint64_t waited_ns_ = 0;     // when the source may have waited for us or for its own TCP, a call ago
};

}  // namespace migrx
