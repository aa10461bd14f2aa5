#include <algorithm>
#include <map>

#include "dataplane/wire/address_text.h"
#include "loader/doctor/check.h"

namespace migrx {
namespace {

constexpr uint32_t kEthernetClass = 0x0200;

// Network cards that DPDK drives beside the kernel's driver, not instead of it.
bool is_shared_driver(const std::string& driver) {
  return driver == "mlx5_core" || driver == "mlx4_core" || driver == "mana";
}

bool is_user_driver(const std::string& driver) {
  return driver == "vfio-pci" || driver == "uio_pci_generic" || driver == "igb_uio";
}

// DPDK's drivers for the makers whose cards are met in hosts.
std::vector<std::string> drivers_for(uint32_t vendor) {
  static const std::map<uint32_t, std::vector<std::string>> known{
      {0x8086, {"net_ice", "net_i40e", "net_ixgbe", "net_iavf", "net_e1000", "net_igc"}},
      {0x15b3, {"net_mlx5", "net_mlx4"}},
      {0x14e4, {"net_bnxt"}},
      {0x1af4, {"net_virtio"}},
      {0x15ad, {"net_vmxnet3"}},
      {0x1d0f, {"net_ena"}},
      {0x1077, {"net_qede"}},
      {0x1425, {"net_cxgbe"}},
      {0x1924, {"net_sfc"}},
      {0x1137, {"net_enic"}},
      {0x19e5, {"net_hns3", "net_hinic"}},
      {0x1dd8, {"net_ionic"}},
  };
  const auto at = known.find(vendor);
  return at == known.end() ? std::vector<std::string>{} : at->second;
}

bool has_driver(const HostFacts& host, const std::string& driver) {
  return std::find(host.drivers.begin(), host.drivers.end(), driver) != host.drivers.end();
}

// Every port in turn; the first that is not in order is told.
template <class Look>
CheckVerdict each_port(const CheckInput& in, Look look) {
  const auto ports = in.pci_ports();
  if (ports.empty()) return skipped(in.wish.ports.empty() ? "no --port given" : "no PCI port");
  std::string text;
  for (const CheckInput::Port& port : ports) {
    if (port.pci == nullptr) continue;
    CheckVerdict verdict = look(*port.pci);
    if (verdict.state != CheckState::ok && verdict.state != CheckState::skipped) return verdict;
    text += (text.empty() ? "" : "; ") + port.address + ": " + verdict.text;
  }
  if (text.empty()) return skipped("no such port (port-exists)");
  return ok(text);
}

CheckVerdict exists(const CheckInput& in) {
  const auto ports = in.pci_ports();
  if (ports.empty()) return skipped(in.wish.ports.empty() ? "no --port given" : "no PCI port");
  for (const CheckInput::Port& port : ports) {
    if (port.pci == nullptr)
      return fail("there is no PCI function " + port.address + " here: dpdk-devbind.py --status lists them",
                  "dpdk-devbind.py --status-dev net");
    if (port.pci->device_class >> 8 != kEthernetClass)
      return fail(port.address + " is not an Ethernet controller", "dpdk-devbind.py --status-dev net");
  }
  return ok(std::to_string(ports.size()) + " found");
}

CheckVerdict driver(const CheckInput& in) {
  return each_port(in, [&](const PciFacts& pci) {
    if (is_shared_driver(pci.driver)) return ok(pci.driver + ", which DPDK works beside");
    if (pci.driver == "vfio-pci") return ok("vfio-pci");
    if (is_user_driver(pci.driver))
      return warn(pci.address + " is bound to " + pci.driver + ", which protects no memory",
                  "modprobe vfio-pci && dpdk-devbind.py -b vfio-pci " + pci.address);
    if (!pci.netdev.empty() && pci.netdev == in.host.default_route)
      return fail(pci.address + " is " + pci.netdev +
                  ", which carries this host's default route: take another port for migrations");
    return fail(
        pci.address + " is bound to " + (pci.driver.empty() ? "no driver" : pci.driver) +
            (pci.netdev.empty() ? "" : " (" + pci.netdev + "); its interface goes away with the command"),
        "modprobe vfio-pci && dpdk-devbind.py -b vfio-pci " + pci.address);
  });
}

CheckVerdict iommu(const CheckInput& in) {
  if (in.host.iommu) return ok("on");
  if (!in.wish.ports.empty() && in.pci_ports().empty()) return skipped("no PCI port");
  const bool wanted = std::any_of(in.wish.ports.begin(), in.wish.ports.end(), [&](const std::string&) {
    const auto ports = in.pci_ports();
    return std::any_of(ports.begin(), ports.end(), [](const CheckInput::Port& port) {
      return port.pci == nullptr || !is_shared_driver(port.pci->driver);
    });
  });
  const bool amd = in.host.cpu_model.find("AMD") != std::string::npos;
  const std::string text =
      in.host.virtual_machine
          ? "no IOMMU: give this virtual machine one (QEMU: -device intel-iommu,intremap=on), or use a "
            "virtual port"
          : "no IOMMU: turn VT-d or AMD-Vi on in the firmware, run the command, restart the host";
  const std::string command =
      in.host.virtual_machine ? "" : kernel_words("iommu", amd ? "iommu=pt" : "intel_iommu=on iommu=pt");
  return wanted ? fail(text, command) : warn(text, command);
}

CheckVerdict passthrough(const CheckInput& in) {
  if (!in.host.iommu) return skipped("no IOMMU");
  const std::string& line = " " + in.host.command_line + " ";
  if (line.find(" iommu=pt ") != std::string::npos || line.find(" iommu.passthrough=1 ") != std::string::npos)
    return ok("iommu=pt");
  return warn("devices of the kernel go through the IOMMU, too; restart the host after the command",
              kernel_words("iommu", "iommu=pt"));
}

CheckVerdict vfio(const CheckInput& in) {
  const auto ports = in.pci_ports();
  const bool wanted = std::any_of(ports.begin(), ports.end(), [](const CheckInput::Port& port) {
    return port.pci == nullptr || !is_shared_driver(port.pci->driver);
  });
  if (in.host.vfio_pci) return ok("loaded");
  const std::string command = "modprobe vfio-pci && echo vfio-pci > /etc/modules-load.d/migrx-vfio.conf";
  if (!wanted) return skipped("no port needs vfio-pci");
  return fail("the module vfio-pci is not loaded", command);
}

CheckVerdict unsafe_vfio(const CheckInput& in) {
  if (!in.host.vfio_without_iommu) return ok("off");
  return warn("vfio lets devices write all of memory (enable_unsafe_noiommu_mode)",
              "echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
}

CheckVerdict group(const CheckInput& in) {
  return each_port(in, [](const PciFacts& pci) {
    if (is_shared_driver(pci.driver)) return skipped("needs no group of its own");
    if (pci.iommu_group.empty()) return skipped("in no IOMMU group");
    if (pci.group_peers.empty()) return ok("IOMMU group " + pci.iommu_group);
    std::string peers;
    for (const std::string& peer : pci.group_peers) peers += " " + peer;
    return fail(pci.address + " shares IOMMU group " + pci.iommu_group + " with" + peers +
                ", which the kernel drives: bind them to vfio-pci as well, or use a slot with ACS");
  });
}

CheckVerdict link(const CheckInput& in) {
  return each_port(in, [](const PciFacts& pci) {
    if (pci.netdev.empty()) return skipped("link not visible while vfio-pci holds it");
    if (!pci.carrier)
      return is_shared_driver(pci.driver)
                 ? fail(pci.netdev + " is down", "ip link set " + shell_quote(pci.netdev) + " up")
                 : skipped(pci.netdev + " is down");
    if (!*pci.carrier) return fail(pci.netdev + " has no link: look at cable, transceiver and switch");
    if (pci.speed_mbps > 0 && pci.speed_mbps < 10'000)
      return warn(pci.netdev + " runs at " + std::to_string(pci.speed_mbps) + " Mbit/s");
    return ok(pci.speed_mbps > 0 ? std::to_string(pci.speed_mbps / 1000) + " Gbit/s" : "up");
  });
}

CheckVerdict mtu(const CheckInput& in) {
  return each_port(in, [&](const PciFacts& pci) {
    if (in.wish.mtu < 4000)
      return warn("--mtu " + std::to_string(in.wish.mtu) +
                  ": with 9000 at source, switch and here a core receives about half as much again");
    if (pci.netdev.empty()) return ok("--mtu " + std::to_string(in.wish.mtu));
    if (is_shared_driver(pci.driver) && pci.mtu < in.wish.mtu)
      return warn(
          pci.netdev + " has MTU " + std::to_string(pci.mtu) + ", --mtu says " + std::to_string(in.wish.mtu),
          "ip link set " + shell_quote(pci.netdev) + " mtu " + std::to_string(in.wish.mtu));
    return ok("MTU " + std::to_string(in.wish.mtu));
  });
}

// "16.0 GT/s PCIe" -> 16
double transfers(const std::string& text) {
  return std::strtod(text.c_str(), nullptr);
}

CheckVerdict pcie(const CheckInput& in) {
  return each_port(in, [](const PciFacts& pci) {
    if (pci.pcie_width == 0 || pci.pcie_width_max == 0)
      return skipped("the kernel tells nothing of its PCIe link");
    const std::string now = "x" + std::to_string(pci.pcie_width) + " at " + pci.pcie_speed;
    if (pci.pcie_width < pci.pcie_width_max || transfers(pci.pcie_speed) < transfers(pci.pcie_speed_max))
      return warn(pci.address + " runs " + now + ", it could x" + std::to_string(pci.pcie_width_max) +
                  " at " + pci.pcie_speed_max +
                  ": use another slot, or set the slot's speed in the firmware");
    return ok(now);
  });
}

CheckVerdict poll_driver(const CheckInput& in) {
  if (in.wish.ports.empty()) return skipped("no --port given");
  if (in.host.drivers.empty()) return fail("no DPDK driver is installed", "apt-get install -y dpdk");
  for (const std::string& devargs : in.wish.ports) {
    const std::string name = devargs.substr(0, devargs.find(','));
    if (name.find(':') == std::string::npos) {
      std::string driver = name;
      while (!driver.empty() && driver.back() >= '0' && driver.back() <= '9') driver.pop_back();
      if (driver == "eth_af_packet") driver = "net_af_packet";
      if (!has_driver(in.host, driver)) {
        std::string package = "librte-" + driver;
        std::replace(package.begin(), package.end(), '_', '-');
        return fail(
            "DPDK has no driver " + driver + " here: check the spelling of --port, or install its package",
            "apt-cache search " + shell_quote(package));
      }
    }
  }
  for (const CheckInput::Port& port : in.pci_ports()) {
    if (port.pci == nullptr) continue;
    const auto drivers = drivers_for(port.pci->vendor);
    if (drivers.empty()) continue;
    if (std::none_of(drivers.begin(), drivers.end(),
                     [&](const std::string& name) { return has_driver(in.host, name); }))
      return fail("DPDK's drivers for " + port.address + " are not installed (" + drivers.front() + ")",
                  "apt-get install -y dpdk");
  }
  return ok("installed");
}

CheckVerdict address(const CheckInput& in) {
  if (in.wish.addresses.empty()) return skipped("no --address given");
  std::vector<std::string> addresses;
  for (const std::string& text : in.wish.addresses)
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t end = std::min(text.find(',', at), text.size());
      const std::string one = text.substr(at, end - at);
      addresses.push_back(one.substr(0, one.find('/')));
      // As the kernel's are written.
      if (IpAddress parsed; parse_ip_address(addresses.back().c_str(), parsed))
        addresses.back() = IpAddressText(parsed).view();
      at = end + 1;
    }
  for (const std::string& address : addresses) {
    if (std::find(in.host.kernel_addresses.begin(), in.host.kernel_addresses.end(), address) !=
        in.host.kernel_addresses.end())
      return fail(address +
                  " belongs to an interface of the kernel, which would reset the source's connections: give "
                  "migrx an address of its own");
  }
  return ok("not the kernel's");
}

constexpr Check kPortChecks[] = {
    {"port-exists", "DPDK opens exactly the PCI function that --port names.", exists},
    {"port-driver", "DPDK gets a port only after the kernel's driver has let go of it.", driver},
    {"iommu", "Without an IOMMU a port could write anywhere, so VFIO refuses it.", iommu},
    {"iommu-passthrough", "In pass-through mode the kernel's own devices do not pay for the IOMMU.",
     passthrough},
    {"vfio-module", "vfio-pci is the driver that hands a PCI function to a program.", vfio},
    {"vfio-noiommu", "A device without IOMMU can overwrite every guest of this host.", unsafe_vfio},
    {"iommu-group", "VFIO hands out whole IOMMU groups, never a part of one.", group},
    {"port-link", "A source cannot connect to a port without link.", link},
    {"port-mtu", "Large segments cost a core fewer cycles for each byte.", mtu},
    {"port-pcie", "A slot with fewer lanes than the card caps its rate.", pcie},
    {"dpdk-driver", "DPDK loads its drivers at run time from packages of their own.", poll_driver},
    {"address", "Two stacks on one address reset each other's connections.", address},
};

}  // namespace

std::span<const Check> port_checks() {
  return kPortChecks;
}

}  // namespace migrx
