// An unmodified destination QEMU that waits for a migration on a socket, and whose RAM lies in memory that
// migrx loads. It gets device state and small blocks.
//
//   looking ─listener found─▶ connecting ─its memory is ours─▶ asking ─PONG─▶ passing on ─SHUT 0─▶ accepted
//                                            └─ TLS: handshake ─┘└─ with multifd on there: its channels first
//
// The destination's memory is checked (peer_memory.h) before the first byte, once more before the first byte
// of device state, after which it could run the guest, and when it says that it has the guest: a block that
// it does not map shared would silently be empty. When its PONG has come nobody else may map the files.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "loader/destination/byte_fifo.h"
#include "loader/destination/destination_link.h"
#include "loader/destination/destination_multifd.h"
#include "loader/destination/handoff_form.h"
#include "loader/destination/memory_refill.h"
#include "loader/destination/peer_memory.h"
#include "loader/destination/preempt_link.h"
#include "loader/destination/process_watch.h"
#include "loader/destination/return_relay.h"
#include "loader/destination/socket_address.h"
#include "loader/destination/socket_diag.h"
#include "loader/destination/stream_rewriter.h"
#include "loader/main/return_path.h"
#include "loader/session/destination.h"

namespace migrx {

struct DestinationSettings {
  SocketAddress address;  // of its incoming socket
  // Of a UNIX socket that a user other than root has named: the QEMU must run as that user.
  std::optional<SocketAccess> access;
  HandoffForm form = HandoffForm::plain;
  // x-ignore-shared only: see StreamRewriter.
  std::map<std::string, uint64_t> addresses;
  // Those of the file-backed blocks: the destination must map all of each, shared.
  std::vector<SharedFile> files;
  // The QEMU that listens at the address; nullopt: whichever process listens there.
  std::optional<pid_t> process;
  uint32_t source_channels = 0;  // multifd channels of the source
  // All connections to it are encrypted; nullptr: none. Outlives the destination.
  LinkSecurity* security = nullptr;
  // For a source that may switch to postcopy; nullptr: the memory stays as it is (a test's). Outlives it,
  // too.
  MemoryRefill* refill = nullptr;
  bool memory_postponed = false;  // and none has been taken yet
  // The switch to postcopy: nothing of it has left yet.
  std::function<void()> on_postcopy{};
};

class DestinationQemu final : public Destination {
 public:
  // The destination is connected when the source's first byte has come: a destination accepts one migration
  // only. blocks must outlive it.
  DestinationQemu(DestinationSettings settings, const RamBlockList& blocks);
  ~DestinationQemu() override;
  DestinationQemu(const DestinationQemu&) = delete;
  DestinationQemu& operator=(const DestinationQemu&) = delete;

  [[nodiscard]] MainEvents& events() noexcept override { return rewriter_; }
  uint32_t do_work(uint64_t now_ns) override;
  [[nodiscard]] Verdict verdict() const noexcept override { return verdict_; }
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  [[nodiscard]] bool proved_waiting() const noexcept override { return proved_; }
  void on_multifd_init(std::span<const std::byte, kMultifdInitBytes> packet) override;
  void source_ended() override {}  // the destination knows when it has everything
  void abandon() override;
  // A destination with the capability switchover-ack sends it at once when none of its devices has to agree,
  // later otherwise.
  [[nodiscard]] std::optional<uint32_t> switchover_acks() const noexcept override { return switchover_acks_; }
  // Only while do_work() would read from it: otherwise the thread that polls it would be woken
  // again and again.
  [[nodiscard]] int wake_fd() const noexcept override {
    const bool reads = link_.reads() && said_.size() - said_taken_ < kSaidBytesMax;
    return connected_ && reads && verdict_ == Verdict::pending && !abandoned_ ? link_.fd() : -1;
  }
  [[nodiscard]] uint64_t last_sent_ns() const noexcept override { return last_sent_ns_; }
  [[nodiscard]] Bytes said() const noexcept override { return Bytes{said_}.subspan(said_taken_); }
  void took_said(std::size_t bytes) override;
  void pause() override;
  void resume() override;
  [[nodiscard]] bool lost() const noexcept override { return process_.ended(); }
  [[nodiscard]] PostcopyNumbers postcopy() const noexcept override;
  [[nodiscard]] UrgentPages* urgent_pages() noexcept override { return &preempt_; }
  [[nodiscard]] const std::string& warning() const noexcept override { return warning_; }

