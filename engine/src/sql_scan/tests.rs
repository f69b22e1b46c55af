use super::*;

fn scan(dump: &[u8]) -> (Vec<Event>, bool) {
    let (mut scanner, mut events) = (Scanner::default(), vec![]);
    scanner.feed(dump, &mut events);
    (events, scanner.is_complete())
}

/// Events as short lines, to compare with.
fn lines(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Section { kind, name, start } => format!("{start} {kind:?} {name}"),
        Event::Created { kind, name } => format!("+ {} {name}", kind.word()),
        Event::Rows { table, rows } => format!("{rows} rows {table}"),
        Event::Position { file, pos } => format!("at {file} {pos}"),
        Event::Gtids { set, at_position } => format!("gtids {set} {at_position}"),
        Event::SessionBinlog { start } => format!("{start} session binlog"),
        Event::StraySemicolon { start } => format!("{start} stray semicolon"),
        Event::Statement { start, end } => format!("{start} to {end}"),
    };
    events.iter().filter(|event| !matches!(event, Event::Statement { .. })).map(line).collect()
}

fn rows(sql: &str) -> Vec<(String, u64)> {
    let rows = |event| match event {
        Event::Rows { table, rows } => Some((table, rows)),
        _ => None,
    };
    scan(sql.as_bytes()).0.into_iter().filter_map(rows).collect()
}

fn counts(sql: &str, expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected.iter().map(|(table, n)| (table.to_string(), *n)).collect();
    assert_eq!(rows(sql), expected, "{sql}");
}

const MYSQL: &[u8] = include_bytes!("testdata/mysql.sql");
const MARIADB: &[u8] = include_bytes!("testdata/mariadb.sql");

#[test]
fn a_real_mysql_dump() {
    let (events, complete) = scan(MYSQL);
    assert!(complete);
    let without_offsets: Vec<_> = lines(&events)
        .into_iter()
        .map(|l| l.trim_start_matches(|c: char| c.is_ascii_digit() && !l.contains("rows")).trim().to_owned())
        .collect();
    assert_eq!(
        without_offsets,
        [
            "Header",
            "session binlog",
            "session binlog",
            "gtids 526fa9b8-e863-11f1-8dac-02fc00000001:1-23 true",
            "at binlog.000001 6759",
            "Table child",
            "+ table child",
            "Data child",
            "2 rows child",
            "Table empty1",
            "+ table empty1",
            "Data empty1",
            "1 rows empty1",
            "Table inv",
            "+ table inv",
            "Data inv",
            "2 rows inv",
            "Table t1",
            "+ table t1",
            "Data t1",
            "3 rows t1",
            "Triggers t1",
            "+ trigger tr1",
            "+ trigger tr`2",
            "Placeholder v0",
            "+ view v0",
            "Placeholder v1",
            "+ view v1",
            "Table we`ird name -- x",
            "+ table we`ird name -- x",
            "Data we`ird name -- x",
            "2 rows we`ird name -- x",
            "Table таблица",
            "+ table таблица",
            "Data таблица",
            "1 rows таблица",
            "Events app",
            "+ event e1",
            "Routines app",
            "+ function f1",
            "+ procedure p1",
            "View v0",
            "+ view v0",
            "View v1",
            "+ view v1",
            "Trailer",
            "session binlog",
        ]
    );
    for event in &events {
        match event {
            Event::SessionBinlog { start } => assert!(MYSQL[*start as usize..].starts_with(b"SET @")),
            Event::Section { kind: SectionKind::Triggers, start, .. } => {
                assert!(MYSQL[*start as usize..].starts_with(b"/*!50003 SET @saved_cs_client"));
            }
            Event::Section { kind: SectionKind::Header, start, .. } => assert_eq!(*start, 0),
            Event::Section { kind: SectionKind::Trailer, start, .. } => assert!(MYSQL[*start as usize..].starts_with(b"SET @@SESSION")),
            Event::Section { start, .. } => assert!(MYSQL[*start as usize..].starts_with(b"--\n-- ")),
            _ => {}
        }
    }
}

