#include "loader/main/commands.h"

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
    have_header_ = true;
  }
  payload_ = {};
  if (length_ > 0) {
    const std::byte* const p = in.take(length_);
    if (p == nullptr) return Step::need_more;
    payload_ = {p, length_};
  }
  have_header_ = false;
  if (command_ == MigCommand::open_return_path) return_path_open_ = true;
  return Step::done;
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
      // 16 bytes: page sizes, because postcopy-ram is on. Refuse now: at LISTEN the source's guest has
      // stopped already and an abort would strand it. Nothing: only dirty-bitmaps wants to be able to go on
      // in postcopy.
      if (length == 16) {
        error = make_error(
            ErrorClass::unsupported, at, kField,
            "POSTCOPY_ADVISE: postcopy is not supported; turn the capability postcopy-ram off at the "
            "source");
        return false;
      }
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
    case MigCommand::postcopy_listen:
    case MigCommand::postcopy_run:
    case MigCommand::postcopy_ram_discard:
    case MigCommand::packaged:
    case MigCommand::postcopy_resume:
    case MigCommand::recv_bitmap:
      error = make_error(ErrorClass::unsupported, at, kField,
                         "%s: the source switched to postcopy, which is not supported; turn the capability "
                         "postcopy-ram off at the source",
                         to_string(command));
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
