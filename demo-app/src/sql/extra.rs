//! Tables in number: Heratio has over a thousand, most of them empty, half of them with a foreign key.

use super::Script;
use std::io::{self, Write};

const THEMES: [&str; 12] =
    ["loan", "heritage", "spectrum", "icip", "condition", "workflow", "research", "donor", "iiif", "privacy", "statistics", "vendor"];

impl<W: Write> Script<'_, W> {
    pub(super) fn extra_tables(&mut self, count: usize) -> io::Result<()> {
        for n in 0..count {
            let mut rng = self.model.rng("extra", n as i64);
            let name = format!("ahg_{}_{n:04}", THEMES[n % THEMES.len()]);
            let mut columns: Vec<String> = vec!["  `id` INT UNSIGNED NOT NULL AUTO_INCREMENT".into(), "  `object_id` INT NULL".into()];
            for column in 0..3 + rng.below(14) {
                let kind = rng.pick(&[
                    "VARCHAR(255) NULL",
                    "TEXT NULL",
                    "INT NULL",
                    "DECIMAL(12,2) NULL DEFAULT 0.00",
                    "TINYINT(1) NOT NULL DEFAULT 0",
                    "DATE NULL",
                    "ENUM('draft','active','closed') NOT NULL DEFAULT 'draft'",
                    "JSON NULL",
                    "VARCHAR(64) NOT NULL DEFAULT 'n/a'",
                    "BIGINT UNSIGNED NULL",
                ]);
                columns.push(format!("  `field_{column}` {kind}"));
            }
            columns.push("  `created_at` TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP".into());
            columns.push("  PRIMARY KEY (`id`)".into());
            columns.push(format!("  KEY `{name}_object` (`object_id`)"));
            if n % 2 == 0 {
                columns.push(format!("  CONSTRAINT `{name}_FK_1` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE"));
            }
            writeln!(self.out, "\nDROP TABLE IF EXISTS `{name}`;\nCREATE TABLE `{name}` (\n{}", columns.join(",\n"))?;
            writeln!(self.out, ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;")?;
            if n % 10 == 0 {
                writeln!(self.out, "INSERT INTO `{name}` (`created_at`) VALUES {};", ["('2025-01-01 00:00:00')"; 5].join(","))?;
            }
        }
        Ok(())
    }
}
