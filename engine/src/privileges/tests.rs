//! Against SHOW GRANTS as MySQL 9.7 and MariaDB 10.11 wrote it.

use super::*;
use std::collections::BTreeMap;

fn parse(lines: &[&str]) -> Privileges {
    Privileges::parse(lines.iter().copied(), false, false)
}

fn server(flavour: Flavour) -> Server {
    Server {
        flavour,
        version: String::new(),
        server_id: 1,
        server_uuid: None,
        log_bin: true,
        binlog_format: "ROW".to_owned(),
        gtid: true,
        read_only: false,
        partial_revokes: false,
        ignores_case: false,
        account: "lim@localhost".to_owned(),
        variables: BTreeMap::new(),
    }
}

fn required(lines: &[&str], flavour: Flavour, schema: &str) -> Vec<String> {
    let missing = missing_for_dump(&parse(lines), &server(flavour), schema, true);
    missing.into_iter().filter(|m| m.required).map(|m| m.grant_statement).collect()
}

#[test]
fn mysql_with_roles() {
    let p = parse(&[
        "GRANT USAGE ON *.* TO `lim`@`localhost`",
        "GRANT TRIGGER ON `app`.* TO `lim`@`localhost`",
        "GRANT CREATE ON `heratio\\_bk\\_%`.* TO `lim`@`localhost`",
        "GRANT SELECT ON `app`.`child` TO `lim`@`localhost` WITH GRANT OPTION",
        "GRANT SELECT (`id`), INSERT (`s`) ON `app`.`t1` TO `lim`@`localhost`",
        "GRANT EXECUTE ON PROCEDURE `app`.`p1` TO `lim`@`localhost`",
        "GRANT `r1`@`%` TO `lim`@`localhost`",
    ]);
    assert!(p.has("TRIGGER", "app"));
    assert!(!p.has("SELECT", "app") && p.has_on_table("SELECT", "app", "child"));
    assert!(!p.has_on_table("SELECT", "app", "t1"), "a right on columns is none on the table");
    assert!(!p.has("EXECUTE", "app"));
    assert!(p.has("CREATE", "heratio_bk_stage_1") && !p.has("CREATE", "heratioxbkxstage"));
}

#[test]
fn a_literal_schema_hides_a_pattern() {
    let p = parse(&["GRANT SELECT ON `app`.* TO `lim`@`localhost`", "GRANT TRIGGER ON `ap%`.* TO `lim`@`localhost`"]);
    assert!(p.has("SELECT", "app") && !p.has("TRIGGER", "app"));
    assert!(p.has("TRIGGER", "apx") && !p.has("SELECT", "apx"));
}

#[test]
fn the_longer_pattern_hides_the_shorter() {
    let p = parse(&["GRANT SELECT ON `app%`.* TO `l`@`h`", "GRANT TRIGGER ON `a%`.* TO `l`@`h`", "GRANT EVENT ON `a_pp`.* TO `l`@`h`"]);
    assert!(p.has("SELECT", "app1") && !p.has("TRIGGER", "app1"));
    assert!(!p.has("TRIGGER", "axpp") && !p.has("EVENT", "axpp"), "equally specific ones must agree");
}

#[test]
fn mariadb_looks_at_account_role_and_public_one_by_one() {
    let p = parse(&[
        "GRANT `r1` TO `lim`@`localhost`",
        "GRANT USAGE ON *.* TO `lim`@`localhost` IDENTIFIED BY PASSWORD '*7B9EBEED26AA52ED10C0F549FA863F13C39E0209'",
        "GRANT SELECT ON `app`.* TO `lim`@`localhost`",
        "GRANT USAGE ON *.* TO `r1`",
        "GRANT TRIGGER ON `ap%`.* TO `r1`",
        "GRANT SELECT, DELETE HISTORY ON `test\\_%`.* TO PUBLIC",
        "SET DEFAULT ROLE `r1` FOR `lim`@`localhost`",
    ]);
    assert!(p.has("TRIGGER", "app") && p.has("SELECT", "app"));
    assert!(p.has("DELETE HISTORY", "test_1") && !p.has("SELECT", "testx1"));
}

