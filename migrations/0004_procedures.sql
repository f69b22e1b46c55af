-- Enqueueing from any language, with EXECUTE on one procedure and no other right:
--
--   CALL enqueue_backup_job('backup', '{"components": ["database"]}', '{"unique_key": "before upgrade"}');
--   CALL enqueue_restore_job(kind, payload, options);    destructive kinds, and options that lower safety
--
-- Both return one row (id, existing), or refuse with SQLSTATE 45000 and a text. They run with the rights of the
-- account that migrated (SQL SECURITY DEFINER), and check against the three tables of kinds, which `worker migrate`
-- fills from the register. The worker checks the payload again, and wholly, when it runs the job.
--
-- Inside the caller's transaction the job appears when that commits; outside one, when the call returns.
--
-- The two are created once and never dropped, since MySQL drops the grants with a procedure. What may change lies in
-- enqueue_checked_job (definitions.sql), which is called with the definer's rights and needs no grant.

CREATE TABLE IF NOT EXISTS kind_fields (
  kind          VARCHAR(40)  NOT NULL,
  field         VARCHAR(64)  NOT NULL COMMENT 'key in the payload',
  shape         VARCHAR(16)  NOT NULL COMMENT 'text, boolean, integer, or components: a list of resources that the job takes for itself',
  required      BOOLEAN      NOT NULL COMMENT '1: must be there',
  lowers_safety BOOLEAN      NOT NULL COMMENT '1: only enqueue_restore_job takes it',
  PRIMARY KEY (kind, field),
  CONSTRAINT kind_fields_kind FOREIGN KEY (kind) REFERENCES kinds (kind),
  CONSTRAINT kind_fields_shape CHECK (shape IN ('text', 'boolean', 'integer', 'components'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
  COMMENT='Payload fields per kind, for the procedures; written by worker migrate, never by hand';

CREATE TABLE IF NOT EXISTS kind_resources (
  kind          VARCHAR(40)  NOT NULL,
  resource      VARCHAR(40)  NOT NULL COMMENT 'what a job takes for itself when its payload names no components',
  PRIMARY KEY (kind, resource),
  CONSTRAINT kind_resources_kind FOREIGN KEY (kind) REFERENCES kinds (kind),
  CONSTRAINT kind_resources_resource FOREIGN KEY (resource) REFERENCES resources (resource)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
  COMMENT='Resources per kind, for the procedures; written by worker migrate, never by hand';

CREATE PROCEDURE IF NOT EXISTS enqueue_backup_job(
  IN p_kind VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_payload LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_options LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci)
SQL SECURITY DEFINER
COMMENT 'Enqueues a job of a safe kind; returns its id, or refuses with SQLSTATE 45000 and a text'
CALL enqueue_checked_job(FALSE, p_kind, p_payload, p_options);

CREATE PROCEDURE IF NOT EXISTS enqueue_restore_job(
  IN p_kind VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_payload LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_options LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci)
SQL SECURITY DEFINER
COMMENT 'Enqueues a job of a destructive kind, or with an option that lowers safety; returns its id, or refuses with SQLSTATE 45000 and a text'
CALL enqueue_checked_job(TRUE, p_kind, p_payload, p_options);
