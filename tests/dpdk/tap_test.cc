// net_tap's signals, which must never reach the driver.
#include "dataplane/dpdk/tap.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <vector>

#include "tests/dpdk/dpdk_rig.h"

namespace migrx {
namespace {

using testing::Receiver;

// The real-time signals that somebody handles; none but net_tap does.
std::vector<int> handled_signals() {
  std::vector<int> found;
  for (int number = SIGRTMIN; number < SIGRTMAX; ++number) {
    struct sigaction action {};
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_DFL &&
        action.sa_handler != SIG_IGN)
      found.push_back(number);
  }
  return found;
}

// A kernel with IPv6 says something on each interface that comes up, and a packet may come before the port
// has been told to be silent: its signal stands for it.
TEST(TapSignals, a_packet_while_the_port_is_made_does_not_make_the_port_deaf) {
  if (!testing::why_no_devices().empty()) GTEST_SKIP() << testing::why_no_devices();
  Receiver receiver({.devargs = "net_tap13,iface=mtap13", .network = 13});
  ASSERT_EQ(testing::bring_up("mtap13", 13), "");
  const std::vector<int> signals = handled_signals();
  ASSERT_FALSE(signals.empty()) << "this DPDK's net_tap asks for no signal";
  for (const int number : signals) ASSERT_EQ(kill(getpid(), number), 0);
  receiver.receive(2, 4U << 20);
  receiver.stop();
}

}  // namespace
}  // namespace migrx
