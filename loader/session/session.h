// One migration: its channels, blocks, barrier and state. A process may hold many.
//
//   listening ─first channel─▶ setup ─block list─▶ precopy ─guest stopped─▶ switchover
//   switchover ─RAM END─▶ device_state ─▶ done
//   setup or precopy ─the source switches─▶ postcopy ─its last page is in place─▶ done
//                       a connection broke ─▶ postcopy-paused ─the source resumes─▶ postcopy
//   with COLO: device_state ─all of it came─▶ colo ─failover─▶ done
//   any ─error, cancelled, time-out─▶ failed
//
// Threads: channels run on worker threads and call in through ChannelDirectory and MainEvents; everything
// under "control thread" belongs to the one thread that also does the system calls. The two meet in atomics
// and one ring.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/handoff/silent_peers.h"
#include "dataplane/handoff/spsc_ring.h"
#include "loader/colo/secondary.h"
#include "loader/main/forwarding_events.h"
#include "loader/main/main_channel.h"
#include "loader/main/main_settings.h"
#include "loader/multifd/multifd_channel.h"
#include "loader/ram/ram_block.h"
#include "loader/session/admission.h"
#include "loader/session/block_table.h"
#include "loader/session/channel.h"
#include "loader/session/channel_security.h"
#include "loader/session/first_error.h"
#include "loader/session/preempt_channel.h"
#include "loader/session/resumed_channel.h"
#include "loader/session/shared_address.h"
#include "loader/session/source_nat.h"
#include "loader/session/urgent_pages.h"
#include "loader/stream/flush_barrier.h"

namespace migrx {

enum class SessionState : uint8_t {
  listening,
  setup,
  precopy,
  switchover,
  device_state,
  postcopy,
  postcopy_paused,
  colo,
  done,
  failed
};
[[nodiscard]] const char* to_string(SessionState state) noexcept;

// Whether a source with the capability switchover-ack waits for a SWITCHOVER_ACK that migrx itself has to
// send, because there is no destination QEMU to send it.
enum class OwedAck : uint32_t {
  none,
  one,
  one_perhaps,  // its machine type does not tell; sent, as older sources need it
};

// What the main channel's worker tells the control thread.
struct SessionEvent {
  enum class Kind : uint8_t { return_path_opened, ping, ram_complete };
  Kind kind = Kind::ping;
  uint32_t value = 0;  // of a PING; of return_path_opened: an OwedAck
};

// Moments in nanoseconds of the clock given; 0: not yet. Written once each by a worker.
struct SessionMoments {
  std::atomic<uint64_t> first_channel{0};
  std::atomic<uint64_t> blocks_known{0};
  std::atomic<uint64_t> first_pass{0};  // the first section of RAM after the list of blocks begins
  std::atomic<uint64_t> switchover{0};
  std::atomic<uint64_t> ram_complete{0};
  std::atomic<uint64_t> postcopy{0};  // the source switched, and all that came before is in memory
  std::atomic<uint64_t> first_tail{0};
  std::atomic<uint64_t> last_tail{0};
};

struct SessionSettings {
  MainSettings main;
  MultifdCompression multifd_compression = MultifdCompression::none;
  // main.uuid: the guest's, where it is known (--uuid, or the destination's). A channel with another uuid is
  // a stranger's; without a known uuid, two guests that come at the same time end each other's migration.
  SourceNat source_nat;  // which addresses are one source's
  // Connections that may be open at a time, strangers included: bounds memory. More of them wait.
  uint32_t connections_max = 64;
  // A clock; called on worker threads, but only at the moments above.
  std::function<uint64_t()> now_ns;
  // By worker index: how its channels reach memory of other nodes. Empty with one node.
  std::vector<const NodeRouter*> routers;
  // With the capability x-colo: it stands between the session and the destination, so it is the session's
  // `outgoing` too. Must outlive the session.
  ColoSecondary* colo = nullptr;
  // With TLS: every connection begins with a handshake, and those that do not are refused. Must
  // outlive the session.
  ChannelSecurity* security = nullptr;
  // Where the source's preempt channel leads; null: it is refused. Must outlive the session.
  UrgentPages* urgent_pages = nullptr;
  // Null: main does not wait for peers that have connected and are silent. Must outlive the session.
  SilentPeers* silent_peers = nullptr;
};

class Session final : public ChannelDirectory, private ForwardingEvents {
 public:
  // `outgoing` gets everything that is not RAM. All references must outlive the session.
  Session(SessionSettings settings, BlockTable& blocks, MainEvents& outgoing, const PageKernels& kernels,
          CompressJobs& compress);
  ~Session() override;

