#include "loader/app/serve/intake.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "loader/control/control_message.h"

namespace migrx {

std::optional<ControlError> arguments_for(const WaitingQemu& qemu, const FoundTlsOptions& tls,
                                          SessionArguments& out) {
  nlohmann::json asked{{"ram", qemu.memory.ram},
                       {"handoff", qemu.listener.address},
                       {"destination-pid", qemu.process},
                       {"listen", qemu.listener.port},
                       {"wait", true},
                       // Who starts QEMU that way wants to hear of its end.
                       {"capability", nlohmann::json::array({"return-path"})}};
  // With multifd on a QEMU's listen(2) is for so many connections, otherwise for one (migration/socket.c).
  if (qemu.listener.backlog > 1) asked["multifd-channels"] = qemu.listener.backlog;
  if (tls.creds) asked["tls-creds"] = *tls.creds;
  if (!tls.authz.empty()) asked["tls-authz"] = tls.authz;
  if (tls.handoff_creds) asked["handoff-tls-creds"] = *tls.handoff_creds;
  if (tls.handoff_hostname) asked["handoff-tls-hostname"] = *tls.handoff_hostname;
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
    if (!known(found)) take_in(found, now_ns);
  std::erase_if(jobs_, [&](const auto& entry) {
    Job* const job = daemon_.job(entry.second.id);
    if (job != nullptr && job->queued() && now_ns - entry.second.since_ns >= kWaitNs)
      job->turn_away("there was no room for two minutes, after which its source gives up");
    const bool over = job == nullptr || job->over();
    if (over) discovery_.refuse(entry.first);
    return over;
  });
}

// Who waited has ended, or has its source's connections: then the migration goes on.
void Intake::forget(uint64_t socket, uint64_t now_ns) {
  const auto entry = jobs_.find(socket);
  if (entry == jobs_.end()) return;
  Job* const job = daemon_.job(entry->second.id);
  if (job != nullptr && job->unused()) (void)job->signal(now_ns);
  jobs_.erase(entry);
}

bool Intake::known(const WaitingQemu& qemu) const noexcept {
  return qemu.process != 0 && std::any_of(jobs_.begin(), jobs_.end(), [&](const auto& entry) {
           return entry.second.port == qemu.listener.port && entry.second.process == qemu.process;
         });
}

void Intake::take_in(WaitingQemu& qemu, uint64_t now_ns) {
  if (!qemu.problem.empty()) return refuse(qemu, qemu.problem);
  SessionArguments arguments;
  if (const std::optional<ControlError> error = arguments_for(qemu, tls_, arguments))
    return refuse(qemu, error->sentence);
  const ControlAnswer answer = daemon_.begin(this_process(), std::move(arguments), qemu.memory.files);
  if (const auto* const error = std::get_if<ControlError>(&answer)) return refuse(qemu, error->sentence);
  const auto& begun = std::get<nlohmann::json>(answer);
  const std::string id = begun.at("id").get<std::string>();
  jobs_[qemu.listener.inode] = {id, qemu.listener.port, qemu.process, now_ns};
  if (const auto why = begun.find("waits-for"); why != begun.end())
    return terminal_.warn(
        fmt::format("{}: port {}: QEMU {} waits for a guest, and so does its source for room here: {}", id,
                    qemu.listener.port, qemu.process, why->get<std::string>()));
  terminal_.say(
      fmt::format("{}: QEMU {} waits on port {} for a guest{}", id, qemu.process, qemu.listener.port,
                  qemu.listener.backlog > 1 ? fmt::format(", with {} multifd channels", qemu.listener.backlog)
                                            : std::string{}));
}

void Intake::refuse(const WaitingQemu& qemu, const std::string& reason) {
  discovery_.refuse(qemu.listener.inode);
  terminal_.warn(fmt::format("port {}: no guest can be taken in there: {}", qemu.listener.port, reason));
}

}  // namespace migrx
