// A sending host of its own behind a router: what the kernel does as a sender can be set without touching
// anybody else, and what the router drops is lost as on a real way.
//
//   [SenderHost 10.78.N.2] == veth == [this process's namespace: 10.78.N.1, router, 10.77.N.1] == tap == port
#pragma once

#include <cstdint>
#include <string>

namespace migrx::testing {

class SenderHost {
 public:
  // Precondition: why_no_devices() is empty. problem() says what went wrong.
  explicit SenderHost(uint32_t network);
  ~SenderHost();
  SenderHost(const SenderHost&) = delete;
  SenderHost& operator=(const SenderHost&) = delete;

  [[nodiscard]] const std::string& problem() const { return problem_; }
  // Descriptor of the host's network namespace.
  [[nodiscard]] int netns() const { return netns_; }
  // Writes /proc/sys/net/ipv4/KEY of the host. False: the kernel has no such key, or does not take the value.
  [[nodiscard]] bool set(const std::string& key, const std::string& value) const;
  // `iptables -A FORWARD RULE` at the router. False: no such program or match.
  [[nodiscard]] bool route_by(const std::string& rule);
  // Packets that met the rule given `number`-th, from 0.
  [[nodiscard]] uint64_t packets_met(uint32_t number) const;

 private:
  const std::string far_;   // the host's interface
  const std::string near_;  // the router's
  int netns_ = -1;
  std::string problem_;
};

}  // namespace migrx::testing
