// The configuration section, which follows the header (QEMU migration/savevm.c, vmstate_configuration):
//
//   07 be32 len, machine name, subsection*
//   subsection := 05 str8 name, be32 version, payload
//
// There is no terminator: the first byte that is not 05 starts the next item.
#pragma once

#include "loader/main/main_events.h"
#include "loader/main/main_settings.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

// Reads one section, from the byte after its type byte on. Allocates: once per migration.
class ConfigurationReader {
 public:
  static constexpr uint32_t kMachineMax = 255;
  static constexpr uint32_t kCapabilitiesMax = 64;  // QEMU 10.0 has 25

  explicit ConfigurationReader(const MainSettings& settings) : settings_(settings) {}

  // done: the configuration is whole and fits the settings. The byte that shows it begins the next item and
  // is not taken.
  Step read(ByteReader& in, StreamError& error);
  [[nodiscard]] const Configuration& configuration() const noexcept { return configuration_; }

 private:
  enum class State : uint8_t {
    machine_length,
    machine,
    subsection_or_end,
    name_length,
    name,
    version,
    page_bits,
    capability_count,
    capability_length,
    capability,
    uuid,
    done,
  };

  bool begin_subsection(StreamError& error);
  bool check_capability(std::string_view name, StreamError& error) const;
  void keep(const std::byte* p, std::size_t n);

  const MainSettings& settings_;
  Configuration configuration_;
  State state_ = State::machine_length;
  uint64_t at_ = 0;      // offset of the subsection being read
  uint32_t length_ = 0;  // of the name to come
  uint32_t left_ = 0;    // capabilities to come
};

// Every capability name that a QEMU from 7.2 to 10.x may announce.
[[nodiscard]] bool is_known_capability(std::string_view name) noexcept;

}  // namespace migrx
