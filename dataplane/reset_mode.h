// Reset mode: a process takes the place of one that has ended or given up, and resets the connections of that
// predecessor.
//
// To those connections the process is CLOSED (RFC 9293 section 3.10.7.1): it answers each of their segments
// with RST. It answers ARP, neighbour discovery and ping as ever. That frees every source that sends
// something. A source that has sent everything sends nothing: it waits for the destination's last word, and
// its guest stands still. So the process probes each peer of the predecessor with a SYN. A live peer answers
// a SYN with an ACK of the number it expects (RFC 9293 section 3.5.1, figure 9; RFC 5961 section 4.2), and
// believes the RST that answers this ACK. A peer without that connection answers with RST itself. The SYN
// bears an ACK: the peer treats both alike, but a stateful firewall before the peer (Linux's conntrack) drops
// a bare SYN that comes against its connection's direction, and takes a SYN with ACK for part of a handshake.
//
//   lost ─ its segment answered with RST ─▶ reset_sent ─ its RST ─▶ closed
//     └──────────────── its RST ────────────────────────────────────▲
//
// Several poll cores may share the list. What one core hears all cores know, and one core sends the probes.
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

// A connection of the predecessor, and how its peer was reached.
struct LostConnection {
  FourTuple tuple;
  FrameAddress link;   // local_mac: of that process, which need not be ours
  IpAddress next_hop;  // whose MAC to ask for, since a link that was made anew may have new addresses
  friend bool operator==(const LostConnection&, const LostConnection&) = default;
};

// What has been heard of each lost connection. Written by poll cores, read by any thread.
class ResetBoard {
 public:
  // In this order, and never back.
  enum class State : uint8_t {
    lost,        // nothing has been heard of the peer
    reset_sent,  // a segment of the peer was answered with RST
    closed,      // the peer sent RST: it has no such connection any more
  };
  explicit ResetBoard(std::size_t peers)
      : size_(peers), states_(std::make_unique<std::atomic<State>[]>(peers)) {}
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] State state(std::size_t i) const noexcept {
    return states_[i].load(std::memory_order_acquire);
  }
  [[nodiscard]] bool all_closed() const noexcept {
    for (std::size_t i = 0; i < size_; ++i)
      if (state(i) != State::closed) return false;
    return true;
  }

 private:
  friend class ResetMode;
  void advance(std::size_t i, State to) noexcept {
    State seen = state(i);
    while (seen < to && !states_[i].compare_exchange_weak(seen, to, std::memory_order_acq_rel)) {
    }
  }
  std::size_t size_;
  std::unique_ptr<std::atomic<State>[]> states_;
};

struct ResetModeConfig {
  // Over when every lost connection was answered with RST and no segment has come for that long: a source
  // that failed may still be closing its other channels, or try again, and be refused at once.
  uint64_t quiet_ns = 3 * kNsPerSecond;
  uint64_t max_ns = 120 * kNsPerSecond;  // over at the latest
  uint64_t probe_ns =
      kNsPerSecond / 2;  // as often as Linux lets one connection answer (tcp_invalid_ratelimit)
  std::vector<LostConnection> lost{};
  // As long as `lost`; null: one of its own.
  std::shared_ptr<ResetBoard> board{};
  bool asks = true;  // this core is the one that sends probes
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
  // Nothing is left to be done: every peer is known to be CLOSED, or max_ns have passed.
  [[nodiscard]] bool spent(uint64_t now_ns) const noexcept {
    return now_ns - since_ns_ >= config_.max_ns || config_.board->all_closed();
  }
  [[nodiscard]] const ResetModeConfig& config() const noexcept { return config_; }
  // The predecessor answered to that address, and a peer may still use it.
  [[nodiscard]] bool answers_for(const IpAddress& local_ip) const noexcept;
  // One of the lost connections whose peer is not known to be CLOSED.
  [[nodiscard]] bool is_lost(const FourTuple& tuple) const noexcept;

 private:
  struct Peer {
    LostConnection at;
    bool answered =
        false;  // where it is, in this round: one answer counts, or two that disagree would never end
    bool moved = false;  // and that was news: a SYN is due
  };
  [[nodiscard]] bool closed(const Peer& peer) const noexcept {
    return config_.board->state(static_cast<std::size_t>(&peer - peers_.data())) == ResetBoard::State::closed;
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
