// Command lines as libvirt and people write them.
#include "loader/destination/incoming_qemu.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <initializer_list>

#include "numa/descriptor.h"
#include "numa/guest_memory.h"

namespace migrx {
namespace {

std::string line(std::initializer_list<const char*> words) {
  std::string text;
  for (const char* const word : words) text += std::string(word) + '\0';
  return text;
}

TEST(MemoryBackends, as_libvirt_writes_them) {
  const auto found = memory_backends(line(
      {"/usr/bin/qemu-system-x86_64", "-name", "guest=busy", "-object",
       R"({"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/libvirt/qemu/master-key.aes"})",
       "-object",
       R"({"qom-type":"memory-backend-memfd","id":"pc.ram","hugetlb":true,"share":true,"x-use-canonical-path-for-ramblock-id":false,"size":67108864})",
       "-object",
       R"({"qom-type":"memory-backend-file","id":"ram-node1","mem-path":"/dev/hugepages/libvirt/qemu/1-busy","prealloc":true,"size":1073741824})",
       "-incoming", "defer"}));
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].type, "memory-backend-memfd");
  EXPECT_EQ(found[0].id, "pc.ram");
  EXPECT_EQ(found[0].size, "67108864");
  EXPECT_EQ(found[0].share, true);
  EXPECT_EQ(found[1].path, "/dev/hugepages/libvirt/qemu/1-busy");
  EXPECT_EQ(found[1].share, std::nullopt);
}

TEST(MemoryBackends, as_people_write_them) {
  const auto found = memory_backends(
      line({"qemu", "--object", "memory-backend-file,id=mem,size=64M,share=on,mem-path=/dev/shm/a,,b",
            "-object", "qom-type=memory-backend-ram,id=r,size=1G,share=off"}));
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].path, "/dev/shm/a,b");
  EXPECT_EQ(found[0].share, true);
  EXPECT_EQ(found[1].type, "memory-backend-ram");
  EXPECT_EQ(found[1].share, false);
}

TEST(MemoryBackends, damaged_words_are_passed_over) {
  EXPECT_TRUE(memory_backends("").empty());
  EXPECT_TRUE(memory_backends(line({"qemu", "-object"})).empty());
  EXPECT_TRUE(memory_backends(line({"qemu", "-object", R"({"qom-type":"memory-backend-memfd")"})).empty());
  EXPECT_TRUE(
      memory_backends(line({"qemu", "-object", R"([1,2])", "-object", "", "-object", ",,,"})).empty());
  EXPECT_TRUE(memory_backends("-object").empty()) << "no NUL at its end";
  const auto odd = memory_backends(
      line({"-object", R"({"qom-type":"memory-backend-file","id":7,"size":{"a":1},"share":"on"})"}));
  ASSERT_EQ(odd.size(), 1U);
  EXPECT_EQ(odd[0].id, "7");
  EXPECT_EQ(odd[0].size, "");
  EXPECT_EQ(odd[0].share, true);
}

TEST(StartedToWait, is_a_word_of_its_own) {
  EXPECT_TRUE(started_to_wait(line({"qemu", "-incoming", "defer"})));
  EXPECT_FALSE(started_to_wait(line({"qemu", "-name", "my-incoming"})));
  EXPECT_FALSE(started_to_wait(""));
}

const MemoryBackend kMemfd{"memory-backend-memfd", "pc.ram", "", "67108864", true};
const MemoryBackend kInFolder{"memory-backend-file", "ram-node0", "/dev/hugepages", "2147483648", true};
const MemoryBackend kNamed{"memory-backend-file", "mem", "/dev/shm/vm0", "64M", true};

// "ID:descriptor:size" of each, or the problem.
std::string find(const std::vector<MemoryBackend>& backends, std::vector<OpenFile> files) {
  std::vector<BackendFile> found;
  std::string text = find_memory(backends, std::move(files), found);
  for (const BackendFile& one : found)
    text += one.id + ":" + std::to_string(one.number) + ":" + one.size + " ";
  return text;
}

