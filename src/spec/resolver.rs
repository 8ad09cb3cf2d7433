//! What a pod says about its resolver: Kubernetes' `dnsPolicy` and `dnsConfig`, as they are written.
//! What follows from it is `lab::resolver`'s.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::at::At;

/// Where a pod's resolver asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DnsPolicy {
    /// The cluster's DNS.
    #[default]
    ClusterFirst,
    /// The same; it differs for pods in their host's network namespace, which a lab has none of.
    ClusterFirstWithHostNet,
    /// What its host asks: nobody.
    Default,
    /// Only what `dnsConfig` names.
    None,
}

/// What is added to a pod's resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DnsConfig {
    /// Addresses of name servers, at most three.
    pub nameservers: Vec<At<String>>,
    /// Domains that names are completed with, in this order.
    pub searches: Vec<At<String>>,
    /// Options of the resolver, such as `ndots`; they replace those of the same name.
    pub options: Vec<DnsOption>,
}

/// One option of the resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsOption {
    /// Its name.
    pub name: String,
    /// Its value; some have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}
