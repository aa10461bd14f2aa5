#include "loader/app/serve/unreachable_listeners.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

constexpr uint64_t kLate = UnreachableListeners::kPatienceNs;

const PortListener kV6{1, 100, 4, "tcp:[::1]:100"};
const PortListener kV4{2, 100, 4, "tcp:127.0.0.1:100"};
const PortListener kElsewhere{3, 101, 4, "tcp:127.0.0.1:101"};

TEST(UnreachableListeners, is_told_when_no_other_socket_of_its_port_comes) {
  UnreachableListeners list;
  list.add(kV6, "no address", 1);
  EXPECT_TRUE(list.take_due({kV6, kElsewhere}, kLate).empty());
  const auto due = list.take_due({kV6, kElsewhere}, kLate + 1);
  ASSERT_EQ(due.size(), 1U);
  EXPECT_EQ(due[0].why, "no address");
  EXPECT_TRUE(list.take_due({kV6}, kLate + 2).empty()) << "once";
}

TEST(UnreachableListeners, is_forgotten_when_one_comes_or_it_goes) {
  UnreachableListeners list;
  list.add(kV6, "", 1);
  EXPECT_TRUE(list.take_due({kV6, kV4}, 2).empty());
  EXPECT_TRUE(list.take_due({kV6}, 2 * kLate).empty());
  list.add(kV6, "", 1);
  EXPECT_TRUE(list.take_due({kElsewhere}, 2 * kLate).empty());
  EXPECT_TRUE(list.take_due({kV6}, 3 * kLate).empty());
}

TEST(UnreachableListeners, two_that_cannot_be_reached_do_not_help_each_other) {
  UnreachableListeners list;
  list.add(kV6, "", 1);
  list.add(kV4, "", 1);
  EXPECT_EQ(list.take_due({kV6, kV4}, kLate + 1).size(), 2U);
}

}  // namespace
}  // namespace migrx
