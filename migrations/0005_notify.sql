-- Notifications: what was delivered to whom, and when an alert was last raised.

CREATE TABLE IF NOT EXISTS notification_deliveries (
  job_id        BIGINT UNSIGNED NOT NULL COMMENT 'the job of kind notify',
  channel       VARCHAR(16)  NOT NULL COMMENT 'mail, in_app, spool',
  recipient     VARCHAR(255) NOT NULL COMMENT 'mail address, application, file name',
  outcome       VARCHAR(16)  NOT NULL COMMENT 'delivered, or refused for good; neither is tried again',
  detail        TEXT         NULL COMMENT 'the server''s words, or who was told',
  at            DATETIME(6)  NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'UTC',
  PRIMARY KEY (job_id, channel, recipient),
  CONSTRAINT notification_deliveries_job FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE,
  CONSTRAINT notification_deliveries_outcome CHECK (outcome IN ('delivered', 'refused'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
  COMMENT='What a notification has reached: written right after each delivery, so that a retry does not repeat it';

CREATE TABLE IF NOT EXISTS alerts (
  alert_key     VARCHAR(190) NOT NULL COMMENT 'what the alert is about, such as disk_nearly_full:node1',
  raised_at     DATETIME(6)  NOT NULL COMMENT 'UTC; not raised again within a day',
  job_id        BIGINT UNSIGNED NULL COMMENT 'the job of kind notify that told it; no foreign key, since history may be pruned',
  PRIMARY KEY (alert_key)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Health alerts, each at most once a day';
