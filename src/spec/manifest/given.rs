//! Services and EndpointSlices as they are given: what `kubectl get -o yaml` prints, for `labctl rules`.
//!
//! They come from an API server, which has checked and completed them. So nothing is asked of them
//! but that kube-proxy's fields have their types. Other kinds are not its business, and fields that
//! are not known here are passed over with a warning.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;

use crate::diag::{Problem, Problems, Severity, codes};
use crate::spec::de::decode_whole;
use crate::spec::node::{Node, Value};
use crate::spec::yaml;

/// The objects that kube-proxy reads, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
}

impl Given {
    /// Take in the objects of one text, which is source number `source`.
    pub fn read(&mut self, text: &str, source: u16, problems: &mut Problems) {
        for document in yaml::read(text, source, problems) {
            self.take(document, "", problems);
        }
    }

    /// Take in an object, or all of a list. `of` is its kind where it does not say so itself, as the
    /// items of a ServiceList need not.
    fn take(&mut self, document: Node, of: &str, problems: &mut Problems) {
        let kind = document.get("kind").and_then(Node::text).unwrap_or(of).to_owned();
        if let Value::List(items) = document.value {
            items.into_iter().for_each(|item| self.take(item, of, problems));
        } else if kind == "Service" {
            self.services.extend(object("Service", document, problems));
        } else if kind == "EndpointSlice" {
            self.slices.extend(object("EndpointSlice", document, problems));
        } else if let Some(of) = kind.strip_suffix("List")
            && let Value::Map(entries) = document.value
            && let Some(items) = entries.into_iter().find(|e| e.key.text == "items")
        {
            self.take(items.value, of, problems);
        }
    }
}

/// An object; nothing where a field that is known has a value that it cannot have.
fn object<T: DeserializeOwned + Default>(kind: &str, node: Node, problems: &mut Problems) -> Option<T> {
    let name = node.get("metadata").and_then(|m| m.get("name")).and_then(Node::text).unwrap_or("without a name");
    let name = name.to_owned();
    let mut found = Problems::default();
    let object = decode_whole::<T>(node, &mut found);
    let mut sound = true;
    for mut problem in found {
        if problem.code == codes::SPEC_UNKNOWN_FIELD {
            problem.severity = Severity::Warning;
        }
        sound &= !problem.is_error();
        problems.push(Problem { message: format!("{kind} {name}: {}", problem.message), ..problem });
    }
    sound.then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Given, Vec<Problem>) {
        let (mut given, mut problems) = (Given::default(), Problems::default());
        given.read(text, 0, &mut problems);
        (given, problems.into_iter().collect())
    }

    #[test]
    fn items_of_a_typed_list_need_no_kind() {
        let (given, problems) = read(
            "kind: ServiceList\napiVersion: v1\nitems:\n- metadata: { name: a }\n  spec: { ports: [{ port: 80 }] }\n---\n\
             kind: List\nitems:\n- { kind: EndpointSlice, addressType: IPv4, endpoints: [], metadata: { name: s } }\n\
             - { kind: Secret, data: {} }\n",
        );
        assert_eq!(problems, []);
        assert_eq!((given.services.len(), given.slices.len()), (1, 1));
        let (given, _) = read("[{ kind: Service, metadata: { name: a } }, { kind: Service, metadata: { name: b } }]");
        assert_eq!(given.services.len(), 2);
    }

    #[test]
    fn what_a_server_printed_is_taken_and_unknown_fields_are_a_warning() {
        let (given, problems) = read(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  creationTimestamp: \"2026-01-01T00:00:00Z\"\n  \
             managedFields: [{ manager: kubectl, fieldsV1: { 'f:spec': {} } }]\nspec: { ports: [{ port: 80 }], \
             fieldOfTomorrow: { x: 1 } }\nstatus: { loadBalancer: {} }\n",
        );
        assert_eq!(given.services.len(), 1);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(!problems[0].is_error() && problems[0].message.contains("fieldOfTomorrow"), "{problems:?}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_at_its_place() {
        let (given, problems) = read("kind: Service\nmetadata: { name: a }\nspec: { ports: [{ port: x }] }\n");
        assert!(given.services.is_empty());
        assert!(problems[0].is_error() && problems[0].message.starts_with("Service a: "), "{problems:?}");
        assert!(problems[0].labels[0].0.start > 40, "{problems:?}");
    }
}
