#include "dataplane/sizing.h"

#include <deque>

#include "dataplane/owner_table.h"
#include "tests/dataplane/poll_core_rig.h"

namespace migrx {
namespace {

using namespace testing;

TEST(DataplaneSizing, buffers_hold_whole_frames_and_the_minimum_grows_with_every_need) {
  EXPECT_EQ(buffer_bytes_for_mtu(576), 2048U);
  EXPECT_EQ(buffer_bytes_for_mtu(1500), 2048U);
  EXPECT_EQ(buffer_bytes_for_mtu(9000), 9216U);
  EXPECT_EQ(buffer_bytes_for_mtu(65521), 16384U);
  EXPECT_EQ(buffers_per_frame(9000, 2048), 5U);
  SizingNeeds needs{.ports = {{512, 256}}, .connections_max = 5, .buffers_per_connection = 100};
  const DataplaneSizing small = size_dataplane(needs);
  EXPECT_GT(small.rx_buffers, 512U + 500U);
  EXPECT_GT(small.tx_buffers, 256U + kTxFramesMax);
  needs.mtu = 9000;
  EXPECT_GE(size_dataplane(needs).rx_buffers, small.rx_buffers + 4 * 512);
  needs.mtu = 1500;
  needs.connections_max = 6;
  EXPECT_EQ(size_dataplane(needs).rx_buffers, small.rx_buffers + 100);
  needs.cores = 3;
  EXPECT_GE(size_dataplane(needs).rx_buffers, small.rx_buffers + 100 + 2 * PollMesh::kRingFrames);
  EXPECT_EQ(size_dataplane(needs).tx_buffers, small.tx_buffers);
  needs.cores = 1;
  // A device that rounds what it was asked for up, and a second one.
  needs.ports = {{1024, 512}, {4096, 4096}};
  EXPECT_EQ(size_dataplane(needs).rx_buffers, small.rx_buffers + 100 + 512 + 4096);
  EXPECT_EQ(size_dataplane(needs).tx_buffers, small.tx_buffers + 256 + 4096 + kTxFramesMax + 1);
}

// A tx queue as many drivers have it: it keeps what it has sent until its ring is nearly full, and looks at
// that only when it is given more to send. One pool serves all queues of the core.
class KeepingQueue final : public MemoryQueue {
 public:
  KeepingQueue(MemoryPool& pool, EthernetAddress mac, uint32_t descriptors, uint32_t& tx_pool)
      : MemoryQueue(pool, mac), descriptors_(descriptors), tx_pool_(tx_pool) {}
  bool tx_alloc(TxFrame& out) noexcept override {
    if (queued_ == kTxFramesMax || tx_pool_ == 0 || !MemoryQueue::tx_alloc(out)) return false;
    --tx_pool_;
    return true;
  }
  void tx_commit(uint32_t length) noexcept override {
    length > 0 ? ++queued_ : ++tx_pool_;
    MemoryQueue::tx_commit(length);
  }
  uint32_t tx_push() noexcept override {
    if (descriptors_ - kept_ < kFreeThreshold) {
      kept_ -= kFreeThreshold;
      tx_pool_ += kFreeThreshold;
    }
    tx_room = descriptors_ - kept_;
    const uint32_t left = MemoryQueue::tx_push();
    kept_ += left;
    queued_ -= left;
    return left;
  }
  uint32_t tx_flush() noexcept override {
    const uint32_t left = tx_push();
    static_cast<void>(MemoryQueue::tx_flush());
    tx_pool_ += std::exchange(queued_, 0);
    return left;
  }

 private:
  static constexpr uint32_t kFreeThreshold = 32;
  const uint32_t descriptors_;
  uint32_t& tx_pool_;
  uint32_t kept_ = 0;
  uint32_t queued_ = 0;
};

// Segments that each of three ports acknowledges, one after the other, of 1500 each.
std::vector<uint32_t> acknowledged(uint32_t tx_buffers) {
  constexpr uint32_t kSegments = 1500;
  uint32_t tx_pool = tx_buffers;
  Rig rig({.ports = 3, .make_queue = [&](MemoryPool& pool, EthernetAddress mac) {
             return std::make_unique<KeepingQueue>(pool, mac, 512, tx_pool);
           }});
  std::vector<uint32_t> result;
  for (uint32_t p = 0; p < 3; ++p) {
    Peer peer(rig, 1000, p);
    peer.header().tuple.remote_ip = address_of(p);
    peer.send(tcp_flag::syn, {}, tcp_option::mss);
    rig.run();
    uint32_t count = 0;
    if (!peer.hears().empty()) {
      peer.send(tcp_flag::ack);
      rig.run();
      Handoff* const handoff = rig.cores[0]->take_accepted();
      for (uint32_t i = 0; i < kSegments && handoff != nullptr; ++i) {
        peer.data("x");
        rig.run(2);
        drain(*handoff);
        if (!peer.hears().empty()) ++count;
      }
    }
    result.push_back(count);
  }
  return result;
}

TEST(DataplaneSizing, three_ports_whose_drivers_keep_what_they_have_sent_never_starve_each_other) {
  const SizingNeeds needs{
      .ports = {{512, 512}, {512, 512}, {512, 512}}, .connections_max = 4, .buffers_per_connection = 63};
  const std::vector<uint32_t> all(3, 1500);
  EXPECT_EQ(acknowledged(size_dataplane(needs).tx_buffers), all);
  // With a pool of 1023, however many ports there are, the third is silent once its share is with the others.
  EXPECT_LT(acknowledged(1023)[2], 1500U);
}

}  // namespace
}  // namespace migrx
