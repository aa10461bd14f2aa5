// Faults in the pages of a shared mapping, by processes that are made for it.
//
// Not by threads of this process: when the host or a control group runs out of memory in the middle, the
// kernel ends somebody. Here it ends a child that holds nothing (oom_score_adj 1000), and the caller gets an
// error. A child is also ended at once when the operator has had enough, wherever in the kernel it is. Pages
// of tmpfs stay charged to the control group of who touched them first, for as long as the file lives: the
// children can join the group of the QEMU that is going to run the guest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "numa/ids.h"

namespace migrx {

struct PopulateRequest {
  std::byte* data = nullptr;  // begins a page; mapped shared
  uint64_t bytes = 0;         // whole pages
  uint64_t page_bytes = 4096;
  bool clear = false;       // the pages may hold old bytes
  std::vector<CpuId> cpus;  // one child for each, pinned; empty: one child, not pinned
  std::string charge_to;    // folder of a control group, such as /sys/fs/cgroup/machine.slice; empty: ours
};

struct PopulateOutcome {
  enum class End : unsigned char {
    done,
    cancelled,  // go_on said so
    no_memory,  // the kernel ended a child
    failed,     // the kernel refused pages: `error`
  };
  End end = End::done;
  int error = 0;              // errno
  bool charged_here = false;  // the control group could not be joined; its pages are charged to ours
};

// Blocks until all pages are there, and mapped in this process as well. `go_on` is called about every 20 ms,
// from the calling thread, with bytes done so far; false ends it within some milliseconds. The children do
// nothing that a process with other threads may not do after fork().
[[nodiscard]] PopulateOutcome populate(const PopulateRequest& request,
                                       const std::function<bool(uint64_t)>& go_on);

}  // namespace migrx
