#include "loader/app/link_watch.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

TEST(LinkWatch, each_change_is_told_once_with_its_duration) {
  LinkWatch watch({"net_tap0,iface=a", "0000:3b:00.0"});
  EXPECT_EQ(watch.look(0, true, "up", 1), "");
  EXPECT_EQ(watch.look(1, false, "down", 2), "link of 0000:3b:00.0 is down: what is under way waits for it");
  EXPECT_EQ(watch.look(1, false, "down", 3), "");
  EXPECT_EQ(watch.look(1, true, "up, 100 Gbit/s, full duplex", 12.5),
            "link of 0000:3b:00.0 is up, 100 Gbit/s, full duplex again after 10.5 s");
  EXPECT_EQ(watch.changes(), 2U);
  ASSERT_EQ(watch.events().size(), 2U);
  EXPECT_EQ(watch.events()[0].port, "0000:3b:00.0");
  EXPECT_FALSE(watch.events()[0].up);
  EXPECT_EQ(watch.events()[1].at_s, 12.5);
}

TEST(LinkWatch, one_that_flaps_for_ever_fills_no_memory) {
  LinkWatch watch({"p"});
  for (uint32_t i = 0; i < 1000; ++i) EXPECT_NE(watch.look(0, i % 2 != 0, "up", i), "");
  EXPECT_EQ(watch.changes(), 1000U);
  EXPECT_EQ(watch.events().size(), LinkWatch::kEventsMax);
}

TEST(LinkComesWithPeer, shared_memory_waits_for_the_other_process) {
  EXPECT_TRUE(link_comes_with_peer("net_memif0,role=server,id=0"));
  EXPECT_TRUE(link_comes_with_peer("net_vhost0,iface=/run/vhost.sock"));
  EXPECT_FALSE(link_comes_with_peer("net_tap0,iface=mig0"));
  EXPECT_FALSE(link_comes_with_peer("0000:41:00.0"));
}

}  // namespace
}  // namespace migrx
