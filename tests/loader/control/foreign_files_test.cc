#include "loader/control/foreign_files.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <thread>

#include "tests/loader/control/socket_folder.h"

namespace migrx {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Connected on loopback, with bytes that its peer does not take.
struct LingeringSocket {
  LingeringSocket() {
    const Descriptor listener(::socket(AF_INET, SOCK_STREAM, 0));
    const int small = 4096;
    (void)::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    socket.reset(::socket(AF_INET, SOCK_STREAM, 0));
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    peer.reset(::accept(listener.get(), nullptr, nullptr));
    const linger forever{1, 3600};
    EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &forever, sizeof forever), 0);
    const std::vector<char> bytes(1 << 20);
    while (::send(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
  }
  Descriptor socket;
  Descriptor peer;
};

TEST(ForeignFiles, guest_ram_is_made_of_regular_files_of_tmpfs_and_hugetlbfs) {
  EXPECT_TRUE(is_memory_file(test::memory_file().get()));
  const std::string path = "/dev/shm/migrx-foreign-" + std::to_string(::getpid());
  EXPECT_TRUE(is_memory_file(Descriptor(::open(path.c_str(), O_RDWR | O_CREAT, 0600)).get()));
  std::filesystem::remove(path);
  EXPECT_FALSE(is_memory_file(Descriptor(::open("/dev/shm", O_RDONLY | O_DIRECTORY)).get()));
  EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(is_memory_file(Descriptor(::open(path.c_str(), O_RDWR)).get()));
  std::filesystem::remove(path);
  EXPECT_FALSE(is_memory_file(Descriptor(::open("/proc/self/exe", O_RDONLY)).get()));
  EXPECT_FALSE(is_memory_file(Descriptor(::open("/dev/null", O_RDWR)).get()));
  EXPECT_FALSE(is_memory_file(Descriptor(::socket(AF_UNIX, SOCK_STREAM, 0)).get()));
  EXPECT_FALSE(is_memory_file(-1));
}

TEST(ForeignFiles, a_socket_that_lingers_does_not_hold_its_closer_up) {
  ForeignFiles files;
  LingeringSocket lingering;
  const auto began = steady_clock::now();
  files.dispose(std::move(lingering.socket));
  EXPECT_LT(steady_clock::now() - began, milliseconds(200));
  EXPECT_FALSE(files.overrun());
}

TEST(ForeignFiles, others_are_closed_soon) {
  ForeignFiles files;
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const Descriptor reader(pipe[0]);
  files.dispose(Descriptor(pipe[1]));
  char byte = 0;
  EXPECT_EQ(::read(reader.get(), &byte, 1), 0);  // waits for the end of the only writer
}

}  // namespace
}  // namespace migrx
