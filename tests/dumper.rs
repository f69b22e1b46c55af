//! Our own dumper against the server's: what both dumps restore to is the same, and the same as what was dumped.

use crate::test_app::{OwnServer, TestApp, TestServer, on_both_flavours};
use engine::{
    archive::{ArchiveFile, ArchiveWriter},
    checksum,
    control::Control,
    dump::{self, Dump, DumpConfig, DumpError, Dumper},
    effort::Effort,
    load::{Code, load},
    manifest::{FORMAT, Manifest},
    server::{Flavour, ServerConfig},
};
use jobs::{backup::Backup, component::Component};
use sqlx::{Executor, Row};
use std::{collections::BTreeMap, process::Stdio, time::Duration};

fn config(app: &TestApp, schema: &str) -> DumpConfig {
    let config = app.config();
    DumpConfig {
        dumper: Dumper::Native,
        connections: 2,
        server: ServerConfig { schema: schema.to_owned(), ..config.application },
        tools_dir: config.tools_dir,
        schema_prefix: config.schema_prefix,
        lock_wait: Duration::from_secs(10),
        expected_bytes: None,
        effort: Effort::full(2),
        block_ddl: false,
    }
}

async fn try_dump(app: &TestApp, config: &DumpConfig, name: &str) -> Result<(ArchiveFile, Dump), DumpError> {
    let control = Control::default();
    let writer = ArchiveWriter::create(&app.backups_dir(), name, "1.1", &Effort::full(2), &control).unwrap();
    let (writer, dump) = dump::dump(config, writer, &control).await?;
    let manifest = Manifest {
        format: FORMAT,
        component: "database".into(),
        taken_at: Some(dump.taken_at),
        sections: dump.sections.clone(),
        database: Some(dump.facts.clone()),
        warnings: dump.warnings.clone(),
        ..Manifest::default()
    };
    let partial = tokio::task::spawn_blocking(move || writer.finish(manifest)).await.unwrap().unwrap();
    Ok((partial.publish().unwrap(), dump))
}

/// Restores an archive with nothing but gunzip and the client.
fn restore(server: &TestServer, archive: &ArchiveFile, to: &str) {
    server.client(&format!("DROP DATABASE IF EXISTS `{to}`; CREATE DATABASE `{to}` CHARACTER SET utf8mb4"));
    let mut gunzip = std::process::Command::new("gunzip").arg("-c").arg(&archive.path).stdout(Stdio::piped()).spawn().unwrap();
    let mut client = server.tool("mysql");
    // MariaDB's client would leave comments out of bodies.
    client.args(["--default-character-set=utf8mb4", "--comments", to]);
    let load = client.stdin(gunzip.stdout.take().unwrap()).output().unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    assert!(gunzip.wait().unwrap().success());
}

/// Restores what the server's own tool dumps.
fn referee(server: &TestServer, from: &str, to: &str) {
    server.client(&format!("DROP DATABASE IF EXISTS `{to}`; CREATE DATABASE `{to}` CHARACTER SET utf8mb4"));
    let mut tool = server.tool("mysqldump");
    tool.args([
        "--single-transaction",
        "--routines",
        "--triggers",
        "--events",
        "--hex-blob",
        "--skip-add-locks",
        "--default-character-set=utf8mb4",
    ]);
    match server.flavour {
        Flavour::MySql => tool.args(["--set-gtid-purged=OFF", "--column-statistics=0"]),
        Flavour::MariaDb => tool.arg("--dump-history"),
    };
    let mut dump = tool.arg(from).stdout(Stdio::piped()).spawn().unwrap();
    let sql = dump.stdout.take().unwrap();
    let load = server.tool("mysql").args(["--default-character-set=utf8mb4", "--comments", to]).stdin(sql).output().unwrap();
    assert!(load.status.success(), "the referee's dump of {from}: {}", String::from_utf8_lossy(&load.stderr));
    assert!(dump.wait().unwrap().success());
}

/// How FLOAT values are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Floats {
    /// Every bit.
    Exact,
    /// The six digits that the server shows, which is all that the servers' own tools dump.
    Shown,
}

