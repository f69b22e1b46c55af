//! The application's database as SQL text.

mod application;
mod descriptions;
mod extra;
mod people;
mod terms;

use crate::{model::Model, rows::Rows};
use std::io::{self, Write};

/// What to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Archival descriptions; everything else grows with them.
    pub descriptions: usize,
    /// The same seed gives the same text, byte for byte.
    pub seed: u64,
    /// Further tables, mostly empty, as Heratio's thousand are.
    pub many_tables: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { descriptions: 20_000, seed: 42, many_tables: 0 }
    }
}

/// One value: how many things are wrong with the tree of descriptions. Looks at parents, the nested set and the closure
/// table; 0 is sound.
pub const TREE_CHECK: &str = "
SELECT (SELECT COUNT(*) FROM information_object WHERE lft IS NULL OR rgt IS NULL OR lft >= rgt OR (rgt - lft) % 2 = 0)
     + (SELECT COUNT(*) - COUNT(DISTINCT n) FROM (SELECT lft AS n FROM information_object UNION ALL SELECT rgt FROM information_object) numbers)
     + (SELECT COUNT(*) FROM information_object WHERE parent_id IS NULL AND id <> 1)
     + (SELECT COUNT(*) FROM information_object c JOIN information_object p ON p.id = c.parent_id WHERE c.lft <= p.lft OR c.rgt >= p.rgt)
     + (SELECT COUNT(*) FROM information_object o
          JOIN (SELECT ancestor, COUNT(*) AS size FROM information_object_closure GROUP BY ancestor) c ON c.ancestor = o.id
         WHERE o.rgt - o.lft + 1 <> 2 * c.size)
     + (SELECT ABS((SELECT COUNT(*) FROM information_object) - (SELECT COUNT(*) FROM information_object_closure WHERE depth = 0)))
     + (SELECT COUNT(*) FROM information_object o
          LEFT JOIN information_object_closure c ON c.descendant = o.id AND c.ancestor = o.parent_id AND c.depth = 1
         WHERE o.parent_id IS NOT NULL AND c.ancestor IS NULL)";

const SCHEMA: &str = include_str!("schema.sql");
const PROGRAMS: &str = include_str!("programs.sql");

/// Writes schema, data, views and programs, for the `mysql` or `mariadb` client with a database chosen; what is there
/// under the same names is replaced.
pub fn write(out: &mut impl Write, options: &Options) -> io::Result<()> {
    let model = Model::new(options.seed, options.descriptions);
    writeln!(out, "-- Heratio Backup's demo application: {} descriptions, seed {}.", options.descriptions, options.seed)?;
    out.write_all(
        b"SET NAMES utf8mb4;
SET SESSION time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, unique_checks = 0;\n\n",
    )?;
    for line in SCHEMA.lines() {
        if let Some(table) = line.strip_prefix("CREATE TABLE ").and_then(|l| l.strip_suffix(" (")) {
            writeln!(out, "DROP TABLE IF EXISTS {table};")?;
        }
        writeln!(out, "{line}")?;
    }
    let mut script = Script { out, model: &model };
    script.extra_tables(options.many_tables)?;
    script.objects()?;
    script.taxonomies_and_terms()?;
    script.people()?;
    script.descriptions()?;
    script.application()?;
    writeln!(out, "\nSET SESSION foreign_key_checks = 1, unique_checks = 1;\n")?;
    out.write_all(PROGRAMS.as_bytes())
}

/// The text as it grows, and what it tells.
struct Script<'a, W: Write> {
    out: &'a mut W,
    model: &'a Model,
}

impl<W: Write> Script<'_, W> {
    fn rows(&mut self, table: &str, columns: &[&str]) -> io::Result<Rows<'_, W>> {
        writeln!(self.out, "\n-- {table}")?;
        Ok(Rows::into(self.out, table, columns))
    }
}

/// `YYYY-MM-DD HH:MM:SS` of a Unix time.
fn datetime(seconds: i64) -> String {
    chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default().naive_utc().to_string()
}

/// When a record was made: some second from 2015 to 2025, growing with the id as ids do.
fn created(model: &Model, id: i64) -> i64 {
    const START: i64 = 1_420_070_400;
    const YEARS: i64 = 10 * 365 * 86_400;
    let last = model.descriptions.last().map_or(1, |d| d.digital().end).max(id + 1);
    START + (i128::from(YEARS) * i128::from(id) / i128::from(last)) as i64 + id % 3600
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(options: &Options) -> String {
        let mut out = Vec::new();
        write(&mut out, options).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_text() {
        let options = Options { descriptions: 50, seed: 1, many_tables: 3 };
        assert_eq!(text(&options), text(&options));
        assert_ne!(text(&options), text(&Options { seed: 2, ..options }));
    }

    #[test]
    fn every_table_has_rows_but_those_for_failed_jobs() {
        let text = text(&Options { descriptions: 200, seed: 42, many_tables: 0 });
        let tables: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("CREATE TABLE ")?.strip_suffix(" (")).collect();
        assert!(tables.len() > 50);
        let empty: Vec<&str> = tables.into_iter().filter(|t| !text.contains(&format!("INSERT INTO {t} ("))).collect();
        assert_eq!(empty, ["`failed_jobs`"]);
    }

    #[test]
    fn it_works_without_descriptions() {
        assert!(!text(&Options { descriptions: 0, ..Options::default() }).contains("INSERT INTO `note`"));
    }
}
