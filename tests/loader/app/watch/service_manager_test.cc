#include "loader/app/watch/service_manager.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

namespace migrx {
namespace {

// The manager's end: a socket as systemd has it, with credentials of those who write.
class Listener {
 public:
  explicit Listener(const std::string& name) : name_(name) {
    fd_ = Descriptor(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    std::string path = name;
    if (path[0] == '@') path[0] = '\0';
    std::memcpy(at.sun_path, path.data(), path.size());
    const auto size =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (path[0] == '\0' ? 0 : 1));
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&at), size), 0);
  }
  ~Listener() {
    if (name_[0] == '/') ::unlink(name_.c_str());
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // The next message; "": there is none. writer(): whose it says it is.
  std::string next() {
    char text[2048];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
    iovec part{text, sizeof text};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t n = ::recvmsg(fd_.get(), &header, 0);
    if (n < 0) return "";
    if (const cmsghdr* const first = CMSG_FIRSTHDR(&header); first != nullptr) {
      ucred who{};
      std::memcpy(&who, CMSG_DATA(first), sizeof who);
      writer_ = who.pid;
    }
    return {text, static_cast<std::size_t>(n)};
  }
  [[nodiscard]] pid_t writer() const { return writer_; }
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  std::string name_;
  Descriptor fd_;
  pid_t writer_ = 0;
};

std::string socket_path() {
  return std::filesystem::temp_directory_path() / fmt::format("migrx-notify-{}", ::getpid());
}

TEST(ServiceManager, tells_ready_once_then_the_status_once_a_second_then_stopping) {
  for (const std::string& name : {socket_path(), fmt::format("@migrx-notify-{}", ::getpid())}) {
    Listener listener(name);
    ServiceManager manager({name, "", ""}, ::getpid());
    ASSERT_TRUE(manager.present());
    EXPECT_EQ(manager.warning(), "");
    manager.status("taking memory", 0.1);
    EXPECT_EQ(listener.next(), "STATUS=taking memory");
    manager.status("waiting for the link", 0.2);
    EXPECT_EQ(listener.next(), "STATUS=waiting for the link");
    manager.ready(1);
    EXPECT_EQ(listener.next(), "READY=1");
    for (int i = 0; i <= 30; ++i) {
      manager.status(fmt::format("{} of 30", i), 2 + 0.1 * i);
      manager.look(2 + 0.1 * i, {});
    }
    EXPECT_EQ(listener.next(), "STATUS=0 of 30");
    EXPECT_EQ(listener.next(), "STATUS=10 of 30");
    EXPECT_EQ(listener.next(), "STATUS=20 of 30");
    EXPECT_EQ(listener.next(), "STATUS=30 of 30");
    manager.stopping("complete");
    EXPECT_EQ(listener.next(), "STOPPING=1\nSTATUS=complete");
    EXPECT_EQ(listener.next(), "");
  }
}

TEST(ServiceManager, without_a_socket_nothing_happens) {
  ServiceManager manager({}, ::getpid());
  EXPECT_FALSE(manager.present());
  manager.ready(1);
  manager.status("x", 2);
  manager.look(3, {});
  manager.stopping("x");
}

TEST(ServiceManager, an_address_that_is_none_is_warned_of) {
  for (const std::string& name : {std::string("notify"), std::string("/"), std::string("@"),
                                  "/" + std::string(200, 'x'), std::string("vsock:2:1")}) {
    ServiceManager manager({name, "", ""}, ::getpid());
    EXPECT_FALSE(manager.present()) << name;
    EXPECT_NE(manager.warning().find("NOTIFY_SOCKET"), std::string::npos) << name;
    manager.ready(1);
  }
}

