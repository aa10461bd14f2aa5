#include "loader/app/runtime_folder.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>

#include "loader/app/setup_error.h"

namespace migrx {
namespace {

namespace fs = std::filesystem;

LostConnection lost(uint16_t port) {
  LostConnection connection;
  connection.tuple = {Ipv4Address{0x0a4d0001}, Ipv4Address{0x0a4d0002}, port, 4444};
  connection.next_hop = Ipv4Address{0x0a4d0001};
  return connection;
}

LostRecord record() {
  LostRecord record;
  record.host = this_host();
  record.process = ::getpid();
  record.until_ns = boottime_ns() + 60'000'000'000;
  record.ports = {"net_tap0,iface=mig0"};
  record.addresses = {"10.77.0.2/24"};
  record.gateway = "10.77.0.1";
  record.vlan = uint16_t{7};
  record.mtu = 9000;
  record.lost = {lost(1), lost(2)};
  record.killed = true;
  return record;
}

TEST(LostRecord, comes_back_from_its_text_and_nothing_else_does) {
  const std::string text = to_text(record());
  const auto again = lost_record_from(text);
  ASSERT_TRUE(again);
  EXPECT_EQ(to_text(*again), text);
  EXPECT_EQ(again->lost, record().lost);
  EXPECT_TRUE(again->killed);
  for (std::size_t n = 0; n < text.size(); ++n) EXPECT_FALSE(lost_record_from(text.substr(0, n))) << n;
  EXPECT_FALSE(lost_record_from(text + "x"));
  EXPECT_FALSE(lost_record_from("migrx-lost 1\nmtu 1\nend\n"));
  EXPECT_FALSE(lost_record_from("migrx-lost 1\nlost 1 2 3\nend\n"));
  EXPECT_FALSE(lost_record_from(std::string(kLostRecordBytesMax + 1, 'x')));
}

TEST(LostRecord, who_is_in_the_way) {
  const LostRecord one = record();
  LostRecord other = record();
  EXPECT_TRUE(in_the_way(one, other));
  other.addresses = {"10.77.0.3/24"};
  EXPECT_TRUE(in_the_way(one, other));  // the port
  other.ports = {"net_tap5,iface=mig5"};
  EXPECT_FALSE(in_the_way(one, other));
  other.addresses = {"10.77.0.3/24,fd00::2/64"};
  LostRecord six = record();
  six.addresses = {"10.77.0.4/24,fd00:0:0::2/48"};
  EXPECT_TRUE(in_the_way(six, other));  // an address, written in another way
  six.addresses = {"10.77.0.4/24,fd00::3/64"};
  EXPECT_FALSE(in_the_way(six, other));
  other.addresses = {"10.77.0.2/16"};
  EXPECT_TRUE(in_the_way(one, other));  // the address
  other.ports = one.ports;
  other.host.network_namespace = "4:1";
  EXPECT_FALSE(in_the_way(one, other));  // names and addresses of another namespace
  LostRecord pci = record();
  pci.ports = {"0000:3B:00.0,rx_queues=2"};
  other.ports = {"pci:3b:00.0"};
  EXPECT_TRUE(in_the_way(pci, other));  // the host has one of these
  other.ports = {"3b:00.1"};
  EXPECT_FALSE(in_the_way(pci, other));
}

class RuntimeFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::temp_directory_path() / ("migrx-run-" + std::to_string(::getpid()) + std::string(120, 'x'));
    std::string problem;
    folder_ = RuntimeFolder::open(path_, problem);
    ASSERT_TRUE(folder_) << problem;
  }
  void TearDown() override { fs::remove_all(path_); }
  // A process that stays behind; with `after` it serves what take_over() asks.
  pid_t start(bool answers) {
    std::string problem;
    std::optional<RuntimeFolder::Announcement> announcement = folder_->announce(record(), problem);
    EXPECT_TRUE(announcement) << problem;
    const pid_t child = ::fork();
    if (child != 0) return child;
    while (answers) {
      const Descriptor client(::accept(announcement->socket.get(), nullptr, nullptr));
      if (serve_takeover(client, [] {
            LostRecord now = record();
            now.lost = {lost(2)};
            return now;
          }))
        std::_Exit(0);
    }
    for (;;) ::pause();
  }
  std::vector<LostConnection> take(LostRecord ours = record()) {
    std::vector<LostConnection> adopted;
    folder_->take_over(ours, [&](const std::vector<LostConnection>& list) {
      adopted.insert(adopted.end(), list.begin(), list.end());
    });
    return adopted;
  }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path_), fs::directory_iterator{}));
  }
  std::string path_;
  std::optional<RuntimeFolder> folder_;
};

TEST_F(RuntimeFolderTest, who_is_asked_hands_its_list_over_and_ends) {
  const pid_t process = start(true);
  EXPECT_EQ(take(), std::vector{lost(2)});
  EXPECT_EQ(::waitpid(process, nullptr, WNOHANG), process);  // before take_over() returned
  EXPECT_EQ(files(), 0U);
  EXPECT_TRUE(take().empty());
}

TEST_F(RuntimeFolderTest, who_is_not_in_the_way_is_left_alone) {
  const pid_t process = start(true);
  LostRecord ours = record();
  ours.ports = {"net_tap9,iface=mig9"};
  ours.addresses = {"10.99.0.1/24"};
  EXPECT_TRUE(take(ours).empty());
  EXPECT_EQ(::waitpid(process, nullptr, WNOHANG), 0);
  EXPECT_EQ(files(), 2U);
  ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
}

TEST_F(RuntimeFolderTest, what_a_killed_one_left_is_taken_from_its_record) {
  const pid_t process = start(true);
  ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
  EXPECT_EQ(take(), record().lost);
  EXPECT_EQ(files(), 0U);
}

TEST_F(RuntimeFolderTest, one_that_hangs_is_named) {
  const pid_t process = start(false);
  EXPECT_THROW((void)take(), SetupError);
  EXPECT_EQ(files(), 2U);  // nothing is lost by having tried
  ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
  EXPECT_EQ(take(), record().lost);
}

TEST_F(RuntimeFolderTest, records_of_another_boot_and_of_long_ago_say_nothing) {
  LostRecord old = record();
  old.host.boot_id = "another";
  std::ofstream(path_ + "/1.lost") << to_text(old);
  LostRecord late = record();
  late.until_ns = 1;
  std::ofstream(path_ + "/2.lost") << to_text(late);
  std::ofstream(path_ + "/3.lost") << "nonsense";
  fs::create_directory(path_ + "/4.lost");
  ASSERT_EQ(::mkfifo((path_ + "/5.lost").c_str(), 0600), 0);
  EXPECT_TRUE(take().empty());
  EXPECT_FALSE(fs::exists(path_ + "/1.lost"));
  EXPECT_FALSE(fs::exists(path_ + "/2.lost"));
  EXPECT_EQ(files(), 3U);
}

TEST_F(RuntimeFolderTest, a_folder_where_others_may_write_is_refused) {
  std::string problem;
  fs::permissions(path_, fs::perms::all);
  EXPECT_FALSE(RuntimeFolder::open(path_, problem));
  EXPECT_NE(problem.find("--runtime-dir"), std::string::npos);
  std::ofstream(path_ + "/file") << "x";
  EXPECT_FALSE(RuntimeFolder::open(path_ + "/file", problem));
  EXPECT_FALSE(RuntimeFolder::open("", problem));
}

}  // namespace
}  // namespace migrx
