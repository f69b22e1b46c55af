//! Taxonomies and their terms, with AtoM's ids where programs rely on them.

use super::Script;
use crate::text::LANGUAGES;
use std::io::{self, Write};

pub(super) const TAXONOMIES: [(i64, &str); 20] = [
    (30, "Root"),
    (31, "Levels of detail"),
    (32, "Actor entity types"),
    (33, "Description statuses"),
    (34, "Levels of description"),
    (35, "Subjects"),
    (36, "Actor name types"),
    (37, "Note types"),
    (40, "Event types"),
    (42, "Places"),
    (43, "Collection types"),
    (46, "Media types"),
    (47, "Digital object usages"),
    (55, "Relation types"),
    (57, "Physical object types"),
    (59, "Status types"),
    (60, "Publication statuses"),
    (67, "Copyright statuses"),
    (68, "Rights bases"),
    (70, "Display standards"),
];

/// Id, taxonomy, English name.
const TERMS: [(i64, i64, &str); 77] = [
    (110, 30, "Root"),
    (111, 40, "Creation"),
    (113, 40, "Custody"),
    (114, 40, "Publication"),
    (115, 40, "Contribution"),
    (117, 40, "Collection"),
    (118, 40, "Accumulation"),
    (119, 37, "Title note"),
    (120, 37, "Publication note"),
    (121, 37, "Source note"),
    (122, 37, "Scope note"),
    (123, 37, "Display note"),
    (124, 37, "Archivist's note"),
    (125, 37, "General note"),
    (127, 37, "Maintenance note"),
    (128, 43, "Archival material"),
    (131, 32, "Corporate body"),
    (132, 32, "Person"),
    (133, 32, "Family"),
    (135, 46, "Audio"),
    (136, 46, "Image"),
    (137, 46, "Text"),
    (138, 46, "Video"),
    (140, 47, "Master"),
    (141, 47, "Reference"),
    (142, 47, "Thumbnail"),
    (143, 47, "Compound"),
    (147, 55, "Has physical object"),
    (148, 36, "Parallel form of name"),
    (149, 36, "Other form of name"),
    (150, 55, "Hierarchical relationship"),
    (151, 55, "Temporal relationship"),
    (152, 55, "Family relationship"),
    (153, 55, "Associative relationship"),
    (158, 59, "Publication"),
    (159, 60, "Draft"),
    (160, 60, "Published"),
    (161, 55, "Name access point"),
    (166, 47, "External URI"),
    (167, 55, "Accession"),
    (168, 55, "Right"),
    (169, 55, "Donor"),
    (174, 37, "Language note"),
    (175, 55, "Accrual"),
    (176, 55, "Related material descriptions"),
    (178, 55, "AIP relation"),
    (220, 34, "Fonds"),
    (221, 34, "Subfonds"),
    (222, 34, "Series"),
    (223, 34, "Subseries"),
    (224, 34, "File"),
    (225, 34, "Item"),
    (226, 34, "Part"),
    (230, 33, "Final"),
    (231, 33, "Revised"),
    (232, 33, "Draft"),
    (235, 31, "Full"),
    (236, 31, "Partial"),
    (237, 31, "Minimal"),
    (240, 57, "Cardboard box"),
    (241, 57, "Hollinger box"),
    (242, 57, "Map cabinet"),
    (243, 57, "Shelf"),
    (250, 67, "Under copyright"),
    (251, 67, "Public domain"),
    (252, 67, "Unknown"),
    (255, 68, "Copyright"),
    (256, 68, "License"),
    (257, 68, "Donor"),
    (260, 70, "ISAD(G), 2nd edition"),
    (261, 70, "Dublin Core 1.1"),
    (262, 70, "MODS 3.3"),
    (263, 70, "RAD, July 2008"),
    (264, 70, "DACS, 2nd edition"),
    (270, 30, "Disseminate"),
    (271, 30, "Replicate"),
    (272, 30, "Delete"),
];

/// Level of description by depth in the tree.
pub(super) fn level(depth: u8) -> i64 {
    219 + i64::from(depth)
}

/// Subjects; generated, in every language.
pub(super) const SUBJECTS: std::ops::Range<i64> = 300..420;
/// Places; those of the languages.
pub(super) const PLACES: std::ops::Range<i64> = 420..480;

/// Ids and classes of all of these.
pub(super) fn objects() -> impl Iterator<Item = (i64, &'static str)> {
    let taxonomies = TAXONOMIES.iter().map(|t| (t.0, "QubitTaxonomy"));
    let terms = TERMS.iter().map(|t| t.0).chain(SUBJECTS).chain(PLACES).map(|id| (id, "QubitTerm"));
    taxonomies.chain(terms)
}

impl<W: Write> Script<'_, W> {
    pub(super) fn taxonomies_and_terms(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("taxonomy", &["id", "usage", "parent_id", "source_culture"])?;
        for (id, _) in TAXONOMIES {
            rows.row()?.int(id).null().opt_int((id != 30).then_some(30)).text("en").end();
        }
        rows.end()?;
        let mut rows = self.rows("taxonomy_i18n", &["name", "note", "id", "culture"])?;
        for (id, name) in TAXONOMIES {
            rows.row()?.text(name).null().int(id).text("en").end();
        }
        rows.end()?;

        let mut rows = self.rows("term", &["id", "taxonomy_id", "code", "parent_id", "source_culture"])?;
        for (id, taxonomy, _) in TERMS {
            rows.row()?.int(id).int(taxonomy).null().opt_int((id != 110).then_some(110)).text("en").end();
        }
        for id in SUBJECTS {
            // A few broader terms, and narrower ones below them.
            let parent = if id % 10 == 0 { 110 } else { id - id % 10 };
            rows.row()?.int(id).int(35).text(&format!("S{:02}.{}", id / 10, id % 10)).int(parent).text("en").end();
        }
        for id in PLACES {
            rows.row()?.int(id).int(42).null().int(110).text("en").end();
        }
        rows.end()?;
        let mut rows = self.rows("term_i18n", &["name", "id", "culture"])?;
        for (id, _, name) in TERMS {
            rows.row()?.text(name).int(id).text("en").end();
        }
        for id in SUBJECTS {
            for language in &LANGUAGES {
                let name = language.title(&mut model.rng("subject", id));
                rows.row()?.text(&name).int(id).text(language.code).end();
            }
        }
        for id in PLACES {
            let language = &LANGUAGES[id as usize % LANGUAGES.len()];
            rows.row()?.text(language.place(&mut model.rng("place", id))).int(id).text("en").end();
        }
        rows.end()
    }
}
