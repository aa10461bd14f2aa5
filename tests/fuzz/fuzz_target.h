// What each fuzz target defines: the function libFuzzer calls, and inputs to begin with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size);

namespace migrx::test {

// Valid inputs that reach far; run_seeds.cc mutates them, or writes them to a folder as libFuzzer's first
// corpus.
[[nodiscard]] std::vector<std::vector<std::byte>> fuzz_seeds();

}  // namespace migrx::test
