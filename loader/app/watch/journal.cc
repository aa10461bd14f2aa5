#include "loader/app/watch/journal.h"

#include <fmt/format.h>
#include <sys/stat.h>

namespace migrx {

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

}  // namespace migrx
