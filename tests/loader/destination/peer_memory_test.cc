#include "loader/destination/peer_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>

namespace migrx {
namespace {

const FileId kFile{makedev(0, 0x19), 1234};
constexpr uint64_t kBytes = 0x4000000;

// Lines as Linux prints them; the interesting one in the middle.
std::string maps_with(const std::string& lines) {
  return "55d0c0a00000-55d0c0b00000 r-xp 00000000 fe:01 77                         "
         "/usr/bin/qemu-system-x86_64\n" +
         lines +
         "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n"
         "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
}

TEST(FindMapping, shared_and_long_enough) {
  EXPECT_EQ(find_mapping(maps_with("7f0000000000-7f0004000000 rw-s 00000000 00:19 1234 /dev/shm/vm0\n"),
                         kFile, kBytes),
            MappingFault::none);
}

TEST(FindMapping, split_by_a_memory_policy_and_out_of_order) {
  const std::string maps = maps_with(
      "7f0002000000-7f0004000000 rw-s 02000000 00:19 1234 /dev/shm/vm0\n"
      "7f1000000000-7f1002000000 rw-s 00000000 00:19 1234 /dev/shm/vm0\n");
  EXPECT_EQ(find_mapping(maps, kFile, kBytes), MappingFault::none);
}

TEST(FindMapping, other_files_do_not_count) {
  const std::string maps = maps_with(
      "7f0000000000-7f0004000000 rw-s 00000000 00:19 1235 /dev/shm/vm0\n"
      "7f1000000000-7f1004000000 rw-s 00000000 01:19 1234 /dev/shm/vm0\n"
      "7f2000000000-7f2004000000 rw-s 00000000 00:1a 1234 /dev/shm/vm0\n");
  EXPECT_EQ(find_mapping(maps, kFile, kBytes), MappingFault::absent);
}

TEST(FindMapping, private_mapping) {
  EXPECT_EQ(find_mapping(maps_with("7f0000000000-7f0004000000 rw-p 00000000 00:19 1234 /dev/shm/vm0\n"),
                         kFile, kBytes),
            MappingFault::private_copy);
}

TEST(FindMapping, too_short_with_an_offset_or_with_a_hole) {
  EXPECT_EQ(find_mapping(maps_with("7f0000000000-7f0003fff000 rw-s 00000000 00:19 1234 /x\n"), kFile, kBytes),
            MappingFault::too_short);
  EXPECT_EQ(find_mapping(maps_with("7f0000000000-7f0004000000 rw-s 00001000 00:19 1234 /x\n"), kFile, kBytes),
            MappingFault::too_short);
  EXPECT_EQ(find_mapping(maps_with("7f0000000000-7f0001000000 rw-s 00000000 00:19 1234 /x\n"
                                   "7f0002000000-7f0004000000 rw-s 02000000 00:19 1234 /x\n"),
                         kFile, kBytes),
            MappingFault::too_short);
}

TEST(FindMapping, lines_of_another_form_are_passed_over) {
  const std::string line = "7f0000000000-7f0004000000 rw-s 00000000 00:19 1234 /dev/shm/vm0\n";
  EXPECT_EQ(find_mapping("", kFile, kBytes), MappingFault::absent);
  EXPECT_EQ(find_mapping("nonsense\n\n-\n7f-\n7f0000-7f1000\n7f0000-7f1000 rw-s\n" + line, kFile, kBytes),
            MappingFault::none);
  for (std::size_t cut = 0; cut + 17 < line.size(); ++cut)  // behind the inode nothing matters
    EXPECT_EQ(find_mapping(line.substr(0, std::min(cut, line.find(" /dev") - 4)), kFile, kBytes),
              MappingFault::absent);
  EXPECT_EQ(find_mapping("ffffffffffff0000-0 rw-s ffffffffffffffff 00:19 1234 /x\n"
                         "0-ffffffffffffffff rw-s ffffffffffffff00 00:19 1234 /x\n",
                         kFile, kBytes),
            MappingFault::private_copy);  // nothing shared that makes sense
}

// This process is its own destination: what its mapping of the file is decides.
class PeerMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    ASSERT_GE(file_, 0);
    ASSERT_EQ(::ftruncate(file_, kLength), 0);
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair_), 0);
  }
  void TearDown() override {
    if (mapping_ != MAP_FAILED) ::munmap(mapping_, mapped_);
    ::close(file_);
    ::unlink(path_.c_str());
    ::close(pair_[0]);
    ::close(pair_[1]);
  }
  void map(int flags, std::size_t length) {
    mapped_ = length;
    mapping_ = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, file_, 0);
    ASSERT_NE(mapping_, MAP_FAILED);
  }
  PeerMemory check() { return check_peer_memory(pair_[0], {file()}); }
  SharedFile file() {
    struct stat status {};
    EXPECT_EQ(::fstat(file_, &status), 0);
    return {"mem", path_, file_id_of(status), kLength};
  }
  // Somebody removes the file and makes another one of that name.
  void replace() {
    ::unlink(path_.c_str());
    const int other = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    ASSERT_GE(other, 0);
    ASSERT_EQ(::ftruncate(other, kLength), 0);
    ::close(other);
  }

  static constexpr std::size_t kLength = 1 << 20;
  const std::string path_ = "/dev/shm/migrx-peer-memory-test-" + std::to_string(::getpid());
  int file_ = -1;
  int pair_[2]{-1, -1};
  void* mapping_ = MAP_FAILED;
  std::size_t mapped_ = 0;
};

