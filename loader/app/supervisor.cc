#include "loader/app/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <system_error>

namespace migrx {
namespace {

// Messages are one byte, a text and a NUL; a path is at most PATH_MAX, so a write to the pipe is atomic.
struct Left {
  std::vector<std::string> paths;
  std::map<std::string, std::string> connections;  // by place: bounded, however often a stranger connects
  bool listening = false;
  std::string partial;

  void take(std::string_view bytes) {
    for (const char c : bytes) {
      if (c != '\0') {
        partial.push_back(c);
        continue;
      }
      if (partial.empty()) continue;
      const std::string text = partial.substr(1);
      if (partial[0] == '+') paths.push_back(text);
      if (partial[0] == '-') paths.erase(std::remove(paths.begin(), paths.end(), text), paths.end());
      if (const std::size_t place = text.find(' '); partial[0] == 'C' && place != std::string::npos)
        connections[text.substr(0, place)] = text.substr(place + 1);
      if (partial[0] == 'E') connections.erase(text);
      if (partial[0] == 'L') listening = true;
      partial.clear();
    }
  }
};

pid_t start_child(const sigset_t& old_mask, const std::function<int()>& body) {
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::sigprocmask(SIG_SETMASK, &old_mask, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) std::_Exit(1);  // it died between fork and prctl
  const int status = body();
  std::fflush(nullptr);
  std::_Exit(status);
}

// Waits for `child`, passing signals on and collecting what it says. The wait status is returned.
int watch(pid_t child, int signals, int pipe, Left& left) {
  std::array<pollfd, 2> fds{pollfd{signals, POLLIN, 0}, pollfd{pipe, POLLIN, 0}};
  for (;;) {
    if (::poll(fds.data(), pipe >= 0 ? 2 : 1, -1) < 0 && errno != EINTR) std::perror("poll");
    std::array<char, 8192> buffer;
    for (ssize_t n; pipe >= 0 && (n = ::read(pipe, buffer.data(), buffer.size())) > 0;)
      left.take({buffer.data(), static_cast<std::size_t>(n)});
    if ((fds[1].revents & (POLLHUP | POLLERR)) != 0) fds[1].fd = -1;
    signalfd_siginfo info;
    while (::read(signals, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      // A terminal sends SIGINT to the whole process group; only what was meant for us alone is passed on.
      if (info.ssi_signo != SIGCHLD && info.ssi_code != SI_KERNEL)
        ::kill(child, static_cast<int>(info.ssi_signo));
    }
    int status = 0;
    if (::waitpid(child, &status, WNOHANG) == child) {
      for (ssize_t n; pipe >= 0 && (n = ::read(pipe, buffer.data(), buffer.size())) > 0;)
        left.take({buffer.data(), static_cast<std::size_t>(n)});
      return status;
    }
  }
}

}  // namespace

void Lifeline::tell(char what, std::string_view path) const {
  if (fd_ < 0) return;
  std::string message(1, what);
  message.append(path);
  message.push_back('\0');
  // The parent may have died: SIGPIPE is ignored in the child, and PDEATHSIG ends it soon.
  [[maybe_unused]] const ssize_t ignored = ::write(fd_, message.data(), message.size());
}

void Lifeline::connected(uint32_t place, std::string_view connection) const {
  tell('C', std::to_string(place) + " " + std::string(connection));
}

int supervise(const std::function<int(const Lifeline&)>& receive,
              const std::function<int(const std::vector<std::string>&)>& reset_mode) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    std::perror("pipe");
    return 2;
  }
  // A parent that is kept waiting must not lose a word of what strangers' connections bring; as it is, where
  // the limit for pipes is lower.
  (void)::fcntl(pipe[1], F_SETPIPE_SZ, 1 << 20);
  sigset_t mask;
  sigset_t old_mask;
  sigemptyset(&mask);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&mask, signal);
  ::sigprocmask(SIG_BLOCK, &mask, &old_mask);
  const int signals = ::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);

  Left left;
  const pid_t child = start_child(old_mask, [&] {
    ::close(pipe[0]);
    ::signal(SIGPIPE, SIG_IGN);
    return receive(Lifeline{pipe[1]});
  });
  if (child < 0) {
    std::perror("fork");
    return 2;
  }
  ::close(pipe[1]);
  const int status = watch(child, signals, pipe[0], left);
  int exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  if (WIFSIGNALED(status)) {
    std::fprintf(stderr, "migrx: the receiver was killed by signal %d (%s)\n", WTERMSIG(status),
                 ::strsignal(WTERMSIG(status)));
    for (const std::string& path : left.paths) {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
    if (left.listening) {
      std::fprintf(stderr, "migrx: resetting the source's connections so that its guest runs on\n");
      const pid_t second = start_child(old_mask, [&] {
        std::vector<std::string> lost;
        for (const auto& [place, connection] : left.connections) lost.push_back(connection);
        return reset_mode(lost);
      });
      if (second > 0) {
        Left nothing;
        watch(second, signals, -1, nothing);
      }
    }
  }
  ::close(signals);
  ::close(pipe[0]);
  ::sigprocmask(SIG_SETMASK, &old_mask, nullptr);
  return exit_status;
}

}  // namespace migrx
