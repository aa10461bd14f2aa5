#include "loader/main/machine_type.h"

#include <gtest/gtest.h>

#include <string>

namespace migrx {
namespace {

TEST(MachineType, its_release_stands_at_its_end) {
  struct Known {
    const char* name;
    uint32_t major, minor;
  };
  for (const Known& known :
       {Known{"pc-i440fx-7.2", 7, 2}, Known{"pc-q35-11.1", 11, 1}, Known{"virt-10.0", 10, 0},
        Known{"s390-ccw-virtio-2.12", 2, 12}, Known{"pc-0.15", 0, 15}}) {
    const auto version = version_of_machine_type(known.name);
    ASSERT_TRUE(version.has_value()) << known.name;
    EXPECT_EQ(version->major, known.major) << known.name;
    EXPECT_EQ(version->minor, known.minor) << known.name;
  }
}

TEST(MachineType, names_without_a_release_tell_none) {
  for (const char* const name :
       {"", "microvm", "vexpress-a9", "none", "pc-q35-rhel9.6.0", "pc-i440fx-noble", "pseries-2.12-sxxm",
        "pc-q35-", "pc-q35-11", "pc-q35-11.", "pc-q35-.1", "-11.1", "11.1", "pc-q35-11.1.0", "pc-q35-+1.1",
        "pc-q35-99999999999.1", "pc-q35- 1.1"})
    EXPECT_FALSE(version_of_machine_type(name).has_value()) << name;
}

TEST(MachineType, numbers_are_compared_not_letters) {
  EXPECT_EQ(switchover_ack_is_legacy("pc-q35-9.2"), true);
  EXPECT_EQ(switchover_ack_is_legacy("pc-q35-11.0"), true);
  EXPECT_EQ(switchover_ack_is_legacy("pc-q35-11.1"), false);
  EXPECT_EQ(switchover_ack_is_legacy("pc-q35-11.10"), false);
  EXPECT_EQ(switchover_ack_is_legacy("virt-100.0"), false);
  EXPECT_EQ(switchover_ack_is_legacy("microvm"), std::nullopt);
}

}  // namespace
}  // namespace migrx
