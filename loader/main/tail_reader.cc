#include "loader/main/tail_reader.h"

namespace migrx {

Step TailReader::read(ByteReader& in, StreamError& error) noexcept {
  while (!front_.empty()) {
    const std::size_t taken = events_.on_tail(front_);
    if (taken == 0) return Step::parked;
    front_ = front_.subspan(taken);
    bytes_ += taken;
  }
  for (;;) {
    const Bytes piece = in.peek_some(in.available());
    if (piece.empty()) return Step::need_more;
    const std::size_t taken = events_.on_tail(piece);
    if (taken == 0) return Step::parked;
    in.skip(taken);
    bytes_ += taken;
    if (!with_colo()) continue;
    switch (colo_->tail()) {
      case ColoEvents::Tail::more:
        break;
      case ColoEvents::Tail::ended:
        return Step::done;
      case ColoEvents::Tail::too_long:
        error = make_error_values(ErrorClass::bad_stream, in.offset(), "device state: bytes", bytes_,
                                  kColoStateBytesMax, "with x-colo");
        return Step::failed;
    }
  }
}

}  // namespace migrx