TEST_F(PeerMemoryTest, a_shared_mapping_is_right) {
  map(MAP_SHARED, kLength);
  const PeerMemory result = check();
  EXPECT_EQ(result.problem, "");
  EXPECT_EQ(result.warning, "");
}

TEST_F(PeerMemoryTest, a_private_mapping_is_refused_with_what_to_do) {
  map(MAP_PRIVATE, kLength);
  EXPECT_NE(check().problem.find("block mem share=on"), std::string::npos) << check().problem;
}

TEST_F(PeerMemoryTest, a_short_mapping_is_refused_with_the_size) {
  map(MAP_SHARED, kLength / 2);
  EXPECT_NE(check().problem.find("size=1048576"), std::string::npos) << check().problem;
}

// Its path leads elsewhere, and the destination has the very memory that migrx loads.
TEST_F(PeerMemoryTest, a_file_replaced_after_both_have_opened_it_is_right) {
  map(MAP_SHARED, kLength);
  replace();
  EXPECT_EQ(check().problem, "");
  EXPECT_NE(file_replaced({file()}).find("was removed or replaced"), std::string::npos);
}

// A guest was lost here: the path leads to what the destination maps, and migrx had loaded another file.
TEST_F(PeerMemoryTest, a_file_replaced_before_the_destination_opened_it_is_refused) {
  const SharedFile ours = file();
  replace();
  const int theirs = ::open(path_.c_str(), O_RDWR);
  ASSERT_GE(theirs, 0);
  mapped_ = kLength;
  mapping_ = ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_SHARED, theirs, 0);
  ::close(theirs);
  ASSERT_NE(mapping_, MAP_FAILED);
  const std::string problem = check_peer_memory(pair_[0], {ours}).problem;
  EXPECT_NE(problem.find("was removed or replaced"), std::string::npos) << problem;
}

// What a process calls itself decides nothing: a QEMU with -name x,process=vm0 is one, too.
TEST_F(PeerMemoryTest, a_process_that_maps_nothing_is_refused_whatever_its_name) {
  std::array<char, 16> name{};
  ASSERT_EQ(::prctl(PR_GET_NAME, name.data()), 0);
  for (const char* const other : {"vm0", "qemu-system-x86"}) {
    ASSERT_EQ(::prctl(PR_SET_NAME, other), 0);
    const PeerMemory result = check();
    EXPECT_NE(result.problem.find("does not map " + path_), std::string::npos) << result.problem;
    EXPECT_NE(result.problem.find("test_loader_destination"), std::string::npos) << result.problem;
    EXPECT_NE(result.problem.find("--destination-pid"), std::string::npos) << result.problem;
    EXPECT_EQ(result.warning, "");
  }
  ASSERT_EQ(::prctl(PR_SET_NAME, name.data()), 0);
}

TEST_F(PeerMemoryTest, what_cannot_be_seen_is_a_warning) {
  const PeerMemory result = check_peer_memory(-1, {{"mem", path_, {}, kLength}});
  EXPECT_EQ(result.problem, "");
  EXPECT_NE(result.warning, "");
  EXPECT_EQ(check_peer_memory(-1, {}).warning, "");
}

}  // namespace
}  // namespace migrx
