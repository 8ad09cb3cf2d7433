//! The quiz: one fault out of those that fit, of which is told only what fails through it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::diag::{Problem, codes};
use crate::fault::{Fault, catalogue};

use crate::daemon::state::Daemon;

use super::api::{self, Judged, Quiz};

/// The faults in an order that follows from a number.
fn shuffled(seed: u64) -> Vec<&'static Fault> {
    let mut all: Vec<&'static Fault> = catalogue().collect();
    all.sort_by_cached_key(|fault| Sha256::digest(format!("{seed} {}", fault.name)));
    all
}

impl Daemon {
    /// Break the lab without a word about how.
    pub(super) async fn quiz(self: &Rc<Self>, seed: Option<u64>) -> Result<Quiz, Box<Problem>> {
        if !self.faults.active.borrow().is_empty() {
            let problem = Problem::error(codes::FAULT_UNFIT, "the lab is broken on purpose already");
            return Err(Box::new(problem.help("`labctl heal` repairs it")));
        }
        // Each state of the random hasher is another one.
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        for fault in shuffled(seed) {
            if self.choose(fault, None).is_err() {
                continue;
            }
            *self.faults.hidden.borrow_mut() = Some(fault.name);
            // One that the machine refuses, or that shows nothing here, is no riddle.
            match self.break_by(fault, None).await {
                Ok(broken) if broken.before.answered && !broken.now.answered => {
                    return Ok(Quiz { question: broken.here.question, asks: broken.here.asks, now: broken.now });
                }
                Ok(_) => drop(self.heal(Some(fault.name)).await?),
                Err(_) => *self.faults.hidden.borrow_mut() = None,
            }
        }
        let problem = Problem::error(codes::FAULT_UNFIT, "no fault fits this lab");
        Err(Box::new(problem.help("`labctl break --list` shows what each one needs")))
    }

    /// Whether this is the fault that a quiz hides; what it is where no name is given.
    pub(super) fn judge(&self, name: Option<&str>) -> Result<Judged, Box<Problem>> {
        let Some(hidden) = *self.faults.hidden.borrow() else {
            let problem = Problem::error(codes::TARGET_UNKNOWN, "the lab has no quiz");
            return Err(Box::new(problem.help("`labctl quiz` begins one")));
        };
        let right = match name {
            Some(name) => api::fault(name)?.name == hidden,
            None => true,
        };
        let wrong = Judged { right, name: None, title: None, says: None, on: None, object: None };
        let active = self.faults.active.borrow();
        let Some(found) = active.iter().find(|a| a.fault.name == hidden).filter(|_| right) else { return Ok(wrong) };
        let text = |text: &str| Some(text.to_owned());
        Ok(Judged {
            right,
            name: text(found.fault.name),
            title: text(found.fault.title),
            says: text(found.fault.says),
            on: text(&found.chosen.on),
            object: text(&found.chosen.object),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_order_and_another_one_another() {
        let names = |seed| shuffled(seed).into_iter().map(|f| f.name).collect::<Vec<_>>();
        assert_eq!(names(7), names(7));
        assert_ne!(names(7), names(8));
    }
}
