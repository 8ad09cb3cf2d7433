//! The book and the README, held to their word: the commands of their `console` blocks are run
//! and must print what stands there, their YAML must be valid, and their links must lead somewhere.
//!
//! A page's commands run in order, in the project's root, with a runtime directory of the page's
//! own. In the output `[..]` stands for any text in a line and a line `...` for any lines. With
//! `UPDATE_BOOK=1` what is printed now is written into the page. Reading and writing pages is
//! `page`'s, comparing `pattern`'s, running `reader`'s.
//!
//! A page that says of itself that it needs root is reported as ignored where anyone else runs the
//! tests. The pages of error codes are checked for their links only: their examples show broken files and
//! broken machines, and have tests of their own.

mod page;
mod pattern;
mod reader;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};

use page::Page;
use reader::Reader;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn main() {
    let arguments = Arguments::from_args();
    let mut trials =
        vec![Trial::test("patterns", pattern::holds), Trial::test("every_page_is_listed", every_page_is_listed)];
    for path in pages() {
        let name = path.strip_prefix(ROOT).unwrap_or(&path).with_extension("").display().to_string();
        let path_too = path.clone();
        trials.push(Trial::test(format!("links::{name}"), move || links_lead_somewhere(&path_too)));
        if path.starts_with(book().join("errors")) {
            continue;
        }
        let page = Page::read(&path);
        if page.has_yaml() {
            let page = page.clone();
            trials.push(Trial::test(format!("yaml::{name}"), move || yaml_is_valid(&page)));
        }
        if page.has_commands() {
            let ignored = page.needs_root() && !nix::unistd::geteuid().is_root();
            let trial = Trial::test(format!("commands::{name}"), move || commands_print_what_stands_there(page));
            trials.push(trial.with_ignored_flag(ignored).with_kind(if ignored { "needs root" } else { "" }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn book() -> PathBuf {
    Path::new(ROOT).join("book/src")
}

/// The README and every page of the book.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![Path::new(ROOT).join("README.md")];
    let mut left = vec![book()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("the book's directories can be read") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                None if path.is_dir() => left.push(path),
                Some(ending) if ending == "md" => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn commands_print_what_stands_there(mut page: Page) -> Result<(), Failed> {
    let update = std::env::var_os("UPDATE_BOOK").is_some();
    let reader = Reader::new()?;
    let mut status = 0;
    let mut wrong = String::new();
    for command in page.commands_mut() {
        let printed;
        (printed, status) = reader.run(&command.line, status)?;
        if pattern::matches(&command.output, &printed) {
            continue;
        }
        if update {
            command.output = pattern::renew(&command.output, &printed);
        } else {
            let show = |lines: &[String]| lines.join("\n    ");
            let (line, written) = (&command.line, show(&command.output));
            wrong.push_str(&format!("\n$ {line}\n  written:\n    {written}\n  printed:\n    {}\n", show(&printed)));
        }
    }
    if update {
        page.write()?;
    }
    let running = reader.running()?;
    if !wrong.is_empty() {
        return Err(format!("UPDATE_BOOK=1 writes what is printed now.\n{wrong}").into());
    }
    if running != "[]" {
        return Err(format!("the page leaves labs running: {running}").into());
    }
    Ok(())
}

fn yaml_is_valid(page: &Page) -> Result<(), Failed> {
    let reader = Reader::new()?;
    for text in page.yaml() {
        let (printed, status) = reader.run_with_input("labctl validate -", &text)?;
        if status != 0 {
            return Err(format!("{text}\nis not valid:\n{}", printed.join("\n")).into());
        }
    }
    Ok(())
}

/// What Markdown links in a file lead to, without addresses of the web and places within a page.
fn links(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(path).expect("a page can be read");
    let here = path.parent().expect("a page has a directory");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let files = targets.map(|(target, _)| target.split('#').next().unwrap_or(target));
    files.filter(|t| !t.is_empty() && !t.contains("://")).map(|t| here.join(t)).collect()
}

fn links_lead_somewhere(path: &Path) -> Result<(), Failed> {
    let dead: Vec<_> = links(path).into_iter().filter(|target| !target.exists()).collect();
    if dead.is_empty() { Ok(()) } else { Err(format!("nothing is there: {dead:?}").into()) }
}

fn every_page_is_listed() -> Result<(), Failed> {
    let summary = book().join("SUMMARY.md");
    let listed: BTreeSet<_> = links(&summary).into_iter().map(|p| fs::canonicalize(&p).unwrap_or(p)).collect();
    let missing: Vec<_> = pages()
        .into_iter()
        .filter(|p| p.starts_with(book()) && *p != summary)
        .filter(|p| !fs::canonicalize(p).is_ok_and(|p| listed.contains(&p)))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("not in SUMMARY.md: {missing:?}").into()) }
}
