#include "loader/tls/handshake_helper.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace migrx {
namespace {

TEST(HandshakeHelper, jobs_run_in_their_order_and_what_waits_at_the_end_is_dropped) {
  std::vector<int> order;
  std::atomic<bool> go{false};
  std::atomic<int> done{0};
  std::thread opener;
  {
    HandshakeHelper helper;
    for (int i = 0; i < 3; ++i)
      helper.post([&, i] {
        order.push_back(i);
        done.fetch_add(1);
      });
    while (done.load() < 3) std::this_thread::yield();
    std::atomic<bool> begun{false};
    helper.post([&] {
      begun = true;
      while (!go) std::this_thread::yield();
    });
    while (!begun) std::this_thread::yield();
    helper.post([&] { order.push_back(99); });
    opener = std::thread([&go] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      go = true;
    });
  }
  opener.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

}  // namespace
}  // namespace migrx