  // ---- Control thread ----
  [[nodiscard]] bool has_room() const noexcept { return channels_.size() < settings_.connections_max; }
  // A new connection; null when there is no room.
  [[nodiscard]] Channel* add_connection(Handoff& connection, uint32_t worker);
  // A stranger that its worker has let go of. Identified channels stay as long as the session.
  void remove_connection(const Channel& channel);
  [[nodiscard]] SessionState state() const noexcept;
  // The first error; valid when state() is failed.
  [[nodiscard]] const StreamError& error() const noexcept { return error_.get(); }
  // Any thread; only the first counts, and none after settle().
  void fail(const StreamError& error) noexcept;
  // All of the guest is here, and the source is about to be told: what its channels bring from here
  // on, a damaged trailer, say, must not leave it without a guest at either side. False: failed
  // before. May be repeated.
  [[nodiscard]] bool settle() noexcept { return error_.shut(); }
  // After settle(): the source went away before it could be told, so the guest is the source's.
  void overturn(const StreamError& error) noexcept { error_.overturn(error); }
  // The first error of a channel after settle(), for a warning; null: none.
  [[nodiscard]] const StreamError* late_error() const noexcept {
    return late_error_.is_set() ? &late_error_.get() : nullptr;
  }
  // Control thread: the IPv4 address, host order, of a peer that began with a TLS handshake where none is
  // wanted, or without one where it is, since the last call.
  [[nodiscard]] std::optional<IpAddress> take_misled_peer() noexcept;
  [[nodiscard]] SilentPeers* silent_peers() const noexcept { return settings_.silent_peers; }
  void heard_all(uint64_t silent_since_ns) { admission_.heard_all(silent_since_ns); }
  // Null without TLS.
  [[nodiscard]] ChannelSecurity* security() const noexcept { return settings_.security; }
  void finish() noexcept { done_.store(true, std::memory_order_release); }
  // Failover: channels let go of their connections, although the session is not over.
  void leave_source() noexcept { left_source_.store(true, std::memory_order_release); }
  // No channel is read any more, reset or not.
  void release_dismissed() noexcept { dismissed_released_.store(true, std::memory_order_release); }
  // Null without the capability x-colo.
  [[nodiscard]] ColoSecondary* colo() const noexcept { return settings_.colo; }
  [[nodiscard]] bool next_event(SessionEvent& event) noexcept { return events_.pop(event); }

