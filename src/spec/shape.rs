//! What belongs in a place, as an example that can be typed: remedies show these. What is wrong with
//! a value is said in [`super::fault`].

/// Examples by the type that serde wants there (`struct HostSpec`), or by what a visitor expects.
const TYPES: &[(&str, &str)] = &[
    ("struct LabFile", "hosts: { node1: {} }"),
    ("struct ClusterSpec", "{ flannel: { backend: vxlan } }"),
    ("struct FlannelSpec", "{ backend: vxlan }"),
    ("struct NetworkSpec", "{ cidr: 192.168.1.0/24 }"),
    ("struct HostSpec", "{ network: lan }"),
    ("struct ClientSpec", "{ network: lan }"),
    ("struct PodSpec", "{ host: node1, ports: [8080] }"),
    ("struct DeploymentSpec", "{ replicas: 2, ports: [8080] }"),
    ("struct ContainerSpec", "{ name: web, ports: [8080] }"),
    ("struct EnvVar", "{ name: HOME, value: /root }"),
    ("struct ReadinessSpec", "{ httpGet: { path: /healthz, port: 8080 } }"),
    ("struct HttpGet", "{ path: /healthz, port: 8080 }"),
    ("struct TcpSocket", "{ port: 8080 }"),
    ("struct ExecAction", "{ command: [cat, /tmp/ready] }"),
    ("struct ProbeSpec", "{ from: web, ping: node1 }"),
    ("a map from names", "{ NAME: {} }"),
    ("a map", "{ key: value }"),
    ("a sequence", "[one, two]"),
    ("a string", "a word"),
    ("a port number or a port's name", "8080"),
    ("a port number, or a map with containerPort", "8080, or { containerPort: 8080, name: http }"),
    ("a port number from 1 to 65535", "8080"),
    ("a name or address to ping, or a map", "web, or { to: web, size: 1000 }"),
    ("`NAME:PORT`, or a map", "'web:8080', or { to: 'web:8080', send: hello }"),
    ("a URL, or a map with url", "'http://web:8080/', or { url: 'http://web:8080/', method: POST }"),
    ("a name to resolve, or a map with name", "web.example.com, or { name: web.example.com, type: A }"),
    ("a command as a list of words, or a map with command", "[cat, /etc/hosts]"),
    ("`success`, `fail` or a map", "fail, or { status: 200 }"),
    ("a boolean", "true"),
];

/// How a value of the type is written, where an example helps. `expected` is the type in plain
/// words.
pub(super) fn of_type(wanted: &str, expected: &str) -> Option<String> {
    if let Some((_, example)) = TYPES.iter().find(|(name, _)| *name == wanted) {
        return Some(format!("for example: {example}"));
    }
    expected.contains("whole number").then(|| "for example: 2".to_owned())
}

/// What a field that is missing might hold.
pub(super) fn of_field(field: &str) -> &'static str {
    match field {
        "containerPort" | "port" => "8080",
        "to" => "node1",
        "url" => "http://web:8080/",
        "command" => "[cat, /etc/hosts]",
        "name" => "web",
        _ => "…",
    }
}

/// A command line as the list of its words: quotes hold words together as in a shell. What only a
/// shell understands is left to one.
pub(super) fn words(line: &str) -> Vec<String> {
    let for_a_shell = || ["sh", "-c", line.trim()].map(str::to_owned).to_vec();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = line.chars();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some('"'), '$' | '`') | (None, '|' | '&' | ';' | '<' | '>' | '$' | '`' | '(' | ')') => {
                return for_a_shell();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    // A quote that is not closed is no shell's word either; leave it to whoever wrote it.
    if quote.is_some() {
        return line.split_whitespace().map(str::to_owned).collect();
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_splits_it() {
        let splits: [(&str, &[&str]); 8] = [
            ("sleep 10", &["sleep", "10"]),
            ("sh -c 'echo hi; sleep 1'", &["sh", "-c", "echo hi; sleep 1"]),
            ("sh -c \"echo 'hi' there\"", &["sh", "-c", "echo 'hi' there"]),
            ("echo a\\ b ''", &["echo", "a b", ""]),
            ("echo hi | wc", &["sh", "-c", "echo hi | wc"]),
            ("echo \"$HOME\"", &["sh", "-c", "echo \"$HOME\""]),
            ("echo '$HOME'", &["echo", "$HOME"]),
            ("echo it's", &["echo", "it's"]),
        ];
        for (line, expected) in splits {
            assert_eq!(words(line), expected, "{line}");
        }
    }
}
