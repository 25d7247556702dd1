//! The public API of a library as a list, read from its sources.
//!
//! The compiler's lint `unreachable_pub` is on, so that whatever says `pub` can be reached from
//! outside. What macros make is not listed.

use crate::rust::{Item, items, on_one_line, parts, without_words};
use crate::source::File;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What items begin with that are listed by their head alone.
const PLAIN: [&str; 7] = ["fn", "const", "static", "type", "unsafe", "async", "macro"];

/// A library's public items.
#[derive(Default)]
struct Api {
    /// Items by themselves.
    plain: BTreeSet<String>,
    /// Types and traits, by their name: how they are declared, and what they have.
    types: BTreeMap<String, (Vec<String>, BTreeSet<String>)>,
    /// What types have, by the type's name, public or not.
    members: BTreeMap<String, BTreeSet<String>>,
}

/// The public items of the library in a folder such as `crates/netlink`, a line each.
pub(super) fn list(files: &[File], folder: &str) -> Result<String, String> {
    let mut api = Api::default();
    let root = format!("{folder}/src/lib.rs");
    api.read_file(files, &root, &format!("{folder}/src"), "", true)?;
    for (name, members) in std::mem::take(&mut api.members) {
        if let Some((_, known)) = api.types.get_mut(&name) {
            known.extend(members);
        }
    }
    let mut list = String::new();
    for line in &api.plain {
        let _ = writeln!(list, "{line}");
    }
    for (declared, members) in api.types.values() {
        for line in declared {
            let _ = writeln!(list, "{line}");
        }
        for member in members {
            let _ = writeln!(list, "    {member}");
        }
    }
    Ok(list)
}

impl Api {
    /// Reads a module from its file; `folder` has those below it.
    fn read_file(
        &mut self,
        files: &[File],
        path: &str,
        folder: &str,
        module: &str,
        is_public: bool,
    ) -> Result<(), String> {
        let file = files.iter().find(|file| file.path == path);
        let text = without_words(&file.ok_or_else(|| format!("{path} is missing"))?.text);
        for item in items(&text) {
            if item.attributes.iter().any(|it| it.contains("cfg(test)")) {
                continue;
            }
            let visible = item.head.strip_prefix("pub ");
            match (module_name(item.head), item.body) {
                (Some(name), None) => {
                    let below = format!("{folder}/{name}");
                    let beside = format!("{below}.rs");
                    let inside = format!("{below}/mod.rs");
                    let path =
                        if files.iter().any(|it| it.path == beside) { beside } else { inside };
                    let module = format!("{}{name}: ", module.replace(": ", "::"));
                    let is_public = is_public && visible.is_some();
                    self.read_file(files, &path, &below, &module, is_public)?;
                }
                // A module in a file has no items of its own that are public, but in tests.
                (Some(_), Some(_)) => {}
                (None, _) => self.read(&item, if is_public { module } else { "" }, is_public),
            }
        }
        Ok(())
    }

    fn read(&mut self, item: &Item<'_>, module: &str, is_public: bool) {
        if let Some(head) = item.head.strip_prefix("impl") {
            self.read_impl(head, item.body.unwrap_or_default());
            return;
        }
        let Some(head) = item.head.strip_prefix("pub ") else { return };
        let word = head.split_whitespace().next().unwrap_or_default();
        match word {
            "use" if is_public => {
                self.plain.insert(format!("{module}pub {}", on_one_line(head)));
            }
            "struct" | "enum" | "trait" | "union" => self.read_type(item, word, head, module),
            _ if PLAIN.contains(&word) => {
                self.plain.insert(format!("{module}{}", declared(item.head)));
            }
            _ => {}
        }
    }

