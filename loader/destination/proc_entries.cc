#include "loader/destination/proc_entries.h"

#include <dirent.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <climits>
#include <memory>
#include <string>
#include <system_error>

namespace migrx {
namespace {

// Until `each` returns false.
void each_number_in(const std::string& folder, const std::function<bool(int, int, const char*)>& each) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), ::closedir);
  if (dir == nullptr) return;
  while (const dirent* const entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    int number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error != std::errc{} || end != name.data() + name.size()) continue;
    if (!each(number, ::dirfd(dir.get()), entry->d_name)) return;
  }
}

}  // namespace

void each_process(const std::function<void(pid_t)>& each) {
  each_number_in("/proc", [&](int process, int, const char*) {
    each(process);
    return true;
  });
}

void each_descriptor_of(pid_t process, const std::function<bool(int, std::string_view)>& each) {
  each_number_in("/proc/" + std::to_string(process) + "/fd", [&](int number, int folder, const char* name) {
    std::array<char, PATH_MAX> target{};
    const ssize_t n = ::readlinkat(folder, name, target.data(), target.size());
    return n <= 0 || each(number, {target.data(), static_cast<std::size_t>(n)});
  });
}

}  // namespace migrx
