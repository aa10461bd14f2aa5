#include "loader/control/control_peer.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "tests/loader/control/socket_folder.h"

namespace migrx {
namespace {

TEST(ControlPeer, is_who_made_the_connection) {
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()), 0);
  const Descriptor one(pair[0]);
  const Descriptor other(pair[1]);
  const auto peer = peer_of(one.get());
  ASSERT_TRUE(peer);
  const ControlPeer self = this_process();
  EXPECT_EQ(peer->pid, self.pid);
  EXPECT_EQ(peer->uid, self.uid);
  EXPECT_EQ(peer->gid, self.gid);
  EXPECT_EQ(peer->groups, self.groups);
}

TEST(ControlPeer, an_unprivileged_one_with_many_groups) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const test::SocketFolder folder;
  const Descriptor listener(::socket(AF_UNIX, SOCK_STREAM, 0));
  const sockaddr_un address = test::unix_address(folder / "s");
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::chmod((folder / "s").c_str(), 0666), 0);
  std::vector<gid_t> groups;
  for (gid_t group = 5000; group < 5100; ++group) groups.push_back(group);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool done = ::setgroups(groups.size(), groups.data()) == 0 && ::setgid(65534) == 0 &&
                      ::setuid(65534) == 0 && test::connect_to(folder / "s");
    std::_Exit(done ? 0 : 1);
  }
  const Descriptor client(::accept(listener.get(), nullptr, nullptr));
  const auto peer = peer_of(client.get());
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->pid, child);
  EXPECT_EQ(peer->uid, 65534U);
  EXPECT_EQ(peer->gid, 65534U);
  EXPECT_EQ(peer->groups, groups);
  EXPECT_FALSE(peer->root());
}

TEST(ControlPeer, what_is_no_connected_socket_has_none) {
  EXPECT_FALSE(peer_of(-1));
  EXPECT_FALSE(peer_of(STDIN_FILENO));
  EXPECT_FALSE(peer_of(Descriptor(::socket(AF_UNIX, SOCK_STREAM, 0)).get()));
}

}  // namespace
}  // namespace migrx