    fn read_type(&mut self, item: &Item<'_>, word: &str, head: &str, module: &str) {
        let mut lines = Vec::new();
        let mut kept = String::new();
        for attribute in &item.attributes {
            if ["derive", "non_exhaustive"].iter().any(|it| attribute[2..].starts_with(it)) {
                kept += &format!("{} ", on_one_line(attribute));
            }
        }
        let shown = match head.split_once('(') {
            // The fields of a tuple that are its own affair.
            Some((start, fields)) if word == "struct" && item.body.is_none() => {
                let fields = fields.trim_end().trim_end_matches(')');
                let fields = parts(fields).into_iter().map(|field| {
                    if field.starts_with("pub ") { on_one_line(field) } else { "_".to_owned() }
                });
                format!("{start}({})", fields.collect::<Vec<_>>().join(", "))
            }
            _ => on_one_line(head),
        };
        lines.push(format!("{module}{kept}pub {shown}"));
        let body = item.body.unwrap_or_default();
        match word {
            "enum" => {
                let variants = parts(body);
                lines.extend(variants.iter().map(|it| format!("    {}", without_attributes(it))));
            }
            "trait" => {
                let items = items(body);
                lines.extend(items.iter().map(|it| format!("    {}", declared(it.head))));
            }
            _ => {
                let fields = parts(body).into_iter().map(without_attributes);
                let fields = fields.filter(|field| field.starts_with("pub "));
                lines.extend(fields.map(|field| format!("    {field}")));
            }
        }
        let name = type_name(head.strip_prefix(word).unwrap_or(head));
        self.types.entry(name).or_default().0.extend(lines);
    }

    /// Reads `impl<T> Trait for Type`, or the items of `impl Type`.
    fn read_impl(&mut self, head: &str, body: &str) {
        let head = on_one_line(without_generics(head));
        let (of, name) = match head.split_once(" for ") {
            Some((of, name)) => (Some(of), name),
            None => (None, head.as_str()),
        };
        let name = type_name(name.trim_start_matches(['&', ' ']).trim_start_matches("mut "));
        let members = self.members.entry(name).or_default();
        match of {
            Some(of) => drop(members.insert(format!("impl {of}"))),
            None => {
                let items = items(body);
                let public = items.iter().filter(|item| item.head.starts_with("pub "));
                members.extend(public.map(|item| declared(item.head)));
            }
        }
    }
}

/// The name in `mod x` and `pub mod x`.
fn module_name(head: &str) -> Option<&str> {
    let visible = head.strip_prefix("pub ").or_else(|| head.strip_prefix("pub(crate) "));
    visible.unwrap_or(head).strip_prefix("mod ").map(str::trim)
}

/// An item's head without the value of a constant.
fn declared(head: &str) -> String {
    let line = on_one_line(head);
    let is_value = ["pub const ", "const ", "pub static "].iter().any(|it| line.starts_with(it));
    match line.split_once(" = ") {
        Some((start, _)) if is_value => start.to_owned(),
        _ => line,
    }
}

/// A field or variant without what stands before it.
fn without_attributes(part: &str) -> String {
    match items(part).first() {
        Some(Item { head, body: Some(body), .. }) => {
            format!(
                "{} {{ {} }}",
                on_one_line(head),
                parts(body).into_iter().map(without_attributes).collect::<Vec<_>>().join(", ")
            )
        }
        Some(item) => declared(item.head),
        None => String::new(),
    }
}

/// What stands after `<…>` at the start.
fn without_generics(head: &str) -> &str {
    if !head.starts_with('<') {
        return head;
    }
    let mut depth = 0usize;
    for (at, character) in head.char_indices() {
        match character {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return &head[at + 1..];
        }
    }
    head
}

/// `Name` of ` Name<'a> where …`.
fn type_name(text: &str) -> String {
    let path = text.trim().split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let path = path.clone().next().unwrap_or_default();
    path.rsplit("::").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::list;
    use crate::source::File;

    #[test]
    fn what_is_public_is_listed_and_nothing_else() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file(
                "crates/a/src/lib.rs",
                "mod b;\npub mod c;\npub use b::B;\n/// A.\npub const N: u8 = 1;\nfn no() {}\n\
                 impl B { pub fn f(&self) -> u8 { 1 } fn g() {} }\n\
                 impl<T> From<T> for B { fn from(_: T) -> B { B } }\nstruct Own;\n\
                 impl Clone for Own {}\n",
            ),
            file("crates/a/src/b.rs", "#[derive(Debug)]\npub struct B(u8, pub u16);\n"),
            file(
                "crates/a/src/c.rs",
                "pub enum E { A, #[x] B { c: u8 } }\n#[cfg(test)]\nmod tests { pub fn x() {} }\n",
            ),
        ];
        let listed = list(&files, "crates/a").expect("all files are there");
        let expected = "pub const N: u8\npub use b::B\n#[derive(Debug)] pub struct B(_, pub u16)\n    \
                        impl From<T>\n    pub fn f(&self) -> u8\nc: pub enum E\n    A\n    B { c: u8 }\n";
        assert_eq!(listed, expected);
    }
}
