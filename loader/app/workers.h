// The loader's side of one process: workers, what they do besides their channels, and what channels share.
#pragma once

#include <memory>
#include <vector>

#include "loader/app/session_options.h"
#include "loader/main/compress_jobs.h"
#include "loader/ram/node_router.h"
#include "loader/session/loader_worker.h"
#include "loader/session/session.h"
#include "numa/placement.h"

namespace migrx {

// The stream's settings from the options. poll_cores: that connections may come by. Throws SetupError
// (loader/app/setup_error.h).
[[nodiscard]] SessionSettings session_settings(const SessionOptions& options, uint32_t poll_cores);

class Workers {
 public:
  // channels_max: per worker. Throws SetupError when MIGRX_FORCE_KERNEL names a kernel that cannot run here.
  Workers(const Placement& placement, uint32_t channels_max);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  [[nodiscard]] LoaderWorker& worker(uint32_t i) noexcept { return *workers_[i]; }
  [[nodiscard]] std::vector<LoaderWorker*> pointers() const;
  [[nodiscard]] const PageKernels& kernels() const noexcept { return *kernels_; }
  [[nodiscard]] CompressJobs& compress() noexcept { return *compress_; }
  // With workers on several nodes, channels reach another node's memory through a worker of that node.
  [[nodiscard]] SessionSettings with_routers(SessionSettings settings) const;
  // CPU of each worker.
  [[nodiscard]] std::vector<int> cpus(const Placement& placement) const;

 private:
  class CompressTask;
  class LaneTask;

  const PageKernels* kernels_ = nullptr;
  std::unique_ptr<CompressJobs> compress_;
  std::vector<std::unique_ptr<LoaderWorker>> workers_;
  std::vector<std::unique_ptr<CopyLane>> lanes_;
  std::vector<std::unique_ptr<NodeRouter>> routers_;
  std::vector<std::unique_ptr<WorkerTask>> tasks_;
};

}  // namespace migrx