/// Every definition and every row of a schema, by what it is of.
async fn everything(server: &TestServer, schema: &str, floats: Floats) -> BTreeMap<String, String> {
    let mut connection = server.connect(Some(schema)).await;
    connection.execute("SET time_zone = '+00:00', sql_mode = ''").await.unwrap();
    let mut found = BTreeMap::new();
    let names = |kind: &str| match kind {
        "TABLE" => {
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type <> 'SEQUENCE'".to_owned()
        }
        "SEQUENCE" => {
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'SEQUENCE'".to_owned()
        }
        "TRIGGER" => "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()".to_owned(),
        "EVENT" => "SELECT event_name FROM information_schema.events WHERE event_schema = DATABASE()".to_owned(),
        routine => {
            format!("SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE() AND routine_type = '{routine}'")
        }
    };
    for kind in ["TABLE", "SEQUENCE", "TRIGGER", "EVENT", "PROCEDURE", "FUNCTION", "PACKAGE", "PACKAGE BODY"] {
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(names(kind))).fetch_all(&mut connection).await.unwrap();
        let names: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
        for name in names {
            let quoted = format!("`{}`", name.replace('`', "``"));
            let shown =
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SHOW CREATE {kind} {quoted}"))).fetch_one(&mut connection).await.unwrap();
            // Without the time at which a trigger was made.
            let columns = if kind == "TRIGGER" { 6 } else { shown.len() };
            let text: Vec<String> = (1..columns)
                .map(|at| {
                    String::from_utf8_lossy(shown.try_get_unchecked::<Option<&[u8]>, _>(at).unwrap().unwrap_or_default()).into_owned()
                })
                .map(|text| without_charsets(&text.replace(&format!("`{schema}`."), "")).trim_end_matches([';', '\n', ' ']).to_owned())
                .collect();
            let is_view = text[0].contains(" VIEW ") && !text[0].starts_with("CREATE TABLE");
            found.insert(format!("{kind} {name}"), text.join(" | "));
            if kind == "SEQUENCE" {
                let next = server.client(&format!("SELECT next_not_cached_value, cycle_count FROM `{schema}`.{quoted}"));
                found.insert(format!("state of {name}"), next);
            }
            if kind == "TABLE" && !is_view {
                found.insert(format!("rows of {name}"), rows_of(server, schema, &name, floats));
            }
        }
    }
    let order = "SELECT GROUP_CONCAT(CONCAT_WS(' ', event_object_table, action_timing, event_manipulation, action_order, trigger_name) ORDER BY 1 SEPARATOR '\n') FROM information_schema.triggers WHERE trigger_schema = DATABASE()";
    found.insert("order of triggers".to_owned(), server.client(&format!("USE `{schema}`; {order}")));
    found
}

/// MySQL writes ` CHARACTER SET x COLLATE x_y` where a column's collation came with its definition, and ` COLLATE x_y` where
/// it was inherited; any dump makes one of the other.
fn without_charsets(text: &str) -> String {
    let mut parts = text.split(" CHARACTER SET ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(' ') {
            Some((_, rest)) if rest.starts_with("COLLATE ") => out.push(' '),
            _ => out.push_str(" CHARACTER SET "),
        }
        match part.split_once(' ') {
            Some((_, rest)) if rest.starts_with("COLLATE ") => out.push_str(rest),
            _ => out.push_str(part),
        }
    }
    out
}

