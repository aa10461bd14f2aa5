// Device state and all that follows it. The receiver cannot read it: it is passed on as it came, to the end
// of the stream, or, with COLO, to the end of the first checkpoint's device state.
#pragma once

#include "loader/colo/colo_events.h"
#include "loader/main/main_events.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

class TailReader {
 public:
  // colo: null without the capability x-colo. Both must outlive this.
  TailReader(MainEvents& events, ColoEvents* colo) noexcept : events_(events), colo_(colo) {}

  // front: bytes that belong to it and have been read already; they must stay as they are until read() has
  // passed them on.
  void begin(Bytes front) noexcept { front_ = front; }
  // parked: MainEvents::on_tail had no room. done: only with COLO, where more follows.
  Step read(ByteReader& in, StreamError& error) noexcept;
  // Passed on so far.
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }

 private:
  [[nodiscard]] bool with_colo() const noexcept { return colo_ != nullptr && colo_->enabled(); }

  MainEvents& events_;
  ColoEvents* const colo_;
  Bytes front_;
  uint64_t bytes_ = 0;
};

}  // namespace migrx
