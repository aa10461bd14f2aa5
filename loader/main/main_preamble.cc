#include "loader/main/main_preamble.h"

#include "loader/main/configuration.h"

namespace migrx {

PreambleStatus read_main_uuid(Bytes bytes, std::optional<std::array<std::byte, 16>>& uuid) {
  constexpr std::size_t kHeaderBytes = 8;
  uuid.reset();
  if (bytes.size() <= kHeaderBytes) return PreambleStatus::need_more;
  if (bytes[kHeaderBytes] != std::byte{static_cast<uint8_t>(SectionType::configuration)})
    return PreambleStatus::known;
  MainSettings tolerant;
  tolerant.x_ignore_shared = true;
  ConfigurationReader reader(tolerant);
  ByteReader in(bytes.size());
  in.feed(bytes.subspan(kHeaderBytes + 1));
  StreamError error;
  if (reader.read(in, error) == Step::need_more) return PreambleStatus::need_more;
  uuid = reader.configuration().uuid;
  return PreambleStatus::known;
}

}  // namespace migrx
