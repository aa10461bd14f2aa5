#include "numa/ram_spec.h"

#include <grp.h>
#include <pwd.h>

#include <cctype>
#include <charconv>
#include <cstring>
#include <stdexcept>

namespace migrx {
namespace {

constexpr uint64_t kSizeUnit = 4096;

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

// A number, or what `find` makes of the name.
template <typename Find>
bool id_of(const std::string& text, uint32_t& id, const Find& find) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  return (error == std::errc{} && end == text.data() + text.size() && id != UINT32_MAX) || find(text, id);
}

// "libvirt-qemu:kvm", "64055"; without a group it is the user's own.
std::string find_owner(const std::string& text, std::optional<FileOwner>& out) {
  const std::size_t colon = text.find(':');
  const std::string user = text.substr(0, colon);
  FileOwner owner;
  std::optional<uint32_t> own_group;
  if (!id_of(user, owner.user, [&](const std::string& name, uint32_t& id) {
        const passwd* const entry = ::getpwnam(name.c_str());
        if (entry == nullptr) return false;
        id = entry->pw_uid;
        own_group = entry->pw_gid;
        return true;
      }))
    return "this host has no user '" + user + "': correct owner=, or add the user";
  if (colon == std::string::npos) {
    const passwd* const entry = own_group ? nullptr : ::getpwuid(owner.user);
    owner.group = own_group ? *own_group : entry != nullptr ? entry->pw_gid : owner.user;
  } else if (const std::string group = text.substr(colon + 1);
             !id_of(group, owner.group, [](const std::string& name, uint32_t& id) {
               const ::group* const entry = ::getgrnam(name.c_str());
               if (entry == nullptr) return false;
               id = entry->gr_gid;
               return true;
             })) {
    return "this host has no group '" + group + "': correct owner=, or add the group";
  }
  out = owner;
  return {};
}

}  // namespace

std::string parse_ram_spec(const std::string& text, RamSpec& out, uint32_t descriptors) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    return "--ram " + text + ": expected ID=PATH[,size=4G][,node=0][,addr=0]";
  out = {};
  out.id = text.substr(0, equals);
  std::size_t at = text.find(',', equals);
  out.path = text.substr(equals + 1, at == std::string::npos ? at : at - equals - 1);
  if (descriptors > 0 && out.path.starts_with("fd:")) {
    uint32_t number = 0;
    const char* const end = out.path.data() + out.path.size();
    const auto [stop, error] = std::from_chars(out.path.data() + 3, end, number);
    if (error != std::errc{} || stop != end || number >= descriptors)
      return "--ram " + text + ": " + std::to_string(descriptors) +
             " descriptors came with it, fd:0 to fd:" + std::to_string(descriptors - 1);
    out.number = number;
  } else if (out.path.empty() || out.path[0] != '/') {
    return "--ram " + text + ": the path must begin with /";
  }
  while (at != std::string::npos) {
    const std::size_t next = text.find(',', at + 1);
    const std::string option = text.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    at = next;
    if (option.starts_with("size=")) {
      if (!parse_size(option.substr(5), out.size) || out.size == 0 || out.size % kSizeUnit != 0)
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
    } else if (option.starts_with("mode=")) {
      const char* const end = option.data() + option.size();
      const auto [stop, error] = std::from_chars(option.data() + 5, end, out.mode, 8);
      // Its own user must be able to write it, and nobody can run it.
      if (error != std::errc{} || stop != end || (out.mode & ~0666U) != 0 || (out.mode & 0600U) != 0600U)
        return "--ram " + text + ": mode must be such as 0600 or 0660";
    } else if (option.starts_with("owner=")) {
      if (std::string problem = find_owner(option.substr(6), out.owner); !problem.empty())
        return "--ram " + text + ": " + problem;
    } else if (option == "in-use=allow") {
      out.in_use_allowed = true;
    } else {
      return "--ram " + text + ": unknown option '" + option +
             "' (size=, node=, addr=, mode=, owner=, in-use=allow)";
    }
  }
  return {};
}

}  // namespace migrx
