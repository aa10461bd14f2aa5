#include "tests/dpdk/sender_host.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "tests/dpdk/dpdk_rig.h"

namespace migrx::testing {
namespace {

constexpr const char* kForwardRules = "iptables -w 5 -L FORWARD -v -x -n 2>/dev/null";

bool run(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

bool write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  return file.good();
}

// A thread of its own, because a thread that has changed its namespace must not do anybody else's work.
template <class Work>
void in_namespace(int netns, Work&& work) {
  std::thread thread([&] {
    if (setns(netns, CLONE_NEWNET) == 0) std::forward<Work>(work)();
  });
  thread.join();
}

int make_namespace() {
  int fd = -1;
  std::thread([&fd] {
    if (unshare(CLONE_NEWNET) == 0) fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  }).join();
  return fd;
}

}  // namespace

SenderHost::SenderHost(uint32_t network)
    : far_("mhost" + std::to_string(network)), near_("mway" + std::to_string(network)) {
  const std::string subnet = "10.78." + std::to_string(network) + ".";
  netns_ = make_namespace();
  if (netns_ < 0) {
    problem_ = std::string("no network namespace: ") + std::strerror(errno);
    return;
  }
  const std::string path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(netns_);
  bool good = run_ip("link add " + near_ + " type veth peer name " + far_ + " netns " + path) &&
              run_ip("addr add " + subnet + "1/24 dev " + near_) && run_ip("link set " + near_ + " up") &&
              write_file("/proc/sys/net/ipv4/ip_forward", "1");
  in_namespace(netns_, [&] {
    // What leaves the host is what would go over a wire: one packet per segment.
    disable_offloads(far_);
    good = good && run_ip("link set lo up") && run_ip("addr add " + subnet + "2/24 dev " + far_) &&
           run_ip("link set " + far_ + " up") && run_ip("route add default via " + subnet + "1");
  });
  if (!good) problem_ = "needs ip (iproute2) and the kernel's veth";
}

SenderHost::~SenderHost() {
  static_cast<void>(run("iptables -w 5 -F FORWARD"));
  static_cast<void>(run_ip("link del " + near_));
  if (netns_ >= 0) close(netns_);
}

bool SenderHost::set(const std::string& key, const std::string& value) const {
  bool done = false;
  in_namespace(netns_, [&] { done = write_file("/proc/sys/net/ipv4/" + key, value); });
  return done;
}

bool SenderHost::route_by(const std::string& rule) {
  return run("iptables -w 5 -A FORWARD " + rule);
}

uint64_t SenderHost::packets_met(uint32_t number) const {
  FILE* const pipe = popen(kForwardRules, "r");
  if (pipe == nullptr) return 0;
  char line[512];
  uint64_t met = 0;
  // Two lines of headings come before the first rule.
  for (uint32_t i = 0; std::fgets(line, sizeof line, pipe) != nullptr; ++i)
    if (i == number + 2) std::istringstream(line) >> met;
  pclose(pipe);
  return met;
}

}  // namespace migrx::testing
