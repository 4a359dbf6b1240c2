//! Floor 6. TOML text → layers. Finds every unknown key and every value of a wrong type at once,
//! with its line; what the values mean is none of its business.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::keys::{KEYS, Key, LISTENER_KEYS, Scope, Shape};
use crate::config::layers::{File, Given, Item, Layer, Listener, Section};
use crate::config::suggest::nearest;
use crate::config::{Problem, Source};

/// Section of one group.
const GROUP: &str = "group";
/// Section of one listener, within a group or at the top.
const LISTENER: &str = "listener";

/// What `text`, the content of the file `path`, gives, and what is wrong with it.
///
/// An error is all syntax errors: what follows one is guesswork.
pub(super) fn read(path: &Arc<Path>, text: &str) -> Result<(File, Vec<Problem>), Vec<Problem>> {
    let mut reader = Reader {
        path,
        text,
        problems: Vec::new(),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.problem(at, "", error.message().replace('\n', ", "));
    }
    if !errors.is_empty() {
        return Err(reader.problems);
    }
    let mut file = File {
        path: Arc::clone(path),
        public: false,
        top: Layer::default(),
        groups: Vec::new(),
        listeners: Vec::new(),
    };
    reader.top(table.get_ref(), &mut file);
    Ok((file, reader.problems))
}

struct Reader<'a> {
    path: &'a Arc<Path>,
    text: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn top(&mut self, table: &DeTable<'_>, file: &mut File) {
        for (name, value) in table {
            let (at, name) = (name.span().start, name.get_ref().as_ref());
            match value.get_ref() {
                DeValue::Array(tables) if name == GROUP => {
                    let groups = tables.iter().map(|table| self.group(table));
                    file.groups.extend(groups);
                }
                value if name == LISTENER => {
                    file.listeners = self.listeners((at, name), value);
                }
                _ if name == GROUP => {
                    self.problem(at, name, "write [[group]], in double brackets".to_owned());
                }
                DeValue::Table(section) if is_section(name) => {
                    self.section(section, name, &mut file.top);
                }
                _ if is_section(name) => {
                    self.problem(at, name, format!("this is a section; write [{name}]"));
                }
                value => self.key(&mut file.top, "", (at, name), value),
            }
        }
    }

    fn group(&mut self, table: &Spanned<DeValue<'_>>) -> Section {
        let mut layer = Layer::default();
        let mut listeners = Vec::new();
        let at = table.span().start;
        if let DeValue::Table(table) = table.get_ref() {
            for (name, value) in table {
                let place = (name.span().start, name.get_ref().as_ref());
                if place.1 == LISTENER {
                    listeners = self.listeners((place.0, "group.listener"), value.get_ref());
                } else {
                    self.key(&mut layer, GROUP, place, value.get_ref());
                }
            }
        } else {
            self.problem(
                at,
                GROUP,
                "each group is a section: write [[group]]".to_owned(),
            );
        }
        Section {
            line: self.line(at),
            layer,
            listeners,
        }
    }

    /// The sections called `name`, one for each listener.
    fn listeners(&mut self, (at, name): (usize, &str), value: &DeValue<'_>) -> Vec<Listener> {
        let DeValue::Array(tables) = value else {
            self.problem(at, name, format!("write [[{name}]], in double brackets"));
            return Vec::new();
        };
        let mut listeners = Vec::new();
        for table in tables {
            let at = table.span().start;
            let mut layer = Layer::default();
            if let DeValue::Table(table) = table.get_ref() {
                self.section(table, LISTENER, &mut layer);
            } else {
                let section = format!("each listener is a section: write [[{name}]]");
                self.problem(at, name, section);
            }
            let source = self.source(at);
            listeners.push(Listener { source, layer });
        }
        listeners
    }

    fn section(&mut self, table: &DeTable<'_>, section: &str, layer: &mut Layer) {
        for (name, value) in table {
            let place = (name.span().start, name.get_ref().as_ref());
            self.key(layer, section, place, value.get_ref());
        }
    }

    /// One `name = value` in `section`, which is empty at the top.
    fn key(
        &mut self,
        layer: &mut Layer,
        section: &str,
        (at, name): (usize, &str),
        value: &DeValue<'_>,
    ) {
        let Some(key) = candidates(section).find(|key| key.name() == name) else {
            let path = if section.is_empty() {
                name.to_owned()
            } else {
                format!("{section}.{name}")
            };
            self.problem(at, &path, unknown(section, name));
            return;
        };
        let source = self.source(at);
        match items(key, value) {
            Ok(items) => {
                let items = items
                    .into_iter()
                    .map(|(item_at, text)| Item {
                        text,
                        source: self.source(item_at.unwrap_or(at)),
                    })
                    .collect();
                layer.insert(key, Given { items, source });
            }
            Err(want) => self.problem(at, key.path, want.to_owned()),
        }
    }

    fn problem(&mut self, at: usize, key: &str, problem: String) {
        self.problems.push(Problem {
            source: self.source(at),
            key: key.to_owned(),
            problem,
        });
    }

    fn source(&self, at: usize) -> Source {
        Source::File {
            path: Arc::clone(self.path),
            line: self.line(at),
        }
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.section() == Some(name))
}

/// The keys that may stand in `section`: at the top also those of groups, as their defaults.
fn candidates(section: &str) -> impl Iterator<Item = &'static Key> {
    let all = KEYS.iter().chain(LISTENER_KEYS).copied();
    all.filter(move |key| match section {
        "" => key.section().is_none(),
        GROUP => key.scope == Scope::Group,
        section => key.section() == Some(section),
    })
}

