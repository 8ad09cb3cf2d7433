//! A program's complaints about its configuration, told in terms of the objects it was made from.

use crate::plan::ingress::Rendered;

/// `complaint` with the object behind each line of the file that it names: both nginx (`in FILE:12`)
/// and HAProxy (`[FILE:12]`) write the file's name, a colon and the line's number.
pub fn with_objects(complaint: &str, rendered: &Rendered) -> String {
    let Some(file) = rendered.files.first() else { return complaint.to_owned() };
    let mut told = Vec::new();
    for (at, _) in complaint.match_indices(&format!("{}:", file.name)) {
        let digits = complaint[at + file.name.len() + 1..].chars().take_while(char::is_ascii_digit);
        let Ok(line) = digits.collect::<String>().parse::<usize>() else { continue };
        let Some(object) = object_before(&file.text, line) else { continue };
        let sentence = format!("line {line} comes from {object}");
        if !told.contains(&sentence) {
            told.push(sentence);
        }
    }
    std::iter::once(complaint.to_owned()).chain(told).collect::<Vec<_>>().join("\n")
}

/// The last remark above a line.
fn object_before(text: &str, line: usize) -> Option<&str> {
    let above: Vec<&str> = text.lines().take(line).collect();
    above.iter().rev().find_map(|l| l.trim_start().strip_prefix("# "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ingress::File;

    #[test]
    fn the_object_behind_a_line_is_named() {
        let text = "http {\n    # ingress default/cafe, spec.rules[0]: Prefix /tea\n    bad;\n}\n".to_owned();
        let file = File { name: "nginx.conf".to_owned(), text, secret: false };
        let rendered = Rendered { files: vec![file], ..Rendered::default() };
        let complaint = "nginx: [emerg] unknown directive \"bad\" in /run/x/nginx.conf:3\nnginx.conf test failed";
        let told = with_objects(complaint, &rendered);
        assert_eq!(told, format!("{complaint}\nline 3 comes from ingress default/cafe, spec.rules[0]: Prefix /tea"));
        assert_eq!(with_objects("nothing of lines", &rendered), "nothing of lines");
    }
}
