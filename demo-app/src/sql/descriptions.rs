//! Descriptions and all that belongs to them; and the `object` rows of everything.

use super::{Script, created, datetime, people, terms};
use crate::{
    files,
    model::{Description, Model, ROOT_ACTOR, ROOT_DESCRIPTION, USERS},
    text::{LANGUAGES, TRICKY},
};
use std::io::{self, Write};

const ACCESS: [&str; 4] = [
    "Open for research.",
    "Access restricted; written permission of the donor is required, see the reading room's rules (§ 4).",
    "Toegang slegs op afspraak.",
    "Communicable sous réserve du règlement de la salle de lecture.",
];

/// Every `object` row but the descriptions': id and class.
fn other_objects(model: &Model) -> impl Iterator<Item = (i64, &'static str)> {
    let roots = [(ROOT_DESCRIPTION, "QubitInformationObject"), (ROOT_ACTOR, "QubitActor")];
    let containers = model.containers.clone().map(|id| (id, "QubitPhysicalObject"));
    roots.into_iter().chain(terms::objects()).chain(people::objects(model)).chain(containers)
}

/// The `object` rows of one description, in the order of their ids.
fn own_objects(description: &Description) -> impl Iterator<Item = (i64, &'static str)> {
    let (rights, right) = description.rights().unzip();
    std::iter::once((description.id, "QubitInformationObject"))
        .chain([(description.status(), "QubitStatus")])
        .chain(description.events().map(|id| (id, "QubitEvent")))
        .chain(description.terms().map(|id| (id, "QubitObjectTermRelation")))
        .chain(description.names().map(|id| (id, "QubitRelation")))
        .chain(description.container().map(|id| (id, "QubitRelation")))
        .chain(rights.map(|id| (id, "QubitRights")))
        .chain(right.map(|id| (id, "QubitRelation")))
        .chain(description.digital().map(|id| (id, "QubitDigitalObject")))
}

