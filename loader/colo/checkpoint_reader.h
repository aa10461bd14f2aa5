// The secondary's half of the checkpoint dialogue (QEMU migration/colo.c, colo_process_incoming_thread and
// colo_incoming_process_checkpoint):
//
//   primary                                  secondary (this)
//                                     ◀──── CHECKPOINT_READY
//   CHECKPOINT_REQUEST                 ────▶
//                                     ◀──── CHECKPOINT_REPLY      (QEMU: the secondary's guest is stopped)
//   VMSTATE_SEND, RAM's END section, EOF ──▶                      pages: to the cache
//   VMSTATE_SIZE, be64 n, n bytes      ────▶                      commit: from here on it is loaded
//                                     ◀──── VMSTATE_RECEIVED
//                                                                 marked pages: cache to RAM
//                                     ◀──── VMSTATE_LOADED        then CHECKPOINT_REQUEST again
//
// The primary never sends before it has the answer. One that does has to wait, because nothing is read
// meanwhile. Sans-IO. The RAM between VMSTATE_SEND and VMSTATE_SIZE is read by the main channel.
#pragma once

#include "loader/colo/colo_events.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"
#include "loader/stream/error.h"

namespace migrx {

class CheckpointReader {
 public:
  // events: may be null if read() is never called.
  explicit CheckpointReader(ColoEvents* events) noexcept : events_(events) {}

  // done: RAM follows; read it, then call ram_done() and read() again. parked: nothing more is read before
  // ready() says so.
  Step read(ByteReader& in, StreamError& error) noexcept;
  void ram_done() noexcept { state_ = State::vmstate_size; }
  // At a point where read() parked. Never again once failover came before commit.
  [[nodiscard]] bool ready() const noexcept { return state_ != State::dropped; }
  // What the stream was in the middle of, should it end here.
  [[nodiscard]] const char* where() const noexcept;

 private:
  enum class State : uint8_t {
    checkpoint_ready,
    checkpoint_request,
    checkpoint_reply,
    vmstate_send,
    ram,
    vmstate_size,
    length,
    device_state,
    commit,
    vmstate_received,
    load,
    vmstate_loaded,
    dropped,
  };
  enum class Expected : uint8_t { need_more, met, failed };
  Expected expect(ColoMessage wanted, ByteReader& in, StreamError& error) noexcept;

  ColoEvents* const events_;
  State state_ = State::checkpoint_ready;
  uint64_t left_ = 0;  // bytes of device state to come
  uint64_t at_ = 0;    // offset of its length
};

}  // namespace migrx
