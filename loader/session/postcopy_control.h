// The control thread's part of a session from the switch to postcopy on. The guest is of two halves then: it
// runs at the destination, and the pages that are missing there are at the source.
//
//   relaying ──SHUT 0 has been passed on──▶ arrived
//      │  ▲
//      │  └─the source resumes── paused ──the destination is gone, or the operator ends it──▶ broken
//      └──an end of the source's or the destination's──▲
//
// migrx is a wire: what the destination says is the source's, and if one of them is gone the other hears of
// it at once. Nothing but that ends it: no time-out, no SHUT of ours, no signal, since each would leave a
// guest without the pages it waits for. Both QEMUs are postcopy-paused after a break, lose nothing, and go on
// over new connections.
//
// Sans-IO.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loader/session/destination.h"
#include "loader/session/return_stream.h"
#include "loader/session/session.h"

namespace migrx {

// What it needs of those who serve the source's connections.
class PostcopyPeers {
 public:
  virtual ~PostcopyPeers() = default;
  // How main has ended; none: it goes on. `local` also when its worker has let go of it for another reason.
  [[nodiscard]] virtual StreamEnd main_end() const noexcept = 0;
  // Resets every connection that has said what it is, but not one that waits to take main's place. True: no
  // worker serves any of them any more. Called again and again.
  [[nodiscard]] virtual bool reset_identified() = 0;
  // Those that were reset are forgotten, so that the source's new ones have their places; multifd channels
  // stay, for the report: the source makes none anew.
  virtual void forget_reset() = 0;
};

class PostcopyControl {
 public:
  enum class Stage : uint8_t { relaying, paused, arrived, broken };

  // All must outlive it.
  PostcopyControl(Session& session, Destination& destination, PostcopyPeers& peers)
      : session_(session), destination_(destination), peers_(peers) {}

  // From the switch on, in each turn.
  Stage do_work();
  [[nodiscard]] Stage stage() const noexcept { return stage_; }
  // The operator wants no more of a migration that is paused.
  void leave() noexcept { leave_ = true; }
  // Of `broken`.
  [[nodiscard]] const StreamError& error() const noexcept { return error_; }
  [[nodiscard]] std::optional<std::string> take_warning();

 private:
  void relay();
  void pass_on_said();
  void pause(const StreamError& why);
  void wait_for_resume();
  void end();
  [[nodiscard]] StreamError main_error(StreamEnd end) const;

  Session& session_;
  Destination& destination_;
  PostcopyPeers& peers_;
  Stage stage_ = Stage::relaying;
  ReturnStream to_source_;
  StreamError error_;  // why the connection broke last
  bool resumable_ = false;
  bool leave_ = false;
  std::vector<std::string> warnings_;
};

}  // namespace migrx
