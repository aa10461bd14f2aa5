#include "loader/session/loader_worker.h"

#include <algorithm>

namespace migrx {

LoaderWorker::LoaderWorker(uint32_t channels_max) : channels_max_(channels_max), incoming_(channels_max) {
  channels_.reserve(channels_max);
}

// Seldom: a channel came or went.
void LoaderWorker::share_out() noexcept {
  const auto channels_of = [this](const ChannelDirectory& session) {
    return static_cast<uint32_t>(std::count_if(channels_.begin(), channels_.end(), [&](const Served& served) {
      return &served.channel->directory() == &session;
    }));
  };
  uint32_t most = 0;
  for (const Served& served : channels_) most = std::max(most, channels_of(served.channel->directory()));
  for (Served& served : channels_)
    served.slices_max = kSlicesPerTurn * std::min(most / channels_of(served.channel->directory()), kShareMax);
}

uint32_t LoaderWorker::do_work(uint64_t now_ns) noexcept {
  uint32_t work = 0;
  bool shares_stale = false;
  Channel* arrived = nullptr;
  while (channels_.size() < channels_max_ && incoming_.pop(arrived)) {
    channels_.push_back({arrived});
    ++work;
    shares_stale = true;
  }
  if (shares_stale) [[unlikely]]
    share_out();
  for (WorkerTask* const task : tasks_) work += task->do_work();
  const uint64_t idle_ns = kIdleNsPerChannel * channels_.size();
  for (std::size_t i = 0; i < channels_.size();) {
    Served& served = channels_[i];
    if (now_ns < served.not_before_ns && (busy_ || served.flows)) {
      ++i;
      continue;
    }
    const uint32_t done = served.channel->do_work(served.slices_max);
    work += done;
    served.flows = done > 0;
    served.not_before_ns = now_ns + (done == 0 ? idle_ns : done < kSlicesWorthALook ? kGatherNs : 0);
    if (served.channel->over()) [[unlikely]] {
      served.channel->set_let_go();
      channels_[i] = channels_.back();
      channels_.pop_back();
      let_go_.fetch_add(1, std::memory_order_release);  // pairs with serving(): we touch the channel no more
      share_out();
    } else {
      ++i;
    }
  }
  busy_ = work > 0;
  return work;
}

}  // namespace migrx
