#include "loader/tls/current_credentials.h"

#include <ctime>
#include <utility>
#include <vector>

namespace migrx {

CurrentCredentials::CurrentCredentials(std::unique_ptr<TlsCredentialStore> store) noexcept
    : store_(std::move(store)) {}

std::shared_ptr<const TlsCredentials> CurrentCredentials::get() {
  std::vector<std::string> warnings;
  std::shared_ptr<const TlsCredentials> credentials = store_->current(std::time(nullptr), warnings);
  reloads_.store(store_->reloads(), std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  for (std::string& warning : warnings)
    if (warnings_.size() < kWarningsMax) warnings_.push_back(std::move(warning));
  return credentials;
}

std::optional<std::string> CurrentCredentials::take_warning() {
  const std::lock_guard lock(mutex_);
  if (warnings_.empty()) return std::nullopt;
  std::string text = std::move(warnings_.front());
  warnings_.pop_front();
  return text;
}

}  // namespace migrx
