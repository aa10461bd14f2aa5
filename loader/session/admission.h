// Decides which connections belong to a migration: exactly one main channel and N multifd channels of one
// guest. Every other connection is a stranger's; the session refuses and counts it.
//
//   gathering ─main and channels 0..N-1 of one guest─▶ complete: every later connection is a stranger's
//       └─a second main, a second uuid, an id twice or too high─▶ conflict: the session ends, nothing loaded
//
// Two VMs of one host may migrate to the same port by mistake, and without -uuid nothing in their multifd
// channels tells them apart. So main waits, unread, until its channels are there: before that no byte of a
// stream reaches memory or the destination, and ending it leaves every source with its guest.
//
// What tells guests apart, the strongest first:
// - the uuid of multifd channels, and of main with the capability validate-uuid, against the one expected;
//   where none is expected, against each other;
// - the address: a source has one;
// - the order of connecting: "before all were here" goes by the SYN, not by the first byte. A QEMU connects
//   main before its channels (migration/multifd.c, multifd_send_setup), so a main channel that is told apart
//   by nothing, connected before the last of the channels and spoke when all seemed to be here, may be the
//   one that they belong to.
// A peer that connected before the last of the channels and is still silent may be such a main channel, or
// lack the bytes that would tell. So where all seem to be here, main waits until the control thread has
// looked for such peers and found none (heard_all()), or kPatienceNs more.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>

#include "dataplane/wire/address.h"
#include "loader/multifd/multifd_packet.h"
#include "loader/session/shared_address.h"
#include "loader/stream/error.h"
#include "loader/stream/multifd_id.h"

namespace migrx {

class Handoff;

// A connection that asks to be admitted.
struct Applicant {
  const Handoff* connection = nullptr;
  IpAddress address;
  uint64_t opened_ns = 0;  // when its SYN came; 0: not known (a SYN cookie)
};

enum class AdmissionVerdict : uint8_t {
  admitted,
  waits,     // a main channel whose multifd channels are not all here: ask again()
  stranger,  // refuse it; nobody else is concerned
  surplus,   // refuse it; all are here, and yet it may be the source's own, which connected at the same time
  conflict,  // the session must end: see error
};
struct AdmissionAnswer {
  AdmissionVerdict verdict = AdmissionVerdict::stranger;
  StreamError error;  // of a conflict
};

// Called on any worker, seldom: once or twice per connection, and in each turn of a main channel that waits.
class Admission {
 public:
  // A main channel is not believed for so long after a multifd channel that may be its own was refused. Where
  // the guest's uuid is known and no channel of the right guest has come by then, main is refused as well,
  // before its channels are reset (channel.h says why).
  static constexpr uint64_t kSuspicionNs = 2'000'000'000;

  // A source connects its channels at once; a SYN of them that is lost comes again after 1, 3 and 7 s.
  static constexpr uint64_t kConnectingNs = 10'000'000'000;

  // Main waits so long for peers that are silent: an outstanding first segment comes again after 0.2, 0.6 and
  // 1.4 s (RFC 6298 with Linux's bound), while a peer that never speaks must not hold a migration up.
  static constexpr uint64_t kPatienceNs = 2'000'000'000;

  // channels: the parameter multifd-channels, 0 without multifd. uuid: the guest's where it is known.
  // looks: somebody looks for silent peers, and calls heard_all().
  explicit Admission(uint32_t channels, std::optional<MultifdUuid> uuid = std::nullopt, bool looks = false)
      : channels_(channels), expected_(uuid), looks_(looks && channels > 0) {}

  // uuid: from main's configuration section, which has one with validate-uuid.
  [[nodiscard]] AdmissionAnswer main(const Applicant& who, const std::optional<MultifdUuid>& uuid,
                                     uint64_t now_ns);
  // Of a main channel that was told to wait.
  [[nodiscard]] AdmissionAnswer again(const Applicant& who, uint64_t now_ns);
  [[nodiscard]] AdmissionAnswer channel(const Applicant& who, const MultifdInit& init, uint64_t now_ns);
  // A main channel that waited has ended. Conflict: it was the source; stranger: nobody misses it; waits:
  // closed in good order it may be whole, since a source without a return path is through as soon as its
  // sockets took the last byte.
  [[nodiscard]] AdmissionAnswer left(const Applicant& who, bool orderly);
  // Control thread, after gathered(): the SYN of every connection and peer that has not told whose it is came
  // at silent_since_ns or later.
  void heard_all(uint64_t silent_since_ns);

