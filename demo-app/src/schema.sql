-- Tables of a Heratio-like application: the archival core on AtoM's class-table
-- inheritance (every record is an `object` row, its class's table shares the id),
-- Heratio's own ahg_ tables, and Laravel's. Written for this project; loads alike on
-- MariaDB 10.11 and MySQL 9. Foreign keys point forward and in circles: load with
-- FOREIGN_KEY_CHECKS=0.

CREATE TABLE `object` (
  `id`            INT NOT NULL AUTO_INCREMENT,
  `class_name`    VARCHAR(255) NULL,
  `created_at`    DATETIME NOT NULL,
  `updated_at`    DATETIME NOT NULL,
  `serial_number` INT NOT NULL DEFAULT 0,
  PRIMARY KEY (`id`),
  KEY `object_class` (`class_name`(32), `updated_at`)
) ENGINE=InnoDB AUTO_INCREMENT=10000000 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `taxonomy` (
  `id`             INT NOT NULL,
  `usage`          VARCHAR(1024) NULL,
  `parent_id`      INT NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `taxonomy_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `taxonomy_FK_2` FOREIGN KEY (`parent_id`) REFERENCES `taxonomy` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `taxonomy_i18n` (
  `name`    VARCHAR(1024) NULL,
  `note`    TEXT NULL,
  `id`      INT NOT NULL,
  `culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `taxonomy_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `taxonomy` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `term` (
  `id`             INT NOT NULL,
  `taxonomy_id`    INT NOT NULL,
  `code`           VARCHAR(1024) NULL,
  `parent_id`      INT NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  KEY `term_code` (`code`(40)),
  CONSTRAINT `term_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `term_FK_2` FOREIGN KEY (`taxonomy_id`) REFERENCES `taxonomy` (`id`) ON DELETE CASCADE,
  CONSTRAINT `term_FK_3` FOREIGN KEY (`parent_id`) REFERENCES `term` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `term_i18n` (
  `name`    VARCHAR(1024) NULL,
  `id`      INT NOT NULL,
  `culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `term_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `term` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `actor` (
  `id`                     INT NOT NULL,
  `corporate_body_identifiers` VARCHAR(1024) NULL,
  `entity_type_id`         INT NULL,
  `description_identifier` VARCHAR(1024) NULL,
  `parent_id`              INT NULL,
  `source_culture`         VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `actor_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `actor_FK_2` FOREIGN KEY (`entity_type_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `actor_FK_3` FOREIGN KEY (`parent_id`) REFERENCES `actor` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `actor_i18n` (
  `authorized_form_of_name` VARCHAR(1024) NULL,
  `dates_of_existence`      VARCHAR(1024) NULL,
  `history`                 TEXT NULL,
  `places`                  TEXT NULL,
  `id`                      INT NOT NULL,
  `culture`                 VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `actor_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `actor` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `repository` (
  `id`             INT NOT NULL,
  `identifier`     VARCHAR(1024) NULL,
  `desc_status_id` INT NULL,
  `upload_limit`   FLOAT NULL,
  `latitude`       DECIMAL(9,6) NULL,
  `longitude`      DECIMAL(9,6) NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `repository_FK_1` FOREIGN KEY (`id`) REFERENCES `actor` (`id`) ON DELETE CASCADE,
  CONSTRAINT `repository_FK_2` FOREIGN KEY (`desc_status_id`) REFERENCES `term` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `repository_i18n` (
  `geocultural_context` TEXT NULL,
  `opening_times`       TEXT NULL,
  `id`                  INT NOT NULL,
  `culture`             VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `repository_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `repository` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- password_hash: bcrypt over the hexadecimal SHA-1 of salt followed by the password.
CREATE TABLE `user` (
  `id`            INT NOT NULL,
  `username`      VARCHAR(255) NULL,
  `email`         VARCHAR(255) NULL,
  `password_hash` VARCHAR(255) NULL,
  `salt`          VARCHAR(255) NULL,
  `active`        TINYINT(1) NULL DEFAULT 1,
  PRIMARY KEY (`id`),
  UNIQUE KEY `user_username` (`username`),
  CONSTRAINT `user_FK_1` FOREIGN KEY (`id`) REFERENCES `actor` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `acl_group` (
  `id`             INT NOT NULL AUTO_INCREMENT,
  `parent_id`      INT NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  `created_at`     DATETIME NOT NULL,
  `updated_at`     DATETIME NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `acl_group_FK_1` FOREIGN KEY (`parent_id`) REFERENCES `acl_group` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `acl_group_i18n` (
  `name`        VARCHAR(255) NULL,
  `description` TEXT NULL,
  `id`          INT NOT NULL,
  `culture`     VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `acl_group_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `acl_group` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `acl_user_group` (
  `id`       INT NOT NULL AUTO_INCREMENT,
  `user_id`  INT NOT NULL,
  `group_id` INT NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `acl_user_group_once` (`user_id`, `group_id`),
  CONSTRAINT `acl_user_group_FK_1` FOREIGN KEY (`user_id`) REFERENCES `user` (`id`) ON DELETE CASCADE,
  CONSTRAINT `acl_user_group_FK_2` FOREIGN KEY (`group_id`) REFERENCES `acl_group` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `acl_permission` (
  `id`         INT NOT NULL AUTO_INCREMENT,
  `user_id`    INT NULL,
  `group_id`   INT NULL,
  `object_id`  INT NULL,
  `action`     VARCHAR(255) NULL,
  `grant_deny` INT NOT NULL DEFAULT 0,
  `conditional` TEXT NULL,
  `created_at` DATETIME NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `acl_permission_FK_1` FOREIGN KEY (`user_id`) REFERENCES `user` (`id`) ON DELETE CASCADE,
  CONSTRAINT `acl_permission_FK_2` FOREIGN KEY (`group_id`) REFERENCES `acl_group` (`id`) ON DELETE CASCADE,
  CONSTRAINT `acl_permission_FK_3` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- The hierarchy three times: parent_id, the nested set (lft, rgt), and information_object_closure.
CREATE TABLE `information_object` (
  `id`                       INT NOT NULL,
  `identifier`               VARCHAR(1024) NULL,
  `oai_local_identifier`     INT NOT NULL AUTO_INCREMENT,
  `level_of_description_id`  INT NULL,
  `collection_type_id`       INT NULL,
  `repository_id`            INT NULL,
  `parent_id`                INT NULL,
  `description_status_id`    INT NULL,
  `description_detail_id`    INT NULL,
  `description_identifier`   VARCHAR(1024) NULL,
  `source_standard`          VARCHAR(1024) NULL,
  `display_standard_id`      INT NULL,
  `lft`                      INT NULL,
  `rgt`                      INT NULL,
  `source_culture`           VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `information_object_U_1` (`oai_local_identifier`),
  KEY `lft` (`lft`),
  KEY `rgt` (`rgt`),
  KEY `identifier` (`identifier`(100)),
  CONSTRAINT `information_object_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `information_object_FK_2` FOREIGN KEY (`level_of_description_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `information_object_FK_3` FOREIGN KEY (`collection_type_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `information_object_FK_4` FOREIGN KEY (`repository_id`) REFERENCES `repository` (`id`) ON DELETE SET NULL,
  CONSTRAINT `information_object_FK_5` FOREIGN KEY (`parent_id`) REFERENCES `information_object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `information_object_FK_6` FOREIGN KEY (`description_status_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `information_object_FK_7` FOREIGN KEY (`description_detail_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `information_object_FK_8` FOREIGN KEY (`display_standard_id`) REFERENCES `term` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `information_object_i18n` (
  `title`                    VARCHAR(1024) NULL,
  `alternate_title`          VARCHAR(1024) NULL,
  `extent_and_medium`        TEXT NULL,
  `archival_history`         TEXT NULL,
  `acquisition`              TEXT NULL,
  `scope_and_content`        TEXT NULL,
  `arrangement`              TEXT NULL,
  `access_conditions`        TEXT NULL,
  `physical_characteristics` TEXT NULL,
  `finding_aids`             TEXT NULL,
  `revision_history`         TEXT NULL,
  `id`                       INT NOT NULL,
  `culture`                  VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  FULLTEXT KEY `information_object_i18n_title` (`title`),
  CONSTRAINT `information_object_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `information_object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `information_object_closure` (
  `ancestor`   INT NOT NULL,
  `descendant` INT NOT NULL,
  `depth`      SMALLINT UNSIGNED NOT NULL,
  PRIMARY KEY (`ancestor`, `descendant`),
  KEY `closure_descendant` (`descendant`, `depth`),
  CONSTRAINT `information_object_closure_FK_1` FOREIGN KEY (`ancestor`) REFERENCES `information_object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `information_object_closure_FK_2` FOREIGN KEY (`descendant`) REFERENCES `information_object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `ahg_node_sibling_order` (
  `entity`        VARCHAR(64) NOT NULL,
  `node_id`       INT NOT NULL,
  `parent_id`     INT NULL,
  `sibling_order` INT UNSIGNED NOT NULL DEFAULT 0,
  PRIMARY KEY (`entity`, `node_id`),
  KEY `ahg_node_sibling_order_parent` (`entity`, `parent_id`, `sibling_order` DESC)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `slug` (
  `object_id`     INT NOT NULL,
  `slug`          VARCHAR(255) NOT NULL,
  `id`            INT NOT NULL AUTO_INCREMENT,
  `serial_number` INT NOT NULL DEFAULT 0,
  PRIMARY KEY (`id`),
  UNIQUE KEY `slug_U_1` (`object_id`),
  UNIQUE KEY `slug_U_2` (`slug`),
  CONSTRAINT `slug_FK_1` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- The newer of the two layouts in the wild: a status is an object (class QubitStatus) of its own.
CREATE TABLE `status` (
  `object_id`     INT NOT NULL,
  `type_id`       INT NULL,
  `status_id`     INT NULL,
  `id`            INT NOT NULL,
  `serial_number` INT NOT NULL DEFAULT 0,
  PRIMARY KEY (`id`),
  CONSTRAINT `status_FK_1` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `status_FK_2` FOREIGN KEY (`type_id`) REFERENCES `term` (`id`) ON DELETE CASCADE,
  CONSTRAINT `status_FK_3` FOREIGN KEY (`status_id`) REFERENCES `term` (`id`) ON DELETE CASCADE,
  CONSTRAINT `status_FK_4` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `note` (
  `object_id`      INT NOT NULL,
  `type_id`        INT NULL,
  `scope`          VARCHAR(1024) NULL,
  `user_id`        INT NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  `id`             INT NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (`id`),
  CONSTRAINT `note_FK_1` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `note_FK_2` FOREIGN KEY (`type_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `note_FK_3` FOREIGN KEY (`user_id`) REFERENCES `user` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `note_i18n` (
  `content` TEXT NULL,
  `id`      INT NOT NULL,
  `culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `note_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `note` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `property` (
  `object_id`      INT NOT NULL,
  `scope`          VARCHAR(1024) NULL,
  `name`           VARCHAR(1024) NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  `id`             INT NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (`id`),
  KEY `property_name` (`name`(24)),
  CONSTRAINT `property_FK_1` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `property_i18n` (
  `value`   TEXT NULL,
  `id`      INT NOT NULL,
  `culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `property_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `property` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- Dates may lack month or day (1890-00-00), as archivists know them: sql_mode must allow that on load.
CREATE TABLE `event` (
  `id`             INT NOT NULL,
  `start_date`     DATE NULL,
  `start_time`     TIME NULL,
  `end_date`       DATE NULL,
  `end_time`       TIME NULL,
  `type_id`        INT NOT NULL,
  `object_id`      INT NULL,
  `actor_id`       INT NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `event_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `event_FK_2` FOREIGN KEY (`type_id`) REFERENCES `term` (`id`) ON DELETE CASCADE,
  CONSTRAINT `event_FK_3` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `event_FK_4` FOREIGN KEY (`actor_id`) REFERENCES `actor` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `event_i18n` (
  `name`        VARCHAR(1024) NULL,
  `description` TEXT NULL,
  `date`        VARCHAR(1024) NULL,
  `id`          INT NOT NULL,
  `culture`     VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `event_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `event` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `relation` (
  `id`             INT NOT NULL,
  `subject_id`     INT NOT NULL,
  `object_id`      INT NOT NULL,
  `type_id`        INT NULL,
  `start_date`     DATE NULL,
  `end_date`       DATE NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `relation_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `relation_FK_2` FOREIGN KEY (`subject_id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `relation_FK_3` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `relation_FK_4` FOREIGN KEY (`type_id`) REFERENCES `term` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `relation_i18n` (
  `description` TEXT NULL,
  `date`        VARCHAR(1024) NULL,
  `id`          INT NOT NULL,
  `culture`     VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `relation_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `relation` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `object_term_relation` (
  `id`         INT NOT NULL,
  `object_id`  INT NOT NULL,
  `term_id`    INT NOT NULL,
  `start_date` DATE NULL,
  `end_date`   DATE NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `object_term_relation_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `object_term_relation_FK_2` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `object_term_relation_FK_3` FOREIGN KEY (`term_id`) REFERENCES `term` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- A master belongs to a description; its derivatives have parent_id = master and no object_id.
CREATE TABLE `digital_object` (
  `id`            INT NOT NULL,
  `object_id`     INT NULL,
  `usage_id`      INT NULL,
  `media_type_id` INT NULL,
  `mime_type`     VARCHAR(255) NULL,
  `name`          VARCHAR(1024) NOT NULL,
  `path`          VARCHAR(1024) NOT NULL,
  `sequence`      INT NULL,
  `byte_size`     BIGINT UNSIGNED NULL,
  `megabytes`     DECIMAL(14,3) GENERATED ALWAYS AS (`byte_size` / 1048576) STORED,
  `checksum`      VARCHAR(255) NULL,
  `checksum_type` VARCHAR(50) NULL,
  `parent_id`     INT NULL,
  `language`      VARCHAR(50) NULL,
  PRIMARY KEY (`id`),
  KEY `digital_object_megabytes` (`megabytes`),
  CONSTRAINT `digital_object_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `digital_object_FK_2` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `digital_object_FK_3` FOREIGN KEY (`usage_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `digital_object_FK_4` FOREIGN KEY (`media_type_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `digital_object_FK_5` FOREIGN KEY (`parent_id`) REFERENCES `digital_object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `digital_object_metadata` (
  `id`                INT NOT NULL AUTO_INCREMENT,
  `digital_object_id` INT NOT NULL,
  `exif`              JSON NULL,
  `thumbnail`         MEDIUMBLOB NULL,
  `fingerprint`       BINARY(16) NULL,
  `duration`          DOUBLE NULL,
  `captured_at`       DATETIME(6) NULL,
  `extracted_at`      TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (`id`),
  UNIQUE KEY `digital_object_metadata_once` (`digital_object_id`),
  CONSTRAINT `digital_object_metadata_FK_1` FOREIGN KEY (`digital_object_id`) REFERENCES `digital_object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `preservation_checksum` (
  `id`                BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  `digital_object_id` INT NOT NULL,
  `algorithm`         ENUM('md5','sha1','sha256','sha512') NOT NULL DEFAULT 'sha256',
  `digest`            VARBINARY(64) NOT NULL,
  `verified_at`       TIMESTAMP NULL DEFAULT NULL,
  `verdict`           ENUM('valid','invalid','it''s gone','') NOT NULL DEFAULT '',
  PRIMARY KEY (`id`),
  CONSTRAINT `preservation_checksum_FK_1` FOREIGN KEY (`digital_object_id`) REFERENCES `digital_object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `physical_object` (
  `id`             INT NOT NULL,
  `type_id`        INT NULL,
  `parent_id`      INT NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `physical_object_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `physical_object_FK_2` FOREIGN KEY (`type_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `physical_object_FK_3` FOREIGN KEY (`parent_id`) REFERENCES `physical_object` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `physical_object_i18n` (
  `name`        VARCHAR(1024) NULL,
  `description` TEXT NULL,
  `location`    TEXT NULL,
  `id`          INT NOT NULL,
  `culture`     VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `physical_object_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `physical_object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- A box may hold more than it is made for: the generated column goes below zero.
CREATE TABLE `physical_object_extended` (
  `id`                 INT NOT NULL AUTO_INCREMENT,
  `physical_object_id` INT NOT NULL,
  `barcode`            CHAR(13) NULL,
  `total_capacity`     INT UNSIGNED NULL,
  `used_capacity`      INT UNSIGNED NULL DEFAULT 0,
  `available_capacity` INT GENERATED ALWAYS AS (CAST(`total_capacity` AS SIGNED) - CAST(`used_capacity` AS SIGNED)) VIRTUAL,
  `flags`              BIT(8) NOT NULL DEFAULT b'0',
  `climate`            SET('dry','cool','dark','sealed') NULL,
  `status`             ENUM('active','full','maintenance','decommissioned') NOT NULL DEFAULT 'active',
  `notes`              TEXT NULL,
  PRIMARY KEY (`id`),
  KEY `physical_object_extended_available` (`available_capacity`),
  CONSTRAINT `physical_object_extended_FK_1` FOREIGN KEY (`physical_object_id`) REFERENCES `physical_object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `other_name` (
  `object_id`      INT NOT NULL,
  `type_id`        INT NULL,
  `start_date`     DATE NULL,
  `end_date`       DATE NULL,
  `source_culture` VARCHAR(16) NOT NULL,
  `id`             INT NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (`id`),
  CONSTRAINT `other_name_FK_1` FOREIGN KEY (`object_id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `other_name_FK_2` FOREIGN KEY (`type_id`) REFERENCES `term` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `other_name_i18n` (
  `name`    VARCHAR(1024) NULL,
  `note`    VARCHAR(1024) NULL,
  `dates`   TEXT NULL,
  `id`      INT NOT NULL,
  `culture` VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `other_name_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `other_name` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `rights` (
  `id`                  INT NOT NULL,
  `start_date`          DATE NULL,
  `end_date`            DATE NULL,
  `basis_id`            INT NULL,
  `rights_holder_id`    INT NULL,
  `copyright_status_id` INT NULL,
  `source_culture`      VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `rights_FK_1` FOREIGN KEY (`id`) REFERENCES `object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `rights_FK_2` FOREIGN KEY (`basis_id`) REFERENCES `term` (`id`) ON DELETE SET NULL,
  CONSTRAINT `rights_FK_3` FOREIGN KEY (`rights_holder_id`) REFERENCES `actor` (`id`) ON DELETE SET NULL,
  CONSTRAINT `rights_FK_4` FOREIGN KEY (`copyright_status_id`) REFERENCES `term` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `rights_i18n` (
  `rights_note`    TEXT NULL,
  `copyright_note` TEXT NULL,
  `id`             INT NOT NULL,
  `culture`        VARCHAR(16) NOT NULL,
  PRIMARY KEY (`id`, `culture`),
  CONSTRAINT `rights_i18n_FK_1` FOREIGN KEY (`id`) REFERENCES `rights` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `granted_right` (
  `rights_id`   INT NOT NULL,
  `act_id`      INT NULL,
  `restriction` TINYINT(1) NULL DEFAULT 1,
  `notes`       TEXT NULL,
  `id`          INT NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (`id`),
  CONSTRAINT `granted_right_FK_1` FOREIGN KEY (`rights_id`) REFERENCES `rights` (`id`) ON DELETE CASCADE,
  CONSTRAINT `granted_right_FK_2` FOREIGN KEY (`act_id`) REFERENCES `term` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `museum_metadata` (
  `id`              BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  `object_id`       INT NOT NULL,
  `accession_code`  VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german1_ci NULL,
  `height_cm`       DECIMAL(10,2) NULL,
  `width_cm`        DECIMAL(10,2) NULL,
  `depth_cm`        DECIMAL(10,2) NULL,
  `volume_cm3`      DECIMAL(30,6) GENERATED ALWAYS AS (`height_cm` * `width_cm` * `depth_cm`) STORED,
  `insurance_value` DECIMAL(15,2) NOT NULL DEFAULT 0.00,
  `year_made`       YEAR NULL,
  `materials`       JSON NULL,
  `is_on_display`   BIT(1) NOT NULL DEFAULT b'0',
  `updated_at`      TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  PRIMARY KEY (`id`),
  UNIQUE KEY `museum_metadata_once` (`object_id`),
  CONSTRAINT `museum_metadata_FK_1` FOREIGN KEY (`object_id`) REFERENCES `information_object` (`id`) ON DELETE CASCADE,
  CONSTRAINT `museum_metadata_sizes` CHECK (`height_cm` IS NULL OR `height_cm` >= 0)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `ahg_io_security` (
  `object_id`      INT NOT NULL,
  `classification` ENUM('public','internal','confidential','secret') NOT NULL DEFAULT 'public',
  `handling`       TINYTEXT NULL,
  `review_at`      DATE NULL,
  PRIMARY KEY (`object_id`),
  CONSTRAINT `ahg_io_security_FK_1` FOREIGN KEY (`object_id`) REFERENCES `information_object` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `ahg_settings` (
  `id`            INT NOT NULL AUTO_INCREMENT,
  `setting_key`   VARCHAR(100) NOT NULL,
  `setting_value` TEXT NULL,
  `setting_type`  VARCHAR(43) NULL DEFAULT 'string',
  `setting_group` VARCHAR(50) NOT NULL DEFAULT 'general',
  `description`   VARCHAR(500) NULL,
  `is_sensitive`  TINYINT(1) NULL DEFAULT 0,
  `is_locked`     TINYINT(1) NOT NULL DEFAULT 0,
  `updated_by`    INT NULL,
  `updated_at`    DATETIME NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  `created_at`    DATETIME NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (`id`),
  UNIQUE KEY `ahg_settings_key` (`setting_key`),
  KEY `ahg_settings_group` (`setting_group`),
  CONSTRAINT `ahg_settings_FK_1` FOREIGN KEY (`updated_by`) REFERENCES `user` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `ahg_notification` (
  `id`            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  `user_id`       INT UNSIGNED NOT NULL,
  `type`          VARCHAR(64) NOT NULL,
  `title`         VARCHAR(255) NOT NULL,
  `message`       TEXT NULL,
  `link`          VARCHAR(500) NULL,
  `related_type`  VARCHAR(64) NULL,
  `related_id`    BIGINT UNSIGNED NULL,
  `actor_user_id` INT UNSIGNED NULL,
  `actor_name`    VARCHAR(255) NULL,
  `is_read`       TINYINT(1) NOT NULL DEFAULT 0,
  `is_dismissed`  TINYINT(1) NOT NULL DEFAULT 0,
  `created_at`    DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
  `read_at`       DATETIME NULL,
  PRIMARY KEY (`id`),
  KEY `ahg_notification_user` (`user_id`, `is_read`),
  KEY `ahg_notification_created` (`created_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- Rows with a seq are chained by their hashes; triggers refuse to change or delete those.
CREATE TABLE `ahg_audit_log` (
  `id`          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  `seq`         BIGINT UNSIGNED NULL,
  `user_id`     INT NULL,
  `username`    VARCHAR(255) NULL,
  `action`      VARCHAR(64) NOT NULL,
  `entity_type` VARCHAR(64) NULL,
  `entity_id`   BIGINT NULL,
  `old_values`  JSON NULL,
  `new_values`  JSON NULL,
  `ip_address`  VARBINARY(16) NULL,
  `created_at`  DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  `prev_hash`   CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
  `row_hash`    CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `ahg_audit_log_seq` (`seq`),
  KEY `ahg_audit_log_entity` (`entity_type`, `entity_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- An import's scratch table, as they grow everywhere: no primary key, and identical rows.
CREATE TABLE `ahg_import_staging` (
  `batch`    VARCHAR(36) NOT NULL DEFAULT (UUID()),
  `line`     INT NULL,
  `raw`      LONGTEXT NULL,
  `checksum` DOUBLE NULL,
  KEY `ahg_import_staging_batch` (`batch`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- A colleague's accession register: names that need quoting, in every sense, and a column that SELECT * does not show.
CREATE TABLE `Zugänge (alt) 1987` (
  `lfd. Nr.`     INT NOT NULL AUTO_INCREMENT,
  `Größe (cm)`   DECIMAL(8,3) NULL,
  `order`        VARCHAR(60) NOT NULL DEFAULT 'it''s "here" \\ there',
  `back``tick`   VARCHAR(60) NULL COMMENT 'name with a `; comment with a '' and a \\',
  `名称`         VARCHAR(200) NULL,
  `Uhrzeit`      TIME(3) NULL,
  `Messwert`     FLOAT NULL,
  `Rohwert`      DOUBLE NULL,
  `intern`       INT NULL DEFAULT 7 INVISIBLE,
  PRIMARY KEY (`lfd. Nr.`),
  KEY `nach Größe` (`Größe (cm)`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Zugangsbuch; ''alt''';

-- Laravel's own.

CREATE TABLE `migrations` (
  `id`        INT UNSIGNED NOT NULL AUTO_INCREMENT,
  `migration` VARCHAR(255) NOT NULL,
  `batch`     INT NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `jobs` (
  `id`           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  `queue`        VARCHAR(255) NOT NULL,
  `payload`      LONGTEXT NOT NULL,
  `attempts`     TINYINT UNSIGNED NOT NULL,
  `reserved_at`  INT UNSIGNED NULL,
  `available_at` INT UNSIGNED NOT NULL,
  `created_at`   INT UNSIGNED NOT NULL,
  PRIMARY KEY (`id`),
  KEY `jobs_queue_index` (`queue`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `failed_jobs` (
  `id`         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  `uuid`       VARCHAR(255) NOT NULL,
  `connection` TEXT NOT NULL,
  `queue`      TEXT NOT NULL,
  `payload`    LONGTEXT NOT NULL,
  `exception`  LONGTEXT NOT NULL,
  `failed_at`  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (`id`),
  UNIQUE KEY `failed_jobs_uuid_unique` (`uuid`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `sessions` (
  `id`            VARCHAR(255) NOT NULL,
  `user_id`       BIGINT UNSIGNED NULL,
  `ip_address`    VARCHAR(45) NULL,
  `user_agent`    TEXT NULL,
  `payload`       LONGTEXT NOT NULL,
  `last_activity` INT NOT NULL,
  PRIMARY KEY (`id`),
  KEY `sessions_last_activity_index` (`last_activity`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `cache` (
  `key`        VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `value`      MEDIUMTEXT NOT NULL,
  `expiration` INT NOT NULL,
  PRIMARY KEY (`key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `cache_locks` (
  `key`        VARCHAR(255) NOT NULL,
  `owner`      VARCHAR(255) NOT NULL,
  `expiration` INT NOT NULL,
  PRIMARY KEY (`key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
