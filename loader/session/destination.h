// What becomes of the guest once its RAM is in place: a destination QEMU, or a file.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "loader/main/main_events.h"
#include "loader/multifd/multifd_packet.h"
#include "loader/session/urgent_pages.h"
#include "loader/stream/error.h"

namespace migrx {

enum class Verdict : uint8_t {
  pending,
  accepted,  // the guest is safe at the destination: the source may be told so
  refused,   // error() says why; the source's guest must run on
};

// Of a migration in postcopy, so far.
struct PostcopyNumbers {
  uint64_t discarded_ranges = 0;  // of RAM_DISCARD
  uint64_t discarded_pages = 0;   // of 4 KiB
  uint64_t requests = 0;          // of the destination's guest, each for one host page or more
  uint64_t requested_bytes = 0;
  uint64_t urgent_bytes = 0;  // that came on the preempt channel
  uint64_t pauses = 0;        // connections that broke
};

// events() is called on main's worker; everything else on the control thread.
class Destination {
 public:
  virtual ~Destination() = default;
  [[nodiscard]] virtual MainEvents& events() noexcept = 0;
  // Moves bytes on; system calls, never blocking. Returns work done.
  virtual uint32_t do_work(uint64_t now_ns) = 0;
  [[nodiscard]] virtual Verdict verdict() const noexcept = 0;
  [[nodiscard]] virtual const StreamError& error() const noexcept = 0;
  // The program that will run the guest has answered: it waits for a migration, has taken this source's
  // configuration and reads. Before that nothing in its memory may change.
  [[nodiscard]] virtual bool proved_waiting() const noexcept { return true; }
  // The init packet of a multifd channel of the source, as it came; once for each channel.
  virtual void on_multifd_init(std::span<const std::byte, kMultifdInitBytes> packet) { (void)packet; }
  // RAM is complete, and for so long no byte has come from a source that could have sent some: time in which
  // it is out of reach, is held up here or has bytes to send again does not count. Called again and again.
  virtual void source_silent(uint64_t ns) { (void)ns; }
  // The source closed the main channel after RAM was complete: nothing more will come.
  virtual void source_ended() = 0;
  // The migration failed elsewhere: let the destination give up.
  virtual void abandon() = 0;
  // SWITCHOVER_ACKs that a destination QEMU has sent so far, whatever we were told of the source: one when
  // all of it is ready, or one for each device that the source waits for. Nothing: there is no destination
  // QEMU to send one.
  [[nodiscard]] virtual std::optional<uint32_t> switchover_acks() const noexcept { return std::nullopt; }
  // Readable when the destination said something that do_work() will take; -1: nothing to wait for.
  [[nodiscard]] virtual int wake_fd() const noexcept { return -1; }
  // When the last byte so far left this process, on the clock of do_work(); 0: none did, or it is not known.
  [[nodiscard]] virtual uint64_t last_sent_ns() const noexcept { return 0; }
  // ---- Postcopy, from MainEvents::on_postcopy() on
  // What the destination has said to the source and nobody has taken yet; valid until the next call.
  [[nodiscard]] virtual Bytes said() const noexcept { return {}; }
  // The source has got, or will get, so many bytes of it.
  virtual void took_said(std::size_t bytes) { (void)bytes; }
  // A connection broke: those to the destination are closed, so that it waits for another as the source does.
  // Whatever it said last is dropped.
  virtual void pause() {}
  // The source has connected again, and its predecessor's bytes are all written: what comes from here on goes
  // to a new connection, to the same address, for which the destination listens sooner or later
  // (migrate-recover).
  virtual void resume() {}
  // It cannot come back: its process has ended.
  [[nodiscard]] virtual bool lost() const noexcept { return true; }
  [[nodiscard]] virtual PostcopyNumbers postcopy() const noexcept { return {}; }
  // Where the source's preempt channel leads; null: there is none.
  [[nodiscard]] virtual UrgentPages* urgent_pages() noexcept { return nullptr; }

  // Something the operator should know although it does not end the migration; empty: nothing.
  [[nodiscard]] virtual const std::string& warning() const noexcept {
    static const std::string nothing;
    return nothing;
  }
};

}  // namespace migrx
