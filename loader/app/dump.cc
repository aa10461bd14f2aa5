#include "loader/app/dump.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace migrx {

std::string prepare_dump_directory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return "cannot make the directory of --dump-blocks, " + directory + ": " + error.message();
  if (::access(directory.c_str(), W_OK | X_OK) != 0)
    return "cannot write to the directory of --dump-blocks, " + directory + ": " + std::strerror(errno);
  return {};
}

std::string dump_blocks(const BlockTable& blocks, const std::string& directory) {
  for (std::size_t i = 0; i < blocks.list().size(); ++i) {
    const RamBlock& block = blocks.list()[i];
    if (block.file_backed()) continue;
    // The name comes from the stream: no path may be made of it.
    std::string name = block.idstr();
    std::replace(name.begin(), name.end(), '/', '_');
    std::replace(name.begin(), name.end(), '\0', '_');
    if (name == "." || name == "..") name = "_";
    const std::string path = directory + "/" + name;
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(block.host()), static_cast<std::streamsize>(block.used_length()));
    out.close();
    if (!out) return "cannot write block " + block.idstr() + " to " + path + ": " + std::strerror(errno);
  }
  return {};
}

}  // namespace migrx
