#include "numa/host_files.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

namespace migrx {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kTextMax = 1U << 20;

}  // namespace

HostFiles::HostFiles(std::string root) : root_(std::move(root)) {
  while (root_.ends_with('/')) root_.pop_back();
}

std::optional<std::string> HostFiles::read(const std::string& path) const {
  std::error_code error;
  // A FIFO or a device could make the reader wait for ever.
  if (!fs::is_regular_file(root_ + path, error)) return std::nullopt;
  std::ifstream in(root_ + path, std::ios::binary);
  std::string text(kTextMax, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (in.gcount() == 0 && !in.eof())) return std::nullopt;
  text.resize(static_cast<std::size_t>(in.gcount()));
  return text;
}

std::optional<std::string> HostFiles::line(const std::string& path) const {
  std::optional<std::string> text = read(path);
  if (!text) return text;
  constexpr const char* kSpace = " \t\n\r";
  const std::size_t first = text->find_first_not_of(kSpace);
  if (first == std::string::npos) return std::string{};
  return text->substr(first, text->find_last_not_of(kSpace) - first + 1);
}

std::optional<uint64_t> HostFiles::number(const std::string& path) const {
  const std::optional<std::string> text = line(path);
  uint64_t value = 0;
  if (!text || text->empty()) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc{} || end != text->data() + text->size()) return std::nullopt;
  return value;
}

std::vector<std::string> HostFiles::list(const std::string& path) const {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(root_ + path, error), end; !error && at != end; at.increment(error))
    names.push_back(at->path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::string HostFiles::link_name(const std::string& path) const {
  std::error_code error;
  const fs::path target = fs::read_symlink(root_ + path, error);
  return error ? std::string{} : target.filename().string();
}

bool HostFiles::exists(const std::string& path) const {
  std::error_code error;
  return fs::exists(root_ + path, error) || fs::is_symlink(root_ + path, error);
}

}  // namespace migrx