TEST(FindMemory, by_what_each_descriptor_leads_to) {
  EXPECT_EQ(find({kNamed, kInFolder}, {{9, "/dev/shm/vm0"},
                                       {12, "socket:[5]"},
                                       {11, "/dev/hugepages/qemu_back_mem.ram-node0.aB3dE6 (deleted)"}}),
            "mem:9:64M ram-node0:11:2147483648 ");
}

// Their names do not tell whose they are: descriptors and objects have the same order.
TEST(FindMemory, memfds_in_the_order_of_the_command_line) {
  MemoryBackend second = kMemfd;
  second.id = "ram-node1";
  EXPECT_EQ(find({kMemfd, second}, {{20, "/memfd:memory-backend-memfd (deleted)"},
                                    {8, "/memfd:other (deleted)"},
                                    {10, "/memfd:memory-backend-memfd (deleted)"}}),
            "pc.ram:10:67108864 ram-node1:20:67108864 ");
  EXPECT_NE(find({kMemfd, second}, {{10, "/memfd:memory-backend-memfd (deleted)"}})
                .find("its memory ram-node1 is not among"),
            std::string::npos);
}

TEST(FindMemory, what_nobody_else_can_fill_is_refused) {
  const auto problem = [](const std::vector<MemoryBackend>& backends) {
    return find(backends, {{9, "/dev/shm/vm0"}, {10, "/memfd:memory-backend-memfd (deleted)"}});
  };
  EXPECT_NE(problem({}).find("private to it: give the domain"), std::string::npos);
  MemoryBackend backend = kNamed;
  backend.share = false;
  EXPECT_NE(problem({backend}).find("its memory mem is not shared"), std::string::npos);
  backend.share.reset();
  EXPECT_NE(problem({backend}).find("its memory mem is not shared"), std::string::npos) << "a file's default";
  backend = kMemfd;
  backend.share.reset();
  EXPECT_EQ(problem({backend}), "pc.ram:10:67108864 ") << "a memfd's default";
  backend = {"memory-backend-ram", "r", "", "64M", true};
  EXPECT_NE(problem({backend}).find("its memory r is not shared"), std::string::npos);
  backend = kNamed;
  backend.id = "a,size=1\x1b";
  EXPECT_NE(problem({backend}).find("is no block's name"), std::string::npos);
  EXPECT_EQ(problem({backend}).find('\x1b'), std::string::npos);
  backend = kNamed;
  backend.size = "1,unlink";
  EXPECT_EQ(problem({backend}), "mem:9: ");
}

// A file of another guest whose path begins alike is not taken for it.
TEST(FindMemory, similar_names_are_others) {
  for (const char* const other :
       {"/dev/shm/vm01", "/dev/hugepages/qemu_back_mem.ram-node0.aB3dE6x",
        "/dev/hugepages/qemu_back_mem.ram-node01.aB3dE6", "/dev/hugepages/x/qemu_back_mem.ram-node0.aB3dE6",
        "/dev/hugepages/qemu_back_mem.ram-node0.a/3dE6"}) {
    EXPECT_NE(find({kNamed}, {{9, other}}).find("is not among"), std::string::npos) << other;
    EXPECT_NE(find({kInFolder}, {{9, other}}).find("is not among"), std::string::npos) << other;
  }
}

