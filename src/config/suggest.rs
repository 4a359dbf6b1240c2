//! Floor 6. The name that somebody probably meant.

/// The one of `known` that is nearest to `wrong`, if it is near enough to be meant.
pub(super) fn nearest<'k>(wrong: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let wrong = wrong.replace('_', "-").to_lowercase();
    let limit = (wrong.len() / 3).max(1);
    known
        .map(|known| {
            (
                distance(&wrong, &known.replace('_', "-").to_lowercase()),
                known,
            )
        })
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known)
}

/// Insertions, deletions and replacements from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, letter) in from.chars().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (from, to, want) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), want, "{from} {to}");
        }
    }

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let known = ["connect-timeout", "reply-timeout", "max-leased"];
        let check = |wrong, want| assert_eq!(nearest(wrong, known.into_iter()), want, "{wrong}");
        check("connect_timeout", Some("connect-timeout"));
        check("connect-timout", Some("connect-timeout"));
        check("max-lease", Some("max-leased"));
        check("colour", None);
        check("x", None);
    }
}
