#include "loader/control/client_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "loader/control/peer_rights.h"
#include "numa/process_user.h"
#include "tests/loader/control/other_user.h"

namespace migrx {
namespace {

namespace fs = std::filesystem;

using test::kNobody;

class ClientFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    fs::create_directories(allowed_);
    ASSERT_EQ(::chmod(base_.c_str(), 0755), 0);
    ASSERT_EQ(::chown(allowed_.c_str(), kNobody, kNobody), 0);
    nobody_.uid = kNobody;
    nobody_.gid = kNobody;
    put(base_ + "/roots", 0666);  // whose rights would do: it is the place that forbids it
  }
  void TearDown() override { fs::remove_all(base_); }
  static void put(const std::string& path, mode_t mode, uid_t owner = 0) {
    std::ofstream(path) << "bytes";
    ASSERT_EQ(::chown(path.c_str(), owner, owner), 0);
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
  }
  std::string open(const std::string& path) {
    out_ = ClientFile{};
    return files_.open(nobody_, path, 0600, out_);
  }
  const std::string base_ = "/dev/shm/migrx-client-files-" + std::to_string(::getpid());
  const std::string allowed_ = base_ + "/allowed";
  const ClientFiles files_{{allowed_ + "/", base_ + "/other"}};
  ControlPeer nobody_;
  ClientFile out_;
};

TEST_F(ClientFilesTest, one_that_is_there_is_opened_and_held) {
  put(allowed_ + "/vm0", 0600, kNobody);
  ASSERT_EQ(open(allowed_ + "/vm0"), "");
  EXPECT_EQ(out_.id, file_id_at(allowed_ + "/vm0"));
  EXPECT_FALSE(out_.made);
  EXPECT_EQ(out_.before, FileClaim::Before::idle);
  EXPECT_EQ(::fcntl(out_.file.get(), F_GETFL) & O_ACCMODE, O_RDWR);
  EXPECT_EQ(::fcntl(out_.file.get(), F_GETFD), FD_CLOEXEC);
  files_.remove(nobody_, out_);  // it was not made here
  EXPECT_TRUE(fs::exists(allowed_ + "/vm0"));
}

