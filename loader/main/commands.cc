#include "loader/main/commands.h"

#include <algorithm>

namespace migrx {
namespace {

constexpr const char* kField = "command";

}  // namespace

const char* to_string(MigCommand command) noexcept {
  switch (command) {
    case MigCommand::invalid:
      return "INVALID";
    case MigCommand::open_return_path:
      return "OPEN_RETURN_PATH";
    case MigCommand::ping:
      return "PING";
    case MigCommand::postcopy_advise:
      return "POSTCOPY_ADVISE";
    case MigCommand::postcopy_listen:
      return "POSTCOPY_LISTEN";
    case MigCommand::postcopy_run:
      return "POSTCOPY_RUN";
    case MigCommand::postcopy_ram_discard:
      return "POSTCOPY_RAM_DISCARD";
    case MigCommand::packaged:
      return "PACKAGED";
    case MigCommand::enable_colo:
      return "ENABLE_COLO";
    case MigCommand::postcopy_resume:
      return "POSTCOPY_RESUME";
    case MigCommand::recv_bitmap:
      return "RECV_BITMAP";
    case MigCommand::switchover_start:
      return "SWITCHOVER_START";
  }
  return "unknown";
}

Step CommandReader::read(ByteReader& in, StreamError& error) noexcept {
  if (!have_header_) {
    const std::byte* const p = in.take(4);
    if (p == nullptr) return Step::need_more;
    const uint16_t cmd = load_be16(p);
    length_ = load_be16(p + 2);
    if (!check(in.offset() - 5, cmd, length_, error)) return Step::failed;
    command_ = static_cast<MigCommand>(cmd);
    head_[0] = static_cast<std::byte>(SectionType::command);
    std::copy_n(p, 4, head_.data() + 1);
    have_header_ = true;
  }
  payload_ = {};
  if (length_ > 0 && !switches_to_postcopy()) {
    const std::byte* const p = in.take(length_);
    if (p == nullptr) return Step::need_more;
    payload_ = {p, length_};
  }
  have_header_ = false;
  if (command_ == MigCommand::open_return_path) return_path_open_ = true;
  const bool advised = command_ == MigCommand::postcopy_advise && length_ > 0;
  return !advised || take_advice(in.offset() - length_, error) ? Step::done : Step::failed;
}

// 16 bytes: page sizes, because postcopy-ram is on. A refusal comes now: at RAM_DISCARD the source's guest
// has stopped already, and an abort could strand it. Nothing: only dirty-bitmaps wants to be able to go on in
// postcopy.
bool CommandReader::check_advise(uint64_t at, uint16_t length, StreamError& error) const noexcept {
  if (length != 16) return true;
  const char* why = nullptr;
  switch (settings_.postcopy) {
    case Postcopy::relayed:
      break;
    case Postcopy::no_handoff:
      why = "postcopy needs a destination QEMU that fetches the pages left behind: give --handoff";
      break;
    case Postcopy::ignore_shared:
      why = "QEMU has postcopy and x-ignore-shared exclude each other: leave --handoff-form out";
      break;
    case Postcopy::read_back:
      why = "--dump-blocks reads memory that is the destination's alone then: leave --dump-blocks out";
      break;
    case Postcopy::colo:
      why = "with x-colo all of the guest's memory is loaded here: turn one of the two off";
      break;
    case Postcopy::declined:
      why = "--no-postcopy was given";
      break;
  }
  if (why != nullptr) {
    error = make_error(ErrorClass::unsupported, at, kField,
                       "POSTCOPY_ADVISE: %s, or turn the capability postcopy-ram off at the source", why);
    return false;
  }
  if (page_sizes_ != 0) {
    error = make_error(ErrorClass::bad_stream, at, kField, "POSTCOPY_ADVISE came twice");
    return false;
  }
  return true;
}

// be64 page sizes of all blocks, OR-ed; be64 target page size (QEMU migration/savevm.c,
// loadvm_postcopy_handle_advise).
bool CommandReader::take_advice(uint64_t at, StreamError& error) noexcept {
  constexpr uint64_t kTargetPage = 4096;
  page_sizes_ = load_be64(payload_.data());
  const uint64_t target = load_be64(payload_.data() + 8);
  if (target != kTargetPage) {
    error = make_error_values(ErrorClass::unsupported, at + 8, "POSTCOPY_ADVISE: target page size", target,
                              kTargetPage);
    return false;
  }
  if (page_sizes_ == 0 || page_sizes_ % kTargetPage != 0) {
    error = make_error(ErrorClass::bad_stream, at, "POSTCOPY_ADVISE: page sizes",
                       "0x%llx is no sum of page sizes", static_cast<unsigned long long>(page_sizes_));
    return false;
  }
  return true;
}

bool CommandReader::check(uint64_t at, uint16_t cmd, uint16_t length, StreamError& error) noexcept {
  uint16_t expected = 0;
  const MigCommand command = static_cast<MigCommand>(cmd);
  switch (command) {
    case MigCommand::invalid:
      error = make_error(ErrorClass::bad_stream, at, kField, "MIG_CMD 0 is not a command");
      return false;
    case MigCommand::open_return_path:
    case MigCommand::switchover_start:
      break;
    case MigCommand::ping:
      expected = 4;
      break;
    case MigCommand::postcopy_advise:
      if (!check_advise(at, length, error)) return false;
      if (length == 16) expected = 16;
      break;
    case MigCommand::enable_colo:
      if (!settings_.x_colo) {
        error = make_error(
            ErrorClass::mismatch, at, kField,
            "ENABLE_COLO came, but the capability x-colo is off here: turn it off at the source or on "
            "here");
        return false;
      }
      break;
    case MigCommand::postcopy_ram_discard:
      if (page_sizes_ != 0) {
        if (length >= kDiscardBytesMin && length <= kDiscardBytesMax) return true;
        error = make_error(ErrorClass::bad_stream, at, kField, "RAM_DISCARD of length %u, expected %u to %u",
                           length, kDiscardBytesMin, kDiscardBytesMax);
        return false;
      }
      [[fallthrough]];
    case MigCommand::packaged:
      if (page_sizes_ != 0) {
        expected = 4;
        break;
      }
      [[fallthrough]];
    case MigCommand::postcopy_listen:
    case MigCommand::postcopy_run:
    case MigCommand::postcopy_resume:
    case MigCommand::recv_bitmap:
      error = make_error(ErrorClass::bad_stream, at, kField, "%s %s", to_string(command),
                         page_sizes_ != 0 ? "before the switch to postcopy" : "without POSTCOPY_ADVISE");
      return false;
    default:
      error = make_error(ErrorClass::unsupported, at, kField, "MIG_CMD %u is unknown", cmd);
      return false;
  }
  if (length != expected) {
    error = make_error(ErrorClass::bad_stream, at, kField, "%s of length %u, expected %u", to_string(command),
                       length, expected);
    return false;
  }
  // QEMU, loadvm_process_command: "CMD_PING received with no return path".
  if (command == MigCommand::ping && !return_path_open_) {
    error = make_error(ErrorClass::bad_stream, at, kField, "PING before OPEN_RETURN_PATH");
    return false;
  }
  return true;
}

}  // namespace migrx
