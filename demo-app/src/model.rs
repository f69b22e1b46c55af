//! Which records there are and how they hang together, before any text is written.
//!
//! Everything here is a few dozen bytes per description, so that the writer can go through the descriptions once per
//! table, in whatever order a table wants, with the same result.

use crate::{
    files::SAMPLES,
    rng::Rng,
    text::{LANGUAGES, Language},
};
use std::ops::Range;

/// Root of the description tree, with this `object` id as in AtoM.
pub(crate) const ROOT_DESCRIPTION: i64 = 1;
/// Root of the actors.
pub(crate) const ROOT_ACTOR: i64 = 3;
/// `object` ids of users; the first is the administrator.
pub(crate) const USERS: Range<i64> = 900..903;
/// `object` ids of repositories, which are actors too.
pub(crate) const REPOSITORIES: Range<i64> = 1000..1012;
const FIRST_ACTOR: i64 = 1012;
/// Depth of the deepest description; the root has 0.
const MAX_DEPTH: u8 = 6;

/// One archival description and how many records belong to it.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    /// `object` id; the ids of what belongs to it follow, in the order of the methods below.
    pub(crate) id: i64,
    /// Place in the tree walked depth first; the root is 0.
    pub(crate) index: usize,
    /// Index of its parent.
    pub(crate) parent: usize,
    pub(crate) depth: u8,
    /// Place among its parent's children.
    pub(crate) sibling: u32,
    /// Descriptions in its subtree, itself included.
    pub(crate) size: usize,
    pub(crate) repository: Option<i64>,
    pub(crate) published: bool,
    language: u8,
    second: Option<u8>,
    events: u8,
    terms: u8,
    names: u8,
    boxed: bool,
    rights: bool,
    digital: bool,
    /// Number of the sample file that its digital object has in the tree.
    pub(crate) sample: Option<usize>,
}

impl Description {
    pub(crate) fn status(&self) -> i64 {
        self.id + 1
    }

    pub(crate) fn events(&self) -> Range<i64> {
        let start = self.status() + 1;
        start..start + i64::from(self.events)
    }

    /// Its object_term_relation rows.
    pub(crate) fn terms(&self) -> Range<i64> {
        let start = self.events().end;
        start..start + i64::from(self.terms)
    }

    /// Its relation rows to actors.
    pub(crate) fn names(&self) -> Range<i64> {
        let start = self.terms().end;
        start..start + i64::from(self.names)
    }

    /// Its relation row to a physical object, if any.
    pub(crate) fn container(&self) -> Option<i64> {
        self.boxed.then_some(self.names().end)
    }

    /// Its rights row and the relation row to it, if any.
    pub(crate) fn rights(&self) -> Option<(i64, i64)> {
        let start = self.names().end + i64::from(self.boxed);
        self.rights.then_some((start, start + 1))
    }

    /// Its digital objects, if any: master, reference, thumbnail.
    pub(crate) fn digital(&self) -> Range<i64> {
        let start = self.names().end + i64::from(self.boxed) + 2 * i64::from(self.rights);
        start..start + 3 * i64::from(self.digital)
    }

    fn end(&self) -> i64 {
        self.digital().end
    }

    /// The language that it was written in.
    pub(crate) fn language(&self) -> &'static Language {
        &LANGUAGES[usize::from(self.language)]
    }

    /// All languages that it is in.
    pub(crate) fn languages(&self) -> impl Iterator<Item = &'static Language> {
        std::iter::once(self.language).chain(self.second).map(|l| &LANGUAGES[usize::from(l)])
    }

    pub(crate) fn left(&self) -> i64 {
        // Walking depth first, each earlier description has opened; all but its ancestors have closed.
        2 * self.index as i64 - i64::from(self.depth) + 1
    }

    pub(crate) fn right(&self) -> i64 {
        self.left() + 2 * self.size as i64 - 1
    }
}

/// The whole application's records.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) seed: u64,
    /// The tree, depth first; its root comes first.
    pub(crate) descriptions: Vec<Description>,
    pub(crate) actors: Range<i64>,
    pub(crate) containers: Range<i64>,
}

