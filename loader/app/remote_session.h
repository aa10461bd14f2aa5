// A migration that a daemon runs for `migrx receive --via`: what the operator sees, and when to ask. Answers,
// events, signals and time in; requests and lines for the terminal out. Sans-IO.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loader/control/control_client.h"

namespace migrx {

class RemoteSession {
 public:
  // What the answer to session-add says. poll_ms: between two questions.
  RemoteSession(std::string id, uint16_t port, uint64_t poll_ms)
      : id_(std::move(id)), port_(port), poll_ms_(poll_ms) {}

  struct Request {
    std::string command;
    nlohmann::json arguments;
  };
  // What to ask now; one question of each kind is under way at a time, but every signal is told.
  [[nodiscard]] std::optional<Request> request(uint64_t now_ms);
  // The request that request() gave last was sent under this number.
  void sent(uint64_t number, uint64_t now_ms);
  void on_reply(const ControlReply& reply, uint64_t now_ms);
  void on_event(const ControlEvent& event);
  // SIGINT, SIGTERM, SIGHUP: the daemon knows how far the migration has come and what a signal does then.
  void on_signal() { ++signals_; }
  // Until when nothing has to be asked.
  [[nodiscard]] uint64_t due_ms(uint64_t now_ms) const noexcept;

  // ---- For the terminal, each taken once ----
  [[nodiscard]] std::optional<std::string> take_ready();  // "ready: listening on …"
  [[nodiscard]] std::optional<std::string> take_progress();
  [[nodiscard]] std::optional<std::string>
  take_warning();  // begins with "warning:" unless it is an answer to a signal

  // ---- The end ----
  [[nodiscard]] bool over() const noexcept { return exit_status_.has_value(); }
  [[nodiscard]] int exit_status() const noexcept { return exit_status_.value_or(1); }
  [[nodiscard]] const std::string& outcome() const noexcept { return outcome_; }
  [[nodiscard]] const std::string& summary() const noexcept { return summary_; }  // the last words
  [[nodiscard]] const nlohmann::json& report() const noexcept { return report_; }
  // The connection broke, or the daemon does not know the session any more: how the operator finds out where
  // the guest is.
  [[nodiscard]] std::string lost_text() const;

 private:
  enum class Kind : uint8_t { query, cancel };
  void take_session(const nlohmann::json& session);

  const std::string id_;
  const uint16_t port_;
  const uint64_t poll_ms_;
  std::optional<Kind> offered_;
  std::deque<std::pair<uint64_t, Kind>> under_way_;  // by the request's number
  bool asked_ = false;                               // a query is under way
  uint64_t next_query_ms_ = 0;
  uint64_t asked_ms_ = 0;
  bool told_slow_ = false;
  uint32_t signals_ = 0;

  std::string state_;
  std::optional<std::string> ready_;
  bool ready_told_ = false;
  std::optional<std::string> progress_;
  std::size_t warnings_seen_ = 0;
  std::deque<std::string> warnings_;
  std::optional<int> exit_status_;
  std::string outcome_;
  std::string summary_;
  nlohmann::json report_;
};

}  // namespace migrx
