//! Pages of the documentation: what a translation shares with its original.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// A page in Markdown, in the sections that its headings begin.
#[derive(Debug)]
pub struct Page {
    /// The first has what stands before the first heading.
    pub sections: Vec<Section>,
}

/// What stands below a heading, up to the next one of any level.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Number of `#`; 0 before the first heading.
    pub level: usize,
    /// The heading's words.
    pub title: String,
    /// Blocks between fences.
    pub blocks: Vec<Block>,
    /// What stands between backticks: options, fields, programs, files. Spaces and line ends are one space.
    pub quoted: BTreeSet<String>,
    /// Paragraphs, items of lists and rows of tables.
    pub parts: usize,
    /// Numbers outside of backticks and links' targets.
    pub numbers: BTreeSet<String>,
    /// Targets of links, as they are written.
    pub links: Vec<String>,
    /// Of each row of a table, for each cell what stands between backticks in it.
    pub rows: Vec<Vec<BTreeSet<String>>>,
}

/// A block between fences.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the first fence: the language, and where commands run.
    pub info: String,
    /// Each line without its comment, and the comment.
    pub lines: Vec<(String, Option<String>)>,
}

impl Page {
    /// Reads a page without its line of languages, which stands below the first heading, and without comments.
    pub fn new(text: &str) -> Self {
        let lines = text.lines();
        let said = lines.filter(|it| !is_languages(it) && !it.starts_with("<!--"));
        let lines: Vec<&str> = said.collect();
        Self::whole(&lines.join("\n"))
    }

    fn whole(text: &str) -> Self {
        let (mut sections, mut prose) = (vec![Section::default()], String::new());
        let mut block: Option<Block> = None;
        for line in text.lines() {
            let Some(section) = sections.last_mut() else {
                break;
            };
            match (line.trim_start().strip_prefix("```"), &mut block) {
                (Some(_), Some(_)) => section.blocks.extend(block.take()),
                (Some(info), None) => {
                    let info = info.to_owned();
                    let lines = Vec::new();
                    block = Some(Block { info, lines });
                }
                (None, Some(block)) => block.lines.push(without_comment(line)),
                (None, None) => {
                    let level = line.chars().take_while(|c| *c == '#').count();
                    if level > 0 {
                        section.prose(&std::mem::take(&mut prose));
                        let title = line.trim_start_matches('#').trim().to_owned();
                        sections.push(Section {
                            level,
                            title,
                            ..Section::default()
                        });
                    } else {
                        prose.push_str(line);
                        prose.push('\n');
                    }
                }
            }
        }
        if let Some(section) = sections.last_mut() {
            section.prose(&prose);
        }
        Self { sections }
    }

    /// The names by which links find the headings, in their order.
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for section in &self.sections {
            let name = anchor(&section.title);
            let before = anchors
                .iter()
                .filter(|it| **it == name || it.strip_prefix(&name).is_some_and(is_count));
            let name = match before.count() {
                0 => name,
                count => format!("{name}-{count}"),
            };
            anchors.push(name);
        }
        anchors
    }

    /// Where a page's links lead, those of the line of languages too.
    pub fn all_links(text: &str) -> Vec<String> {
        let sections = Self::whole(text).sections;
        sections.into_iter().flat_map(|it| it.links).collect()
    }
}

impl Section {
    fn prose(&mut self, text: &str) {
        self.parts += parts(text);
        for line in text.lines().filter(|line| line.starts_with('|')) {
            let line = line.replace("\\|", " ");
            let cells = line.trim().trim_matches('|').split('|');
            let quoted = |cell| split(cell).0.into_iter().collect();
            self.rows.push(cells.map(quoted).collect());
        }
        let (quoted, rest) = split(text);
        self.quoted.extend(quoted);
        let mut rest = rest.as_str();
        let mut plain = String::new();
        while let Some((before, behind)) = rest.split_once("](") {
            let (target, behind) = behind.split_once(')').unwrap_or((behind, ""));
            // The words of a link to a page are often its name.
            let words = before.rfind('[').map_or(before, |at| &before[..at]);
            plain.push_str(words);
            self.links.push(target.to_owned());
            rest = behind;
        }
        plain.push_str(rest);
        let numbers = plain.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == ','));
        let numbers = numbers.map(|it| it.trim_end_matches(['.', ',']));
        let is_number = |it: &&str| it.starts_with(|c: char| c.is_ascii_digit());
        self.numbers
            .extend(numbers.filter(is_number).map(str::to_owned));
    }
}

