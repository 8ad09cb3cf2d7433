//! Lab files that several tests build.

/// Three hosts on two networks, a client and twelve pods, with probes for everything that a
/// network must do. `ttl` is what a ping between hosts arrives with, `mtu` what a pod may send.
pub fn two_networks(flannel: &str, ttl: u8, mtu: u32) -> String {
    let ground = "
networks: { rack1: {}, rack2: {} }
hosts:
  node1: { network: rack1 }
  node2: { network: rack1 }
  node3: { network: rack2 }
clients: { laptop: { network: rack2 } }";
    format!("cluster: {{ flannel: {flannel} }}{ground}\n{}", dozen(ttl, mtu))
}

/// The same on one network, for the back end that needs it.
pub fn one_network(flannel: &str, ttl: u8, mtu: u32) -> String {
    let ground = "
hosts: { node1: {}, node2: {}, node3: {} }
clients: { laptop: { network: lan } }
networks: { lan: {} }";
    format!("cluster: {{ flannel: {flannel} }}{ground}\n{}", dozen(ttl, mtu))
}

fn dozen(ttl: u8, mtu: u32) -> String {
    format!(
        "
pods:
  a1: {{ host: node1 }}
  a2: {{ host: node1 }}
  b1: {{ host: node2 }}
  c1: {{ host: node3, ports: [80, {{ containerPort: 53, protocol: UDP }}] }}
deployments:
  tea: {{ replicas: 5, labels: {{ app: tea }} }}
  coffee: {{ replicas: 3, hosts: [node1, node3] }}
probes:
  - {{ name: same host, from: a1, ping: a2, expect: {{ ttl: 64, mtu: {mtu} }} }}
  - {{ name: to another host, from: a1, ping: b1, expect: {{ ttl: {ttl}, mtu: {mtu} }} }}
  - {{ name: to the third host, from: a1, ping: c1, expect: {{ ttl: {ttl}, mtu: {mtu} }} }}
  - {{ name: and back, from: c1, ping: a1, expect: {{ ttl: {ttl} }} }}
  - {{ name: http, from: b1, http: 'http://c1/', expect: {{ status: 200, pod: c1, source: b1 }} }}
  - {{ name: udp, from: a2, udp: 'c1:53', expect: {{ pod: c1, source: a2 }} }}
  - {{ name: tcp, from: c1, tcp: 'tea-1:8080', expect: {{ pod: tea-1 }} }}
  - {{ name: a closed port, from: a1, tcp: 'c1:81', expect: {{ fail: refused }} }}
  - {{ name: host to pod, from: node1, ping: c1 }}
  - {{ name: pod to host, from: c1, ping: node2 }}
  - {{ name: a pod's way out is its host's address, from: a1, http: 'http://internet:80/', expect: {{ source: 203.0.113.0/24 }} }}
  - {{ name: a client is no part of the cluster, from: laptop, ping: node1 }}
"
    )
}

/// Two hosts with two pods each, on one network.
pub const FOUR_PODS: &str = "
hosts: { node1: {}, node2: {} }
pods:
  a1: { host: node1 }
  a2: { host: node1 }
  b1: { host: node2 }
  b2: { host: node2 }
probes:
  - { name: same host, from: a1, ping: a2 }
  - { name: another host, from: a1, http: 'http://b1:8080/', expect: { pod: b1, source: a1 } }
  - { name: and back, from: b2, ping: a2 }
";
