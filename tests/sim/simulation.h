// One migration from a seed: sources, link, receiver, faults, all in one thread and in virtual time.
//
//   Source ─▶ TcpSender(s) ─▶ Link ─▶ Port ─▶ PollCore ─▶ Handoff ─▶ LoaderWorker ─▶ RAM
//      ▲                                                                 │ epochs compared
//      └────── return path, ACKs ◀── Link ◀── Port ◀────────────── SessionControl
//
// Checked: RAM equals the source's image behind every marker and at the end; whoever says "done" is right on
// both sides; packet buffers and connections come back to zero; the receiver keeps TCP's rules; everything
// ends within a bound of virtual time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/link.h"
#include "tests/sim/receiver.h"
#include "tests/sim/source.h"
#include "tests/sim/stranger.h"

namespace migrx::sim {

enum class Fault : uint8_t {
  none,
  strangers,        // other programs connect and talk nonsense, or nothing
  syn_flood,        // SYNs from everywhere
  slow_loader,      // a worker that stops now and then
  tiny_segments,    // the source's segments hold a few bytes each
  channel_ends,     // one connection of the source ends early: FIN, RST or silence
  source_vanishes,  // power loss
  source_cancels,
  operator_cancels,
  damaged_stream,   // bytes changed before TCP: a broken source
  second_main,      // somebody else begins a migration too, behind the source's first channel
  hostile_channel,  // another program takes a multifd channel's place
  stuck_window,     // all workers stop for many seconds: windows close, and open again
  pool_exhausted,   // packet buffers are somewhere else for a while
  mtu_changes,      // the path's MTU shrinks, later grows
  outage,           // the link is away, for up to two minutes
  second_vm,        // another VM of the same host, without a -uuid as well, migrates to the same port
};
inline constexpr std::size_t kFaults = 16;  // that a seed draws from; second_vm has a draw of its own
[[nodiscard]] const char* to_string(Fault fault);

struct Scenario {
  SourceOptions source;
  ReceiverOptions receiver;
  LinkOptions to_receiver;
  LinkOptions to_source;
  Fault fault = Fault::none;
  // Of every thousand turns an agent has, how many it takes: agents of a real machine drift apart too.
  uint32_t poll_pace = 1000;
  uint32_t worker_pace = 1000;
  uint32_t control_pace = 200;
  // outage: how long, and when it begins.
  enum class Moment : uint8_t { any, switchover, device_state, verdict };
  uint64_t outage_ns = 0;
  Moment outage_moment = Moment::any;
  // damaged_stream: in the last packet of a multifd channel, which may mean nothing (up to 8.2).
  bool damage_last_packet = false;
  // second_vm: the other VM, which begins within 10 ms of the first, or when all of the first is there.
  SourceOptions second;
  bool second_late = false;
  uint64_t apart_ns = 10'000'000;  // both begin within this time
  bool ipv6 = false;
  // The chance that the first bytes of a connection are lost when they are sent for the first time.
  double greeting_loss = 0;
  // So long the SYNs of the source's last channel are lost.
  uint64_t syn_lost_ns = 0;
  // The chance that a frame comes by the queue of another poll core.
  double astray = 0.02;
  // stuck_window: it begins within this time.
  uint64_t stuck_within_ns = 20'000'000;
  // second_vm: so long all workers stand still when a channel of the second one was refused.
  uint64_t stuck_after_refusal_ns = 0;
  // second_vm: so long the first one's path loses every segment with bytes after that, and no other.
  uint64_t bytes_lost_after_refusal_ns = 0;
  // strangers: a crowd that speaks at once, within this time of the source.
  uint64_t crowd_ns = 0;
  // source_cancels: as soon as it has written its last byte, instead of at any moment.
  bool cancel_at_last_byte = false;
};
// What the seed says. The same seed gives the same scenario and run for ever, as long as the code is the
// same.
[[nodiscard]] Scenario scenario_of(uint64_t seed);
[[nodiscard]] std::string describe(const Scenario& scenario);

struct RunResult {
  std::string problem;  // empty: all properties held
  std::string summary;
  SessionState state = SessionState::listening;
  uint64_t virtual_ns = 0;
  uint64_t frames = 0;
  uint64_t epochs = 0;
  uint64_t pages = 0;
  uint64_t lost = 0;
  uint64_t retransmissions = 0;
  uint64_t digest = 0;  // of every frame and when it left: two runs of a seed must agree
};
[[nodiscard]] RunResult run_seed(uint64_t seed);
// The scenario once, `seed` for everything else.
[[nodiscard]] RunResult run_scenario(const Scenario& scenario, uint64_t seed);

class Simulation {
 public:
  // ends: of each connection, Source::ends() when nothing is torn or damaged; empty: nothing is.
  Simulation(const Scenario& scenario, uint64_t seed, const std::vector<std::vector<uint64_t>>& ends);
  RunResult run();
  [[nodiscard]] const std::vector<std::vector<uint64_t>>& ends() const { return source_.ends(); }