 private:
  // For a destination that is started at the same time.
  static constexpr uint64_t kConnectNs = 10'000'000'000;
  // With one channel, or a relay in between, multifd shows in this: no answer comes and the listener stays.
  static constexpr uint64_t kMultifdPatienceNs = 300'000'000;
  static constexpr uint64_t kLookNs = 1'000'000;
  // Sent per turn at most, so that the control thread comes round even while the source never stops.
  static constexpr std::size_t kSendBytesMax = 4 << 20;
  static constexpr std::size_t kSealBytesMax = 256 << 10;  // the same where each byte is encrypted first
  // As long as so much waits for the source, nothing more is read.
  static constexpr std::size_t kSaidBytesMax = 256 << 10;
  // What a listener of QEMU with postcopy-preempt and without multifd has as its backlog (RAM_CHANNEL_MAX).
  static constexpr uint32_t kPreemptBacklog = 2;
  // For the answer after that connection was made: then a QEMU with postcopy-preempt has all that it waits
  // for.
  static constexpr uint64_t kPreemptPatienceNs = 3'000'000'000;

  bool look_around();
  bool connect(uint64_t now_ns);
  [[nodiscard]] int fd() const noexcept { return socket_ ? socket_.get() : link_.fd(); }
  [[nodiscard]] bool prove_user();
  [[nodiscard]] bool prove_memory();
  [[nodiscard]] bool prove_alone();
  void decide_multifd(uint64_t now_ns);
  [[nodiscard]] SocketAddress reachable_address() const;
  [[nodiscard]] FurtherAddress further_address() const;
  void read_messages(Bytes bytes);
  [[nodiscard]] bool still_listens() const;
  void take_advice();
  void begin_refill(bool emptied);
  void look_at_refill(uint64_t now_ns);
  uint32_t serve_preempt(uint64_t now_ns);
  uint32_t relay(Bytes bytes);
  uint32_t serve_multifd(uint64_t now_ns);
  uint32_t send_some(uint64_t now_ns);
  uint32_t receive_some();
  void take(const ReturnPathMessage& message);
  void disconnect();
  // Its connection has ended; eof: what it is called when the destination closed it in an orderly way.
  void refuse_end(const char* eof);
  void refuse(const char* what, int error);
  void refuse_because(ErrorClass error_class, const std::string& why);
  // The UNIX socket as seen from here, when its process has other mounts.
  [[nodiscard]] std::string visible_path() const;

  DestinationSettings settings_;
  ByteFifo fifo_{4 << 20};
  StreamRewriter rewriter_;
  std::array<std::byte, 512> inbox_{};  // what reader_ was fed last
  ReturnPathReader reader_;
  Descriptor namespace_;  // of the destination's network, where it is another one than ours
  Descriptor socket_;     // until it is connected
  DestinationLink link_;
  ProcessWatch process_;
  bool looked_ = false;
  std::optional<ListenSocket> listener_;
  bool listener_is_its_own_ = false;  // the process holds that very socket: its backlog means what QEMU means
  bool connected_ = false;
  bool abandoned_ = false;  // never connects again: a second destination would get the rest of a stream
  bool proved_ = false;
  bool memory_proved_again_ = false;
  bool multifd_decided_ = false;
  bool multifd_guessed_ = false;  // by its silence, which may only be slowness
  std::vector<MultifdInitPacket> inits_;
  DestinationMultifd multifd_;
  PreemptLink preempt_;
  bool advice_taken_ = false;  // the destination has answered kAdvisePing
  bool refilling_ = false;
  bool memory_there_ = false;  // what refilling_ began is done
  uint64_t refilled_ = 0;      // bytes, when that was looked at last
  bool in_postcopy_ = false;   // settings_.on_postcopy was called
  bool paused_ = false;
  uint64_t pauses_ = 0;
  bool preempts_ = false;  // the destination had a connection of postcopy-preempt
  ReturnRelay return_relay_;
  std::vector<std::byte> said_;
  std::size_t said_taken_ = 0;
  uint64_t connect_since_ns_ = 0;
  uint64_t connected_ns_ = 0;
  uint64_t looked_ns_ = 0;
  uint64_t sent_ = 0;
  uint64_t last_sent_ns_ = 0;
  uint32_t switchover_acks_ = 0;
  Verdict verdict_ = Verdict::pending;
  StreamError error_;
  std::string warning_;
};

}  // namespace migrx
