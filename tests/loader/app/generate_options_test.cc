#include "loader/app/generate_options.h"

#include <gtest/gtest.h>

#include "dataplane/wire/address_text.h"

namespace migrx {
namespace {

GenerateOptions options(const char* destination, const char* address) {
  GenerateOptions o;
  o.destination = destination;
  o.address = address;
  o.port = "net_tap0,iface=gen0";
  return o;
}

TEST(GenerateOptions, destinations_are_of_either_family) {
  GenerateTarget target;
  EXPECT_EQ(check_generate_options(options("tcp:10.77.0.2:4444", "10.77.0.1/24"), target), "");
  EXPECT_EQ(target.next_hop, target.remote);
  EXPECT_EQ(target.host, "10.77.0.2");
  EXPECT_EQ(check_generate_options(options("[fd00::2]:4444", "fd00::1/64"), target), "");
  EXPECT_EQ(target.port, 4444);
  EXPECT_EQ(target.host, "fd00::2");
  // Link-local addresses are neighbours' whatever the subnet.
  EXPECT_EQ(check_generate_options(options("tcp:[fe80::2]:4444", "fd00::1/64"), target), "");
}

TEST(GenerateOptions, addresses_that_do_not_fit_together_are_refused_with_the_option) {
  struct Row {
    const char* destination;
    const char* address;
    const char* gateway;
    uint32_t mtu;
    const char* says;
  };
  const Row rows[] = {
      {"tcp:10.77.0.2", "10.77.0.1/24", nullptr, 1500, "DESTINATION"},
      {"tcp:10.77.0.2:0", "10.77.0.1/24", nullptr, 1500, "DESTINATION"},
      {"tcp:10.77.0.2:70000", "10.77.0.1/24", nullptr, 1500, "DESTINATION"},
      {"tcp:[10.77.0.2]:4444", "10.77.0.1/24", nullptr, 1500, "DESTINATION"},
      {"tcp:fd00::2:4444", "fd00::1/64", nullptr, 1500, "DESTINATION"},
      {"tcp:[]:4444", "fd00::1/64", nullptr, 1500, "DESTINATION"},
      {"tcp:[::]:4444", "fd00::1/64", nullptr, 1500, "DESTINATION"},
      {"tcp:[ff02::1]:4444", "fd00::1/64", nullptr, 1500, "DESTINATION"},
      {"tcp:[fd00::2]:4444", "10.77.0.1/24", nullptr, 1500, "other family"},
      {"tcp:[fd00::2]:4444", "fd00::1", nullptr, 1500, "--address"},
      {"tcp:[fd00::2]:4444", "fd00::1/64", nullptr, 1279, "--mtu"},
      {"tcp:10.77.0.2:4444", "10.77.0.255/24", nullptr, 1500, "broadcast"},
      {"tcp:10.77.0.2:4444", "127.0.0.1/8", nullptr, 1500, "loopback"},
      {"tcp:10.77.0.2:4444", "10.77.0.2/24", nullptr, 1500, "the destination's"},
      {"tcp:[fd01::2]:4444", "fd00::1/64", nullptr, 1500, "--gateway"},
      {"tcp:[fd01::2]:4444", "fd00::1/64", "10.77.0.9", 1500, "--gateway"},
      {"tcp:[fd01::2]:4444", "fd00::1/64", "nonsense", 1500, "--gateway"},
  };
  for (const Row& row : rows) {
    GenerateOptions o = options(row.destination, row.address);
    o.mtu = row.mtu;
    if (row.gateway != nullptr) o.gateway = row.gateway;
    GenerateTarget target;
    const std::string problem = check_generate_options(o, target);
    EXPECT_NE(problem.find(row.says), std::string::npos) << row.destination << ": " << problem;
  }
}

TEST(GenerateOptions, a_gateway_is_the_next_hop) {
  GenerateOptions o = options("tcp:[fd01::2]:4444", "fd00::1/64");
  o.gateway = "fe80::9";
  GenerateTarget target;
  EXPECT_EQ(check_generate_options(o, target), "");
  EXPECT_EQ(IpAddressText(target.next_hop).view(), "fe80::9");
}

}  // namespace
}  // namespace migrx