fn unknown(section: &str, name: &str) -> String {
    let names = || candidates(section).map(Key::name);
    let sections = KEYS
        .iter()
        .filter_map(|key| key.section())
        .chain([GROUP, LISTENER]);
    if let Some(meant) = nearest(name, names()) {
        return format!("no such key; did you mean {meant}?");
    }
    if let Some(elsewhere) = KEYS.iter().find(|key| key.name() == name) {
        let place = elsewhere
            .section()
            .map_or("at the top of the file".to_owned(), |section| {
                format!("in the section [{section}]")
            });
        return format!("no such key here; it belongs {place}");
    }
    if section.is_empty()
        && let Some(meant) = nearest(name, sections)
    {
        return format!("no such section; did you mean {meant}?");
    }
    format!(
        "no such key; known here are {}",
        names().collect::<Vec<_>>().join(", ")
    )
}

/// The texts of a value with their places where these are known, or what to write instead.
fn items(key: &Key, value: &DeValue<'_>) -> Result<Vec<(Option<usize>, String)>, &'static str> {
    match (key.shape, value) {
        (Shape::List, DeValue::Array(array)) => array
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok((Some(item.span().start), text.to_string())),
                _ => Err("a list of texts is needed, each in double quotes"),
            })
            .collect(),
        (Shape::List, DeValue::String(text)) => Ok(vec![(None, text.to_string())]),
        (Shape::List, _) => Err("a list is needed: [\"one\", \"two\"]"),
        (
            Shape::Number | Shape::NumberOrAuto | Shape::NumberOrOff | Shape::Size,
            DeValue::Integer(number),
        ) => {
            let plain = i64::from_str_radix(number.as_str(), number.radix());
            let plain = plain.map_err(|_| "this number is too large")?;
            Ok(vec![(None, plain.to_string())])
        }
        (Shape::Number, _) => Err("a whole number is needed, without quotes"),
        (_, DeValue::String(text)) => Ok(vec![(None, text.to_string())]),
        (Shape::Duration, _) => Err("a time in quotes is needed, such as \"500ms\" or \"2s\""),
        (Shape::Size, _) => Err("a size is needed, such as \"32MiB\""),
        (Shape::NumberOrOff, _) => Err("a whole number or \"off\" is needed"),
        (Shape::NumberOrAuto, _) => Err("a whole number or \"auto\" is needed"),
        (Shape::Text | Shape::Secret, _) => Err("a text in double quotes is needed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    fn read_text(text: &str) -> (File, Vec<String>) {
        let (file, problems) = read(&Arc::from(Path::new("f.toml")), text).unwrap();
        (file, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn every_wrong_key_is_named_with_its_line_and_a_remedy() {
        let text = "wokers = 2\n[log]\nlevel = 3\ncolour = true\n[uptream]\nx = 1\n\
                    [upstream]\nconnect_timeout = \"1s\"\nmax-clients = 4\n\
                    [[group]]\nsentinel = \"a\"\n[limits]\nmax-clients = 1.5\n";
        let (_, problems) = read_text(text);
        for expected in [
            "f.toml:1: wokers: no such key; did you mean workers?",
            "f.toml:3: log.level: a text in double quotes is needed",
            "f.toml:4: log.colour: no such key; known here are format, level",
            "f.toml:5: uptream: no such section; did you mean upstream?",
            "f.toml:8: upstream.connect_timeout: no such key; did you mean connect-timeout?",
            "f.toml:9: upstream.max-clients: no such key here; it belongs in the section [limits]",
            "f.toml:11: group.sentinel: no such key; did you mean sentinels?",
            "f.toml:13: limits.max-clients: a whole number or \"auto\" is needed",
        ] {
            assert!(
                problems.iter().any(|found| found == expected),
                "{expected}\n{problems:#?}"
            );
        }
        assert_eq!(problems.len(), 8, "{problems:#?}");
    }

    #[test]
    fn every_syntax_error_is_named_with_its_line() {
        let text = "workers = two\n[log\nlevel = \"info\"\n";
        let problems = read(&Arc::from(Path::new("f.toml")), text).unwrap_err();
        let lines: Vec<String> = problems
            .iter()
            .map(|found| found.source.to_string())
            .collect();
        assert!(
            ["f.toml:1", "f.toml:2"]
                .iter()
                .all(|line| lines.iter().any(|l| l == line))
        );
    }

    #[test]
    fn values_know_their_lines_and_groups_theirs() {
        let text = "hold = \"5s\"\n\n[[group]]\nlisten = [\n  \"a:1\",\n  \"b:2\",\n]\n";
        let (file, problems) = read_text(text);
        assert_eq!(problems, Vec::<String>::new());
        let hold = file.top.get(&keys::HOLD).unwrap();
        assert_eq!(hold.source.to_string(), "f.toml:1");
        let [group] = file.groups.as_slice() else {
            panic!("{file:?}")
        };
        assert_eq!(group.line, 3);
        let listen = &group.layer.get(&keys::LISTEN).unwrap().items;
        assert_eq!(listen[1].text, "b:2");
        assert_eq!(listen[1].source.to_string(), "f.toml:6");
    }

    #[test]
    fn a_lone_group_bracket_and_a_flat_section_are_explained() {
        let (_, problems) = read_text("log = 3\n[group]\nlisten = [\"a:1\"]\n");
        assert_eq!(
            problems,
            [
                "f.toml:2: group: write [[group]], in double brackets",
                "f.toml:1: log: this is a section; write [log]",
            ]
        );
    }
}
