use super::*;
use crate::spec::load::{Text, decode_text};

const LAB: &str = "
hosts: { node1: {} }
pods: { a: {}, b: { namespace: shop } }
deployments: { tea: { replicas: 3, labels: { app: tea } } }
services: { tea-svc: { selector: { app: tea }, ports: [{ port: 80 }] } }
";

fn manifest(text: &str) -> Manifest {
    Manifest { asked: None, name: "m.yaml".to_owned(), text: Ok(text.to_owned()), namespace: None }
}

fn service(port: u16) -> Manifest {
    manifest(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: tea-svc }}\nspec: {{ ports: [{{ port: {port} }}] }}\n"
    ))
}

fn object(kind: ObjectKind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind, key: ObjectKey::new(namespace, name) }
}

fn loaded(edits: &[Edit]) -> Loaded {
    let mut text = Text { name: "lab".into(), text: LAB.into(), default_name: "lab".into(), ..Text::default() };
    edits.iter().for_each(|edit| push(&mut text.edits, edit.clone()));
    decode_text(&text)
}

#[test]
fn what_is_applied_takes_the_place_of_its_former_self() {
    let found = loaded(&[Edit::Apply(service(81))]);
    assert!(!found.problems.has_errors());
    let services = &found.file.objects.services;
    assert_eq!(services.len(), 1);
    let port = services[0].object.spec.as_ref().and_then(|s| s.ports.as_ref()).map(|p| p[0].port);
    assert_eq!(port, Some(81));
    assert_eq!(services[0].name_place().source, 1, "its places are in the manifest");
}

#[test]
fn what_applying_does_is_known_before() {
    let before = loaded(&[Edit::Apply(service(81))]).file;
    let done = |manifest: &Manifest| applied(&before, manifest)[0].1;
    assert_eq!(done(&service(81)), Applied::Unchanged);
    assert_eq!(done(&service(82)), Applied::Configured);
    let pod = manifest(
        "apiVersion: v1\nkind: Pod\nmetadata: { name: c, namespace: shop }\nspec: { containers: [{ name: c }] }\n",
    );
    assert_eq!(applied(&before, &pod), [(object(ObjectKind::Pod, "shop", "c"), Applied::Created)]);
    assert_eq!(names(&pod)[0].to_string(), "pod/c");
}

