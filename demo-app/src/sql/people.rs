//! Actors, repositories, users and groups.

use super::{Script, created, datetime};
use crate::{
    ADMIN_PASSWORD, EDITOR_PASSWORD,
    model::{Model, REPOSITORIES, ROOT_ACTOR, USERS},
    text::LANGUAGES,
};
use sha1::{Digest, Sha1};
use std::io::{self, Write};

const GROUPS: [(i64, &str, Option<i64>); 7] = [
    (1, "root", None),
    (98, "anonymous", Some(1)),
    (99, "authenticated", Some(1)),
    (100, "administrator", Some(99)),
    (101, "editor", Some(99)),
    (102, "contributor", Some(99)),
    (103, "translator", Some(99)),
];

/// User name, mail address, password, group. The last one may not sign in.
const ACCOUNTS: [(&str, &str, &str, i64); 3] = [
    ("admin", "admin@example.org", ADMIN_PASSWORD, 100),
    ("editor", "editor@example.org", EDITOR_PASSWORD, 101),
    ("former.editor", "former@example.org", EDITOR_PASSWORD, 101),
];

/// Ids and classes of all of these.
pub(super) fn objects(model: &Model) -> impl Iterator<Item = (i64, &'static str)> {
    let users = USERS.map(|id| (id, "QubitUser"));
    let repositories = REPOSITORIES.map(|id| (id, "QubitRepository"));
    let actors = model.actors.clone().map(|id| (id, "QubitActor"));
    users.chain(repositories).chain(actors)
}

/// Heratio's scheme: bcrypt over the hexadecimal SHA-1 of salt and password, with PHP's prefix.
pub(super) fn password_hash(salt: &str, password: &str) -> String {
    let mut bcrypt_salt = [0; 16];
    bcrypt_salt.copy_from_slice(&Sha1::digest(salt.as_bytes())[..16]);
    let inner = hex::encode(Sha1::digest(format!("{salt}{password}")));
    let parts = bcrypt::hash_with_salt(inner, 10, bcrypt_salt);
    parts.map(|p| p.format_for_version(bcrypt::Version::TwoY)).unwrap_or_default()
}