  // ---- Any thread, without the lock ----
  [[nodiscard]] bool complete() const noexcept { return complete_.load(std::memory_order_acquire); }
  // All seem to be here, and main waits for heard_all().
  [[nodiscard]] bool gathered() const noexcept {
    return gathered_.load(std::memory_order_acquire) && !complete();
  }
  // Multifd channels admitted, and a main channel that waits or was admitted.
  [[nodiscard]] uint32_t multifd_here() const noexcept { return here_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool main_here() const noexcept { return main_connection() != nullptr; }
  // Its connection; null: none.
  [[nodiscard]] const Handoff* main_connection() const noexcept {
    return main_connection_.load(std::memory_order_relaxed);
  }
  // A connection from here cannot be the source's: the source has another address. False while the source's
  // address is not known.
  [[nodiscard]] bool is_stranger(const IpAddress& address) const noexcept {
    const std::optional<IpAddress> bound = address_.get();
    return bound && *bound != address;
  }
  // Main channels from the source's address that were refused: what else comes from there may be theirs.
  [[nodiscard]] uint32_t rivals() const noexcept { return rivals_.load(std::memory_order_relaxed); }
  // Multifd channels that were refused because all were here, from the source's address and with its uuid, so
  // that they may be the source's own; and the id of the last of them.
  [[nodiscard]] uint32_t surplus() const noexcept { return surplus_.load(std::memory_order_relaxed); }
  [[nodiscard]] MultifdId surplus_id() const noexcept {
    return MultifdId{surplus_id_.load(std::memory_order_relaxed)};
  }
  // What is wrong when this id's channel is the source's.
  [[nodiscard]] StreamError too_many(MultifdId id) const noexcept;

 private:
  struct Main {
    Applicant who;
    std::optional<MultifdUuid> uuid;
  };
  [[nodiscard]] AdmissionAnswer judge_main(const Applicant& who, const std::optional<MultifdUuid>& uuid,
                                           uint64_t now_ns);
  [[nodiscard]] AdmissionAnswer late_main(const Applicant& who, const std::optional<MultifdUuid>& uuid);
  [[nodiscard]] AdmissionAnswer second_main(const Main& second, uint64_t now_ns);
  [[nodiscard]] AdmissionAnswer take_main(const Main& main, uint64_t now_ns);
  [[nodiscard]] AdmissionAnswer late_channel(const Applicant& who, const MultifdInit& init);
  [[nodiscard]] AdmissionAnswer twice(const MultifdInit& init);
  [[nodiscard]] bool came_before(const Applicant& who) const;
  [[nodiscard]] AdmissionAnswer conflict(const StreamError& error);
  // It bears the uuid that is expected.
  [[nodiscard]] bool proven(const Main& main) const { return expected_ && main.uuid == expected_; }
  // A channel that may be this main's own was refused, for bearing another uuid.
  [[nodiscard]] bool may_be_refused(const Main& main) const;
  // Such a channel was refused, and its source may not have noticed yet.
  [[nodiscard]] bool suspicious(const Main& main, uint64_t now_ns) const;
  // Its channels were refused, and none of the right guest has come.
  [[nodiscard]] bool is_anothers(const Main& main, uint64_t now_ns) const;
  void forget_main();
  void settle(uint64_t now_ns);

  const uint32_t channels_;
  const std::optional<MultifdUuid> expected_;
  const bool looks_;
  mutable std::mutex mutex_;  // guards what follows
  std::optional<Main> main_;
  std::optional<MultifdUuid> uuid_;  // of the channels
  std::array<bool, kMultifdChannelsMax> present_{};
  uint64_t last_opened_ns_ = 0;     // of the channels admitted
  uint64_t refused_opened_ns_ = 0;  // of the channel of another guest that was refused last; 0: none
  uint64_t refused_at_ns_ = 0;
  IpAddress refused_address_;
  uint64_t gathered_at_ns_ = 0;  // 0: somebody is missing
  bool heard_all_ = false;
  bool ended_ = false;  // by a conflict

  SharedAddress address_;  // nothing: nobody has come
  std::atomic<uint32_t> here_{0};
  std::atomic<uint32_t> rivals_{0};
  std::atomic<uint32_t> surplus_{0};
  std::atomic<uint32_t> surplus_id_{0};
  std::atomic<const Handoff*> main_connection_{nullptr};
  std::atomic<bool> gathered_{false};
  std::atomic<bool> complete_{false};
};

}  // namespace migrx
