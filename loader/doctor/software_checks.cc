#include <algorithm>
#include <cstdio>

#include "loader/doctor/certificate.h"
#include "loader/doctor/check.h"

namespace migrx {
namespace {

// The first "number.number" in a text; {0, 0}: none.
std::pair<uint32_t, uint32_t> version_in(const std::string& text) {
  const std::size_t at = text.find_first_of("0123456789");
  unsigned major = 0, minor = 0;
  if (at == std::string::npos || std::sscanf(text.c_str() + at, "%4u.%4u", &major, &minor) != 2)
    return {0, 0};
  return {major, minor};
}

CheckVerdict kernel(const CheckInput& in) {
  const std::string release = in.host.setting("/proc/sys/kernel/osrelease");
  if (release.empty()) return skipped("the kernel does not tell its release");
  // MADV_POPULATE_WRITE came with 5.14.
  if (version_in(release) < std::pair{5U, 14U})
    return warn("Linux " + release + ": migrx is tested with 6.1 and newer");
  return ok("Linux " + release);
}

CheckVerdict dpdk(const CheckInput& in) {
  const auto version = version_in(in.host.dpdk_version);
  if (version < std::pair{22U, 11U})
    return fail(
        (in.host.dpdk_version.empty() ? std::string("DPDK's version is not known") : in.host.dpdk_version) +
        ": migrx needs 22.11 or newer");
  return ok(in.host.dpdk_version);
}

CheckVerdict qemu(const CheckInput& in) {
  if (in.host.qemu_version.empty())
    return warn("no qemu-system-x86_64 found: without a destination there is only --no-handoff",
                "apt-get install -y qemu-system-x86");
  if (version_in(in.host.qemu_version) < std::pair{7U, 2U})
    return warn(in.host.qemu_version + ": migrx is tested with 7.2 and newer");
  return ok(in.host.qemu_version);
}

CheckVerdict libvirt(const CheckInput& in) {
  if (in.host.libvirt_version.empty()) return skipped("no libvirt found");
  if (version_in(in.host.libvirt_version) < std::pair{9U, 0U})
    return warn(in.host.libvirt_version + ": migrx is made for 9.0 and newer");
  return ok(in.host.libvirt_version);
}

CheckVerdict apparmor(const CheckInput& in) {
  if (in.host.setting("/sys/module/apparmor/parameters/enabled") != "Y") return ok("off");
  if (in.host.libvirt_version.empty()) return ok("on; nothing confines a QEMU that is started by hand");
  const std::string local = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
  const std::string text =
      "on, with libvirt: its profile lets a guest's QEMU open only what its domain names; RAM files and "
      "sockets of "
      "migrx must be named in " +
      local;
  if (in.wish.ram.empty()) return warn(text);
  const std::string rule = shell_quote("  \"" + in.wish.ram.front().path + "\" rwk,");
  return warn(text, "mkdir -p /etc/apparmor.d/local/abstractions && touch " + local + " && { grep -qxF " +
                        rule + " " + local + " || echo " + rule + " >> " + local + "; }");
}

CheckVerdict selinux(const CheckInput& in) {
  if (in.host.setting("/sys/fs/selinux/enforce") != "1") return ok("off or permissive");
  return warn("enforcing: QEMU under libvirt opens only files with its own label; after a refusal look at",
              "ausearch -m avc -ts recent");
}

CheckVerdict privileges(const CheckInput& in) {
  const auto has = [&](unsigned bit) { return (in.host.capabilities >> bit & 1) != 0; };
  std::string missing;
  const auto need = [&](unsigned bit, const char* name) {
    if (!has(bit)) missing += (missing.empty() ? "" : ", ") + std::string(name);
  };
  need(12, "CAP_NET_ADMIN");
  need(14, "CAP_IPC_LOCK");
  need(21, "CAP_SYS_ADMIN");
  if (missing.empty()) return ok("enough");
  const std::string text =
      "this process lacks " + missing + ": run migrx as root, or give its unit these capabilities";
  return in.pci_ports().empty() ? warn(text) : fail(text);
}

CheckVerdict open_files(const CheckInput& in) {
  constexpr uint64_t kLeast = 1024;
  if (!in.host.open_files || *in.host.open_files >= kLeast) return ok("enough");
  return warn(std::to_string(*in.host.open_files) + " files may be open", "ulimit -n 4096");
}

CheckVerdict map_count(const CheckInput& in) {
  const std::string text = in.host.setting("/proc/sys/vm/max_map_count");
  constexpr unsigned long kLeast = 65530;  // the kernel's default
  if (text.empty() || std::strtoul(text.c_str(), nullptr, 10) >= kLeast)
    return ok(text.empty() ? "not told" : text);
  return warn("vm.max_map_count is " + text + ", less than the kernel's default",
              "echo vm.max_map_count=65530 > /etc/sysctl.d/60-migrx-maps.conf && sysctl -p "
              "/etc/sysctl.d/60-migrx-maps.conf");
}

CheckVerdict certificate(const CheckInput& in) {
  if (in.wish.certificate.empty()) return skipped("no --certificate given");
  int64_t expires = 0;
  std::string problem;
  if (!certificate_expiry(in.wish.certificate, expires, problem)) return fail(problem);
  constexpr int64_t kDay = 86'400;
  constexpr int64_t kSoonDays = 30;
  const int64_t days = (expires - in.now_unix_s) / kDay;
  if (expires <= in.now_unix_s)
    return fail(in.wish.certificate + " expired " + std::to_string(-days) + " days ago: renew it");
  if (days < kSoonDays)
    return warn(in.wish.certificate + " expires in " + std::to_string(days) + " days: renew it");
  return ok("valid for " + std::to_string(days) + " days");
}

constexpr Check kSoftwareChecks[] = {
    {"kernel", "Guest memory is populated by a call that older kernels lack.", kernel},
    {"dpdk-version", "Ports and their offloads differ between DPDK's releases.", dpdk},
    {"qemu", "The guest runs on in a QEMU of this host.", qemu},
    {"libvirt", "Under libvirt the destination QEMU is started and watched by it.", libvirt},
    {"apparmor", "A confined QEMU cannot open the RAM file that migrx writes.", apparmor},
    {"selinux", "A confined QEMU cannot open the RAM file that migrx writes.", selinux},
    {"privileges", "Ports, pinned memory and other processes' mappings need rights.", privileges},
    {"open-files", "Each channel, block and device takes a file descriptor.", open_files},
    {"map-count", "Each memory segment of DPDK is a mapping of its own.", map_count},
    {"certificate", "An expired certificate stops every migration over TLS.", certificate},
};

}  // namespace

std::span<const Check> software_checks() {
  return kSoftwareChecks;
}

}  // namespace migrx