impl<W: Write> Script<'_, W> {
    pub(super) fn people(&mut self) -> io::Result<()> {
        self.actors()?;
        self.repositories()?;
        self.accounts()
    }

    fn actors(&mut self) -> io::Result<()> {
        let model = self.model;
        let columns = ["id", "corporate_body_identifiers", "entity_type_id", "description_identifier", "parent_id", "source_culture"];
        let mut rows = self.rows("actor", &columns)?;
        rows.row()?.int(ROOT_ACTOR).null().null().null().null().text("en").end();
        for (id, class) in objects(model) {
            let mut rng = model.rng("actor", id);
            let kind = if class == "QubitActor" { rng.between(131, 133) } else { 131 };
            let identifier = format!("{}-{:05}", rng.pick(&["VIAF", "SA", "ISNI"]), rng.below(100_000));
            let culture = LANGUAGES[id as usize % LANGUAGES.len()].code;
            rows.row()?.int(id).null().int(kind).text(&identifier).int(ROOT_ACTOR).text(culture).end();
        }
        rows.end()?;

        let mut rows = self.rows("actor_i18n", &["authorized_form_of_name", "dates_of_existence", "history", "places", "id", "culture"])?;
        for (id, class) in objects(model) {
            let mut rng = model.rng("actor_i18n", id);
            let language = &LANGUAGES[id as usize % LANGUAGES.len()];
            let name = if class == "QubitRepository" { language.body(&mut rng) } else { language.person(&mut rng) };
            let born = rng.between(1700, 1960);
            let dates = format!("{born}–{}", born + rng.between(20, 99));
            let history = language.prose(&mut rng, true);
            rows.row()?.text(&name).text(&dates).text(&history).text(language.place(&mut rng)).int(id).text(language.code).end();
        }
        rows.end()?;

        let mut rows = self.rows("other_name", &["object_id", "type_id", "start_date", "end_date", "source_culture", "id"])?;
        let named = || model.actors.clone().filter(|id| id % 5 == 0);
        for (number, id) in (1..).zip(named()) {
            rows.row()?.int(id).int(148 + id / 5 % 2).text("1901-05-00").null().text("en").int(number).end();
        }
        rows.end()?;
        let mut rows = self.rows("other_name_i18n", &["name", "note", "dates", "id", "culture"])?;
        for (number, id) in (1..).zip(named()) {
            let mut rng = model.rng("other_name", id);
            let language = &LANGUAGES[rng.below(LANGUAGES.len())];
            rows.row()?.text(&language.person(&mut rng)).null().null().int(number).text(language.code).end();
        }
        rows.end()
    }

    fn repositories(&mut self) -> io::Result<()> {
        let model = self.model;
        let columns = ["id", "identifier", "desc_status_id", "upload_limit", "latitude", "longitude", "source_culture"];
        let mut rows = self.rows("repository", &columns)?;
        for id in REPOSITORIES {
            let mut rng = model.rng("repository", id);
            let limit = if id % 3 == 0 { "-1".to_owned() } else { format!("{}.25", rng.below(100)) };
            let (latitude, longitude) = (rng.between(-90_000_000, 90_000_000), rng.between(-180_000_000, 180_000_000));
            let degrees =
                |micro: i64| format!("{}{}.{:06}", if micro < 0 { "-" } else { "" }, micro.abs() / 1_000_000, micro.abs() % 1_000_000);
            let row = rows.row()?.int(id).text(&format!("ZA-{id}")).int(230);
            row.raw(&limit).raw(&degrees(latitude)).raw(&degrees(longitude)).text("en").end();
        }
        rows.end()?;
        let mut rows = self.rows("repository_i18n", &["geocultural_context", "opening_times", "id", "culture"])?;
        for id in REPOSITORIES {
            let context = LANGUAGES[0].prose(&mut model.rng("repository_i18n", id), false);
            rows.row()?.text(&context).text("Mon–Fri 8:30 – 16:30;\n«sur rendez-vous»").int(id).text("en").end();
        }
        rows.end()
    }

    fn accounts(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("user", &["id", "username", "email", "password_hash", "salt", "active"])?;
        for (id, (name, mail, password, _)) in USERS.zip(ACCOUNTS) {
            let salt = hex::encode(model.rng("salt", id).bytes(16));
            let row = rows.row()?.int(id).text(name).text(mail).text(&password_hash(&salt, password)).text(&salt);
            row.int(i64::from(name != "former.editor")).end();
        }
        rows.end()?;
        let mut rows = self.rows("acl_group", &["id", "parent_id", "source_culture", "created_at", "updated_at"])?;
        for (id, _, parent) in GROUPS {
            let when = datetime(created(model, id));
            rows.row()?.int(id).opt_int(parent).text("en").text(&when).text(&when).end();
        }
        rows.end()?;
        let mut rows = self.rows("acl_group_i18n", &["name", "description", "id", "culture"])?;
        for (id, name, _) in GROUPS {
            rows.row()?.text(name).null().int(id).text("en").end();
        }
        rows.end()?;
        let mut rows = self.rows("acl_user_group", &["id", "user_id", "group_id"])?;
        for (number, (user, (_, _, _, group))) in (1..).zip(USERS.zip(ACCOUNTS)) {
            rows.row()?.int(number).int(user).int(group).end();
        }
        rows.end()?;
        let mut rows =
            self.rows("acl_permission", &["user_id", "group_id", "object_id", "action", "grant_deny", "conditional", "created_at"])?;
        for (number, action) in (0..).zip(["read", "create", "update", "translate", "publish", "delete"]) {
            let when = datetime(created(model, number));
            rows.row()?
                .null()
                .int(98 + number)
                .int(1)
                .text(action)
                .int(i64::from(number < 4))
                .text("%p[language] IN (%k[languages])")
                .text(&when)
                .end();
        }
        for description in model.real().iter().step_by(97).take(20) {
            rows.row()?.int(USERS.start + 1).null().int(description.id).text("update").int(1).null().text("2020-02-29 12:00:00").end();
        }
        rows.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_verify_as_heratio_does() {
        let hash = password_hash("0123456789abcdef", "secret");
        assert!(hash.starts_with("$2y$10$"));
        let inner = hex::encode(Sha1::digest("0123456789abcdefsecret"));
        assert!(bcrypt::verify(inner, &hash).unwrap());
    }
}