// A status comes of what peers do, too: one line, no assignment of its own.
TEST(ServiceManager, a_status_is_one_line_of_bounded_length) {
  Listener listener(socket_path());
  ServiceManager manager({listener.name(), "", ""}, ::getpid());
  manager.status("a\nMAINPID=1\n\x1b[2J", 1);
  EXPECT_EQ(listener.next(), "STATUS=a?MAINPID=1??[2J");
  manager.status(std::string(5000, 'x'), 3);
  EXPECT_LT(listener.next().size(), 500U);
  manager.stopping("b\nREADY=1");
  EXPECT_EQ(listener.next(), "STOPPING=1\nSTATUS=b?READY=1");
}

// systemd that is slow, or a helper that took the socket and forgot it.
TEST(ServiceManager, one_that_does_not_read_delays_nothing_and_hears_ready_in_the_end) {
  Listener listener(socket_path());
  ServiceManager other({listener.name(), "", ""}, ::getpid());
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < 5000; ++i) other.status(std::to_string(i), i);
  ServiceManager manager({listener.name(), "", ""}, ::getpid());
  manager.ready(1);  // no room
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count(), 5);
  while (!listener.next().empty()) continue;
  manager.look(2, {});
  EXPECT_EQ(listener.next(), "READY=1");
  manager.look(3, {});
  EXPECT_EQ(listener.next(), "");
}

TEST(ServiceManager, one_that_has_gone_is_not_waited_for) {
  const std::string name = socket_path();
  { const Listener listener(name); }
  ServiceManager manager({name, "1000000", ""}, ::getpid());
  manager.ready(1);
  manager.look(9, {});
  manager.stopping("complete");
}

// The worker speaks for its supervisor, which is the unit's main process.
TEST(ServiceManager, speaks_for_the_main_process_where_the_kernel_permits_it) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  Listener listener(socket_path());
  ServiceManager manager({listener.name(), "", ""}, ::getppid());
  manager.ready(1);
  EXPECT_EQ(listener.next(), "READY=1");
  EXPECT_EQ(listener.writer(), ::getppid());
  // A process that is gone cannot be spoken for: better as ourselves than not at all.
  ServiceManager orphan({listener.name(), "", ""}, 4'000'000);
  orphan.ready(1);
  EXPECT_EQ(listener.next(), "READY=1");
  EXPECT_EQ(listener.writer(), ::getpid());
}

TEST(ServiceWatchdog, hears_of_life_twice_in_its_time_and_not_when_a_thread_hangs) {
  Listener listener(socket_path());
  ServiceManager manager({listener.name(), "4000000", std::to_string(::getpid())}, ::getpid());
  EXPECT_EQ(manager.watchdog_s(), 2);
  manager.look(50, {1, 1});
  EXPECT_EQ(listener.next(), "");  // not before READY
  manager.ready(100);
  EXPECT_EQ(listener.next(), "READY=1");
  uint64_t turns = 10;
  const auto signs = [&](double from, bool second_hangs) {
    int heard = 0;
    for (double now = from; now < from + 10; now += 0.1) {
      ++turns;
      manager.look(now, {turns, second_hangs ? 7 : turns});
      while (listener.next() == "WATCHDOG=1") ++heard;
    }
    return heard;
  };
  EXPECT_NEAR(signs(100, false), 5, 1);
  EXPECT_LE(signs(110, true), 1);  // the first still sees that 7 is new
  EXPECT_NEAR(signs(120, false), 5, 1);
}

TEST(ServiceWatchdog, what_is_no_request_is_none) {
  const std::string name = socket_path();
  const Listener listener(name);
  const std::string own = std::to_string(::getpid());
  for (const char* const usec : {"", "0", "-1", "x", "1", "99999999999999999999", "4000000s"})
    EXPECT_EQ(ServiceManager({name, usec, own}, ::getpid()).watchdog_s(), 0) << usec;
  EXPECT_EQ(ServiceManager({name, "4000000", "1"}, ::getpid()).watchdog_s(), 0);  // another's
  EXPECT_EQ(ServiceManager({name, "4000000", "x"}, ::getpid()).watchdog_s(), 0);
  EXPECT_EQ(ServiceManager({name, "4000000", ""}, ::getpid()).watchdog_s(), 2);
}

}  // namespace
}  // namespace migrx
