#include "numa/guest_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

namespace migrx {
namespace {

constexpr uint64_t kSmallPage = 4096;
// A receiver that was just told to end gives its files back within this time, and a retry need not fail.
constexpr int kClaimPatienceMs = 3000;

std::string error_text() {
  return std::strerror(errno);
}

// "4G" -> bytes; false: not a size.
bool parse_size(const std::string& text, uint64_t& bytes) {
  std::size_t end = 0;
  unsigned long long number = 0;
  if (text.empty() || text[0] < '0' || text[0] > '9') return false;
  try {
    number = std::stoull(text, &end);
  } catch (const std::exception&) {
    return false;
  }
  std::string suffix = text.substr(end);
  for (const char* const tail : {"iB", "B", "b"})
    if (suffix.size() > std::strlen(tail) && suffix.ends_with(tail))
      suffix.resize(suffix.size() - std::strlen(tail));
  const std::string units = "KMGT";
  unsigned shift = 0;
  if (!suffix.empty()) {
    const std::size_t unit = units.find(static_cast<char>(std::toupper(suffix[0])));
    if (suffix.size() != 1 || unit == std::string::npos) return false;
    shift = 10 * (static_cast<unsigned>(unit) + 1);
  }
  if (number > (UINT64_MAX >> shift)) return false;
  bytes = uint64_t{number} << shift;
  return true;
}

// The command that reserves what is missing, with the figures of this host.
std::string hugepage_advice(uint64_t page_bytes, uint64_t pages_needed, NodeId node) {
  const std::string size = "hugepages-" + std::to_string(page_bytes / 1024) + "kB";
  const std::string folder = node == kAnyNode ? "/sys/kernel/mm/hugepages/" + size
                                              : "/sys/devices/system/node/node" +
                                                    std::to_string(node.value()) + "/hugepages/" + size;
  uint64_t free = 0;
  uint64_t total = 0;
  std::ifstream(folder + "/free_hugepages") >> free;
  std::ifstream(folder + "/nr_hugepages") >> total;
  const uint64_t missing = pages_needed > free ? pages_needed - free : 0;
  return std::to_string(missing) + " of " + std::to_string(pages_needed) + " pages of " +
         std::to_string(page_bytes / 1024) + " KiB are missing" +
         (node == kAnyNode ? "" : " on node " + std::to_string(node.value())) + ": echo " +
         std::to_string(total + missing) + " > " + folder + "/nr_hugepages";
}

// kAnyNode: nothing to do. False: errno says why.
bool bind_to_node(void* address, uint64_t bytes, NodeId wanted) {
  if (wanted == kAnyNode) return true;
  std::vector<unsigned long> mask(16, 0);
  const auto node = static_cast<unsigned>(wanted.value());
  mask[node / 64] |= 1UL << (node % 64);
  return ::syscall(SYS_mbind, address, bytes, MPOL_BIND, mask.data(), mask.size() * 64 + 1, 0) == 0;
}

}  // namespace

std::string parse_ram_spec(const std::string& text, RamSpec& out) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    return "--ram " + text + ": expected ID=PATH[,size=4G][,node=0][,addr=0]";
  out = {};
  out.id = text.substr(0, equals);
  std::size_t at = text.find(',', equals);
  out.path = text.substr(equals + 1, at == std::string::npos ? at : at - equals - 1);
  if (out.path.empty() || out.path[0] != '/') return "--ram " + text + ": the path must begin with /";
  while (at != std::string::npos) {
    const std::size_t next = text.find(',', at + 1);
    const std::string option = text.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    at = next;
    if (option.starts_with("size=")) {
      if (!parse_size(option.substr(5), out.size) || out.size == 0 || out.size % kSmallPage != 0)
        return "--ram " + text + ": size must be a multiple of 4096 such as 4G or 512M";
    } else if (option.starts_with("node=")) {
      uint64_t node = 0;
      if (!parse_size(option.substr(5), node) || node > 1023)
        return "--ram " + text + ": node must be a number";
      out.node = NodeId{static_cast<int32_t>(node)};
    } else if (option.starts_with("addr=")) {
      uint64_t addr = 0;
      if (!parse_size(option.substr(5), addr))
        return "--ram " + text + ": addr must be a number of bytes such as 4G";
      out.addr = addr;
    } else if (option == "in-use=allow") {
      out.in_use_allowed = true;
    } else {
      return "--ram " + text + ": unknown option '" + option + "' (size=, node=, addr=, in-use=allow)";
    }
  }
  return {};
}

