#include "loader/app/guest_blocks.h"

#include <fmt/format.h>

#include <array>
#include <set>
#include <span>

#include "loader/app/setup_error.h"
#include "loader/snapshot/snapshot_format.h"
#include "numa/clock.h"

namespace migrx {
namespace {

// Video memory (16 MiB by default) and the firmware of a usual guest.
constexpr uint64_t kPreparedPrivateBytes = 32ULL << 20;

}  // namespace

GuestBlocks::GuestBlocks(const std::vector<RamSpec>& ram, uint64_t private_bytes_max, bool handed_on,
                         const Lifeline& lifeline, const Interruption& interruption)
    : lifeline_(lifeline), table_(private_bytes_max) {
  std::set<std::string> ids;
  std::set<pid_t> users;
  for (const RamSpec& spec : ram) {
    if (!ids.insert(spec.id).second) throw SetupError("--ram " + spec.id + " is given twice");
    std::string problem;
    std::unique_ptr<GuestMemory> memory =
        GuestMemory::open(spec, problem, [&] { return !interruption.pending(); });
    if (memory == nullptr) throw SetupError(interruption.pending() ? kInterrupted : problem);
    std::array<std::byte, 16> head{};
    const std::size_t bytes = memory->made_here() ? 0 : memory->read_head(head);
    if (const std::string content = saved_content(std::span(head).first(bytes)); !content.empty())
      throw SetupError("block " + spec.id + ": " + spec.path + " holds " + content +
                       ", which would be lost: name another file, or remove this one");
    if (!spec.in_use_allowed) {
      for (const FileUser& user : memory->users()) users.insert(user.pid);
      const std::string subject =
          "block " + spec.id + ": " + spec.path + " is mapped by " + memory->users_text();
      if (!handed_on && !users.empty())
        throw SetupError(subject +
                         ", which may run a guest on it: end that process or name another file (or add "
                         "in-use=allow to --ram, when that process runs no guest)");
      if (users.size() > 1)
        throw SetupError(
            subject +
            ", and only the destination QEMU of --handoff may use the RAM of this guest: end the others or "
            "name other files (or add in-use=allow to --ram, when those processes run no guest)");
    }
    if (memory->made_here()) lifeline_.made(memory->path(), memory->id());
    files_.push_back(std::move(memory));
    names_.push_back(spec.id);
    others_allowed_.push_back(spec.in_use_allowed);
    table_.add_file_backed(spec.id, *files_.back());
  }
}

GuestBlocks::~GuestBlocks() {
  for (const auto& memory : files_)
    if (memory->made_here()) lifeline_.keep(memory->path());  // the parent has nothing to do any more
}

std::string GuestBlocks::payer(const std::string& wanted, std::string& process) const {
  const HostFiles files;
  process = "self";
  if (!wanted.empty()) return wanted;
  std::set<pid_t> users;
  for (const auto& memory : files_)
    for (const FileUser& user : memory->users()) users.insert(user.pid);
  // Pages stay charged to who touched them first, and this process is gone long before the guest is.
  if (users.size() != 1) return {};
  const std::string destination = std::to_string(*users.begin());
  std::string group = memory_group_of(files, destination);
  if (group.empty() || group == memory_group_of(files, "self")) return {};
  process = destination;
  return group;
}

std::vector<MemoryNeed> GuestBlocks::needs() const {
  std::vector<MemoryNeed> needs;
  for (const auto& memory : files_) needs.push_back(memory->need());
  return needs;
}

std::vector<SharedFile> GuestBlocks::shared_files() const {
  std::vector<SharedFile> shared;
  for (std::size_t i = 0; i < files_.size(); ++i)
    shared.push_back({names_[i], files_[i]->path(), files_[i]->id(), files_[i]->length(), others_allowed_[i],
                      files_[i]->page_bytes()});
  return shared;
}

std::vector<std::span<std::byte>> GuestBlocks::mappings() const {
  std::vector<std::span<std::byte>> mappings;
  for (const auto& memory : files_) mappings.emplace_back(memory->data(), memory->mapped_bytes());
  return mappings;
}

void GuestBlocks::prefault(const Placement& placement, const MemorySettings& settings, Terminal& terminal,
                           const Interruption& interruption, bool postponed) {
  std::string process;
  const std::string group = payer(settings.group, process);
  std::string problem;
  const auto judge = [&](const PromisedBytes& promised) {
    const HostFiles files;
    MemoryFacts facts = memory_facts(files, process);
    if (!settings.group.empty()) facts.groups.memory = memory_limits_of(files, settings.group);
    facts.promised = promised;
    return settings.check ? memory_problem(needs(), kPreparedPrivateBytes, facts) : std::string{};
  };
  const std::string charged = group.empty() ? memory_group_of(HostFiles(), "self") : group;
  const std::unique_ptr<MemoryPromise> promise =
      MemoryPromise::make(settings.runtime_folder, promise_of(needs(), charged), judge, problem);
  if (!problem.empty())
    throw SetupError(problem + " (--no-memory-check starts regardless; the kernel may then kill a process)");

  for (const auto& memory : files_) {
    if (postponed) break;
    const std::vector<CpuId> cpus = cpus_for(*memory, placement);
    const uint64_t started_ns = monotonic_ns();
    const auto seconds = [started_ns] { return static_cast<double>(monotonic_ns() - started_ns) * 1e-9; };
    const double gib = static_cast<double>(memory->length()) / (1U << 30);
    bool signalled = false;
    problem = memory->prefault(cpus, group, [&](uint64_t done) {
      promise->update(promise_of(needs(), charged));
      if (terminal.due())
        terminal.progress(fmt::format("preparing {}: {:.1f} of {:.1f} GiB", memory->path(),
                                      static_cast<double>(done) / (1U << 30), gib));
      signalled = interruption.pending();
      return !signalled;
    });
    if (signalled) throw SetupError(kInterrupted);
    if (!problem.empty()) throw SetupError(problem);
    if (memory->charged_here())
      terminal.warn(
          fmt::format("warning: {}: {} cannot be joined, so its memory is charged to migrx's own "
                      "control group for as long as the file lives (--memory-cgroup names another)",
                      memory->path(), group));
    terminal.say(
        fmt::format("prepared {}: {:.2f} GiB in {:.2f} s, {:.1f} GiB/s, {} KiB pages{}{}", memory->path(),
                    gib, seconds(), gib / seconds(), memory->page_bytes() / 1024,
                    memory->node() == kAnyNode ? "" : ", node " + std::to_string(memory->node().value()),
                    memory->cleared() ? ", old bytes cleared" : ""));
  }
  problem = table_.prepare_private(kPreparedPrivateBytes);
  if (!problem.empty())
    throw SetupError(fmt::format("no memory for blocks without a file ({} MiB): {}",
                                 kPreparedPrivateBytes >> 20, problem));
}

std::vector<CpuId> GuestBlocks::cpus_for(const GuestMemory& memory, const Placement& placement) {
  std::vector<CpuId> cpus;
  for (const ThreadPlan& thread : placement.threads)
    if (memory.node() == kAnyNode || thread.node == memory.node()) cpus.push_back(thread.cpu);
  return cpus;
}

std::string GuestBlocks::take_again(const Placement& placement, const std::string& group, bool emptied,
                                    const std::function<bool(uint64_t)>& go_on) {
  std::string process;
  const std::string charged = payer(group, process);
  uint64_t before = 0;
  for (const auto& memory : files_) {
    const std::string problem = memory->take_again(cpus_for(*memory, placement), charged, emptied,
                                                   [&](uint64_t done) { return go_on(before + done); });
    if (!problem.empty()) return problem;
    before += memory->mapped_bytes();
  }
  return {};
}

void GuestBlocks::give_up() noexcept {
  for (const auto& memory : files_) memory->give_up();
}

void GuestBlocks::report(Report& report) const {
  for (BlockReport& block : report.blocks)
    for (const auto& memory : files_)
      if (block.path == memory->path()) block.huge_mapped_bytes = memory->huge_mapped_bytes();
}

uint64_t GuestBlocks::bytes() const noexcept {
  uint64_t sum = 0;
  for (const auto& memory : files_) sum += memory->length();
  return sum;
}

void GuestBlocks::keep(bool unlink) {
  for (const auto& memory : files_) {
    if (memory->made_here()) lifeline_.keep(memory->path());
    if (unlink)
      memory->unlink();
    else
      memory->keep();
  }
}

}  // namespace migrx
