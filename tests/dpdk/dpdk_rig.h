// What the tests of dataplane/dpdk share: one EAL, a network namespace of their own, and a receiver that
// checks every byte a kernel socket sends it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dataplane/agent_thread.h"
#include "dataplane/dpdk/dpdk_port.h"
#include "dataplane/dpdk/eal.h"
#include "dataplane/poll_core.h"
#include "dataplane/tenants.h"

namespace migrx::testing {

// Empty: this process may make devices, in a namespace nobody else sees. Else the reason to skip.
[[nodiscard]] const std::string& why_no_devices();
// Brings an interface of the namespace up with an address of 10.77.N.1/24 or, ipv6, fd00:77:N::1/64 beside
// it. Empty: done.
[[nodiscard]] std::string bring_up(const std::string& interface, uint32_t network, bool ipv6 = false);
// The kernel has IPv6, and `ip` is there to set it.
[[nodiscard]] bool kernel_has_ipv6();
// Checksum and segmentation offloads off: a packet socket gets to see what would go over a wire.
void disable_offloads(const std::string& interface);
void set_mtu(const std::string& interface, uint32_t mtu);
// `ip ...`; false: no such program, or it failed.
[[nodiscard]] bool run_ip(const std::string& arguments);

// The byte at `offset` of what sender `flow` sends, as a long run to compare with.
class Pattern {
 public:
  explicit Pattern(uint32_t flow);
  // At least 64 KiB - 1 bytes lie behind it.
  [[nodiscard]] const std::byte* at(uint64_t offset) const { return bytes_.data() + offset % kPeriod; }
  static constexpr uint64_t kPeriod = 1'048'573;  // a prime: no size of segment, page or buffer divides it

 private:
  std::vector<std::byte> bytes_;
};

struct ReceiverOptions {
  std::string devargs;
  uint32_t network = 0;  // our address is 10.77.N.2, and no other,
  bool ipv6 = false;     // or fd00:77:N::2, and no other
  uint32_t mtu = 1500;
  uint32_t cores = 1;
  uint32_t flows_max = 4;
  uint32_t handoff_slots = 1023;
  uint32_t buffer_bytes = 0;  // 0: what buffer_bytes_for() says
  IdleStrategy idle = IdleStrategy::yield;
  // The loader stands still for `pause` behind each `pause_each` bytes, as a channel at a barrier does.
  std::chrono::milliseconds pause{0};
  uint64_t pause_each = 1U << 20;
};

// Where the sockets of a transfer are made, and what they are told.
struct SenderOptions {
  int netns = -1;          // descriptor of a network namespace; -1: this process's
  std::string congestion;  // TCP_CONGESTION; empty: the namespace's
  // Sizes of its writes, over and over, each sent at once (TCP_NODELAY); empty: as large as can be.
  std::vector<std::size_t> writes;
};
// What the kernel says of a sending socket at its end (TCP_INFO).
struct SenderInfo {
  uint8_t options = 0;  // TCPI_OPT_*: what both sides agreed to
  uint32_t mss = 0;     // of what it sends, options not included
  uint32_t sent_again = 0;
};

// Poll cores and a loader that only compares, all in one thread.
class Receiver {
 public:
  explicit Receiver(const ReceiverOptions& options);
  ~Receiver();

  // Sends `bytes` on each of `flows` connections at the same time, from kernel sockets, and returns when all
  // of them have arrived. Each flow gives its number in its first 8 bytes.
  std::vector<SenderInfo> receive(uint32_t flows, uint64_t bytes, const SenderOptions& sender = {});
  // connect() to `port`: errno, 0 when it succeeds.
  [[nodiscard]] int connect_error(uint16_t port) const;
  [[nodiscard]] DpdkPort& port() { return *port_; }
  [[nodiscard]] PollCore& core(uint32_t i) { return *cores_[i]; }
  [[nodiscard]] uint64_t count(PollCounter which) const;
  [[nodiscard]] AgentThread& thread() { return *thread_; }
  void stop();
  // After stop(): buffers that did not come home, those in the device's own queues not counted.
  [[nodiscard]] uint32_t buffers_missing() const;

 private:
  class Loader;
  [[nodiscard]] int connect_socket(uint16_t port, int& error, const std::string& congestion) const;
  const ReceiverOptions options_;
  std::vector<std::unique_ptr<BufferPool>> pools_;
  std::vector<std::unique_ptr<BufferPool>> tx_pools_;
  std::unique_ptr<DpdkPort> port_;
  std::unique_ptr<PollMesh> mesh_;
  std::vector<std::unique_ptr<PollCore>> cores_;
  Tenants tenants_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<AgentThread> thread_;
};

}  // namespace migrx::testing
