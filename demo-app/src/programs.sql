-- Views, routines, triggers and events. They come after the data, since the triggers
-- would fire. Names are not qualified by a schema, so that they work in any.

SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION';

DROP VIEW IF EXISTS `description_by_reference`, `published_description`, `a_description`;
DROP FUNCTION IF EXISTS `display_title`;
DROP FUNCTION IF EXISTS `reference_code`;
DROP PROCEDURE IF EXISTS `rebuild_closure`;
DROP EVENT IF EXISTS `purge_expired_cache`;
DROP EVENT IF EXISTS `yearly_review`;

DELIMITER ;;

CREATE FUNCTION `display_title`(io INT, wanted VARCHAR(16)) RETURNS VARCHAR(1024) CHARSET utf8mb4
  READS SQL DATA
  COMMENT 'the title in the wanted culture; else in its own; else ''[Untitled]'''
BEGIN
  DECLARE found VARCHAR(1024) CHARSET utf8mb4;
  SELECT i.title INTO found FROM information_object_i18n i WHERE i.id = io AND i.culture = wanted;
  IF found IS NULL THEN
    SELECT i.title INTO found
      FROM information_object o JOIN information_object_i18n i ON i.id = o.id AND i.culture = o.source_culture
     WHERE o.id = io;
  END IF;
  RETURN COALESCE(found, '[Untitled] \\ 無題 🙈'); -- a comment; with a semicolon
END;;

-- Its body is only right under the sql_mode that it was created with.
SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT';;

CREATE FUNCTION "reference_code"(io INT) RETURNS VARCHAR(255) CHARSET utf8mb4
  READS SQL DATA
BEGIN
  DECLARE "code" VARCHAR(255) CHARSET utf8mb4;
  SELECT GROUP_CONCAT(o."identifier" ORDER BY c."depth" DESC SEPARATOR '/') INTO "code"
    FROM information_object_closure c JOIN information_object o ON o.id = c.ancestor
   WHERE c.descendant = io AND o.parent_id IS NOT NULL;
  RETURN 'ZA' || '-' || COALESCE("code", '?');
END;;

SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION';;

CREATE PROCEDURE `rebuild_closure`(OUT paths BIGINT)
  MODIFIES SQL DATA
BEGIN
  DECLARE d INT DEFAULT 0;
  DECLARE added BIGINT DEFAULT 1;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
  START TRANSACTION;
  DELETE FROM information_object_closure;
  INSERT INTO information_object_closure SELECT id, id, 0 FROM information_object;
  SET paths = ROW_COUNT();
  WHILE added > 0 DO
    INSERT INTO information_object_closure
      SELECT c.ancestor, o.id, c.depth + 1
        FROM information_object_closure c JOIN information_object o ON o.parent_id = c.descendant
       WHERE c.depth = d;
    SET added = ROW_COUNT();
    SET paths = paths + added;
    SET d = d + 1;
  END WHILE;
  COMMIT;
END;;

-- In a dump ordered by name, each of these comes before something that it needs.
CREATE VIEW `published_description` AS
  SELECT o.id, o.identifier, o.parent_id, o.lft, s.slug, i.title, i.culture
    FROM information_object o
    JOIN information_object_i18n i ON i.id = o.id AND i.culture = o.source_culture
    JOIN slug s ON s.object_id = o.id
    JOIN status t ON t.object_id = o.id AND t.type_id = 158 AND t.status_id = 160;;

CREATE SQL SECURITY INVOKER VIEW `a_description` (`id`, `Titel / 名称`, `level`) AS
  SELECT p.id, p.title, t.name
    FROM published_description p
    JOIN information_object o ON o.id = p.id
    LEFT JOIN term_i18n t ON t.id = o.level_of_description_id AND t.culture = 'en';;

CREATE VIEW `description_by_reference` AS
  SELECT a.id, reference_code(a.id) AS reference, display_title(a.id, 'en') AS title FROM a_description a;;

CREATE TRIGGER `slug_lower` BEFORE INSERT ON `slug` FOR EACH ROW
BEGIN
  SET NEW.slug = LOWER(TRIM(NEW.slug));
  IF NEW.slug = '' THEN
    SET NEW.slug = CONCAT('object-', NEW.object_id);
  END IF;
END;;

CREATE TRIGGER `a_slug_after_that` BEFORE INSERT ON `slug` FOR EACH ROW FOLLOWS `slug_lower`
  SET NEW.slug = REPLACE(NEW.slug, ' ', '-');;

CREATE TRIGGER `information_object_i18n_audit` AFTER UPDATE ON `information_object_i18n` FOR EACH ROW
BEGIN
  IF NOT (OLD.title <=> NEW.title) THEN
    INSERT INTO ahg_audit_log (username, action, entity_type, entity_id, old_values, new_values)
    VALUES (CURRENT_USER(), 'update', 'information_object', NEW.id, JSON_OBJECT('title', OLD.title), JSON_OBJECT('title', NEW.title));
    UPDATE object SET updated_at = UTC_TIMESTAMP(), serial_number = serial_number + 1 WHERE id = NEW.id;
  END IF;
END;;

CREATE TRIGGER `ahg_audit_log_no_update_chained` BEFORE UPDATE ON `ahg_audit_log` FOR EACH ROW
BEGIN
  IF OLD.seq IS NOT NULL THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'ahg_audit_log: chained rows can''t be changed';
  END IF;
END;;

CREATE TRIGGER `ahg_audit_log_no_delete_chained` BEFORE DELETE ON `ahg_audit_log` FOR EACH ROW
BEGIN
  IF OLD.seq IS NOT NULL THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'ahg_audit_log: chained rows can''t be deleted';
  END IF;
END;;

-- Harmless whenever it fires: nothing in the demo's cache expires before 2037.
CREATE EVENT `purge_expired_cache` ON SCHEDULE EVERY 1 DAY STARTS '2026-01-01 03:00:00' ON COMPLETION PRESERVE ENABLE
  COMMENT 'it''s daily'
DO
BEGIN
  DELETE FROM cache WHERE expiration < UNIX_TIMESTAMP();
  DELETE FROM cache_locks WHERE expiration < UNIX_TIMESTAMP();
END;;

CREATE EVENT `yearly_review` ON SCHEDULE EVERY 1 YEAR STARTS '2036-01-01 00:00:00' DISABLE
DO UPDATE ahg_io_security SET review_at = CURRENT_DATE WHERE review_at IS NULL;;

DELIMITER ;
