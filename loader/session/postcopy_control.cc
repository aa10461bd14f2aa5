#include "loader/session/postcopy_control.h"

#include <cstdio>
#include <cstring>
#include <utility>

namespace migrx {

PostcopyControl::Stage PostcopyControl::do_work() {
  if (stage_ == Stage::relaying)
    relay();
  else if (stage_ == Stage::paused)
    wait_for_resume();
  return stage_;
}

void PostcopyControl::relay() {
  pass_on_said();
  const StreamEnd end = session_.take_resume_wanted() ? StreamEnd::timed_out : peers_.main_end();
  const bool gone = end != StreamEnd::none;
  switch (destination_.verdict()) {
    case Verdict::pending:
      if (gone) pause(main_error(end));
      break;
    case Verdict::refused:
      if (destination_.said().empty() || gone) pause(destination_.error());
      break;
    case Verdict::accepted:
      if (destination_.said().empty() || gone) stage_ = Stage::arrived;
      break;
  }
}

void PostcopyControl::pass_on_said() {
  Handoff& main = *session_.main_connection();
  for (Bytes said = destination_.said(); !said.empty(); said = destination_.said()) {
    const std::size_t taken = to_source_.send(main, session_.security(), said);
    if (taken == 0) return;
    destination_.took_said(taken);
  }
}

StreamError PostcopyControl::main_error(StreamEnd end) const {
  if (const StreamError* const late = session_.late_error(); late != nullptr && late->channel.is_main())
    return *late;
  return make_error(ErrorClass::truncated, session_.main_connection()->bytes_received.read(), "main channel",
                    "%s",
                    end == StreamEnd::timed_out ? "the source no longer answers"
                    : end == StreamEnd::reset   ? "the source reset the connection"
                                                : "the source closed the connection");
}

void PostcopyControl::pause(const StreamError& why) {
  error_ = why;
  error_.channel = ChannelName::main();
  if (destination_.lost()) return end();
  destination_.pause();
  session_.pause_postcopy();
  resumable_ = false;
  stage_ = Stage::paused;
  warnings_.push_back("postcopy is paused (" + error_.message() +
                      "): no page is lost. Tell the destination QEMU to migrate-recover with the address of "
                      "--handoff, then the source "
                      "to migrate to migrx once more with resume=true; a source that says failed has its "
                      "guest back: then end the "
                      "destination and migrx");
  wait_for_resume();
}

void PostcopyControl::wait_for_resume() {
  if (leave_ || destination_.lost()) return end();
  if (!resumable_) {
    if (!peers_.reset_identified()) return;
    resumable_ = true;
    destination_.resume();
    session_.await_resume();
    return;
  }
  if (!session_.resumed()) return;
  (void)session_.take_resume_wanted();  // said while it waited
  peers_.forget_reset();
  to_source_ = {};
  session_.go_on_with_postcopy();
  stage_ = Stage::relaying;
  warnings_.emplace_back("postcopy goes on: the source has resumed");
}

void PostcopyControl::end() {
  const std::size_t used = std::strlen(error_.text.data());
  std::snprintf(
      error_.text.data() + used, error_.text.size() - used,
      "%sthis was in postcopy: the guest runs, or stands still, at the destination without the pages that "
      "are at the source: end neither QEMU (docs/postcopy.md)",
      used > 0 ? "; " : "");
  stage_ = Stage::broken;
}

std::optional<std::string> PostcopyControl::take_warning() {
  if (warnings_.empty()) return std::nullopt;
  std::string first = std::move(warnings_.front());
  warnings_.erase(warnings_.begin());
  return first;
}

}  // namespace migrx
