#include "loader/main/configuration.h"

#include <algorithm>
#include <cctype>

namespace migrx {
namespace {

constexpr std::string_view kTargetPageBits = "configuration/target-page-bits";
constexpr std::string_view kCapabilities = "configuration/capabilities";
constexpr std::string_view kUuid = "configuration/uuid";

constexpr const char* kMachineField = "configuration: machine name";
constexpr const char* kSubsectionField = "configuration: subsection";
constexpr const char* kCapabilityField = "configuration/capabilities";

// Bytes of the peer, for a message: whatever is not printable becomes '?'.
std::string printable(const std::byte* p, std::size_t n) {
  std::string out(n, '?');
  for (std::size_t i = 0; i < n; ++i) {
    const int c = std::to_integer<int>(p[i]);
    if (std::isprint(c) != 0) out[i] = static_cast<char>(c);
  }
  return out;
}

std::string_view text(const std::byte* p, std::size_t n) {
  return {reinterpret_cast<const char*>(p), n};
}

}  // namespace

bool is_known_capability(std::string_view name) noexcept {
  static constexpr std::string_view kNames[] = {"auto-converge",
                                                "background-snapshot",
                                                "block",
                                                "compress",
                                                "dirty-bitmaps",
                                                "dirty-limit",
                                                "events",
                                                "late-block-activate",
                                                "mapped-ram",
                                                "multifd",
                                                "pause-before-switchover",
                                                "postcopy-blocktime",
                                                "postcopy-preempt",
                                                "postcopy-ram",
                                                "rdma-pin-all",
                                                "release-ram",
                                                "return-path",
                                                "switchover-ack",
                                                "validate-uuid",
                                                "x-colo",
                                                "x-ignore-shared",
                                                "xbzrle",
                                                "zero-blocks",
                                                "zero-copy-send"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

void ConfigurationReader::keep(const std::byte* p, std::size_t n) {
  std::vector<std::byte>& raw = configuration_.subsections.back().raw;
  raw.insert(raw.end(), p, p + n);
}

Step ConfigurationReader::read(ByteReader& in, StreamError& error) {
  const std::byte* p = nullptr;
  for (;;) {
    switch (state_) {
      case State::machine_length: {
        if ((p = in.take(4)) == nullptr) return Step::need_more;
        length_ = load_be32(p);
        if (length_ == 0 || length_ > kMachineMax) {
          error = make_error_values(ErrorClass::bad_stream, in.offset() - 4,
                                    "configuration: machine name length", length_, kMachineMax);
          return Step::failed;
        }
        state_ = State::machine;
        break;
      }
      case State::machine: {
        if ((p = in.take(length_)) == nullptr) return Step::need_more;
        configuration_.present = true;
        configuration_.machine = text(p, length_);
        if (configuration_.machine.find('\0') != std::string::npos) {
          error = make_error(ErrorClass::bad_stream, in.offset() - length_, kMachineField,
                             "'%s' contains a NUL", printable(p, length_).c_str());
          return Step::failed;
        }
        state_ = State::subsection_or_end;
        break;
      }
      case State::subsection_or_end: {
        const std::optional<std::byte> next = in.peek();
        if (!next) return Step::need_more;
        if (*next != static_cast<std::byte>(SectionType::subsection)) {
          state_ = State::done;
          break;
        }
        at_ = in.offset();
        configuration_.subsections.emplace_back();
        keep(in.take(1), 1);
        state_ = State::name_length;
        break;
      }
      case State::name_length: {
        if ((p = in.take(1)) == nullptr) return Step::need_more;
        keep(p, 1);
        length_ = std::to_integer<uint32_t>(*p);
        state_ = State::name;
        break;
      }
      case State::name: {
        if ((p = in.take(length_)) == nullptr) return Step::need_more;
        keep(p, length_);
        configuration_.subsections.back().name = printable(p, length_);
        state_ = State::version;
        break;
      }
      case State::version: {
        if ((p = in.take(4)) == nullptr) return Step::need_more;
        keep(p, 4);
        const ConfigurationSubsection& subsection = configuration_.subsections.back();
        if (const uint32_t version = load_be32(p); version != 1) {
          error = make_error(ErrorClass::unsupported, at_, kSubsectionField,
                             "'%s' has version %u, only 1 is known", subsection.name.c_str(), version);
          return Step::failed;
        }
        if (!begin_subsection(error)) return Step::failed;
        break;
      }
      case State::page_bits: {
        if ((p = in.take(4)) == nullptr) return Step::need_more;
        keep(p, 4);
        configuration_.target_page_bits = load_be32(p);
        if (load_be32(p) != 12) {
          error =
              make_error_values(ErrorClass::unsupported, at_, "configuration/target-page-bits", load_be32(p),
                                12, "only guests with target pages of 4 KiB can be received");
          return Step::failed;
        }
        state_ = State::subsection_or_end;
        break;
      }
      case State::capability_count: {
        if ((p = in.take(4)) == nullptr) return Step::need_more;
        keep(p, 4);
        left_ = load_be32(p);
        if (left_ > kCapabilitiesMax) {
          error = make_error_values(ErrorClass::bad_stream, at_, "configuration/capabilities: count", left_,
                                    kCapabilitiesMax);
          return Step::failed;
        }
        state_ = left_ > 0 ? State::capability_length : State::subsection_or_end;
        break;
      }
      case State::capability_length: {
        if ((p = in.take(1)) == nullptr) return Step::need_more;
        keep(p, 1);
        length_ = std::to_integer<uint32_t>(*p);
        state_ = State::capability;
        break;
      }
      case State::capability: {
        if ((p = in.take(length_)) == nullptr) return Step::need_more;
        keep(p, length_);
        configuration_.capabilities.emplace_back(printable(p, length_));
        if (!check_capability(configuration_.capabilities.back(), error)) return Step::failed;
        state_ = --left_ > 0 ? State::capability_length : State::subsection_or_end;
        break;
      }
      case State::uuid: {
        if ((p = in.take(16)) == nullptr) return Step::need_more;
        keep(p, 16);
        std::array<std::byte, 16>& uuid = configuration_.uuid.emplace();
        std::copy_n(p, 16, uuid.begin());
        if (settings_.uuid.has_value() && *settings_.uuid != uuid) {
          error =
              make_error(ErrorClass::mismatch, at_, "configuration/uuid",
                         "the stream belongs to another guest: source and destination need the same -uuid");
          return Step::failed;
        }
        state_ = State::subsection_or_end;
        break;
      }
      case State::done:
        // Both lists must agree for each validated capability (QEMU, configuration_validate_capabilities).
        if (settings_.mapped_ram && !configuration_.has("mapped-ram")) {
          error = make_error(ErrorClass::mismatch, in.offset(), kCapabilityField,
                             "mapped-ram is on here, but the source did not announce it");
          return Step::failed;
        }
        return Step::done;
    }
  }
}

bool ConfigurationReader::begin_subsection(StreamError& error) {
  const std::string& name = configuration_.subsections.back().name;
  for (std::size_t i = 0; i + 1 < configuration_.subsections.size(); ++i) {
    if (configuration_.subsections[i].name == name) {
      error = make_error(ErrorClass::bad_stream, at_, kSubsectionField, "'%s' comes twice", name.c_str());
      return false;
    }
  }
  if (name == kTargetPageBits) {
    state_ = State::page_bits;
  } else if (name == kCapabilities) {
    configuration_.has_capabilities = true;
    state_ = State::capability_count;
  } else if (name == kUuid) {
    state_ = State::uuid;
  } else {
    // Its payload has no length: a reader that does not know it cannot step over it.
    error =
        make_error(ErrorClass::unsupported, at_, kSubsectionField, "unknown subsection '%s'", name.c_str());
    return false;
  }
  return true;
}

bool ConfigurationReader::check_capability(std::string_view name, StreamError& error) const {
  if (name == "x-ignore-shared" && !settings_.x_ignore_shared) {
    error = make_error(
        ErrorClass::unsupported, at_, kCapabilityField,
        "x-ignore-shared is on at the source: guest RAM will not be sent; turn that capability off "
        "at the source");
    return false;
  }
  if (name == "mapped-ram" && !settings_.mapped_ram) {
    error = make_error(ErrorClass::mismatch, at_, kCapabilityField,
                       "mapped-ram is on at the source: such a stream lives in a file and is loaded with the "
                       "capability mapped-ram on");
    return false;
  }
  if (!is_known_capability(name)) {
    error = make_error(ErrorClass::unsupported, at_, kCapabilityField, "unknown capability '%.*s'",
                       static_cast<int>(std::min<std::size_t>(name.size(), 64)), name.data());
    return false;
  }
  return true;
}

}  // namespace migrx
