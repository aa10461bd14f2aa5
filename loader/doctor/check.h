// A check is one question about a host: a pure function from facts and wishes to a finding. A test seeds a
// fault into a recorded host and looks at the answer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loader/doctor/host_facts.h"
#include "numa/guest_memory.h"
#include "numa/placement.h"

namespace migrx {

// What the receiver would be started with, as far as the operator says it.
struct DoctorWish {
  std::vector<std::string> ports;      // DPDK devargs
  std::vector<std::string> addresses;  // "192.0.2.10/24"
  std::vector<RamSpec> ram;
  std::vector<CpuId> poll_cpus;
  std::vector<CpuId> loader_cpus;
  uint32_t poll_count = 0;  // how many, where no CPUs are named; 0: chosen
  uint32_t loader_count = 0;
  uint64_t mtu = 1500;
  std::string certificate;  // PEM file of the receiver's certificate; empty: no TLS
};

enum class CheckState : uint8_t {
  ok,
  warn,     // works, slower or with a risk
  fail,     // would not work, or not safely
  skipped,  // does not apply, or the option that it needs was not given
};
[[nodiscard]] const char* to_string(CheckState state) noexcept;

struct CheckVerdict {
  CheckState state = CheckState::ok;
  std::string text;  // what was found
  std::string
      command;  // mends it; safe to paste into a root shell; empty: nothing to do, or no single command
};

struct CheckInput {
  const HostFacts& host;
  const DoctorWish& wish;
  const std::optional<Placement>& plan;  // what migrx would take
  const std::string& plan_problem;       // why there is none
  int64_t now_unix_s = 0;

  // CPUs of the plan's poll and loader threads.
  [[nodiscard]] std::vector<CpuId> planned_cpus() const;
  // PCI ports of the wish, with facts; nullptr: no such device.
  struct Port {
    std::string address;
    const PciFacts* pci = nullptr;
  };
  [[nodiscard]] std::vector<Port> pci_ports() const;
};

struct Check {
  const char* id;   // stable: scripts and monitoring match on it
  const char* why;  // one sentence
  CheckVerdict (*look)(const CheckInput& input);
};

[[nodiscard]] std::span<const Check> cpu_checks();
[[nodiscard]] std::span<const Check> memory_checks();
[[nodiscard]] std::span<const Check> port_checks();
[[nodiscard]] std::span<const Check> software_checks();

// Helpers of the checks.
[[nodiscard]] CheckVerdict ok(std::string text);
[[nodiscard]] CheckVerdict skipped(std::string text);
[[nodiscard]] CheckVerdict warn(std::string text, std::string command = {});
[[nodiscard]] CheckVerdict fail(std::string text, std::string command = {});
// One word of a POSIX shell, whatever is in it.
[[nodiscard]] std::string shell_quote(const std::string& text);
[[nodiscard]] std::string bytes_text(uint64_t bytes);
// Adds words to the kernel's command line with Debian's GRUB, in a file of its own, so that the same command
// twice does no harm. It counts after a restart of the host.
[[nodiscard]] std::string kernel_words(const std::string& topic, const std::string& words);

}  // namespace migrx
