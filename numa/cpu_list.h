// Lists of CPUs in Linux's form: "2,4-7".
#pragma once

#include <string>
#include <vector>

#include "numa/ids.h"

namespace migrx {

// Ascending, without repetition. Empty result: `out` is filled; otherwise what is wrong with the text.
[[nodiscard]] std::string parse_cpu_list(const std::string& text, std::vector<CpuId>& out);
[[nodiscard]] std::string format_cpu_list(std::vector<CpuId> cpus);

// Whether the CPU is among them, in whatever order.
[[nodiscard]] bool has(const std::vector<CpuId>& cpus, CpuId cpu);

}  // namespace migrx
