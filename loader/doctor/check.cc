#include "loader/doctor/check.h"

#include <algorithm>
#include <cstdio>

namespace migrx {
namespace {

// "0000:41:00.0" or "41:00.0", the form in which DPDK names a PCI function.
bool is_pci_name(const std::string& name) {
  return name.find(':') != std::string::npos && name.find('.') != std::string::npos &&
         name.find_first_not_of("0123456789abcdefABCDEF:.") == std::string::npos;
}

}  // namespace

const char* to_string(CheckState state) noexcept {
  switch (state) {
    case CheckState::ok:
      return "ok";
    case CheckState::warn:
      return "warn";
    case CheckState::fail:
      return "fail";
    case CheckState::skipped:
      return "skipped";
  }
  return "";
}

std::vector<CpuId> CheckInput::planned_cpus() const {
  std::vector<CpuId> cpus;
  if (plan)
    for (const ThreadPlan& thread : plan->threads) cpus.push_back(thread.cpu);
  std::sort(cpus.begin(), cpus.end());
  return cpus;
}

std::vector<CheckInput::Port> CheckInput::pci_ports() const {
  std::vector<Port> ports;
  for (const std::string& devargs : wish.ports) {
    std::string name = devargs.substr(0, devargs.find(','));
    if (name.starts_with("pci:")) name.erase(0, 4);
    if (is_pci_name(name)) ports.push_back({name, host.find_pci(name)});
  }
  return ports;
}

CheckVerdict ok(std::string text) {
  return {CheckState::ok, std::move(text), {}};
}
CheckVerdict skipped(std::string text) {
  return {CheckState::skipped, std::move(text), {}};
}
CheckVerdict warn(std::string text, std::string command) {
  return {CheckState::warn, std::move(text), std::move(command)};
}
CheckVerdict fail(std::string text, std::string command) {
  return {CheckState::fail, std::move(text), std::move(command)};
}

std::string shell_quote(const std::string& text) {
  constexpr const char* kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string bytes_text(uint64_t bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  auto value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  char text[48];
  const bool whole = value == static_cast<double>(static_cast<uint64_t>(value));
  std::snprintf(text, sizeof text, whole ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

std::string kernel_words(const std::string& topic, const std::string& words) {
  return "mkdir -p /etc/default/grub.d && echo 'GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT " +
         words + "\"' > /etc/default/grub.d/migrx-" + topic + ".cfg && update-grub";
}

}  // namespace migrx
