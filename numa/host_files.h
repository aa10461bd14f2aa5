// Files by which a host tells about itself (/proc, /sys, /etc), below a root that tests replace by a recorded
// host. Whatever comes from there is bounded and may be missing: kernels and containers differ.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace migrx {

// Read-only and without state: any thread. Paths are absolute, as on the host.
class HostFiles {
 public:
  // `root`: "" for the running host, else a folder that holds another host's files.
  explicit HostFiles(std::string root = {});

  // The whole text, at most 1 MiB of it. nullopt: not there, not readable, or not a file.
  [[nodiscard]] std::optional<std::string> read(const std::string& path) const;
  // The text without white space at its ends. nullopt as above.
  [[nodiscard]] std::optional<std::string> line(const std::string& path) const;
  // The decimal number that the text is. nullopt as above, and when it is none, such as "max".
  [[nodiscard]] std::optional<uint64_t> number(const std::string& path) const;
  // Names in a folder, sorted; empty when there is none.
  [[nodiscard]] std::vector<std::string> list(const std::string& path) const;
  // The last part of what a symbolic link points to, such as the driver of a device. Empty: no link.
  [[nodiscard]] std::string link_name(const std::string& path) const;
  [[nodiscard]] bool exists(const std::string& path) const;

  [[nodiscard]] const std::string& root() const noexcept { return root_; }

 private:
  std::string root_;
};

}  // namespace migrx