/// How many paragraphs, items of lists and rows of tables there are.
fn parts(text: &str) -> usize {
    let (mut parts, mut between) = (0, true);
    for line in text.lines().map(str::trim_start) {
        let numbered = line
            .split_once(". ")
            .is_some_and(|(number, _)| is_count(&format!("-{number}")));
        if line.starts_with("- ")
            || line.starts_with('|')
            || numbered
            || (between && !line.is_empty())
        {
            parts += 1;
        }
        between = line.is_empty();
    }
    parts
}

/// A number that another wording of the page does not have (FNV-1a). Where its lines break does not matter, and neither
/// does its line of languages.
pub fn wording(text: &str) -> String {
    let lines = text.lines().filter(|it| !is_languages(it));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = words.join(" ").bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}

/// What stands between backticks, and the rest.
fn split(text: &str) -> (Vec<String>, String) {
    let (mut quoted, mut rest) = (Vec::new(), String::new());
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 1 {
            let words: Vec<&str> = part.split_whitespace().collect();
            quoted.push(words.join(" "));
            rest.push(' ');
        } else {
            rest.push_str(part);
        }
    }
    (quoted, rest)
}

/// A line of a block without its comment, and the comment: `#` at the beginning or behind a space, up to the end.
fn without_comment(line: &str) -> (String, Option<String>) {
    let begins = |at: usize| at == 0 || line[..at].ends_with(' ');
    let found = line.match_indices('#').map(|(at, _)| at);
    match found.into_iter().find(|at| begins(*at)) {
        Some(at) => {
            let comment = line[at..].trim_start_matches('#').trim();
            (line[..at].to_owned(), Some(comment.to_owned()))
        }
        None => (line.to_owned(), None),
    }
}

fn is_languages(line: &str) -> bool {
    line.starts_with("English · [中文](") || line.starts_with("[English](")
}

fn is_count(rest: &str) -> bool {
    rest.strip_prefix('-')
        .is_some_and(|it| !it.is_empty() && it.chars().all(|c| c.is_ascii_digit()))
}

/// The name that a heading has in links: small letters, no punctuation, dashes for spaces.
fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Where a link of a page leads: a path from the root of the repository, and the heading's name. Nothing for one that
/// leads out of the repository.
pub fn resolve(page: &Path, link: &str) -> Option<(PathBuf, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = match link.split_once('#') {
        Some((path, heading)) => (path, Some(heading.to_owned())),
        None => (link, None),
    };
    if path.is_empty() {
        return Some((page.to_owned(), heading));
    }
    let mut whole = page.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::Normal(name) => whole.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some((whole, heading))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# One\n\nEnglish · [中文](x.md)\n\nSee [it](a.md#b) for `-x\nLIST`, 30 s.\n\n   ```sh live\n   \
                        run it   # now\n   # alone\n   ```\n\n## One\n| `-a`, `-b` | 2 |\n";

    #[test]
    fn a_page_is_taken_apart() {
        let page = Page::new(TEXT);
        let [before, one, two] = page.sections.as_slice() else {
            panic!("{page:?}");
        };
        assert_eq!(*before, Section::default());
        let set = |all: &[&str]| {
            all.iter()
                .map(|it| (*it).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(
            (one.quoted.clone(), one.numbers.clone(), one.links.clone()),
            (set(&["-x LIST"]), set(&["30"]), vec!["a.md#b".to_owned()])
        );
        let block = one.blocks.first().unwrap();
        assert_eq!(block.info, "sh live");
        let lines = [
            ("   run it   ".to_owned(), Some("now".to_owned())),
            ("   ".to_owned(), Some("alone".to_owned())),
        ];
        assert_eq!(block.lines, lines);
        assert_eq!((one.parts, two.parts), (1, 1));
        assert_eq!(two.rows, [[set(&["-a", "-b"]), set(&[])]]);
        assert_eq!(page.anchors(), ["", "one", "one-1"]);
        assert_eq!(Page::all_links(TEXT), ["x.md", "a.md#b"]);
    }

    #[test]
    fn a_wording_is_its_words() {
        assert_eq!(
            wording("a b\nc"),
            wording("a\nEnglish · [中文](x.md)\nb c\n")
        );
        assert_ne!(wording("a b"), wording("a c"));
        assert_eq!(parts("a\nb\n\nc\n- d\n- e\n\n1. f\n| g |\n"), 6);
    }

    #[test]
    fn links_are_followed_from_their_page() {
        let from = |link| resolve(Path::new("docs/zh-CN/a.md"), link);
        let to = |path: &str, heading: Option<&str>| {
            Some((PathBuf::from(path), heading.map(str::to_owned)))
        };
        assert_eq!(from("../../README.md#x"), to("README.md", Some("x")));
        assert_eq!(from("b.md"), to("docs/zh-CN/b.md", None));
        assert_eq!(from("#y"), to("docs/zh-CN/a.md", Some("y")));
        assert_eq!(from("https://example.org/"), None);
    }
}
