-- Restoring: schemas that we make on the application server, journals of cut-overs, and how long one can be undone.
--
-- Every statement may run again. All times are UTC.

CREATE TABLE IF NOT EXISTS made_schemas (
  schema_name   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'on the application server; the row is there before the schema is',
  job_id        BIGINT UNSIGNED NOT NULL COMMENT 'the job that made it',
  purpose       VARCHAR(16)  NOT NULL COMMENT 'stage: a backup being loaded; undo: what a restore replaced; scratch: for a drill',
  created_at    DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  PRIMARY KEY (schema_name),
  KEY job (job_id),
  CONSTRAINT made_schemas_purpose CHECK (purpose IN ('stage', 'undo', 'scratch'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Schemas of ours on the application server, for whoever has to drop them';

CREATE TABLE IF NOT EXISTS cut_overs (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  job_id        BIGINT UNSIGNED NOT NULL COMMENT 'the restore or undo',
  kind          VARCHAR(16)  NOT NULL COMMENT 'restore, undo',
  schema_name   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'what is replaced',
  stage_schema  VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'from where the new tables come',
  undo_schema   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'where the replaced tables go',
  state         VARCHAR(16)  NOT NULL DEFAULT 'open' COMMENT 'open: under way, or to be finished or reverted by the next worker; done; reverted: the schema is as it was before',
  step          VARCHAR(40)  NOT NULL COMMENT 'what is being done, written before it is done',
  position      INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'which of the step''s statements',
  facts         LONGTEXT     NOT NULL COMMENT 'JSON: tables of both sides, and what else is needed to finish or revert',
  started_at    DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  renamed_at    DATETIME(6)  NULL COMMENT 'UTC; from here on it is finished, before it is reverted',
  ended_at      DATETIME(6)  NULL COMMENT 'UTC',
  seconds       DECIMAL(12,3) NULL COMMENT 'from the first statement on the schema to the last',
  note          TEXT         NULL COMMENT 'what a person should know of its end',
  PRIMARY KEY (id),
  UNIQUE KEY job (job_id),
  KEY state (state),
  CONSTRAINT cut_overs_kind CHECK (kind IN ('restore', 'undo')),
  CONSTRAINT cut_overs_state CHECK (state IN ('open', 'done', 'reverted'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='The journal of each replacement of a live schema';

CREATE TABLE IF NOT EXISTS cut_over_code (
  cut_over_id   BIGINT UNSIGNED NOT NULL,
  side          VARCHAR(8)   NOT NULL COMMENT 'old: what was live; new: what becomes live',
  position      INT UNSIGNED NOT NULL COMMENT 'the order in which they are made',
  kind          VARCHAR(16)  NOT NULL COMMENT 'view, trigger, procedure, function, package, package body, event',
  name          VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  definition    LONGTEXT     NOT NULL COMMENT 'what SHOW CREATE says',
  sql_mode      TEXT         NOT NULL COMMENT 'under which it was made; empty for views',
  character_set VARCHAR(64)  NOT NULL COMMENT 'character_set_client at that time',
  collation     VARCHAR(64)  NOT NULL COMMENT 'collation_connection at that time',
  database_collation VARCHAR(64) NOT NULL COMMENT 'the schema''s at that time; empty for views',
  time_zone     VARCHAR(64)  NOT NULL COMMENT 'of an event',
  definer       VARCHAR(400) NOT NULL,
  enabled       BOOLEAN      NOT NULL COMMENT 'whether an event fires',
  PRIMARY KEY (cut_over_id, side, position),
  CONSTRAINT cut_over_code_cut_over FOREIGN KEY (cut_over_id) REFERENCES cut_overs (id) ON DELETE CASCADE,
  CONSTRAINT cut_over_code_side CHECK (side IN ('old', 'new'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Views, triggers, routines and events of both sides of a cut-over, saved before the first is dropped';

CREATE TABLE IF NOT EXISTS undo_points (
  job_id        BIGINT UNSIGNED NOT NULL COMMENT 'the restore or undo that can be undone',
  cut_over_id   BIGINT UNSIGNED NOT NULL,
  schema_name   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'what was replaced',
  undo_schema   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'where the replaced tables are',
  until         DATETIME(6)  NOT NULL COMMENT 'UTC; kept at least so long',
  state         VARCHAR(16)  NOT NULL DEFAULT 'kept' COMMENT 'kept, used (an undo took the tables back), expired (dropped)',
  PRIMARY KEY (job_id),
  KEY state (state, until),
  CONSTRAINT undo_points_cut_over FOREIGN KEY (cut_over_id) REFERENCES cut_overs (id),
  CONSTRAINT undo_points_state CHECK (state IN ('kept', 'used', 'expired'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='What restores replaced, and until when it is kept';
