#include "loader/destination/socket_address.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

namespace migrx {
namespace {

TEST(SocketAddress, of_a_unix_socket) {
  SocketAddress address;
  EXPECT_EQ(parse_socket_address("unix:/run/vm0.sock", address), "");
  EXPECT_TRUE(address.is_unix());
  EXPECT_EQ(address.path, "/run/vm0.sock");
  EXPECT_EQ(address.family(), AF_UNIX);
}

TEST(SocketAddress, of_tcp) {
  SocketAddress address;
  EXPECT_EQ(parse_socket_address("tcp:127.0.0.1:49152", address), "");
  EXPECT_FALSE(address.is_unix());
  EXPECT_EQ(address.port, 49152);
  EXPECT_EQ(address.family(), AF_INET);
  EXPECT_EQ(parse_socket_address("tcp:[2001:db8::7]:1", address), "");
  EXPECT_EQ(address.family(), AF_INET6);
  EXPECT_EQ(address.length, sizeof(sockaddr_in6));
}

TEST(SocketAddress, what_is_none_is_refused_with_what_to_write) {
  for (const std::string text :
       {"", "/run/vm0.sock", "unix:", "unix:vm0.sock", "tcp:", "tcp:127.0.0.1",
        "tcp:127.0.0.1:", "tcp:127.0.0.1:0", "tcp:127.0.0.1:65536", "tcp:127.0.0.1:49152x", "tcp:host:49152",
        "tcp:::1:49152", "tcp:[::1:49152", "tcp:0.0.0.0:49152", "tcp:[::]:49152", "tcp:1.2.3:4"}) {
    SocketAddress address;
    EXPECT_NE(parse_socket_address(text, address), "") << text;
  }
  SocketAddress address;
  EXPECT_NE(parse_socket_address("unix:/" + std::string(107, 'x'), address).find("108 bytes"),
            std::string::npos);
  EXPECT_EQ(parse_socket_address("unix:/" + std::string(106, 'x'), address), "");
}

TEST(SocketAddress, an_address_without_a_way_to_it_is_known_before_anything_is_sent) {
  SocketAddress address;
  ASSERT_EQ(parse_socket_address("tcp:127.0.0.1:49152", address), "");
  EXPECT_EQ(no_way_to(address), "");
  ASSERT_EQ(parse_socket_address("tcp:255.255.255.255:49152", address), "");
  EXPECT_NE(no_way_to(address), "") << "a broadcast address";
}

}  // namespace
}  // namespace migrx