#[test]
fn all_privileges_and_partial_revokes() {
    let p = parse(&["GRANT ALL PRIVILEGES ON `app`.* TO `u`@`%` WITH GRANT OPTION"]);
    assert!(p.has("TRIGGER", "app") && !p.has_global("TRIGGER"));
    let lines = [
        "GRANT SELECT, TRIGGER, RELOAD ON *.* TO `u`@`%`",
        "GRANT BACKUP_ADMIN,SHOW_ROUTINE ON *.* TO `u`@`%`",
        "REVOKE SELECT ON `app_x`.* FROM `u`@`%`",
        "GRANT EVENT ON `app%`.* TO `u`@`%`",
    ];
    let p = Privileges::parse(lines, true, false);
    assert!(p.has("SELECT", "app") && !p.has("SELECT", "app_x") && p.has("TRIGGER", "app_x"));
    assert!(p.has("SELECT", "appyx"), "no pattern when partial_revokes is on");
    assert!(!p.has("EVENT", "app1") && p.has("EVENT", "app%"));
}

#[test]
fn dynamic_privileges_are_listed_without_spaces() {
    let p = parse(&["GRANT BACKUP_ADMIN,FLUSH_TABLES,SHOW_ROUTINE ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
    assert!(p.has_global("FLUSH_TABLES") && p.has_global("SHOW_ROUTINE") && !p.has_global("PROCESS"));
}

#[test]
fn names_with_quotes_and_keywords() {
    let p = parse(&[
        "GRANT SELECT ON `a ON b`.* TO `x TO y`@`%`",
        "GRANT SELECT ON `we``ird`.* TO `x`@`%`",
        "GRANT PROXY ON ``@`%` TO `r`@`%`",
    ]);
    assert!(p.has("SELECT", "a ON b") && p.has("SELECT", "we`ird"));
}

#[test]
fn schema_case_follows_the_server() {
    let lines = ["GRANT SELECT ON `App`.* TO `u`@`%`"];
    assert!(!Privileges::parse(lines, false, false).has("SELECT", "app"));
    assert!(Privileges::parse(lines, false, true).has("SELECT", "app"));
}

#[test]
fn what_a_mysql_dump_needs() {
    let enough = [
        "GRANT FLUSH_TABLES,SHOW_ROUTINE ON *.* TO `lim`@`localhost`",
        "GRANT REPLICATION CLIENT ON *.* TO `lim`@`localhost`",
        "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `my_app`.* TO `lim`@`localhost`",
    ];
    assert_eq!(required(&enough, Flavour::MySql, "my_app"), [""; 0]);
    assert_eq!(
        required(&["GRANT SELECT, SHOW VIEW, EVENT ON `my_app`.* TO `lim`@`localhost`"], Flavour::MySql, "my_app"),
        [
            "GRANT TRIGGER ON `my\\_app`.* TO 'lim'@'localhost';",
            "GRANT SHOW_ROUTINE ON *.* TO 'lim'@'localhost';",
            "GRANT FLUSH_TABLES ON *.* TO 'lim'@'localhost';",
            "GRANT REPLICATION CLIENT ON *.* TO 'lim'@'localhost';",
        ]
    );
    let without_binlog = missing_for_dump(&parse(&enough[..1]), &server(Flavour::MySql), "my_app", false);
    let names: Vec<_> = without_binlog.iter().filter(|m| m.required).map(|m| m.privilege.as_str()).collect();
    assert_eq!(names, ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"]);
}

#[test]
fn what_a_mariadb_dump_needs() {
    let schema = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `app`.* TO `lim`@`localhost`";
    assert_eq!(required(&[schema], Flavour::MariaDb, "app"), ["GRANT SELECT ON `mysql`.`proc` TO 'lim'@'localhost';"]);
    for enough in ["GRANT SELECT ON `mysql`.`proc` TO `lim`@`localhost`", "GRANT SHOW CREATE ROUTINE ON *.* TO `lim`@`localhost`"] {
        assert_eq!(required(&[schema, enough], Flavour::MariaDb, "app"), [""; 0]);
    }
    assert_eq!(required(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost`"], Flavour::MariaDb, "app"), [""; 0]);
}
