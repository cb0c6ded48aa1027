//! Pages in two languages say the same, links lead somewhere, and the site has every page.

#![allow(clippy::unwrap_used, clippy::panic, unused_crate_dependencies)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use millrace_house::pages::{Page, Section, resolve, wording};
use millrace_house::root;

/// Pages that there are in Chinese, each behind its original.
const TRANSLATED: [(&str, &str); 3] = [
    ("README.md", "README.zh-CN.md"),
    ("docs/quick-start.md", "docs/zh-CN/quick-start.md"),
    (
        "docs/migrating-from-tcpcopy.md",
        "docs/zh-CN/migrating-from-tcpcopy.md",
    ),
];
/// Comments of blocks that say where the commands below them run, and what they are in Chinese.
const HOSTS: [(&str, &str); 3] = [
    ("live server", "线上服务器"),
    ("target", "测试服务器"),
    ("assistant", "辅助服务器"),
];

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All pages of the repository that people read, by their paths.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    for folder in [
        "",
        "docs",
        "docs/zh-CN",
        "docs/site",
        "deploy/helm/millrace",
        "deploy/ansible",
    ] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = PathBuf::from(entry.unwrap().file_name());
            if name.extension().is_some_and(|it| it == "md") {
                let path = Path::new(folder).join(name);
                let text = read(&path);
                pages.insert(path, text);
            }
        }
    }
    pages
}

/// Where a section's links lead, whatever the language: translated pages by their originals, headings by their numbers.
fn targets(page: &str, section: &Section) -> BTreeSet<String> {
    let target = |link: &String| {
        let Some((path, heading)) = resolve(Path::new(page), link) else {
            return link.clone();
        };
        let heading = heading.map(|heading| {
            let anchors = Page::new(&read(&path)).anchors();
            anchors.iter().position(|it| *it == heading)
        });
        let path = path.to_str().unwrap();
        let original = TRANSLATED.iter().find(|(_, chinese)| *chinese == path);
        let path = original.map_or(path, |(english, _)| *english);
        format!("{path} {heading:?}")
    };
    section.links.iter().map(target).collect()
}

