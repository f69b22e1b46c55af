-- Each table's checksum, computed while it was dumped: what a restore or a drill compares with.
--
-- MySQL has no ADD COLUMN IF NOT EXISTS, and every statement must be able to run again.

SET @statement = IF(EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'archive_tables' AND column_name = 'checksum'),
  'DO 0',
  'ALTER TABLE archive_tables ADD COLUMN checksum CHAR(16) CHARACTER SET ascii NULL COMMENT ''of the rows, whatever their order, hex; NULL where the dump tool computes none''');
PREPARE add_column FROM @statement;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;
