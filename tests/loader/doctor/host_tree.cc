#include "tests/loader/doctor/host_tree.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace migrx {

namespace fs = std::filesystem;

HostTree::HostTree(const std::string& name) {
  std::ifstream in(std::string(MIGRX_HOSTS) + "/" + name + ".host");
  if (!in) throw std::runtime_error("no such host: " + name);
  // Hundreds of small files for each test: in memory where there is a place.
  std::error_code missing;
  const fs::path place =
      fs::is_directory("/dev/shm", missing) ? fs::path("/dev/shm") : fs::temp_directory_path();
  std::string folder = place / "migrx-host-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) throw std::runtime_error("no temporary folder");
  root_ = folder;
  std::string path, text;
  const auto finish = [&] {
    if (!path.empty()) put(path, text);
    path.clear();
    text.clear();
  };
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('\t')) {
      text += line.substr(1) + "\n";
      continue;
    }
    finish();
    const std::size_t arrow = line.find(" -> ");
    if (!line.starts_with('/')) continue;
    if (arrow != std::string::npos)
      put(line.substr(0, arrow), line.substr(arrow + 1));
    else if (line.ends_with('/'))
      fs::create_directories(root_ + line);
    else
      path = line;
  }
  finish();
}

HostTree::~HostTree() {
  std::error_code ignored;
  fs::remove_all(root_, ignored);
}

void HostTree::put(const std::string& path, const std::optional<std::string>& text) const {
  const fs::path target = root_ + path;
  if (fs::exists(fs::symlink_status(target))) fs::remove_all(target);
  if (!text) return;
  fs::create_directories(target.parent_path());
  if (text->starts_with("-> "))
    fs::create_symlink(text->substr(3), target);
  else
    std::ofstream(target) << *text;
}

}  // namespace migrx
