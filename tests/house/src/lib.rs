//! The structure of this repository as its manifests, its imports and its documents have it.
//!
//! - [`crates`]: which crate uses which, from the manifests.
//! - [`modules`]: which module of a crate uses which, from `crate::` paths outside of tests.
//! - [`Picture`]: the floors that ARCHITECTURE.md draws.
//! - [`pages`]: the documentation's pages, their links, and what two languages share.

pub mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Who uses whom: a crate's folder, or a module's name.
pub type Uses = BTreeMap<String, BTreeSet<String>>;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The crates of the workspace by their folders, and which others each has among its dependencies (not those of its
/// tests).
///
/// # Errors
/// A manifest that cannot be read.
pub fn crates(root: &Path) -> io::Result<Uses> {
    let workspace = manifest(root)?;
    let members = workspace.get("workspace").and_then(|it| it.get("members"));
    let members = members
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten();
    let mut uses = Uses::new();
    for member in members.filter_map(toml::Value::as_str) {
        let own = manifest(&root.join(member))?;
        let own = own.get("dependencies").and_then(toml::Value::as_table);
        let names = own.into_iter().flat_map(|it| it.keys());
        let ours = names.filter_map(|name| name.strip_prefix("millrace-"));
        uses.insert(member.to_owned(), ours.map(str::to_owned).collect());
    }
    Ok(uses)
}

fn manifest(folder: &Path) -> io::Result<toml::Table> {
    let text = std::fs::read_to_string(folder.join("Cargo.toml"))?;
    text.parse().map_err(io::Error::other)
}

/// The modules right below a crate's root, and which others each names by `crate::`, outside of tests.
///
/// # Errors
/// A file that cannot be read.
pub fn modules(src: &Path) -> io::Result<Uses> {
    let files = sources(src)?;
    let module = |file: &Path| {
        let first = file.strip_prefix(src).ok()?.components().next()?;
        let name = Path::new(first.as_os_str()).file_stem()?.to_str()?;
        (name != "lib" && name != "main").then(|| name.to_owned())
    };
    let mut uses: Uses = files
        .iter()
        .filter_map(|file| Some((module(file)?, BTreeSet::new())))
        .collect();
    let known: BTreeSet<String> = uses.keys().cloned().collect();
    for file in &files {
        let Some(name) = module(file) else { continue };
        let text = code(&std::fs::read_to_string(file)?);
        let named = crate_paths(&text);
        let others = named.filter(|other| *other != name && known.contains(*other));
        uses.entry(name.clone())
            .or_default()
            .extend(others.map(str::to_owned));
    }
    Ok(uses)
}

/// All Rust files below a folder that are no tests.
///
/// # Errors
/// A folder that cannot be read.
pub fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if name.is_some_and(|it| it.ends_with(".rs") && !it.ends_with("tests.rs")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A file without its comments and its module of tests, which is its last.
pub fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let code = text.get(..end).unwrap_or(text);
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names behind `crate::`, also those in braces.
fn crate_paths(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let behind = text.split("crate::").skip(1);
    behind.flat_map(move |rest| {
        let names = match rest.strip_prefix('{') {
            Some(group) => first_names(group),
            None => vec![rest],
        };
        names.into_iter().map(move |name| {
            let end = name.find(|c| !is_name(c)).unwrap_or(name.len());
            name.get(..end).unwrap_or(name)
        })
    })
}

/// What stands between the commas of a group in braces, up to its end, without what braces inside of it hold.
fn first_names(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                names.extend(group.get(begin..at).map(str::trim));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            // Any other character.
            _ => {}
        }
    }
    names
}

/// Those that use each other in a circle, with one way around it.
pub fn circle(uses: &Uses) -> Option<Vec<String>> {
    fn visit<'u>(
        uses: &'u Uses,
        name: &'u str,
        way: &mut Vec<&'u str>,
        done: &mut BTreeSet<&'u str>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|it| *it == name) {
            return Some(way.iter().skip(begin).map(|it| (*it).to_owned()).collect());
        }
        if done.contains(name) {
            return None;
        }
        way.push(name);
        let mut others = uses.get(name).into_iter().flatten();
        let found = others.find_map(|other| visit(uses, other, way, done));
        way.pop();
        done.insert(name);
        found
    }
    let mut done = BTreeSet::new();
    uses.keys()
        .find_map(|name| visit(uses, name, &mut Vec::new(), &mut done))
}

