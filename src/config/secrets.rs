//! Floor 6. Secrets: given in place or in a file of their own, never shown.

use std::path::Path;

use crate::config::Source;
use crate::config::check::{Lookup, Noted, Surroundings};
use crate::config::keys::Key;
use crate::config::layers::Layers;
use crate::config::values;
use crate::types::Secret;

/// A secret, if there is one: by the first key in place, by the second in a file.
pub(super) fn secret(
    lookup: &mut Lookup<'_>,
    (in_place, in_file): (&'static Key, &'static Key),
    surroundings: &Surroundings<'_>,
) -> Result<Option<Secret>, Noted> {
    let given = lookup.maybe(in_place, values::word);
    let path = lookup.maybe(in_file, values::word);
    if matches!((&given, &path), (Ok(Some(_)), Ok(Some(_)))) {
        let (one, other) = (in_place.path, in_file.path);
        lookup.wrong(
            in_file,
            format!("{one} is given too; give {one} or {other}"),
        );
        return Err(Noted);
    }
    let from_file = match &path {
        Ok(Some(path)) => Some(read(lookup, in_file, surroundings, Path::new(path))?),
        _ => None,
    };
    let secret = given?.or(from_file);
    path?;
    Ok(secret.map(|text| Secret::new(&text)))
}

fn read(
    lookup: &mut Lookup<'_>,
    key: &'static Key,
    surroundings: &Surroundings<'_>,
    path: &Path,
) -> Result<String, Noted> {
    match (surroundings.read)(path) {
        Ok(file) => {
            if file.public {
                let problem = "every user of this machine may read the file; chmod o-r it";
                lookup.warn(key, problem.to_owned());
            }
            let text = file.text.trim_end_matches(['\r', '\n']);
            if text.is_empty() {
                lookup.wrong(key, "the file is empty".to_owned());
                return Err(Noted);
            }
            Ok(text.to_owned())
        }
        Err(error) => {
            lookup.wrong(key, format!("cannot read {}: {error}", path.display()));
            Err(Noted)
        }
    }
}

/// Warns where one of `secrets` stands in a configuration file that everybody may read.
pub(super) fn warn_of_public(layers: &Layers, lookup: &mut Lookup<'_>, secrets: &[&'static Key]) {
    if !layers.file.as_ref().is_some_and(|file| file.public) {
        return;
    }
    for key in secrets {
        if matches!(lookup.source(key), Source::File { .. }) {
            let problem = "every user of this machine may read it here; chmod o-r the file";
            lookup.warn(key, problem.to_owned());
        }
    }
}
