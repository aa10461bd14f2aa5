// A recorded host as files below a temporary folder, into which a test seeds one fault.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace migrx {

class HostTree {
 public:
  // Unpacks NAME.host of this folder (record_host.py tells the form). Throws when it cannot.
  explicit HostTree(const std::string& name);
  ~HostTree();
  HostTree(const HostTree&) = delete;
  HostTree& operator=(const HostTree&) = delete;

  [[nodiscard]] const std::string& root() const noexcept { return root_; }
  // A text replaces or adds the file; one that begins with "-> " makes a link; nothing removes the path.
  void put(const std::string& path, const std::optional<std::string>& text) const;

 private:
  std::string root_;
};

}  // namespace migrx
