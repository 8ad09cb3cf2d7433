//! Label selectors as kubectl writes them: `app=tea,tier!=front,env in (test, stage),!old`.

use std::str::FromStr;

use serde_json::Value;

use crate::objects::validate::{is_label_key, is_label_value};

/// Conditions that an object's labels must all meet (apimachinery's `labels.Parse`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    key: String,
    /// Values of which it has one; nothing where any will do.
    values: Option<Vec<String>>,
    /// Whether the opposite must hold. An object without the key meets that.
    not: bool,
}

impl Selector {
    /// Whether an object is meant.
    pub fn is_met(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.0.iter().all(|condition| {
            let value = labels.and_then(|l| l.get(&condition.key)).and_then(Value::as_str);
            let wanted = |v: &str| condition.values.as_ref().is_none_or(|all| all.iter().any(|w| w == v));
            value.is_some_and(wanted) != condition.not
        })
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Selector, String> {
        parts(text).into_iter().map(condition).collect::<Result<_, _>>().map(Selector)
    }
}

/// The text between commas that stand in no parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut open = false;
    let between = |letter: char| {
        open = (open || letter == '(') && letter != ')';
        letter == ',' && !open
    };
    text.split(between).map(str::trim).collect()
}

fn condition(text: &str) -> Result<Condition, String> {
    let made = |key: &str, values: Option<Vec<&str>>, not| {
        let (key, values) = (key.trim(), values.map(|v| v.into_iter().map(str::trim).collect::<Vec<_>>()));
        let sound = is_label_key(key) && values.iter().flatten().all(|v| is_label_value(v));
        let values = values.map(|all| all.into_iter().map(str::to_owned).collect());
        sound.then(|| Condition { key: key.to_owned(), values, not })
    };
    let of_set = |text: &str| {
        let (head, set) = text.strip_suffix(')')?.split_once('(')?;
        let (key, word) = head.trim_end().rsplit_once(char::is_whitespace)?;
        let not = match word {
            "in" => false,
            "notin" => true,
            _ => return None,
        };
        made(key, Some(set.split(',').collect()), not)
    };
    let found = if text.contains('(') {
        of_set(text)
    } else if let Some((key, value)) = text.split_once("!=") {
        made(key, Some(vec![value]), true)
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        made(key, Some(vec![value]), false)
    } else if let Some(key) = text.strip_prefix('!') {
        made(key, None, true)
    } else {
        made(text, None, false)
    };
    found.ok_or_else(|| {
        format!(
            "`{text}` is no condition on labels; write `app=tea`, `app!=tea`, `app in (tea, milk)`, `app` or `!app`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn is_met(selector: &str, labels: Value) -> bool {
        let selector: Selector = selector.parse().unwrap_or_else(|e| panic!("{e}"));
        selector.is_met(&json!({ "metadata": { "labels": labels } }))
    }

    #[test]
    fn every_condition_must_hold() {
        let tea = || json!({ "app": "tea", "tier": "back" });
        for met in
            ["app=tea", "app==tea,tier=back", "app!=milk", "old!=yes", "app in (milk, tea),tier", "!old", "x notin (a)"]
        {
            assert!(is_met(met, tea()), "{met}");
        }
        for not in ["app=milk", "app=tea,tier=front", "app!=tea", "app in (milk)", "app notin (a,tea)", "old", "!app"] {
            assert!(!is_met(not, tea()), "{not}");
        }
        assert!(!is_met("app=tea", Value::Null) && is_met("app!=tea", Value::Null));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for wrong in ["", "=tea", "app=t a", "app in tea", "app in (tea", "app of (tea)", "a=b,,c=d", "a b"] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong}");
        }
    }
}
