//! Who serves an ingress: classes written, given and missing.

use super::*;

fn with_class(class: &str) -> String {
    format!("ingresses: {{ cafe: {{ ingressClassName: {class}, rules: [{}] }} }}\n", rule("cafe.example.com"))
}

#[test]
fn a_class_that_nobody_describes_is_served_by_nobody_and_told() {
    for controller in ["built-in", "nginx", "haproxy"] {
        let lines = format!("cluster: {{ ingress: {{ controller: {controller} }} }}\n{}", with_class("whatever"));
        let (lab, told) = told(&lines, &[], &[]);
        let layer = lab.and_then(|lab| lab.ingress).expect("a layer");
        assert_eq!((layer.ingresses.len(), layer.unserved.len()), (0, 1), "{controller}");
        assert!(told.iter().any(|p| p.code == codes::INGRESS_CLASS && p.message.contains("whatever")), "{told:#?}");
    }
    let described = |controller: &str| {
        format!("ingressClasses: {{ whatever: {{ controller: {controller} }} }}\n{}", with_class("whatever"))
    };
    assert_eq!(names(&layer(&described("labctl/built-in")).ingresses), ["default/cafe"]);
    let layer = layer(&described("example.com/gateway"));
    assert_eq!((layer.ingresses.len(), layer.unserved.len()), (0, 1));
    assert_eq!(layer.unserved[0].class, "whatever");
    assert_eq!(names(&layer.all().cloned().collect::<Vec<_>>()), ["default/cafe"]);
}

#[test]
fn nginx_and_haproxy_serve_their_own_classes_and_what_has_none() {
    let served = |controller: &str, ingress: &str| {
        layer(&format!("cluster: {{ ingress: {{ controller: {controller} }} }}\n{ingress}")).ingresses.len()
    };
    let without = format!("ingresses: {{ cafe: {{ rules: [{}] }} }}\n", rule("cafe.example.com"));
    let annotated = format!(
        "ingresses: {{ cafe: {{ annotations: {{ {CLASS_ANNOTATION}: nginx }}, rules: [{}] }} }}\n",
        rule("cafe.example.com")
    );
    assert_eq!((served("nginx", &without), served("haproxy", &without)), (1, 1));
    assert_eq!((served("nginx", &with_class("nginx")), served("haproxy", &with_class("nginx"))), (1, 0));
    assert_eq!((served("nginx", &with_class("haproxy")), served("haproxy", &with_class("haproxy"))), (0, 1));
    assert_eq!((served("nginx", &annotated), served("haproxy", &annotated)), (1, 0));
    let own = format!("ingressClasses: {{ mine: {{ controller: k8s.io/ingress-nginx }} }}\n{}", with_class("mine"));
    assert_eq!((served("nginx", &own), served("haproxy", &own)), (1, 0));
    let own =
        format!("ingressClasses: {{ mine: {{ controller: haproxy.org/ingress-controller }} }}\n{}", with_class("mine"));
    assert_eq!((served("nginx", &own), served("haproxy", &own)), (0, 1));
}

#[test]
fn ingresses_without_class_get_the_default_one() {
    let classes = "ingressClasses: { other: { controller: example.com/gateway, annotations: { \
                   ingressclass.kubernetes.io/is-default-class: 'true' } } }\n";
    let ingresses = format!(
        "ingresses: {{ a: {{ rules: [{0}] }}, b: {{ annotations: {{ {CLASS_ANNOTATION}: built-in }}, rules: [{0}] }} }}\n",
        rule("cafe.example.com")
    );
    let layer = layer(&format!("{classes}{ingresses}"));
    assert_eq!(names(&layer.ingresses), ["default/b"], "the annotation is a class, too");
    assert_eq!(layer.unserved[0].class, "other");
    let classes: Vec<_> = layer.classes.iter().filter_map(|c| c.metadata.name.as_deref()).collect();
    assert_eq!(classes, ["other", "built-in"]);
}

/// As the API server's admission has it, which looks at ingresses when they are created.
#[test]
fn a_default_class_that_comes_later_takes_no_ingress_away() {
    let class = "ingressClasses: { other: { controller: example.com/gateway, annotations: { \
                 ingressclass.kubernetes.io/is-default-class: 'true' } } }\n";
    let ingress = |name: &str, class: &str| format!("  {name}: {{ {class}rules: [{}] }}\n", rule("cafe.example.com"));
    let change = |before: Option<&Lab>, lines: &str| {
        let text = Text {
            name: "lab".into(),
            text: format!("{GROUND}{lines}"),
            default_name: "lab".into(),
            ..Text::default()
        };
        resolve(&decode_text(&text), before, &mut Problems::default()).expect("a lab")
    };
    let served = |lab: &Lab| names(&lab.ingress.as_ref().expect("a layer").ingresses);
    let first = change(None, &format!("ingresses:\n{}", ingress("a", "")));
    let second = change(Some(&first), &format!("{class}ingresses:\n{}{}", ingress("a", ""), ingress("b", "")));
    assert_eq!(served(&second), ["default/a"], "b was created after the class");
    // Nor does one give back what it has once given.
    let third = change(Some(&second), &format!("ingresses:\n{}{}", ingress("a", ""), ingress("b", "")));
    assert_eq!(served(&third), ["default/a"]);
    // A class that was written is gone with its line.
    let own = ingress("a", "ingressClassName: built-in, ");
    let fourth = change(Some(&third), &format!("{class}ingresses:\n{own}"));
    let fifth = change(Some(&fourth), &format!("{class}ingresses:\n{}", ingress("a", "")));
    let a = &fifth.ingress.as_ref().expect("a layer").ingresses[0];
    assert_eq!(class_of(a), None);
    // One that was deleted is created anew.
    let without = change(Some(&fifth), &format!("cluster: {{ ingress: {{}} }}\n{class}"));
    let again = change(Some(&without), &format!("{class}ingresses:\n{}", ingress("a", "")));
    assert_eq!(served(&again), [""; 0]);
}
