#include "loader/tls/credential_store.h"

#include <sys/stat.h>

#include <ctime>
#include <utility>

namespace migrx {
namespace {

constexpr int64_t kTryAgainS = 1;  // a broken set that does not change: not at each connection of a scanner

int64_t ns_of(const timespec& time) noexcept {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

TlsCredentialStore::TlsCredentialStore(TlsCredsOptions options)
    : options_(std::move(options)), files_(TlsCredentials::files(options_)) {}

std::unique_ptr<TlsCredentialStore> TlsCredentialStore::open(const TlsCredsOptions& options,
                                                             std::string& problem,
                                                             std::vector<std::string>& warnings) {
  std::unique_ptr<TlsCredentialStore> store(new TlsCredentialStore(options));
  store->loaded_state_ = store->look();  // first: what changes while it is read is read again
  store->loaded_ = TlsCredentials::load(options, problem);
  if (store->loaded_ == nullptr) return nullptr;
  (void)store->current(std::time(nullptr), warnings);
  return store;
}

TlsCredentialStore::FolderState TlsCredentialStore::look() const {
  FolderState state;
  for (const std::string& path : files_) {
    struct stat st {};
    FileState file;
    if (::stat(path.c_str(), &st) == 0)
      file = {true, st.st_dev, st.st_ino, st.st_size, ns_of(st.st_mtim), ns_of(st.st_ctim)};
    state.push_back(file);
  }
  return state;
}

std::shared_ptr<const TlsCredentials> TlsCredentialStore::current(int64_t now_unix_s,
                                                                  std::vector<std::string>& warnings) {
  if (const FolderState state = look(); state != loaded_state_) {
    if (state != tried_state_ || now_unix_s < tried_unix_s_ || now_unix_s - tried_unix_s_ >= kTryAgainS)
      reload(now_unix_s, state, warnings);
  } else {
    tried_state_.clear();  // somebody put the old files back
    problem_.clear();
  }
  for (const TlsCredentials::Lifetime& lifetime : loaded_->lifetimes()) {
    std::string warning = lifetime.warning(now_unix_s);
    if (!warning.empty() && told_.insert(warning).second) warnings.push_back(std::move(warning));
  }
  return loaded_;
}

void TlsCredentialStore::reload(int64_t now_unix_s, const FolderState& state,
                                std::vector<std::string>& warnings) {
  std::string problem;
  std::shared_ptr<const TlsCredentials> next = TlsCredentials::load(options_, problem);
  if (next != nullptr && loaded_->has_revocations() && !next->has_revocations()) {
    problem = options_.dir + "/ca-crl.pem is gone, and revoked certificates would be accepted";
    next = nullptr;
  }
  if (next == nullptr) {
    if (problem != problem_)
      warnings.push_back("TLS: the new credentials are not used, and the old ones stay: " + problem);
    problem_ = std::move(problem);
    tried_state_ = state;
    tried_unix_s_ = now_unix_s;
    return;
  }
  loaded_ = std::move(next);
  loaded_state_ = state;
  tried_state_.clear();
  problem_.clear();
  told_.clear();
  ++reloads_;
}

}  // namespace migrx
