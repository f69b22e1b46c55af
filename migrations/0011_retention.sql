-- Retention: archives that are being deleted, and how each was last verified.
--
-- MySQL has no ADD COLUMN IF NOT EXISTS, and every statement must be able to run again.

SET @statement = IF(EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'archives' AND column_name = 'verification'),
  'DO 0',
  'ALTER TABLE archives
     ADD COLUMN verification VARCHAR(16) NULL COMMENT ''NULL: never; hash_verified: its bytes are those written; restore_proven: it was restored, and equals its manifest; failed'' AFTER facts,
     ADD COLUMN verified_at DATETIME(6) NULL COMMENT ''UTC; when that was found'' AFTER verification,
     ADD COLUMN verified_job_id BIGINT UNSIGNED NULL COMMENT ''by which job'' AFTER verified_at,
     ADD COLUMN drill_seconds DECIMAL(12,3) NULL COMMENT ''wall time of the last drill: loading and checking'' AFTER verified_job_id,
     ADD COLUMN drill_bytes_per_second BIGINT UNSIGNED NULL COMMENT ''SQL loaded and checked per second by it'' AFTER drill_seconds,
     ADD COLUMN deleted_at DATETIME(6) NULL COMMENT ''UTC; when its file was gone'' AFTER error,
     ADD COLUMN deleted_job_id BIGINT UNSIGNED NULL COMMENT ''which job decided that'' AFTER deleted_at,
     ADD COLUMN deleted_why VARCHAR(255) NULL COMMENT ''and why'' AFTER deleted_job_id,
     ADD CONSTRAINT archives_verification CHECK (verification IN (''hash_verified'', ''restore_proven'', ''failed''))');
PREPARE add_columns FROM @statement;
EXECUTE add_columns;

SET @statement = IF(EXISTS (SELECT 1 FROM information_schema.table_constraints WHERE table_schema = DATABASE() AND table_name = 'archives' AND constraint_name = 'archives_state'),
  'ALTER TABLE archives DROP CONSTRAINT archives_state',
  'DO 0');
PREPARE add_columns FROM @statement;
EXECUTE add_columns;

SET @statement = IF(EXISTS (SELECT 1 FROM information_schema.table_constraints WHERE table_schema = DATABASE() AND table_name = 'archives' AND constraint_name = 'archives_states'),
  'DO 0',
  'ALTER TABLE archives
     MODIFY COLUMN state VARCHAR(16) NOT NULL COMMENT ''writing (not listed; swept when its attempt is over), complete, failed, swept (attempt over, no file), deleting (not listed; its file goes next), deleted (no file)'',
     ADD CONSTRAINT archives_states CHECK (state IN (''writing'', ''complete'', ''failed'', ''swept'', ''deleting'', ''deleted''))');
PREPARE add_columns FROM @statement;
EXECUTE add_columns;
DEALLOCATE PREPARE add_columns;
