// Which multifd channels of a session have said who they are.
#pragma once

#include <array>
#include <mutex>
#include <optional>

#include "loader/multifd/multifd_packet.h"

namespace migrx {

// One per session; channels claim their id from any worker. The lock is taken once per channel.
class MultifdRoster {
 public:
  // channels: the parameter multifd-channels, 1..kMultifdChannelsMax. uuid: the guest's, if it is known
  // beforehand; otherwise all channels must agree.
  explicit MultifdRoster(uint32_t channels, std::optional<MultifdUuid> uuid = std::nullopt)
      : channels_(channels), uuid_(uuid) {}

  [[nodiscard]] uint32_t channels() const noexcept { return channels_; }

  // `offset` only goes into the error.
  StreamError claim(const MultifdInit& init, uint64_t offset) noexcept;
  [[nodiscard]] uint32_t claimed() const noexcept;
  // For the comparison with the main channel's configuration/uuid; empty until a channel has come.
  [[nodiscard]] std::optional<MultifdUuid> uuid() const noexcept;

 private:
  const uint32_t channels_;
  mutable std::mutex mutex_;  // guards what follows
  std::optional<MultifdUuid> uuid_;
  std::array<bool, kMultifdChannelsMax> present_{};
  uint32_t claimed_ = 0;
};

}  // namespace migrx
