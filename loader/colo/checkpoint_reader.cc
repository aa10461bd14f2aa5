#include "loader/colo/checkpoint_reader.h"

#include "loader/main/main_events.h"

namespace migrx {

const char* to_string(ColoMessage message) noexcept {
  switch (message) {
    case ColoMessage::checkpoint_ready:
      return "CHECKPOINT_READY";
    case ColoMessage::checkpoint_request:
      return "CHECKPOINT_REQUEST";
    case ColoMessage::checkpoint_reply:
      return "CHECKPOINT_REPLY";
    case ColoMessage::vmstate_send:
      return "VMSTATE_SEND";
    case ColoMessage::vmstate_size:
      return "VMSTATE_SIZE";
    case ColoMessage::vmstate_received:
      return "VMSTATE_RECEIVED";
    case ColoMessage::vmstate_loaded:
      return "VMSTATE_LOADED";
  }
  return "?";
}

const char* CheckpointReader::where() const noexcept {
  switch (state_) {
    case State::checkpoint_ready:
    case State::checkpoint_request:
      return "COLO: waiting for CHECKPOINT_REQUEST";
    case State::checkpoint_reply:
    case State::vmstate_send:
      return "COLO: waiting for VMSTATE_SEND";
    case State::ram:
      return "COLO: inside a checkpoint's RAM";
    case State::vmstate_size:
    case State::length:
      return "COLO: waiting for VMSTATE_SIZE";
    case State::device_state:
      return "COLO: inside a checkpoint's device state";
    case State::commit:
    case State::vmstate_received:
    case State::load:
    case State::vmstate_loaded:
    case State::dropped:
      break;
  }
  return "COLO: after a checkpoint's device state";
}

CheckpointReader::Expected CheckpointReader::expect(ColoMessage wanted, ByteReader& in,
                                                    StreamError& error) noexcept {
  const std::byte* const p = in.take(4);
  if (p == nullptr) return Expected::need_more;
  const uint32_t code = load_be32(p);
  if (code == static_cast<uint32_t>(wanted)) return Expected::met;
  constexpr auto kLast = static_cast<uint32_t>(ColoMessage::vmstate_loaded);
  error =
      make_error(ErrorClass::bad_stream, in.offset() - 4, "COLO: message", "%u (%s), expected %s", code,
                 code <= kLast ? to_string(static_cast<ColoMessage>(code)) : "unknown", to_string(wanted));
  return Expected::failed;
}

Step CheckpointReader::read(ByteReader& in, StreamError& error) noexcept {
  for (;;) {
    ColoMessage wanted{};
    State next{};
    switch (state_) {
      // What is said, and what is expected then.
      case State::checkpoint_ready:
        if (!events_->send(ColoMessage::checkpoint_ready)) return Step::parked;
        state_ = State::checkpoint_request;
        continue;
      case State::checkpoint_reply:
        if (!events_->send(ColoMessage::checkpoint_reply)) return Step::parked;
        state_ = State::vmstate_send;
        continue;
      case State::vmstate_received:
        if (!events_->send(ColoMessage::vmstate_received)) return Step::parked;
        state_ = State::load;
        continue;
      case State::vmstate_loaded:
        if (!events_->send(ColoMessage::vmstate_loaded)) return Step::parked;
        state_ = State::checkpoint_request;
        continue;
      case State::ram:
        return Step::done;

      case State::checkpoint_request:
        wanted = ColoMessage::checkpoint_request;
        next = State::checkpoint_reply;
        break;
      case State::vmstate_send:
        wanted = ColoMessage::vmstate_send;
        next = State::ram;
        break;
      case State::vmstate_size:
        wanted = ColoMessage::vmstate_size;
        next = State::length;
        break;

      case State::length: {
        const std::byte* const p = in.take(8);
        if (p == nullptr) return Step::need_more;
        left_ = load_be64(p);
        at_ = in.offset() - 8;
        // At least EOF.
        if (left_ == 0 || left_ > kColoStateBytesMax) {
          error = make_error_values(ErrorClass::bad_stream, at_, "COLO: VMSTATE_SIZE: length", left_,
                                    kColoStateBytesMax);
          return Step::failed;
        }
        events_->state_begins();
        state_ = State::device_state;
        continue;
      }
      case State::device_state: {
        const Bytes piece = in.take_some(left_);
        if (piece.empty()) return Step::need_more;
        events_->state_bytes(piece);
        left_ -= piece.size();
        if (left_ > 0) continue;
        // QEMU's loader stops at EOF and never looks whether that was the last byte; a state that does not
        // end with it is torn.
        if (piece.back() != std::byte{static_cast<uint8_t>(SectionType::eof)}) {
          error = make_error(ErrorClass::bad_stream, in.offset() - 1, "COLO: device state",
                             "its last byte is 0x%02x, not the end of a stream",
                             std::to_integer<unsigned>(piece.back()));
          return Step::failed;
        }
        state_ = State::commit;
        continue;
      }
      case State::commit:
        state_ = events_->commit() ? State::vmstate_received : State::dropped;
        continue;
      case State::load:
        if (!events_->load_some()) return Step::parked;
        state_ = State::vmstate_loaded;
        continue;
      case State::dropped:
        return Step::parked;
    }
    switch (expect(wanted, in, error)) {
      case Expected::need_more:
        return Step::need_more;
      case Expected::failed:
        return Step::failed;
      case Expected::met:
        state_ = next;
    }
  }
}

}  // namespace migrx
