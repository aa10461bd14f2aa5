#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "loader/doctor/host_facts.h"

namespace migrx {

RamFileFacts ram_file_facts(const std::string& path) {
  RamFileFacts facts;
  struct stat status {};
  constexpr uint64_t kStatBlock = 512;  // stat(2)'s unit, whatever the file system
  if (::stat(path.c_str(), &status) == 0) {
    facts.exists = true;
    facts.regular = S_ISREG(status.st_mode);
    facts.size = static_cast<uint64_t>(status.st_size);
    facts.allocated = static_cast<uint64_t>(status.st_blocks) * kStatBlock;
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  struct statvfs space {};
  facts.folder_exists = ::statvfs(folder.empty() ? "." : folder.c_str(), &space) == 0;
  if (facts.folder_exists) facts.free = uint64_t{space.f_bavail} * space.f_frsize;
  return facts;
}

std::string version_of_program(const std::string& program) {
  std::string path;
  for (const char* const folder : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"})
    if (path.empty() && ::access((folder + program).c_str(), X_OK) == 0) path = folder + program;
  if (path.empty()) return {};

  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  std::string option = "--version";
  char* const arguments[] = {path.data(), option.data(), nullptr};
  char* const environment[] = {nullptr};
  pid_t child = 0;
  const int error = ::posix_spawn(&child, path.c_str(), &actions, nullptr, arguments, environment);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string text;
  if (error == 0) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    bool closed = false;
    constexpr std::size_t kTextMax = 4096;
    while (!closed && text.size() < kTextMax) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      pollfd waited{ends[0], POLLIN, 0};
      if (left.count() <= 0 || ::poll(&waited, 1, static_cast<int>(left.count())) <= 0) break;
      char piece[512];
      const ssize_t size = ::read(ends[0], piece, sizeof piece);
      if (size > 0) text.append(piece, static_cast<std::size_t>(size));
      closed = size <= 0;
    }
    if (!closed) ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
  }
  ::close(ends[0]);
  return text.substr(0, text.find('\n'));
}

}  // namespace migrx