impl Model {
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let actors = FIRST_ACTOR..FIRST_ACTOR + 20 + count as i64 / 8;
        let containers = actors.end..actors.end + 5 + count as i64 / 40;
        let mut next_id = containers.end;
        let mut rng = Rng::new(seed, "model", 0);
        let root = Description {
            id: ROOT_DESCRIPTION,
            index: 0,
            parent: 0,
            depth: 0,
            sibling: 0,
            size: 1,
            repository: None,
            published: true,
            language: 0,
            second: None,
            events: 0,
            terms: 0,
            names: 0,
            boxed: false,
            rights: false,
            digital: false,
            sample: None,
        };
        let mut descriptions = Vec::with_capacity(count + 1);
        descriptions.push(root);
        // The last description at each depth, and how many children it has so far.
        let mut open = [(0, 0); MAX_DEPTH as usize + 1];
        let mut depth = 0;
        let mut samples = 0..SAMPLES;
        for index in 1..=count {
            depth = next_depth(depth, &mut rng);
            let (parent, children) = &mut open[usize::from(depth) - 1];
            let above: &Description = &descriptions[*parent];
            let language = if rng.chance(75) && depth > 1 { above.language } else { usual_language(&mut rng) };
            let other = usual_language(&mut rng);
            let digital = rng.chance(40);
            let description = Description {
                id: next_id,
                index,
                parent: *parent,
                depth,
                sibling: *children,
                size: 1,
                repository: (depth == 1 && rng.chance(95)).then(|| rng.between(REPOSITORIES.start, REPOSITORIES.end - 1)),
                published: rng.chance(80),
                language,
                second: (rng.chance(30) && other != language).then_some(other),
                events: rng.below(3) as u8,
                terms: rng.below(4) as u8,
                names: rng.below(3) as u8,
                boxed: rng.chance(35),
                rights: rng.chance(3),
                digital,
                sample: if digital { samples.next() } else { None },
            };
            *children += 1;
            open[usize::from(depth)] = (index, 0);
            next_id = description.end();
            descriptions.push(description);
        }
        for index in (1..=count).rev() {
            let (size, parent) = (descriptions[index].size, descriptions[index].parent);
            descriptions[parent].size += size;
        }
        Self { seed, descriptions, actors, containers }
    }

    /// All descriptions but the root, which has no content.
    pub(crate) fn real(&self) -> &[Description] {
        &self.descriptions[1..]
    }

    pub(crate) fn parent(&self, of: &Description) -> &Description {
        &self.descriptions[of.parent]
    }

    /// The description itself, then its ancestors up to the root.
    pub(crate) fn path(&self, of: &Description) -> impl Iterator<Item = &Description> {
        std::iter::successors(Some(&self.descriptions[of.index]), |d| (d.index != 0).then(|| self.parent(d)))
    }

    pub(crate) fn rng(&self, purpose: &str, index: i64) -> Rng {
        Rng::new(self.seed, purpose, index as u64)
    }
}

/// A fonds now and then, mostly another sibling, sometimes deeper or back up.
fn next_depth(depth: u8, rng: &mut Rng) -> u8 {
    if depth == 0 {
        return 1;
    }
    match rng.below(100) {
        0..50 => depth,
        50..77 if depth < MAX_DEPTH => depth + 1,
        _ => rng.between(1, i64::from(depth)) as u8,
    }
}

/// Half in the application's own language, the others in proportion.
fn usual_language(rng: &mut Rng) -> u8 {
    if rng.chance(50) { 0 } else { rng.below(LANGUAGES.len()) as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nested_set_is_one() {
        let model = Model::new(7, 500);
        let mut numbers: Vec<i64> = model.descriptions.iter().flat_map(|d| [d.left(), d.right()]).collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(1..=1002));
        for child in model.real() {
            let parent = model.parent(child);
            assert!(parent.left() < child.left() && child.right() < parent.right());
            assert_eq!(parent.depth + 1, child.depth);
        }
    }

    #[test]
    fn ids_do_not_overlap() {
        let model = Model::new(7, 300);
        for pair in model.real().windows(2) {
            assert_eq!(pair[0].end(), pair[1].id);
        }
        assert_eq!(model.real()[0].id, model.containers.end);
        assert_eq!(model.real().iter().filter(|d| d.sample.is_some()).count(), SAMPLES);
    }
}
