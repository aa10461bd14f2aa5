#include "loader/app/watch/journal.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstdint>
#include <cstring>

namespace migrx {
namespace {

constexpr std::size_t kMessageMax = 48 << 10;  // a datagram carries more than 100 KiB with every kernel

// "NAME=value\n", or with the length before it where the value has lines of its own.
void add_field(std::string& out, const std::string& name, const std::string& value) {
  out += name;
  if (value.find('\n') == std::string::npos) {
    out += "=" + value + "\n";
    return;
  }
  out.push_back('\n');
  const auto size = static_cast<uint64_t>(value.size());
  for (unsigned shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>(size >> shift & 0xff));
  out += value + "\n";
}

}  // namespace

std::string journal_prefix(int fd, int level, const char* journal_stream) {
  if (journal_stream == nullptr) return {};
  struct stat file {};
  if (::fstat(fd, &file) != 0 || !S_ISSOCK(file.st_mode)) return {};
  const std::string ours = fmt::format("{}:{}", file.st_dev, file.st_ino);
  return ours == journal_stream ? fmt::format("<{}>", level) : std::string{};
}

std::string with_prefix(const std::string& prefix, const std::string& text) {
  if (prefix.empty()) return text;
  std::string out = prefix;
  for (std::size_t i = 0; i < text.size(); ++i) {
    out.push_back(text[i]);
    if (text[i] == '\n' && i + 1 < text.size()) out += prefix;
  }
  return out;
}

std::string journal_entry(int level, const std::string& message, const JournalFields& fields) {
  std::string out;
  add_field(out, "MESSAGE", message.substr(0, kMessageMax));
  add_field(out, "PRIORITY", std::to_string(level));
  add_field(out, "SYSLOG_IDENTIFIER", "migrx");
  for (const auto& [name, value] : fields) add_field(out, name, value.substr(0, kMessageMax));
  return out;
}

JournalSocket::JournalSocket(std::string path)
    : path_(std::move(path)), socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {}

bool JournalSocket::send(const std::string& entry) const noexcept {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path_.size() >= sizeof to.sun_path) return false;
  std::memcpy(to.sun_path, path_.data(), path_.size());
  return ::sendto(socket_.get(), entry.data(), entry.size(), MSG_NOSIGNAL,
                  reinterpret_cast<const sockaddr*>(&to), sizeof to) == static_cast<ssize_t>(entry.size());
}

}  // namespace migrx
