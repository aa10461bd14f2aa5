// The sending end of a made-up migration on one port queue: address resolution, one TcpSender per stream, and
// the frames. One agent does everything; use a core of its own for speed.
//
//   GuestSource ─bytes by offset─▶ frame ◀─headers─ TcpSender ◀─ ACKs, return path ─ rx_burst
//
// With TLS a SealedStream encrypts each stream of the GuestSource and decrypts each return path.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dataplane/handoff/agent.h"
#include "dataplane/handoff/counter.h"
#include "dataplane/port.h"
#include "dataplane/tcp/sender.h"
#include "loader/generate/guest_source.h"
#include "loader/generate/peer_verdict.h"
#include "loader/generate/sealed_stream.h"

namespace migrx {

struct GeneratorConfig {
  // All three of one family.
  IpAddress local_ip;
  IpAddress remote_ip;
  IpAddress next_hop;  // whose MAC is asked for: remote_ip, or a gateway
  uint16_t remote_port = 4444;
  uint16_t first_local_port = 40'000;  // the main channel's; the others follow
  int32_t vlan = -1;                   // 0..4094: tag to send with
  TcpSenderConfig tcp;
  uint64_t backlog_bytes = 8U << 20;               // per channel, made and not acknowledged
  uint64_t secret = 0;                             // random: initial sequence numbers
  uint64_t answer_timeout_ns = 30 * kNsPerSecond;  // for a peer that says nothing at all
  std::optional<TlsSourceSettings> tls;
};

enum class GeneratorPhase : uint8_t {
  resolving,   // who has next_hop?
  connecting,  // first the main channel, then all others at once, as QEMU does; with TLS, handshakes too
  streaming,
  closing,  // the verdict is known or the peer went away
  over,
};

class Generator final : public Agent {
 public:
  // queue and source are not owned and outlive it. Allocates.
  Generator(const GeneratorConfig& config, PortQueue& queue, GuestSource& source);
  ~Generator() override;

  // ---- The agent's thread
  uint32_t do_work(uint64_t now_ns) noexcept override;
  // Resets what is still open.
  void on_stop() noexcept override;
  [[nodiscard]] const char* name() const noexcept override { return "generator"; }

  // ---- The control thread
  [[nodiscard]] GeneratorPhase phase() const noexcept { return phase_.load(std::memory_order_acquire); }
  void request_cancel() noexcept { cancel_.store(true, std::memory_order_relaxed); }
  // Progress, any thread, at any time.
  [[nodiscard]] uint64_t acknowledged_bytes() const noexcept { return acknowledged_.read(); }

  // ---- Once phase() is over (or the thread has stopped): constant
  // RAM is loaded at the peer: it answered the PING that follows RAM's END.
  [[nodiscard]] bool ram_loaded() const noexcept { return ram_loaded_ns_ != 0; }
  // And it said SHUT 0.
  [[nodiscard]] bool accepted() const noexcept;
  // nullptr: without TLS, or not connected.
  [[nodiscard]] const SealedStream* sealed(uint32_t stream) const noexcept { return sealed_[stream].get(); }
  // Why it ended when it did not end well; empty otherwise.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  // When every channel was connected and bytes began to flow; when RAM was loaded. 0: did not happen.
  [[nodiscard]] uint64_t started_ns() const noexcept { return started_ns_; }
  [[nodiscard]] uint64_t ram_loaded_ns() const noexcept { return ram_loaded_ns_; }
  [[nodiscard]] uint64_t frames_sent() const noexcept { return frames_sent_; }
  [[nodiscard]] uint64_t frames_received() const noexcept { return frames_received_; }
  [[nodiscard]] uint64_t frames_dropped() const noexcept { return frames_dropped_; }
  [[nodiscard]] const TcpSender* sender(uint32_t stream) const noexcept { return senders_[stream].get(); }

 private:
  uint32_t receive(uint64_t now_ns) noexcept;
  void on_frame(const Frame& frame, uint64_t now_ns) noexcept;
  void on_arp(const Frame& frame) noexcept;
  void on_icmp6(const Frame& frame) noexcept;
  // The next hop is at that MAC.
  void learn(const EthernetAddress& mac) noexcept;
  // The tag that our questions bear.
  void tag(FrameAddress& link) const noexcept;
  void ask_next_hop(uint64_t now_ns) noexcept;
  void connect(uint32_t stream, uint64_t now_ns) noexcept;
  void step(uint64_t now_ns) noexcept;
  uint32_t send(uint32_t stream, uint64_t now_ns) noexcept;
  [[nodiscard]] uint64_t prepare(uint32_t stream, uint64_t now_ns) noexcept;
  void end(std::string problem) noexcept;
  void enter(GeneratorPhase phase, uint64_t now_ns) noexcept;

  const GeneratorConfig config_;
  PortQueue& queue_;
  GuestSource& source_;
  std::vector<std::unique_ptr<TcpSender>> senders_;  // by stream; nullptr: not connected yet
  std::vector<std::unique_ptr<SealedStream>> sealed_;
  std::vector<std::byte> text_;  // of the return path, opened
  PeerVerdict verdict_;
  FrameAddress link_;
  bool link_known_ = false;
  uint64_t phase_since_ns_ = 0;
  uint64_t next_question_ns_ = 0;
  uint64_t started_ns_ = 0;
  uint64_t ram_loaded_ns_ = 0;
  uint32_t first_stream_ = 0;  // who is served first this turn
  std::string problem_;
  uint64_t frames_sent_ = 0;
  uint64_t frames_received_ = 0;
  uint64_t frames_dropped_ = 0;
  Counter acknowledged_;
  std::atomic<GeneratorPhase> phase_{GeneratorPhase::resolving};
  std::atomic<bool> cancel_{false};
  std::array<Frame, kBurst> frames_;
  OutSegment out_;
};

}  // namespace migrx
