// Makes sure, before the source may connect, that the links are up and that no other host has
// the ports' addresses.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>

#include "loader/app/network.h"

namespace migrx {

class SignalWatch;
class Terminal;

struct AddressClaimOptions {
  static constexpr double kLinkTimeout_s = 60;
  // Seconds; 0: links are not waited for. Not given: kLinkTimeout_s, and no link that comes with its peer
  // (link_comes_with_peer()) is waited for.
  std::optional<double> link_timeout_s;
  bool probe = true;  // RFC 5227, RFC 4862: false when the addresses are ours already
};

// Works on a thread of its own from its construction on, so that the caller can do other things meanwhile. It
// is the only user of the ports' queues until finish() has returned: poll cores start afterwards.
class AddressClaim {
 public:
  // The network outlives it and has been started.
  AddressClaim(Network& network, const AddressClaimOptions& options);
  ~AddressClaim();  // gives up
  AddressClaim(const AddressClaim&) = delete;
  AddressClaim& operator=(const AddressClaim&) = delete;

  // Waits until the claim has ended. Throws SetupError: a link stayed down, another host has an address, or a
  // signal came.
  void finish(const SignalWatch& signals, Terminal& terminal);

 private:
  void run();
  [[nodiscard]] bool wait_for_links();
  [[nodiscard]] std::string link_missing() const;
  void probe();

  Network& network_;
  const AddressClaimOptions options_;
  const double link_timeout_s_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> over_{false};
  std::string problem_;  // written before over_
  std::thread thread_;
};

// The interface on which this host's kernel has that address, or nothing. Such a kernel would answer for the
// address and reset connections that it does not know.
[[nodiscard]] std::string kernel_interface_with(const IpAddress& address);

}  // namespace migrx
