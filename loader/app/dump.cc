#include "loader/app/dump.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "loader/destination/new_file.h"
#include "loader/stream/printable.h"

namespace migrx {

std::string prepare_dump_directory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return "cannot make the directory of --dump-blocks, " + directory + ": " + error.message();
  if (::access(directory.c_str(), W_OK | X_OK) != 0)
    return "cannot write to the directory of --dump-blocks, " + directory + ": " + std::strerror(errno);
  return {};
}

std::string dump_name(const std::string& idstr) {
  constexpr std::size_t kNameMax = 255;  // of every file system
  // One character of the device state's own file is escaped, so that no block's is called so.
  if (idstr == "device-state") return "%64evice-state";
  std::string name;
  for (const char c : idstr) {
    const bool plain = (c > ' ' && c < 0x7f && c != '/' && c != '%') || c == ' ';
    const bool hidden = c == '.' && name.empty();
    std::array<char, 4> escaped{};
    std::snprintf(escaped.data(), escaped.size(), "%%%02X",
                  static_cast<unsigned>(static_cast<unsigned char>(c)));
    name += plain && !hidden ? std::string(1, c) : std::string(escaped.data());
  }
  return name.size() <= kNameMax ? name : std::string{};
}

std::string dump_blocks(const BlockTable& blocks, const std::string& directory) {
  for (std::size_t i = 0; i < blocks.list().size(); ++i) {
    const RamBlock& block = blocks.list()[i];
    if (block.file_backed()) continue;
    std::string name = dump_name(block.idstr());
    // '%' never stands before a letter beyond F in an escaped name.
    if (name.empty()) name = "%block-" + std::to_string(i);
    const std::string path = directory + "/" + name;
    const auto problem = [&] {
      return "cannot write block " + printable(block.idstr()) + " to " + path + ": " + std::strerror(errno);
    };
    const int fd = open_new_file(path);
    if (fd < 0) return problem();
    bool whole = ::fchmod(fd, 0600) == 0;
    for (uint64_t at = 0; whole && at < block.used_length();) {
      const ssize_t n = ::write(fd, block.host() + at, block.used_length() - at);
      if (n < 0 && errno == EINTR) continue;
      whole = n > 0;
      at += whole ? static_cast<uint64_t>(n) : 0;
    }
    const std::string trouble = whole ? std::string{} : problem();
    if (::close(fd) != 0 && whole) return problem();
    if (!whole) return trouble;
  }
  return {};
}

}  // namespace migrx
