-- Views and procedures: what can be replaced as a whole. `worker migrate` runs this file after the numbered ones
-- whenever it differs from the one that it ran last.

-- `waits_for` is the earliest of: the job that holds a resource, or a job before it in the line for one. A job whose node
-- is gone keeps nobody waiting.
CREATE OR REPLACE VIEW job_history AS
SELECT j.id, j.kind, k.description, j.state, j.requested_by, j.requested_from, j.created_at, j.run_at, j.started_at, j.finished_at,
       ROUND(TIMESTAMPDIFF(MICROSECOND, j.started_at, COALESCE(j.finished_at, UTC_TIMESTAMP(6))) / 1000000, 1) AS seconds,
       j.attempt, j.max_attempts, j.queue, j.node, j.phase, j.progress_done, j.progress_total, j.progress_unit,
       CASE WHEN j.state = 'available' THEN (
         SELECT MIN(o.id) FROM job_resources mine
           JOIN job_resources theirs ON theirs.resource = mine.resource AND theirs.job_id <> mine.job_id
           JOIN jobs o ON o.id = theirs.job_id
          WHERE mine.job_id = j.id
            AND (o.state = 'running'
                 OR (o.state = 'available' AND o.run_at <= UTC_TIMESTAMP(6) AND (o.priority < j.priority OR (o.priority = j.priority AND o.id < j.id))
                     AND EXISTS (SELECT 1 FROM workers w WHERE w.heartbeat_at > UTC_TIMESTAMP(6) - INTERVAL 30 SECOND AND w.stopped_at IS NULL
                                    AND FIND_IN_SET(o.queue, w.queues))))
       ) END AS waits_for,
       j.error, j.result, j.payload
  FROM jobs j LEFT JOIN kinds k ON k.kind = j.kind;

DROP PROCEDURE IF EXISTS refuse_job;
CREATE PROCEDURE refuse_job(IN p_text TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci)
SQL SECURITY INVOKER
COMMENT 'Refuses with a text, of which MySQL takes 128 characters'
BEGIN
  DECLARE v_text VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci DEFAULT LEFT(p_text, 128);
  SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = v_text;
END;

-- The payload is made anew, of the kind's fields and nothing else: two readers of one JSON text may disagree about a key
-- that comes twice (MariaDB takes the first, the worker the last), and then the job would not hold what it works on.
DROP PROCEDURE IF EXISTS check_job_payload;
CREATE PROCEDURE check_job_payload(
  IN p_kind VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_given LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  OUT p_payload LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, OUT p_components LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  OUT p_lowers_safety VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  OUT p_archive VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  OUT p_canonical LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci)
