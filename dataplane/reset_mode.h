// Reset mode: what a process does that takes the place of one that was killed.
//
// It is CLOSED (RFC 9293 section 3.10.7.1): every TCP segment to its address is answered with RST, ARP and
// ping as ever. That frees every source that sends something. One that has sent everything and waits for the
// last word, its guest standing still, sends nothing: each connection that the predecessor had is asked with
// a SYN, which a live peer answers with an ACK of what it expects (RFC 9293 section 3.5.1, figure 9; RFC 5961
// section 4.2), and that ACK gets the RST it believes. A peer without that connection answers with RST
// itself. The SYN bears an ACK: to the peer they are the same, but a stateful firewall before it (Linux's
// conntrack) drops a bare SYN that comes against its connection's direction, and lets this pass as a
// handshake's.
//
//   lost ─ its segment answered with RST ─▶ told ─ its RST ─▶ gone
//     └──────────────── its RST ──────────────────────────────▲
//
// Sans-IO: segments and time in, probes out. The poll core's thread, but for the constructor.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/tcp/config.h"
#include "dataplane/wire/address.h"

namespace migrx {

// A connection of a process that is gone, and how it was reached.
struct LostConnection {
  FourTuple tuple;
  FrameAddress link;     // local_mac: of that process, which need not be ours
  Ipv4Address next_hop;  // whom to ask by ARP, since a link that was made anew may have new addresses
  friend bool operator==(const LostConnection&, const LostConnection&) = default;
};

struct ResetModeConfig {
  // Over when every lost connection was told and no segment has come for that long: a source that failed may
  // still be closing its other channels, or try again, and be refused at once.
  uint64_t quiet_ns = 3 * kNsPerSecond;
  uint64_t max_ns = 120 * kNsPerSecond;  // over at the latest
  uint64_t probe_ns =
      kNsPerSecond / 2;  // as often as Linux lets one connection answer (tcp_invalid_ratelimit)
  std::vector<LostConnection> lost{};
};

class ResetMode {
 public:
  explicit ResetMode(const ResetModeConfig& config);

  // It begins. Call it before the others.
  void start(uint64_t now_ns) noexcept { since_ns_ = heard_ns_ = due_ns_ = now_ns; }
  // A segment came: a RST, or one that has been answered with RST.
  void on_segment(const FourTuple& tuple, bool rst, uint64_t now_ns) noexcept;
  // An ARP packet says where `ip` is; it came by the port whose address is `local_ip`.
  void on_arp(Ipv4Address local_ip, Ipv4Address ip, EthernetAddress mac) noexcept;

  struct Probe {
    enum class Kind : uint8_t { who_has, syn } kind = Kind::syn;
    const LostConnection* to = nullptr;
  };
  // What is to be sent now; call until there is nothing.
  [[nodiscard]] std::optional<Probe> poll_output(uint64_t now_ns) noexcept;
  [[nodiscard]] bool over(uint64_t now_ns) const noexcept;

 private:
  struct Peer {
    LostConnection at;
    bool told = false;
    bool gone = false;
    bool answered = false;  // by ARP, in this round: one answer counts, or two that disagree would never end
    bool moved = false;     // and that was news: a SYN is due
  };
  const ResetModeConfig config_;
  std::vector<Peer> peers_;
  uint32_t untold_;     // peers neither told nor gone
  uint32_t moved_ = 0;  // peers with a SYN due between rounds
  uint64_t since_ns_ = 0;
  uint64_t heard_ns_ = 0;
  uint64_t due_ns_ = 0;   // of the next round of probes
  std::size_t next_ = 0;  // of peers_, in this round
  Ipv4Address asked_;     // by ARP last, in this round
};

}  // namespace migrx
