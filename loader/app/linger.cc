#include "loader/app/linger.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "loader/app/host_options.h"
#include "loader/app/runtime_folder.h"

namespace migrx {
namespace {

// In the child: nothing but what execve() needs.
[[noreturn]] void become_lingering(int record, int socket, int failure,
                                   const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGINT, SIGHUP, SIGPIPE, SIGTTOU}) ::signal(signal, SIG_DFL);
  ::setsid();
  const int nothing = ::open("/dev/null", O_RDWR);
  // Out of the way of the numbers they are going to have.
  const int from = ::fcntl(record, F_DUPFD_CLOEXEC, 10);
  const int door = socket < 0 ? -1 : ::fcntl(socket, F_DUPFD_CLOEXEC, 10);
  const int told = ::fcntl(failure, F_DUPFD_CLOEXEC, 10);
  ::dup2(from, STDIN_FILENO);
  ::dup2(nothing, STDOUT_FILENO);
  ::dup2(nothing, STDERR_FILENO);
  if (door >= 0) ::dup2(door, kLingerSocket);
  ::close_range(door >= 0 ? 4 : 3, ~0U, CLOSE_RANGE_CLOEXEC);
  if (::chdir("/") == 0) ::execv("/proc/self/exe", argv.data());
  const int error = errno;
  [[maybe_unused]] const ssize_t ignored = ::write(told, &error, sizeof error);
  std::_Exit(127);
}

}  // namespace

LostRecord record_of(const HostOptions& options, std::vector<LostConnection> lost) {
  LostRecord record;
  record.host = this_host();
  record.process = ::getpid();
  record.until_ns = boottime_ns() + static_cast<uint64_t>(options.linger_s * 1e9);
  record.ports = options.ports;
  record.addresses = options.addresses;
  record.gateway = options.gateway;
  record.vlan = options.vlan;
  record.mtu = options.mtu;
  record.eal = options.eal;
  record.lost = std::move(lost);
  return record;
}

std::string start_lingering(const LostRecord& record, const std::string& folder) {
  std::string problem;
  const std::optional<RuntimeFolder> place = RuntimeFolder::open(folder, problem);
  std::optional<RuntimeFolder::Announcement> announcement;
  if (place) announcement = place->announce(record, problem);
  const std::string sources =
      record.lost.empty()
          ? "connections of the source may be left"
          : fmt::format("{} connections of the source are not known to be gone", record.lost.size());
  const auto failed = [&](int error) {
    if (announcement) announcement->socket.reset();
    return fmt::format(
        "{}, and the process that would have reset them could not be started ({}): if the source's guest "
        "stands still, start another receive on the same port, or give migrate_cancel at the source",
        sources, std::strerror(error));
  };
  const std::string text = to_text(record);
  const Descriptor memory(::memfd_create("migrx-lost", MFD_CLOEXEC));
  std::array<int, 2> pipe{};
  if (!memory || ::write(memory.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::lseek(memory.get(), 0, SEEK_SET) != 0 || ::pipe2(pipe.data(), O_CLOEXEC) != 0)
    return failed(errno);
  const Descriptor failure_read(pipe[0]);
  Descriptor failure_write(pipe[1]);
  std::vector<std::string> words{"migrx", "linger"};
  if (announcement)
    words.insert(words.end(), {"--announced", announcement->name, "--runtime-dir", place->path()});
  const pid_t child = ::fork();
  if (child < 0) return failed(errno);
  if (child == 0)
    become_lingering(memory.get(), announcement ? announcement->socket.get() : -1, failure_write.get(),
                     words);
  failure_write.reset();
  int error = 0;
  if (::read(failure_read.get(), &error, sizeof error) == static_cast<ssize_t>(sizeof error)) {
    (void)::waitpid(child, nullptr, 0);
    return failed(error);
  }
  std::string sentence = fmt::format(
      "{}: process {} stays and resets them until all are gone, for {:.0f} s at most, and a new "
      "receive takes the port over from it",
      sources, child, static_cast<double>(record.until_ns - boottime_ns()) * 1e-9);
  if (!announcement) sentence += fmt::format(" once it has been ended ({})", problem);
  return sentence;
}

}  // namespace migrx