/// All rows of a table as text that says every byte, sorted.
fn rows_of(server: &TestServer, schema: &str, table: &str, floats: Floats) -> String {
    let text = |s: &str| s.replace('\\', "\\\\").replace('\'', "''");
    let columns = server.client(&format!(
        "SELECT HEX(column_name), data_type FROM information_schema.columns WHERE table_schema = '{schema}' AND table_name = '{}' ORDER BY ordinal_position",
        text(table)
    ));
    let unhex = |hex: &str| {
        String::from_utf8((0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()).unwrap()
    };
    let expressions: Vec<String> = columns
        .lines()
        .map(|line| {
            let (name, kind) = line.split_once('\t').unwrap();
            let name = format!("`{}`", unhex(name).replace('`', "``"));
            match kind {
                "float" if floats == Floats::Shown => format!("IFNULL({name}, 'NULL')"),
                "float" | "double" => format!("IFNULL({name}+0e0, 'NULL')"),
                "bit" => format!("IFNULL(HEX({name}), 'NULL')"),
                kind if kind.contains("blob")
                    || kind.contains("binary")
                    || kind.contains("point")
                    || kind.contains("geom")
                    || kind.contains("polygon")
                    || kind.contains("linestring")
                    || kind == "vector" =>
                {
                    format!("IFNULL(CONCAT(LENGTH({name}), ':', IF(LENGTH({name}) < 100000, HEX({name}), SHA2({name}, 256))), 'NULL')")
                }
                _ => format!(
                    "IFNULL(IF(LENGTH({name}) < 100000, HEX(CAST({name} AS CHAR CHARACTER SET utf8mb4)), SHA2({name}, 256)), 'NULL')"
                ),
            }
        })
        .collect();
    let table = format!("`{schema}`.`{}`", table.replace('`', "``"));
    let is_versioned =
        server.flavour == Flavour::MariaDb && server.client(&format!("SHOW CREATE TABLE {table}")).contains("WITH SYSTEM VERSIONING");
    let history = if is_versioned { " FOR SYSTEM_TIME ALL" } else { "" };
    let rows = server.client(&format!("SET time_zone = '+00:00'; SELECT CONCAT_WS(',', {}) FROM {table}{history}", expressions.join(",")));
    let mut rows: Vec<&str> = rows.lines().collect();
    rows.sort_unstable();
    rows.join("\n")
}

fn assert_same(expected: &BTreeMap<String, String>, actual: &BTreeMap<String, String>, what: &str) {
    for (name, text) in expected {
        let Some(other) = actual.get(name) else { panic!("{what}: {name} is missing") };
        assert!(
            text == other,
            "{what}: {name} differs:\n{}\n--- is ---\n{}",
            &text[..text.len().min(3000)],
            &other[..other.len().min(3000)]
        );
    }
    let more: Vec<_> = actual.keys().filter(|name| !expected.contains_key(*name)).collect();
    assert!(more.is_empty(), "{what}: {more:?} are more");
}

/// Dumps a schema both ways and compares what comes back, also by our own loader, and the checksums.
async fn both_ways(app: &TestApp, schema: &str) {
    let (ours, theirs, loaded) = (format!("{schema}_ours"), format!("{schema}_theirs"), format!("{schema}_loaded"));
    let (archive, dump) =
        try_dump(app, &config(app, schema), &format!("{schema}.sql.gz")).await.unwrap_or_else(|e| panic!("{schema}: {e}"));
    let original = everything(&app.server, schema, Floats::Exact).await;
    restore(&app.server, &archive, &ours);
    let restored = everything(&app.server, &ours, Floats::Exact).await;
    assert_same(&original, &restored, &format!("{schema}, restored by the client"));
    referee(&app.server, schema, &theirs);
    let shown = everything(&app.server, &ours, Floats::Shown).await;
    // The referee's views and defaults may still name the schema that was dumped.
    let theirs_shown = everything(&app.server, &theirs, Floats::Shown).await;
    let theirs_shown = theirs_shown.into_iter().map(|(name, text)| (name, text.replace(&format!("`{schema}`."), ""))).collect();
    assert_same(&theirs_shown, &shown, &format!("{schema}, against the referee"));

    app.server.client(&format!("CREATE DATABASE `{loaded}` CHARACTER SET utf8mb4"));
    let target = ServerConfig { schema: loaded.clone(), ..app.config().application };
    let sessions = vec![target.connect().await.unwrap(), target.connect().await.unwrap()];
    load(&archive.path, &archive.manifest, &loaded, Code::All, sessions, &Control::default())
        .await
        .unwrap_or_else(|e| panic!("{schema}: {e}"));
    assert_same(&original, &everything(&app.server, &loaded, Floats::Exact).await, &format!("{schema}, restored by our loader"));

    let mut connection = target.connect().await.unwrap();
    // A MERGE table's rows are other tables'.
    for section in dump.sections.iter().filter(|s| s.kind == "table" && s.name != "merged") {
        let sum = checksum::of_table(&mut connection, &loaded, &section.name).await.unwrap();
        assert_eq!((Some(sum.rows), Some(sum.hex())), (section.rows, section.checksum.clone()), "{schema}.{}", section.name);
    }
    for schema in [ours, theirs, loaded] {
        app.server.client(&format!("DROP DATABASE `{schema}`"));
    }
    std::fs::remove_file(&archive.path).unwrap();
}

/// Runs the statements of a file, which may change their delimiter.
fn run_file(server: &TestServer, schema: &str, sql: &str) {
    use std::io::Write;
    let mut client = server
        .tool("mysql")
        .args(["--default-character-set=utf8mb4", "--comments", schema])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn every_feature_comes_back(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let (schema, other) = (format!("{}_features", app.name), format!("{}_other", app.name));
    app.server.client(&format!("CREATE DATABASE `{schema}` CHARACTER SET utf8mb4; CREATE DATABASE `{other}`; CREATE TABLE `{other}`.far (id INT PRIMARY KEY, v INT); INSERT INTO `{other}`.far VALUES (1, 2)"));
    let own = match flavour {
        Flavour::MariaDb => include_str!("dumper/mariadb.sql"),
        Flavour::MySql => include_str!("dumper/mysql.sql"),
    };
    run_file(&app.server, &schema, &include_str!("dumper/both.sql").replace("OTHER", &other));
    run_file(&app.server, &schema, own);
    both_ways(&app, &schema).await;
}

/// Numbers that look random and are the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = self.0 ^ (self.0 >> 29);
        x.wrapping_mul(0xbf58476d1ce4e5b9) ^ (x >> 32)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    fn name(&mut self, number: usize) -> String {
        const PARTS: &[&str] = &["a", "ж", "`", ".", " ", "'", "\"", "\\", "$", "é", "select", "-- ", "/*", "%", "中"];
        let middle: String = (0..self.below(4)).map(|_| self.of(PARTS)).collect();
        format!("n{number}{middle}x")
    }

    fn text(&mut self) -> String {
        const PARTS: &[&str] = &[
            "a", "ж", "`", "'", "''", "\"", "\\", "\\\\", "\n", "\r", "\t", "\0", "\u{1a}", "😀", "é", "%", ";", "-- ", "*/", "中",
            "(1),(2)",
        ];
        (0..self.below(12)).map(|_| self.of(PARTS)).collect()
    }

    fn bytes(&mut self, max: u64) -> Vec<u8> {
        (0..self.below(max + 1)).map(|_| self.next() as u8).collect()
    }

    /// A type, and a value for it in a session without backslash escapes off.
    fn column(&mut self, flavour: Flavour) -> (String, fn(&mut Random) -> String) {
        fn quoted(text: &str) -> String {
            let mut out = String::from("'");
            for c in text.chars() {
                match c {
                    '\'' => out.push_str("''"),
                    '\\' => out.push_str("\\\\"),
                    '\0' => out.push_str("\\0"),
                    '\r' => out.push_str("\\r"),
                    '\u{1a}' => out.push_str("\\Z"),
                    c => out.push(c),
                }
            }
            out.push('\'');
            out
        }
        fn hex(bytes: &[u8]) -> String {
            if bytes.is_empty() { "''".to_owned() } else { format!("0x{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()) }
        }
        type Value = fn(&mut Random) -> String;
        let text: Value = |r| quoted(&r.text());
        let list: &[(&str, Value)] = &[
            ("TINYINT", |r| (r.next() as i8).to_string()),
            ("SMALLINT UNSIGNED ZEROFILL", |r| (r.next() as u16).to_string()),
            ("MEDIUMINT", |r| (r.below(1 << 24) as i64 - (1 << 23)).to_string()),
            ("INT DEFAULT 7", |r| (r.next() as i32).to_string()),
            ("BIGINT UNSIGNED", |r| r.next().to_string()),
            ("BIGINT NOT NULL DEFAULT -1", |r| (r.next() as i64).to_string()),
            ("DECIMAL(30,10)", |r| format!("{}.{:010}", r.next() as i64, r.below(10_000_000_000))),
            ("DECIMAL(65,0)", |r| format!("{}{}", r.next(), r.next())),
            ("DOUBLE", |r| {
                let f = f64::from_bits(r.next());
                if f.is_finite() { format!("{f:e}") } else { "-0e0".to_owned() }
            }),
            ("DOUBLE(12,3)", |r| format!("{}e-3", r.below(1 << 38))),
            ("FLOAT", |r| format!("{}e{}", r.below(1 << 24), r.below(20) as i64 - 10)),
            ("BIT(1)", |r| r.below(2).to_string()),
            ("BIT(64)", |r| r.next().to_string()),
            ("YEAR", |r| (1901 + r.below(200)).to_string()),
            ("DATE", |r| format!("'{:04}-{:02}-{:02}'", 1 + r.below(9999), 1 + r.below(12), 1 + r.below(28))),
            ("TIME(6)", |r| {
                format!("'{}{}:{:02}:{:02}.{:06}'", r.of(&["", "-"]), r.below(838), r.below(60), r.below(60), r.below(1_000_000))
            }),
            ("DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)", |r| {
                format!(
                    "'{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}'",
                    1000 + r.below(9000),
                    1 + r.below(12),
                    1 + r.below(28),
                    r.below(24),
                    r.below(60),
                    r.below(60),
                    r.below(1000)
                )
            }),
            ("TIMESTAMP NULL DEFAULT NULL", |r| format!("FROM_UNIXTIME({})", 1 + r.below(2_000_000_000))),
            ("CHAR(40)", text),
            ("VARCHAR(100) DEFAULT 'it''s \\\\ \"😀\"'", text),
            ("VARCHAR(60) CHARACTER SET latin1", |r| quoted(r.of(&["", "é ü", "it's", "\\", "plain"]))),
            ("VARCHAR(60) CHARACTER SET utf16", text),
            ("TEXT", text),
            ("LONGTEXT CHARACTER SET utf8mb3", |r| quoted(&r.text().replace('😀', ""))),
            ("BINARY(8)", |r| hex(&r.bytes(8))),
            ("VARBINARY(60) DEFAULT x'00ff27'", |r| hex(&r.bytes(60))),
            ("BLOB", |r| hex(&r.bytes(200))),
            ("ENUM('a','it''s','','ж,;')", |r| quoted(r.of(&["a", "it's", "", "ж,;"]))),
            ("SET('x','y','z')", |r| quoted(r.of(&["", "x", "x,z", "y,z"]))),
            ("POINT", |r| format!("ST_GeomFromText('POINT({} {})')", r.below(1000) as f64 / 7.0, r.below(1000))),
            ("GEOMETRY", |r| format!("ST_GeomFromText('LINESTRING(0 0,{} 1)')", r.below(9))),
            ("JSON", |r| quoted(&format!("{{\"k\": [{}, \"{}\", null, 1.5e3]}}", r.below(99), r.of(&["ж", "it's", "😀", "\\\\ \\\""])))),
        ];
        let (kind, value) = self.of(list);
        let generated: &[&str] = match flavour {
            Flavour::MariaDb => &["INVISIBLE DEFAULT NULL", "COMMENT 'a ''c'' 😀 \\\\ ; \n next'"],
            Flavour::MySql => &["INVISIBLE", "COMMENT 'a ''c'' 😀 \\\\ ; \n next'"],
        };
        let more = if self.below(6) == 0 && !kind.contains("DEFAULT") { self.of(generated) } else { "" };
        (format!("{kind} {more}"), value)
    }

    /// A schema with some tables, rows and code.
    fn schema(&mut self, flavour: Flavour) -> String {
        let quote = |name: &str| format!("`{}`", name.replace('`', "``"));
        let mut sql = String::from("SET NAMES utf8mb4; SET sql_mode = '';\n");
        for number in 0..1 + self.below(4) as usize {
            let table = quote(&self.name(number));
            let columns: Vec<_> = (0..1 + self.below(8) as usize).map(|n| (quote(&self.name(n)), self.column(flavour))).collect();
            let mut parts: Vec<String> = vec!["`visible` INT".to_owned()];
            let key = self.below(4);
            match key {
                0 => {}
                1 => parts.push("id INT NOT NULL AUTO_INCREMENT PRIMARY KEY".to_owned()),
                2 => parts.push("id BIGINT UNSIGNED NOT NULL, part VARCHAR(9) NOT NULL, PRIMARY KEY (part, id)".to_owned()),
                _ => parts.push("id INT NOT NULL, UNIQUE KEY (id)".to_owned()),
            }
            parts.extend(columns.iter().map(|(name, (kind, _))| format!("{name} {kind}")));
            if self.below(2) == 0 {
                parts
                    .push(format!("`gen` VARCHAR(50) GENERATED ALWAYS AS (CONCAT('it''s ', visible)) {}", self.of(&["VIRTUAL", "STORED"])));
            }
            let engine = self.of(&["InnoDB", "InnoDB", "InnoDB", "MyISAM"]);
            let charset = self.of(&["utf8mb4", "utf8mb4 COLLATE utf8mb4_bin", "latin1", "utf8mb3"]);
            sql.push_str(
                &format!("CREATE TABLE {table} ({}) ENGINE={engine} CHARSET={charset};\n", parts.join(",\n"))
                    .replace(
                        "VARCHAR(100) DEFAULT 'it''s \\\\ \"😀\"'",
                        if charset.starts_with("utf8mb4") { "VARCHAR(100) DEFAULT 'it''s \\\\ \"😀\"'" } else { "VARCHAR(100)" },
                    )
                    .replace("ж,;", if charset == "latin1" { "o,;" } else { "ж,;" }.trim_end_matches(','))
                    .replace("ж,", "ж"),
            );
            let with_key = ["", ", id", ", id, part", ", id"][key as usize];
            for row in 0..self.below(40) {
                let key = match key {
                    0 => String::new(),
                    2 => format!(", {row}, 'p{}'", row % 3),
                    _ => format!(", {}", row + 1),
                };
                let values: String = columns
                    .iter()
                    .map(|(_, (kind, value))| match self.below(6) == 0 && !kind.contains("NOT NULL") {
                        true => ", NULL".to_owned(),
                        false => format!(", {}", value(self)),
                    })
                    .collect();
                let names: String = columns.iter().map(|(name, _)| format!(", {name}")).collect();
                sql.push_str(&format!("INSERT IGNORE INTO {table} (visible{with_key}{names}) VALUES ({row}{key}{values});\n"));
            }
            sql.push_str(&format!("CREATE VIEW v{number} AS SELECT visible AS `it's` FROM {table};\n"));
            sql.push_str(&format!("CREATE TRIGGER t{number} BEFORE INSERT ON {table} FOR EACH ROW SET @x = '; it''s';\n"));
        }
        sql
    }
}

async fn random_schemas_come_back(flavour: Flavour) {
    let cases = if std::env::var_os("HERATIO_TEST_LONG").is_some() { 300 } else { 3 };
    let app = TestApp::new(flavour).await;
    let first = std::env::var("HERATIO_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let first = first.unwrap_or_else(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
    for seed in first..first + cases {
        println!("seed {seed}");
        let schema = format!("{}_r{seed}", app.name);
        app.server.client(&format!("CREATE DATABASE `{schema}` CHARACTER SET utf8mb4"));
        run_file(&app.server, &schema, &Random(seed).schema(flavour));
        both_ways(&app, &schema).await;
        app.server.client(&format!("DROP DATABASE `{schema}`"));
    }
}

async fn a_large_table_is_read_by_all_sessions(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let schema = format!("{}_large", app.name);
    app.server.client(&format!(
        "CREATE DATABASE `{schema}`; USE `{schema}`; CREATE TABLE big (id BIGINT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(250));
         INSERT INTO big (a) VALUES (REPEAT('x', 240)); CREATE TABLE small (id INT)"
    ));
    for _ in 0..18 {
        app.server.client(&format!("INSERT INTO `{schema}`.big (a) SELECT CONCAT(id, RIGHT(a, 220)) FROM `{schema}`.big"));
    }
    app.server.client(&format!("ANALYZE TABLE `{schema}`.big"));
    let (archive, dump) = try_dump(&app, &config(&app, &schema), "large.sql.gz").await.unwrap();
    let big = dump.sections.iter().find(|s| s.kind == "table" && s.name == "big").unwrap();
    assert_eq!(big.rows, Some(1 << 18));
    app.server.load(&archive.path, &format!("{schema}_ours"));
    let counts = "SELECT COUNT(*), COUNT(DISTINCT id), MIN(id), MAX(id), SUM(CRC32(a)) FROM";
    let (is, was) = (app.server.client(&format!("{counts} `{schema}_ours`.big")), app.server.client(&format!("{counts} `{schema}`.big")));
    assert_eq!(is, was);
}

async fn each_way_to_a_snapshot_has_its_account(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let schema = app.schema();
    let on_schema = "SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE";
    let everywhere = match flavour {
        Flavour::MySql => "REPLICATION CLIENT, SHOW_ROUTINE, PROCESS",
        Flavour::MariaDb => "BINLOG MONITOR, PROCESS",
    };
    for (number, (more_on_schema, more_everywhere)) in [("", ", RELOAD"), (", LOCK TABLES", ""), ("", "")].into_iter().enumerate() {
        let user = format!("{}_w{number}", app.name);
        let proc = match flavour {
            Flavour::MariaDb => format!("; GRANT SELECT ON mysql.proc TO '{user}'@'localhost'"),
            Flavour::MySql => String::new(),
        };
        app.server.client(&format!(
            "CREATE USER '{user}'@'localhost' IDENTIFIED BY 'hunter2'; GRANT {on_schema}{more_on_schema} ON `{schema}`.* TO '{user}'@'localhost';
             GRANT {everywhere}{more_everywhere} ON *.* TO '{user}'@'localhost'; GRANT SELECT ON `{}_bk_meta`.* TO '{user}'@'localhost'{proc}",
            app.name,
        ));
        for connections in [1, 3] {
            let mut config = config(&app, &schema);
            config.connections = connections;
            (config.server.user, config.server.password) = (user.clone(), Some("hunter2".to_owned().into()));
            let (_, dump) =
                try_dump(&app, &config, &format!("way{number}_{connections}.sql.gz")).await.unwrap_or_else(|e| panic!("way {number}: {e}"));
            let at = dump.facts.coordinates.unwrap();
            assert!(at.binlog_pos > 4 && !at.gtid_set.is_empty(), "{at:?}");
            assert_eq!((dump.facts.tables, dump.facts.views, dump.facts.triggers, dump.facts.routines, dump.facts.events), (2, 1, 1, 2, 1));
        }
    }
}

async fn accounts_log_in_over_tcp_with_and_without_tls(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    let user = format!("{}_tcp", app.name);
    app.server.client(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'hunter2'; GRANT ALL ON *.* TO '{user}'@'%'"));
    let modes = match flavour {
        Flavour::MySql => vec!["DISABLED", "REQUIRED", "PREFERRED"],
        // This one has no certificate.
        Flavour::MariaDb => vec!["DISABLED", "PREFERRED"],
    };
    for mode in modes {
        // Nothing is cached: the whole password is asked for.
        app.server.client("FLUSH PRIVILEGES");
        let mut config = config(&app, &app.schema());
        (config.server.socket, config.server.host, config.server.port) = (None, "127.0.0.1".to_owned(), app.server.port);
        (config.server.user, config.server.password) = (user.clone(), Some("hunter2".to_owned().into()));
        config.server.tls.mode = mode.parse().unwrap();
        try_dump(&app, &config, &format!("tcp_{mode}.sql.gz")).await.unwrap_or_else(|e| panic!("{mode}: {e}"));
    }
}

/// No referee: mysqldump and mariadb-dump never end on such an event, mysqldump writes no SQL for such a table's rows, and
/// to give a routine back its schema's collation at the time, both alter the schema that was dumped.
async fn what_the_servers_tools_cannot_dump_comes_back(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    app.sql(
        "CREATE EVENT delimiters ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' DO SET @x = ';; $$ // || @@';
         CREATE TABLE only_generated (v INT GENERATED ALWAYS AS (1 + 1) STORED); INSERT INTO only_generated VALUES (), ();
         ALTER DATABASE CHARACTER SET latin1 COLLATE latin1_bin;
         CREATE PROCEDURE made_under_latin1(a CHAR(10)) SELECT a;
         CREATE TRIGGER made_under_latin1 BEFORE DELETE ON note FOR EACH ROW SET @z = 'x';
         ALTER DATABASE CHARACTER SET utf8mb4",
    )
    .await;
    let (archive, _) = try_dump(&app, &config(&app, &app.schema()), "alone.sql.gz").await.unwrap();
    let restored = format!("{}_restored", app.name);
    restore(&app.server, &archive, &restored);
    let all = async |schema: &str| everything(&app.server, schema, Floats::Exact).await;
    assert_same(&all(&app.schema()).await, &all(&restored).await, "restored");
}

async fn what_would_be_dumped_wrong_is_refused_by_name(flavour: Flavour) {
    let app = TestApp::new(flavour).await;
    if flavour == Flavour::MariaDb {
        app.sql(
            "CREATE TABLE by_transaction (a INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, \
             PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING ENGINE=InnoDB",
        )
        .await;
        let error = try_dump(&app, &config(&app, &app.schema()), "refused.sql.gz").await.unwrap_err();
        assert!(error.to_string().contains("table `by_transaction`") && !error.is_retryable(), "{error}");
    }
    assert!(app.files().is_empty());
}

async fn rows_of_64_mb_take_little_memory(flavour: Flavour) {
    let own = OwnServer::start_with(flavour, &["--max-allowed-packet=1G"]);
    let mut app = TestApp::on(own.0.clone()).await;
    app.sql("CREATE TABLE large (id INT PRIMARY KEY, t LONGTEXT, b LONGBLOB)").await;
    app.server.client(&format!(
        "USE `{}`; SET SESSION sql_log_bin = 0; INSERT INTO large VALUES (1, '', NULL), (2, REPEAT('it''s ', 13421773), NULL), (3, 'x', REPEAT(x'00ff2741', 16777216)), (4, NULL, '')",
        app.schema()
    ));
    let worker = app.worker();
    let id = app.enqueue(&Backup { components: vec![Component::Database], label: None }).await;
    let job = app.completed(id).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.worker_mut(worker).pid())).unwrap();
    let peak: u64 = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    println!("peak {} MB", peak / 1000);
    assert!(peak < 128_000, "{peak} kB");
    let file = job.result.unwrap()["files"][0]["file_name"].as_str().unwrap().to_owned();
    let restored = format!("{}_restored", app.name);
    let mut gunzip =
        std::process::Command::new("gunzip").arg("-c").arg(app.backups_dir().join(file)).stdout(Stdio::piped()).spawn().unwrap();
    app.server.client(&format!("CREATE DATABASE `{restored}`"));
    let mut load = app.server.tool("mysql");
    load.args(["--max-allowed-packet=1G", "--default-character-set=utf8mb4", &restored]);
    let output = load.stdin(gunzip.stdout.take().unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(gunzip.wait().unwrap().success());
    let rows = |schema: &str| rows_of(&app.server, schema, "large", Floats::Exact);
    assert_eq!(rows(&restored), rows(&app.schema()));
    drop(app);
}

on_both_flavours!(
    every_feature_comes_back,
    random_schemas_come_back,
    a_large_table_is_read_by_all_sessions,
    each_way_to_a_snapshot_has_its_account,
    accounts_log_in_over_tcp_with_and_without_tls,
    what_the_servers_tools_cannot_dump_comes_back,
    what_would_be_dumped_wrong_is_refused_by_name,
    rows_of_64_mb_take_little_memory,
);