  [[nodiscard]] const std::vector<std::unique_ptr<Channel>>& channels() const noexcept { return channels_; }
  // The main channel's connection, once it has been identified.
  [[nodiscard]] Handoff* main_connection() const noexcept {
    return main_connection_.load(std::memory_order_acquire);
  }
  // Rounds that brought pages over multifd, where the source synchronises once per round.
  [[nodiscard]] uint64_t multifd_rounds() const noexcept { return rounds_.count(); }
  // Channels that have said what they are, main included. Main counts while it waits for the others, too.
  [[nodiscard]] uint32_t identified() const noexcept {
    return admission_.multifd_here() + (admission_.main_here() ? 1U : 0U);
  }
  [[nodiscard]] uint32_t multifd_identified() const noexcept { return admission_.multifd_here(); }
  [[nodiscard]] uint32_t channels_expected() const noexcept { return settings_.main.multifd_channels + 1; }
  // The connection of the multifd channel with this id; null while it has not come.
  [[nodiscard]] Handoff* multifd_connection(uint32_t i) const noexcept {
    return multifd_connections_[i].load(std::memory_order_acquire);
  }
  // Only when main_connection() and multifd_connection(i) are not null.
  [[nodiscard]] const MainChannel& main_channel() const noexcept { return *main_; }
  [[nodiscard]] const MultifdChannel& multifd_channel(uint32_t i) const noexcept { return *multifd_[i]; }
  [[nodiscard]] const FlushBarrier& barrier() const noexcept { return barrier_; }
  [[nodiscard]] const SessionMoments& moments() const noexcept { return moments_; }
  // The connection comes from another address than the source's channels; false while the source
  // is not known.
  [[nodiscard]] bool is_stranger(const Handoff& connection) const noexcept {
    return admission_.is_stranger(settings_.source_nat.source_of(connection.peer_address));
  }
  [[nodiscard]] const Admission& admission() const noexcept { return admission_; }
  // Control thread: somebody has connected who may be another source's main, and was not heard yet.
  void set_unheard(bool unheard) noexcept { unheard_.store(unheard, std::memory_order_release); }
  [[nodiscard]] bool unheard() const noexcept { return unheard_.load(std::memory_order_acquire); }
  // Refused channels with Claim::surplus can only be the source's: no other main came from its address. Any
  // thread.
  [[nodiscard]] bool surplus_is_own() const noexcept;
  // A channel with that claim was refused, and was the source's own. Any thread.
  void fail_for_surplus() noexcept;
  // The source has switched to postcopy. What runs from here on is a guest of two halves: nothing but an end
  // of the source's or the destination's own ends the session, and fail() changes nothing. Any thread.
  [[nodiscard]] bool in_postcopy() const noexcept {
    return moments_.postcopy.load(std::memory_order_acquire) != 0;
  }
  // A connection broke, and both QEMUs wait. The next main channel of the source, which begins with
  // RECV_BITMAP, takes the place of the one that broke, whose worker has let go of it. Control thread.
  void pause_postcopy() noexcept { paused_.store(true, std::memory_order_release); }
  void await_resume() noexcept { resumable_.store(true, std::memory_order_release); }
  // Such a channel is here, and main_connection() is its. Control thread.
  [[nodiscard]] bool resumed() const noexcept { return !resumable_.load(std::memory_order_acquire); }
  void go_on_with_postcopy() noexcept { paused_.store(false, std::memory_order_release); }
  // The source resumes, so the connection that it had has broken, whatever is known of that here. Control
  // thread.
  [[nodiscard]] bool take_resume_wanted() noexcept {
    return resume_wanted_.exchange(false, std::memory_order_acq_rel);
  }
  // It may switch at any moment, and its preempt channel may be silent for as long as it likes. Any thread.
  [[nodiscard]] bool postcopy_advised() const noexcept {
    return postcopy_advised_.load(std::memory_order_acquire);
  }
  // Main is here, and others are missing. Any thread.
  [[nodiscard]] bool main_waits() const noexcept { return admission_.main_here() && !admission_.complete(); }
  // The last main channel that was refused came from its address. Any thread.
  [[nodiscard]] bool is_rival(const Handoff& connection) const noexcept;
  // Set with the first configuration section; constant when blocks_known is set.
  [[nodiscard]] const std::string& source_machine() const noexcept { return source_machine_; }
  // Where each channel stands, for a time-out's message: "main at epoch 3, multifd 0 at 4, …".
  [[nodiscard]] std::string standing() const;

  // ---- ChannelDirectory: worker threads ----
  Introduction identify(Bytes greeting, Handoff& connection, uint32_t worker) noexcept override;
  Introduction ask_again(Handoff& connection, uint32_t worker) noexcept override;
  Introduction left(const Handoff& connection, StreamEnd end) noexcept override;
  void channel_failed(const StreamError& error) noexcept override {
    if (settings_.colo != nullptr && settings_.colo->lose_source(error)) return;
    fail(error);
    if (error_.is_shut()) late_error_.set(error);
  }
  [[nodiscard]] bool over() const noexcept override {
    return error_.is_coming() || done_.load(std::memory_order_acquire) ||
           left_source_.load(std::memory_order_acquire);
  }
  void pages_dropped() noexcept override { surplus_used_.store(true, std::memory_order_release); }
  [[nodiscard]] bool holds_dismissed() const noexcept override {
    return !done_.load(std::memory_order_acquire) && !left_source_.load(std::memory_order_acquire) &&
           !dismissed_released_.load(std::memory_order_acquire);
  }

