// The generator against the whole receiver, over a link in memory that may lose, repeat and reorder: poll
// core, hand-off rings, worker and session are the product's, in one thread and virtual time.
#include "loader/generate/generator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <string_view>
#include <thread>

#include "dataplane/poll_core.h"
#include "dataplane/wire/arp.h"
#include "loader/destination/device_state_file.h"
#include "loader/session/session.h"
#include "loader/session/session_control.h"
#include "loader/tls/tls_acceptor.h"
#include "tests/dataplane/memory_queue.h"
#include "tests/loader/tls/test_pki.h"
#include "tests/sim/link.h"

namespace migrx {
namespace {

constexpr Ipv4Address kReceiver{0x0a4d0002};
constexpr Ipv4Address kGenerator{0x0a4d0001};
constexpr IpAddress kReceiver6{0xfd00'0077'0000'0000, 2};
constexpr IpAddress kGenerator6{0xfd00'0077'0000'0000, 1};
constexpr uint16_t kPort = 4444;

EthernetAddress mac_of(int last) {
  EthernetAddress mac;
  mac.bytes[0] = std::byte{2};
  mac.bytes[5] = static_cast<std::byte>(last);
  return mac;
}

MultifdCompression compression_of(MultifdMethod method) {
  switch (method) {
    case MultifdMethod::none:
      return MultifdCompression::none;
    case MultifdMethod::zlib:
      return MultifdCompression::zlib;
    case MultifdMethod::zstd:
      return MultifdCompression::zstd;
  }
  return MultifdCompression::none;
}

struct Scenario {
  GuestImageSettings guest;
  GuestSourceSettings source;
  sim::LinkOptions link;
  uint64_t seed = 1;
  bool ipv6 = false;
  int32_t vlan = -1;
  uint32_t channels_at_receiver = 0;  // 0: as many as the source has
  bool congestion_control = true;
  bool prepare = false;
  // With TLS when a text is there; they name the kind and the folder.
  std::string server_creds;
  std::string client_creds;
  std::string host = "server";
  uint64_t records_per_key = uint64_t{1} << 24;
};

class World {
 public:
  explicit World(const Scenario& s)
      : random_(s.seed),
        image(s.guest),
        source(s.source, image),
        there_(s.link, random_.fork()),
        back_(s.link, random_.fork()) {
    const uint32_t channels = s.channels_at_receiver == 0 ? s.source.channels : s.channels_at_receiver;
    if (s.prepare) source.make_all();
    GeneratorConfig config;
    config.local_ip = s.ipv6 ? kGenerator6 : IpAddress{kGenerator};
    config.remote_ip = config.next_hop = s.ipv6 ? kReceiver6 : IpAddress{kReceiver};
    config.vlan = s.vlan;
    if (s.ipv6) config.tcp.mss = 1440;
    config.remote_port = kPort;
    config.secret = s.seed;
    config.backlog_bytes = 1 << 20;
    config.tcp.congestion_control = s.congestion_control;
    config.answer_timeout_ns = 5 * kNsPerSecond;
    if (!s.client_creds.empty()) {
      TlsCredsOptions options;
      EXPECT_EQ(parse_tls_creds(s.client_creds, options, TlsCredsOptions::Endpoint::client), "");
      std::string problem;
      config.tls.emplace();
      config.tls->credentials = TlsCredentials::load(options, problem);
      EXPECT_EQ(problem, "");
      config.tls->host = s.host;
      config.tls->records_per_key = s.records_per_key;
    }
    generator = std::make_unique<Generator>(config, generator_queue_, source);

    PollCoreConfig core;
    core.ports = {{&receiver_queue_, {PortAddress{config.remote_ip}}, s.vlan}};
    core.connections_max = channels + 1 + 4;
    core.handoff_slots = 63;
    core.tcp.buffer_bytes = 2048;
    core.announce = false;
    core_ = std::make_unique<PollCore>(core);
    core_->request({TenantChange::Kind::open, &tenant_});
    core_->on_start();
    SessionSettings settings;
    settings.main.multifd_channels = channels;
    settings.multifd_compression = compression_of(s.source.method);
    settings.connections_max = core.connections_max;
    settings.now_ns = [this] { return now; };
    std::string problem;
    if (!s.server_creds.empty()) {
      TlsCredsOptions options;
      EXPECT_EQ(parse_tls_creds(s.server_creds, options), "");
      std::vector<std::string> warnings;
      acceptor = std::make_unique<TlsAcceptor>(TlsCredentialStore::open(options, problem, warnings), nullptr,
                                               core.connections_max, 0);
      settings.security = acceptor.get();
    }
    const PageKernels* const kernels = select_page_kernels(problem);
    compress_ = std::make_unique<CompressJobs>(0, 4, *kernels);
    session = std::make_unique<Session>(settings, blocks, state_file_.events(), *kernels, *compress_);
    control_ = std::make_unique<SessionControl>(
        *session, state_file_, [this] { return core_->take_accepted(); },
        std::vector<LoaderWorker*>{&worker_}, SessionLimits{});
  }
  ~World() { core_->on_stop(); }

  // Until both are done, or `limit_ns` of virtual time is over.
  void run(uint64_t limit_ns) {
    const uint64_t until = now + limit_ns;
    while (now < until && !(generator->phase() == GeneratorPhase::over && control_->over())) {
      now += 2'000;
      // The acceptor's helper lives in real time.
      if (acceptor != nullptr && acceptor->handshakes() < source.streams() &&
          generator->phase() < GeneratorPhase::closing)
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      generator->do_work(now);
      carry(generator_queue_, there_, receiver_queue_);
      core_->do_work(now);
      worker_.do_work(now);
      control_->do_work(now);
      carry(receiver_queue_, back_, generator_queue_);
    }
  }
  [[nodiscard]] uint64_t wrong_pages() const {
    const RamBlock* const ram = blocks.list().find("mem");
    if (ram == nullptr) return UINT64_MAX;
    uint64_t wrong = 0;
    std::array<std::byte, kGuestPageBytes> expected;
    for (uint64_t page = 0; page < image.settings().pages; ++page) {
      image.read(image.last_version(page), 0, expected);
      if (!std::equal(expected.begin(), expected.end(), ram->host() + page * kGuestPageBytes)) ++wrong;
    }
    return wrong;
  }
  [[nodiscard]] uint64_t resent() const {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < source.streams(); ++i) sum += generator->sender(i)->counters().resent_segments;
    return sum;
  }

 private:
  void carry(testing::MemoryQueue& from, sim::Link& link, testing::MemoryQueue& to) {
    for (auto& packet : from.sent) link.send(std::move(packet), now);
    from.sent.clear();
    sim::Packet packet;
    bool damaged = false;
    while (link.receive(now, packet, damaged)) to.arrive(std::move(packet));
  }
  sim::Random random_;

 public:
  const GuestImage image;
  GuestSource source;
  BlockTable blocks{64U << 20};
  std::unique_ptr<Generator> generator;
  std::unique_ptr<TlsAcceptor> acceptor;
  std::unique_ptr<Session> session;
  uint64_t now = kNsPerSecond;

 private:
  sim::Link there_;
  sim::Link back_;
  testing::MemoryPool generator_pool_{2048, 2048};
  testing::MemoryPool receiver_pool_{2048, 2048};
  testing::MemoryQueue generator_queue_{generator_pool_, mac_of(1)};
  testing::MemoryQueue receiver_queue_{receiver_pool_, mac_of(2)};
  Tenant tenant_{{.port = kPort}};
  std::unique_ptr<PollCore> core_;
  LoaderWorker worker_{64};
  DeviceStateFile state_file_{""};
  std::unique_ptr<CompressJobs> compress_;
  std::unique_ptr<SessionControl> control_;
};

TEST(Generator, receiver_ends_with_the_image_it_generated) {
  Scenario s;
  s.guest = {.seed = 11, .pages = 3000, .zero_percent = 20, .rounds = 4, .dirty_percent = 15};
  s.source.channels = 4;
  World world(s);
  world.run(20 * kNsPerSecond);
  EXPECT_TRUE(world.generator->ram_loaded());
  EXPECT_TRUE(world.generator->accepted());
  EXPECT_EQ(world.generator->problem(), "");
  EXPECT_EQ(world.session->state(), SessionState::done);
  EXPECT_EQ(world.wrong_pages(), 0U);
  EXPECT_EQ(world.session->main_channel().counters().markers.read(), 5U);  // START and four rounds
  EXPECT_LT(world.generator->ram_loaded_ns(), world.now);
}

TEST(Generator, the_same_over_ipv6_and_in_a_vlan) {
  for (const int32_t vlan : {-1, 42}) {
    for (const bool ipv6 : {false, true}) {
      Scenario s;
      s.guest = {.seed = 12, .pages = 1000, .zero_percent = 20, .rounds = 2, .dirty_percent = 15};
      s.link.loss = 0.01;
      s.ipv6 = ipv6;
      s.vlan = vlan;
      World world(s);
      world.run(20 * kNsPerSecond);
      EXPECT_TRUE(world.generator->accepted()) << world.generator->problem();
      EXPECT_EQ(world.wrong_pages(), 0U);
    }
  }
}

TEST(Generator, compressed_streams_are_loaded_prepared_or_not) {
  for (const MultifdMethod method : {MultifdMethod::zlib, MultifdMethod::zstd}) {
    for (const bool prepare : {false, true}) {
      Scenario s;
      s.guest = {.seed = 12, .pages = 600, .zero_percent = 10, .compressible_percent = 70, .rounds = 3};
      s.guest.dirty_percent = 30;
      s.source.channels = 2;
      s.source.method = method;
      s.prepare = prepare;
      World world(s);
      world.run(20 * kNsPerSecond);
      EXPECT_TRUE(world.generator->accepted()) << world.generator->problem();
      EXPECT_EQ(world.wrong_pages(), 0U);
    }
  }
}

TEST(Generator, bad_links_cost_time_but_no_byte) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    Scenario s;
    s.seed = seed;
    s.guest = {.seed = seed, .pages = 800, .zero_percent = 10, .rounds = 3, .dirty_percent = 20};
    s.source.channels = 3;
    s.link.delay_ns = 20'000;
    s.link.loss = 0.005 * static_cast<double>(seed);
    s.link.reorder = 0.02;
    s.link.duplicate = 0.01;
    s.link.corrupt = 0.002;
    World world(s);
    world.run(120 * kNsPerSecond);
    EXPECT_TRUE(world.generator->accepted()) << world.generator->problem();
    EXPECT_EQ(world.wrong_pages(), 0U);
    EXPECT_GT(world.resent(), 0U);
  }
}

TEST(Generator, a_receiver_that_wants_fewer_channels_is_named_as_the_cause) {
  Scenario s;
  s.guest = {.seed = 1, .pages = 100};
  s.source.channels = 3;
  s.channels_at_receiver = 1;
  World world(s);
  world.run(60 * kNsPerSecond);
  EXPECT_EQ(world.generator->phase(), GeneratorPhase::over);
  EXPECT_FALSE(world.generator->ram_loaded());
  EXPECT_NE(world.generator->problem(), "");
}

class GeneratorTls : public ::testing::Test {
 protected:
  void SetUp() override {
    pki_.make({.common_name = "server", .file = "server"});
    pki_.make({.common_name = "source.example", .file = "client"});
    pki_.write("keys.psk", "qemu:00112233445566778899aabbccddeeff\nother:0011\n");
  }
  Scenario scenario(const std::string& kind, const std::string& more = "") {
    Scenario s;
    s.guest = {.seed = 21, .pages = 700, .zero_percent = 20, .rounds = 3, .dirty_percent = 15};
    s.source.channels = 3;
    s.server_creds = s.client_creds = kind + ":dir=" + pki_.dir();
    s.client_creds += more;
    return s;
  }
  TestPki pki_;
};

// What an operator forbids is not allowed again by what the record layer knows.
TEST_F(GeneratorTls, a_cipher_that_the_destination_forbids_is_not_used) {
  Scenario s = scenario("x509");
  s.server_creds += ",priority=NORMAL:-AES-256-GCM:-CHACHA20-POLY1305";
  World world(s);
  world.run(20 * kNsPerSecond);
  EXPECT_TRUE(world.generator->accepted()) << world.generator->problem();
  EXPECT_EQ(world.generator->sealed(0)->description().find("TLS1.3 AES-128-GCM"), 0U)
      << world.generator->sealed(0)->description();
}

TEST_F(GeneratorTls, each_suite_loads_the_image) {
  const struct {
    const char* kind;
    const char* more;
    const char* session;
  } modes[] = {{"x509", "", "TLS1.3 AES-256-GCM"},
               {"psk", "", "TLS1.3 AES-128-GCM"},
               {"psk", ",username=other", "TLS1.3 AES-128-GCM"},
               {"x509", ",priority=NORMAL:-VERS-TLS1.3", "TLS1.2 AES-256-GCM"},
               {"x509", ",priority=NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305", "TLS1.3 CHACHA20-POLY1305"},
               {"psk", ",priority=NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305", "TLS1.3 CHACHA20-POLY1305"}};
  for (const auto& mode : modes) {
    SCOPED_TRACE(std::string(mode.kind) + mode.more);
    World world(scenario(mode.kind, mode.more));
    world.run(20 * kNsPerSecond);
    EXPECT_TRUE(world.generator->accepted()) << world.generator->problem();
    EXPECT_EQ(world.session->state(), SessionState::done);
    EXPECT_EQ(world.wrong_pages(), 0U);
    ASSERT_NE(world.generator->sealed(1), nullptr);
    EXPECT_EQ(world.generator->sealed(1)->description().find(mode.session), 0U)
        << world.generator->sealed(1)->description();
    EXPECT_GT(world.generator->sealed(1)->records(), 50U);
  }
}

TEST_F(GeneratorTls, keys_are_updated_in_the_middle_and_a_bad_link_costs_no_byte) {
  Scenario s = scenario("x509");
  s.guest.pages = 1500;
  s.records_per_key = 120;  // GnuTLS takes eight updates a second
  s.link.delay_ns = 20'000;
  s.link.loss = 0.01;
  s.link.reorder = 0.02;
  s.link.duplicate = 0.01;
  World world(s);
  world.run(120 * kNsPerSecond);
  EXPECT_TRUE(world.generator->accepted()) << world.generator->problem() << world.session->error().message();
  EXPECT_EQ(world.wrong_pages(), 0U);
  EXPECT_GT(world.resent(), 0U);
  for (uint32_t i = 1; i <= 3; ++i) EXPECT_GT(world.generator->sealed(i)->key_updates(), 1U) << i;
}

TEST_F(GeneratorTls, more_than_the_ring_is_sealed_and_compressed_packets_are_cut_into_records) {
  for (const MultifdMethod method : {MultifdMethod::none, MultifdMethod::zstd}) {
    Scenario s = scenario("x509");
    s.guest.pages = 3000;
    s.source.channels = 1;
    s.source.method = method;
    World world(s);
    world.run(60 * kNsPerSecond);
    EXPECT_TRUE(world.generator->accepted()) << world.generator->problem();
    EXPECT_EQ(world.wrong_pages(), 0U);
    EXPECT_GT(world.generator->sealed(1)->end(), 2 * SealedStream::kRingBytes);
  }
}

TEST_F(GeneratorTls, what_keeps_the_two_apart_is_said) {
  struct {
    const char* name;
    std::string server;
    std::string client;
    std::string host;
    const char* why;
  } cases[] = {
      {"another name", "x509", "x509", "somebody.else", "--tls-hostname"},
      {"no TLS at the destination", "", "x509", "server", "refuses the connection or its TLS"},
      {"no TLS here", "x509", "", "server", "the destination"},
      {"no certificate of our own", "x509", "x509", "server", "refuses"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    Scenario s = scenario("x509");
    if (c.server.empty()) s.server_creds.clear();
    if (c.client.empty()) s.client_creds.clear();
    s.host = c.host;
    if (std::string_view(c.why) == "refuses") {
      std::filesystem::remove(pki_.path("client-cert.pem"));
      std::filesystem::remove(pki_.path("client-key.pem"));
    }
    World world(s);
    world.run(8 * kNsPerSecond);
    EXPECT_EQ(world.generator->phase(), GeneratorPhase::over);
    EXPECT_FALSE(world.generator->ram_loaded());
    EXPECT_NE(world.generator->problem().find(c.why), std::string::npos) << world.generator->problem();
  }
}

TEST(Generator, nobody_there_is_said_within_the_timeout) {
  Scenario s;
  s.guest = {.seed = 1, .pages = 10};
  s.link.loss = 1.0;
  World world(s);
  world.run(10 * kNsPerSecond);
  EXPECT_EQ(world.generator->phase(), GeneratorPhase::over);
  EXPECT_NE(world.generator->problem().find("ARP"), std::string::npos);
  s.ipv6 = true;
  World world6(s);
  world6.run(10 * kNsPerSecond);
  EXPECT_NE(world6.generator->problem().find("neighbour discovery"), std::string::npos);
}

// Whatever the peer says on the return path, in any split.
TEST(PeerVerdict, messages_are_found_in_any_split) {
  std::vector<std::byte> bytes;
  for (const int b : {0, 2, 0, 4, 0, 0, 0, 1, 0, 7, 0, 0, 0, 2, 0, 4, 0, 0, 0, 2, 0, 1, 0, 4, 0, 0, 0, 0})
    bytes.push_back(static_cast<std::byte>(b));
  for (std::size_t split = 1; split < bytes.size(); ++split) {
    PeerVerdict verdict;
    for (std::size_t at = 0; at < bytes.size(); at += split)
      verdict.feed(Bytes{bytes}.subspan(at, std::min(split, bytes.size() - at)));
    EXPECT_EQ(verdict.pong(), 2U);
    EXPECT_EQ(verdict.shut(), 0U);
    EXPECT_FALSE(verdict.nonsense());
  }
  PeerVerdict verdict;
  const std::vector<std::byte> text(20, std::byte{'x'});
  verdict.feed(text);
  EXPECT_TRUE(verdict.nonsense());
}

}  // namespace
}  // namespace migrx
