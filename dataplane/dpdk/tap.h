// What net_tap needs besides its driver: no signals, and an MTU above 1500.
#pragma once

#include <cstdint>
#include <string>

namespace migrx {

// net_tap asks the kernel for a real-time signal per arriving packet. As long as the driver has never handled
// such a signal it reads the descriptor at each rx_burst, which is what a poll core wants: 1.8 to 2.5 times
// the throughput. After the first signal it reads only when another one came (drivers/net/tap/rte_eth_tap.c
// of DPDK 22.11, pmd_rx_burst() and tap_trigger_cb()). So no thread may ever handle one, and two functions
// see to it: with only one of them a packet that came while the port was being made would leave the port deaf
// for ever.

// Blocks the real-time signals for the calling thread and the threads that it makes. Call it before the
// process makes its first thread; Eal's constructor calls it for programs with one thread.
void block_tap_signals() noexcept;
// Clears O_ASYNC on the process's tap descriptors, so that no more signals come; returns how many had it.
// Call it between queue set-up and the start of the port.
uint32_t silence_tap_signals() noexcept;

// Sets the kernel's MTU of the interface; the driver itself refuses more than 1500. Empty: done; else the
// reason.
[[nodiscard]] std::string set_interface_mtu(const std::string& interface, uint32_t mtu);

}  // namespace migrx
