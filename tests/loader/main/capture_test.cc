// Recorded streams of real QEMU sources, played into a main channel and its multifd channels on one thread,
// in pieces and turns of a fixed seed. The folder named by MIGRX_CAPTURES holds what tests/qemu/capture.py
// writes.
#include <dirent.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>

#include "loader/multifd/multifd_channel.h"
#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

std::vector<std::byte> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) throw std::runtime_error("cannot read " + path);
  std::vector<std::byte> bytes(static_cast<std::size_t>(in.tellg()));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

std::vector<std::string> captures() {
  std::vector<std::string> names;
  const char* const folder = std::getenv("MIGRX_CAPTURES");
  if (folder == nullptr) return names;
  DIR* const dir = opendir(folder);
  if (dir == nullptr) return names;
  while (const dirent* const entry = readdir(dir)) {
    const std::string path = std::string(folder) + "/" + entry->d_name;
    if (std::ifstream(path + "/meta.json")) names.push_back(path);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

// One connection: feeds its file in random pieces.
struct Player {
  ChannelParser* parser;
  std::vector<std::byte> bytes;
  std::size_t at = 0;
  bool parked = false;

  [[nodiscard]] bool finished() const { return at == bytes.size() && !parked; }
  // True: something moved.
  bool turn(std::mt19937& random) {
    if (parked && !parser->ready()) return false;
    if (finished()) return false;
    const std::size_t piece = std::min<std::size_t>(1 + random() % 9000, bytes.size() - at);
    const ParseResult result = parser->parse(Bytes(bytes).subspan(at, parked ? 0 : piece));
    EXPECT_NE(ParseStatus::failed, result.status) << parser->error().message();
    if (result.status == ParseStatus::failed) {
      at = bytes.size();
      parked = false;
      return false;
    }
    at += result.consumed;
    const bool was_parked = parked;
    parked = result.status == ParseStatus::parked;
    return result.consumed > 0 || was_parked != parked;
  }
};

void play(const std::string& folder, uint32_t seed) {
  std::ifstream file(folder + "/meta.json");
  const nlohmann::json meta = nlohmann::json::parse(file);
  const nlohmann::json& capabilities = meta.at("capabilities");
  const nlohmann::json& parameters = meta.at("parameters");

  MainSettings settings;
  settings.xbzrle = capabilities.value("xbzrle", false);
  settings.compress = capabilities.value("compress", false);
  const bool multifd = capabilities.value("multifd", false);
  settings.multifd_channels = multifd ? parameters.value("multifd_channels", 2U) : 0;
  const std::string method = parameters.value("multifd_compression", "none");

  RamBlockList blocks;
  test::RecordingEvents events(blocks);
  events.block_bytes_max = 64 << 20;
  FlushBarrier barrier(settings.multifd_channels);
  CompressJobs compress(2, 16, test::MainRig::kernels());
  MainChannel main(settings, events, blocks, barrier, compress, test::MainRig::kernels());

  MultifdSession session;
  session.barrier = &barrier;
  session.blocks = &blocks;
  session.kernels = &test::MainRig::kernels();
  session.compression = method == "zlib"   ? MultifdCompression::zlib
                        : method == "zstd" ? MultifdCompression::zstd
                                           : MultifdCompression::none;
  std::vector<std::unique_ptr<MultifdChannel>> channels;
  std::vector<Player> players;
  players.push_back({&main, read_file(folder + "/main.bin")});
  for (uint32_t i = 0; i < settings.multifd_channels; ++i) {
    channels.push_back(std::make_unique<MultifdChannel>(session));
    players.push_back({channels.back().get(), read_file(folder + "/channel" + std::to_string(i) + ".bin")});
  }

  std::mt19937 random(seed);
  uint32_t idle = 0;
  while (idle < 10000 &&
         !std::all_of(players.begin(), players.end(), [](const Player& p) { return p.finished(); })) {
    Player& player = players[random() % players.size()];
    bool moved = false;
    for (uint64_t turns = 1 + random() % 20; turns > 0; --turns) moved |= player.turn(random);
    for (uint32_t i = 0; i < compress.helpers(); ++i) moved |= compress.helper(i).do_work() > 0;
    idle = moved ? 0 : idle + 1;
  }
  for (const Player& player : players) {
    EXPECT_TRUE(player.finished()) << "stopped at byte " << player.at << " of " << player.bytes.size();
    EXPECT_FALSE(player.parser->end_of_stream()) << player.parser->error().message();
  }

  const nlohmann::json& counters = meta.at("counters");
  EXPECT_EQ(counters.at("normal").get<uint64_t>(), main.counters().normal_pages.read());
  EXPECT_EQ(counters.at("zero").get<uint64_t>(), main.counters().zero_pages.read());
  EXPECT_EQ(counters.at("xbzrle").get<uint64_t>(), main.counters().xbzrle_pages.read());
  EXPECT_EQ(counters.at("compressed").get<uint64_t>(), main.counters().compressed_pages.read());
  EXPECT_EQ(meta.at("ram_sections").get<uint64_t>(), main.counters().ram_sections.read());
  const std::size_t tail_at = meta.at("tail_offset");
  EXPECT_EQ(players[0].bytes.size() - tail_at, events.tail.size());
  EXPECT_EQ(0, std::memcmp(players[0].bytes.data() + tail_at, events.tail.data(), events.tail.size()));
  EXPECT_TRUE(events.verbatim.empty());
  if (multifd) {
    EXPECT_EQ(counters.at("flush").get<uint64_t>() > 0 ? FlushMode::round : FlushMode::section,
              main.flush_mode());
    uint64_t normal = 0;
    for (const auto& channel : channels) normal += channel->counters().normal_pages.read();
    EXPECT_EQ(counters.at("multifd_normal").get<uint64_t>(), normal);
  }
  for (const auto& [name, length] : meta.at("blocks").items()) {
    std::string file_name = name;
    std::replace(file_name.begin(), file_name.end(), '/', '_');
    const std::vector<std::byte> expected =
        read_file(folder + (name == "mem" ? "/mem.bin" : "/block." + file_name));
    ASSERT_EQ(length.get<uint64_t>(), expected.size());
    const test::GuardedMemory& memory = *events.memory.at(name);
    ASSERT_EQ(expected.size(), memory.size());
    for (std::size_t at = 0; at < expected.size(); at += kPageBytes)
      ASSERT_EQ(0, std::memcmp(expected.data() + at, memory.data() + at, kPageBytes))
          << name << " offset " << at;
  }
}

TEST(Capture, streams_of_real_sources_leave_the_sources_ram) {
  const std::vector<std::string> folders = captures();
  if (folders.empty())
    GTEST_SKIP() << "MIGRX_CAPTURES names no folder of captures (tests/qemu/capture.py FOLDER)";
  uint32_t seed = 1;
  for (const std::string& folder : folders) {
    SCOPED_TRACE(folder + " seed " + std::to_string(seed));
    play(folder, seed++);
  }
}

}  // namespace
}  // namespace migrx
