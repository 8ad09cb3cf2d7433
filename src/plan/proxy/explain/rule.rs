//! One rule in the form in which `iptables-save` prints it, taken apart into words.

/// A rule without its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    words: Vec<String>,
    text: String,
}

impl Rule {
    pub fn parse(text: &str) -> Rule {
        Rule { words: words(text), text: text.to_owned() }
    }

    /// As iptables writes it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its words, a quoted text as one.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The word behind an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        let at = self.words.iter().position(|w| w == name)?;
        self.words.get(at + 1).map(String::as_str)
    }

    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    pub fn comment(&self) -> &str {
        self.option("--comment").unwrap_or_default()
    }

    pub fn target(&self) -> Option<&str> {
        self.option("-j").or_else(|| self.option("-g"))
    }

    /// `10.96.1.1 port 80/tcp`.
    pub(super) fn destination(&self) -> String {
        let ip = self.option("-d").map(|d| d.trim_end_matches("/32").to_owned() + " ").unwrap_or_default();
        format!("{ip}port {}/{}", self.option("--dport").unwrap_or("any"), self.option("-p").unwrap_or("any"))
    }

    /// Whether it is about a service, called `namespace/name` or `namespace/name:port` in comments.
    pub(super) fn is_about(&self, service: &str) -> bool {
        let end = |rest: &str| rest.is_empty() || rest.starts_with([':', ' ']);
        let mut words = self.comment().split(' ');
        words.any(|word| word.strip_prefix(service).is_some_and(end))
    }
}

/// The words of a rule, quoted ones as one.
fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => all.push(std::mem::take(&mut word)),
            letter => word.push(letter),
        }
    }
    all.push(word);
    all.retain(|w| !w.is_empty());
    all
}
