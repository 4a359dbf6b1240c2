//! Floor 8. The process: exit codes and nothing else.

fn main() {}
