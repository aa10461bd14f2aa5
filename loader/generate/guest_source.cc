#include "loader/generate/guest_source.h"

#include <algorithm>

#include "loader/generate/wire_writer.h"

namespace migrx {
namespace {

// QEMU migration/savevm.h and savevm.c.
constexpr uint32_t kFileMagic = 0x5145564d;
constexpr uint32_t kFileVersion = 3;
enum SectionByte : uint8_t {
  kEof = 0,
  kStart = 1,
  kPart = 2,
  kEnd = 3,
  kDescription = 6,
  kConfiguration = 7
};
constexpr uint8_t kCommand = 8;
constexpr uint8_t kFooter = 0x7e;
constexpr uint16_t kOpenReturnPath = 1;
constexpr uint16_t kPing = 2;
constexpr uint32_t kRamSection = 1;
constexpr uint32_t kRamVersion = 4;
// QEMU migration/ram.c, RAM_SAVE_FLAG_*.
constexpr uint64_t kMemSize = 0x04;
constexpr uint64_t kEos = 0x10;
constexpr uint64_t kMultifdFlush = 0x200;
// QEMU migration/multifd.h: MultiFDInit_t, MultiFDPacket_t.
constexpr uint32_t kMultifdMagic = 0x11223344;
constexpr uint32_t kMultifdVersion = 1;
constexpr uint32_t kSync = 1;
constexpr uint32_t kPagesPerPacket = 128;
constexpr std::size_t kNameBytes = 256;
// Bounds of one call: pages looked at for a packet (few of them may be dirty), packets made.
constexpr uint64_t kScanPages = 16'384;
constexpr uint32_t kPacketsPerCall = 16;

struct PacketFields {
  uint32_t flags = 0;
  uint32_t pages_alloc = 0;
  uint32_t payload_bytes = 0;
  uint64_t packet_num = 0;
  std::string_view block;
};

// As sources since 9.0 write it: offsets of pages with data first, of zero pages after them.
std::vector<std::byte> packet_header(const PacketFields& fields, const std::vector<PageVersion>& normal,
                                     const std::vector<PageVersion>& zero) {
  WireWriter out;
  out.be32(kMultifdMagic).be32(kMultifdVersion).be32(fields.flags).be32(fields.pages_alloc);
  out.be32(normal.size()).be32(fields.payload_bytes).be64(fields.packet_num).be32(zero.size()).zeros(28);
  out.text(fields.block).zeros(kNameBytes - fields.block.size());
  for (const PageVersion& page : normal) out.be64(page.page * kGuestPageBytes);
  for (const PageVersion& page : zero) out.be64(page.page * kGuestPageBytes);
  out.zeros((kPagesPerPacket - normal.size() - zero.size()) * 8);
  return out.take();
}

}  // namespace

GuestSource::GuestSource(const GuestSourceSettings& settings, const GuestImage& image)
    : settings_(settings), image_(image), streams_(settings.channels + 1, ChannelStream(image)) {
  if (settings_.method != MultifdMethod::none)
    for (uint32_t i = 0; i < settings_.channels; ++i)
      encoders_.push_back(make_payload_encoder(settings_.method, settings_.level));
  begin();
}

void GuestSource::begin() {
  WireWriter main;
  main.be32(kFileMagic).be32(kFileVersion);
  main.u8(kConfiguration).be32(settings_.machine.size()).text(settings_.machine);
  main.u8(kCommand).be16(kOpenReturnPath).be16(0);
  main.u8(kCommand).be16(kPing).be16(4).be32(kPingHello);
  main.u8(kStart).be32(kRamSection).str8("ram").be32(0).be32(kRamVersion);
  main.be64(image_.bytes() | kMemSize).str8(settings_.block).be64(image_.bytes());
  main.be64(kMultifdFlush).be64(kEos).u8(kFooter).be32(kRamSection);
  streams_[0].append(main.take());
  for (uint32_t i = 1; i < streams(); ++i) {
    WireWriter init;
    init.be32(kMultifdMagic).be32(kMultifdVersion).zeros(16).u8(i - 1).zeros(7 + 32);
    streams_[i].append(init.take());
    sync(i);
  }
}

void GuestSource::sync(uint32_t stream) {
  streams_[stream].append(packet_header({.flags = kSync, .packet_num = packet_num_++, .block = {}}, {}, {}));
}

void GuestSource::make_packet(uint32_t stream) {
  std::vector<PageVersion> normal;
  std::vector<PageVersion> zero;
  const uint64_t stop = std::min(image_.settings().pages, cursor_ + kScanPages);
  for (; cursor_ < stop && normal.size() + zero.size() < kPagesPerPacket; ++cursor_) {
    if (!image_.is_sent(cursor_, round_)) continue;
    const PageVersion page{cursor_, round_};
    (image_.is_zero(page) ? zero : normal).push_back(page);
  }
  if (!normal.empty() || !zero.empty()) {
    normal_pages_ += normal.size();
    zero_pages_ += zero.size();
    guest_bytes_ += (normal.size() + zero.size()) * kGuestPageBytes;
    PacketFields fields{.flags = method_flag(settings_.method),
                        .pages_alloc = kPagesPerPacket,
                        .payload_bytes = static_cast<uint32_t>(normal.size() * kGuestPageBytes),
                        .packet_num = packet_num_++,
                        .block = settings_.block};
    const uint64_t before = streams_[stream].end();
    if (encoders_.empty()) {
      std::vector<std::byte> head = packet_header(fields, normal, zero);
      streams_[stream].append(std::move(head), std::move(normal));
    } else {
      std::vector<std::byte> payload;
      if (!normal.empty()) payload = encoders_[stream - 1]->encode(image_, normal);
      fields.payload_bytes = static_cast<uint32_t>(payload.size());
      streams_[stream].append(packet_header(fields, normal, zero));
      streams_[stream].append(std::move(payload));
    }
    made_bytes_ += streams_[stream].end() - before;
  }
  if (cursor_ == image_.settings().pages) end_round();
}

void GuestSource::end_round() {
  for (uint32_t i = 1; i < streams(); ++i) sync(i);
  cursor_ = 0;
  const bool last = ++round_ == image_.settings().rounds;
  WireWriter main;
  main.u8(last ? kEnd : kPart).be32(kRamSection).be64(kMultifdFlush).be64(kEos).u8(kFooter).be32(kRamSection);
  if (last) {
    // No device has any state: a destination that waits with -S takes even that.
    constexpr std::string_view kNoDevices = "{\"page_size\": 4096, \"devices\": []}";
    main.u8(kCommand).be16(kPing).be16(4).be32(kPingRamLoaded);
    main.u8(kEof).u8(kDescription).be32(kNoDevices.size()).text(kNoDevices);
  }
  streams_[0].append(main.take());
}

void GuestSource::fill(uint32_t stream, uint64_t backlog, uint64_t elapsed_ns) {
  const uint64_t allowed = settings_.bytes_per_second == 0
                               ? UINT64_MAX
                               : static_cast<uint64_t>(static_cast<double>(settings_.bytes_per_second) *
                                                       static_cast<double>(elapsed_ns) * 1e-9);
  for (uint32_t i = 0; i < kPacketsPerCall && !all_made() && streams_[stream].backlog() < backlog; ++i) {
    if (made_bytes_ > allowed) return;
    make_packet(stream);
  }
}

void GuestSource::make_all() {
  for (uint32_t stream = 1; !all_made(); stream = stream + 1 == streams() ? 1 : stream + 1)
    make_packet(stream);
}

}  // namespace migrx
