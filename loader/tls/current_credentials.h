// The credentials that the next handshake begins with, and what became of files that changed: the helper
// thread reads them, the control thread tells the operator.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "loader/tls/credential_store.h"

namespace migrx {

class CurrentCredentials {
 public:
  explicit CurrentCredentials(std::unique_ptr<TlsCredentialStore> store) noexcept;

  // Never nullptr. One thread at a time: it reads files.
  [[nodiscard]] std::shared_ptr<const TlsCredentials> get();
  // The next sentence for the operator. Any thread, as below.
  [[nodiscard]] std::optional<std::string> take_warning();
  // How often changed credentials were read.
  [[nodiscard]] uint32_t reloads() const noexcept { return reloads_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t kWarningsMax = 16;

  const std::unique_ptr<TlsCredentialStore> store_;
  std::mutex mutex_;  // warnings_; held for moments
  std::deque<std::string> warnings_;
  std::atomic<uint32_t> reloads_{0};
};

}  // namespace migrx