 private:
  // ---- MainEvents: main's worker ----
  [[nodiscard]] bool writable() noexcept override;
  StreamError on_configuration(const Configuration& configuration) override;
  StreamError on_command(MigCommand command, Bytes payload) override;
  StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) override;
  StreamError on_postcopy() override;
  void on_ram_section_begin(SectionType type, uint32_t section_id) noexcept override;
  void on_ram_complete() noexcept override;
  // Pages of a channel of the source's own were dropped.
  [[nodiscard]] bool pages_are_missing() const noexcept;
  [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override;

  [[nodiscard]] OwedAck owed_ack() const noexcept;
  void stamp(std::atomic<uint64_t>& moment) const;
  void tell(const SessionEvent& event) noexcept;
  [[nodiscard]] const NodeRouter* router_of(uint32_t worker) const noexcept {
    return worker < settings_.routers.size() ? settings_.routers[worker] : nullptr;
  }
  // The directory that is asked about the plaintext inside TLS.
  class Inside final : public ChannelDirectory {
   public:
    explicit Inside(Session& session) noexcept : session_(session) {}
    Introduction identify(Bytes greeting, Handoff& connection, uint32_t worker) noexcept override {
      return session_.identify_stream(greeting, connection, worker);
    }
    Introduction ask_again(Handoff& connection, uint32_t worker) noexcept override {
      return session_.ask_again(connection, worker);
    }
    Introduction left(const Handoff& connection, StreamEnd end) noexcept override {
      return session_.left(connection, end);
    }
    void channel_failed(const StreamError& error) noexcept override { session_.channel_failed(error); }
    [[nodiscard]] bool over() const noexcept override { return session_.over(); }
    void pages_dropped() noexcept override { session_.pages_dropped(); }
    [[nodiscard]] bool holds_dismissed() const noexcept override { return session_.holds_dismissed(); }

   private:
    Session& session_;
  };
  Introduction identify_stream(Bytes greeting, Handoff& connection, uint32_t worker) noexcept;
  [[nodiscard]] Introduction identify_resumed(Handoff& connection);
  [[nodiscard]] Introduction identify_preempt(const Handoff& connection);
  [[nodiscard]] Introduction identify_main(Bytes greeting, Handoff& connection, uint32_t worker);
  [[nodiscard]] Introduction identify_multifd(Bytes greeting, Handoff& connection, uint32_t worker);
  // What Admission says of a main channel.
  [[nodiscard]] Introduction introduce_main(const AdmissionAnswer& answer, Handoff& connection,
                                            uint32_t worker);

  [[nodiscard]] Applicant applicant(const Handoff& connection) const noexcept;
  void note_elsewhere(const Handoff& connection) noexcept;
  // After RAM END the source has nothing more to connect for, and a stranger must not spoil what is done.
  [[nodiscard]] bool ram_is_here() const noexcept {
    return moments_.ram_complete.load(std::memory_order_acquire) != 0;
  }

  const SessionSettings settings_;
  BlockTable& blocks_;
  const PageKernels& kernels_;
  FlushBarrier barrier_;
  RoundCount rounds_;
  Admission admission_;
  CompressJobs& compress_;
  // Parsers are made by the worker that serves them, so that their buffers lie on its node, and published by
  // main_connection_ and multifd_connections_. Multifd channels stand by their ids.
  std::unique_ptr<MainChannel> main_;
  std::vector<std::unique_ptr<MultifdChannel>> multifd_;
  std::unique_ptr<std::atomic<Handoff*>[]> multifd_connections_;
  std::atomic<Handoff*> main_connection_{nullptr};
  std::vector<std::unique_ptr<Channel>> channels_;  // control thread only
  // Made by the worker that serves it; of one source's, there is one.
  std::unique_ptr<PreemptChannel> preempt_;
  std::atomic<bool> preempt_taken_{false};
  std::unique_ptr<ResumedChannel> resumed_;  // made by the worker that serves it
  std::atomic<bool> paused_{false};
  std::atomic<bool> resumable_{false};
  std::atomic<bool> resume_wanted_{false};
  SpscRing<SessionEvent> events_{64};  // main's worker -> control thread
  SessionMoments moments_;
  std::string source_machine_;

  Inside inside_{*this};
  SharedAddress misled_peer_;  // nothing: none
  SharedAddress elsewhere_;    // likewise, of a channel that was refused only for its address
  SharedAddress rival_;        // likewise, of a main channel that was refused
  FirstError error_;
  FirstError late_error_;
  std::atomic<bool> unheard_{false};
  std::atomic<bool> surplus_used_{false};  // pages_dropped()
  std::atomic<bool> postcopy_advised_{false};
  std::atomic<bool> done_{false};
  std::atomic<bool> left_source_{false};
  std::atomic<bool> dismissed_released_{false};
};

}  // namespace migrx
