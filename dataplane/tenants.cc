#include "dataplane/tenants.h"

#include <algorithm>

#include "dataplane/poll_core.h"

namespace migrx {

class Tenants::SilentPeersOf final : public SilentPeers {
 public:
  SilentPeersOf(const std::vector<PollCore*>& cores, Tenant& tenant) : cores_(cores), tenant_(tenant) {}

  void ask() noexcept override {
    tenant_.silence_asked().fetch_add(1, std::memory_order_relaxed);
    for (PollCore* const core : cores_) core->look_at_tenants();
  }

  [[nodiscard]] std::optional<uint64_t> oldest_ns() const noexcept override {
    const uint32_t asked = tenant_.silence_asked().load(std::memory_order_relaxed);
    uint64_t oldest_ns = kNever;
    for (uint32_t core = 0; core < tenant_.cores(); ++core) {
      const Tenant::Silence& silence = tenant_.silence(core);
      // pairs with PollCore::tell_of_silent_peers()
      if (silence.answered.load(std::memory_order_acquire) != asked) return std::nullopt;
      oldest_ns = std::min(oldest_ns, silence.oldest_ns.load(std::memory_order_relaxed));
    }
    return oldest_ns;
  }

 private:
  const std::vector<PollCore*>& cores_;
  Tenant& tenant_;
};

Tenant* Tenants::open(const TenantConfig& config) {
  collect();
  if (tenants_.size() >= kMax || listening_on(config.port) != nullptr) return nullptr;
  tenants_.push_back(
      {std::make_unique<Tenant>(config, static_cast<uint32_t>(cores_.size()), next_id_++), true});
  Tenant* const tenant = tenants_.back().tenant.get();
  for (PollCore* const core : cores_) core->request({TenantChange::Kind::open, tenant});
  return tenant;
}

void Tenants::close(Tenant& tenant) {
  for (Held& held : tenants_) {
    if (held.tenant.get() != &tenant || !held.open) continue;
    held.open = false;
    for (PollCore* const core : cores_) core->request({TenantChange::Kind::close, &tenant});
  }
}

void Tenants::keep_silent(Tenant& tenant) {
  for (PollCore* const core : cores_) core->request({TenantChange::Kind::keep_silent, &tenant});
}

void Tenants::close_all() {
  for (const Held& held : tenants_)
    if (held.open) close(*held.tenant);
}

void Tenants::collect() {
  std::erase_if(tenants_,
                [](const Held& held) { return !held.open && held.tenant->all(Tenant::State::gone); });
}

Tenant* Tenants::listening_on(uint16_t port) const noexcept {
  for (const Held& held : tenants_)
    if (held.open && held.tenant->config().port == port) return held.tenant.get();
  return nullptr;
}

uint64_t Tenants::places_promised() const noexcept {
  uint64_t promised = 0;
  for (const Held& held : tenants_) {
    uint32_t most = held.open ? held.tenant->config().places_max : 0;
    for (uint32_t core = 0; core < held.tenant->cores(); ++core)
      most = std::max(most, held.tenant->places(core));
    promised += most;
  }
  return promised;
}

std::unique_ptr<SilentPeers> Tenants::silent_peers(Tenant& tenant) {
  return std::make_unique<SilentPeersOf>(cores_, tenant);
}

}  // namespace migrx
