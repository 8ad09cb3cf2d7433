//! The words in which faults are asked for on the control socket, and the answers.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::diag::{Problem, codes, did_you_mean};
use crate::fault::{self, Chosen, Fault, On, Question};
use crate::lab::Lab;
use crate::lab::names::NsName;
use crate::objects::ObjectKey;

use crate::daemon::server::{Outcome, body, ok};
use crate::daemon::state::Daemon;

/// Where all of this is.
pub const PATH: &str = "/labctl/v1/faults";

/// What is to be broken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BreakRequest {
    pub name: String,
    /// A host, pod or service; the first that fits where nothing is said.
    pub on: Option<String>,
}

/// What is to be healed; all where no name is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealRequest {
    pub name: Option<String>,
}

/// What came of a question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    pub answered: bool,
    pub seen: String,
}

/// Where a fault is in a lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Here {
    /// What was chosen, as a person names it.
    pub on: String,
    /// Where a diagnosis must find it.
    pub place: NsName,
    /// What is at fault there.
    pub object: String,
    /// What is answered without the fault and not with it.
    pub question: Question,
    /// The same in a sentence.
    pub asks: String,
}

impl Here {
    fn new(chosen: &Chosen) -> Here {
        let Chosen { on, place, object, question, .. } = chosen.clone();
        Here { asks: question.words(), on, place, object, question }
    }
}

/// A lab that was broken.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    pub name: String,
    pub title: String,
    pub says: String,
    #[serde(flatten)]
    pub here: Here,
    /// What came of the question before.
    pub before: Seen,
    /// What comes of it now.
    pub now: Seen,
    /// What was done.
    pub steps: Vec<String>,
}

impl Broken {
    pub fn new(fault: &Fault, chosen: &Chosen, before: Seen, now: Seen, steps: Vec<String>) -> Broken {
        let (name, title, says) = (fault.name.to_owned(), fault.title.to_owned(), fault.says.to_owned());
        Broken { name, title, says, here: Here::new(chosen), before, now, steps }
    }
}

/// A fault that was undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Healed {
    pub name: String,
    pub title: String,
    pub on: String,
    pub asks: String,
    pub now: Seen,
}

impl Healed {
    pub fn new(fault: &Fault, chosen: &Chosen, now: Seen) -> Healed {
        let (name, title) = (fault.name.to_owned(), fault.title.to_owned());
        Healed { name, title, on: chosen.on.clone(), asks: chosen.question.words(), now }
    }
}

/// What a quiz is begun with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuizRequest {
    pub seed: Option<u64>,
}

/// What a quiz tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quiz {
    pub question: Question,
    pub asks: String,
    pub now: Seen,
}

/// Whether an answer to a quiz is right, and what it was where it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    pub right: bool,
    pub name: Option<String>,
    pub title: Option<String>,
    pub says: Option<String>,
    pub on: Option<String>,
    pub object: Option<String>,
}

/// What is meant by a word behind `--on`.
pub fn on(lab: &Lab, word: &str) -> Result<On, Box<Problem>> {
    if let Some(ns) = lab.find(word) {
        return Ok(On::Machine(ns));
    }
    let bare = ["service/", "services/", "svc/"].iter().find_map(|kind| word.strip_prefix(kind)).unwrap_or(word);
    let (namespace, name) = bare.split_once('/').unwrap_or(("default", bare));
    let key = ObjectKey::new(namespace, name);
    if lab.service(&key).is_some() {
        return Ok(On::Service(key));
    }
    let services = lab.services.iter().map(|s| ObjectKey::of(&s.metadata).name);
    let names: Vec<String> = lab.namespaces().map(|n| n.to_string()).chain(services).collect();
    let help = match did_you_mean(word, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name a host, a pod, a client or a service".to_owned(),
    };
    Err(Box::new(
        Problem::error(codes::TARGET_UNKNOWN, format!("nothing in the lab {} is called `{word}`", lab.name)).help(help),
    ))
}

/// The fault that is meant by a name.
pub fn fault(name: &str) -> Result<&'static Fault, Box<Problem>> {
    fault::find(name).ok_or_else(|| {
        let help = match did_you_mean(name, fault::catalogue().map(|f| f.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`labctl break --list` shows all".to_owned(),
        };
        Box::new(Problem::error(codes::TARGET_UNKNOWN, format!("no fault is called `{name}`")).help(help))
    })
}

/// Answer what is asked below [`PATH`].
pub async fn answer(daemon: &Rc<Daemon>, method: &Method, path: &str, request: Request<Incoming>) -> Outcome {
    let own = Rc::clone(daemon);
    match (method, path.strip_prefix(PATH).unwrap_or_default()) {
        (&Method::GET, "") => ok(&list(daemon)),
        (&Method::POST, "/break") => {
            let asked: BreakRequest = body(request).await?;
            let found = fault(&asked.name)?;
            to_its_end(async move { own.break_by(found, asked.on.as_deref()).await }).await
        }
        (&Method::POST, "/heal") => {
            let asked: HealRequest = body(request).await?;
            to_its_end(async move { own.heal(asked.name.as_deref()).await }).await
        }
        (&Method::POST, "/quiz") => {
            let asked: QuizRequest = body(request).await?;
            to_its_end(async move { own.quiz(asked.seed).await }).await
        }
        (&Method::POST, "/judge") => {
            let name: Option<String> = body(request).await?;
            ok(&daemon.judge(name.as_deref())?)
        }
        _ => Err(Box::new(Problem::error(codes::LAB_GONE, format!("there is no {path} here")))),
    }
}

/// A change as a task of its own: a caller that goes away must not leave it half done.
async fn to_its_end<T: Serialize + 'static>(
    change: impl Future<Output = Result<T, Box<Problem>>> + 'static,
) -> Outcome {
    match tokio::task::spawn_local(change).await {
        Ok(done) => ok(&done?),
        Err(e) => Err(Box::new(Problem::error(codes::KERNEL_REFUSED, format!("the change broke off: {e}")))),
    }
}

/// Every fault, and where it would be in this lab or why it would not.
fn list(daemon: &Daemon) -> Vec<serde_json::Value> {
    let told = daemon.faults.told();
    let entry = |fault: &'static Fault| {
        let mut entry = json!(fault);
        match daemon.choose(fault, None) {
            Ok(chosen) => entry["here"] = json!(Here::new(&chosen)),
            Err(problem) => entry["unfit"] = json!(problem.message),
        }
        entry["broken"] = json!(told.iter().any(|t| t.split(' ').next() == Some(fault.name)));
        entry
    };
    fault::catalogue().map(entry).collect()
}
