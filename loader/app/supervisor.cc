#include "loader/app/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "loader/app/signal_policy.h"
#include "loader/app/signals.h"
#include "loader/app/watch/journal.h"

namespace migrx {
namespace {

// Messages are one byte, a text and a NUL; a path is at most PATH_MAX, so a write to the pipe is atomic.
struct Left {
  std::map<std::string, FileId> files;             // by path
  std::map<std::string, std::string> connections;  // by place: bounded, however often a stranger connects
  bool listening = false;
  int status_if_killed = 1;
  std::string partial;

  // "24 131431 /dev/shm/vm0"
  void made(const std::string& text) {
    FileId file;
    int path = 0;
    if (std::sscanf(text.c_str(), "%" SCNu64 " %" SCNu64 " %n", &file.device, &file.inode, &path) == 2 &&
        path > 0)
      files[text.substr(static_cast<std::size_t>(path))] = file;
  }

  void take(std::string_view bytes) {
    for (const char c : bytes) {
      if (c != '\0') {
        partial.push_back(c);
        continue;
      }
      if (partial.empty()) continue;
      const std::string text = partial.substr(1);
      if (partial[0] == '+') made(text);
      if (partial[0] == '-') files.erase(text);
      if (const std::size_t place = text.find(' '); partial[0] == 'C' && place != std::string::npos)
        connections[text.substr(0, place)] = text.substr(place + 1);
      if (partial[0] == 'E') connections.erase(text);
      if (partial[0] == 'L') listening = true;
      if (partial[0] == 'S') status_if_killed = std::atoi(text.c_str());
      partial.clear();
    }
  }
};

pid_t start_child(const sigset_t& mask, const std::function<int()>& body) {
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child != 0) {
    if (child > 0) (void)::setpgid(child, child);  // parent and child: the first call counts
    return child;
  }
  (void)::setpgid(0, 0);
  // Not the terminal's group any more: it may write there all the same.
  ::signal(SIGTTOU, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) std::_Exit(1);  // it died between fork and prctl
  const int status = body();
  std::fflush(nullptr);
  std::_Exit(status);
}

// Passes each signal on, of several within a second one: the group's, a manager's and a script's
// are the same.
class Relay {
 public:
  explicit Relay(pid_t child) : child_(child) {}
  void take(int signal) {
    if (signal == SIGCHLD) return;
    if (signal == SIGABRT) {  // a manager's watchdog (sd_notify(3)): the child hangs, and hears nothing
      ::kill(child_, SIGKILL);
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (signal != SIGUSR1) {
      if (taken_ && now - last_ < std::chrono::nanoseconds{SignalPolicy::kOneNs}) return;
      taken_ = true;
      last_ = now;
    }
    ::kill(child_, signal);
  }

 private:
  const pid_t child_;
  bool taken_ = false;
  std::chrono::steady_clock::time_point last_;
};

// Waits for `child`, passing signals on and collecting what it says. The wait status is returned.
int watch(pid_t child, int signals, int pipe, Left& left) {
  Relay relay(child);
  std::array<pollfd, 2> fds{pollfd{signals, POLLIN, 0}, pollfd{pipe, POLLIN, 0}};
  const auto collect = [&] {
    std::array<char, 8192> buffer;
    for (ssize_t n; (n = ::read(pipe, buffer.data(), buffer.size())) > 0;)
      left.take({buffer.data(), static_cast<std::size_t>(n)});
  };
  for (;;) {
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) std::perror("poll");
    collect();
    if ((fds[1].revents & (POLLHUP | POLLERR)) != 0) fds[1].fd = -1;
    signalfd_siginfo info;
    while (::read(signals, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
      relay.take(static_cast<int>(info.ssi_signo));
    int status = 0;
    const pid_t gone = ::waitpid(child, &status, WNOHANG);
    if (gone == child || (gone < 0 && errno == ECHILD)) {
      collect();
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

void Lifeline::made(std::string_view path, const FileId& file) const {
  tell('+', std::to_string(file.device) + " " + std::to_string(file.inode) + " " + std::string(path));
}

void Lifeline::connected(uint32_t place, std::string_view connection) const {
  tell('C', std::to_string(place) + " " + std::string(connection));
}

bool Lifeline::held() const noexcept {
  pollfd end{fd_, 0, 0};
  return fd_ >= 0 && ::poll(&end, 1, 0) >= 0 && (end.revents & POLLERR) == 0;
}

int supervise(const Supervision& supervision) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    std::perror("pipe");
    return 2;
  }
  // A parent that is kept waiting must not lose a word of what strangers' connections bring; as it is, where
  // the limit for pipes is lower.
  (void)::fcntl(pipe[1], F_SETPIPE_SZ, 1 << 20);
  ::signal(SIGCHLD, SIG_DFL);  // our own parent may have ignored it, and nothing could be waited for
  sigset_t old_mask;
  sigset_t mask = handled_signals();
  // The child's from its first moment on: it looks at them when it has a SignalWatch.
  ::sigprocmask(SIG_BLOCK, &mask, &old_mask);
  sigset_t childs_mask;
  ::sigprocmask(SIG_BLOCK, nullptr, &childs_mask);
  sigaddset(&mask, SIGCHLD);
  sigaddset(&mask, SIGABRT);
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  const int signals = ::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);

  Left left;
  const pid_t child = start_child(childs_mask, [&] {
    ::close(pipe[0]);
    return supervision.receive(Lifeline{pipe[1]});
  });
  if (child < 0) {
    std::perror("fork");
    return 2;
  }
  ::close(pipe[1]);
  for (const int fd : supervision.of_child) ::close(fd);
  const int status = watch(child, signals, pipe[0], left);
  const int exit_status = WIFSIGNALED(status) ? left.status_if_killed : WEXITSTATUS(status);
  const std::string error = journal_prefix(STDERR_FILENO, 3, std::getenv("JOURNAL_STREAM"));
  if (WIFSIGNALED(status)) {
    std::fprintf(stderr, "%smigrx: the receiver was killed by signal %d (%s)\n", error.c_str(),
                 WTERMSIG(status), ::strsignal(WTERMSIG(status)));
    for (const auto& [path, file] : left.files)
      if (file.known() && file_id_at(path) == file) ::unlink(path.c_str());
  }
  if (left.listening && (!left.connections.empty() || WIFSIGNALED(status))) {
    Supervision::Legacy legacy{.connections = {}, .killed = WIFSIGNALED(status)};
    for (const auto& [place, connection] : left.connections) legacy.connections.push_back(connection);
    std::fprintf(stderr, "%smigrx: %s\n", error.c_str(), supervision.leave(legacy).c_str());
  }
  ::close(signals);
  ::close(pipe[0]);
  ::sigprocmask(SIG_SETMASK, &old_mask, nullptr);
  return exit_status;
}

}  // namespace migrx
