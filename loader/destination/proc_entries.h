// Processes of this host, and what their descriptors lead to: entries of /proc whose names are numbers.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string_view>

namespace migrx {

// Calls `each` with every process that can be seen. Any thread.
void each_process(const std::function<void(pid_t)>& each);

// Calls `each` with every descriptor of a process and its link's text ("socket:[4711]", a path), which lasts
// for the call, until `each` returns false. Nothing where the process has ended, or may not be looked at.
void each_descriptor_of(pid_t process, const std::function<bool(int, std::string_view)>& each);

}  // namespace migrx