// A process that waits as a QEMU does, with `path` open as its memory.
class Waiting {
 public:
  Waiting(const std::string& path, int flags) {
    listener_.reset(::socket(AF_INET, SOCK_STREAM, 0));
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    struct stat status {};
    EXPECT_EQ(::fstat(listener_.get(), &status), 0);
    inode_ = status.st_ino;
    std::array<int, 2> ready{};
    std::array<int, 2> hold{};
    EXPECT_EQ(::pipe(ready.data()), 0);
    EXPECT_EQ(::pipe2(hold.data(), O_CLOEXEC), 0);
    const std::string object = "memory-backend-file,id=mem,share=on,size=4K,mem-path=" + path;
    // The shell's own words are the command line that is read; its descriptor 9 is the memory. It ends with
    // us.
    process_ = ::fork();
    if (process_ == 0) {
      const int file = ::fcntl(::open(path.c_str(), flags), F_DUPFD_CLOEXEC, 20);
      const int tell = ::fcntl(ready[1], F_DUPFD_CLOEXEC, 20);
      ::dup2(::fcntl(hold[0], F_DUPFD_CLOEXEC, 20), 7);
      ::dup2(tell, 8);
      ::dup2(file, 9);
      ::execl("/bin/sh", "sh", "-c", "echo ready >&8; read end <&7", "-object", object.c_str(), "-incoming",
              "defer", static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::close(ready[1]);
    ::close(hold[0]);
    hold_.reset(hold[1]);
    std::array<char, 8> text{};
    EXPECT_GT(::read(ready[0], text.data(), text.size()), 0);
    ::close(ready[0]);
  }
  ~Waiting() {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  [[nodiscard]] pid_t process() const { return process_; }
  [[nodiscard]] uint64_t listener() const { return inode_; }

 private:
  Descriptor listener_;
  Descriptor hold_;
  uint64_t inode_ = 0;
  pid_t process_ = -1;
};

struct TakeMemory : ::testing::Test {
  void SetUp() override { std::ofstream(path) << std::string(4096, 'x'); }
  void TearDown() override { std::filesystem::remove(path); }
  const std::string path = "/dev/shm/migrx-incoming-qemu-test-" + std::to_string(::getpid());
};

TEST_F(TakeMemory, is_the_processes_own_descriptor) {
  const Waiting waiting(path, O_RDWR);
  const std::vector<pid_t> found = waiting_processes_with_socket(waiting.listener());
  EXPECT_EQ(found, std::vector<pid_t>{waiting.process()});
  TakenMemory memory;
  ASSERT_EQ(take_memory(waiting.process(), waiting.listener(), memory), "");
  EXPECT_EQ(memory.ram, std::vector<std::string>{"mem=fd:0,size=4K"});
  EXPECT_EQ(memory.user, ::geteuid());
  ASSERT_EQ(memory.files.size(), 1U);
  EXPECT_EQ(::fcntl(memory.files[0].get(), F_GETFL) & O_ACCMODE, O_RDWR);
}

// Root could open /proc/PID/fd/N for writing. The descriptor itself says what its owner may do.
TEST_F(TakeMemory, what_its_owner_may_only_read_stays_so) {
  const Waiting waiting(path, O_RDONLY);
  TakenMemory memory;
  ASSERT_EQ(take_memory(waiting.process(), waiting.listener(), memory), "");
  RamSpec spec;
  ASSERT_EQ(parse_ram_spec(memory.ram[0], spec, 1), "");
  spec.given = GivenFile{.descriptor = memory.files[0].get()};
  std::string problem;
  EXPECT_EQ(GuestMemory::open(spec, problem), nullptr);
  EXPECT_NE(problem.find("must be open for reading and writing"), std::string::npos) << problem;
}

TEST_F(TakeMemory, of_a_process_that_is_no_qemu_or_has_ended) {
  TakenMemory memory;
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM, 0));
  struct stat status {};
  ASSERT_EQ(::fstat(socket.get(), &status), 0);
  EXPECT_NE(take_memory(::getpid(), status.st_ino, memory).find("private"), std::string::npos);
  EXPECT_EQ(take_memory(::getpid(), 1, memory), "it ended a moment ago") << "another socket";
  EXPECT_EQ(take_memory(999'999'999, status.st_ino, memory), "it ended a moment ago");
  EXPECT_TRUE(waiting_processes_with_socket(1).empty());
}

}  // namespace
}  // namespace migrx