#[test]
fn what_is_deleted_is_gone_and_may_come_back() {
    let gone = Edit::Delete(object(ObjectKind::Service, "default", "tea-svc"));
    assert!(loaded(std::slice::from_ref(&gone)).file.objects.services.is_empty());
    assert_eq!(loaded(&[gone, Edit::Apply(service(80))]).file.objects.services.len(), 1);
    let pod = |namespace| Edit::Delete(object(ObjectKind::Pod, namespace, "b"));
    assert_eq!(loaded(&[pod("default")]).file.pods.len(), 2, "the pod b is in another namespace");
    assert_eq!(loaded(&[pod("shop")]).file.pods.names().collect::<Vec<_>>(), ["a"]);
    let namespace = Edit::Delete(object(ObjectKind::Namespace, "default", "shop"));
    assert_eq!(loaded(&[namespace]).file.pods.names().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_deployments_pod_is_followed_by_one_with_the_next_number() {
    let key = ObjectKey::new("default", "tea");
    let pod = ObjectKey::new("default", "tea-2");
    let numbers = |edits: &[Edit]| loaded(edits).file.replaced.numbers(&key, 3);
    assert_eq!(numbers(&[]), [1, 2, 3]);
    assert_eq!(numbers(&[Edit::Replace(pod.clone())]), [1, 2, 3, 4]);
    let deleted = Edit::Delete(ObjectRef { kind: ObjectKind::Pod, key: pod.clone() });
    assert_eq!(numbers(&[Edit::Replace(pod.clone()), deleted.clone()]), [1, 3, 4]);
    // A deployment that comes anew begins anew.
    let all = Edit::Delete(object(ObjectKind::Deployment, "default", "tea"));
    assert_eq!(numbers(&[deleted, all]), [1, 2, 3]);
}

#[test]
fn scaling_sets_the_last_number_and_the_dns_has_one_too() {
    let scale = |namespace, name, replicas| Edit::Scale { deployment: ObjectKey::new(namespace, name), replicas };
    let file = loaded(&[scale("default", "tea", 7), scale("default", "tea", 5)]).file;
    assert_eq!(file.deployments.0[0].1.replicas.as_ref().map(|r| r.value), Some(5));
    let file = loaded(&[scale("kube-system", "coredns", 1)]).file;
    assert_eq!(file.dns.and_then(|d| d.replicas).map(|r| r.value), Some(1));
}

#[test]
fn edits_that_mean_nothing_any_more_are_forgotten() {
    let mut edits = Vec::new();
    let pod = ObjectKey::new("default", "tea-2");
    for replicas in 1..50 {
        push(&mut edits, Edit::Scale { deployment: ObjectKey::new("default", "tea"), replicas });
        push(&mut edits, Edit::Apply(service(80)));
        push(&mut edits, Edit::Replace(pod.clone()));
        push(&mut edits, Edit::Delete(ObjectRef { kind: ObjectKind::Pod, key: pod.clone() }));
    }
    assert_eq!(edits.len(), 3, "{edits:?}");
}

#[test]
fn a_manifest_whose_objects_are_all_put_again_or_deleted_is_forgotten() {
    let both = manifest(
        "apiVersion: v1\nkind: Service\nmetadata: { name: tea-svc }\nspec: { ports: [{ port: 1 }] }\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: { name: milk }\nspec: { ports: [{ port: 1 }] }\n",
    );
    let mut edits = vec![Edit::Apply(both.clone())];
    for port in 1..50 {
        push(&mut edits, Edit::Apply(service(port)));
    }
    // Milk is still in the first one alone.
    assert_eq!(edits, [Edit::Apply(both), Edit::Apply(service(49))]);
    let services = |edits: &[Edit]| {
        loaded(edits).file.objects.services.iter().map(|s| ObjectKey::of(&s.object.metadata).name).collect::<Vec<_>>()
    };
    assert_eq!(services(&edits), ["tea-svc", "milk"]);
    let milk = Edit::Delete(object(ObjectKind::Service, "default", "milk"));
    push(&mut edits, milk.clone());
    assert_eq!(edits, [Edit::Apply(service(49)), milk]);
    assert_eq!(services(&edits), ["tea-svc"]);
    // A scale that came between is not undone.
    let scale = Edit::Scale { deployment: ObjectKey::new("default", "tea"), replicas: 7 };
    push(&mut edits, scale.clone());
    push(&mut edits, Edit::Apply(service(1)));
    assert_eq!(edits[1..], [scale, Edit::Apply(service(1))]);
    // With a namespace goes what is in it.
    push(&mut edits, Edit::Delete(object(ObjectKind::Namespace, "default", "default")));
    assert!(!edits.iter().any(|e| matches!(e, Edit::Apply(_))), "{edits:?}");
}

#[test]
fn a_manifest_with_a_fault_is_told_at_its_place() {
    let found = loaded(&[Edit::Apply(manifest("apiVersion: v1\nkind: Service\nmetadata: { name: x }\nspce: {}\n"))]);
    let problem = found.problems.iter().find(|p| p.is_error()).expect("an error");
    assert_eq!(problem.labels.first().map(|(place, _)| place.source), Some(1), "{problem:?}");
}

#[test]
fn deletions_of_what_was_applied_before_leave_nothing() {
    let pod = |n: u32| {
        let text =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: p{n} }}\nspec: {{ containers: [{{ name: c }}] }}\n");
        (Edit::Apply(manifest(&text)), Edit::Delete(object(ObjectKind::Pod, "default", &format!("p{n}"))))
    };
    let mut text = Text { name: "lab".into(), text: LAB.into(), default_name: "lab".into(), ..Text::default() };
    for n in 0..50 {
        let (apply, delete) = pod(n);
        push(&mut text.edits, apply);
        text.edits = decode_text(&text).edits;
        assert_eq!(text.edits.len(), 1);
        push(&mut text.edits, delete);
        text.edits = decode_text(&text).edits;
        assert_eq!(text.edits, []);
    }
    // What the file itself has must be deleted again each time.
    let delete = Edit::Delete(object(ObjectKind::Service, "default", "tea-svc"));
    assert_eq!(loaded(std::slice::from_ref(&delete)).edits, [delete]);
}

