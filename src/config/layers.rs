//! Floor 6. What was given, by key: values that know where they came from, not yet checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::Source;
use crate::config::keys::{Key, Shape};

/// What one place gives: the flags, the environment, the top of the file, one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer(BTreeMap<&'static str, Given>);

/// A key's value as text; a list has any number of items, anything else has one.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) items: Vec<Item>,
    pub(super) source: Source,
}

/// One text and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) source: Source,
}

/// Everything that was given.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    pub(super) flags: Layer,
    pub(super) env: Layer,
    pub(super) file: Option<File>,
}

/// What the file gives.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) path: Arc<Path>,
    /// Others than its owner and group may read the file.
    pub(super) public: bool,
    pub(super) top: Layer,
    /// The `[[group]]` sections.
    pub(super) groups: Vec<Section>,
    /// The `[[listener]]` sections, which are those of the only group.
    pub(super) listeners: Vec<Listener>,
}

/// One `[[group]]`.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) line: usize,
    pub(super) layer: Layer,
    /// Its `[[group.listener]]` sections.
    pub(super) listeners: Vec<Listener>,
}

/// One `[[listener]]` or `[[group.listener]]`.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) source: Source,
    pub(super) layer: Layer,
}

impl Layer {
    pub(super) fn insert(&mut self, key: &Key, given: Given) {
        self.0.insert(key.path, given);
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Given> {
        self.0.get(key.path)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Given)> {
        self.0.iter().map(|(path, given)| (*path, given))
    }
}

impl Given {
    /// From one text, in which a list has commas.
    pub(super) fn from_text(key: &Key, text: &str, source: Source) -> Self {
        let item = |text: &str| Item {
            text: text.trim().to_owned(),
            source: source.clone(),
        };
        let items = match key.shape {
            Shape::List => text
                .split(',')
                .map(item)
                .filter(|item| !item.text.is_empty())
                .collect(),
            // Blanks belong to a password.
            Shape::Secret => vec![Item {
                text: text.to_owned(),
                source: source.clone(),
            }],
            _ => vec![item(text)],
        };
        Self { items, source }
    }
}
