-- Schedules: cron expressions whose slots become jobs.
--
-- The scheduler (`worker run --scheduler`, on any number of hosts) reads and writes this table; a row written by
-- hand is served as well: leave next_run NULL.

CREATE TABLE IF NOT EXISTS schedules (
  name          VARCHAR(64)  NOT NULL COMMENT 'what enqueue schedule calls it',
  description   VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'what it is for',
  cron          VARCHAR(190) NOT NULL COMMENT 'minute, hour, day of month, month, day of week, in timezone',
  timezone      VARCHAR(64)  NOT NULL DEFAULT 'UTC' COMMENT 'IANA name, such as Africa/Johannesburg',
  kind          VARCHAR(40)  NOT NULL COMMENT 'kind of its jobs, see kinds; never an at_most_once one, since nobody would confirm it',
  payload       LONGTEXT     NOT NULL COMMENT 'JSON: what each job is to do',
  queue         VARCHAR(80)  NOT NULL DEFAULT 'shared' COMMENT 'shared, or node:NAME when the work needs that node''s files',
  enabled       BOOLEAN      NOT NULL DEFAULT FALSE COMMENT '1: its slots become jobs',
  created_by    VARCHAR(255) NOT NULL COMMENT 'who made it',
  created_at    DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  updated_at    DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC; when it was made, enabled or disabled',
  next_run      DATETIME(6)  NULL COMMENT 'UTC; the next slot, computed by the scheduler; NULL while disabled or not computed yet',
  last_slot     DATETIME(6)  NULL COMMENT 'UTC; the newest slot that became a job',
  last_missed   INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'slots that passed without a job before last_slot, since no scheduler ran; 1000 means at least that many',
  last_job_id   BIGINT UNSIGNED NULL COMMENT 'its newest job, of a slot or of enqueue schedule run; no foreign key, since history may be pruned',
  last_run      DATETIME(6)  NULL COMMENT 'UTC; when that job was enqueued',
  note          TEXT         NULL COMMENT 'what a person should know of its newest slot: late, skipped or refused, and why',
  PRIMARY KEY (name),
  CONSTRAINT schedules_kind FOREIGN KEY (kind) REFERENCES kinds (kind),
  CONSTRAINT schedules_payload CHECK (JSON_VALID(payload)),
  CONSTRAINT schedules_queue CHECK (queue = 'shared' OR queue LIKE 'node:_%')
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Cron expressions whose slots become jobs';
