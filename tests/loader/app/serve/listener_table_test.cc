#include "loader/app/serve/listener_table.h"

#include <gtest/gtest.h>

#include "loader/destination/port_range.h"

namespace migrx {
namespace {

constexpr PortRange kRange{100, 109};
constexpr uint64_t kSecond = 1'000'000'000;

PortListener listener(uint64_t inode, uint16_t port) {
  return {inode, port, 1, "tcp:127.0.0.1:" + std::to_string(port)};
}

TEST(ListenerTable, tells_each_once_when_it_appears_and_when_it_goes) {
  ListenerTable table(kRange);
  auto news = table.take({listener(1, 100), listener(2, 109), listener(3, 110)}, {}, 0);
  ASSERT_EQ(news.appeared.size(), 2U) << "that of port 110 is none of ours";
  EXPECT_TRUE(table.take({listener(2, 109), listener(1, 100)}, {}, 0).appeared.empty());
  news = table.take({listener(2, 109)}, {}, 0);
  EXPECT_EQ(news.gone, std::vector<uint64_t>{1});
  EXPECT_TRUE(table.take({listener(2, 109)}, {}, 0).gone.empty());
  EXPECT_EQ(table.take({listener(4, 100), listener(2, 109)}, {}, 0).appeared.size(), 1U);
}

// A destination may have begun to listen after the last look.
TEST(ListenerTable, a_port_is_awaited_until_a_look_after_the_syn_finds_nobody) {
  ListenerTable table(kRange);
  EXPECT_TRUE(table.awaited(100, 0));
  EXPECT_FALSE(table.awaited(99, 0));
  EXPECT_FALSE(table.awaited(110, 0));
  (void)table.take({}, {100}, kSecond);
  EXPECT_FALSE(table.awaited(100, kSecond));
  EXPECT_TRUE(table.awaited(101, kSecond));
  // Linux repeats its SYN after one second: it gets its answer.
  EXPECT_FALSE(table.awaited(100, 2 * kSecond + kSecond / 2));
  EXPECT_TRUE(table.awaited(100, 3 * kSecond));
}

TEST(ListenerTable, who_listens_after_all_is_awaited_at_once) {
  ListenerTable table(kRange);
  (void)table.take({}, {100}, kSecond);
  (void)table.take({listener(1, 100)}, {}, kSecond + 1);
  EXPECT_TRUE(table.awaited(100, kSecond + 1));
  (void)table.take({listener(1, 100)}, {100}, kSecond + 2);
  EXPECT_TRUE(table.awaited(100, kSecond + 2));
}

TEST(ListenerTable, a_refused_socket_is_as_nobody_until_it_has_gone) {
  ListenerTable table(kRange);
  (void)table.take({listener(1, 100)}, {}, 0);
  table.refuse(1);
  EXPECT_TRUE(table.awaited(100, 0)) << "another may listen beside it any moment";
  (void)table.take({listener(1, 100)}, {100}, kSecond);
  EXPECT_FALSE(table.awaited(100, kSecond));
  // The number comes again with another socket.
  (void)table.take({}, {}, 4 * kSecond);
  table.refuse(1);  // whoever says so has not heard yet that it has gone
  EXPECT_EQ(table.take({listener(1, 100)}, {}, 4 * kSecond).appeared.size(), 1U);
  (void)table.take({listener(1, 100)}, {100}, 4 * kSecond);
  EXPECT_TRUE(table.awaited(100, 4 * kSecond));
}

// A QEMU that listens on all addresses has a socket for each family, and one migration.
TEST(ListenerTable, with_a_socket_the_others_of_its_port_are_refused) {
  ListenerTable table(kRange);
  (void)table.take({listener(1, 100), listener(2, 100), listener(3, 101)}, {}, 0);
  table.refuse(2);
  (void)table.take({listener(1, 100), listener(2, 100), listener(3, 101)}, {100, 101}, kSecond);
  EXPECT_FALSE(table.awaited(100, kSecond));
  EXPECT_TRUE(table.awaited(101, kSecond));
  // One that begins to listen there afterwards is another destination's.
  (void)table.take({listener(4, 100), listener(3, 101)}, {100}, 2 * kSecond);
  EXPECT_TRUE(table.awaited(100, 2 * kSecond));
}

TEST(ListenerTable, all_ports_of_the_largest_range) {
  ListenerTable table({1, 65535});
  EXPECT_TRUE(table.awaited(65535, 0));
  (void)table.take({}, {65535, 1}, 0);
  EXPECT_FALSE(table.awaited(65535, 0));
  EXPECT_FALSE(table.awaited(0, 0));
}

}  // namespace
}  // namespace migrx