#[test]
fn a_real_mariadb_dump() {
    let (events, complete) = scan(MARIADB);
    assert!(complete);
    let lines = lines(&events);
    for expected in [
        "at bin.000001 5956",
        "gtids 0-11-22 true",
        "2 rows inv",
        "3 rows t1",
        "2 rows we`ird name -- x",
        "+ trigger tr`2",
        "+ procedure p1",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
    let is = |kind| events.iter().filter(|e| matches!(e, Event::Section { kind: k, .. } if *k == kind)).count();
    assert_eq!((is(SectionKind::Table), is(SectionKind::Data), is(SectionKind::Triggers), is(SectionKind::View)), (6, 6, 1, 2));
    let Some(Event::Section { start, .. }) = events.iter().find(|e| matches!(e, Event::Section { kind: SectionKind::Trailer, .. })) else {
        panic!("no trailer");
    };
    assert!(MARIADB[*start as usize..].starts_with(b"-- The deferred gtid setting"));
}

/// The events must not depend on where chunks end, and none may point before what was said to be settled.
#[test]
fn every_split_gives_the_same_events() {
    for dump in [MYSQL, MARIADB, TRICKY.as_bytes()] {
        let (whole, complete) = scan(dump);
        let (mut first, mut first_events) = (Scanner::default(), vec![]);
        for split in 0..=dump.len() {
            if split > 0 {
                first.feed(&dump[split - 1..split], &mut first_events);
            }
            let (mut scanner, mut events) = (first.clone(), first_events.clone());
            let (settled, before) = (scanner.settled(), events.len());
            assert!(settled <= split as u64);
            scanner.feed(&dump[split..], &mut events);
            assert_eq!(lines(&events), lines(&whole), "split at {split}");
            assert_eq!(scanner.is_complete(), complete);
            for event in &events[before..] {
                if let Event::Section { start, .. } | Event::SessionBinlog { start } = event {
                    assert!(*start >= settled, "{event:?} lies before {settled}, split at {split}");
                }
            }
        }
    }
}

/// Every proper prefix of a dump is incomplete.
#[test]
fn a_truncated_dump_is_not_complete() {
    for dump in [MYSQL, MARIADB] {
        let (mut scanner, mut events) = (Scanner::default(), vec![]);
        for byte in &dump[..dump.len() - 1] {
            scanner.feed(&[*byte], &mut events);
            assert!(!scanner.is_complete());
        }
        scanner.feed(b"\n\n", &mut events);
        assert!(scanner.is_complete());
        scanner.feed(b"mysqldump: Error", &mut events);
        assert!(!scanner.is_complete());
    }
    for not_complete in
        ["'\n-- Dump completed\n", "/*\n-- Dump completed\n", "SELECT\n-- Dump completed\n", "-- Dump completed", "-- Dump\n"]
    {
        assert!(!scan(not_complete.as_bytes()).1, "{not_complete}");
    }
    assert!(scan(b"SELECT 1;\n-- Dump completed\r\n").1);
}

/// Everything that is easily mistaken, each with its own rows or none.
const TRICKY: &str = r#"
-- INSERT INTO `c1` VALUES (1);
# INSERT INTO `c2` VALUES (1); it's
/* INSERT INTO `c3` VALUES (1); ' */
/*M!999999\- enable the sandbox mode */ 
/*!99999 INSERT INTO c4 VALUES (1); */
INSERT INTO `a` VALUES (1,'x''y\'z),(2'),(-2,'\\'),(3-1/2,NULL);
INSERT INTO `a` (`values`, `b`) VALUES (1,(2)),
(2,(3))
,(3,4);
insert ignore into `d`.`b` values('-- x',"it's ""(1)"""),(/* ),( */1,2)-- ),(
,(3,4) # ),(
;
REPLACE INTO c VALUES (1) ON DUPLICATE KEY UPDATE a=VALUES(a), b=VALUES(b);
INSERT INTO s SELECT (1),(2) FROM t WHERE a IN ((1),(2));
INSERT INTO s SET a=(1);
DELIMITER ;;
CREATE PROCEDURE `p`() BEGIN
  -- it's; INSERT INTO x VALUES (1);
  INSERT INTO x VALUES (1),(2); SELECT ';;', "-- Dump completed", `;;`;
-- Table structure for table `no`
END ;;
/*!50003 CREATE*/ /*!50017 DEFINER=`r`@`l`*/ /*!50003 TRIGGER t1 BEFORE INSERT ON a FOR EACH ROW BEGIN
  /* it's */ INSERT INTO x VALUES (1); -- it's
  SET @a = 2 * 3 / 4; END */;;
DELIMITER //
CREATE FUNCTION `f`() RETURNS INT BEGIN /* // it's */ RETURN 4 / 2; END//
delimiter ;
/*!50003 SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES' */ ;
CREATE PROCEDURE q() SELECT 'C:\', "a\", '--';
INSERT INTO e VALUES ('\'),('(');
/*!50003 SET sql_mode = @saved_sql_mode */ ;
INSERT INTO e VALUES ('\'),(('),(2),('--'),(--1);
INSERT INTO `таблица ``x``` VALUES (1),(0x00),(_binary '('),('long enough for memchr to be used: aaaaaaaaaaaaaaaaaaaaaaaa''(1),(2)');
--
-- Table structure for table `q`

CREATE TABLE `q` (a TEXT COMMENT ';
-- Table structure for table `no`
');
-- Dump completed on 2026-11-25  0:08:23
"#;

#[test]
fn what_is_easily_mistaken() {
    let (events, complete) = scan(TRICKY.as_bytes());
    assert!(complete);
    let lines = lines(&events);
    let without_sections: Vec<_> = lines.iter().filter(|line| !line.contains("Header")).map(String::as_str).collect();
    let table = TRICKY.find("--\n-- Table structure for table `q`").unwrap();
    assert_eq!(
        without_sections,
        [
            "3 rows a",
            "3 rows a",
            "3 rows b",
            "1 rows c",
            "+ procedure p",
            "+ trigger t1",
            "+ function f",
            "+ procedure q",
            "2 rows e",
            "4 rows e",
            "4 rows таблица `x`",
            &format!("{table} Table q"),
            "+ table q"
        ]
    );
}

#[test]
fn rows_of_both_tools_forms() {
    counts("INSERT INTO `t` VALUES (1,2),(3,4);\nINSERT INTO `t` VALUES (5,6);\n", &[("t", 2), ("t", 1)]);
    counts("INSERT INTO `t` VALUES\n(1,'a'),\n(2,'b');\n", &[("t", 2)]);
    counts("INSERT INTO `t` (`id`, `hid`) VALUES (1,42),\n(2,43);\n", &[("t", 2)]);
    counts("INSERT  IGNORE INTO `t` VALUES (1);REPLACE INTO u VALUES ('');", &[("t", 1), ("u", 1)]);
}

#[test]
fn a_dump_without_comments_still_has_table_sections() {
    let dump = "CREATE TABLE `a` (i int);\nINSERT INTO a VALUES (1);\nCREATE TABLE b (i int);\n";
    assert_eq!(lines(&scan(dump.as_bytes()).0), ["0 Header ", "0 Table a", "+ table a", "1 rows a", "52 Table b", "+ table b"]);
}

#[test]
fn long_comments_and_statements_are_not_held_back() {
    let (mut scanner, mut events) = (Scanner::default(), vec![]);
    scanner.feed(b"-- ", &mut events);
    scanner.feed(&vec![b'x'; 100_000], &mut events);
    assert_eq!(scanner.settled(), scanner.position());
    scanner.feed(b"\nCREATE TABLE t (a TEXT COMMENT '", &mut events);
    assert!(scanner.settled() < scanner.position());
    scanner.feed(&vec![b'x'; 100_000], &mut events);
    assert_eq!(scanner.settled(), scanner.position());
}

/// `cargo test -p engine --release -- --ignored --nocapture scan_speed`
#[test]
#[ignore = "a measurement"]
fn scan_speed() {
    let mut dump = String::from("INSERT INTO `t` VALUES ");
    let mut next = 0u64;
    while dump.len() < 64 << 20 {
        next += 1;
        dump.push_str(&format!("({next},-{next},'short','2024-01-01 00:00:00',NULL,'a title of some words, it\\'s {next}',1.5,''),"));
    }
    dump.push_str("(1,1);\n");
    let start = std::time::Instant::now();
    let (events, _) = scan(dump.as_bytes());
    let speed = dump.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
    println!("{speed:.0} MB/s, {:?}", events.last());
}

#[test]
fn a_semicolon_at_the_end_of_a_body() {
    let at = |sql: &str| {
        let starts = |event| match event {
            Event::StraySemicolon { start } => Some(start),
            _ => None,
        };
        // Split anywhere, the same.
        for split in 0..sql.len() {
            let (mut scanner, mut events) = (Scanner::default(), vec![]);
            scanner.feed(&sql.as_bytes()[..split], &mut events);
            let settled = scanner.settled();
            scanner.feed(&sql.as_bytes()[split..], &mut events);
            let found: Vec<u64> = events.into_iter().filter_map(starts).collect();
            assert_eq!(found, scan(sql.as_bytes()).0.into_iter().filter_map(starts).collect::<Vec<_>>(), "{split}");
            assert!(found.iter().all(|start| *start >= settled || (*start as usize) < split), "{split}");
        }
        scan(sql.as_bytes()).0.into_iter().find_map(starts).map(|start| start as usize)
    };
    let trigger = "DELIMITER ;;\n/*!50003 CREATE*/ /*!50003 TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET NEW.a = 1; */;;\nDELIMITER ;\n";
    assert_eq!(at(trigger), trigger.find("; */"));
    let event = "DELIMITER ;;\n/*!50106 EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t ;\n */ ;;\nDELIMITER ;\n";
    assert_eq!(at(event), event.find(";\n */"));
    for fine in [
        "DELIMITER ;;\n/*!50003 TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET @a = '; */'; SET @b = 2; END */;;\nDELIMITER ;\n",
        "/*!40101 SET @a = 1 */;\n",
        "DELIMITER ;;\nCREATE PROCEDURE p() UPDATE t SET a = 1; ;;\nDELIMITER ;\n",
    ] {
        assert_eq!(at(fine), None, "{fine}");
    }
}
