// What is known about kinds of devices before they exist.
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "dataplane/dpdk/dpdk_port.h"
#include "dataplane/dpdk/eal.h"

namespace migrx {
namespace {

std::string_view device_name(std::string_view devargs) noexcept {
  return devargs.substr(0, devargs.find(','));
}
// "net_tap0" is of kind "net_tap".
bool is_kind(std::string_view devargs, std::string_view kind) noexcept {
  return device_name(devargs).starts_with(kind);
}

// The value of ",key=value".
std::optional<std::string_view> argument(std::string_view devargs, std::string_view key) noexcept {
  for (std::size_t comma = devargs.find(','); comma != std::string_view::npos;) {
    const std::size_t end = devargs.find(',', comma + 1);
    const std::string_view pair =
        devargs.substr(comma + 1, end == std::string_view::npos ? end : end - comma - 1);
    if (pair.starts_with(key) && pair.size() > key.size() && pair[key.size()] == '=')
      return pair.substr(key.size() + 1);
    comma = end;
  }
  return std::nullopt;
}

uint32_t number_or(std::optional<std::string_view> text, uint32_t otherwise) noexcept {
  uint32_t value = otherwise;
  if (text) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}

// Geometry of an af_packet ring (the kernel's Documentation/networking/packet_mmap.rst): a frame's slot holds
// its bytes behind a header; slots do not cross blocks; a ring of some 16 MiB absorbs the pauses of a shared
// CPU.
struct RingShape {
  uint32_t mtu_max;
  uint32_t frame_bytes, block_bytes, frames;
};
constexpr std::array kRingShapes{
    RingShape{1900, 2048, 65536, 8192},  RingShape{3900, 4096, 65536, 4096},
    RingShape{8000, 8192, 65536, 2048},  RingShape{16000, 16384, 65536, 2048},
    RingShape{32000, 32768, 65536, 512}, RingShape{61340, 61440, 61440, 256},
};

// The arguments of the drivers that a receiver has a use for (DPDK's guides, "Network Interface Controller
// Drivers"), of 22.11 and what came up to 25.11.
struct DriverArguments {
  std::string_view kind;
  std::string_view names;  // each between spaces
};
constexpr std::array kDriverArguments{
    DriverArguments{"net_tap", " iface remote mac persist "},
    DriverArguments{"net_af_packet", " iface qpairs blocksz framesz framecnt qdisc_bypass fanout_mode "},
    DriverArguments{"net_af_xdp",
                    " iface start_queue queue_count shared_umem xdp_prog busy_budget force_copy mode use_cni "
                    "use_pinned_map dp_path "},
    DriverArguments{"net_memif",
                    " id role bsize rsize socket socket-abstract owner-uid owner-gid mac zero-copy secret "},
    DriverArguments{"net_vhost",
                    " iface queues client iommu-support postcopy-support tso linear-buffer ext-buffer "
                    "legacy-ol-flags "},
};

}  // namespace

std::string check_devargs(const std::string& devargs) {
  const auto driver = std::find_if(kDriverArguments.begin(), kDriverArguments.end(),
                                   [&](const DriverArguments& d) { return is_kind(devargs, d.kind); });
  if (driver == kDriverArguments.end()) return {};
  std::string seen = " ";
  for (std::size_t comma = devargs.find(','); comma != std::string::npos;) {
    const std::size_t end = std::min(devargs.find(',', comma + 1), devargs.size());
    const std::string pair = devargs.substr(comma + 1, end - comma - 1);
    const std::string name = pair.substr(0, pair.find('='));
    const std::string word = " " + name + " ";
    if (name.empty() || name.find(' ') != std::string::npos ||
        driver->names.find(word) == std::string_view::npos)
      return "argument '" + name + "' is not one of " + std::string(driver->kind) +
             "'s:" + std::string(driver->names.substr(0, driver->names.size() - 1));
    if (pair.size() <= name.size() + 1) return "argument " + name + " needs a value: " + name + "=VALUE";
    if (seen.find(word) != std::string::npos) return "argument " + name + " is given twice";
    seen += name + " ";
    comma = end < devargs.size() ? end : std::string::npos;
  }
  return {};
}

std::optional<std::string> interface_of(const std::string& devargs) {
  const std::optional<std::string_view> name = argument(devargs, "iface");
  return name ? std::optional<std::string>(*name) : std::nullopt;
}

std::string device_hint(const std::string& devargs, bool interface_exists) {
  const std::optional<std::string> interface = interface_of(devargs);
  if (interface && is_kind(devargs, "net_tap") && interface_exists)
    return "interface " + *interface +
           " exists already: another program holds it, or it was not made with multi_queue. End that "
           "program, "
           "take another name in iface=, or remove it (ip link del " +
           *interface + ")";
  if (interface && (is_kind(devargs, "net_af_packet") || is_kind(devargs, "net_af_xdp")) && !interface_exists)
    return "there is no interface " + *interface +
           " in this network namespace: take one of those that ip -br link shows";
  return "DPDK cannot make the device; does its name begin with a driver's, as net_tap0 does, and is the "
         "process allowed to?";
}

std::string pci_hint(const std::string& devargs, const std::optional<std::string>& driver) {
  const std::string address = devargs.substr(0, devargs.find(','));
  const std::string bind = "modprobe vfio-pci && dpdk-devbind.py -b vfio-pci " + address;
  if (!driver) return "this host has no PCI function " + address + ": lspci lists those there are";
  if (driver->empty()) return "the device is bound to no driver: " + bind;
  if (*driver == "vfio-pci")
    return "DPDK cannot use the device; is the IOMMU on, and are the other functions of its group "
           "(/sys/bus/pci/devices/ADDRESS/iommu_group/devices) bound to vfio-pci, too?";
  // Drivers that share the device with DPDK.
  if (driver->starts_with("mlx") || *driver == "igb_uio" || *driver == "uio_pci_generic")
    return "DPDK cannot use the device through its driver " + *driver;
  return "the device is bound to the kernel's driver " + *driver +
         ". If this host does not need it there: " + bind;
}

std::string complete_devargs(const std::string& devargs, uint32_t mtu, uint32_t queues) {
  std::string complete = devargs;
  const auto add = [&](std::string_view key, uint32_t value) {
    if (!argument(complete, key)) complete += "," + std::string(key) + "=" + std::to_string(value);
  };
  if (is_kind(devargs, "net_af_packet")) {
    if (queues > 1) add("qpairs", queues);
    add("qdisc_bypass", 1);
    if (!argument(devargs, "framesz") && !argument(devargs, "blocksz") && !argument(devargs, "framecnt")) {
      const auto shape = std::find_if(kRingShapes.begin(), kRingShapes.end() - 1,
                                      [mtu](const RingShape& s) { return mtu <= s.mtu_max; });
      add("framesz", shape->frame_bytes);
      add("blocksz", shape->block_bytes);
      add("framecnt", shape->frames);
    }
  }
  // Its own default holds frames of MTU 1500 only; longer ones would take several of its buffers each.
  if (is_kind(devargs, "net_memif")) add("bsize", buffer_bytes_for_mtu(mtu));
  return complete;
}

uint32_t buffer_bytes_for(const std::string& devargs, uint32_t mtu) {
  if (is_kind(devargs, "net_af_packet")) {
    // The driver copies a whole slot into one buffer and refuses buffers smaller than that.
    const std::string complete = complete_devargs(devargs, mtu, 1);
    return std::max(buffer_bytes_for_mtu(std::min(mtu, 1500U)),
                    number_or(argument(complete, "framesz"), 2048));
  }
  return buffer_bytes_for_mtu(mtu);
}

uint32_t rx_descriptors_for(const std::string& devargs, uint32_t mtu, uint32_t buffer_bytes,
                            uint32_t wanted) {
  if (!is_kind(devargs, "net_tap")) return wanted;
  // The driver hands the kernel 1 + descriptors pieces, the first for a header of its own.
  return std::max(buffers_per_frame(mtu, buffer_bytes), 1U);
}

}  // namespace migrx
