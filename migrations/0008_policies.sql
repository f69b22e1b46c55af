-- What a kind's policy says besides: `unique_jobs`; a payload field that names an archive; and jobs that preempt.
--
-- MySQL has no ADD COLUMN IF NOT EXISTS, and every statement must be able to run again.

SET @statement = IF(EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'jobs' AND column_name = 'preempt'),
  'DO 0',
  'ALTER TABLE jobs ADD COLUMN preempt BOOLEAN NOT NULL DEFAULT FALSE COMMENT ''1: running repeatable jobs that hold what it needs are cancelled for it'' AFTER priority');
PREPARE add_column FROM @statement;
EXECUTE add_column;

SET @statement = IF(EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'kinds' AND column_name = 'unique_jobs'),
  'DO 0',
  'ALTER TABLE kinds ADD COLUMN unique_jobs BOOLEAN NOT NULL DEFAULT FALSE COMMENT ''1: a second job with the same payload, while one waits untouched, is the same job''');
PREPARE add_column FROM @statement;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;

-- Filled anew by each `worker migrate`.
DROP TABLE IF EXISTS kind_fields;
CREATE TABLE kind_fields (
  kind          VARCHAR(40)  NOT NULL,
  field         VARCHAR(64)  NOT NULL COMMENT 'key in the payload',
  shape         VARCHAR(16)  NOT NULL COMMENT 'text, boolean, integer, components: a list of resources that the job takes for itself, or archive: a file name, to whose node the job goes',
  required      BOOLEAN      NOT NULL COMMENT '1: must be there',
  lowers_safety BOOLEAN      NOT NULL COMMENT '1: only enqueue_restore_job takes it',
  PRIMARY KEY (kind, field),
  CONSTRAINT kind_fields_kind FOREIGN KEY (kind) REFERENCES kinds (kind),
  CONSTRAINT kind_fields_shape CHECK (shape IN ('text', 'boolean', 'integer', 'components', 'archive'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
  COMMENT='Payload fields per kind, for the procedures; written by worker migrate, never by hand';
