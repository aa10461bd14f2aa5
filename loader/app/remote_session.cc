#include "loader/app/remote_session.h"

#include <fmt/format.h>

#include <algorithm>

namespace migrx {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kSlowMs = 10'000;

std::string text_in(const Json& object, const char* member) {
  const auto found = object.is_object() ? object.find(member) : object.end();
  return object.is_object() && found != object.end() && found->is_string() ? found->get<std::string>()
                                                                           : std::string{};
}

}  // namespace

std::optional<RemoteSession::Request> RemoteSession::request(uint64_t now_ms) {
  if (asked_ && now_ms - asked_ms_ >= kSlowMs && !told_slow_) {
    told_slow_ = true;
    warnings_.emplace_back(
        "warning: the daemon has not answered for 10 s; the migration may go on all the same");
  }
  if (over()) return std::nullopt;
  if (signals_ > 0) {
    offered_ = Kind::cancel;
    return Request{"session-cancel", {{"id", id_}}};
  }
  if (asked_ || now_ms < next_query_ms_) return std::nullopt;
  offered_ = Kind::query;
  return Request{"query-session", {{"id", id_}}};
}

void RemoteSession::sent(uint64_t number, uint64_t now_ms) {
  if (!offered_) return;
  under_way_.emplace_back(number, *offered_);
  if (*offered_ == Kind::cancel) {
    --signals_;
  } else {
    asked_ = true;
    asked_ms_ = now_ms;
  }
  offered_.reset();
}

uint64_t RemoteSession::due_ms(uint64_t now_ms) const noexcept {
  if (signals_ > 0) return now_ms;
  if (!asked_) return std::max(next_query_ms_, now_ms);
  return told_slow_ ? now_ms + poll_ms_ : std::max(asked_ms_ + kSlowMs, now_ms);
}

void RemoteSession::on_event(const ControlEvent& event) {
  if (text_in(event.data, "id") != id_) return;
  if (event.name == "READY" && !ready_told_)
    ready_ = fmt::format("ready: listening on {} port {}", text_in(event.data, "address"), port_);
  next_query_ms_ = 0;  // something has changed
}

void RemoteSession::on_reply(const ControlReply& reply, uint64_t now_ms) {
  const auto found =
      std::find_if(under_way_.begin(), under_way_.end(),
                   [&](const std::pair<uint64_t, Kind>& sent) { return sent.first == reply.number; });
  if (found == under_way_.end()) return;
  const Kind kind = found->second;
  under_way_.erase(found);
  const auto* const error = std::get_if<ControlError>(&reply.answer);
  if (kind == Kind::query) {
    asked_ = false;
    told_slow_ = false;
    next_query_ms_ = now_ms + poll_ms_;
    if (error == nullptr)
      take_session(std::get<Json>(reply.answer));
    else if (error->error_class == control_class::kNotFound) {
      exit_status_ = 1;
      summary_ = lost_text();
    } else {
      warnings_.push_back("warning: " + error->sentence);
    }
    return;
  }
  next_query_ms_ = 0;
  // The session may have ended by itself before the signal came: the next answer says so.
  if (error != nullptr && error->error_class == control_class::kNotFound) return;
  const std::string text = error != nullptr ? error->sentence : text_in(std::get<Json>(reply.answer), "text");
  if (!text.empty()) warnings_.push_back(text);
}

void RemoteSession::take_session(const Json& session) {
  if (!session.is_object()) return;
  state_ = text_in(session, "state");
  if (std::string line = text_in(session, "progress"); !line.empty()) progress_ = std::move(line);
  if (const auto list = session.find("warnings"); list != session.end() && list->is_array()) {
    // They only become more.
    for (std::size_t i = warnings_seen_; i < list->size(); ++i)
      if ((*list)[i].is_string()) warnings_.push_back("warning: " + (*list)[i].get<std::string>());
    warnings_seen_ = std::max(warnings_seen_, list->size());
  }
  const auto status = session.find("exit-status");
  // The event came before anybody looked for it.
  const bool taken = state_ == "ready" || state_ == "setup" || state_ == "precopy" || state_ == "switchover";
  if (status == session.end() && taken && !ready_told_ && !ready_)
    ready_ = fmt::format("ready: listening on port {}", port_);
  if (status == session.end() || !status->is_number_integer()) return;
  exit_status_ = static_cast<int>(std::clamp<int64_t>(status->get<int64_t>(), 0, 3));
  outcome_ = text_in(session, "outcome");
  summary_ = text_in(session, "summary");
  if (const auto report = session.find("report"); report != session.end()) report_ = *report;
  // Nothing has begun: what is wrong is told as the command itself tells it, without a place in a stream.
  if (*exit_status_ != 2 || !report_.is_object()) return;
  if (const auto error = report_.find("error"); error != report_.end())
    if (std::string text = text_in(*error, "text"); !text.empty()) summary_ = std::move(text);
}

std::optional<std::string> RemoteSession::take_ready() {
  if (!ready_) return std::nullopt;
  ready_told_ = true;
  return std::exchange(ready_, std::nullopt);
}

std::optional<std::string> RemoteSession::take_progress() {
  return std::exchange(progress_, std::nullopt);
}

std::optional<std::string> RemoteSession::take_warning() {
  if (warnings_.empty()) return std::nullopt;
  std::string text = std::move(warnings_.front());
  warnings_.pop_front();
  return text;
}

std::string RemoteSession::lost_text() const {
  if (state_.empty() || state_ == "queued" || state_ == "preparing")
    return "the daemon has ended, or was started anew, before a source could connect; nothing has begun";
  return "the daemon has ended, or was started anew; the migration's last known state was " + state_ +
         "; the source is reset as soon as it can be reached: ask it (query-migrate) who has the guest "
         "before the "
         "destination is continued or ended";
}

}  // namespace migrx