std::unique_ptr<GuestMemory> GuestMemory::open(const RamSpec& spec, std::string& problem) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  memory->path_ = spec.path;
  memory->node_ = spec.node;
  const std::string subject = "block " + spec.id + ": " + spec.path + ": ";
  FileClaim::Before before = FileClaim::look(spec.path);
  memory->fd_ = ::open(spec.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  memory->made_here_ = memory->fd_ >= 0;
  if (memory->fd_ < 0 && errno == EEXIST) memory->fd_ = ::open(spec.path.c_str(), O_RDWR | O_CLOEXEC);
  if (memory->fd_ < 0) {
    problem = subject + error_text();
    if (errno == ENOENT) problem += ": mount the file system first (mount -t hugetlbfs none /dev/hugepages)";
    if (errno == EACCES || errno == EPERM)
      problem += ": run as a user that may write there (chown or chmod the mount)";
    return nullptr;
  }
  struct statfs fs {};
  struct stat st {};
  if (::fstatfs(memory->fd_, &fs) != 0 || ::fstat(memory->fd_, &st) != 0) {
    problem = subject + error_text();
    return nullptr;
  }
  memory->id_ = file_id_of(st);
  if (fs.f_type != HUGETLBFS_MAGIC && fs.f_type != TMPFS_MAGIC) {
    problem = subject +
              "guest RAM must lie on hugetlbfs or tmpfs, not on a disk: use a path below /dev/hugepages or "
              "/dev/shm";
    return nullptr;
  }
  if (memory->made_here_) before = FileClaim::Before::missing;
  if (memory->claim_.take(memory->fd_, spec.path, before, kClaimPatienceMs) == FileClaim::Outcome::refused &&
      !spec.in_use_allowed) {
    problem = "block " + spec.id + ": " + memory->claim_.problem();
    return nullptr;
  }
  // It may have been given another size while it was waited for.
  if (::fstat(memory->fd_, &st) != 0) {
    problem = subject + error_text();
    return nullptr;
  }
  memory->page_bytes_ = fs.f_type == HUGETLBFS_MAGIC ? static_cast<uint64_t>(fs.f_bsize) : kSmallPage;
  const auto present = static_cast<uint64_t>(st.st_size);
  if (spec.size == 0 && present == 0) {
    problem =
        subject + "the file is new or empty: give its size (--ram " + spec.id + "=" + spec.path + ",size=4G)";
    return nullptr;
  }
  memory->length_ = spec.size == 0 ? present : spec.size;
  memory->mapped_ = (memory->length_ + memory->page_bytes_ - 1) / memory->page_bytes_ * memory->page_bytes_;
  if (present != 0 && present != memory->mapped_) {
    problem = subject + "the file has " + std::to_string(present) + " bytes, the block needs " +
              std::to_string(memory->mapped_) + ": remove the file or correct size=";
    return nullptr;
  }
  // Blocks tell whether anything was ever written there (true of hugetlbfs and tmpfs).
  memory->must_clear_ = !memory->made_here_ && st.st_blocks != 0 && memory->users().empty();
  if (present == 0 && ::ftruncate(memory->fd_, static_cast<off_t>(memory->mapped_)) != 0) {
    problem = subject + "cannot set its size: " + error_text();
    return nullptr;
  }
  void* const address = ::mmap(nullptr, memory->mapped_, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd_, 0);
  if (address == MAP_FAILED) {
    problem = subject + "cannot map: " + error_text();
    if (errno == ENOMEM && memory->page_bytes_ > kSmallPage)
      problem =
          subject + hugepage_advice(memory->page_bytes_, memory->mapped_ / memory->page_bytes_, spec.node);
    return nullptr;
  }
  memory->data_ = static_cast<std::byte*>(address);
  if (!bind_to_node(address, memory->mapped_, spec.node)) {
    problem = subject + "cannot bind to node " + std::to_string(spec.node.value()) + ": " + error_text() +
              ": numactl --hardware shows the nodes of this host";
    return nullptr;
  }
  return memory;
}