 private:
  bool tick();
  bool deliver();
  bool move_source();
  void draw_turns();
  [[nodiscard]] bool settled(uint32_t agent) const;
  void unsettle();
  bool move_receiver();
  [[nodiscard]] bool stands_still(uint32_t agent) const;
  void cause_fault();
  void change_path();
  void watch_outage();
  void came_back();
  void note_repetition(const Packet& packet);
  [[nodiscard]] bool outage_due() const;
  void take_buffers();
  void give_time(bool busy);
  [[nodiscard]] uint64_t next_event_ns() const;
  void wait_for_turn(uint64_t event_ns);
  void spoil(const std::vector<std::vector<uint64_t>>& ends);
  void check_always();
  void check_progress();
  void check_promise();
  void check_departure();
  [[nodiscard]] bool lost_at_first(const Packet& packet);
  [[nodiscard]] bool taken_for_own() const;
  [[nodiscard]] bool must_be_done() const;
  [[nodiscard]] bool intruded() const;
  void begin_second(uint64_t at_ns);
  // The session's main channel is the second VM's.
  [[nodiscard]] bool is_seconds(const Handoff* connection) const;
  void check_second();
  [[nodiscard]] bool told_well_but_failed() const;
  void check_end();
  void send(std::vector<Packet>& packets);
  TcpSender* sender_of(uint16_t port);
  void complain(const std::string& what) {
    if (problem_.empty()) problem_ = what;
  }

  const Scenario scenario_;
  Random random_;
  uint64_t now_ns_ = 1'000'000'000;
  uint64_t progress_ = 0;     // bytes acknowledged, epochs closed, connections ended
  uint64_t progress_ns_ = 0;  // when that last changed
  Source source_;
  Receiver receiver_;
  Link to_receiver_;
  Link to_source_;
  std::vector<std::unique_ptr<TcpSender>> senders_;  // of the source
  std::vector<std::unique_ptr<Stranger>> strangers_;
  std::unique_ptr<Source> second_;
  std::vector<std::unique_ptr<TcpSender>> second_senders_;
  uint64_t idle_ns_ = 0;  // how long nothing has happened
  uint32_t idle_turns_ = 0;
  uint64_t fault_at_ns_ = UINT64_MAX;
  bool fault_caused_ = false;
  bool retired_ = false;
  bool main_known_ = false;
  bool seconds_main_ = false;          // the main channel that was admitted is the second VM's
  bool mixed_ = false;                 // and some of its channels are not of the same VM
  bool spoke_first_ = false;           // a stranger, before the receiver knew the source
  std::vector<uint64_t> turn_ns_;      // by agent: its last turn
  std::vector<uint32_t> turns_;        // the agents that get one now
  std::vector<uint32_t> quiet_turns_;  // by agent: those in which it did nothing since anything happened
  bool drawn_ = false;                 // turns_ is of this moment
  bool passed_over_ = false;           // an agent that may have something to do gets none
  bool lazy_ = false;                  // nothing happens because no agent got a turn
  uint64_t stalled_until_ns_ = 0;
  uint64_t bytes_lost_until_ns_ = 0;
  uint32_t changes_left_ = 0;  // of pools or of the path
  // Of the outage; when the source, or what it waits for, first got through afterwards.
  uint64_t away_from_ns_ = UINT64_MAX;
  uint64_t away_until_ns_ = UINT64_MAX;
  uint64_t back_ns_ = UINT64_MAX;
  uint64_t damaged_until_back_ = 0;  // frames
  uint64_t completed_ns_ = 0;        // when the source read SHUT 0
  std::vector<bool> awaited_;        // connections of the source that have something to send again
  std::set<uint16_t> greeted_;       // ports whose first bytes were sent
  bool disturbed_ = false;           // a frame was lost, damaged, late or sent twice
  uint64_t left_ns_ = UINT64_MAX;    // when the source cancelled
  uint64_t digest_ = 0xcbf29ce484222325ULL;
  std::string problem_;
  std::vector<Packet> outgoing_;
};

}  // namespace migrx::sim
