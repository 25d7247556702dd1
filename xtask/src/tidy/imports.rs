//! Which file of a crate imports which, and where imports go round in a circle.

use crate::rust::without_words;
use crate::source::File;
use std::collections::{BTreeMap, BTreeSet};

/// A crate's files by their module path, and what each imports.
struct Graph<'f> {
    /// `guard::serve` for `src/guard/serve.rs`; empty for the root.
    files: BTreeMap<String, &'f File>,
    /// What the root's `pub use` makes of names: the module that has them.
    reexports: BTreeMap<String, String>,
}

/// The circles of files that import each other, beyond a parent and its children, of every crate
/// in `crates`.
pub(super) fn circles(rust: &[&File]) -> Vec<String> {
    let mut crates: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
    for file in rust {
        if let Some((name, _)) =
            file.path.strip_prefix("crates/").and_then(|it| it.split_once("/src/"))
        {
            crates.entry(name).or_default().push(file);
        }
    }
    let mut problems = Vec::new();
    for (name, files) in crates {
        let edges = Graph::new(&files).edges();
        let found = components(&edges);
        let circles = found.into_iter().filter(|circle| circle.len() > 1);
        problems.extend(circles.map(|circle| format!("{name}: {}", circle.join(", "))));
    }
    problems
}

impl<'f> Graph<'f> {
    fn new(files: &[&'f File]) -> Graph<'f> {
        let modules = files.iter().filter_map(|file| Some((module_of(&file.path)?, *file)));
        let mut graph = Graph { files: modules.collect(), reexports: BTreeMap::new() };
        if let Some(root) = graph.files.get("") {
            let text = without_words(&root.text);
            let uses = uses(&text, true);
            for path in uses {
                let Some((module, name)) = path.rsplit_once("::") else { continue };
                let module = module.trim_start_matches("crate::").trim_start_matches("self::");
                graph.reexports.insert(name.to_owned(), module.to_owned());
            }
        }
        graph
    }

    /// From each file to those that it imports, but between a file and its own parent or child.
    fn edges(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut edges = BTreeMap::new();
        for (module, file) in &self.files {
            let text = without_words(&file.shipped().text);
            let mut targets = BTreeSet::new();
            for path in uses(&text, false).into_iter().chain(paths(&text)) {
                let Some(path) = absolute(module, &path) else { continue };
                let target = self.file_of(&path);
                if !are_family(module, &target) {
                    targets.insert(target);
                }
            }
            edges.insert(module.clone(), targets);
        }
        edges
    }

    /// The file that has what a path from the crate's root names.
    fn file_of(&self, path: &str) -> String {
        let first = path.split("::").next().unwrap_or_default();
        let path = self.reexports.get(first).map_or(path, String::as_str);
        let mut names: Vec<&str> = path.split("::").collect();
        while !self.files.contains_key(&names.join("::")) && names.pop().is_some() {}
        names.join("::")
    }
}

/// `guard::serve` of `crates/cli/src/guard/serve.rs`.
fn module_of(path: &str) -> Option<String> {
    let (_, path) = path.split_once("/src/")?;
    let path = path.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    Some(if ["lib", "main"].contains(&path) { String::new() } else { path.replace('/', "::") })
}

/// Whether one file is the root, the same as the other, or its parent.
fn are_family(one: &str, other: &str) -> bool {
    let is_parent =
        |of: &str, it: &str| of.rsplit_once("::").map_or("", |(parent, _)| parent) == it;
    one == other || is_parent(one, other) || is_parent(other, one)
}

/// A path from the crate's root, of one that stands in a module.
fn absolute(module: &str, path: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("crate::") {
        return Some(rest.to_owned());
    }
    let mut names: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
    let mut rest = path.strip_prefix("self::").unwrap_or(path);
    if rest.len() == path.len() && !path.starts_with("super::") {
        return None;
    }
    while let Some(after) = rest.strip_prefix("super::") {
        names.pop();
        rest = after;
    }
    names.push(rest);
    Some(names.join("::"))
}

/// What a text's `use` lines name, one path for each name; only the public ones, if asked.
fn uses(text: &str, public: bool) -> Vec<String> {
    let mut found = Vec::new();
    for part in text.split(';') {
        let Some(at) = part.rfind("use ") else { continue };
        let before = part[..at].trim_end();
        let is_public = before.ends_with("pub");
        if (public && !is_public) || part[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            continue;
        }
        let path: String = part[at + 4..].split_whitespace().collect::<Vec<_>>().join(" ");
        expand("", &path, &mut found);
    }
    found
}

/// Adds each path of `a::{b, c::{d, e}}`.
fn expand(start: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    match tree.split_once('{') {
        Some((stem, list)) if !stem.contains(',') => {
            let list = list.trim_end().trim_end_matches('}');
            let list =
                if tree.ends_with('}') { &tree[stem.len() + 1..tree.len() - 1] } else { list };
            for part in crate::rust::parts(list) {
                expand(&format!("{start}{stem}"), part, found);
            }
        }
        _ => {
            let name = tree.split(" as ").next().unwrap_or(tree);
            let path = format!("{start}{name}");
            found.push(path.strip_suffix("::self").map_or(path.clone(), str::to_owned));
        }
    }
}

/// Paths that begin with `crate::` or `super::` outside of `use` lines.
fn paths(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let starts = ["crate::", "super::"].into_iter().flat_map(|start| text.match_indices(start));
    let begins = |at: usize| !text[..at].ends_with(is_part);
    let path = |at: usize| text[at..].split(|c| !is_part(c)).next().unwrap_or_default();
    starts
        .filter(|(at, _)| begins(*at))
        .map(|(at, _)| path(at).trim_end_matches(':').to_owned())
        .filter(|path| path.contains("::"))
        .collect()
}

/// Groups of files that all reach each other.
fn components(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = edges.get(start).into_iter().flatten().collect();
        while let Some(next) = open.pop() {
            if seen.insert(next.clone()) {
                open.extend(edges.get(next).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        edges.keys().map(|name| (name, reach(name))).collect();
    let mut found = BTreeSet::new();
    for (name, seen) in &reached {
        let back =
            seen.iter().filter(|it| reached.get(it).is_some_and(|from| from.contains(*name)));
        let circle: Vec<String> = back.cloned().collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{circles, uses};
    use crate::source::File;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn found(files: &[File]) -> Vec<String> {
        circles(&files.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_circle_is_found_through_what_the_root_hands_on() {
        let files = [
            file("crates/x/src/lib.rs", "mod a; mod b; mod c;\npub use a::A;\n"),
            file("crates/x/src/a.rs", "use crate::b::{B, b};\n"),
            file("crates/x/src/b.rs", "use super::c;\n"),
            file("crates/x/src/c.rs", "fn c(_: crate::A) {}\n"),
        ];
        assert_eq!(found(&files), ["x: a, b, c"]);
    }

    #[test]
    fn a_parent_and_its_children_may_import_each_other() {
        let files = [
            file("crates/x/src/a.rs", "mod b;\nuse self::b::B;\n"),
            file("crates/x/src/a/b.rs", "use super::A;\nuse crate::a::C;\n"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn tests_may_import_anything() {
        let files = [
            file("crates/x/src/a.rs", "use crate::b;\n"),
            file("crates/x/src/b.rs", "#[cfg(test)]\nmod tests { use crate::a; }\n"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn a_tree_of_names_is_a_path_for_each() {
        assert_eq!(uses("use a::{b, c::{self, d}};", false), ["a::b", "a::c", "a::c::d"]);
    }
}