TEST_F(ClientFilesTest, one_that_is_not_there_is_made_as_the_clients) {
  const mode_t before = ::umask(077);
  EXPECT_EQ(files_.open(nobody_, allowed_ + "/new", 0660, out_), "");
  ::umask(before);
  EXPECT_TRUE(out_.made);
  EXPECT_EQ(out_.before, FileClaim::Before::missing);
  struct stat status {};
  ASSERT_EQ(::stat((allowed_ + "/new").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, kNobody);
  EXPECT_EQ(status.st_mode & 07777, 0660U);
  files_.remove(nobody_, out_);
  EXPECT_FALSE(fs::exists(allowed_ + "/new"));
}

TEST_F(ClientFilesTest, a_place_that_is_not_configured_is_refused) {
  for (const std::string& path :
       {base_ + "/roots", base_ + "/allowed", base_ + "/allowed/", base_ + "/allowedly/x",
        std::string("relative"), std::string(), allowed_ + std::string("/x\0y", 4)})
    EXPECT_NE(open(path), "") << path;
  EXPECT_NE(open(base_ + "/roots").find("may not name anything there"), std::string::npos);
  const ClientFiles none{{}};
  EXPECT_NE(none.open(nobody_, allowed_ + "/x", 0600, out_).find("there: send the descriptor of guest RAM"),
            std::string::npos);
  EXPECT_NE(open(base_ + "/roots").find("name one below " + allowed_ + "/ or "), std::string::npos);
  EXPECT_FALSE(fs::exists(allowed_ + "/x"));
}

TEST_F(ClientFilesTest, no_way_leads_out) {
  EXPECT_NE(open(allowed_ + "/../roots").find("leads out"), std::string::npos);
  EXPECT_NE(open(allowed_ + "//../roots").find("leads out"), std::string::npos);
  fs::create_symlink("../roots", allowed_ + "/relative");
  fs::create_symlink(base_ + "/roots", allowed_ + "/absolute");
  fs::create_symlink(base_, allowed_ + "/folder");
  fs::create_symlink("/proc/self/root" + base_ + "/roots", allowed_ + "/magic");
  fs::create_symlink("relative", allowed_ + "/twice");
  for (const char* const name :
       {"/relative", "/absolute", "/folder/roots", "/folder/new", "/magic", "/twice"})
    EXPECT_NE(open(allowed_ + name), "") << name;
  EXPECT_FALSE(fs::exists(base_ + "/new"));
  // One that stays inside may be used.
  put(allowed_ + "/vm0", 0600, kNobody);
  fs::create_symlink("vm0", allowed_ + "/inside");
  EXPECT_EQ(open(allowed_ + "/inside"), "");
}

TEST_F(ClientFilesTest, a_mount_on_the_way_is_refused) {
  fs::create_directory(allowed_ + "/mounted");
  if (::mount("none", (allowed_ + "/mounted").c_str(), "tmpfs", 0, "mode=0777") != 0)
    GTEST_SKIP() << "cannot mount";
  EXPECT_NE(open(allowed_ + "/mounted/vm0").find("mount"), std::string::npos);
  ASSERT_EQ(::umount((allowed_ + "/mounted").c_str()), 0);
}

TEST_F(ClientFilesTest, the_clients_rights_count_and_not_ours) {
  put(allowed_ + "/roots", 0600);
  EXPECT_NE(open(allowed_ + "/roots").find("Permission denied"), std::string::npos);
  put(allowed_ + "/readable", 0644);
  EXPECT_NE(open(allowed_ + "/readable").find("Permission denied"), std::string::npos);
  fs::create_directory(allowed_ + "/closed");
  ASSERT_EQ(::chmod((allowed_ + "/closed").c_str(), 0700), 0);
  put(allowed_ + "/closed/vm0", 0666);
  EXPECT_NE(open(allowed_ + "/closed/vm0").find("Permission denied"), std::string::npos);
  EXPECT_NE(open(allowed_ + "/closed/new").find("Permission denied"), std::string::npos);
  EXPECT_FALSE(fs::exists(allowed_ + "/closed/new"));
  // Above the configured folder, too.
  ASSERT_EQ(::chmod(base_.c_str(), 0700), 0);
  EXPECT_NE(open(allowed_ + "/vm0"), "");
}

TEST_F(ClientFilesTest, what_is_no_regular_file_is_refused_and_nothing_happens_to_it) {
  ASSERT_EQ(::mkfifo((allowed_ + "/fifo").c_str(), 0666), 0);
  ASSERT_EQ(::mknod((allowed_ + "/device").c_str(), S_IFCHR | 0666, makedev(1, 7)), 0);  // /dev/full
  fs::create_directory(allowed_ + "/folder");
  const Descriptor reader(::open((allowed_ + "/fifo").c_str(), O_RDONLY | O_NONBLOCK));
  for (const char* const name : {"/fifo", "/device", "/folder"}) {
    const std::string problem = open(allowed_ + name);
    EXPECT_NE(problem.find("regular file"), std::string::npos) << problem;
    EXPECT_FALSE(out_.file);
  }
}

TEST_F(ClientFilesTest, a_socket_is_found_with_the_clients_rights_and_held) {
  const std::string path = allowed_ + "/vm0.sock";
  const test::OtherUser theirs(kNobody, [&] { test::listen_at(path); });
  Descriptor found;
  ASSERT_EQ(files_.open_socket(nobody_, path, found), "");
  // Whatever its path leads to by now.
  fs::rename(path, allowed_ + "/away");
  const test::OtherUser roots(0, [&] {
    test::listen_at(path);
    (void)::chmod(path.c_str(), 0600);
  });
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = test::unix_address("/proc/self/fd/" + std::to_string(found.get()));
  ASSERT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const std::optional<ucred> peer = peer_credentials(socket.get());
  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->uid, kNobody);
  EXPECT_EQ(peer->pid, theirs.pid());
  Descriptor none;
  const std::string problem = files_.open_socket(nobody_, path, none);
  EXPECT_NE(problem.find("Permission denied for this client's user"), std::string::npos) << problem;
  EXPECT_FALSE(none);
}

