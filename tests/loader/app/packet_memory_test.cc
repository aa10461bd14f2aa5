#include "loader/app/packet_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

namespace migrx {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kPage = 2 * kMiB;

class PacketMemoryTest : public testing::Test {
 protected:
  PacketMemoryTest() : folder_(testing::TempDir() + "packet-memory-" + std::to_string(::getpid())) {
    std::filesystem::create_directory(folder_);
    facts_.pools = {{kAnyNode, kPage, 200, 128, 0}, {NodeId{0}, kPage, 200, 128, 0}};
  }
  ~PacketMemoryTest() override { std::filesystem::remove_all(folder_); }

  PacketMemory make(uint64_t mib) {
    return {folder_, {{NodeId{0}, mib * kMiB}}, facts_, "/sys/fs/cgroup/migrx"};
  }

  std::string folder_;
  MemoryFacts facts_;
};

TEST_F(PacketMemoryTest, what_a_mapping_has_reserved_is_not_free) {
  EXPECT_EQ(make(1).free_bytes(), 256 * kMiB);
  facts_.pools[0].reserved = 100;
  EXPECT_EQ(make(1).free_bytes(), 56 * kMiB);
  facts_.pools[0].reserved = 200;
  EXPECT_EQ(make(1).free_bytes(), 0U);
}

TEST_F(PacketMemoryTest, of_two_that_start_together_the_second_does_not_count_on_the_firsts_pages) {
  PacketMemory first = make(200);
  EXPECT_EQ(first.free_bytes(), 256 * kMiB);
  EXPECT_EQ(make(200).free_bytes(), 56 * kMiB);

  facts_.pools[0].free -= 80;  // the first has 160 MiB of its pages by now, and says so
  first.taken(NodeId{0}, 160 * kMiB);
  EXPECT_EQ(make(10).free_bytes(), 56 * kMiB);
  first.taken(NodeId{0}, 400 * kMiB);
  EXPECT_EQ(make(10).free_bytes(), 96 * kMiB);
  first.taken(NodeId{7}, kMiB);
}

TEST_F(PacketMemoryTest, who_takes_no_hugepages_keeps_none_from_others) {
  PacketMemory first = make(200);
  first.give_up();
  first.taken(NodeId{0}, kMiB);
  EXPECT_EQ(make(200).free_bytes(), 256 * kMiB);
}

TEST_F(PacketMemoryTest, a_control_group_with_less_has_less) {
  facts_.groups.hugepages[kPage] = {{"/sys/fs/cgroup/migrx/hugetlb.2MB.max", 64 * kMiB, 20 * kMiB},
                                    {"/sys/fs/cgroup/hugetlb.2MB.max", 200 * kMiB, 20 * kMiB}};
  EXPECT_EQ(make(1).free_bytes(), 44 * kMiB);
}

TEST_F(PacketMemoryTest, guests_memory_that_others_are_about_to_take_counts_too) {
  std::string problem;
  const auto guest = MemoryPromise::make(
      folder_, {"", 0, {{{NodeId{1}, kPage}, 150 * kMiB}}, {}},
      [](const PromisedBytes&) { return std::string(); }, problem);
  EXPECT_EQ(make(1).free_bytes(), 106 * kMiB);
}

TEST_F(PacketMemoryTest, without_a_folder_or_hugepages_nobody_is_told) {
  EXPECT_EQ(PacketMemory("", {{kAnyNode, kMiB}}, facts_, "").free_bytes(), 256 * kMiB);
  PacketMemory again("/nonexistent", {{kAnyNode, kMiB}}, facts_, "");
  EXPECT_EQ(again.free_bytes(), 256 * kMiB);
  again.taken(kAnyNode, kMiB);
  facts_.pools.clear();
  EXPECT_EQ(make(1).free_bytes(), 0U);
}

}  // namespace
}  // namespace migrx
