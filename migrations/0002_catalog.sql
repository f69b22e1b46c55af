-- The catalog: backups, their archives, and the database dumps' coordinates.
--
-- `ahg_backup_run` keeps the columns of Heratio's own table of that name and adds to them.

CREATE TABLE IF NOT EXISTS backups (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT COMMENT 'the backup''s number',
  job_id        BIGINT UNSIGNED NOT NULL COMMENT 'the job that made it; no foreign key, since history may be pruned before the backup',
  label         VARCHAR(255) NULL COMMENT 'what the requester called it',
  state         VARCHAR(24)  NOT NULL COMMENT 'running, completed, completed_with_warnings, failed',
  node          VARCHAR(64)  NOT NULL COMMENT 'whose disk holds its archives',
  stamp         CHAR(17)     NOT NULL COMMENT 'YYYY-MM-DD_HHMMSS, UTC: the time in its archives'' names',
  started_at    DATETIME(6)  NOT NULL COMMENT 'UTC; start of the attempt that made it',
  finished_at   DATETIME(6)  NULL COMMENT 'UTC',
  size          BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'bytes of all its archives',
  warnings      LONGTEXT     NULL COMMENT 'JSON array of texts',
  PRIMARY KEY (id),
  UNIQUE KEY job (job_id),
  UNIQUE KEY stamp (stamp),
  KEY finished (finished_at),
  CONSTRAINT backups_state CHECK (state IN ('running', 'completed', 'completed_with_warnings', 'failed'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='One row per backup: the unit of retention';

CREATE TABLE IF NOT EXISTS archives (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  backup_id     BIGINT UNSIGNED NOT NULL,
  job_id        BIGINT UNSIGNED NOT NULL COMMENT 'job and fence of the attempt that wrote it',
  fence         BIGINT UNSIGNED NOT NULL,
  component     VARCHAR(16)  NOT NULL COMMENT 'database, uploads, packages, framework',
  state         VARCHAR(16)  NOT NULL COMMENT 'writing (not listed; swept when its attempt is over), complete, failed, swept (attempt over, no file)',
  node          VARCHAR(64)  NOT NULL COMMENT 'whose disk it is on',
  directory     VARCHAR(500) NOT NULL COMMENT 'absolute path of the backup directory on that node',
  file_name     VARCHAR(255) NOT NULL COMMENT 'what names an archive everywhere',
  size          BIGINT UNSIGNED NULL COMMENT 'bytes of the file',
  sha256        CHAR(64)     NULL COMMENT 'of the file, hex',
  raw_size      BIGINT UNSIGNED NULL COMMENT 'bytes of the SQL or tar inside',
  raw_sha256    CHAR(64)     NULL COMMENT 'of the SQL or tar inside, hex',
  taken_at      DATETIME(6)  NULL COMMENT 'UTC; the snapshot''s moment for a database, the start of reading for files',
  seconds       DECIMAL(12,3) NULL COMMENT 'wall time of writing it',
  facts         LONGTEXT     NULL COMMENT 'JSON: the manifest''s facts without its index',
  error         TEXT         NULL COMMENT 'why it is failed',
  created_at    DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  PRIMARY KEY (id),
  UNIQUE KEY file_name (file_name),
  KEY backup (backup_id),
  KEY state (state, job_id),
  CONSTRAINT archives_backup FOREIGN KEY (backup_id) REFERENCES backups (id),
  CONSTRAINT archives_state CHECK (state IN ('writing', 'complete', 'failed', 'swept')),
  CONSTRAINT archives_complete CHECK (state <> 'complete' OR (size IS NOT NULL AND sha256 IS NOT NULL AND raw_size IS NOT NULL AND raw_sha256 IS NOT NULL))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='One row per archive file';

CREATE TABLE IF NOT EXISTS archive_tables (
  archive_id    BIGINT UNSIGNED NOT NULL,
  table_name    VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  row_count     BIGINT UNSIGNED NOT NULL COMMENT 'rows of the table in the dump, counted in its text',
  PRIMARY KEY (archive_id, table_name),
  CONSTRAINT archive_tables_archive FOREIGN KEY (archive_id) REFERENCES archives (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Tables of a database archive';

CREATE TABLE IF NOT EXISTS ahg_backup_run (
  id               INT          NOT NULL AUTO_INCREMENT,
  backup_path      VARCHAR(500) NOT NULL COMMENT 'absolute path of the archive on its node',
  backup_filename  VARCHAR(255) NOT NULL,
  dumped_at        DATETIME     NOT NULL DEFAULT (UTC_TIMESTAMP()) COMMENT 'UTC; the moment of the snapshot',
  db_name          VARCHAR(64)  NOT NULL,
  binlog_file      VARCHAR(255) NULL COMMENT 'coordinates of the snapshot: log file',
  binlog_pos       BIGINT       NULL COMMENT 'and byte position: the first event that is not in the dump',
  gtid_executed    TEXT         NULL COMMENT 'GTIDs in the dump, in the server flavour''s notation',
  binlog_format    VARCHAR(16)  NULL COMMENT 'ROW, STATEMENT or MIXED, as the variable said',
  log_bin_enabled  TINYINT(1)   NOT NULL DEFAULT 0,
  notes            TEXT         NULL,
  archive_id       BIGINT UNSIGNED NULL COMMENT 'the archive',
  flavour          VARCHAR(16)  NULL COMMENT 'mariadb or mysql',
  server_version   VARCHAR(128) NULL,
  server_uuid      CHAR(36)     NULL COMMENT 'whose binary logs the coordinates are in',
  server_id        INT UNSIGNED NULL,
  PRIMARY KEY (id),
  UNIQUE KEY uq_backup_filename (backup_filename),
  KEY idx_dumped_at (dumped_at),
  KEY idx_db_name (db_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='One row per database dump: where point-in-time recovery may start';

-- Settings, for applications without a table of this name; where the application has one, that one counts.
CREATE TABLE IF NOT EXISTS ahg_settings (
  id            INT          NOT NULL AUTO_INCREMENT,
  setting_key   VARCHAR(100) NOT NULL,
  setting_value TEXT         NULL,
  setting_type  VARCHAR(43)  NULL DEFAULT 'string',
  setting_group VARCHAR(50)  NOT NULL DEFAULT 'general',
  description   VARCHAR(500) NULL,
  is_sensitive  TINYINT      NULL DEFAULT 0,
  is_locked     TINYINT      NOT NULL DEFAULT 0,
  updated_by    INT          NULL,
  updated_at    DATETIME     NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  created_at    DATETIME     NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (id),
  UNIQUE KEY setting_key (setting_key)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Settings of the group backup, where the application has no ahg_settings';
