#include "loader/destination/incoming_qemu.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "loader/destination/proc_entries.h"
#include "loader/destination/socket_diag.h"
#include "loader/stream/printable.h"
#include "numa/descriptor.h"
#include "numa/process_descriptor.h"
#include "numa/process_user.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kCommandLineMax = 4 << 20;  // bytes; Linux allows a quarter of the stack's 8 MiB
constexpr const char* kAdvice =
    "give the domain <memoryBacking><access mode='shared'/></memoryBacking> with <hugepages/> or <source "
    "type='memfd'/>, or the QEMU a memory-backend-file or -memfd with share=on, at the source too";

std::vector<std::string_view> words_of(std::string_view cmdline) {
  std::vector<std::string_view> words;
  while (!cmdline.empty()) {
    const std::size_t end = std::min(cmdline.find('\0'), cmdline.size());
    words.push_back(cmdline.substr(0, end));
    cmdline.remove_prefix(std::min(end + 1, cmdline.size()));
  }
  return words;
}

bool is_on(std::string_view text) {
  return text == "on" || text == "yes" || text == "true" || text == "y";
}

// "memory-backend-file,id=mem,size=64M,mem-path=/dev/shm/a,,b": a comma is written twice in a value.
MemoryBackend of_pairs(std::string_view text) {
  std::vector<std::string> parts(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',')
      parts.back() += text[i];
    else if (i + 1 < text.size() && text[i + 1] == ',')
      parts.back() += text[i++];
    else
      parts.emplace_back();
  }
  MemoryBackend backend;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::size_t equals = parts[i].find('=');
    const std::string key = equals == std::string::npos ? "" : parts[i].substr(0, equals);
    const std::string value = equals == std::string::npos ? parts[i] : parts[i].substr(equals + 1);
    if (key == "qom-type" || (key.empty() && i == 0)) backend.type = value;
    if (key == "id") backend.id = value;
    if (key == "mem-path") backend.path = value;
    if (key == "size") backend.size = value;
    if (key == "share") backend.share = is_on(value);
    if (key.empty() && value == "share") backend.share = true;
  }
  return backend;
}

std::optional<MemoryBackend> of_json(std::string_view text) {
  const Json object = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  const auto word = [&](const char* key) -> std::string {
    const auto found = object.find(key);
    if (found == object.end()) return {};
    if (found->is_string()) return found->get<std::string>();
    return found->is_primitive() ? found->dump() : std::string{};
  };
  MemoryBackend backend{word("qom-type"), word("id"), word("mem-path"), word("size"), {}};
  if (object.contains("share")) backend.share = is_on(word("share"));
  return backend;
}

// QEMU's defaults (backends/hostmem-memfd.c, backends/hostmem.c).
bool is_shared(const MemoryBackend& backend) {
  return backend.share.value_or(backend.type == "memory-backend-memfd");
}

// Digits, perhaps with a unit: what --ram takes, too.
bool is_size(const std::string& text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) != 0; });
}

// The name that QEMU gives to the file that it makes in a folder, and unlinks at once
// (qemu_back_mem.ID. and six characters of mkstemp; softmmu/physmem.c, file_ram_open).
bool made_in_folder(const MemoryBackend& backend, std::string_view target) {
  constexpr std::string_view kDeleted = " (deleted)";
  if (target.ends_with(kDeleted)) target.remove_suffix(kDeleted.size());
  std::string name = backend.path;
  if (!name.ends_with('/')) name += '/';
  name += "qemu_back_mem." + backend.id + ".";
  constexpr std::size_t kRandom = 6;
  return target.size() == name.size() + kRandom && target.starts_with(name) &&
         target.substr(name.size()).find('/') == std::string_view::npos;
}

std::string command_line_of(pid_t process) {
  const std::string path = "/proc/" + std::to_string(process) + "/cmdline";
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> chunk{};
  while (fd && text.size() < kCommandLineMax) {
    const ssize_t n = ::read(fd.get(), chunk.data(), chunk.size());
    if (n <= 0) break;
    text.append(chunk.data(), static_cast<std::size_t>(n));
  }
  return text;
}