/// Floors as a document draws them, in a block that begins with three backticks, `floors` and what it shows. Each line is
/// a floor, its number first; the highest comes first.
#[derive(Debug)]
pub struct Picture {
    /// A folder, or `crates`.
    pub of: String,
    /// Names from the lowest floor up, behind the number that the floor is given.
    pub floors: Vec<(String, Vec<String>)>,
}

impl Picture {
    /// All that a document draws.
    pub fn all(document: &str) -> Vec<Self> {
        let blocks = document.split("```floors ").skip(1);
        let pictures = blocks.filter_map(|block| {
            let (of, rest) = block.split_once('\n')?;
            let lines = rest.split("```").next()?.lines();
            let floor = |line: &str| {
                let mut words = line.split_whitespace().map(str::to_owned);
                (words.next().unwrap_or_default(), words.collect())
            };
            let mut floors: Vec<(String, Vec<String>)> = lines.map(floor).collect();
            floors.reverse();
            let of = of.trim().to_owned();
            Some(Self { of, floors })
        });
        pictures.collect()
    }

    /// What is wrong with the picture: who is missing or not there, and who uses what does not stand below.
    pub fn contradictions(&self, uses: &Uses) -> Vec<String> {
        let mut floors: BTreeMap<&str, i32> = BTreeMap::new();
        let mut wrong = Vec::new();
        for ((number, names), floor) in self.floors.iter().zip(1..) {
            if *number != floor.to_string() {
                wrong.push(format!("floor {floor} is called {number}"));
            }
            for name in names {
                if floors.insert(name, floor).is_some() {
                    wrong.push(format!("{name} is drawn twice"));
                }
            }
        }
        for name in floors.keys().filter(|name| !uses.contains_key(**name)) {
            wrong.push(format!("{name} is drawn and not there"));
        }
        for (name, others) in uses {
            let Some(floor) = floors.get(name.as_str()) else {
                wrong.push(format!("{name} is not drawn"));
                continue;
            };
            for other in others {
                if floors.get(other.as_str()).is_none_or(|it| it >= floor) {
                    wrong.push(format!(
                        "{name} uses {other}, which does not stand below it"
                    ));
                }
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(all: &[(&str, &[&str])]) -> Uses {
        let set = |others: &[&str]| others.iter().map(|it| (*it).to_owned()).collect();
        all.iter()
            .map(|(name, others)| ((*name).to_owned(), set(others)))
            .collect()
    }

    #[test]
    fn a_picture_that_is_not_true_is_contradicted() {
        let picture = Picture::all("text\n```floors x/src\n2 a b\n1 c\n```\nmore\n");
        let picture = picture.first().unwrap();
        assert_eq!(picture.of, "x/src");
        let fine = uses(&[("a", &["c"]), ("b", &[]), ("c", &[])]);
        assert_eq!(picture.contradictions(&fine), [] as [String; 0]);
        for wrong in [
            uses(&[("a", &["b"]), ("b", &[]), ("c", &[])]),
            uses(&[("a", &[]), ("b", &[]), ("c", &["a"])]),
            uses(&[("a", &[]), ("b", &[])]),
            uses(&[("a", &[]), ("b", &[]), ("c", &[]), ("d", &[])]),
        ] {
            assert_eq!(picture.contradictions(&wrong).len(), 1, "{wrong:?}");
        }
        for drawn in ["2 a b\n1 c b\n", "3 a b\n1 c\n"] {
            let pictures = Picture::all(&format!("```floors x/src\n{drawn}```\n"));
            let wrong = pictures.first().unwrap().contradictions(&fine);
            assert_eq!(wrong.len(), 1, "{drawn}: {wrong:?}");
        }
    }

    #[test]
    fn circles_are_found_and_branches_are_none() {
        let none = uses(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]);
        assert_eq!(circle(&none), None);
        let one = uses(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
        assert_eq!(circle(&one).unwrap(), ["b", "c"]);
    }

    #[test]
    fn paths_in_braces_and_in_expressions_count_and_comments_do_not() {
        let text = "use crate::{one::{A, B}, two};\nlet x = crate::three::f(); // crate::four\n";
        let text = code(text);
        let found: Vec<&str> = crate_paths(&text).collect();
        assert_eq!(found, ["one", "two", "three"]);
    }
}
