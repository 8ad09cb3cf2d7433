//! The table of faults and verdicts in the book: each fault of the catalogue, and what a trace said of it. A
//! trace that says something else, as root or as an ordinary user, fails; `UPDATE_FAULTS_TABLE=1` writes its row anew.
//! Whether the rows are those of the catalogue is told without a lab.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use labctl::fault::{Fault as Listed, catalogue};
use labctl::trace::model::Trace;

use crate::broken::Fitting;
use crate::tests;

tests![&[]; the_books_table_has_a_row_for_each_fault_of_the_catalogue];

const UPDATE: &str = "UPDATE_FAULTS_TABLE";

/// The page up to its rows.
const HEAD: &str = "\
# Faults and verdicts

What `labctl trace` says of each fault that `labctl break` can make, asked nothing but the fault's question: cause and
place, the verdict's sentence, and the commands (or words) with which it would mend that. This page is what traces said,
in `labs/broken/vxlan.yaml` (`flanneld-dead`: in `labs/broken/udp.yaml`), as root and as an ordinary user alike; a test
asks again, compares, does what the last column says and sees the question answered.

`labctl up` with the lab's file mends all of them, too; it is named here where it is all there is to type.

| Fault | Cause and place | Verdict | Remedy |
|---|---|---|---|
";

/// The lab in which a fault is shown.
pub fn lab_of(fault: &str) -> &'static str {
    if fault == "flanneld-dead" { "udp" } else { "vxlan" }
}

/// The table must say of a fault what a trace says of it. `file` is the lab's, as the verdict names it.
pub fn row_is(fitting: &Fitting, trace: &Trace, file: &str) -> Result<(), String> {
    let row = row(fitting.fault, trace, file).ok_or("a verdict without a fault")?;
    if std::env::var_os(UPDATE).is_some() {
        return write(&row).map_err(|e| format!("{}: {e}", path().display()));
    }
    let table = std::fs::read_to_string(path()).unwrap_or_default();
    let begin = begin(fitting.fault);
    let told = table.lines().find(|line| line.starts_with(&begin)).unwrap_or_default();
    if told == row {
        return Ok(());
    }
    Err(format!("the book's table is not what traces say; {UPDATE}=1 writes it anew\nbook:  {told}\ntrace: {row}"))
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("book/src/faults-table.md")
}

fn begin(fault: &Listed) -> String {
    format!("| `{}`: {} | ", fault.name, fault.title)
}

fn row(listed: &Listed, trace: &Trace, file: &str) -> Option<String> {
    let fault = trace.verdict.fault.as_ref()?;
    let cause = serde_json::to_value(fault.cause).ok()?;
    let by_hand = |command: &&str| !command.starts_with("labctl up ");
    let commands: Vec<&str> = fault.remedy.iter().filter_map(|r| r.command.as_deref()).collect();
    let mut remedies: Vec<String> = match commands.iter().copied().filter(by_hand).collect::<Vec<_>>() {
        by_hand if by_hand.is_empty() => {
            let words = fault.remedy.iter().filter(|r| r.command.is_none()).map(|r| r.says.clone());
            words.chain(commands.iter().map(|command| format!("`{command}`"))).collect()
        }
        by_hand => by_hand.iter().map(|command| format!("`{command}`")).collect(),
    };
    // It is named as from where it was asked, which is its folder.
    let file = Path::new(file).file_name()?.to_str()?;
    for remedy in &mut remedies {
        *remedy = remedy.replace(file, &format!("labs/broken/{}.yaml", lab_of(listed.name)));
    }
    let cells =
        [format!("`{}` at {}", cause.as_str()?, fault.place), trace.verdict.says.clone(), remedies.join("<br>")];
    // Which of the DNS servers is asked is chance.
    let cells = cells.map(|cell| cell.replace('|', "\\|").replace("coredns-2", "coredns-1"));
    Some(format!("{}{} |", begin(listed), cells.join(" | ")))
}

/// Put a row into the page. Traces of several faults are told at the same time.
fn write(row: &str) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path())?;
    file.lock()?;
    let mut old = String::new();
    file.read_to_string(&mut old)?;
    let of = |fault: &Listed| {
        let begin = begin(fault);
        std::iter::once(row).chain(old.lines()).find(|line| line.starts_with(&begin)).map(str::to_owned)
    };
    let rows: String = catalogue().filter_map(of).map(|row| row + "\n").collect();
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{HEAD}{rows}").as_bytes())
}

fn the_books_table_has_a_row_for_each_fault_of_the_catalogue() {
    let table = std::fs::read_to_string(path()).unwrap_or_default();
    let rows = table.strip_prefix(HEAD).unwrap_or_else(|| panic!("another head; {UPDATE}=1 writes it anew"));
    let mut rows = rows.lines();
    for fault in catalogue() {
        let row = rows.next().unwrap_or_default();
        let cause = serde_json::to_value(fault.cause).expect("a word");
        let begin = format!("{}`{}` at ", begin(fault), cause.as_str().expect("a word"));
        assert!(row.starts_with(&begin), "{begin:?} is to begin the row {row:?}; {UPDATE}=1 writes it anew");
    }
    assert_eq!(rows.next(), None, "a row of no fault");
}