#[test]
fn deletions_of_a_deployments_pods_are_remembered_as_rows_of_numbers() {
    let key = ObjectKey::new("default", "tea");
    let mut text = Text { name: "lab".into(), text: LAB.into(), default_name: "lab".into(), ..Text::default() };
    let mut delete = |n: u32| {
        let pod = ObjectKey::new("default", &format!("tea-{n}"));
        push(&mut text.edits, Edit::Replace(pod.clone()));
        push(&mut text.edits, Edit::Delete(ObjectRef { kind: ObjectKind::Pod, key: pod }));
        let found = decode_text(&text);
        text.edits = found.edits;
        (text.edits.clone(), found.file.replaced.numbers(&key, 3))
    };
    for n in (1..=40).filter(|n| *n != 7) {
        delete(n);
    }
    let (edits, numbers) = delete(42);
    let numbers_gone = vec![(1, 6), (8, 40), (42, 42)];
    assert_eq!(edits, [Edit::Gone { deployment: key.clone(), numbers: numbers_gone }]);
    assert_eq!(numbers, [7, 41, 43]);
    let mut edits = edits;
    push(&mut edits, Edit::Delete(object(ObjectKind::Deployment, "default", "tea")));
    let found = loaded(&edits);
    assert_eq!(found.edits.len(), 1, "{:?}", found.edits);
    assert_eq!(found.file.replaced.numbers(&key, 3), [1, 2, 3], "one that comes anew begins anew");
}

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: mine }
spec: { controller: example.com/mine }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: cafe, namespace: shop }
spec: { rules: [{ host: cafe.example.com }] }
---
apiVersion: v1
kind: Secret
metadata: { name: cafe-secret, namespace: shop }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: settings, namespace: shop }
";

fn count(found: &Loaded) -> [usize; 4] {
    let all = &found.file.objects;
    [all.ingresses.len(), all.ingress_classes.len(), all.secrets.len(), all.config_maps.len()]
}

#[test]
fn ingresses_and_what_they_need_are_applied_and_deleted() {
    let apply = Edit::Apply(manifest(INGRESS));
    assert_eq!(count(&loaded(std::slice::from_ref(&apply))), [1, 1, 1, 1]);
    assert_eq!(count(&loaded(&[apply.clone(), apply.clone()])), [1, 1, 1, 1]);
    let named: Vec<String> = names(&manifest(INGRESS)).iter().map(ToString::to_string).collect();
    assert_eq!(
        named,
        [
            "configmap/settings",
            "secret/cafe-secret",
            "ingressclass.networking.k8s.io/mine",
            "ingress.networking.k8s.io/cafe"
        ]
    );
    let done = applied(&loaded(std::slice::from_ref(&apply)).file, &manifest(INGRESS));
    assert!(done.iter().all(|(_, done)| *done == Applied::Unchanged));
    let without = |kind, namespace: &str, name: &str| {
        count(&loaded(&[apply.clone(), Edit::Delete(object(kind, namespace, name))]))
    };
    assert_eq!(without(ObjectKind::Ingress, "shop", "cafe"), [0, 1, 1, 1]);
    assert_eq!(without(ObjectKind::Ingress, "default", "cafe"), [1, 1, 1, 1]);
    assert_eq!(without(ObjectKind::IngressClass, "default", "mine"), [1, 0, 1, 1]);
    assert_eq!(without(ObjectKind::Secret, "shop", "cafe-secret"), [1, 1, 0, 1]);
    assert_eq!(without(ObjectKind::ConfigMap, "shop", "settings"), [1, 1, 1, 0]);
    assert_eq!(without(ObjectKind::Namespace, "default", "shop"), [0, 1, 0, 0], "a class is in no namespace");
}

#[test]
fn the_ingress_controller_is_scaled_without_being_written() {
    let controller = ObjectKey::new("ingress", "ingress-controller");
    let scale = Edit::Scale { deployment: controller, replicas: 3 };
    let found = loaded(&[Edit::Apply(manifest(INGRESS)), scale]);
    let settings = found.file.cluster.ingress.expect("settings");
    assert_eq!(settings.replicas.as_ref().map(|r| r.value), Some(3));
}
