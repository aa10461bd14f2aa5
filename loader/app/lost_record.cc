#include "loader/app/lost_record.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fstream>
#include <utility>

#include "dataplane/dpdk/eal.h"
#include "loader/app/address_list.h"
#include "loader/app/lost_connection.h"

namespace migrx {
namespace {

constexpr std::string_view kFirstLine = "migrx-lost 1";
constexpr std::string_view kLastLine = "end";

template <class Number>
bool number_from(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

// "pci 0000:41:00.0"; "interface mig0"; else the device's name.
std::string port_key(const std::string& devargs) {
  std::string name = devargs.substr(0, devargs.find(','));
  if (is_pci_devargs(devargs)) {
    if (name.starts_with("pci:")) name = name.substr(4);
    if (std::count(name.begin(), name.end(), ':') == 1) name = "0000:" + name;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return "pci " + name;
  }
  const std::size_t interface = devargs.find(",iface=");
  if (interface == std::string::npos) return name;
  const std::size_t begin = interface + 7;
  return "interface " + devargs.substr(begin, devargs.find(',', begin) - begin);
}

// The addresses of all ports, whichever way they are written. A text that is no address belongs to none.
std::vector<IpNetwork> addresses_of(const LostRecord& record) {
  std::vector<IpNetwork> all;
  for (const std::string& text : record.addresses) {
    std::string problem;
    const std::vector<IpNetwork> of_port = parse_networks(text, problem);
    all.insert(all.end(), of_port.begin(), of_port.end());
  }
  return all;
}

}  // namespace

HostIdentity this_host() {
  HostIdentity host;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> host.boot_id;
  struct stat status {};
  if (::stat("/proc/self/ns/net", &status) == 0)
    host.network_namespace = fmt::format("{}:{}", status.st_dev, status.st_ino);
  return host;
}

uint64_t boottime_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

std::string to_text(const LostRecord& record) {
  std::string text = std::string(kFirstLine) + "\n";
  const auto line = [&text](std::string_view key, const std::string& value) {
    if (value.find('\n') == std::string::npos) text += fmt::format("{} {}\n", key, value);
  };
  line("boot", record.host.boot_id);
  line("netns", record.host.network_namespace);
  line("process", std::to_string(record.process));
  line("until", std::to_string(record.until_ns));
  line("mtu", std::to_string(record.mtu));
  if (record.gateway) line("gateway", *record.gateway);
  if (record.vlan) line("vlan", std::to_string(*record.vlan));
  if (record.killed) line("killed", "1");
  if (!record.eal.empty()) line("eal", record.eal);
  for (const std::string& port : record.ports) line("port", port);
  for (const std::string& address : record.addresses) line("address", address);
  for (std::size_t i = 0; i < std::min(record.lost.size(), kLostConnectionsMax); ++i)
    line("lost", to_text(record.lost[i]));
  return text + std::string(kLastLine) + "\n";
}

std::optional<LostRecord> lost_record_from(std::string_view text) {
  if (text.size() > kLostRecordBytesMax) return std::nullopt;
  LostRecord record;
  bool first = true;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    if (newline == std::string_view::npos) return std::nullopt;
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline + 1);
    if (std::exchange(first, false)) {
      if (line != kFirstLine) return std::nullopt;
      continue;
    }
    if (line == kLastLine) {
      const bool whole = text.empty() && !record.ports.empty() &&
                         record.ports.size() == record.addresses.size() && !record.host.boot_id.empty();
      return whole ? std::optional(std::move(record)) : std::nullopt;
    }
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) return std::nullopt;
    const std::string_view key = line.substr(0, space);
    const std::string value(line.substr(space + 1));
    bool good = true;
    if (key == "boot") {
      record.host.boot_id = value;
    } else if (key == "netns") {
      record.host.network_namespace = value;
    } else if (key == "process") {
      good = number_from(value, record.process);
    } else if (key == "until") {
      good = number_from(value, record.until_ns);
    } else if (key == "mtu") {
      good = number_from(value, record.mtu) && record.mtu >= 576 && record.mtu <= 65535;
    } else if (key == "gateway") {
      record.gateway = value;
    } else if (key == "vlan") {
      uint16_t vlan = 0;
      good = number_from(value, vlan) && vlan <= 4094;
      record.vlan = vlan;
    } else if (key == "killed") {
      record.killed = good = value == "1";
    } else if (key == "eal") {
      record.eal = value;
    } else if (key == "port") {
      record.ports.push_back(value);
      good = record.ports.size() <= 64;
    } else if (key == "address") {
      record.addresses.push_back(value);
      good = record.addresses.size() <= 64;
    } else if (key == "lost") {
      const std::optional<LostConnection> lost = lost_connection_from(value);
      good = lost && record.lost.size() < kLostConnectionsMax;
      if (good) record.lost.push_back(*lost);
    } else {
      good = false;
    }
    if (!good) return std::nullopt;
  }
  return std::nullopt;
}

bool in_the_way(const LostRecord& record, const LostRecord& ours) {
  const bool same_network = record.host.network_namespace == ours.host.network_namespace;
  for (const std::string& theirs : record.ports) {
    const std::string key = port_key(theirs);
    for (const std::string& own : ours.ports)
      if (key == port_key(own) && (same_network || key.starts_with("pci "))) return true;
  }
  if (!same_network) return false;
  const std::vector<IpNetwork> own = addresses_of(ours);
  for (const IpNetwork& theirs : addresses_of(record))
    if (std::any_of(own.begin(), own.end(), [&](const IpNetwork& n) { return n.address == theirs.address; }))
      return true;
  return false;
}

}  // namespace migrx
