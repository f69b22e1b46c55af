//! Heratio's own tables and Laravel's.

use super::{Script, created, datetime};
use crate::{
    model::USERS,
    text::{LANGUAGES, TRICKY},
};
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// Key, value, type, group.
const SETTINGS: [(&str, &str, &str, &str); 16] = [
    ("backup_path", "", "string", "backup"),
    ("backup_max_backups", "10", "integer", "backup"),
    ("backup_retention_days", "30", "integer", "backup"),
    ("backup_notification_email", "archivist@example.org", "string", "backup"),
    ("backup_notify_workbench_username", "admin", "string", "backup"),
    ("backup_notify_on_success", "true", "boolean", "backup"),
    ("backup_notify_on_failure", "true", "boolean", "backup"),
    ("jobs_enabled", "1", "boolean", "jobs"),
    ("jobs_max_concurrent", "2", "integer", "jobs"),
    ("site_title", "Demo Archive – «Ubuntu» 檔案館 🏛", "string", "general"),
    ("site_description", "A catalogue to practise backups on.\nNothing in it is real; it's \"made up\".", "string", "general"),
    ("default_culture", "en", "string", "i18n"),
    ("enabled_cultures", r#"["en","af","fr","zu","ru","ar","zh"]"#, "json", "i18n"),
    ("oai_enabled", "true", "boolean", "oai"),
    ("upload_quota_gb", "-1", "integer", "uploads"),
    ("smtp_password", "not-a-real-secret", "string", "mail"),
];

const AUDIT_ROWS: i64 = 600;
/// A moment before which the demo's sessions and jobs lie: 2025-06-01.
const LATELY: i64 = 1_748_736_000;
/// After which its cache entries expire: 2037.
const FAR: i64 = 2_114_380_800;

impl<W: Write> Script<'_, W> {
    pub(super) fn application(&mut self) -> io::Result<()> {
        self.settings_and_notifications()?;
        self.audit_log()?;
        self.oddities()?;
        self.laravel()
    }

    fn settings_and_notifications(&mut self) -> io::Result<()> {
        let model = self.model;
        let columns =
            ["setting_key", "setting_value", "setting_type", "setting_group", "is_sensitive", "updated_by", "updated_at", "created_at"];
        let mut rows = self.rows("ahg_settings", &columns)?;
        for (key, value, kind, group) in SETTINGS {
            let row = rows.row()?.text(key).text(value).text(kind).text(group).int(i64::from(key == "smtp_password"));
            row.int(USERS.start).text("2025-05-01 08:00:00").text("2024-01-01 00:00:00").end();
        }
        rows.end()?;
        let columns = ["user_id", "type", "title", "message", "link", "actor_name", "is_read", "created_at", "read_at"];
        let mut rows = self.rows("ahg_notification", &columns)?;
        for n in 0..150 {
            let mut rng = model.rng("notification", n);
            let language = &LANGUAGES[rng.below(LANGUAGES.len())];
            let read = rng.chance(60);
            let when = datetime(LATELY - 3600 * n);
            let row =
                rows.row()?.int(USERS.start + n % 2).text(rng.pick(&["workflow", "system", "comment"])).text(&language.title(&mut rng));
            let row = row
                .text(&language.prose(&mut rng, false))
                .text("/informationobject/browse?page=2&q=a%20b")
                .text(&language.person(&mut rng));
            row.int(i64::from(read)).text(&when).opt_text(read.then_some(&when)).end();
        }
        rows.end()
    }

    fn audit_log(&mut self) -> io::Result<()> {
        let model = self.model;
        let columns = [
            "seq",
            "user_id",
            "username",
            "action",
            "entity_type",
            "entity_id",
            "old_values",
            "new_values",
            "ip_address",
            "created_at",
            "prev_hash",
            "row_hash",
        ];
        let mut rows = self.rows("ahg_audit_log", &columns)?;
        let mut previous = hex::encode([0; 32]);
        for seq in 1..=AUDIT_ROWS {
            let mut rng = model.rng("audit", seq);
            let action = rng.pick(&["login", "update", "publish", "export"]);
            let when = format!("{}.{:06}", datetime(LATELY - 86_400 * AUDIT_ROWS + 86_400 * seq), rng.below(1_000_000));
            let hash = hex::encode(Sha256::digest(format!("{previous}|{seq}|{action}|{when}")));
            let entity = model.descriptions[rng.below(model.descriptions.len())].id;
            let address = if rng.chance(50) { rng.bytes(4) } else { rng.bytes(16) };
            let row = rows.row()?.int(seq).int(USERS.start).text("admin").text(action).text("information_object").int(entity);
            let row = row.null().text(r#"{"title": "它's \"new\"", "level": null}"#).blob(&address).text(&when);
            row.text(&previous).text(&hash).end();
            previous = hash;
        }
        // Entries from before the chain was introduced.
        for id in 0..20 {
            let row = rows.row()?.null().null().text("system").text("import").null().int(id).null().null().blob(&[127, 0, 0, 1]);
            row.text("2016-02-29 23:59:59.999999").null().null().end();
        }
        rows.end()
    }

    fn oddities(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("ahg_import_staging", &["batch", "line", "raw", "checksum"])?;
        for line in 0..200 {
            let mut rng = model.rng("staging", line);
            let language = &LANGUAGES[rng.below(LANGUAGES.len())];
            let raw = format!("\"{}\",\"{}\",{line}\r\n", language.title(&mut rng), language.prose(&mut rng, false));
            // The same file was imported twice.
            for _ in 0..2 {
                rows.row()?
                    .text("5f0c1c1e-7d0a-4b53-9d52-0a6f0a5c2b11")
                    .int(line)
                    .text(&raw)
                    .raw(&format!("{}e-7", rng.below(999_999)))
                    .end();
            }
        }
        rows.row()?.text("").null().null().raw("-1.7976931348623157e308").end();
        rows.end()?;

        let columns = ["Größe (cm)", "order", "back`tick", "名称", "Uhrzeit", "Messwert", "Rohwert", "intern"];
        let mut rows = self.rows("Zugänge (alt) 1987", &columns)?;
        for (n, text) in (0..).zip(TRICKY) {
            let mut rng = model.rng("register", n);
            let row = rows
                .row()?
                .raw(&format!("{}.{:03}", rng.below(9999), rng.below(1000)))
                .raw("DEFAULT")
                .text(&text.chars().take(50).collect::<String>());
            let row = row.text(&LANGUAGES[6].title(&mut rng)).text(&format!("{}:59:59.{:03}", n * 60 - 420, rng.below(1000)));
            row.raw(&format!("{}.5", rng.below(100_000))).raw(&format!("{}e-{}", rng.below(1 << 50), rng.below(200))).int(n).end();
        }
        rows.end()
    }

    fn laravel(&mut self) -> io::Result<()> {
        let model = self.model;
        let mut rows = self.rows("migrations", &["migration", "batch"])?;
        for n in 0..40 {
            rows.row()?.text(&format!("2024_{:02}_{:02}_000000_create_demo_{n}_table", 1 + n % 12, 1 + n % 28)).int(1 + n / 10).end();
        }
        rows.end()?;
        let mut rows = self.rows("jobs", &["queue", "payload", "attempts", "reserved_at", "available_at", "created_at"])?;
        for n in 0..12 {
            let payload = format!(
                r#"{{"uuid":"{}","displayName":"App\\Mail\\Digest","data":{{"command":"O:15:\"App\\Mail\\Digest\":1:{{s:2:\"id\";i:{n};s:8:\"\u0000*\u0000queue\";N;}}"}}}}"#,
                hex::encode(model.rng("job", n).bytes(16))
            );
            rows.row()?.text("default").text(&payload).int(0).null().int(LATELY + n).int(LATELY).end();
        }
        rows.end()?;
        let mut rows = self.rows("sessions", &["id", "user_id", "ip_address", "user_agent", "payload", "last_activity"])?;
        for n in 0..60 {
            let mut rng = model.rng("session", n);
            let id = hex::encode(rng.bytes(20));
            let payload_len = 100 + rng.below(400);
            let row = rows.row()?.text(&id).opt_int((n % 3 == 0).then_some(USERS.start)).text(&format!(
                "10.0.{}.{}",
                rng.below(256),
                rng.below(256)
            ));
            row.text("Mozilla/5.0 (X11; Linux x86_64)").text(&hex::encode(rng.bytes(payload_len))).int(LATELY - 60 * n).end();
        }
        rows.end()?;
        let mut rows = self.rows("cache", &["key", "value", "expiration"])?;
        for n in 0..40 {
            let mut rng = model.rng("cache", n);
            let key = if n % 2 == 0 { format!("Heratio_Cache:{n}") } else { format!("heratio_cache:{}", n - 1) };
            let text = LANGUAGES[4].prose(&mut rng, false);
            rows.row()?.text(&key).text(&format!("O:8:\"stdClass\":1:{{s:4:\"\0*\0x\";s:{}:\"{text}\";}}", text.len())).int(FAR + n).end();
        }
        rows.end()?;
        let mut rows = self.rows("cache_locks", &["key", "owner", "expiration"])?;
        rows.row()?
            .text("heratio_cache_framework/schedule-1")
            .text(&hex::encode(model.rng("lock", created(model, 1)).bytes(8)))
            .int(FAR)
            .end();
        rows.end()
    }
}