std::vector<OpenFile> open_files(pid_t process) {
  std::vector<OpenFile> files;
  each_descriptor_of(process, [&](int number, std::string_view target) {
    files.push_back({number, std::string(target)});
    return true;
  });
  return files;
}

}  // namespace

std::vector<MemoryBackend> memory_backends(std::string_view cmdline) {
  std::vector<MemoryBackend> found;
  const std::vector<std::string_view> words = words_of(cmdline);
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] != "-object" && words[i] != "--object") continue;
    const std::string_view value = words[i + 1];
    std::optional<MemoryBackend> backend = value.starts_with('{') ? of_json(value) : of_pairs(value);
    if (!backend || !backend->type.starts_with("memory-backend-")) continue;
    found.push_back(*std::move(backend));
  }
  return found;
}

bool started_to_wait(std::string_view cmdline) {
  const std::vector<std::string_view> words = words_of(cmdline);
  return std::any_of(words.begin(), words.end(),
                     [](std::string_view word) { return word == "-incoming" || word == "--incoming"; });
}

std::string find_memory(const std::vector<MemoryBackend>& backends, std::vector<OpenFile> files,
                        std::vector<BackendFile>& found) {
  found.clear();
  if (backends.empty()) return std::string("its guest's memory is private to it: ") + kAdvice;
  std::sort(files.begin(), files.end(),
            [](const OpenFile& a, const OpenFile& b) { return a.number < b.number; });
  // A memfd has no name that tells whose it is; QEMU makes them in the order of its command line.
  auto memfd = files.begin();
  const auto is_memfd = [](const OpenFile& file) {
    return file.target.starts_with("/memfd:memory-backend-memfd");
  };
  for (const MemoryBackend& backend : backends) {
    const std::string name = printable(backend.id);
    if (backend.id.empty() || backend.id.find_first_of(",=") != std::string::npos)
      return "it has a memory backend whose id \"" + name + "\" is no block's name";
    if (!is_shared(backend) ||
        (backend.type != "memory-backend-file" && backend.type != "memory-backend-memfd"))
      return "its memory " + name + " is not shared: " + kAdvice;
    auto file = files.end();
    if (backend.type == "memory-backend-memfd") {
      file = memfd = std::find_if(memfd, files.end(), is_memfd);
      if (memfd != files.end()) ++memfd;
    } else {
      file = std::find_if(files.begin(), files.end(), [&](const OpenFile& one) {
        return one.target == backend.path || made_in_folder(backend, one.target);
      });
    }
    if (file == files.end())
      return "the file of its memory " + name + " is not among its descriptors: is it still starting?";
    found.push_back({backend.id, is_size(backend.size) ? backend.size : std::string{}, file->number});
  }
  return {};
}

std::string take_memory(pid_t process, uint64_t listener, TakenMemory& out) {
  out = {};
  // Its descriptors can be taken by this only while it lives: then the number has been its own all the while,
  // and what is read below is of no other process.
  const Descriptor held = hold_process(process);
  if (!held || !process_has_socket(process, listener)) return "it ended a moment ago";
  const std::optional<uid_t> user = only_user_of(process);
  if (!user) return "it runs as several users at a time";
  out.user = *user;
  std::vector<BackendFile> found;
  if (std::string problem =
          find_memory(memory_backends(command_line_of(process)), open_files(process), found);
      !problem.empty())
    return problem;
  for (const BackendFile& one : found) {
    Descriptor file = take_descriptor(held.get(), one.number);
    if (!file)
      return "the descriptor of its memory " + printable(one.id) +
             " cannot be taken: " + std::strerror(errno) +
             ": run migrx as root, with CAP_SYS_PTRACE (kernel.yama.ptrace_scope=3 forbids it)";
    out.ram.push_back(one.id + "=fd:" + std::to_string(out.files.size()) +
                      (one.size.empty() ? "" : ",size=" + one.size));
    out.files.push_back(std::move(file));
  }
  return {};
}

std::vector<pid_t> waiting_processes_with_socket(uint64_t inode) {
  std::vector<pid_t> found;
  each_process([&](pid_t process) {
    if (started_to_wait(command_line_of(process)) && process_has_socket(process, inode))
      found.push_back(process);
  });
  return found;
}

}  // namespace migrx
