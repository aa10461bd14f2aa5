#include "dataplane/dpdk/eal.h"

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_version.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <mutex>
#include <sstream>

#include "dataplane/dpdk/tap.h"
#include "numa/host_files.h"
#include "numa/memory_budget.h"

namespace migrx {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "migrx-";  // of our runtime folders; the process id follows

// DPDK has one log per process, so what receives it is one per process too.
class LogKeeper {
 public:
  static LogKeeper& instance() {
    static LogKeeper keeper;
    return keeper;
  }
  void attach(bool verbose) {
    verbose_ = verbose;
    if (stream_ == nullptr) {
      cookie_io_functions_t io{};
      io.write = [](void* self, const char* text, std::size_t size) -> ssize_t {
        static_cast<LogKeeper*>(self)->write({text, size});
        return static_cast<ssize_t>(size);
      };
      stream_ = fopencookie(this, "w", io);
      if (stream_ == nullptr) return;
      setvbuf(stream_, nullptr, _IOLBF, 0);
    }
    rte_openlog_stream(stream_);
  }
  [[nodiscard]] std::string last(std::size_t count) {
    if (stream_ != nullptr) std::fflush(stream_);
    const std::lock_guard lock(mutex_);
    std::string text;
    for (std::size_t i = lines_.size() - std::min(count, lines_.size()); i < lines_.size(); ++i)
      text += "\n  DPDK: " + lines_[i];
    return text;
  }

 private:
  void write(std::string_view text) {
    if (verbose_) std::fwrite(text.data(), 1, text.size(), stderr);
    const std::lock_guard lock(mutex_);
    for (const char c : text) {
      if (c != '\n') {
        if (partial_.size() < 500) partial_ += c;
        continue;
      }
      if (!partial_.empty()) lines_.push_back(std::move(partial_));
      partial_.clear();
      if (lines_.size() > 32) lines_.pop_front();
    }
  }
  std::mutex mutex_;
  bool verbose_ = false;
  std::string partial_;
  std::deque<std::string> lines_;
  std::FILE* stream_ = nullptr;
};

std::string cpus_of_process() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::string list;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &set)) list += (list.empty() ? "" : ",") + std::to_string(cpu);
  return list.empty() ? "0" : list;
}

// A receiver that was killed leaves its folder; with us they hold nothing. Removes those that are empty and
// whose process is gone.
void remove_orphans(const fs::path& runtime_dirs) {
  for (const fs::directory_entry& entry : fs::directory_iterator(runtime_dirs)) {
    const std::string name = entry.path().filename();
    const std::string pid = name.substr(std::min(name.size(), kPrefix.size()));
    if (!name.starts_with(kPrefix) || pid.empty() || pid.find_first_not_of("0123456789") != std::string::npos)
      continue;
    std::error_code ignored;  // not empty
    if (!fs::exists("/proc/" + pid)) fs::remove(entry.path(), ignored);
  }
}

bool wants_hugepages(const EalOptions& options) {
  switch (options.memory) {
    case EalMemory::hugepages:
      return true;
    case EalMemory::ordinary:
      return false;
    case EalMemory::automatic: {
      const uint64_t wanted = options.memory_bytes + kEalBytes;
      const uint64_t free = options.hugepage_bytes ? *options.hugepage_bytes
                                                   : free_hugepage_bytes(memory_facts(HostFiles(), "self"));
      const bool pci =
          std::any_of(options.port_devargs.begin(), options.port_devargs.end(), is_pci_devargs) &&
          options.extra_args.find("--no-huge") == std::string::npos;
      // Ordinary pages would work for a while, at a fraction of the speed, and a device without an IOMMU
      // would write to pages that the kernel has moved.
      if (pci && free < wanted)
        throw DpdkError(
            "packets of a PCI port need hugepages: " + std::to_string(free >> 20) + " MiB are free, " +
            std::to_string((wanted >> 20) + 1) +
            " are needed; migrx doctor says how many of them on which node, and --eal --no-huge does "
            "without all the same");
      return free >= wanted;
    }
  }
  return false;
}

}  // namespace

