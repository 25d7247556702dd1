//! What Docker puts into the kernel for `-p 80:8080 -p 9000:9000`, and at the host's loopback
//! address for `-p 127.0.0.1:8088:8080`, with each of its backends. Not all of it: what publishes
//! the ports, what lets their packets through, and what hides containers' addresses.

/// Docker 20 to 28, IPv4.
pub(crate) const IPTABLES_V4: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8080 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 9000 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 8080 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8080
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 9000 -j DNAT --to-destination 172.17.0.2:9000
-A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 8088 -j DNAT --to-destination 172.17.0.2:8080
COMMIT
";

/// Docker 28, IPv6.
pub(crate) const IPTABLES_V6: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-FORWARD - [0:0]
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 2001:db8:d0c::2/128 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8080 -j ACCEPT
-A DOCKER -d 2001:db8:d0c::2/128 ! -i docker0 -o docker0 -p tcp -m tcp --dport 9000 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 2001:db8:d0c::/64 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -s fe80::/10 ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination [2001:db8:d0c::2]:8080
-A DOCKER ! -s fe80::/10 ! -i docker0 -p tcp -m tcp --dport 9000 -j DNAT --to-destination [2001:db8:d0c::2]:9000
COMMIT
";

/// Docker 29 with its nftables backend. `FAMILY`, `SUBNET`, `LOOPBACK`, `CONTAINER` and `TO` depend
/// on the IP version.
pub(crate) const NFTABLES: &str = "table FAMILY docker-bridges {
    map filter-forward-in-jumps {
        type ifname : verdict
        elements = { \"docker0\" : jump filter-forward-in__docker0 }
    }
    chain filter-FORWARD {
        type filter hook forward priority filter; policy accept;
        oifname vmap @filter-forward-in-jumps
    }
    chain filter-forward-in__docker0 {
        ct state established,related counter accept
        iifname \"docker0\" counter accept
        FAMILY daddr CONTAINER iifname != \"docker0\" tcp dport 8080 counter accept
        FAMILY daddr CONTAINER iifname != \"docker0\" tcp dport 9000 counter accept
        counter drop
    }
    chain nat-OUTPUT {
        type nat hook output priority -100; policy accept;
        FAMILY daddr != LOOPBACK fib daddr type local counter jump nat-prerouting-and-output
    }
    chain nat-PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local counter jump nat-prerouting-and-output
    }
    chain nat-prerouting-and-output {
        iifname != \"docker0\" tcp dport 80 counter dnat to TO:8080
        iifname != \"docker0\" tcp dport 9000 counter dnat to TO:9000
    }
    chain nat-POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname != \"docker0\" FAMILY saddr SUBNET counter masquerade
    }
    chain raw-PREROUTING {
        type filter hook prerouting priority raw; policy accept;
        FAMILY daddr CONTAINER iifname != \"docker0\" counter drop
    }
}
";

/// The answer of an engine to `GET /containers/json` (API 1.41) for these ports. A kernel without
/// rules does not show two of them.
pub(crate) const CONTAINERS_JSON: &str = r#"[{"Id":"8dfafdbc3a40e5b5cbb5ba2dba9ce6b8ed1b4d4aabcbaf6f4b5d6bd2f2b2b8a1","Names":["/traefik"],"Image":"traefik:v3","ImageID":"sha256:d74508fb6632491cea586a1fd7d748dfc5274cd6fdfedee309ecdcbc2bf5cb82","Command":"/entrypoint.sh traefik","Created":1795688728,"Ports":[{"IP":"0.0.0.0","PrivatePort":8080,"PublicPort":80,"Type":"tcp"},{"IP":"::","PrivatePort":8080,"PublicPort":80,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":8443,"PublicPort":443,"Type":"udp"},{"PrivatePort":9100,"Type":"tcp"}],"Labels":{},"State":"running","Status":"Up 2 minutes","HostConfig":{"NetworkMode":"default"},"NetworkSettings":{"Networks":{"bridge":{"IPAMConfig":null,"Links":null,"Aliases":null,"NetworkID":"7ea29fc1412292a2d7bba362f9253545fecdfa8ce9a6e37dd10ba8bee7129812","EndpointID":"17324ad895d3bb2d8e8b8a4e1e0a7b0a5b2b3f2f8a1c9d7e6f5a4b3c2d1e0f9a","Gateway":"172.17.0.1","IPAddress":"172.17.0.2","IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"2001:db8:d0c::2","GlobalIPv6PrefixLen":64,"MacAddress":"02:42:ac:11:00:02","DriverOpts":null}}},"Mounts":[]}]"#;
