//! Nothing here: see integration.rs.