impl<W: Write> Script<'_, W> {
    pub(super) fn objects(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("object", &["id", "class_name", "created_at", "updated_at", "serial_number"])?;
        for (id, class) in other_objects(model).chain(model.real().iter().flat_map(own_objects)) {
            let at = created(model, id);
            let edits = id % 4;
            rows.row()?.int(id).text(class).text(&datetime(at)).text(&datetime(at + edits * 86_400)).int(edits).end();
        }
        rows.end()
    }

    pub(super) fn descriptions(&mut self) -> io::Result<()> {
        self.containers()?;
        self.information_objects()?;
        self.hierarchy()?;
        self.slugs_and_statuses()?;
        self.notes_and_properties()?;
        self.events()?;
        self.relations()?;
        self.rights()?;
        self.digital_objects()?;
        self.museum()
    }

    fn containers(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("physical_object", &["id", "type_id", "parent_id", "source_culture"])?;
        for id in model.containers.clone() {
            rows.row()?.int(id).int(240 + id % 4).null().text("en").end();
        }
        rows.end()?;
        let mut rows = self.rows("physical_object_i18n", &["name", "description", "location", "id", "culture"])?;
        for id in model.containers.clone() {
            let mut rng = model.rng("container", id);
            let name = format!("Box {}.{}", rng.below(999), rng.below(99));
            let location = format!("Strongroom {} / bay {} / \"shelf\" {}", rng.below(9), rng.below(40), rng.below(7));
            rows.row()?.text(&name).null().text(&location).int(id).text("en").end();
        }
        rows.end()?;
        let columns = ["physical_object_id", "barcode", "total_capacity", "used_capacity", "flags", "climate", "status", "notes"];
        let mut rows = self.rows("physical_object_extended", &columns)?;
        for id in model.containers.clone() {
            let mut rng = model.rng("container_extended", id);
            let row = rows.row()?.int(id).text(&format!("6{:012}", rng.below(1_000_000_000_000)));
            let row = row.int(rng.between(5, 40)).int(rng.between(0, 45)).raw(&format!("b'{:08b}'", rng.below(256)));
            let row =
                row.text(rng.pick(&["dry", "dry,cool", "dry,cool,dark,sealed", ""])).text(rng.pick(&["active", "full", "maintenance"]));
            row.opt_text(rng.chance(20).then_some("handle with care:\tmould")).end();
        }
        rows.end()
    }

    fn information_objects(&mut self) -> io::Result<()> {
        let model = self.model;
        let columns = [
            "id",
            "identifier",
            "oai_local_identifier",
            "level_of_description_id",
            "collection_type_id",
            "repository_id",
            "parent_id",
            "description_status_id",
            "description_detail_id",
            "description_identifier",
            "source_standard",
            "display_standard_id",
            "lft",
            "rgt",
            "source_culture",
        ];
        let mut rows = self.rows("information_object", &columns)?;
        let root = &model.descriptions[0];
        let row = rows.row()?.int(root.id).null().int(100_000).null().null().null().null().null().null().null().null().null();
        row.int(root.left()).int(root.right()).text("en").end();
        for d in model.real() {
            let mut rng = model.rng("description", d.id);
            let identifier = format!("{}{}", ["F", "SF", "S", "SS", "D", "I"][usize::from(d.depth) - 1], d.sibling + 1);
            let row = rows.row()?.int(d.id).text(&identifier).int(100_000 + d.index as i64).int(terms::level(d.depth));
            let row = row.opt_int((d.depth == 1).then_some(128)).opt_int(d.repository).int(model.parent(d).id).int(rng.between(230, 232));
            let row = row.int(rng.between(235, 237)).null().opt_text(rng.chance(60).then_some("ISAD(G), 2nd edition"));
            row.opt_int(rng.chance(10).then_some(260)).int(d.left()).int(d.right()).text(d.language().code).end();
        }
        rows.end()?;

        let columns = [
            "title",
            "alternate_title",
            "extent_and_medium",
            "archival_history",
            "acquisition",
            "scope_and_content",
            "arrangement",
            "access_conditions",
            "physical_characteristics",
            "finding_aids",
            "revision_history",
            "id",
            "culture",
        ];
        let mut rows = self.rows("information_object_i18n", &columns)?;
        for d in model.real() {
            for (number, language) in d.languages().enumerate() {
                let mut rng = model.rng("description_i18n", 2 * d.id + number as i64);
                let mut prose = |percent: usize, long: bool| rng.chance(percent).then(|| language.prose(&mut rng, long));
                let (history, acquisition, scope, arrangement) = (prose(25, true), prose(15, false), prose(85, true), prose(20, false));
                let (condition, aids) = (prose(10, false), prose(5, false));
                let row = rows.row()?.text(&language.title(&mut rng)).opt_text(rng.chance(5).then(|| language.title(&mut rng)).as_deref());
                let extent = format!("{},{} m; {} photographs", rng.below(90), rng.below(9), rng.below(900));
                let row = row.opt_text(rng.chance(60).then_some(&extent)).opt_text(history.as_deref()).opt_text(acquisition.as_deref());
                let row = row.opt_text(scope.as_deref()).opt_text(arrangement.as_deref());
                let row = row.opt_text(rng.chance(40).then(|| rng.pick(&ACCESS))).opt_text(condition.as_deref()).opt_text(aids.as_deref());
                let revised = format!("{}: {}", &datetime(created(model, d.id))[..10], language.person(&mut rng));
                row.opt_text(rng.chance(50).then_some(&revised)).int(d.id).text(language.code).end();
            }
        }
        rows.end()
    }

    fn hierarchy(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("information_object_closure", &["ancestor", "descendant", "depth"])?;
        for d in &model.descriptions {
            for (depth, ancestor) in (0..).zip(model.path(d)) {
                rows.row()?.int(ancestor.id).int(d.id).int(depth).end();
            }
        }
        rows.end()?;
        let mut rows = self.rows("ahg_node_sibling_order", &["entity", "node_id", "parent_id", "sibling_order"])?;
        for d in model.real() {
            rows.row()?.text("information_object").int(d.id).int(model.parent(d).id).int(d.sibling).end();
        }
        rows.end()
    }

    fn slugs_and_statuses(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("slug", &["object_id", "slug", "serial_number"])?;
        for (id, class) in people::objects(model).filter(|o| o.1 != "QubitUser") {
            let word = if class == "QubitRepository" { "repository" } else { "actor" };
            rows.row()?.int(id).text(&format!("{word}-{id}")).int(0).end();
        }
        for d in model.real() {
            let mut rng = model.rng("slug", d.id);
            let words = [rng.pick(&["letters", "papers", "map", "journal", "album"]), rng.pick(&["of", "from", "by", "to"])];
            rows.row()?.int(d.id).text(&format!("{}-{}-{:x}-{}", words[0], words[1], rng.below(65536), d.index)).int(0).end();
        }
        rows.end()?;
        let mut rows = self.rows("status", &["object_id", "type_id", "status_id", "id", "serial_number"])?;
        for d in model.real() {
            rows.row()?.int(d.id).int(158).int(if d.published { 160 } else { 159 }).int(d.status()).int(0).end();
        }
        rows.end()
    }

    fn notes_and_properties(&mut self) -> io::Result<()> {
        let model = self.model;
        // Its notes, each with the place of its text in TRICKY, if it is one of those.
        let notes = |d: &Description| {
            let mut rng = model.rng("notes", d.id);
            let count = rng.below(3) + usize::from(d.index <= TRICKY.len());
            let first_tricky = (d.index <= TRICKY.len()).then_some(d.index - 1);
            (0..count).map(move |n| if n == 0 { first_tricky.or_else(|| rng.chance(1).then(|| rng.below(TRICKY.len()))) } else { None })
        };
        let mut rows = self.rows("note", &["object_id", "type_id", "scope", "user_id", "source_culture", "id"])?;
        let mut id = 0;
        for d in model.real() {
            for _ in notes(d) {
                id += 1;
                let types = [121, 122, 124, 125, 127, 174];
                rows.row()?
                    .int(d.id)
                    .int(types[id as usize % types.len()])
                    .null()
                    .int(USERS.start + id % 2)
                    .text(d.language().code)
                    .int(id)
                    .end();
            }
        }
        rows.end()?;
        let mut rows = self.rows("note_i18n", &["content", "id", "culture"])?;
        let mut id = 0;
        for d in model.real() {
            for tricky in notes(d) {
                id += 1;
                let text = tricky.map_or_else(|| d.language().prose(&mut model.rng("note", id), false), |t| TRICKY[t].to_owned());
                rows.row()?.text(&text).int(id).text(d.language().code).end();
            }
        }
        rows.end()?;

        const NAMES: [&str; 3] = ["language", "script", "languageOfDescription"];
        let count = |d: &Description| 1 + model.rng("properties", d.id).below(NAMES.len());
        let mut rows = self.rows("property", &["object_id", "scope", "name", "source_culture", "id"])?;
        let mut id = 0;
        for d in model.real() {
            for name in NAMES.iter().take(count(d)) {
                id += 1;
                rows.row()?.int(d.id).null().text(name).text(d.language().code).int(id).end();
            }
        }
        rows.end()?;
        let mut rows = self.rows("property_i18n", &["value", "id", "culture"])?;
        let mut id = 0;
        for d in model.real() {
            for name in NAMES.iter().take(count(d)) {
                id += 1;
                let value = if *name == "script" { "Latn" } else { d.language().code };
                // PHP's serialize(), as AtoM stores lists.
                let value = format!("a:1:{{i:0;s:{}:\"{value}\";}}", value.len());
                rows.row()?.text(&value).int(id).text(d.language().code).end();
            }
        }
        rows.end()
    }

    fn events(&mut self) -> io::Result<()> {
        let model = self.model;
        let columns = ["id", "start_date", "start_time", "end_date", "end_time", "type_id", "object_id", "actor_id", "source_culture"];
        let mut rows = self.rows("event", &columns)?;
        for d in model.real() {
            for id in d.events() {
                let mut rng = model.rng("event", id);
                let year = rng.between(1700, 2010);
                // As precise as the archivist knew.
                let (month, day) = (rng.below(13), if rng.chance(50) { 0 } else { rng.below(29) });
                let start = format!("{year}-{month:02}-{:02}", if month == 0 { 0 } else { day });
                let end = rng.chance(70).then(|| format!("{}-00-00", year + rng.between(0, 12)));
                let time = rng.chance(3).then(|| format!("{:02}:{:02}:00", rng.below(24), rng.below(60)));
                let kind = [111, 111, 111, 113, 114, 115, 117, 118][rng.below(8)];
                let row = rows.row()?.int(id).text(&start).opt_text(time.as_deref()).opt_text(end.as_deref()).null().int(kind).int(d.id);
                row.int(rng.between(model.actors.start, model.actors.end - 1)).text(d.language().code).end();
            }
        }
        rows.end()?;
        let mut rows = self.rows("event_i18n", &["name", "description", "date", "id", "culture"])?;
        for d in model.real() {
            for id in d.events() {
                let mut rng = model.rng("event_i18n", id);
                let year = rng.between(1700, 2010);
                let date = rng.pick(&["ca. ", "", "[", "before ", "около "]).to_owned() + &year.to_string();
                let text = rng.chance(30).then(|| d.language().prose(&mut rng, false));
                rows.row()?.null().opt_text(text.as_deref()).text(&date).int(id).text(d.language().code).end();
            }
        }
        rows.end()
    }

    fn relations(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("object_term_relation", &["id", "object_id", "term_id", "start_date", "end_date"])?;
        for d in model.real() {
            for id in d.terms() {
                let term = model.rng("term", id).between(terms::SUBJECTS.start, terms::PLACES.end - 1);
                rows.row()?.int(id).int(d.id).int(term).null().null().end();
            }
        }
        rows.end()?;
        let mut rows = self.rows("relation", &["id", "subject_id", "object_id", "type_id", "start_date", "end_date", "source_culture"])?;
        for d in model.real() {
            let culture = d.language().code;
            for id in d.names() {
                let actor = model.rng("name", id).between(model.actors.start, model.actors.end - 1);
                rows.row()?.int(id).int(d.id).int(actor).int(161).null().null().text(culture).end();
            }
            if let Some(id) = d.container() {
                let container = model.rng("box", id).between(model.containers.start, model.containers.end - 1);
                rows.row()?.int(id).int(container).int(d.id).int(147).null().null().text(culture).end();
            }
            if let Some((rights, id)) = d.rights() {
                rows.row()?.int(id).int(d.id).int(rights).int(168).null().null().text(culture).end();
            }
        }
        rows.end()?;
        let mut rows = self.rows("relation_i18n", &["description", "date", "id", "culture"])?;
        for d in model.real() {
            for id in d.names().filter(|id| id % 7 == 0) {
                let text = d.language().prose(&mut model.rng("relation_i18n", id), false);
                rows.row()?.text(&text).null().int(id).text(d.language().code).end();
            }
        }
        rows.end()
    }

    fn rights(&mut self) -> io::Result<()> {
        let model = self.model;
        let all = || model.real().iter().filter_map(|d| Some((d, d.rights()?.0)));
        let columns = ["id", "start_date", "end_date", "basis_id", "rights_holder_id", "copyright_status_id", "source_culture"];
        let mut rows = self.rows("rights", &columns)?;
        for (d, id) in all() {
            let mut rng = model.rng("rights", id);
            let row = rows.row()?.int(id).text(&format!("{}-01-01", rng.between(1950, 2020))).null().int(rng.between(255, 257));
            row.int(rng.between(model.actors.start, model.actors.end - 1)).int(rng.between(250, 252)).text(d.language().code).end();
        }
        rows.end()?;
        let mut rows = self.rows("rights_i18n", &["rights_note", "copyright_note", "id", "culture"])?;
        for (d, id) in all() {
            rows.row()?.text(&d.language().prose(&mut model.rng("rights_i18n", id), false)).null().int(id).text(d.language().code).end();
        }
        rows.end()?;
        let mut rows = self.rows("granted_right", &["rights_id", "act_id", "restriction", "notes"])?;
        for (_, id) in all() {
            for act in 270..271 + id % 3 {
                rows.row()?.int(id).int(act).int(id % 2).null().end();
            }
        }
        rows.end()
    }

    fn digital_objects(&mut self) -> io::Result<()> {
        let model = self.model;
        let columns = [
            "id",
            "object_id",
            "usage_id",
            "media_type_id",
            "mime_type",
            "name",
            "path",
            "sequence",
            "byte_size",
            "checksum",
            "checksum_type",
            "parent_id",
        ];
        let mut rows = self.rows("digital_object", &columns)?;
        for d in model.real() {
            let sample = d.sample.map(|n| files::sample(model.seed, n));
            for (nth, id) in d.digital().enumerate() {
                let mut rng = model.rng("digital", id);
                let (name, size, sha256) = match &sample {
                    Some(files) => (files[nth].name.clone(), files[nth].bytes.len() as i64, files[nth].sha256.clone()),
                    None => (format!("scan{:08}.jpg", id), rng.between(1_000, 40_000_000), hex::encode(rng.bytes(32))),
                };
                let master = nth == 0;
                let row = rows.row()?.int(id).opt_int(master.then_some(d.id)).int(140 + nth as i64).int(136).text("image/jpeg").text(&name);
                let row = row.text(&files::directory("demo", &sha256)).null().int(size).text(&sha256).text("sha256");
                row.opt_int((!master).then_some(d.digital().start)).end();
            }
        }
        rows.end()?;

        let masters = || model.real().iter().filter_map(|d| d.digital().next());
        let columns = ["digital_object_id", "exif", "thumbnail", "fingerprint", "duration", "captured_at", "extracted_at"];
        let mut rows = self.rows("digital_object_metadata", &columns)?;
        for id in masters().filter(|id| id % 2 == 0) {
            let mut rng = model.rng("metadata", id);
            let exif = format!(
                r#"{{"Make": "Phase One \"IQ4\"", "ISO": {}, "Lens": null, "GPS": [{}.5, -{}.25], "Artist": "Zoë \\ 陳", "nested": {{"b": true, "a": [1, {{}}]}}}}"#,
                100 << rng.below(6),
                rng.below(90),
                rng.below(180)
            );
            let thumbnail_len = 20 + rng.below(400);
            let thumbnail = rng.chance(30).then(|| files::jpeg_like(&mut rng, thumbnail_len));
            let row = rows.row()?.int(id).text(&exif);
            let row = if let Some(thumbnail) = thumbnail { row.blob(&thumbnail) } else { row.null() };
            let row = row.blob(&rng.bytes(16)).raw(&format!("{}e-3", rng.below(1 << 40)));
            let (captured, extracted) = (datetime(created(model, id) - 9_999_999), datetime(created(model, id)));
            row.text(&format!("{captured}.{:06}", rng.below(1_000_000))).text(&format!("{extracted}.{:03}", rng.below(1000))).end();
        }
        rows.end()?;
        let mut rows = self.rows("preservation_checksum", &["digital_object_id", "algorithm", "digest", "verified_at", "verdict"])?;
        for id in masters() {
            let mut rng = model.rng("checksum", id);
            let verdict = rng.pick(&["valid", "valid", "valid", "", "it's gone", "invalid"]);
            let when = datetime(created(model, id) + 4_000_000);
            let row = rows.row()?.int(id).text(rng.pick(&["md5", "sha256"])).blob(&rng.bytes(32));
            row.opt_text((!verdict.is_empty()).then_some(&when)).text(verdict).end();
        }
        rows.end()
    }

    fn museum(&mut self) -> io::Result<()> {
        let model = self.model;
        let columns = [
            "object_id",
            "accession_code",
            "height_cm",
            "width_cm",
            "depth_cm",
            "insurance_value",
            "year_made",
            "materials",
            "is_on_display",
            "updated_at",
        ];
        let mut rows = self.rows("museum_metadata", &columns)?;
        for d in model.real().iter().filter(|d| d.index % 9 == 0) {
            let mut rng = model.rng("museum", d.id);
            let mut number = |below: usize| format!("{}.{:02}", rng.below(below), rng.below(100));
            let (height, width, depth, value) = (number(900), number(900), number(90), number(9_000_000));
            let row = rows.row()?.int(d.id).text(&format!("Größe-é-{}", rng.below(1_000_000))).raw(&height).raw(&width);
            let row = if rng.chance(10) { row.null() } else { row.raw(&depth) };
            let row = row
                .raw(&value)
                .int(rng.between(1901, 2024))
                .text(&format!(r#"["{}", "lin-en", "\u00e9tain"]"#, LANGUAGES[3].place(&mut rng)));
            row.raw(if rng.chance(30) { "b'1'" } else { "b'0'" }).text(&datetime(created(model, d.id))).end();
        }
        rows.end()?;
        let mut rows = self.rows("ahg_io_security", &["object_id", "classification", "handling", "review_at"])?;
        for d in model.real().iter().filter(|d| d.index % 11 == 0) {
            let mut rng = model.rng("security", d.id);
            let class = rng.pick(&["public", "internal", "confidential", "secret"]);
            rows.row()?.int(d.id).text(class).opt_text(rng.chance(20).then_some("eyes only; \"burn\" after")).text("2031-12-31").end();
        }
        rows.end()
    }
}