SQL SECURITY INVOKER
COMMENT 'Checks a payload; gives it, its components, a field that lowers safety, its archive (each NULL if there is none), and the text that tells equal ones'
BEGIN
  DECLARE v_field VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_shape, v_type VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_path VARCHAR(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_required, v_lowers, v_end BOOLEAN DEFAULT FALSE;
  DECLARE v_found INT DEFAULT 0;
  DECLARE v_word, v_fields TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE fields CURSOR FOR SELECT field, shape, required, lowers_safety FROM kind_fields WHERE kind = p_kind ORDER BY field;
  DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_end = TRUE;

  SET p_payload = '{}', p_components = NULL, p_lowers_safety = NULL, p_archive = NULL, p_canonical = '';
  IF NOT JSON_VALID(p_given) THEN
    CALL refuse_job('payload: not JSON');
  END IF;
  IF JSON_TYPE(p_given) <> 'OBJECT' THEN
    CALL refuse_job('payload: not a JSON object');
  END IF;

  OPEN fields;
  each_field: LOOP
    FETCH fields INTO v_field, v_shape, v_required, v_lowers;
    IF v_end THEN
      LEAVE each_field;
    END IF;
    SET v_path = CONCAT('$.', v_field);
    SET v_found = v_found + JSON_CONTAINS_PATH(p_given, 'one', v_path);
    SET v_type = COALESCE(JSON_TYPE(JSON_EXTRACT(p_given, v_path)), 'NULL');
    IF v_type = 'NULL' THEN
      IF v_required THEN
        CALL refuse_job(CONCAT('payload: `', v_field, '` is missing'));
      END IF;
      ITERATE each_field;
    END IF;
    IF CONCAT(v_shape, ' ', v_type) NOT IN ('text STRING', 'archive STRING', 'boolean BOOLEAN', 'integer INTEGER', 'integer UNSIGNED INTEGER', 'components ARRAY') THEN
      CALL refuse_job(CONCAT('payload: `', v_field, '` is not of type ', CASE v_shape WHEN 'components' THEN 'list' WHEN 'archive' THEN 'text' ELSE v_shape END));
    END IF;
    -- MariaDB takes the third argument for JSON, and not for a string, only straight from a JSON function.
    SET p_payload = JSON_SET(p_payload, v_path, JSON_EXTRACT(p_given, v_path));
    IF v_lowers AND NOT JSON_UNQUOTE(JSON_EXTRACT(p_given, v_path)) = 'false' THEN
      SET p_lowers_safety = v_field;
    END IF;
    IF v_shape = 'components' THEN
      SET p_components = JSON_EXTRACT(p_given, v_path);
      SELECT GROUP_CONCAT(c.word ORDER BY CAST(c.word AS BINARY)) INTO v_word
        FROM JSON_TABLE(p_components, '$[*]' COLUMNS (word VARCHAR(190) CHARACTER SET utf8mb4 PATH '$')) c;
    ELSE
      SET v_word = JSON_UNQUOTE(JSON_EXTRACT(p_given, v_path));
    END IF;
    IF v_shape = 'archive' THEN
      SET p_archive = LEFT(v_word, 255);
    END IF;
    -- As enqueue.rs has it.
    IF v_word NOT IN ('', '0', 'false') THEN
      SET p_canonical = CONCAT(p_canonical, v_field, '=', v_word, '\n');
    END IF;
  END LOOP;
  CLOSE fields;

  IF v_found <> JSON_LENGTH(p_given) THEN
    SELECT GROUP_CONCAT(field ORDER BY field SEPARATOR ', ') INTO v_fields FROM kind_fields WHERE kind = p_kind;
    SELECT MIN(k.word) INTO v_word FROM JSON_TABLE(JSON_KEYS(p_given), '$[*]' COLUMNS (word VARCHAR(190) CHARACTER SET utf8mb4 PATH '$')) k
     WHERE NOT EXISTS (SELECT 1 FROM kind_fields f WHERE f.kind = p_kind AND CAST(f.field AS BINARY) = CAST(k.word AS BINARY));
    IF v_word IS NULL THEN
      CALL refuse_job('payload: a key is given twice');
    END IF;
    CALL refuse_job(CONCAT('payload: unknown key `', LEFT(v_word, 30), '`; kind `', p_kind, '` takes ', COALESCE(v_fields, 'none')));
  END IF;

  IF p_components IS NOT NULL THEN
    IF JSON_LENGTH(p_components) = 0 THEN
      CALL refuse_job('payload: choose at least one of database, uploads, packages, framework');
    END IF;
    SELECT MIN(COALESCE(c.word, 'null')) INTO v_word
      FROM JSON_TABLE(p_components, '$[*]' COLUMNS (word VARCHAR(190) CHARACTER SET utf8mb4 PATH '$')) c
     WHERE c.word IS NULL
        OR (CAST(c.word AS BINARY) <> CAST('plugins' AS BINARY)
            AND NOT EXISTS (SELECT 1 FROM resources r WHERE CAST(r.resource AS BINARY) = CAST(c.word AS BINARY)));
    IF v_word IS NOT NULL THEN
      CALL refuse_job(CONCAT('payload: `', LEFT(v_word, 30), '` is no component; there are database, uploads, packages (or plugins), framework'));
    END IF;
  END IF;
END;

DROP PROCEDURE IF EXISTS check_job_options;
CREATE PROCEDURE check_job_options(
  IN p_given LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  OUT p_run_at DATETIME(6), OUT p_queue VARCHAR(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  OUT p_requested_by VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, OUT p_unique_key VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  OUT p_preempt BOOLEAN)
SQL SECURITY INVOKER
COMMENT 'Checks the options at, node, requested_by, unique_key, preempt; what is not given is NULL'
BEGIN
  DECLARE v_at, v_node, v_by, v_key, v_word TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_offset INT DEFAULT 0;

  IF NOT JSON_VALID(p_given) THEN
    CALL refuse_job('options: not JSON');
  END IF;
  IF JSON_TYPE(p_given) <> 'OBJECT' THEN
    CALL refuse_job('options: not a JSON object');
  END IF;
  SELECT MIN(k.word) INTO v_word FROM JSON_TABLE(JSON_KEYS(p_given), '$[*]' COLUMNS (word VARCHAR(190) CHARACTER SET utf8mb4 PATH '$')) k
   WHERE CAST(k.word AS BINARY) NOT IN (CAST('at' AS BINARY), CAST('node' AS BINARY), CAST('requested_by' AS BINARY), CAST('unique_key' AS BINARY),
                                      CAST('preempt' AS BINARY));
  IF v_word IS NOT NULL THEN
    CALL refuse_job(CONCAT('options: unknown key `', LEFT(v_word, 30), '`; there are at, node, requested_by, unique_key, preempt'));
  END IF;
  IF JSON_CONTAINS_PATH(p_given, 'one', '$.at') + JSON_CONTAINS_PATH(p_given, 'one', '$.node') + JSON_CONTAINS_PATH(p_given, 'one', '$.requested_by')
     + JSON_CONTAINS_PATH(p_given, 'one', '$.unique_key') + JSON_CONTAINS_PATH(p_given, 'one', '$.preempt') <> JSON_LENGTH(p_given) THEN
    CALL refuse_job('options: a key is given twice');
  END IF;
  IF CONCAT_WS(' ', JSON_TYPE(JSON_EXTRACT(p_given, '$.at')), JSON_TYPE(JSON_EXTRACT(p_given, '$.node')),
       JSON_TYPE(JSON_EXTRACT(p_given, '$.requested_by')), JSON_TYPE(JSON_EXTRACT(p_given, '$.unique_key'))) NOT REGEXP '^((STRING|NULL) ?)*$' THEN
    CALL refuse_job('options: every value but preempt is a string');
  END IF;
  IF COALESCE(JSON_TYPE(JSON_EXTRACT(p_given, '$.preempt')), 'NULL') NOT IN ('BOOLEAN', 'NULL') THEN
    CALL refuse_job('options: preempt is true or false');
  END IF;
  SET v_at = IF(JSON_TYPE(JSON_EXTRACT(p_given, '$.at')) = 'STRING', JSON_UNQUOTE(JSON_EXTRACT(p_given, '$.at')), NULL),
      v_node = IF(JSON_TYPE(JSON_EXTRACT(p_given, '$.node')) = 'STRING', JSON_UNQUOTE(JSON_EXTRACT(p_given, '$.node')), NULL),
      v_by = IF(JSON_TYPE(JSON_EXTRACT(p_given, '$.requested_by')) = 'STRING', JSON_UNQUOTE(JSON_EXTRACT(p_given, '$.requested_by')), NULL),
      v_key = IF(JSON_TYPE(JSON_EXTRACT(p_given, '$.unique_key')) = 'STRING', JSON_UNQUOTE(JSON_EXTRACT(p_given, '$.unique_key')), NULL);

  IF v_at IS NOT NULL THEN
    IF v_at NOT REGEXP '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$' THEN
      CALL refuse_job('options: at: write RFC 3339 with its offset, such as 2026-11-25T02:00:00Z');
    END IF;
    IF RIGHT(v_at, 1) <> 'Z' THEN
      SET v_offset = IF(SUBSTRING(v_at, -6, 1) = '-', -1, 1) * (SUBSTRING(v_at, -5, 2) * 60 + SUBSTRING(v_at, -2));
    END IF;
    BEGIN
      DECLARE CONTINUE HANDLER FOR 1292, 1411 SET p_run_at = NULL;
      SET p_run_at = CAST(CONCAT(LEFT(v_at, 10), ' ', SUBSTRING(v_at, 12, CHAR_LENGTH(v_at) - IF(RIGHT(v_at, 1) = 'Z', 12, 17))) AS DATETIME(6))
                     - INTERVAL v_offset MINUTE;
    END;
    IF p_run_at IS NULL THEN
      CALL refuse_job(CONCAT('options: at: ', v_at, ' is no time of the calendar'));
    END IF;
  END IF;
  IF v_node IS NOT NULL AND v_node NOT REGEXP '^[A-Za-z0-9._-]{1,64}$' THEN
    CALL refuse_job('options: node: use up to 64 letters, digits, dots, dashes or underscores');
  END IF;
  IF v_by IS NOT NULL AND (CHAR_LENGTH(v_by) NOT BETWEEN 1 AND 255 OR v_by REGEXP '[[:cntrl:]]') THEN
    CALL refuse_job('options: requested_by: 1 to 255 characters on one line');
  END IF;
  IF v_key IS NOT NULL AND CHAR_LENGTH(v_key) NOT BETWEEN 1 AND 190 THEN
    CALL refuse_job('options: unique_key: 1 to 190 characters');
  END IF;
  SET p_queue = CONCAT('node:', v_node), p_requested_by = v_by, p_unique_key = v_key,
      p_preempt = COALESCE(JSON_UNQUOTE(JSON_EXTRACT(p_given, '$.preempt')) = 'true', FALSE);
END;

DROP PROCEDURE IF EXISTS insert_job;
CREATE PROCEDURE insert_job(
  IN p_kind VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_payload LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  IN p_components LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_run_at DATETIME(6), IN p_queue VARCHAR(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  IN p_requested_by VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_unique_key VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  IN p_preempt BOOLEAN, OUT p_id BIGINT UNSIGNED, OUT p_existing BOOLEAN)
SQL SECURITY INVOKER
COMMENT 'Inserts a job and its resources, all or nothing'
BEGIN
  DECLARE v_alone, v_again BOOLEAN DEFAULT FALSE;
  DECLARE v_deadlocks INT DEFAULT 0;
  DECLARE v_priority, v_max_attempts INT UNSIGNED;

  SELECT priority, max_attempts INTO v_priority, v_max_attempts FROM kinds WHERE kind = p_kind;

  -- A savepoint outside a transaction is gone at once. Inside one, the COMMIT is the caller's; outside one, the job
  -- must not be seen without its resources.
  SAVEPOINT heratio_backup_enqueue;
  BEGIN
    DECLARE CONTINUE HANDLER FOR 1305 SET v_alone = TRUE;
    RELEASE SAVEPOINT heratio_backup_enqueue;
  END;

  attempts: LOOP
    SET v_again = FALSE;
    IF v_alone THEN
      -- For this one only: gap locks between callers would only deadlock.
      SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
      START TRANSACTION;
    END IF;
    SAVEPOINT heratio_backup_enqueue;
    BEGIN
      DECLARE v_resource VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
      DECLARE v_end BOOLEAN DEFAULT FALSE;
      DECLARE wanted CURSOR FOR
        SELECT resource FROM kind_resources WHERE kind = p_kind AND p_components IS NULL
        UNION
        SELECT IF(c.word = 'plugins', 'packages', c.word) COLLATE utf8mb4_unicode_ci
          FROM JSON_TABLE(COALESCE(p_components, '[]'), '$[*]' COLUMNS (word VARCHAR(190) CHARACTER SET utf8mb4 PATH '$')) c
         ORDER BY 1;
      DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_end = TRUE;
      -- Another caller's job with this key came first; the next look finds it, unless it is claimed by then.
      DECLARE EXIT HANDLER FOR 1062
      BEGIN
        SET v_again = TRUE;
        IF v_alone THEN
          ROLLBACK;
        END IF;
      END;
      -- Has rolled back everything, the caller's part too.
      DECLARE EXIT HANDLER FOR 1213
      BEGIN
        SET v_again = TRUE, v_deadlocks = v_deadlocks + 1;
        IF NOT v_alone OR v_deadlocks > 50 THEN
          RESIGNAL;
        END IF;
        -- Callers that all try again at once only meet again.
        DO SLEEP(RAND() * v_deadlocks / 100);
      END;
      DECLARE EXIT HANDLER FOR SQLEXCEPTION
      BEGIN
        ROLLBACK TO SAVEPOINT heratio_backup_enqueue;
        IF v_alone THEN
          ROLLBACK;
        END IF;
        RESIGNAL;
      END;

      IF v_alone THEN
        SELECT MIN(id) INTO p_id FROM jobs WHERE waiting_key = p_unique_key;
      ELSE
        -- Locking, since the caller's snapshot may be older than the job, or than its claim.
        SELECT MIN(id) INTO p_id FROM jobs WHERE waiting_key = p_unique_key LOCK IN SHARE MODE;
      END IF;
      SET p_existing = p_id IS NOT NULL;
      IF NOT p_existing THEN
        INSERT INTO jobs (kind, payload, queue, priority, preempt, max_attempts, unique_key, requested_by, requested_from, run_at)
        VALUES (p_kind, p_payload, COALESCE(p_queue, 'shared'), v_priority, p_preempt, v_max_attempts, p_unique_key,
                COALESCE(p_requested_by, LEFT(USER(), 255)), LEFT(CONCAT('sql, account ', USER()), 255), COALESCE(p_run_at, UTC_TIMESTAMP(6)));
        SET p_id = LAST_INSERT_ID();
        -- Row by row: INSERT ... SELECT would lock what it reads, and each row locks its resource (the foreign key), so
        -- in the order in which a claim locks them.
        OPEN wanted;
        each_resource: LOOP
          FETCH wanted INTO v_resource;
          IF v_end THEN
            LEAVE each_resource;
          END IF;
          INSERT INTO job_resources (job_id, resource) VALUES (p_id, v_resource);
        END LOOP;
        CLOSE wanted;
      END IF;
    END;
    IF NOT v_again THEN
      LEAVE attempts;
    END IF;
  END LOOP;
  IF v_alone THEN
    COMMIT;
  ELSE
    RELEASE SAVEPOINT heratio_backup_enqueue;
  END IF;
END;

DROP PROCEDURE IF EXISTS enqueue_checked_job;
CREATE PROCEDURE enqueue_checked_job(
  IN p_destructive BOOLEAN, IN p_kind VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_payload LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, IN p_options LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci)
SQL SECURITY INVOKER
COMMENT 'What the two procedures have in common'
BEGIN
  DECLARE v_kind VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_at_most_once, v_unique_jobs, v_existing, v_preempt BOOLEAN DEFAULT FALSE;
  DECLARE v_payload, v_components, v_canonical LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_archive VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_lowers_safety VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_run_at DATETIME(6);
  DECLARE v_queue VARCHAR(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_by VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_key VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
  DECLARE v_id BIGINT UNSIGNED;

  SELECT MIN(kind), MIN(at_most_once), MIN(unique_jobs) INTO v_kind, v_at_most_once, v_unique_jobs FROM kinds WHERE CAST(kind AS BINARY) = CAST(p_kind AS BINARY);
  IF v_kind IS NULL THEN
    CALL refuse_job(CONCAT('there is no kind `', COALESCE(LEFT(p_kind, 40), 'NULL'), '`; the table kinds lists them'));
  END IF;
  IF v_at_most_once AND NOT p_destructive THEN
    CALL refuse_job(CONCAT('kind `', v_kind, '` changes or deletes data: call enqueue_restore_job'));
  END IF;
  CALL check_job_payload(v_kind, COALESCE(p_payload, '{}'), v_payload, v_components, v_lowers_safety, v_archive, v_canonical);
  IF v_lowers_safety IS NOT NULL AND NOT p_destructive THEN
    CALL refuse_job(CONCAT('payload: `', v_lowers_safety, '` lowers safety: call enqueue_restore_job'));
  END IF;
  IF p_destructive AND NOT v_at_most_once AND v_lowers_safety IS NULL THEN
    CALL refuse_job(CONCAT('kind `', v_kind, '` with this payload is safe: call enqueue_backup_job'));
  END IF;
  CALL check_job_options(COALESCE(p_options, '{}'), v_run_at, v_queue, v_by, v_key, v_preempt);
  IF v_preempt AND NOT v_at_most_once THEN
    CALL refuse_job(CONCAT('options: kind `', v_kind, '` does not preempt; only destructive kinds do'));
  END IF;
  IF v_queue IS NULL AND v_archive IS NOT NULL THEN
    SELECT MIN(CONCAT('node:', node)) INTO v_queue FROM archives
     WHERE state = 'complete' AND (file_name = v_archive OR backup_id = IF(v_archive REGEXP '^[0-9]+$', CAST(v_archive AS UNSIGNED), NULL));
  END IF;
  IF v_unique_jobs AND v_key IS NULL AND v_run_at IS NULL THEN
    SET v_key = CONCAT(v_kind, ' ', COALESCE(v_queue, 'shared'), ' ', SHA2(v_canonical, 256));
  END IF;
  CALL insert_job(v_kind, v_payload, v_components, v_run_at, v_queue, v_by, v_key, v_preempt, v_id, v_existing);
  SELECT v_id AS id, v_existing AS existing;
END;
