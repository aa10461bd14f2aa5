#include "loader/stream/error.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "loader/stream/printable.h"

namespace migrx {

std::string to_string(ChannelName channel) {
  if (channel.is_main()) return "main";
  const std::optional<MultifdId> id = channel.multifd();
  return id ? "multifd " + std::to_string(id->number()) : "unidentified";
}

const char* to_string(ErrorClass error_class) noexcept {
  switch (error_class) {
    case ErrorClass::none:
      return "none";
    case ErrorClass::bad_stream:
      return "bad-stream";
    case ErrorClass::truncated:
      return "truncated";
    case ErrorClass::mismatch:
      return "mismatch";
    case ErrorClass::unsupported:
      return "unsupported";
    case ErrorClass::io:
      return "io";
    case ErrorClass::timed_out:
      return "timed-out";
    case ErrorClass::cancelled:
      return "cancelled";
  }
  return "?";
}

std::string StreamError::message() const {
  std::string out = to_string(channel) + ": byte " + std::to_string(offset) + ": " + field;
  if (has_values) out += ": found " + std::to_string(found) + ", allowed " + std::to_string(allowed);
  if (text[0] != '\0') out += std::string(": ") + text.data();
  return out;
}

StreamError make_error(ErrorClass error_class, uint64_t offset, const char* field, const char* format,
                       ...) noexcept {
  StreamError error;
  error.error_class = error_class;
  error.offset = offset;
  error.field = field;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error.text.data(), error.text.size(), format, arguments);
  va_end(arguments);
  make_printable(error.text.data(), std::strlen(error.text.data()));
  return error;
}

StreamError make_error_values(ErrorClass error_class, uint64_t offset, const char* field, uint64_t found,
                              uint64_t allowed, const char* text) noexcept {
  StreamError error;
  error.error_class = error_class;
  error.offset = offset;
  error.field = field;
  error.found = found;
  error.allowed = allowed;
  error.has_values = true;
  std::snprintf(error.text.data(), error.text.size(), "%s", text);
  make_printable(error.text.data(), std::strlen(error.text.data()));
  return error;
}

}  // namespace migrx
