#include "loader/app/serve/intake.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "loader/control/control_message.h"

namespace migrx {

std::optional<ControlError> arguments_for(const WaitingQemu& qemu, SessionArguments& out) {
  nlohmann::json asked{{"ram", qemu.memory.ram},
                       {"handoff", qemu.listener.address},
                       {"destination-pid", qemu.process},
                       {"listen", qemu.listener.port},
                       // Who starts QEMU that way wants to hear of its end.
                       {"capability", nlohmann::json::array({"return-path"})}};
  // With multifd on a QEMU's listen(2) is for so many connections, otherwise for one (migration/socket.c).
  if (qemu.listener.backlog > 1) asked["multifd-channels"] = qemu.listener.backlog;
  return parse_session_arguments(asked, qemu.memory.files.size(), this_process(), out);
}

void Intake::look(uint64_t now_ns) {
  if (now_ns - looked_ns_ < kLookEveryNs) return;
  looked_ns_ = now_ns;
  Discovery::News news = discovery_.take_news();
  if (!news.problem.empty())
    terminal_.warn("warning: --serve-ports: no destination can be found: " + news.problem);
  for (const uint64_t socket : news.gone) forget(socket, now_ns);
  for (WaitingQemu& found : news.found)
    if (!known(found)) waiting_.push_back({std::move(found), now_ns});
  std::erase_if(waiting_, [&](Waiting& waiting) { return settle(waiting, now_ns); });
  std::erase_if(jobs_, [this](const auto& entry) {
    const Job* const job = daemon_.job(entry.second.id);
    const bool over = job == nullptr || job->over();
    if (over) discovery_.refuse(entry.first);
    return over;
  });
}

// Who waited has ended, or has its source's connections: then the migration goes on.
void Intake::forget(uint64_t socket, uint64_t now_ns) {
  std::erase_if(waiting_, [socket](const Waiting& one) { return one.qemu.listener.inode == socket; });
  const auto entry = jobs_.find(socket);
  if (entry == jobs_.end()) return;
  Job* const job = daemon_.job(entry->second.id);
  if (job != nullptr && job->unused()) (void)job->signal(now_ns);
  jobs_.erase(entry);
}

bool Intake::known(const WaitingQemu& qemu) const noexcept {
  const auto same = [&](uint16_t port, pid_t process) {
    return qemu.process != 0 && port == qemu.listener.port && process == qemu.process;
  };
  return std::any_of(jobs_.begin(), jobs_.end(),
                     [&](const auto& entry) { return same(entry.second.port, entry.second.process); }) ||
         std::any_of(waiting_.begin(), waiting_.end(),
                     [&](const Waiting& one) { return same(one.qemu.listener.port, one.qemu.process); });
}

bool Intake::settle(Waiting& waiting, uint64_t now_ns) {
  WaitingQemu& qemu = waiting.qemu;
  if (!qemu.problem.empty()) {
    refuse(qemu, qemu.problem);
    return true;
  }
  SessionArguments arguments;
  if (const std::optional<ControlError> error = arguments_for(qemu, arguments)) {
    refuse(qemu, error->sentence);
    return true;
  }
  const ControlAnswer answer = daemon_.begin(this_process(), std::move(arguments), qemu.memory.files);
  if (const auto* const error = std::get_if<ControlError>(&answer)) {
    const bool try_again =
        error->error_class == control_class::kNoRoom && now_ns - waiting.since_ns < kWaitNs;
    if (!try_again) {
      refuse(qemu, error->sentence);
    } else if (!std::exchange(waiting.told, true)) {
      terminal_.warn(
          fmt::format("port {}: QEMU {} waits for a guest, and so does its source for room here: {}",
                      qemu.listener.port, qemu.process, error->sentence));
    }
    return !try_again;
  }
  const std::string id = std::get<nlohmann::json>(answer).at("id").get<std::string>();
  jobs_[qemu.listener.inode] = {id, qemu.listener.port, qemu.process};
  terminal_.say(
      fmt::format("{}: QEMU {} waits on port {} for a guest{}", id, qemu.process, qemu.listener.port,
                  qemu.listener.backlog > 1 ? fmt::format(", with {} multifd channels", qemu.listener.backlog)
                                            : std::string{}));
  return true;
}

void Intake::refuse(const WaitingQemu& qemu, const std::string& reason) {
  discovery_.refuse(qemu.listener.inode);
  terminal_.warn(fmt::format("port {}: no guest can be taken in there: {}", qemu.listener.port, reason));
}

}  // namespace migrx