bool is_pci_devargs(const std::string& devargs) {
  if (devargs.starts_with("pci:")) return true;
  // [domain:]bus:device.function
  const std::string name = devargs.substr(0, devargs.find(','));
  return name.find(':') != std::string::npos && name.find('.') != std::string::npos &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return std::isxdigit(static_cast<unsigned char>(c)) != 0 || c == ':' || c == '.';
         });
}

std::vector<std::string> eal_arguments(const EalOptions& options) {
  std::vector<std::string> arguments{"migrx"};
  // One EAL thread, free to move: our agents are threads of our own, and EAL's helpers must not sit under
  // one.
  arguments.push_back("--lcores=0@(" + cpus_of_process() + ")");
  arguments.push_back("--file-prefix=" + (options.file_prefix.empty()
                                              ? std::string(kPrefix) + std::to_string(getpid())
                                              : options.file_prefix));
  if (!options.telemetry) arguments.push_back("--no-telemetry");
  // Nothing of it in the file system. DPDK does not take the first together with --no-huge.
  if (wants_hugepages(options)) {
    arguments.push_back("--in-memory");
  } else {
    arguments.push_back("--no-shconf");
    arguments.push_back("--no-huge");
    arguments.push_back("-m");
    arguments.push_back(std::to_string(((options.memory_bytes + kEalBytes) >> 20) + 1));
  }
  bool pci = false;
  for (const std::string& devargs : options.port_devargs) {
    if (!is_pci_devargs(devargs)) continue;
    pci = true;
    arguments.push_back("-a");
    arguments.push_back(devargs.starts_with("pci:") ? devargs.substr(4) : devargs);
  }
  if (!pci) arguments.push_back("--no-pci");
  if (!options.verbose) arguments.push_back("--log-level=notice");
  std::istringstream extra(options.extra_args);
  for (std::string word; extra >> word;) arguments.push_back(word);
  return arguments;
}

Eal::Eal(const EalOptions& options) {
  LogKeeper::instance().attach(options.verbose);
  block_tap_signals();
  std::vector<std::string> arguments = eal_arguments(options);
  std::string line;
  std::vector<char*> argv;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
    line += " " + argument;
  }
  argv.push_back(nullptr);
  const bool started = rte_eal_init(static_cast<int>(arguments.size()), argv.data()) >= 0;
  const int error = rte_errno;
  const char* const folder = rte_eal_get_runtime_dir();
  if (folder != nullptr) runtime_dir_ = folder;
  if (!started) {
    remove_runtime_dir();
    throw DpdkError("DPDK " + std::string(rte_version() + 5) + " does not start (" + rte_strerror(error) +
                    "); its arguments were:" + line + recent_dpdk_log());
  }
  hugepages_ = rte_eal_has_hugepages() != 0;
}

Eal::~Eal() {
  rte_eal_cleanup();
  remove_runtime_dir();
}

void Eal::remove_runtime_dir() const noexcept {
  // Only a folder that is surely EAL's: <run dir>/dpdk/<prefix>.
  const fs::path folder(runtime_dir_);
  if (folder.parent_path().filename() != "dpdk" || !folder.has_filename()) return;
  try {
    fs::remove_all(folder);
    remove_orphans(folder.parent_path());
  } catch (const std::exception&) {
    // A folder in /run is not worth an error.
  }
}

void enter_dpdk_thread() {
  if (rte_lcore_id() != LCORE_ID_ANY) return;
  if (rte_thread_register() != 0)
    throw DpdkError(std::string("cannot register a thread with DPDK: ") + rte_strerror(rte_errno) +
                    recent_dpdk_log());
}

void leave_dpdk_thread() noexcept {
  rte_thread_unregister();
}

uint64_t tsc_hz() noexcept {
  return rte_get_tsc_hz();
}

std::string dpdk_version() {
  return rte_version();
}

std::string dpdk_driver_folder() {
  return RTE_EAL_PMD_PATH;
}

std::string recent_dpdk_log(std::size_t lines) {
  return LogKeeper::instance().last(lines);
}

}  // namespace migrx
