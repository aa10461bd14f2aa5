// Reset mode: what a process does that takes the place of one that is gone, or has given up.
//
// It is CLOSED (RFC 9293 section 3.10.7.1) to the connections of that process: each of their segments is
// answered with RST, ARP, neighbour discovery and ping as ever. That frees every source that sends something.
// One that has sent everything and waits for the last word, its guest standing still, sends nothing: each
// connection that the predecessor had is asked with a SYN, which a live peer answers with an ACK of what it
// expects (RFC 9293 section 3.5.1, figure 9; RFC 5961 section 4.2), and that ACK gets the RST it believes. A
// peer without that connection answers with RST itself. The SYN bears an ACK: to the peer they are the same,
// but a stateful firewall before it (Linux's conntrack) drops a bare SYN that comes against its connection's
// direction, and lets this pass as a handshake's.
//
//   lost ─ its segment answered with RST ─▶ told ─ its RST ─▶ gone
//     └──────────────── its RST ──────────────────────────────▲
//
// Several poll cores may share the list: what one hears, all know, and one of them asks.
//
// Sans-IO: segments and time in, probes out. The poll core's thread, but for the constructor and the board.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "dataplane/tcp/config.h"
#include "dataplane/wire/address.h"

namespace migrx {

// A connection of a process that is gone, and how it was reached.
struct LostConnection {
  FourTuple tuple;
  FrameAddress link;   // local_mac: of that process, which need not be ours
  IpAddress next_hop;  // whose MAC to ask for, since a link that was made anew may have new addresses
  friend bool operator==(const LostConnection&, const LostConnection&) = default;
};

// What has been heard of each lost connection. Written by poll cores, read by any thread.
class ResetBoard {
 public:
  explicit ResetBoard(std::size_t peers)
      : size_(peers), peers_(std::make_unique<std::atomic<uint8_t>[]>(peers)) {}
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  // It was answered with RST, or has shown that it is gone.
  [[nodiscard]] bool told(std::size_t i) const noexcept { return read(i) != 0; }
  // It has no such connection any more.
  [[nodiscard]] bool gone(std::size_t i) const noexcept { return (read(i) & kGone) != 0; }
  [[nodiscard]] bool all_gone() const noexcept {
    for (std::size_t i = 0; i < size_; ++i)
      if (!gone(i)) return false;
    return true;
  }

 private:
  friend class ResetMode;
  static constexpr uint8_t kTold = 1;
  static constexpr uint8_t kGone = 2;
  [[nodiscard]] uint8_t read(std::size_t i) const noexcept {
    return peers_[i].load(std::memory_order_acquire);
  }
  void note(std::size_t i, uint8_t what) noexcept { peers_[i].fetch_or(what, std::memory_order_acq_rel); }
  std::size_t size_;
  std::unique_ptr<std::atomic<uint8_t>[]> peers_;
};

struct ResetModeConfig {
  // Over when every lost connection was told and no segment has come for that long: a source that failed may
  // still be closing its other channels, or try again, and be refused at once.
  uint64_t quiet_ns = 3 * kNsPerSecond;
  uint64_t max_ns = 120 * kNsPerSecond;  // over at the latest
  uint64_t probe_ns =
      kNsPerSecond / 2;  // as often as Linux lets one connection answer (tcp_invalid_ratelimit)
  std::vector<LostConnection> lost{};
  // As long as `lost`; null: one of its own.
  std::shared_ptr<ResetBoard> board{};
  bool asks = true;  // sends probes: one core does
  // Everything else is refused, too. false: beside connections that live and a listener that listens.
  bool refuses_all = true;
};

class ResetMode {
 public:
  explicit ResetMode(const ResetModeConfig& config);

  // It begins. Call it before the others.
  void start(uint64_t now_ns) noexcept { since_ns_ = heard_ns_ = due_ns_ = now_ns; }
  // A segment came: a RST, or one that has been answered with RST.
  void on_segment(const FourTuple& tuple, bool rst, uint64_t now_ns) noexcept;
  // By ARP or neighbour discovery somebody says where `ip` is; it came by the port that has `local_ip`.
  void on_neighbour(const IpAddress& local_ip, const IpAddress& ip, EthernetAddress mac) noexcept;

  struct Probe {
    enum class Kind : uint8_t { who_has, syn } kind = Kind::syn;
    const LostConnection* to = nullptr;
  };
  // What is to be sent now; call until there is nothing.
  [[nodiscard]] std::optional<Probe> poll_output(uint64_t now_ns) noexcept;
  [[nodiscard]] bool over(uint64_t now_ns) const noexcept;
  [[nodiscard]] const ResetModeConfig& config() const noexcept { return config_; }
  // The process that is gone answered to that address, and somebody may still use it.
  [[nodiscard]] bool answers_for(const IpAddress& local_ip) const noexcept;
  // One of the lost connections that is not known to be gone.
  [[nodiscard]] bool is_lost(const FourTuple& tuple) const noexcept;

 private:
  struct Peer {
    LostConnection at;
    bool answered =
        false;  // where it is, in this round: one answer counts, or two that disagree would never end
    bool moved = false;  // and that was news: a SYN is due
  };
  [[nodiscard]] bool gone(const Peer& peer) const noexcept {
    return config_.board->gone(static_cast<std::size_t>(&peer - peers_.data()));
  }
  const ResetModeConfig config_;
  std::vector<Peer> peers_;
  uint32_t moved_ = 0;  // peers with a SYN due between rounds
  uint64_t since_ns_ = 0;
  uint64_t heard_ns_ = 0;
  uint64_t due_ns_ = 0;   // of the next round of probes
  std::size_t next_ = 0;  // of peers_, in this round
  IpAddress asked_;       // for its MAC last, in this round
};

}  // namespace migrx