fn is_chinese(text: &str) -> bool {
    text.contains(|c: char| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

/// Whether a comment is, or may be, a translation of another.
fn says_the_same(english: &str, chinese: &str) -> bool {
    match HOSTS.iter().find(|(host, _)| *host == english) {
        Some((_, host)) => *host == chinese,
        None => english == chinese || is_chinese(chinese),
    }
}

/// What a page and its translation differ in.
fn differences(english: (&str, &str), chinese: (&str, &str)) -> Vec<String> {
    let (one, other) = (Page::new(english.1), Page::new(chinese.1));
    let levels = |page: &Page| page.sections.iter().map(|it| it.level).collect::<Vec<_>>();
    if levels(&one) != levels(&other) {
        return vec![format!(
            "headings: {:?}, {:?}",
            levels(&one),
            levels(&other)
        )];
    }
    let mut wrong = Vec::new();
    for (a, b) in one.sections.iter().zip(&other.sections) {
        let mut differ = |what: &str, same: bool, how: String| {
            if !same {
                wrong.push(format!("{} / {}: {what}: {how}", a.title, b.title));
            }
        };
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
            format!("{:?}", a.symmetric_difference(b).collect::<Vec<_>>())
        };
        differ(
            "between backticks",
            a.quoted == b.quoted,
            only(&a.quoted, &b.quoted),
        );
        differ(
            "paragraphs",
            a.parts == b.parts,
            format!("{} {}", a.parts, b.parts),
        );
        differ(
            "numbers",
            a.numbers == b.numbers,
            only(&a.numbers, &b.numbers),
        );
        let (to, too) = (targets(english.0, a), targets(chinese.0, b));
        differ("links", to == too, only(&to, &too));
        differ(
            "tables",
            a.rows == b.rows,
            format!("{:?}\n{:?}", a.rows, b.rows),
        );
        differ(
            "number of blocks",
            a.blocks.len() == b.blocks.len(),
            String::new(),
        );
        for (one, other) in a.blocks.iter().zip(&b.blocks) {
            differ(
                "block",
                one.info == other.info,
                format!("{} {}", one.info, other.info),
            );
            let same = one.lines.len() == other.lines.len();
            differ("block's length", same, format!("{one:?}\n{other:?}"));
            for ((command, comment), (again, translated)) in one.lines.iter().zip(&other.lines) {
                differ("command", command == again, format!("{command}\n{again}"));
                let same = match (comment, translated) {
                    (Some(comment), Some(translated)) => says_the_same(comment, translated),
                    (None, None) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                };
                differ("comment", same, format!("{comment:?} {translated:?}"));
            }
        }
    }
    wrong
}

#[test]
fn both_languages_say_the_same() {
    for (english, chinese) in TRANSLATED {
        let (text, translated) = (read(english), read(chinese));
        let wrong = differences((english, &text), (chinese, &translated));
        assert!(wrong.is_empty(), "{chinese}:\n{}", wrong.join("\n"));
        assert!(is_chinese(&translated));
    }
}

/// The last line of a translation names the wording that it was made from.
#[test]
fn a_translation_is_of_the_present_wording() {
    for (english, chinese) in TRANSLATED {
        let of = format!("<!-- {english} {} -->", wording(&read(english)));
        let last = read(chinese).lines().last().unwrap().to_owned();
        assert_eq!(
            last, of,
            "{english} was changed: say the same in {chinese}, then make this its last line: {of}"
        );
    }
}

#[test]
fn each_language_leads_to_the_other() {
    for (english, chinese) in TRANSLATED {
        for (from, to) in [(english, chinese), (chinese, english)] {
            let text = read(from);
            let languages = text.lines().nth(2).unwrap();
            let links = Page::all_links(languages);
            let leads = |link: &String| {
                resolve(Path::new(from), link).is_some_and(|(path, _)| path == Path::new(to))
            };
            assert!(links.iter().any(leads), "{from}: {languages}");
        }
    }
}

/// A change of one language alone is found, whatever it changes.
#[test]
fn a_page_that_is_changed_alone_is_found() {
    let (english, chinese) = TRANSLATED[1];
    let (text, translated) = (read(english), read(chinese));
    for (from, to) in [
        ("## Variations\n", "### Variations\n"),
        ("## Variations\n", ""),
        ("-c 198.18.9.0/24 --insecure", "-c 198.18.8.0/24 --insecure"),
        ("```sh target\n", "```sh live\n"),
        ("# ready", "# soon"),
        ("                       # ready", ""),
        ("`-n 3`", "`-n 4`"),
        ("64,512", "64,511"),
        ("(report.md)", "(ramp.md)"),
        ("#with-an-assistant", "#quick-start"),
        ("memory = 1024\n", ""),
        (
            "**More load than live.**",
            "One more.\n\n**More load than live.**",
        ),
        ("## Before you trust", "- `--other`\n\n## Before you trust"),
    ] {
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        let wrong = differences((english, &changed), (chinese, &translated));
        assert!(!wrong.is_empty(), "{from:?} became {to:?}");
    }
    let (english, chinese) = TRANSLATED[2];
    let (text, translated) = (read(english), read(chinese));
    for (from, to) in [
        ("# 测试服务器", "# 线上服务器"),
        ("`--share`", ""),
        ("1023", "1024"),
    ] {
        assert!(translated.contains(from), "{from}");
        let changed = translated.replacen(from, to, 1);
        let wrong = differences((english, &text), (chinese, &changed));
        assert!(!wrong.is_empty(), "{from:?} became {to:?}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let (mut count, mut headings) = (0, 0);
    for (page, text) in pages() {
        for link in Page::all_links(&text) {
            let Some((path, heading)) = resolve(&page, &link) else {
                continue;
            };
            let whole = root().join(&path);
            assert!(whole.exists(), "{}: {link}", page.display());
            if let Some(heading) = heading {
                let anchors = Page::new(&read(&path)).anchors();
                assert!(anchors.contains(&heading), "{}: {link}", page.display());
                headings += 1;
            }
            count += 1;
        }
    }
    assert!(count > 100 && headings > 10, "{count}, {headings}");
}

/// The order of the site is that of docs/site/SUMMARY.md.
#[test]
fn the_site_has_every_page_once() {
    let summary = PathBuf::from("docs/site/SUMMARY.md");
    let links = Page::all_links(&read(&summary));
    let listed = links.iter().map(|link| resolve(&summary, link).unwrap().0);
    let listed: Vec<PathBuf> = listed.collect();
    assert_eq!(listed.first().unwrap(), Path::new("README.md"));
    let folders = ["", "docs", "docs/zh-CN"].map(|it| Some(Path::new(it)));
    let of_the_site = pages()
        .into_keys()
        .filter(|path| folders.contains(&path.parent()));
    for page in of_the_site {
        let times = listed.iter().filter(|it| **it == page).count();
        assert_eq!(times, 1, "{}", page.display());
    }
}
