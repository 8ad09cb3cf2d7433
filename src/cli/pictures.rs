//! `--svg DIR` of `test` and `probe`: a picture of every probe that was asked several times.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::probe::{Outcome, picture};

use super::{Failure, output};

/// Write a picture of each probe with several answers into `dir`, which is made where it is not
/// there. `labs` are names of labs with what came of their probes.
pub fn write<'a>(dir: &Path, labs: impl IntoIterator<Item = (&'a str, &'a [Outcome])>) -> Result<(), Failure> {
    let mut taken = HashSet::new();
    fs::create_dir_all(dir).map_err(|e| output::unwritable(dir, &e))?;
    for (lab, outcomes) in labs {
        for outcome in outcomes {
            let Some(svg) = picture::bars(outcome) else { continue };
            let path = dir.join(free(picture::file_name(lab, &outcome.name), &mut taken));
            output::write_file(&path, &svg)?;
        }
    }
    Ok(())
}

/// The name, with a number where another picture has it: names of probes may differ in signs that
/// a file's name does not have.
fn free(name: String, taken: &mut HashSet<String>) -> String {
    let stem = name.trim_end_matches(".svg");
    let more = (2..).map(|n: u64| format!("{stem}-{n}.svg"));
    let found = std::iter::once(name.clone()).chain(more).find(|n| !taken.contains(n));
    let found = found.unwrap_or(name);
    taken.insert(found.clone());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_picture_of_a_name_gets_a_number() {
        let mut taken = HashSet::new();
        let names: Vec<String> = (0..3).map(|_| free("a.svg".to_owned(), &mut taken)).collect();
        assert_eq!(names, ["a.svg", "a-2.svg", "a-3.svg"]);
    }
}