TEST_F(ClientFilesTest, what_is_no_socket_or_lies_elsewhere_is_refused) {
  put(allowed_ + "/file", 0600, kNobody);
  const test::OtherUser elsewhere(0, [&] {
    test::listen_at(base_ + "/sock");
    (void)::chmod((base_ + "/sock").c_str(), 0666);
  });
  fs::create_symlink(base_ + "/sock", allowed_ + "/link");
  Descriptor found;
  for (const std::string& path :
       {allowed_ + "/file", allowed_ + "/none", allowed_ + "/link", allowed_ + "/../sock", base_ + "/sock"}) {
    EXPECT_NE(files_.open_socket(nobody_, path, found), "") << path;
    EXPECT_FALSE(found);
  }
}

// The file that was looked at is the one that is opened, whatever its name leads to by then.
TEST_F(ClientFilesTest, one_that_is_swapped_all_the_time_is_never_another_kind_of_file) {
  put(allowed_ + "/good", 0600, kNobody);
  const FileId good = file_id_at(allowed_ + "/good");
  fs::create_hard_link(allowed_ + "/good", allowed_ + "/vm0");
  std::atomic<bool> end{false};
  std::thread swapper([&] {
    for (int i = 0; !end; ++i) {
      std::error_code ignored;
      const std::string next = allowed_ + "/next";
      if (i % 3 == 0) fs::create_hard_link(allowed_ + "/good", next, ignored);
      if (i % 3 == 1) fs::create_symlink(base_ + "/roots", next, ignored);
      if (i % 3 == 2) (void)::mkfifo(next.c_str(), 0666);
      fs::rename(next, allowed_ + "/vm0", ignored);
    }
  });
  int opened = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  while (std::chrono::steady_clock::now() < until) {
    if (!open(allowed_ + "/vm0").empty()) continue;
    ++opened;
    struct stat status {};
    ASSERT_EQ(::fstat(out_.file.get(), &status), 0);
    ASSERT_TRUE(S_ISREG(status.st_mode));
    if (!out_.made) {
      ASSERT_EQ(file_id_of(status), good);
    }
  }
  end = true;
  swapper.join();
  EXPECT_GT(opened, 0);
}

TEST_F(ClientFilesTest, what_took_the_place_of_one_that_was_made_is_not_removed) {
  fs::create_directory(allowed_ + "/sub");
  ASSERT_EQ(::chown((allowed_ + "/sub").c_str(), kNobody, kNobody), 0);
  ASSERT_EQ(open(allowed_ + "/sub/vm0"), "");
  // Its folder leads elsewhere now, where a file of that name is.
  fs::rename(allowed_ + "/sub", allowed_ + "/moved");
  fs::create_symlink(base_, allowed_ + "/sub");
  put(base_ + "/vm0", 0666);
  files_.remove(nobody_, out_);
  EXPECT_TRUE(fs::exists(base_ + "/vm0"));
  EXPECT_TRUE(fs::exists(allowed_ + "/moved/vm0"));
  fs::remove(allowed_ + "/sub");
  fs::rename(allowed_ + "/moved", allowed_ + "/sub");
  fs::rename(allowed_ + "/sub/vm0", allowed_ + "/sub/kept");
  put(allowed_ + "/sub/vm0", 0600, kNobody);
  files_.remove(nobody_, out_);
  EXPECT_TRUE(fs::exists(allowed_ + "/sub/vm0"));
}

TEST_F(ClientFilesTest, root_may_name_any_path) {
  put(base_ + "/secret", 0600);
  EXPECT_EQ(files_.open(this_process(), base_ + "/secret", 0600, out_), "");
  EXPECT_EQ(files_.open(this_process(), base_ + "/made", 0640, out_), "");
  EXPECT_TRUE(out_.made);
  files_.remove(this_process(), out_);
  EXPECT_FALSE(fs::exists(base_ + "/made"));
  EXPECT_NE(files_.open(this_process(), base_, 0600, out_), "");
}

}  // namespace
}  // namespace migrx
