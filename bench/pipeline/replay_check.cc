#include "bench/pipeline/replay_check.h"

#include <algorithm>
#include <cstring>

namespace migrx::bench {
namespace {

std::string stamps_problem(const GuestPlan& plan, const std::byte* guest) {
  for (uint64_t page = 0; page < plan.pages(); ++page) {
    PageStamp stamp;
    stamp.offset = page * kPageBytes;
    stamp.epoch = plan.rounds() - 1;
    if (std::memcmp(&stamp, guest + stamp.offset, sizeof stamp) != 0)
      return "page " + std::to_string(page) + " bears the stamp of another, or of an earlier round";
  }
  return {};
}

// One segment's bytes of the last round, each piece against the page it belongs to. Adds what was compared.
std::string segment_problem(const GuestPlan& plan, uint32_t channel, uint64_t position, Bytes payload,
                            const std::byte* guest, uint64_t& compared) {
  while (!payload.empty()) {
    uint64_t i = 0;
    uint32_t in_page = 0;
    const auto piece = static_cast<uint32_t>(
        std::min<uint64_t>(plan.page_bytes_at(channel, position, i, in_page), payload.size()));
    if (i != GuestPlan::kNoPage) {
      const uint64_t page = plan.page_at(plan.rounds() - 1, i);
      if (std::memcmp(guest + page * kPageBytes + in_page, payload.data(), piece) != 0)
        return "page " + std::to_string(page) + " differs within " + std::to_string(piece) +
               " bytes from byte " + std::to_string(in_page) + " on";
      compared += piece;
    }
    position += piece;
    payload = payload.subspan(piece);
  }
  return {};
}

}  // namespace

std::string check_guest(const GuestPlan& plan, const ReplayPort& port, const std::byte* guest) {
  if (std::string problem = stamps_problem(plan, guest); !problem.empty()) return problem;
  const uint32_t segment_bytes = port.segment_bytes();
  std::vector<std::byte> memory(std::size_t{port.buffers_total()} * segment_bytes);
  const auto payload_of = [&](uint32_t buffer) {
    return MutableBytes{memory.data() + std::size_t{buffer} * segment_bytes, segment_bytes};
  };
  for (uint32_t i = 0; i < port.buffers_total(); ++i) port.fill_fresh(i, payload_of(i));
  std::vector<ChannelScript> scripts;
  for (uint32_t c = 0; c < plan.channels(); ++c) scripts.emplace_back(plan, c);
  const std::vector<std::byte> main = plan.main_stream();
  std::size_t main_sent = 0;
  uint64_t compared = 0;
  for (const ReplayPort::Use use : port.uses()) {
    const MutableBytes payload = payload_of(use.buffer);
    if (use.connection >= plan.channels()) {
      const std::size_t length = std::min<std::size_t>(segment_bytes, main.size() - main_sent);
      std::memcpy(payload.data(), main.data() + main_sent, length);
      main_sent += length;
      continue;
    }
    ChannelScript& script = scripts[use.connection];
    const uint64_t position = plan.stream_bytes(use.connection) - script.left();
    const auto length = static_cast<uint32_t>(std::min<uint64_t>(segment_bytes, script.left()));
    std::array<ChannelScript::Piece, ChannelScript::kPiecesMax> pieces;
    script.write(payload.data(), length, pieces.data());
    std::string problem =
        segment_problem(plan, use.connection, position, payload.first(length), guest, compared);
    if (!problem.empty()) return problem;
  }
  if (compared != plan.guest_bytes())
    return std::to_string(compared) + " bytes of " + std::to_string(plan.guest_bytes()) + " were sent last";
  return {};
}

}  // namespace migrx::bench
