#include "numa/process_descriptor.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>

namespace migrx {
namespace {

// Takes a decimal number from the front of `text`. False: none is there.
bool take_number(std::string_view& text, int& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc{} || out < 0) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take_word(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

}  // namespace

std::optional<ProcessDescriptor> parse_process_descriptor(std::string_view path) {
  ProcessDescriptor found;
  if (!take_word(path, "/proc/") || !take_number(path, found.process) || !take_word(path, "/fd/") ||
      !take_number(path, found.number) || !path.empty() || found.process == ::getpid())
    return std::nullopt;
  return found;
}

Descriptor hold_process(pid_t process) {
  return Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
}

Descriptor take_descriptor(int pidfd, int number) {
  return Descriptor(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, number, 0)));
}

Descriptor take_descriptor(const ProcessDescriptor& of) {
  const Descriptor process = hold_process(of.process);
  return process ? take_descriptor(process.get(), of.number) : Descriptor();
}

}  // namespace migrx
