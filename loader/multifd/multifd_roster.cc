#include "loader/multifd/multifd_roster.h"

namespace migrx {

StreamError MultifdRoster::claim(const MultifdInit& init, uint64_t offset) noexcept {
  // QEMU (migration/multifd.c, multifd_recv_initial_packet) lets id == channels pass; it cannot come from a
  // source that is configured alike.
  if (init.id >= channels_)
    return make_error(ErrorClass::mismatch, offset, "multifd init packet: id",
                      "channel id %u, but parameter multifd-channels is %u here; set it alike at the source",
                      static_cast<unsigned>(init.id), channels_);
  const std::lock_guard lock(mutex_);
  if (uuid_ && *uuid_ != init.uuid)
    return make_error(ErrorClass::mismatch, offset, "multifd init packet: uuid",
                      "the channel belongs to another guest than the rest of this migration");
  if (present_[init.id])
    return make_error(ErrorClass::bad_stream, offset, "multifd init packet: id",
                      "a second channel with id %u", static_cast<unsigned>(init.id));
  uuid_ = init.uuid;
  present_[init.id] = true;
  ++claimed_;
  return {};
}

uint32_t MultifdRoster::claimed() const noexcept {
  const std::lock_guard lock(mutex_);
  return claimed_;
}

std::optional<MultifdUuid> MultifdRoster::uuid() const noexcept {
  const std::lock_guard lock(mutex_);
  return uuid_;
}

}  // namespace migrx
