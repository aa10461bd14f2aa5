#include "numa/process_user.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>

namespace migrx {

std::optional<std::array<uid_t, 4>> users_of(pid_t process) {
  if (process <= 0) return std::nullopt;
  std::ifstream status("/proc/" + std::to_string(process) + "/status");
  for (std::string line; std::getline(status, line);) {
    std::array<uint32_t, 4> users{};
    if (std::sscanf(line.c_str(), "Uid: %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32, &users[0], &users[1],
                    &users[2], &users[3]) == 4)
      return users;
  }
  return std::nullopt;
}

std::optional<uid_t> only_user_of(pid_t process) {
  const auto users = users_of(process);
  if (!users || std::any_of(users->begin(), users->end(), [&](uid_t user) { return user != users->front(); }))
    return std::nullopt;
  return users->front();
}

std::optional<ucred> peer_credentials(int socket) noexcept {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return std::nullopt;
  if (peer.uid == static_cast<uid_t>(-1)) return std::nullopt;
  return peer;
}

}  // namespace migrx
