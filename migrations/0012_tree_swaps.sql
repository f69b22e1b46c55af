-- Restoring files: directories that we make beside the live ones, journals of what changes places, and how long it can be undone.
--
-- Every statement may run again. All times are UTC.

CREATE TABLE IF NOT EXISTS tree_swaps (
  id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  job_id        BIGINT UNSIGNED NOT NULL COMMENT 'the restore or undo',
  component     VARCHAR(40)  NOT NULL COMMENT 'uploads, packages, framework',
  kind          VARCHAR(16)  NOT NULL COMMENT 'restore, undo',
  node          VARCHAR(64)  NOT NULL COMMENT 'on whose disk all of it is',
  live_directory VARCHAR(1000) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'what is replaced, or in what',
  work_directory VARCHAR(1000) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'ours: what is unpacked is in it, later what was replaced; the row is there before the directory is',
  state         VARCHAR(16)  NOT NULL DEFAULT 'open' COMMENT 'open: under way, or to be finished or reverted by the next worker of the node; done; reverted: the live directory is as it was before',
  step          VARCHAR(16)  NOT NULL DEFAULT 'stage' COMMENT 'what is being done, written before it is done: stage (unpacking), ready, swap, back, swapped',
  facts         LONGTEXT     NOT NULL COMMENT 'JSON: what changes places, by inode, and what else is needed to finish or revert',
  started_at    DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  swap_at       DATETIME(6)  NULL COMMENT 'UTC; the first rename',
  swapped_at    DATETIME(6)  NULL COMMENT 'UTC; after the last',
  ended_at      DATETIME(6)  NULL COMMENT 'UTC',
  note          TEXT         NULL COMMENT 'what a person should know of its end',
  undo_state    VARCHAR(16)  NULL COMMENT 'of a done one: kept, used (an undo took it back), expired',
  undo_until    DATETIME(6)  NULL COMMENT 'UTC; what was replaced is kept at least so long',
  work_gone     BOOLEAN      NOT NULL DEFAULT FALSE COMMENT '1: the work directory has been removed',
  PRIMARY KEY (id),
  UNIQUE KEY job (job_id, component),
  KEY state (state, node),
  KEY undo_until (undo_state, undo_until),
  CONSTRAINT tree_swaps_kind CHECK (kind IN ('restore', 'undo')),
  CONSTRAINT tree_swaps_state CHECK (state IN ('open', 'done', 'reverted')),
  CONSTRAINT tree_swaps_undo CHECK (undo_state IN ('kept', 'used', 'expired'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='The journal of each replacement of files, its work directory, and its undo point';
