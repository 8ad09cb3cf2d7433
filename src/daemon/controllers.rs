//! What ingress controllers have been told, and what they say has come of it: a real program may refuse
//! a configuration and serve the one before. So each routing is kept for as long as somebody serves it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::lab::names::NsName;
use crate::plan::ingress::Routing;
use crate::workload::ingress::Report;

use super::programs::Hearing;

/// The controllers of a lab.
#[derive(Default)]
pub struct Controllers {
    /// Those that somebody serves or served last, with their marks; the newest is the last one.
    told: RefCell<Vec<(String, Rc<Routing>)>>,
    heard: Rc<RefCell<BTreeMap<NsName, Heard>>>,
}

/// What one controller said since it was started. The built-in one has nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Heard {
    /// Marks of what it serves, and of what it refuses, with its reason.
    in_force: Option<String>,
    refused: Option<(String, String)>,
}

/// How a controller stands to what it was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// What it serves; nothing where that is not known of this one, or nothing is served yet.
    pub in_force: Option<Rc<Routing>>,
    /// Why it does not serve what it was told last.
    pub refused: Option<String>,
}

impl Controllers {
    /// Note what all are told. Returns every routing that one of them may serve, the newest last.
    pub fn tell(&self, routing: Routing) -> Vec<Rc<Routing>> {
        let mut told = self.told.borrow_mut();
        if told.last().is_none_or(|(_, newest)| **newest != routing) {
            told.push((routing.mark(), Rc::new(routing)));
        }
        let heard = self.heard.borrow();
        let serves = |mark: &String| heard.values().any(|h| h.in_force.as_ref() == Some(mark));
        // The one before is served until the newest is in force, also by those who do not say so.
        let recent = told.len().saturating_sub(2);
        let mut at = 0..;
        told.retain(|(mark, _)| at.next().is_some_and(|at| at >= recent) || serves(mark));
        told.iter().map(|(_, routing)| Rc::clone(routing)).collect()
    }

    /// There is nothing to serve any more. Who comes later is not to begin with what was.
    pub fn forget(&self) {
        self.told.borrow_mut().clear();
        self.heard.borrow_mut().clear();
    }

    /// The pod `ns` is gone.
    pub fn leave(&self, ns: &NsName) {
        self.heard.borrow_mut().remove(ns);
    }

    /// Who hears the controller in the pod `ns`.
    pub fn hearing(&self, ns: &NsName) -> Hearing {
        let (all, ns) = (Rc::clone(&self.heard), ns.clone());
        Rc::new(move |line| {
            let mut all = all.borrow_mut();
            let heard = all.entry(ns.clone()).or_default();
            match line.map(Report::read) {
                None => *heard = Heard::default(),
                Some(Some(Report::Accepted { mark })) => *heard = Heard { in_force: Some(mark), refused: None },
                Some(Some(Report::Refused { mark, why })) => heard.refused = Some((mark, why)),
                Some(_) => {}
            }
        })
    }

    pub fn standing(&self, ns: &NsName) -> Standing {
        let heard = self.heard.borrow().get(ns).cloned().unwrap_or_default();
        let told = self.told.borrow();
        let of = |mark: &String| told.iter().find(|(m, _)| m == mark).map(|(_, routing)| Rc::clone(routing));
        Standing { in_force: heard.in_force.as_ref().and_then(of), refused: heard.refused.map(|(_, why)| why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn routing(seconds: u64) -> Routing {
        let mut routing = Routing::default();
        routing.settings.keep_alive = Duration::from_secs(seconds);
        routing
    }

    fn pod() -> NsName {
        NsName::try_from("pod/ingress/controller-1".to_owned()).expect("a pod")
    }

    #[test]
    fn what_a_controller_serves_is_known_while_it_refuses_whatever_comes() {
        let controllers = Controllers::default();
        let hear = controllers.hearing(&pod());
        hear(None);
        let kept = |n| controllers.tell(routing(n)).iter().map(|r| r.settings.keep_alive.as_secs()).collect::<Vec<_>>();
        assert_eq!(kept(1), [1]);
        hear(Some(&format!("accepted {}", routing(1).mark())));
        for n in 2..5 {
            kept(n);
            hear(Some(&format!("refused {} of {n}", routing(n).mark())));
        }
        assert_eq!(kept(5), [1, 4, 5], "the one in force, the last one, and the newest");
        let standing = controllers.standing(&pod());
        assert_eq!((standing.in_force.as_deref(), standing.refused.as_deref()), (Some(&routing(1)), Some("of 4")));
        hear(Some(&format!("accepted {}", routing(5).mark())));
        let standing = controllers.standing(&pod());
        assert_eq!((standing.in_force.as_deref(), standing.refused), (Some(&routing(5)), None));
        assert_eq!(kept(6), [5, 6]);
        hear(None);
        assert_eq!(controllers.standing(&pod()), Standing { in_force: None, refused: None }, "it was started anew");
    }
}
