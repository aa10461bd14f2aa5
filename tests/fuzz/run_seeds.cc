// A fuzz target without libFuzzer, for every build: its seeds, then mutations of them from a fixed random
// seed.
//
//   TARGET                     seeds and 300 mutations of each
//   TARGET --mutations N       more
//   TARGET --corpus DIR        the inputs in DIR as well, if it exists, and 10 mutations of each
//   TARGET --write-seeds DIR   a first corpus for libFuzzer
//   TARGET FILE...             these inputs, e.g. a finding
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/fuzz/fuzz_target.h"

namespace {

using Input = std::vector<std::byte>;

void run(const Input& input) {
  // Exactly as long as the input, so that reading beyond it is seen by a sanitizer.
  const Input exact(input.begin(), input.end());
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(exact.data()), exact.size());
}

Input mutate(Input input, const std::vector<Input>& seeds, std::mt19937_64& random) {
  for (uint64_t n = 1 + random() % 4; n > 0 && !input.empty(); --n) {
    const std::size_t at = random() % input.size();
    const auto place = input.begin() + static_cast<std::ptrdiff_t>(at);
    switch (random() % 6) {
      case 0:
        *place ^= static_cast<std::byte>(1U << random() % 8);
        break;
      case 1:
        *place = static_cast<std::byte>(random());
        break;
      case 2:
        input.erase(place);
        break;
      case 3:
        input.insert(place, static_cast<std::byte>(random()));
        break;
      case 4:
        input.resize(at);
        break;
      default: {
        const Input& other = seeds[random() % seeds.size()];
        const std::size_t from = random() % (other.size() + 1);
        input.resize(at);
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
      }
    }
  }
  return input;
}

int write_seeds(const std::string& folder) {
  int number = 0;
  for (const Input& seed : migrx::test::fuzz_seeds()) {
    std::ofstream out(folder + "/seed" + std::to_string(number++), std::ios::binary);
    out.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
    if (!out) return std::perror(folder.c_str()), 1;
  }
  return 0;
}

Input read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    std::perror(path.c_str());
    std::exit(1);
  }
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  Input input(text.size());
  std::memcpy(input.data(), text.data(), text.size());
  return input;
}

std::vector<Input> read_corpus(const std::string& folder) {
  std::vector<std::filesystem::path> paths;
  if (std::filesystem::is_directory(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());  // the same mutations everywhere
  std::vector<Input> inputs;
  for (const auto& path : paths) inputs.push_back(read_file(path));
  return inputs;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--write-seeds") == 0) return write_seeds(argv[2]);
  uint64_t mutations = 300;
  std::vector<Input> corpus;
  if (argc == 3 && std::strcmp(argv[1], "--mutations") == 0) {
    mutations = std::strtoull(argv[2], nullptr, 10);
  } else if (argc == 3 && std::strcmp(argv[1], "--corpus") == 0) {
    corpus = read_corpus(argv[2]);
  } else if (argc > 1) {
    for (int i = 1; i < argc; ++i) run(read_file(argv[i]));
    return 0;
  }
  const std::vector<Input> seeds = migrx::test::fuzz_seeds();
  std::mt19937_64 random(2024);
  for (const Input& seed : seeds) run(seed);
  for (uint64_t i = 0; i < mutations; ++i)
    for (const Input& seed : seeds) run(mutate(seed, seeds, random));
  constexpr int kMutationsOfCorpus = 10;
  for (const Input& input : corpus) {
    run(input);
    for (int i = 0; i < kMutationsOfCorpus; ++i) run(mutate(input, corpus, random));
  }
  std::printf("%zu seeds, %llu mutations of each, %zu inputs of the corpus\n", seeds.size(),
              static_cast<unsigned long long>(mutations), corpus.size());
  return 0;
}
