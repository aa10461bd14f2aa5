// Needs nothing: EAL with ordinary memory and devices that live in the process.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/dpdk/dpdk_rig.h"

namespace migrx {
namespace {

bool has(const std::vector<std::string>& arguments, std::string_view wanted) {
  return std::find(arguments.begin(), arguments.end(), wanted) != arguments.end();
}

TEST(EalArguments, pci_is_left_alone_unless_a_port_is_there) {
  EalOptions options;
  options.memory = EalMemory::ordinary;
  options.port_devargs = {"net_tap0,iface=x"};
  EXPECT_TRUE(has(eal_arguments(options), "--no-pci"));
  EXPECT_TRUE(has(eal_arguments(options), "--no-huge"));
  EXPECT_TRUE(has(eal_arguments(options), "--no-shconf"));
  EXPECT_TRUE(has(eal_arguments(options), "--no-telemetry"));
  options.port_devargs = {"0000:3b:00.0,x=1", "pci:3c:00.1"};
  options.memory = EalMemory::hugepages;
  options.telemetry = true;
  options.extra_args = " --iova-mode=va  -v ";
  const std::vector<std::string> arguments = eal_arguments(options);
  EXPECT_FALSE(has(arguments, "--no-pci"));
  EXPECT_FALSE(has(arguments, "--no-huge"));
  EXPECT_TRUE(has(arguments, "--in-memory"));
  EXPECT_FALSE(has(arguments, "--no-telemetry"));
  EXPECT_TRUE(has(arguments, "0000:3b:00.0,x=1"));
  EXPECT_TRUE(has(arguments, "3c:00.1"));
  EXPECT_TRUE(has(arguments, "--iova-mode=va"));
  EXPECT_EQ(arguments.back(), "-v");
}

TEST(EalArguments, a_pci_port_does_without_hugepages_only_when_told_to) {
  EalOptions options;
  options.port_devargs = {"net_tap0", "0000:3b:00.0"};
  options.memory_bytes = uint64_t{1} << 50;
  try {
    static_cast<void>(eal_arguments(options));
    FAIL() << "no error";
  } catch (const DpdkError& error) {
    EXPECT_NE(std::string(error.what()).find("hugepages"), std::string::npos) << error.what();
  }
  options.extra_args = "--no-huge";
  EXPECT_TRUE(has(eal_arguments(options), "--no-huge"));
  options.extra_args.clear();
  options.port_devargs = {"net_tap0"};
  EXPECT_TRUE(has(eal_arguments(options), "--no-huge"));
}

TEST(EalArguments, hugepages_are_used_where_they_are_free_for_us) {
  EalOptions options;
  options.port_devargs = {"net_tap0"};
  options.memory_bytes = 100 << 20;
  options.hugepage_bytes = 200 << 20;
  EXPECT_FALSE(has(eal_arguments(options), "--no-huge"));
  options.hugepage_bytes = 120 << 20;  // EAL itself needs some, too
  EXPECT_TRUE(has(eal_arguments(options), "--no-huge"));
}

TEST(Devargs, pci_addresses_are_told_from_virtual_devices) {
  for (const char* pci : {"0000:3b:00.0", "3b:00.0", "3b:00.0,rx=2", "pci:0000:3b:00.0"})
    EXPECT_TRUE(is_pci_devargs(pci)) << pci;
  for (const char* other : {"net_tap0", "net_tap0,iface=a:b.c", "net_memif0,socket=/run/m.sock", ""})
    EXPECT_FALSE(is_pci_devargs(other)) << other;
}

TEST(Devargs, af_packet_gets_a_ring_that_fits_unless_it_has_one) {
  EXPECT_EQ(complete_devargs("net_tap0,iface=x", 9000, 2), "net_tap0,iface=x");
  EXPECT_EQ(complete_devargs("net_af_packet0,iface=v", 1500, 1),
            "net_af_packet0,iface=v,qdisc_bypass=1,framesz=2048,blocksz=65536,framecnt=8192");
  EXPECT_EQ(complete_devargs("net_af_packet0,iface=v,framesz=4096,qdisc_bypass=0", 9000, 3),
            "net_af_packet0,iface=v,framesz=4096,qdisc_bypass=0,qpairs=3");
  EXPECT_EQ(buffer_bytes_for("net_af_packet0,iface=v", 9000), 16384U);
  EXPECT_EQ(buffer_bytes_for("net_af_packet0,iface=v,framesz=32768", 9000), 32768U);
  EXPECT_EQ(buffer_bytes_for("net_tap0", 9000), 9216U);
}

TEST(DeviceHint, names_the_interface_that_is_in_the_way_or_missing) {
  const auto says = [](const std::string& devargs, bool exists, const char* word) {
    return device_hint(devargs, exists).find(word) != std::string::npos;
  };
  EXPECT_TRUE(says("net_tap0,iface=mig0", true, "ip link del mig0"));
  EXPECT_TRUE(says("net_tap0,iface=mig0", false, "allowed to"));
  EXPECT_TRUE(says("net_af_packet0,iface=eth7", false, "no interface eth7"));
  EXPECT_TRUE(says("net_af_packet0,iface=eth7", true, "allowed to"));
  EXPECT_TRUE(says("net_memif0,role=server", false, "allowed to"));
}

TEST(DeviceHint, a_pci_function_is_missing_unbound_or_the_kernels) {
  const auto says = [](const std::optional<std::string>& driver, const char* word) {
    return pci_hint("0000:3b:00.0,tx_db_nc=1", driver).find(word) != std::string::npos;
  };
  EXPECT_TRUE(says(std::nullopt, "no PCI function 0000:3b:00.0: lspci"));
  EXPECT_TRUE(says("", "dpdk-devbind.py -b vfio-pci 0000:3b:00.0"));
  EXPECT_TRUE(says("ixgbe", "kernel's driver ixgbe"));
  EXPECT_TRUE(says("ixgbe", "dpdk-devbind.py -b vfio-pci 0000:3b:00.0"));
  EXPECT_TRUE(says("vfio-pci", "IOMMU"));
  EXPECT_FALSE(says("mlx5_core", "devbind"));
}

TEST(Devargs, a_misspelt_argument_is_named_with_those_there_are) {
  EXPECT_EQ(check_devargs("net_tap0,iface=mig0"), "");
  EXPECT_EQ(check_devargs("net_tap0"), "");
  EXPECT_EQ(check_devargs("net_memif0,role=server,id=0,socket=/run/x.sock,socket-abstract=no"), "");
  EXPECT_EQ(check_devargs("net_af_packet0,iface=v,framesz=4096,qdisc_bypass=0"), "");
  EXPECT_EQ(check_devargs("net_af_xdp0,iface=v"), "");
  EXPECT_EQ(check_devargs("0000:41:00.0,ifac=x"), "");
  EXPECT_EQ(check_devargs("net_something0,ifac=x"), "");
  EXPECT_EQ(check_devargs("net_tap0,ifac=x"),
            "argument 'ifac' is not one of net_tap's: iface remote mac persist");
  EXPECT_EQ(check_devargs("net_tap0,iface"), "argument iface needs a value: iface=VALUE");
  EXPECT_EQ(check_devargs("net_tap0,iface="), "argument iface needs a value: iface=VALUE");
  EXPECT_EQ(check_devargs("net_tap0,iface=a,iface=b"), "argument iface is given twice");
  EXPECT_NE(check_devargs("net_tap0,"), "");
  EXPECT_NE(check_devargs("net_tap0,,iface=a"), "");
  EXPECT_NE(check_devargs("net_tap0,iface remote=a"), "");  // no name is two words
}

TEST(Mss, follows_the_mtu_within_what_16_bits_hold) {
  EXPECT_EQ(mss_for_mtu(1500), 1460);
  EXPECT_EQ(mss_for_mtu(9000), 8960);
  EXPECT_EQ(mss_for_mtu(65535), 65495);
  EXPECT_EQ(mss_for_mtu(70000), 65495);
  EXPECT_EQ(mss_for_mtu(100), 536);
}

class LoopedQueue : public ::testing::Test {
 protected:
  void SetUp() override {
    enter_dpdk_thread();
    DpdkPortOptions options;
    options.devargs = "net_ring0";
    port = std::make_unique<DpdkPort>(options);
    port->set_up_queues({&rx_pool}, {&tx_pool});
    port->start();
    queue = &port->queue(0);
  }
  // A frame that comes back: net_ring hands over the very buffer, which is the tx pool's.
  Frame loop(std::string_view text) {
    TxFrame tx;
    EXPECT_TRUE(queue->tx_alloc(tx));
    std::memcpy(tx.data, text.data(), text.size());
    queue->tx_commit(static_cast<uint32_t>(text.size()));
    EXPECT_EQ(queue->tx_flush(), 1U);
    std::array<Frame, kBurst> frames;
    EXPECT_EQ(queue->rx_burst(frames), 1U);
    return frames[0];
  }
  BufferPool rx_pool{"looped-rx", 511, 256, kAnyNode};
  BufferPool tx_pool{"looped-tx", 255, 2048, kAnyNode};
  std::unique_ptr<DpdkPort> port;
  PortQueue* queue = nullptr;
};

TEST_F(LoopedQueue, short_frames_are_padded_and_buffers_come_home) {
  const Frame frame = loop("shorter than sixty bytes");
  EXPECT_EQ(frame.data_len, 60U);
  EXPECT_EQ(frame.frame_len, 60U);
  EXPECT_EQ(frame.nb_segs, 1);
  EXPECT_EQ(std::memcmp(frame.data, "shorter than sixty bytes\0\0\0", 27), 0);
  EXPECT_EQ(frame.l4_checksum, ChecksumState::unknown);
  EXPECT_EQ(tx_pool.available(), tx_pool.buffers() - 1);
  std::array<void*, 1> buffers{frame.buffer};
  queue->free_bulk(buffers);
  EXPECT_EQ(tx_pool.available(), tx_pool.buffers());
  // Committed with no length: given back unsent.
  TxFrame tx;
  ASSERT_TRUE(queue->tx_alloc(tx));
  queue->tx_commit(0);
  EXPECT_EQ(queue->tx_flush(), 0U);
  EXPECT_EQ(tx_pool.available(), tx_pool.buffers());
}

// Adopted into smaller buffers: a chain, whose parts are then freed one by one.
TEST_F(LoopedQueue, an_adopted_frame_lives_in_this_cores_pool) {
  std::string text(1000, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 7);
  const Frame foreign = loop(text);
  Frame own;
  ASSERT_TRUE(queue->adopt(foreign, own));
  EXPECT_EQ(tx_pool.available(), tx_pool.buffers());
  EXPECT_EQ(own.nb_segs, 4);
  EXPECT_EQ(own.frame_len, 1000U);
  EXPECT_EQ(rx_pool.available(), rx_pool.buffers() - 4);
  std::array<Slice, 3> few;
  EXPECT_EQ(queue->unchain(own, few), 0U);
  std::array<Slice, kFrameSegmentsMax> slices;
  ASSERT_EQ(queue->unchain(own, slices), 4U);
  std::string copy;
  for (uint32_t i = 0; i < 4; ++i) {
    copy.append(reinterpret_cast<const char*>(slices[i].data), slices[i].length);
    std::array<void*, 1> buffer{slices[i].buffer};
    queue->free_bulk(buffer);
    EXPECT_EQ(rx_pool.available(), rx_pool.buffers() - 3 + i);
  }
  EXPECT_EQ(copy, text);
}

TEST(DpdkPort, what_does_not_exist_is_refused_with_the_devargs_in_the_message) {
  enter_dpdk_thread();
  BufferPool pool("refused", 255, 2048, kAnyNode);
  const auto message_of = [&pool](const std::string& devargs, uint32_t queues, uint32_t mtu,
                                  std::size_t pools = 1) {
    DpdkPortOptions options;
    options.devargs = devargs;
    options.mtu = mtu;
    options.queues = queues;
    try {
      DpdkPort port(options);
      port.set_up_queues(std::vector<BufferPool*>(pools, &pool), std::vector<BufferPool*>(pools, &pool));
    } catch (const DpdkError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(message_of("net_nonsense0", 1, 1500).find("net_nonsense0"), std::string::npos);
  EXPECT_NE(message_of("net_ring7", 100, 1500).find("give fewer"), std::string::npos);
  EXPECT_NE(message_of("net_null7", 1, 9000).find("too few for MTU 9000"), std::string::npos);
  EXPECT_NE(message_of("net_null7", 1, 1500, 2).find("one rx and one tx pool"), std::string::npos);
}

TEST(DpdkPort, a_port_that_is_gone_can_be_made_again) {
  enter_dpdk_thread();
  BufferPool pool("again", 1023, 2048, kAnyNode);
  for (uint32_t round = 0; round < 3; ++round) {
    DpdkPortOptions options;
    options.devargs = "net_null3";
    options.queues = 2;
    DpdkPort port(options);
    port.set_up_queues({&pool, &pool}, {&pool, &pool});
    port.start();
    EXPECT_EQ(port.queues(), 2U);
    EXPECT_EQ(port.driver(), "net_null");
    EXPECT_EQ(port.node(), kAnyNode);
    std::array<Frame, kBurst> frames;
    const uint32_t count = port.queue(1).rx_burst(frames);
    EXPECT_EQ(count, kBurst);
    std::vector<void*> buffers;
    for (uint32_t i = 0; i < count; ++i) buffers.push_back(frames[i].buffer);
    port.queue(1).free_bulk(buffers);
    EXPECT_EQ(port.stats().rx_packets, kBurst);
    EXPECT_FALSE(port.xstats().empty());
  }
  EXPECT_EQ(pool.available(), pool.buffers());
}

TEST(DpdkPort, after_its_stop_a_port_tells_what_was_so_before) {
  enter_dpdk_thread();
  BufferPool pool("stopped", 1023, 2048, kAnyNode);
  DpdkPortOptions options;
  options.devargs = "net_null4";
  DpdkPort port(options);
  port.set_up_queues({&pool}, {&pool});
  port.start();
  std::array<Frame, kBurst> frames;
  ASSERT_EQ(port.queue(0).rx_burst(frames), kBurst);
  for (const Frame& frame : frames) port.queue(0).free_bulk(std::array<void*, 1>{frame.buffer});
  const std::string link = port.link();
  EXPECT_TRUE(link.starts_with("up")) << link;
  port.stop();
  EXPECT_FALSE(port.link_up());  // the device's own word, which its stop changes
  EXPECT_EQ(port.link(), link);
  EXPECT_EQ(port.stats().rx_packets, kBurst);
  port.start();
  EXPECT_TRUE(port.link_up());
}

TEST(BufferPool, that_is_left_to_eal_is_not_given_back_to_it) {
  // One that is given back leaves its name to the next; nobody asks for this one again.
  { BufferPool("returned", 255, 2048, kAnyNode); }
  { const BufferPool again("returned", 255, 2048, kAnyNode); }
  { BufferPool("left", 255, 2048, kAnyNode).leave_to_eal(); }
  EXPECT_THROW(BufferPool("left", 255, 2048, kAnyNode), DpdkError);
}

TEST(BufferPool, one_that_does_not_fit_says_how_much_it_wanted) {
  try {
    BufferPool pool("huge", 4'000'000, 16384, kAnyNode);
    FAIL() << "64 GB of ordinary memory?";
  } catch (const DpdkError& error) {
    EXPECT_NE(std::string(error.what()).find("MiB"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("--pool-mbufs"), std::string::npos);
  }
}

}  // namespace
}  // namespace migrx
