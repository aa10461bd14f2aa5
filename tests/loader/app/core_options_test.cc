#include "loader/app/core_options.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <tuple>

namespace migrx {
namespace {

TEST(CoreOptionsTest, counts_and_cpus_are_told_apart) {
  CoreOptions options;
  options.poll_cores = "count=2";
  options.loader_cores = "4-6";
  options.link = "25G";
  PlacementWish wish;
  wish.ports = {{"0000:41:00.0", NodeId{0}}, {"0000:41:00.1", NodeId{0}}};
  EXPECT_EQ(ask_for_cores(options, wish), "");
  EXPECT_EQ(wish.poll_count, 2U);
  EXPECT_TRUE(wish.poll_cpus.empty());
  EXPECT_EQ(wish.loader_cpus, (std::vector<CpuId>{CpuId{4}, CpuId{5}, CpuId{6}}));
  for (const PortWish& port : wish.ports) EXPECT_EQ(port.link_bits_per_s, 25'000'000'000U);
}

TEST(CoreOptionsTest, what_is_wrong_is_named_by_its_option) {
  for (const auto& [poll, loader, link, name] : {std::tuple{"count=x", "", "", "--poll-cores"},
                                                 {"", "4-", "", "--loader-cores"},
                                                 {"", "", "fast", "--link"}}) {
    CoreOptions options;
    options.poll_cores = poll;
    options.loader_cores = loader;
    options.link = link;
    PlacementWish wish;
    EXPECT_TRUE(ask_for_cores(options, wish).starts_with(name)) << name;
  }
}

TEST(CoreOptionsTest, a_cards_link_is_that_of_its_interface_or_what_its_slot_carries) {
  const std::string root = testing::TempDir() + "migrx-core-options-" + std::to_string(::getpid());
  const auto put = [&root](const std::string& path, const std::string& text) {
    std::filesystem::create_directories(root + path.substr(0, path.rfind('/')));
    std::ofstream(root + path) << text << "\n";
  };
  const std::string vfio = "/sys/bus/pci/devices/0000:41:00.0/";
  put(vfio + "vendor", "0x8086");
  const HostFiles files(root);
  EXPECT_EQ(port_link("0000:41:00.0", files), 0U);
  put(vfio + "current_link_speed", "5.0 GT/s PCIe");
  put(vfio + "current_link_width", "4");
  EXPECT_EQ(port_link("41:00.0,queues=2", files), 16'000'000'000U);
  put(vfio + "current_link_speed", "16.0 GT/s PCIe");
  put(vfio + "current_link_width", "16");
  EXPECT_EQ(port_link("0000:41:00.0", files), 0U);  // the slot carries more than is assumed
  put(vfio + "current_link_speed", "Unknown");
  EXPECT_EQ(port_link("0000:41:00.0", files), 0U);
  put(vfio + "net/enp65s0np0/speed", "25000");
  EXPECT_EQ(port_link("0000:41:00.0", files), 25'000'000'000U);
  put(vfio + "net/enp65s0np0/speed", "-1");
  EXPECT_EQ(port_link("0000:41:00.0", files), 0U);
  EXPECT_EQ(port_link("0000:42:00.0", files), 0U);
  EXPECT_EQ(port_link("../../../../etc", files), 0U);
  std::filesystem::remove_all(root);
}

TEST(CoreOptionsTest, a_link_is_asked_of_interfaces_of_the_kernel_only) {
  const HostFiles files;
  const auto interface_link = [&files](const char* devargs) { return port_link(devargs, files); };
  EXPECT_EQ(interface_link("0000:41:00.0"), 0U);
  EXPECT_EQ(interface_link("net_tap0,iface=lo"), 0U);
  EXPECT_EQ(interface_link("net_af_packet0,iface=../../../../etc"), 0U);
  EXPECT_EQ(interface_link("net_af_packet0,iface="), 0U);
  EXPECT_EQ(interface_link("net_af_packet0"), 0U);
  EXPECT_EQ(interface_link("net_af_packet0,iface=no-such-interface"), 0U);
}

}  // namespace
}  // namespace migrx
