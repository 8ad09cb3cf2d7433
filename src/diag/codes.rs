//! The stable codes of problems. A code never changes its meaning; the book has a page for each,
//! and `labctl explain CODE` prints it.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// A stable code such as `spec-unknown-field`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Code(&'static str);

impl Code {
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// What the book says about this code, as Markdown.
    pub fn explanation(self) -> &'static str {
        ALL.iter().find(|(code, _)| *code == self).map_or("", |(_, text)| text)
    }

    pub fn parse(word: &str) -> Option<Code> {
        ALL.iter().map(|(code, _)| *code).find(|c| c.0 == word)
    }
}

impl From<Code> for String {
    fn from(code: Code) -> String {
        code.0.to_owned()
    }
}

/// Written out: a derived one would want its input to live for ever, as the code's text does.
impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        let word = String::deserialize(deserializer)?;
        Code::parse(&word).ok_or_else(|| D::Error::custom(format!("there is no code `{word}`")))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! codes {
    ($($name:ident = $text:literal;)*) => {
        $(pub const $name: Code = Code($text);)*
        /// Every code with its page of the book.
        pub const ALL: &[(Code, &str)] = &[
            $(($name, include_str!(concat!("../../book/src/errors/", $text, ".md"))),)*
        ];
    };
}

codes! {
    // Reading the text.
    FILE_UNREADABLE = "file-unreadable";
    FILE_TOO_LARGE = "file-too-large";
    FILE_NOT_TEXT = "file-not-text";
    FILE_EMPTY = "file-empty";
    YAML_SYNTAX = "yaml-syntax";
    YAML_TAB = "yaml-tab";
    YAML_DUPLICATE_KEY = "yaml-duplicate-key";
    YAML_TOO_DEEP = "yaml-too-deep";
    YAML_TOO_MANY_VALUES = "yaml-too-many-values";
    YAML_KEY = "yaml-key";
    YAML_DOCUMENTS = "yaml-documents";
    // The shape of the file.
    SPEC_UNKNOWN_FIELD = "spec-unknown-field";
    SPEC_MISSING_FIELD = "spec-missing-field";
    SPEC_WRONG_TYPE = "spec-wrong-type";
    SPEC_BAD_VALUE = "spec-bad-value";
    // Its meaning.
    NAME_INVALID = "name-invalid";
    NAME_TAKEN = "name-taken";
    NETWORK_UNKNOWN = "network-unknown";
    NETWORK_NOT_CHOSEN = "network-not-chosen";
    NETWORK_FULL = "network-full";
    HOST_UNKNOWN = "host-unknown";
    HOST_MISSING = "host-missing";
    RANGE_OVERLAP = "range-overlap";
    RANGE_TOO_SMALL = "range-too-small";
    RANGE_INVALID = "range-invalid";
    ADDRESS_OUTSIDE = "address-outside";
    ADDRESS_TAKEN = "address-taken";
    SUBNETS_USED_UP = "subnets-used-up";
    PODS_TOO_MANY = "pods-too-many";
    PORT_TAKEN = "port-taken";
    HOST_PORT = "host-port";
    PORT_UNKNOWN = "port-unknown";
    CONTAINERS_AND_SHORTHAND = "containers-and-shorthand";
    IMAGE_NOT_RUN = "image-not-run";
    BACKEND_OPTION = "backend-option";
    HOST_GW_ROUTER = "host-gw-router";
    PROBE_TARGET = "probe-target";
    PROBE_KIND = "probe-kind";
    PROBE_EXPECT = "probe-expect";
    LABEL_INVALID = "label-invalid";
    READINESS_PROBE = "readiness-probe";
    // Kubernetes objects.
    OBJECT_VERSION = "object-version";
    OBJECT_PASSED_OVER = "object-passed-over";
    OBJECT_FIELD = "object-field";
    OBJECT_INVALID = "object-invalid";
    OBJECT_TAKEN = "object-taken";
    SERVICE_ADDRESS = "service-address";
    NODE_PORT = "node-port";
    BALANCER_ADDRESS = "balancer-address";
    SERVICE_NO_PODS = "service-no-pods";
    // Ingress.
    INGRESS_CLASS = "ingress-class";
    INGRESS_SECRET = "ingress-secret";
    INGRESS_CERTIFICATE = "ingress-certificate";
    INGRESS_HOST = "ingress-host";
    INGRESS_PATH = "ingress-path";
    INGRESS_BACKEND = "ingress-backend";
    INGRESS_ANNOTATION = "ingress-annotation";
    INGRESS_CONFIG = "ingress-config";
    // The machine and the lab's life.
    MACHINE_NAMESPACES = "machine-namespaces";
    MACHINE_IPTABLES = "machine-iptables";
    MACHINE_TUN = "machine-tun";
    KERNEL_REFUSED = "kernel-refused";
    RUNTIME_DIR = "runtime-dir";
    LAB_RUNNING = "lab-running";
    LAB_UNKNOWN = "lab-unknown";
    LAB_GONE = "lab-gone";
    LAB_NOT_READY = "lab-not-ready";
    WORKLOAD_FAILED = "workload-failed";
    TARGET_UNKNOWN = "target-unknown";
    FAULT_UNFIT = "fault-unfit";
    TRACE_TOO_MANY = "trace-too-many";
    COMMAND_FAILED = "command-failed";
}
