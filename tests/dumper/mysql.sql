-- Features of MySQL alone.
SET NAMES utf8mb4;
SET sql_mode = '';
CREATE TABLE modern_keys (
  id INT PRIMARY KEY, a INT, b VARCHAR(50), j JSON, h INT INVISIBLE DEFAULT 7, g INT GENERATED ALWAYS AS (a + 1) VIRTUAL INVISIBLE,
  p POINT NOT NULL SRID 4326, q GEOMETRY SRID 0,
  KEY descending (a DESC, b ASC), KEY functional ((a + 1)), KEY functional2 ((CONCAT(b, 'it''s')), a), KEY hidden (a) INVISIBLE,
  KEY multi ((CAST(j->'$.tags' AS CHAR(20) ARRAY))), FULLTEXT KEY f (b) WITH PARSER ngram, SPATIAL KEY s (p),
  CONSTRAINT c1 CHECK (a > 0) NOT ENFORCED, CONSTRAINT c2 CHECK (b <> 'it''s')
);
INSERT INTO modern_keys (id, a, b, j, h, p, q) VALUES (1, 5, 'abc', '{"tags": ["x", "y"]}', 42, ST_GeomFromText('POINT(10 20)', 4326), ST_GeomFromText('POINT(1 2)'));
CREATE TABLE vectors (id INT PRIMARY KEY, v VECTOR(3), w VECTOR(4));
INSERT INTO vectors VALUES (1, STRING_TO_VECTOR('[1,2.5,-3]'), NULL);
CREATE TABLE collated (a VARCHAR(10) COLLATE utf8mb4_0900_as_cs, b VARCHAR(10) COLLATE utf8mb4_ja_0900_as_cs, c VARCHAR(10) CHARACTER SET gb18030, d TEXT CHARACTER SET cp932) COMPRESSION='NONE';
INSERT INTO collated VALUES ('Aé', 'か', '中文', '表示');
SET sql_generate_invisible_primary_key = ON;
CREATE TABLE keyless (a INT); INSERT INTO keyless VALUES (1), (2);
SET sql_generate_invisible_primary_key = OFF;
CREATE TABLE expressions (id INT PRIMARY KEY, p POINT DEFAULT (POINT(0, 0)), t TEXT DEFAULT ('it''s \\ ж'), b BLOB DEFAULT (x'0027'), e ENUM('a','😀') DEFAULT 'a');
INSERT INTO expressions (id) VALUES (1);
CREATE TABLE blocks (id INT) ENGINE=InnoDB AUTOEXTEND_SIZE=4M;
CREATE VIEW with_json AS SELECT jt.* FROM modern_keys, JSON_TABLE(j, '$.tags[*]' COLUMNS (tag VARCHAR(10) PATH '$')) jt;
CREATE VIEW with_cte AS WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < 3) SELECT n, ROW_NUMBER() OVER (ORDER BY n) AS r FROM c;
