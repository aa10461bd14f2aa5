#include "numa/guest_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>

#include "numa/populate.h"
#include "numa/process_descriptor.h"

namespace migrx {
namespace {

constexpr uint64_t kSmallPage = 4096;
// A receiver that was just told to end gives its files back within this time, and a retry need not fail.
constexpr int kClaimPatienceMs = 3000;

// What an operator can do about it. nullptr: nothing that is known.
const char* advice_on(int error) {
  switch (error) {
    case ENOENT:
      return "mount the file system first (mount -t hugetlbfs none /dev/hugepages), or correct the path";
    case EACCES:
    case EPERM:
      return "run as a user that may write there (chown or chmod the mount)";
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
      return "name a file in a folder that exists";
    case EROFS:
      return "mount -o remount,rw it";
    case EMFILE:
    case ENFILE:
      return "raise the limit of open files (ulimit -n; LimitNOFILE= of the service)";
    case EFBIG:
      return "raise the limit of a file's size (ulimit -f; LimitFSIZE= of the service)";
    case ENOSPC:
      return "remove files there, or mount -o remount,size=... it";
    case ENOMEM:
      return "free memory, or raise the limits (ulimit -v, vm.max_map_count, memory.max)";
    default:
      return nullptr;
  }
}

// Of errno, with advice.
std::string error_text() {
  const int error = errno;
  const char* const advice = advice_on(error);
  return std::strerror(error) + (advice == nullptr ? std::string{} : std::string(": ") + advice);
}

// The command that reserves what is missing, with the figures of this host.
std::string hugepage_advice(uint64_t page_bytes, uint64_t pages_needed, NodeId node) {
  return hugepages_missing(memory_facts(HostFiles(), "self"), page_bytes, pages_needed, node);
}

// kAnyNode: nothing to do. False: errno says why.
bool bind_to_node(void* address, uint64_t bytes, NodeId wanted) {
  if (wanted == kAnyNode) return true;
  std::vector<unsigned long> mask(16, 0);
  const auto node = static_cast<unsigned>(wanted.value());
  mask[node / 64] |= 1UL << (node % 64);
  return ::syscall(SYS_mbind, address, bytes, MPOL_BIND, mask.data(), mask.size() * 64 + 1, 0) == 0;
}

void count_what_is_there(const struct stat& st, MemoryNeed& need) {
  need.bytes -= std::min(need.bytes, static_cast<uint64_t>(st.st_blocks) * 512);
  need.file_system = std::to_string(st.st_dev);
}

// A tmpfs of size=0 has no limit, and says that it has no blocks. Hugepages are counted as pages.
void count_room(const struct statfs& fs, MemoryNeed& need) {
  if (need.page_bytes == kSmallPage && fs.f_blocks > 0)
    need.file_system_free = static_cast<uint64_t>(fs.f_bavail) * static_cast<uint64_t>(fs.f_bsize);
}

// A descriptor of the file's own for `spec.given`; -1: `problem` says what was given instead. Nothing that a
// file system could keep waiting is asked before it is known to be memory.
int open_given(const GivenFile& given, std::string& problem) {
  const int flags = ::fcntl(given.descriptor, F_GETFL);
  if (flags < 0) {
    problem = "the descriptor: " + error_text();
  } else if ((flags & O_PATH) == 0 && ::fcntl(given.descriptor, F_GET_SEALS) < 0) {
    problem =
        "guest RAM must lie in a regular file of hugetlbfs or tmpfs, or in a memfd: send such a descriptor";
  } else if ((flags & O_PATH) != 0 || (flags & O_ACCMODE) != O_RDWR) {
    // To open it anew would give more rights than whoever sent it has.
    problem = "the descriptor must be open for reading and writing (O_RDWR): send one that is";
  } else {
    const std::string held = "/proc/self/fd/" + std::to_string(given.descriptor);
    const int fd = ::open(held.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) problem = "cannot be opened anew: " + error_text();
    return fd;
  }
  return -1;
}

// The same for a path that names another process's descriptor.
int open_descriptor_of(const ProcessDescriptor& of, std::string& problem) {
  const Descriptor taken = take_descriptor(of);
  if (taken) return open_given({.descriptor = taken.get()}, problem);
  problem = std::string("the descriptor cannot be taken: ") + std::strerror(errno);
  problem += errno == EPERM
                 ? ": run as root with CAP_SYS_PTRACE (kernel.yama.ptrace_scope=3 forbids it to all)"
             : errno == EBADF ? ": that process has no such descriptor"
             : errno == ESRCH ? ": that process has ended"
                              : "";
  return -1;
}

// A QEMU that runs as another user has to be able to open the file. False: errno says why.
bool give_to(int fd, const RamSpec& spec) {
  if (spec.owner && ::fchown(fd, spec.owner->user, spec.owner->group) != 0) return false;
  // Exactly so, whatever the umask is.
  return ::fchmod(fd, spec.mode) == 0;
}

}  // namespace

std::unique_ptr<GuestMemory> GuestMemory::open(const RamSpec& spec, std::string& problem,
                                               const std::function<bool()>& go_on) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  memory->path_ = spec.path;
  memory->node_ = spec.node;
  const std::string subject = "block " + spec.id + ": " + spec.path + ": ";
  FileClaim::Before before = FileClaim::Before::unknown;
  if (spec.given) {
    before = spec.given->before;
    // Made a moment ago by somebody's leave, who may have opened it as well.
    if (before == FileClaim::Before::missing) before = FileClaim::Before::idle;
    memory->fd_ = open_given(*spec.given, problem);
    if (memory->fd_ < 0) {
      problem = subject + problem;
      return nullptr;
    }
  } else if (const std::optional<ProcessDescriptor> of = parse_process_descriptor(spec.path)) {
    before = FileClaim::look(spec.path);
    memory->fd_ = open_descriptor_of(*of, problem);
    if (memory->fd_ < 0) {
      problem = subject + problem;
      return nullptr;
    }
  } else {
    before = FileClaim::look(spec.path);
    memory->fd_ = ::open(spec.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    memory->made_here_ = memory->fd_ >= 0;
    if (memory->fd_ < 0 && errno == EEXIST) memory->fd_ = ::open(spec.path.c_str(), O_RDWR | O_CLOEXEC);
  }
  if (memory->fd_ < 0) {
    problem = subject + error_text();
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
  if (memory->claim_.take(memory->fd_, spec.path, before, kClaimPatienceMs, go_on, spec.given.has_value()) ==
          FileClaim::Outcome::refused &&
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
  if (memory->made_here_ && !give_to(memory->fd_, spec)) {
    problem = subject + "cannot set mode= or owner=: " + std::strerror(errno) + ": run as root";
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
  // Whoever gave it can no longer cut it under the mapping, where the file can be told so (memfd_create(2)).
  if (spec.given) (void)::fcntl(memory->fd_, F_ADD_SEALS, F_SEAL_SHRINK);
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
    problem = subject + "cannot bind to node " + std::to_string(spec.node.value()) + ": " +
              std::strerror(errno) + ": numactl --hardware shows the nodes of this host";
    return nullptr;
  }
  return memory;
}

bool GuestMemory::may_shrink() const {
  const int seals = ::fcntl(fd_, F_GET_SEALS);
  return seals < 0 || (seals & F_SEAL_SHRINK) == 0;
}

std::size_t GuestMemory::read_head(std::span<std::byte> into) const noexcept {
  const ssize_t bytes = ::pread(fd_, into.data(), into.size(), 0);
  return bytes < 0 ? 0 : static_cast<std::size_t>(bytes);
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

std::string GuestMemory::prefault(const std::vector<CpuId>& cpus, const std::string& charge_to,
                                  const std::function<bool(uint64_t)>& go_on) {
  // Once a guest runs on small pages it keeps them; a host without huge pages for shared memory
  // does not mind.
  if (page_bytes_ == kSmallPage) (void)::madvise(data_, mapped_, MADV_HUGEPAGE);
  return fault_in(cpus, charge_to, must_clear_, go_on);
}

std::string GuestMemory::take_again(const std::vector<CpuId>& cpus, const std::string& charge_to,
                                    bool emptied, const std::function<bool(uint64_t)>& go_on) {
  // A hole in the middle of a hugepage may leave zeros instead of nothing.
  if (page_bytes_ == kSmallPage) (void)::madvise(data_, mapped_, MADV_NOHUGEPAGE);
  return fault_in(cpus, charge_to, must_clear_ && !emptied, go_on);
}

void GuestMemory::give_up() noexcept {
  (void)::mmap(data_, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

std::string GuestMemory::fault_in(const std::vector<CpuId>& cpus, const std::string& charge_to, bool clear,
                                  const std::function<bool(uint64_t)>& go_on) {
  PopulateRequest request;
  request.data = data_;
  request.bytes = mapped_;
  request.page_bytes = page_bytes_;
  request.clear = clear;
  request.cpus = cpus;
  request.charge_to = charge_to;
  const PopulateOutcome outcome = populate(request, go_on);
  charged_here_ = outcome.charged_here;
  switch (outcome.end) {
    case PopulateOutcome::End::done:
      break;
    case PopulateOutcome::End::cancelled:
      return path_ + ": ended before all of its memory was there";
    case PopulateOutcome::End::no_memory:
      return path_ + ": the process that populates it was killed, most likely because the host or " +
             (charge_to.empty() || charged_here_ ? "a control group of migrx" : charge_to) +
             " ran out of memory (dmesg tells): free memory, or raise memory.max there";
    case PopulateOutcome::End::failed:
      errno = outcome.error;
      if (page_bytes_ > kSmallPage)
        return path_ + ": " + hugepage_advice(page_bytes_, mapped_ / page_bytes_, node_);
      return path_ + ": no memory for " + std::to_string(mapped_) + " bytes (" + std::strerror(errno) +
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
  if (go_on) (void)go_on(mapped_);
  return {};
}

MemoryNeed GuestMemory::need() const {
  MemoryNeed need;
  need.path = path_;
  need.page_bytes = page_bytes_;
  need.node = node_;
  need.reserved = page_bytes_ > kSmallPage;
  need.bytes = mapped_;
  struct stat st {};
  if (::fstat(fd_, &st) == 0) count_what_is_there(st, need);
  struct statfs fs {};
  if (::fstatfs(fd_, &fs) == 0) count_room(fs, need);
  return need;
}

std::optional<MemoryNeed> memory_need_of(const RamSpec& spec, std::string& problem) {
  MemoryNeed need;
  need.path = spec.path;
  need.node = spec.node;
  need.bytes = spec.size;
  struct stat st {};
  struct statfs fs {};
  const bool exists = ::stat(spec.path.c_str(), &st) == 0;
  const std::string folder = spec.path.substr(0, std::max<std::size_t>(1, spec.path.find_last_of('/')));
  if ((!exists && ::stat(folder.c_str(), &st) != 0) ||
      ::statfs(exists ? spec.path.c_str() : folder.c_str(), &fs) != 0) {
    problem = spec.path + ": " + error_text();
    return std::nullopt;
  }
  if (fs.f_type != HUGETLBFS_MAGIC && fs.f_type != TMPFS_MAGIC) {
    problem =
        spec.path + ": guest RAM must lie on hugetlbfs or tmpfs: use a path below /dev/hugepages or /dev/shm";
    return std::nullopt;
  }
  need.page_bytes = fs.f_type == HUGETLBFS_MAGIC ? static_cast<uint64_t>(fs.f_bsize) : kSmallPage;
  if (need.bytes == 0 && exists) need.bytes = static_cast<uint64_t>(st.st_size);
  if (need.bytes == 0) {
    problem = spec.path + ": the file does not exist yet: give its size (size=4G)";
    return std::nullopt;
  }
  need.bytes = (need.bytes + need.page_bytes - 1) / need.page_bytes * need.page_bytes;
  if (exists) count_what_is_there(st, need);
  need.file_system = std::to_string(st.st_dev);
  count_room(fs, need);
  return need;
}

uint64_t GuestMemory::huge_mapped_bytes() const {
  if (page_bytes_ > kSmallPage) return mapped_;
  std::ifstream smaps("/proc/self/smaps");
  const auto begin = reinterpret_cast<uintptr_t>(data_);
  uint64_t bytes = 0;
  bool ours = false;
  for (std::string line; std::getline(smaps, line);) {
    uintptr_t first = 0;
    uintptr_t last = 0;
    unsigned long kib = 0;
    // A mapping's first line; the kernel may have split ours.
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &first, &last) == 2)
      ours = first >= begin && first < begin + mapped_;
    else if (ours && (std::sscanf(line.c_str(), "ShmemPmdMapped: %lu kB", &kib) == 1 ||
                      std::sscanf(line.c_str(), "FilePmdMapped: %lu kB", &kib) == 1))
      bytes += uint64_t{kib} << 10;
  }
  return bytes;
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
    problem = "cannot bind to node " + std::to_string(node.value()) + ": " + std::strerror(errno) +
              ": numactl --hardware shows the nodes of this host";
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
