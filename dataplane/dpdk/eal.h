// DPDK's environment (EAL), started from a few decisions of ours instead of a command line.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace migrx {

// What the operator has to know and do; with DPDK's own last words where there are any.
class DpdkError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class EalMemory : uint8_t {
  automatic,  // hugepages when enough are free, else ordinary pages
  hugepages,
  ordinary,  // --no-huge: no NUMA placement, more TLB misses; for tests and laptops
};

// What EAL itself and the drivers take beside the pools, seen to be about 30 MB.
inline constexpr uint64_t kEalBytes = 48U << 20;

struct EalOptions {
  // Names the runtime folder; unique among the DPDK processes of the host. Empty: "migrx-<pid>".
  std::string file_prefix;
  EalMemory memory = EalMemory::automatic;
  // What the pools will need. Decides `automatic` and sizes ordinary memory, which cannot grow.
  uint64_t memory_bytes = 64U << 20;
  // Bytes of hugepages that `automatic` may count on; nothing: all that the host has free and no mapping has
  // reserved.
  std::optional<uint64_t> hugepage_bytes;
  // All ports that will be opened: PCI is left alone unless one of them is a PCI function, and then only
  // these are.
  std::vector<std::string> port_devargs;
  bool telemetry = false;
  bool verbose = false;    // DPDK's log goes to stderr; otherwise its end is kept for error messages
  std::string extra_args;  // separated by spaces: --eal
};

// The arguments for rte_eal_init(); pure but for the CPUs of the process and the count of free hugepages.
[[nodiscard]] std::vector<std::string> eal_arguments(const EalOptions& options);
// "0000:3b:00.0", "3b:00.0,rx_queues=2", "pci:…"
[[nodiscard]] bool is_pci_devargs(const std::string& devargs);

// DPDK allows one per process and none after it: construct it in main (or in the environment of a test
// program), before anything else of this folder, and destroy it last. The constructing thread becomes DPDK's
// main lcore; it may run on all CPUs of the process and is not pinned.
class Eal {
 public:
  explicit Eal(const EalOptions& options);  // throws DpdkError
  ~Eal();  // also removes the runtime folder, and empty ones of processes that were killed
  Eal(const Eal&) = delete;
  Eal& operator=(const Eal&) = delete;

  [[nodiscard]] bool uses_hugepages() const noexcept { return hugepages_; }

 private:
  void remove_runtime_dir() const noexcept;
  bool hugepages_ = false;
  std::string runtime_dir_;
};

// For threads that call into DPDK (AgentThreadOptions::enter and ::leave): gives the thread an lcore id,
// without which every allocation from a pool would go to the ring shared by all threads.
void enter_dpdk_thread();  // throws DpdkError
void leave_dpdk_thread() noexcept;

// Cycles per second of the time stamp counter, as DPDK measured it. Behind Eal's construction.
[[nodiscard]] uint64_t tsc_hz() noexcept;

// DPDK's name and version, and the folder from which it loads drivers. Before Eal's construction, too.
[[nodiscard]] std::string dpdk_version();
[[nodiscard]] std::string dpdk_driver_folder();

// The last lines DPDK logged, at most `lines`, each led by "\n  DPDK: "; for error messages.
[[nodiscard]] std::string recent_dpdk_log(std::size_t lines = 4);

}  // namespace migrx
