-- The queue: jobs, their attempts and log, the resources they hold, the workers.
--
-- Applied by `worker migrate`. Every statement may run again (IF NOT EXISTS), since MySQL commits
-- DDL at once and a migration may die half way. All times are UTC, from MySQL's own clock.
-- Operators read this with SELECT: see the view job_history for plain columns.

CREATE TABLE IF NOT EXISTS kinds (
  kind          VARCHAR(40)  NOT NULL COMMENT 'the word used everywhere: enqueue KIND, jobs.kind',
  description   VARCHAR(255) NOT NULL COMMENT 'what a job of this kind does',
  at_most_once  BOOLEAN      NOT NULL COMMENT '1: destructive, never started again by itself; 0: repeatable',
  max_attempts  INT UNSIGNED NOT NULL COMMENT 'attempts before the job is failed',
  priority      TINYINT UNSIGNED NOT NULL COMMENT 'lower starts first',
  PRIMARY KEY (kind)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
  COMMENT='The register of job kinds; written by worker migrate, never by hand';

CREATE TABLE IF NOT EXISTS workers (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT COMMENT 'one per process start',
  node          VARCHAR(64)  NOT NULL COMMENT 'host name or BACKUP_NODE: whose disks it sees',
  pid           INT UNSIGNED NOT NULL COMMENT 'process id on that host',
  pid_started   BIGINT UNSIGNED NOT NULL COMMENT 'start time of the process in clock ticks after boot (/proc/PID/stat field 22); with pid it names one process',
  version       VARCHAR(32)  NOT NULL COMMENT 'version of the worker program',
  queues        VARCHAR(255) NOT NULL COMMENT 'queues it serves, comma separated',
  concurrency   INT UNSIGNED NOT NULL COMMENT 'jobs it runs at a time',
  started_at    DATETIME(6)  NOT NULL COMMENT 'UTC',
  heartbeat_at  DATETIME(6)  NOT NULL COMMENT 'UTC; written every few seconds while it lives',
  stopped_at    DATETIME(6)  NULL COMMENT 'UTC; NULL while running, and for ever if it was killed',
  PRIMARY KEY (id),
  KEY heartbeat (heartbeat_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Worker processes, past and present';

CREATE TABLE IF NOT EXISTS jobs (
  id             BIGINT UNSIGNED NOT NULL AUTO_INCREMENT COMMENT 'the number that enqueue prints',
  kind           VARCHAR(40)  NOT NULL COMMENT 'see kinds',
  state          VARCHAR(24)  NOT NULL DEFAULT 'available' COMMENT 'available, running, completed, completed_with_warnings, failed, cancelled',
  payload        LONGTEXT     NOT NULL COMMENT 'JSON: what to do',
  queue          VARCHAR(80)  NOT NULL DEFAULT 'shared' COMMENT 'shared, or node:NAME when the work needs that node''s files',
  priority       TINYINT UNSIGNED NOT NULL DEFAULT 50 COMMENT 'lower starts first',
  requested_by   VARCHAR(255) NOT NULL COMMENT 'who asked: a user, a schedule, a job',
  requested_from VARCHAR(255) NOT NULL COMMENT 'from where: host and program, or job 41',
  created_at     DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  run_at         DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC; not started before',
  attempt        INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'attempts counted so far, the running one included',
  max_attempts   INT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'attempts before it is failed',
  unique_key     VARCHAR(190) NULL COMMENT 'a second job with this key, while one waits untouched, is the same job',
  waiting_key    VARCHAR(190) GENERATED ALWAYS AS (CASE WHEN state = 'available' AND fence = 0 THEN unique_key END) STORED COMMENT 'what makes unique_key so',
  slot_key       VARCHAR(190) NULL COMMENT 'schedule and slot that it was made for; a slot has one job ever',
  slot_at        DATETIME(6)  NULL COMMENT 'UTC; when that slot was due: created_at is later when no scheduler ran then',
  slots_missed   INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'slots before it that passed without a job, since no scheduler ran; 1000 means at least that many',
  fence          BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'raised by every claim; what a worker writes must carry the current one',
  worker_id      BIGINT UNSIGNED NULL COMMENT 'worker that runs it, or ran it last',
  node           VARCHAR(64)  NULL COMMENT 'node of that worker',
  lease_until    DATETIME(6)  NULL COMMENT 'UTC; a running job whose lease ran out is taken from its worker',
  started_at     DATETIME(6)  NULL COMMENT 'UTC; start of the last attempt',
  finished_at    DATETIME(6)  NULL COMMENT 'UTC; when it reached a final state',
  cancel_requested_at DATETIME(6) NULL COMMENT 'UTC; set by enqueue cancel, obeyed within seconds',
  phase          VARCHAR(255) NULL COMMENT 'what it is doing',
  progress_done  BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'done in this phase, in progress_unit',
  progress_total BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'expected in this phase (an estimate), 0 when unknown',
  progress_unit  VARCHAR(16)  NOT NULL DEFAULT 'bytes' COMMENT 'unit of the two',
  progress_at    DATETIME(6)  NULL COMMENT 'UTC; when the progress was written',
  result         LONGTEXT     NULL COMMENT 'JSON: what came of it',
  error          TEXT         NULL COMMENT 'why it failed or is tried again, and the next step',
  PRIMARY KEY (id),
  UNIQUE KEY waiting_key (waiting_key),
  UNIQUE KEY slot_key (slot_key),
  -- Finished rows are under other states, so claiming never passes them however long the history.
  KEY claim (state, queue, priority, id),
  KEY finished (finished_at),
  KEY by_kind (kind, id),
  CONSTRAINT jobs_state CHECK (state IN ('available', 'running', 'completed', 'completed_with_warnings', 'failed', 'cancelled')),
  CONSTRAINT jobs_payload CHECK (JSON_VALID(payload)),
  CONSTRAINT jobs_result CHECK (result IS NULL OR JSON_VALID(result)),
  CONSTRAINT jobs_attempts CHECK (max_attempts >= 1),
  CONSTRAINT jobs_queue CHECK (queue = 'shared' OR queue LIKE 'node:_%'),
  CONSTRAINT jobs_running CHECK (state <> 'running' OR (worker_id IS NOT NULL AND node IS NOT NULL AND lease_until IS NOT NULL AND started_at IS NOT NULL)),
  CONSTRAINT jobs_finished CHECK ((state IN ('available', 'running')) = (finished_at IS NULL)),
  CONSTRAINT jobs_kind FOREIGN KEY (kind) REFERENCES kinds (kind)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Every job there ever was; see job_history';

CREATE TABLE IF NOT EXISTS job_attempts (
  job_id        BIGINT UNSIGNED NOT NULL,
  fence         BIGINT UNSIGNED NOT NULL COMMENT 'the claim''s number; with job_id it names one attempt',
  attempt       INT UNSIGNED NOT NULL COMMENT 'number of the attempt, from 1; an attempt that was not counted shares it with the next',
  worker_id     BIGINT UNSIGNED NOT NULL,
  node          VARCHAR(64)  NOT NULL,
  started_at    DATETIME(6)  NOT NULL COMMENT 'UTC',
  ended_at      DATETIME(6)  NULL COMMENT 'UTC; NULL while running',
  outcome       VARCHAR(24)  NULL COMMENT 'completed, completed_with_warnings, failed, cancelled, lost (its worker died), released (put back uncounted)',
  error         TEXT         NULL COMMENT 'why, and the next step',
  PRIMARY KEY (job_id, fence),
  CONSTRAINT job_attempts_job FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Each try at a job';

CREATE TABLE IF NOT EXISTS job_log (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  job_id        BIGINT UNSIGNED NOT NULL,
  attempt       INT UNSIGNED NOT NULL,
  at            DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  level         VARCHAR(8)   NOT NULL COMMENT 'info, warn, error',
  message       TEXT         NOT NULL,
  PRIMARY KEY (id),
  KEY job (job_id, id),
  CONSTRAINT job_log_job FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='What jobs said while they ran';

CREATE TABLE IF NOT EXISTS resources (
  resource      VARCHAR(40)  NOT NULL COMMENT 'a component: database, uploads, packages, framework',
  job_id        BIGINT UNSIGNED NULL COMMENT 'the running job that holds it',
  fence         BIGINT UNSIGNED NULL COMMENT 'that job''s fence',
  PRIMARY KEY (resource),
  KEY job (job_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='What at most one job at a time works on';

CREATE TABLE IF NOT EXISTS job_resources (
  job_id        BIGINT UNSIGNED NOT NULL,
  resource      VARCHAR(40)  NOT NULL,
  PRIMARY KEY (job_id, resource),
  KEY resource (resource, job_id),
  CONSTRAINT job_resources_job FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE,
  CONSTRAINT job_resources_resource FOREIGN KEY (resource) REFERENCES resources (resource)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='What a job needs for itself while it runs';

CREATE TABLE IF NOT EXISTS job_sessions (
  job_id        BIGINT UNSIGNED NOT NULL,
  fence         BIGINT UNSIGNED NOT NULL COMMENT 'the attempt that opened it',
  connection_id BIGINT UNSIGNED NOT NULL COMMENT 'of the session on the application server; repeats after a restart',
  server_started BIGINT UNSIGNED NOT NULL COMMENT 'seconds after 1970-01-01 UTC when that server started; with connection_id it names one session',
  opened_at     DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  PRIMARY KEY (job_id, fence, connection_id),
  CONSTRAINT job_sessions_job FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Sessions in which destructive work is done, for whoever takes the job over to end them';

INSERT IGNORE INTO resources (resource) VALUES ('database'), ('uploads'), ('packages'), ('framework');