GuestMemory::~GuestMemory() {
  if (data_ != nullptr) ::munmap(data_, mapped_);
  if (!keep_) unlink();
  if (fd_ >= 0) ::close(fd_);
}

void GuestMemory::unlink() noexcept {
  if (made_here_ && file_id_at(path_) == id_) ::unlink(path_.c_str());
  made_here_ = false;
}

std::string GuestMemory::prefault(const std::vector<CpuId>& cpus,
                                  const std::function<void(uint64_t)>& progress) {
  // Chunks small enough for progress and balance, large enough that the call does not count.
  const uint64_t chunk = std::max<uint64_t>(page_bytes_, 64 << 20);
  std::atomic<uint64_t> next{0};
  std::atomic<uint64_t> done{0};
  std::atomic<int> failed{0};
  std::mutex mutex;
  std::condition_variable finished;
  const auto work = [&](const CpuId* cpu) {
    if (cpu != nullptr) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(static_cast<std::size_t>(cpu->value()), &set);
      ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
    }
    for (;;) {
      const uint64_t at = next.fetch_add(chunk);
      if (at >= mapped_ || failed.load() != 0) return;
      const uint64_t bytes = std::min(chunk, mapped_ - at);
      // An error code where touching the page would be SIGBUS.
      if (::madvise(data_ + at, bytes, MADV_POPULATE_WRITE) != 0) {
        failed.store(errno);
        return;
      }
      if (must_clear_) std::memset(data_ + at, 0, bytes);
      if (done.fetch_add(bytes) + bytes == mapped_) {
        const std::lock_guard lock(mutex);
        finished.notify_one();
      }
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(std::max<std::size_t>(1, cpus.size()));
  if (cpus.empty()) threads.emplace_back(work, nullptr);
  for (const CpuId& cpu : cpus) threads.emplace_back(work, &cpu);
  {
    std::unique_lock lock(mutex);
    while (done.load() < mapped_ && failed.load() == 0) {
      finished.wait_for(lock, std::chrono::milliseconds(20));
      if (progress) progress(done.load());
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (failed.load() != 0) {
    errno = failed.load();
    if (page_bytes_ > kSmallPage)
      return path_ + ": " + hugepage_advice(page_bytes_, mapped_ / page_bytes_, node_);
    return path_ + ": no memory for " + std::to_string(mapped_) + " bytes (" + error_text() +
           "): free memory, or mount -o remount,size=... the tmpfs";
  }
  if (node_ != kAnyNode) {
    // Where did the pages really go? One question per page of the file system, in batches.
    constexpr std::size_t kBatch = 1024;
    for (uint64_t at = 0; at < mapped_;) {
      std::vector<void*> pages;
      for (; pages.size() < kBatch && at < mapped_; at += page_bytes_) pages.push_back(data_ + at);
      std::vector<int> status(pages.size(), -1);
      if (::syscall(SYS_move_pages, 0, pages.size(), pages.data(), nullptr, status.data(), 0) != 0) break;
      for (const int found : status)
        if (found >= 0 && found != node_.value())
          return path_ + ": a page lies on node " + std::to_string(found) + " instead of " +
                 std::to_string(node_.value()) + ": remove the file and start again, or drop node=";
    }
  }
  if (progress) progress(mapped_);
  return {};
}

std::unique_ptr<PrivateMemory> PrivateMemory::allocate(uint64_t bytes, std::string& problem) {
  void* const address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    problem = error_text();
    return nullptr;
  }
  return std::unique_ptr<PrivateMemory>(new PrivateMemory(static_cast<std::byte*>(address), bytes));
}

bool PrivateMemory::populate(NodeId node, std::string& problem) {
  if (!bind_to_node(data_, bytes_, node)) {
    problem = "cannot bind to node " + std::to_string(node.value()) + ": " + error_text();
    return false;
  }
  // Fewer faults now and fewer TLB misses later, where the host has such pages; without them it works too.
  (void)::madvise(data_, bytes_, MADV_HUGEPAGE);
  if (::madvise(data_, bytes_, MADV_POPULATE_WRITE) == 0) return true;
  problem = error_text();
  return false;
}

PrivateMemory::~PrivateMemory() {
  ::munmap(data_, bytes_);
}

}  // namespace migrx
