// A tenant of the listener: a local port that somebody listens on, who may connect to it, and how many places
// its connections may take. One migration is one tenant.
//
//   made ──▶ listening ──close──▶ closed ──its last connection is free again──▶ gone
//
// Each poll core goes through these states by itself, between two bursts, when the control thread has asked
// for it (PollCore::request). A tenant that is closed keeps its places until its connections have ended:
// their packet buffers are theirs so long.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/handoff/spsc_ring.h"
#include "dataplane/tcp/config.h"
#include "dataplane/wire/address.h"

namespace migrx {

struct TenantConfig {
  uint16_t port = 4444;
  // Who may connect; empty: everybody. A stranger's SYN is answered with RST.
  std::vector<IpNetwork> allow{};
  // Connections that it may have on one poll core, those whose buffers are still in use included. Places are
  // few, because packet buffers are reserved for each.
  uint32_t places_max = UINT32_MAX;
  // While more places than that are free, a connection takes its place with fewer first bytes than
  // ListenerConfig::first_bytes_min, or with bytes behind a hole: a first segment that was lost or cut costs
  // an honest peer no retransmission time-out then.
  uint32_t places_reserved = 0;
  // How long a peer whose handshake is done may be silent before it is forgotten.
  uint64_t first_bytes_ns = 30 * kNsPerSecond;
  // The protocol's server speaks first (NBD): a connection is opened by the last segment of its handshake,
  // whatever ListenerConfig::first_bytes_min says, and takes its place then.
  bool server_speaks_first = false;
};

class Tenant;

// What the control thread asks of a poll core.
struct TenantChange {
  // keep_silent: from now on a peer whose handshake is done may be silent for as long as it likes.
  enum class Kind : uint8_t { open, close, keep_silent } kind = Kind::open;
  Tenant* tenant = nullptr;
};

// Made by the control thread. It may be destroyed when it is gone at every poll core: all(State::gone).
class Tenant {
 public:
  enum class State : uint8_t { made, listening, closed, gone };

  // id: no other tenant of the process has had it. cores: poll cores that may listen for it.
  explicit Tenant(TenantConfig config, uint32_t cores = 1, uint32_t id = 0)
      : config_(std::move(config)),
        patient_(patient(config_)),
        id_(id),
        cores_(cores),
        at_(std::make_unique<AtCore[]>(cores)) {}

  [[nodiscard]] const TenantConfig& config() const noexcept { return config_; }
  [[nodiscard]] uint32_t id() const noexcept { return id_; }
  [[nodiscard]] uint32_t cores() const noexcept { return cores_; }

  // ---- Any thread
  [[nodiscard]] State state(uint32_t core) const noexcept {
    return at_[core].state.load(std::memory_order_acquire);  // pairs with set_state()
  }
  // Places that its connections have on a core.
  [[nodiscard]] uint32_t places(uint32_t core) const noexcept {
    return at_[core].places.load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool all(State state) const noexcept {
    for (uint32_t core = 0; core < cores_; ++core)
      if (this->state(core) != state) return false;
    return true;
  }

  // ---- A poll core, each its own
  // config(), or as TenantChange::keep_silent has it.
  [[nodiscard]] const TenantConfig& config_at(uint32_t core) const noexcept {
    return at_[core].keeps_silent ? patient_ : config_;
  }
  void keep_silent(uint32_t core) noexcept { at_[core].keeps_silent = true; }
  void set_state(uint32_t core, State state) noexcept {
    at_[core].state.store(state, std::memory_order_release);
  }
  void take_place(uint32_t core) noexcept {
    at_[core].places.store(places(core) + 1, std::memory_order_relaxed);
  }
  void give_place(uint32_t core) noexcept {
    at_[core].places.store(places(core) - 1, std::memory_order_relaxed);
  }
  [[nodiscard]] uint32_t places_free(uint32_t core) const noexcept {
    return places(core) < config_.places_max ? config_.places_max - places(core) : 0;
  }

  // ---- Silent peers: the control thread asks, poll cores answer (dataplane/tenants.h)
  struct Silence {
    std::atomic<uint32_t> answered{0};            // the last of the questions that was answered
    std::atomic<uint64_t> oldest_ns{UINT64_MAX};  // TcpListener::silent_since_ns()
  };
  [[nodiscard]] std::atomic<uint32_t>& silence_asked() noexcept { return silence_asked_; }
  [[nodiscard]] const std::atomic<uint32_t>& silence_asked() const noexcept { return silence_asked_; }
  [[nodiscard]] Silence& silence(uint32_t core) noexcept { return at_[core].silence; }
  [[nodiscard]] const Silence& silence(uint32_t core) const noexcept { return at_[core].silence; }

 private:
  struct alignas(kCacheLineBytes) AtCore {
    std::atomic<State> state{State::made};
    std::atomic<uint32_t> places{0};
    Silence silence;
    bool keeps_silent = false;
  };
  static TenantConfig patient(TenantConfig config) {
    config.first_bytes_ns = kPatienceNs;
    return config;
  }
  // Years, and far from where a sum of times would wrap.
  static constexpr uint64_t kPatienceNs = uint64_t{1} << 58;
  const TenantConfig config_;
  const TenantConfig patient_;
  const uint32_t id_;
  const uint32_t cores_;
  std::atomic<uint32_t> silence_asked_{0};  // times
  const std::unique_ptr<AtCore[]> at_;
};

}  // namespace migrx
